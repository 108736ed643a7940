# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A policy that is served: a verified bundle, a backend, and the one pipeline around it."""

from __future__ import annotations

import dataclasses
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.contract import Contract
from vla_deploy.pipeline import bundle as bundles
from vla_deploy.pipeline.backend import Backend, BackendOptions, PolicyError, load_backend
from vla_deploy.pipeline.bundle import Bundle, BundleError, open_bundle, threshold_name
from vla_deploy.pipeline.fixtures import SelfTest, compare, read_fixtures
from vla_deploy.pipeline.guidance import Guidance, continuation_inputs
from vla_deploy.pipeline.normalize import (
    ActionDecoder,
    StatisticsError,
    VectorNormalizer,
    read_statistics,
)
from vla_deploy.pipeline.observation import Observation, check_observation
from vla_deploy.pipeline.preprocess import ModelInputs, Preprocessor
from vla_deploy.pipeline.sampler import NO_HASTE, EulerSampler, Haste, philox_noise
from vla_deploy.pipeline.tokenize import PromptEncoder, TokenizerError

SEED_BITS = 63
MAX_PREPROCESS_THREADS = 4


@dataclasses.dataclass(frozen=True)
class Timings:
    """Durations of one inference by the steady clock, in seconds.

    Where a variant computes the whole chunk in one run, all of that is `sample_s`, and `prefix_s`
    is 0.
    """

    preprocess_s: float
    prefix_s: float
    sample_s: float
    postprocess_s: float


@dataclasses.dataclass(frozen=True, eq=False)
class PolicyChunk:
    """What a policy wants to do: `actions` float64 [steps, dim] in robot units, and `raw`
    float32 [steps, padded_dim] in model space.

    `noise_seed` is None where the caller gave the noise. `prompt_truncated` says that the end of
    the prompt was not seen by the policy, `state_lost` that this cost it (part of) the state, which
    some policies read as text, `missing_cameras` which cameras it did without.
    `denoise_steps` were taken, all of the contract's where nothing cut them short.
    `finite` is False where an element is NaN or infinite; such a chunk is returned as it is, for
    the guard to refuse.
    """

    actions: NDArray[np.float64]
    raw: NDArray[np.float32]
    timings: Timings
    noise_seed: int | None
    prompt_truncated: bool
    state_lost: bool
    missing_cameras: tuple[str, ...]
    instruction: str
    denoise_steps: int
    finite: bool


