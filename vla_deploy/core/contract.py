# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The contract of a bundle: what a policy takes and gives, in names, sizes, units and times.

It is `contract.yaml` in a bundle. Export writes it, the pipeline and the nodes read it, and
nothing that it says is written down a second time elsewhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from vla_deploy.core import strict

SCHEMA_VERSION = 3
PLACEMENTS = ('pad_left_top', 'pad_center')
NORMALIZATIONS = ('identity', 'mean_std', 'quantiles', 'min_max')
PADDINGS = ('max_length', 'longest')
NEWLINES = ('append_if_missing', 'none')
PROMPTS = ('instruction', 'instruction_and_state')
CONTROL_MODES = ('position', 'velocity')
SEMANTICS = ('absolute', 'delta')
# inputs of the step graph of a policy that was trained to continue its previous chunk
CONTINUATION = ('prev_chunk', 'delay')


class ContractError(ValueError):
    """A contract is not readable or contradicts itself; the message names the key."""


@dataclasses.dataclass(frozen=True)
class Camera:
    """One camera: its short `name` (topics, observations), the checkpoint's `key`, and the size
    in pixels of the images that the policy was trained on (others are accepted and resized)."""

    name: str
    key: str
    height: int
    width: int


@dataclasses.dataclass(frozen=True)
class ImageRule:
    """How an image becomes a model input: bilinear resize that keeps the aspect ratio into
    `height` × `width` pixels; `placement` says where the padding goes (left and top, or both
    sides with the odd pixel at the bottom and right). 0..255 becomes value_low..value_high, and
    padding and missing cameras are value_low."""

    height: int
    width: int
    placement: str
    value_low: float
    value_high: float


@dataclasses.dataclass(frozen=True)
class Normalization:
    """`mode` of a vector's normalisation and the `epsilon` of its denominator. The statistics
    are in normalizer.safetensors."""

    mode: str
    epsilon: float


@dataclasses.dataclass(frozen=True)
class StateSpec:
    """The joint state: `dim` real elements, zero-padded to `padded_dim`. `joints` and their
    `units` ('rad', 'm', …) in the policy's order; null where the checkpoint does not say."""

    joints: tuple[str, ...] | None
    units: tuple[str, ...] | None
    dim: int
    padded_dim: int
    normalization: Normalization


@dataclasses.dataclass(frozen=True)
class ActionSpec:
    """One action: as StateSpec, and what it commands. Sample i of a chunk is wanted at
    observation time + (i + first_sample_offset_steps) × period_s. With semantics 'delta' the
    elements `delta_dims` are, in every sample, relative to the element of the same index of the
    observation's state; with 'absolute' there are none."""

    joints: tuple[str, ...] | None
    units: tuple[str, ...] | None
    dim: int
    padded_dim: int
    normalization: Normalization
    control_mode: str
    semantics: str
    delta_dims: tuple[int, ...]
    first_sample_offset_steps: int


Vector = TypeVar('Vector', StateSpec, ActionSpec)


@dataclasses.dataclass(frozen=True)
class TokenizerSpec:
    """How the instruction becomes tokens: ids right-truncated and right-padded to `max_length`
    with `pad_token_id`. `padding` is how the checkpoint was trained to pad; the graph always
    takes max_length tokens, and masked ones change nothing. `newline` says whether a newline is
    appended to a prompt that does not end with one. `prompt` says what the text is: the
    instruction as it is, or pi0.5's sentence of the instruction and the normalised state."""

    max_length: int
    padding: str
    pad_token_id: int
    newline: str
    prompt: str


@dataclasses.dataclass(frozen=True)
class TimeEmbedding:
    """Sinusoidal embedding of the flow time: `dim` elements, periods from `min_period` to
    `max_period`."""

    dim: int
    min_period: float
    max_period: float


