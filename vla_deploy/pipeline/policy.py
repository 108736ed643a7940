# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A policy that is served: a verified bundle, a backend, and the one pipeline around it."""

from __future__ import annotations

import dataclasses
import math
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.contract import Contract
from vla_deploy.pipeline import bundle as bundles
from vla_deploy.pipeline.backend import (
    Backend,
    BackendOptions,
    Closed,
    ModelInputs,
    PolicyError,
    close_backend,
    load_backend,
)
from vla_deploy.pipeline.bundle import Bundle, BundleError, open_bundle, threshold_name
from vla_deploy.pipeline.compiled import CompileError
from vla_deploy.pipeline.embedding import embedding_rows
from vla_deploy.pipeline.fixtures import SelfTest, compare, read_fixtures
from vla_deploy.pipeline.guidance import Guidance, continuation_inputs
from vla_deploy.pipeline.normalize import (
    ActionDecoder,
    StatisticsError,
    VectorNormalizer,
    read_statistics,
)
from vla_deploy.pipeline.observation import (
    CheckedObservation,
    Observation,
    ObservationError,
    check_observation,
)
from vla_deploy.pipeline.policy_chunk import PolicyChunk, Timings
from vla_deploy.pipeline.preprocess import Preprocessor
from vla_deploy.pipeline.sampler import NO_HASTE, EulerSampler, Haste, philox_noise
from vla_deploy.pipeline.tokenize import Prompt, PromptEncoder, TokenizerError

SEED_BITS = 63
MAX_PREPROCESS_THREADS = 4