class Policy:
    """Turns observations into chunks. `infer` may be called by several threads; one at a time
    computes."""

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        threads: int | None = None,
        precision: str = 'fp32',
    ) -> None:
        """Put the pipeline of a verified bundle around a backend.

        `threads` that preprocess images; None for one a core, up to four. `precision` in which
        the backend computes: each has a threshold of its own in the receipt.

        Raises BundleError where the tokenizer or the statistics do not fit the contract.
        """
        contract = bundle.contract
        try:
            statistics = read_statistics(bundle.path / bundles.NORMALIZER)
            encoder = PromptEncoder(bundle.path / bundles.TOKENIZER, contract.tokenizer)
            state_normalizer = VectorNormalizer('state', contract.state, statistics)
            self._decode_actions = ActionDecoder(contract.action, statistics)
        except TokenizerError as error:
            raise BundleError(str(error)) from error
        except StatisticsError as error:
            raise BundleError(f'{bundle.path / bundles.NORMALIZER}: {error}') from error
        self._bundle = bundle
        self._backend = backend
        self._whole: Callable[..., NDArray[np.float32]] | None = getattr(backend, 'whole', None)
        self._threshold_name = threshold_name(precision)
        threads = threads or min(len(os.sched_getaffinity(0)), MAX_PREPROCESS_THREADS)
        self._preprocess = Preprocessor(contract, encoder, state_normalizer, threads)
        self._sample = EulerSampler(contract.time_embedding, contract.denoise_steps)
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        backend: str = 'onnx_runtime',
        provider: str = 'cpu',
        precision: str = 'fp32',
        variant: str = 'split',
        threads: int | None = None,
        stub_value: float = 0.0,
    ) -> Policy:
        """Verify every byte of a bundle folder and load it on a backend.

        `threads`: of the backend and of preprocessing, None for as many as they like.
        `stub_value`: what the backend 'stub' returns for every joint, in robot units.
        Raises BundleError, which names the file, and PolicyError where the backend cannot do
        exactly what is asked.
        """
        options = BackendOptions(provider, precision, variant, threads, stub_value)
        return cls.serve(open_bundle(path), backend, options)

    @classmethod
    def serve(cls, bundle: Bundle, backend: str, options: BackendOptions) -> Policy:
        """Load a bundle, verified before, on a backend; errors as `load`."""
        loaded = load_backend(backend, bundle, options)
        return cls(bundle, loaded, options.threads, options.precision)

    @property
    def contract(self) -> Contract:
        """What the policy takes and gives."""
        return self._bundle.contract

    @property
    def bundle(self) -> Bundle:
        """The verified bundle that is served."""
        return self._bundle

    @property
    def takes_steps_apart(self) -> bool:
        """Whether guidance, a deadline and adaptive steps are possible with what is served."""
        return bool(getattr(self._backend, 'takes_steps_apart', True))

    @property
    def model_sha256(self) -> str:
        """Digest of the bundle's receipt, which holds the digests of all its files."""
        return self._bundle.model_sha256

    @property
    def receipt(self) -> Mapping[str, Any]:
        """What export wrote about the bundle: digests, figures, thresholds, the reference."""
        return self._bundle.receipt

    def infer(
        self,
        observation: Observation,
        noise: NDArray[np.float32] | None = None,
        noise_seed: int | None = None,
        guidance: Guidance | None = None,
        haste: Haste = NO_HASTE,
    ) -> PolicyChunk:
        """Compute a chunk from one observation.

        The initial noise is `noise` (float32 [steps, padded_dim]), or drawn from `noise_seed`, or
        from a seed that is drawn anew; the chunk holds the seed. `guidance` draws the chunk toward
        what is left of the previous one: in each velocity, or by the policy itself where its
        contract reserves inputs for that. `haste` may cut the steps short. Raises
        ObservationError, which names the stream, ValueError for noise of another shape or both
        given, or guidance that does not fit, DeadlineError, and PolicyError for guidance or haste
        with a variant that does not take the steps one by one.
        """
        if noise is None:
            noise_seed = secrets.randbits(SEED_BITS) if noise_seed is None else noise_seed
            noise = philox_noise(noise_seed, self._chunk_shape)
        elif noise_seed is not None:
            raise ValueError('give noise or noise_seed, not both')
        elif noise.shape != self._chunk_shape or noise.dtype != np.float32:
            raise ValueError(
                f'noise must be float32 {list(self._chunk_shape)}, '
                f'not {noise.dtype} {list(noise.shape)}'
            )
        with self._lock:
            return self._infer(observation, noise, noise_seed, guidance, haste)

    def self_test(self) -> SelfTest:
        """Run the bundle's fixtures through everything that serves, and compare with the
        reference's own chunks; this warms up as well.

        With a backend that emits robot units there is nothing to compare with: what is tested
        then is that the chunks are finite. Raises BundleError where the fixtures are not readable
        or the receipt holds no threshold.
        """
        threshold = self._bundle.receipt.get('thresholds', {}).get(self._threshold_name)
        if not isinstance(threshold, float):
            raise BundleError(
                f'{self._bundle.path / bundles.RECEIPT}: has no thresholds.{self._threshold_name}'
            )
        pairs = []
        for fixture in read_fixtures(self._bundle.path / bundles.FIXTURES, self.contract):
            raw = self.infer(fixture.observation, fixture.noise).raw
            pairs.append((raw, raw if self._backend.emits_robot_units else fixture.chunk))
        return compare(pairs, threshold)

    def adaptive_error(self, tolerance: float) -> float:
        """Return the largest error in robot units that `Haste.adaptive_tolerance` causes in the
        chunks of the bundle's fixtures; 0 with a tolerance of 0."""
        if tolerance == 0.0:
            return 0.0
        errors = []
        for fixture in read_fixtures(self._bundle.path / bundles.FIXTURES, self.contract):
            all_steps = self.infer(fixture.observation, fixture.noise)
            haste = Haste(adaptive_tolerance=tolerance)
            fewer = self.infer(fixture.observation, fixture.noise, haste=haste)
            errors.append(np.abs(fewer.actions - all_steps.actions).max())
        return float(max(errors))

    @property
    def _chunk_shape(self) -> tuple[int, int]:
        return self.contract.chunk_steps, self.contract.action.padded_dim

    def _infer(
        self,
        observation: Observation,
        noise: NDArray[np.float32],
        noise_seed: int | None,
        guidance: Guidance | None,
        haste: Haste,
    ) -> PolicyChunk:
        begin = time.perf_counter()
        if guidance is not None and self.contract.action.semantics != 'absolute':
            # what is left in model space is relative to a state that is past
            raise PolicyError('guidance needs absolute actions; this policy gives differences')
        checked = check_observation(observation, self.contract)
        inputs = self._preprocess(checked)
        preprocessed = time.perf_counter()
        steps = self.contract.denoise_steps
        if self._whole is not None and guidance is None and not haste.needs_steps:
            prefixed = preprocessed
            time.sleep(haste.injected_latency_s)
            raw = self._whole(*_arrays(inputs), noise)
        else:
            prefix = self._backend.prefix(*_arrays(inputs))
            prefixed = time.perf_counter()
            raw, steps = self._sample_steps(prefix, noise, guidance, haste)
        sampled = time.perf_counter()
        actions = self._to_robot(raw, checked.state)
        finite = bool(np.isfinite(raw).all() and np.isfinite(actions).all())
        end = time.perf_counter()
        return PolicyChunk(
            actions=actions,
            raw=raw,
            timings=Timings(
                preprocessed - begin, prefixed - preprocessed, sampled - prefixed, end - sampled
            ),
            noise_seed=noise_seed,
            prompt_truncated=inputs.prompt.truncated,
            state_lost=inputs.prompt.state_lost,
            missing_cameras=checked.missing_cameras,
            instruction=checked.instruction,
            denoise_steps=steps,
            finite=finite,
        )

    def _sample_steps(
        self, prefix: Any, noise: NDArray[np.float32], guidance: Guidance | None, haste: Haste
    ) -> tuple[NDArray[np.float32], int]:
        """Sample step by step; a policy with inputs for the previous chunk is given that instead
        of corrected velocities."""
        given: tuple[NDArray[Any], ...] = ()
        if self.contract.reserved_inputs:
            given = continuation_inputs(guidance, self._chunk_shape)
            guidance = None
        return self._sample(
            lambda x, t, dt: self._backend.step(prefix, x, t, dt, *given), noise, guidance, haste
        )

    def _to_robot(
        self, raw: NDArray[np.float32], state: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        if self._backend.emits_robot_units:
            return raw[:, : self.contract.action.dim].astype(np.float64)
        return self._decode_actions(raw, state).astype(np.float64)


def _arrays(inputs: ModelInputs) -> tuple[NDArray[Any], ...]:
    """Return what a backend takes, in its order."""
    prompt = inputs.prompt
    return inputs.images, inputs.image_mask, prompt.ids, prompt.mask, inputs.state