@dataclasses.dataclass(frozen=True)
class Contract:
    """What a bundle takes and gives. `period_s` is the time between two samples of a chunk in
    seconds, null where the checkpoint does not say. `reserved_inputs` names further inputs of the
    step graph: none, or those of CONTINUATION for a policy that was trained to continue the chunk
    before: prev_chunk float32 [chunk_steps, action.padded_dim] and delay int64 []."""

    schema_version: int
    family: str
    cameras: tuple[Camera, ...]
    empty_camera_slots: int
    image: ImageRule
    state: StateSpec
    action: ActionSpec
    chunk_steps: int
    denoise_steps: int
    period_s: float | None
    tokenizer: TokenizerSpec
    time_embedding: TimeEmbedding
    reserved_inputs: tuple[str, ...]

    def __post_init__(self) -> None:
        _check(self)

    @property
    def camera_slots(self) -> int:
        """Number of images that the prefix graph takes."""
        return len(self.cameras) + self.empty_camera_slots

    @property
    def camera_names(self) -> tuple[str, ...]:
        """Short names of the cameras, in the policy's order."""
        return tuple(camera.name for camera in self.cameras)

    @classmethod
    def from_mapping(cls, values: object) -> Contract:
        """Read a parsed contract.yaml; raises ContractError, which names the key."""
        try:
            return strict.from_mapping(cls, _of_today(values))
        except strict.SchemaError as error:
            raise ContractError(str(error)) from error

    def to_mapping(self) -> dict[str, Any]:
        """Return what contract.yaml holds; `from_mapping` reads it back to an equal contract."""
        return strict.to_mapping(self)

    def commanding(self, joints: Sequence[str]) -> Contract:
        """Return the contract of what is commanded, where actions are made into positions of other
        joints than the policy's own elements; raises ContractError for more than padded_dim."""
        action = dataclasses.replace(
            self.action, joints=tuple(joints), units=None, dim=len(joints)
        )
        return dataclasses.replace(self, action=action)

    def with_robot(
        self,
        state_joints: Sequence[str] | None = None,
        state_units: Sequence[str] | None = None,
        action_joints: Sequence[str] | None = None,
        action_units: Sequence[str] | None = None,
        period_s: float | None = None,
    ) -> Contract:
        """Return a contract that names the joints, units and period that this one leaves open.

        Raises ContractError where this contract already says otherwise, or a length is wrong.
        """
        state = _fill_vector('state', self.state, state_joints, state_units)
        action = _fill_vector('action', self.action, action_joints, action_units)
        period = _fill('period_s', self.period_s, period_s)
        return dataclasses.replace(self, state=state, action=action, period_s=period)


def _of_today(values: object) -> object:
    """Return a mapping of an older schema version in today's form.

    In version 1 all prompts were instructions; up to version 2 all actions were absolute.
    """
    if not isinstance(values, Mapping) or values.get('schema_version') not in (1, 2):
        return values
    tokenizer, action = values.get('tokenizer'), values.get('action')
    if not isinstance(tokenizer, Mapping) or not isinstance(action, Mapping):
        return values
    is_first = values['schema_version'] == 1
    if 'delta_dims' in action or (is_first and 'prompt' in tokenizer):
        return values
    return {
        **values,
        'schema_version': SCHEMA_VERSION,
        'tokenizer': {**tokenizer, **({'prompt': 'instruction'} if is_first else {})},
        'action': {**action, 'delta_dims': []},
    }


def _fill_vector(
    part: str,
    spec: Vector,
    joints: Sequence[str] | None,
    units: Sequence[str] | None,
) -> Vector:
    return dataclasses.replace(
        spec,
        joints=_fill(f'{part}.joints', spec.joints, None if joints is None else tuple(joints)),
        units=_fill(f'{part}.units', spec.units, None if units is None else tuple(units)),
    )


def _fill(name: str, known: Any, given: Any) -> Any:
    if known is not None and given is not None and known != given:
        raise ContractError(f'{name} is {known!r} in the contract, but {given!r} was given')
    return known if known is not None else given


def _check(contract: Contract) -> None:
    if contract.schema_version != SCHEMA_VERSION:
        raise ContractError(
            f'schema_version is {contract.schema_version}, this software reads {SCHEMA_VERSION}'
        )
    if not contract.cameras:
        raise ContractError('cameras is empty')
    for attribute in ('name', 'key'):
        _check_unique('cameras', [getattr(camera, attribute) for camera in contract.cameras])
    _check_choices(contract)
    _check_positive(contract)
    for part in ('state', 'action'):
        _check_vector(part, getattr(contract, part))
    _check_delta(contract)
    if contract.period_s is not None and contract.period_s <= 0:
        raise ContractError(f'period_s is {contract.period_s!r}, but must be above 0')
    if contract.image.value_low >= contract.image.value_high:
        raise ContractError('image.value_low must be below image.value_high')
    times = contract.time_embedding
    if times.dim % 2 or not 0 < times.min_period < times.max_period:
        raise ContractError('time_embedding needs an even dim and 0 < min_period < max_period')
    if contract.reserved_inputs not in ((), CONTINUATION):
        raise ContractError(
            f'reserved_inputs is {list(contract.reserved_inputs)}, but must be empty or '
            f'{list(CONTINUATION)}'
        )