@dataclasses.dataclass(frozen=True, eq=False)
class _Taken:
    """An observation, checked and preprocessed."""

    checked: CheckedObservation
    inputs: ModelInputs
    prompt: Prompt
    preprocess_s: float


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

        Raises BundleError where the tokenizer or the statistics do not fit the contract, and
        PolicyError where the image code is neither installed nor can be compiled.
        """
        contract = bundle.contract
        try:
            statistics = read_statistics(bundle.path / bundles.NORMALIZER)
            encoder = PromptEncoder(
                bundle.path / bundles.TOKENIZER, contract.tokenizer, embedding_rows(bundle)
            )
            state_normalizer = VectorNormalizer('state', contract.state, statistics)
            self._decode_actions = ActionDecoder(contract.action, statistics)
        except TokenizerError as error:
            raise BundleError(str(error)) from error
        except StatisticsError as error:
            raise BundleError(f'{bundle.path / bundles.NORMALIZER}: {error}') from error
        self._bundle = bundle
        self._backend: Backend = backend
        self._whole: Callable[..., NDArray[np.float32]] | None = getattr(backend, 'whole', None)
        self._several: Callable[..., list[NDArray[np.float32]]] | None = getattr(
            backend, 'several', None
        )
        self._precision = precision
        threads = threads or min(len(os.sched_getaffinity(0)), MAX_PREPROCESS_THREADS)
        try:
            self._preprocess = Preprocessor(contract, encoder, state_normalizer, threads)
        except CompileError as error:
            raise PolicyError(str(error)) from error
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
        batch: int = 1,
    ) -> Policy:
        """Verify every byte of a bundle folder and load it on a backend.

        `threads`: of the backend and of preprocessing, None for as many as they like.
        `stub_value`: what the backend 'stub' returns for every joint, in robot units.
        `batch`: observations at most that `infer_batch` computes together.
        Raises BundleError, which names the file, and PolicyError where the backend cannot do
        exactly what is asked.
        """
        options = BackendOptions(provider, precision, variant, threads, stub_value, batch)
        return cls.serve(open_bundle(path), backend, options)

    @classmethod
    def serve(cls, bundle: Bundle, backend: str, options: BackendOptions) -> Policy:
        """Load a bundle, verified before, on a backend; errors as `load`."""
        loaded = load_backend(backend, bundle, options)
        try:
            return cls(bundle, loaded, options.threads, options.precision)
        except Exception:
            close_backend(loaded)
            raise

    def close(self) -> None:
        """Give back what the backend holds, of a GPU's memory above all, at once; what is asked
        of the policy afterwards raises PolicyError."""
        with self._lock:
            closing, self._backend = self._backend, Closed()
            self._whole = self._several = None
            close_backend(closing)

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
    def batch(self) -> int:
        """Observations at most that `infer_batch` takes."""
        return int(getattr(self._backend, 'batch', 1))

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
        noise, noise_seed = self._noise(noise, noise_seed)
        with self._lock:
            return self._infer(observation, noise, noise_seed, guidance, haste)

    def infer_batch(
        self,
        observations: Sequence[Observation],
        noise: Sequence[NDArray[np.float32] | None] | None = None,
        noise_seeds: Sequence[int | None] | None = None,
    ) -> list[PolicyChunk]:
        """Compute the chunks of up to `batch` observations together, those of several robots of
        one kind, say. Fewer take as long as `batch` of them, but one alone.

        Noise or seeds, one for each observation, and errors are those of `infer`; what is said of
        an observation begins with its number. A chunk is that of its observation alone, but for
        rounding, whatever the others are. Raises ValueError for other numbers of observations,
        noises or seeds, and PolicyError where the policy was loaded for one at a time.
        """
        count = len(observations)
        if self._several is None or self.batch == 1:
            raise PolicyError(
                'the policy takes one observation at a time; load it with backend torch_cuda, '
                "variant 'unrolled' and a batch of several"
            )
        if not 1 <= count <= self.batch:
            raise ValueError(f'{count} observations, but must be 1 to {self.batch}')
        noises = [None] * count if noise is None else noise
        seeds = [None] * count if noise_seeds is None else noise_seeds
        if len(noises) != count or len(seeds) != count:
            raise ValueError(f'give {count} noises or seeds, one for each observation')
        drawn = [self._noise(*pair) for pair in zip(noises, seeds, strict=True)]
        with self._lock:
            taken = [self._take(index, each) for index, each in enumerate(observations)]
            begin = time.perf_counter()
            raw = self._several([t.inputs for t in taken], [own for own, _ in drawn])
            sample_s = time.perf_counter() - begin
            return [
                self._finish(own, chunk, seed, self.contract.denoise_steps, 0.0, sample_s)
                for own, chunk, (_, seed) in zip(taken, raw, drawn, strict=True)
            ]

    def seen(self, observation: Observation) -> tuple[int, int]:
        """Return how many cameras and tokens of an observation take part; errors as `infer`."""
        with self._lock:
            inputs = self._taken(observation).inputs
            return int(inputs.image_mask.sum()), int(inputs.token_mask.sum())

    def self_test(self) -> SelfTest:
        """Run the bundle's fixtures through everything that serves, whole chunks and steps apart
        where there are both, and compare with the reference's own chunks; this warms up as well.

        With a backend that emits robot units there is nothing to compare with: what is tested
        then is that the chunks are finite. Raises BundleError where the fixtures are not readable
        or the receipt holds no threshold.
        """
        name = threshold_name(self._precision)
        threshold = self._bundle.receipt.get('thresholds', {}).get(name)
        if not isinstance(threshold, float):
            raise BundleError(
                f'{self._bundle.path / bundles.RECEIPT}: has no thresholds.{name}; export again '
                f'with --precision {self._precision}'
            )
        pairs = []
        fixtures = read_fixtures(self._bundle.path / bundles.FIXTURES, self.contract)
        for fixture in fixtures:
            for haste in self._computations():
                raw = self.infer(fixture.observation, fixture.noise, haste=haste).raw
                pairs.append((raw, raw if self._backend.emits_robot_units else fixture.chunk))
        if self.batch > 1:
            together = [fixtures[index % len(fixtures)] for index in range(self.batch)]
            chunks = self.infer_batch(
                [own.observation for own in together], [own.noise for own in together]
            )
            pairs += [(own.raw, of.chunk) for own, of in zip(chunks, together, strict=True)]
        return compare(pairs, threshold)

    def _computations(self) -> tuple[Haste, ...]:
        """Return what asks for each computation that may serve: the whole chunk, and all steps one
        by one, for a deadline that never comes."""
        if self._whole is None or not self.takes_steps_apart:
            return (NO_HASTE,)
        return NO_HASTE, Haste(deadline_s=math.inf)

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
        return float(np.max(errors))  # and not max(), which passes over NaN

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
        if guidance is not None and self.contract.action.semantics != 'absolute':
            # what is left in model space is relative to a state that is past
            raise PolicyError('guidance needs absolute actions; this policy gives differences')
        taken = self._taken(observation)
        begin = time.perf_counter()
        steps = self.contract.denoise_steps
        if self._whole is not None and guidance is None and not haste.needs_steps:
            prefixed = begin
            time.sleep(haste.injected_latency_s)
            raw = self._whole(taken.inputs, noise)
        else:
            prefix = self._backend.prefix(taken.inputs)
            prefixed = time.perf_counter()
            raw, steps = self._sample_steps(prefix, noise, guidance, haste)
        sample_s = time.perf_counter() - prefixed
        return self._finish(taken, raw, noise_seed, steps, prefixed - begin, sample_s)

    def _noise(
        self, noise: NDArray[np.float32] | None, noise_seed: int | None
    ) -> tuple[NDArray[np.float32], int | None]:
        """Return the initial noise and the seed it was drawn from, if it was."""
        if noise is None:
            noise_seed = secrets.randbits(SEED_BITS) if noise_seed is None else noise_seed
            return philox_noise(noise_seed, self._chunk_shape), noise_seed
        if noise_seed is not None:
            raise ValueError('give noise or noise_seed, not both')
        if noise.shape != self._chunk_shape or noise.dtype != np.float32:
            raise ValueError(
                f'noise must be float32 {list(self._chunk_shape)}, '
                f'not {noise.dtype} {list(noise.shape)}'
            )
        return noise, None

    def _taken(self, observation: Observation) -> _Taken:
        """Check and preprocess; the images are overwritten by the next one's."""
        begin = time.perf_counter()
        checked = check_observation(observation, self.contract)
        inputs, prompt = self._preprocess(checked)
        return _Taken(checked, inputs, prompt, time.perf_counter() - begin)

    def _take(self, index: int, observation: Observation) -> _Taken:
        """Check and preprocess one of several, whose images are its own."""
        try:
            taken = self._taken(observation)
        except ObservationError as error:
            raise ObservationError(f'observation {index}: {error}') from error
        inputs = taken.inputs._replace(images=taken.inputs.images.copy())
        return dataclasses.replace(taken, inputs=inputs)

    def _finish(
        self, taken: _Taken, raw: NDArray[np.float32], noise_seed: int | None, steps: int,
        prefix_s: float, sample_s: float,
    ) -> PolicyChunk:
        """Bring a chunk to robot units, and say how it came about."""
        begin = time.perf_counter()
        checked, prompt = taken.checked, taken.prompt
        actions = self._to_robot(raw, checked.state)
        finite = bool(np.isfinite(raw).all() and np.isfinite(actions).all())
        postprocess_s = time.perf_counter() - begin
        return PolicyChunk(
            actions=actions,
            raw=raw,
            timings=Timings(taken.preprocess_s, prefix_s, sample_s, postprocess_s),
            noise_seed=noise_seed,
            prompt_truncated=prompt.truncated,
            state_lost=prompt.state_lost,
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