def _check_choices(contract: Contract) -> None:
    choices: list[tuple[str, str, tuple[str, ...]]] = [
        ('image.placement', contract.image.placement, PLACEMENTS),
        ('state.normalization.mode', contract.state.normalization.mode, NORMALIZATIONS),
        ('action.normalization.mode', contract.action.normalization.mode, NORMALIZATIONS),
        ('action.control_mode', contract.action.control_mode, CONTROL_MODES),
        ('action.semantics', contract.action.semantics, SEMANTICS),
        ('tokenizer.padding', contract.tokenizer.padding, PADDINGS),
        ('tokenizer.newline', contract.tokenizer.newline, NEWLINES),
        ('tokenizer.prompt', contract.tokenizer.prompt, PROMPTS),
    ]
    for name, value, allowed in choices:
        if value not in allowed:
            raise ContractError(f'{name} is {value!r}, not one of {", ".join(allowed)}')
    if contract.action.first_sample_offset_steps not in (0, 1):
        raise ContractError('action.first_sample_offset_steps must be 0 or 1')


def _check_positive(contract: Contract) -> None:
    sizes = {
        'image.height': contract.image.height,
        'image.width': contract.image.width,
        'chunk_steps': contract.chunk_steps,
        'denoise_steps': contract.denoise_steps,
        'tokenizer.max_length': contract.tokenizer.max_length,
        'time_embedding.dim': contract.time_embedding.dim,
    }
    for camera in contract.cameras:
        sizes[f'cameras.{camera.name}.height'] = camera.height
        sizes[f'cameras.{camera.name}.width'] = camera.width
    for name, size in sizes.items():
        if size < 1:
            raise ContractError(f'{name} is {size}, but must be at least 1')
    for name, count in (
        ('empty_camera_slots', contract.empty_camera_slots),
        ('tokenizer.pad_token_id', contract.tokenizer.pad_token_id),
    ):
        if count < 0:
            raise ContractError(f'{name} is {count}, but must be at least 0')


def _check_vector(part: str, spec: StateSpec | ActionSpec) -> None:
    if not 1 <= spec.dim <= spec.padded_dim:
        raise ContractError(
            f'{part}.dim is {spec.dim}, but must be from 1 to padded_dim {spec.padded_dim}'
        )
    if spec.normalization.epsilon < 0:
        raise ContractError(f'{part}.normalization.epsilon must not be negative')
    for name in ('joints', 'units'):
        values = getattr(spec, name)
        if values is not None and len(values) != spec.dim:
            raise ContractError(f'{part}.{name} has {len(values)} names, but dim is {spec.dim}')
    if spec.joints is not None:
        _check_unique(f'{part}.joints', spec.joints)


def _check_delta(contract: Contract) -> None:
    action, state = contract.action, contract.state
    if (action.semantics == 'delta') != bool(action.delta_dims):
        raise ContractError(
            f'action.delta_dims is {list(action.delta_dims)}, but action.semantics is '
            f'{action.semantics!r}'
        )
    if action.semantics == 'delta' and action.control_mode != 'position':
        raise ContractError(
            f"action.semantics 'delta' needs control_mode 'position', not {action.control_mode!r}"
        )
    for index in action.delta_dims:
        if not 0 <= index < min(action.dim, state.dim) or action.delta_dims.count(index) > 1:
            raise ContractError(
                f'action.delta_dims: {index} is no dim of state and action, or twice there'
            )
        if action.joints and state.joints and action.joints[index] != state.joints[index]:
            raise ContractError(
                f'action.delta_dims: {index} is {action.joints[index]!r} in the action, but '
                f'{state.joints[index]!r} in the state'
            )


def _check_unique(name: str, values: Sequence[str]) -> None:
    for value in values:
        if not value:
            raise ContractError(f'{name} holds an empty name')
        if values.count(value) > 1:
            raise ContractError(f'{name} names {value!r} twice')
