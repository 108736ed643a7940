# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Which joints go to which topic, and in which form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.trajectory import Trajectory

Array = NDArray[np.float64]

TRAJECTORY = 'trajectory'
POSITION_ARRAY = 'position_array'
VELOCITY_ARRAY = 'velocity_array'
INTERBOTIX_GROUP = 'interbotix_group'
INTERBOTIX_SINGLE = 'interbotix_single'
NAMED = (INTERBOTIX_GROUP, INTERBOTIX_SINGLE)
"""Messages that say which of a driver's groups or joints they are for."""
POSITION_STREAMS = (POSITION_ARRAY, *NAMED)
OUTPUT_TYPES = (TRAJECTORY, POSITION_ARRAY, VELOCITY_ARRAY, *NAMED)


class OutputError(ValueError):
    """Outputs that contradict each other or the guarded joints; one line that names which."""


@dataclass(frozen=True)
class OutputDetails:
    """What else is said of each output, in the order of the topics; an empty list says nothing."""

    names: Sequence[str] = ()
    scales: Sequence[float] = ()
    offsets: Sequence[float] = ()
    hysteresis: Sequence[float] = ()


@dataclass(frozen=True)
class Output:
    """One command topic. columns: where its joints are in the order of the guard.

    Of a stream: name of the driver's group or joint; what is sent is scale * position + offset, and
    changes once a joint is commanded farther than hysteresis (rad or m) from what was sent last.
    """

    topic: str
    output_type: str
    joints: tuple[str, ...]
    columns: tuple[int, ...]
    name: str = ''
    scale: float = 1.0
    offset: float = 0.0
    hysteresis: float = 0.0

    def part(self, trajectory: Trajectory) -> Trajectory:
        """The motion of this output's joints, in its own order."""
        if self.columns == tuple(range(trajectory.states.shape[-1])):
            return trajectory
        return Trajectory(trajectory.ns, trajectory.states[..., list(self.columns)])


def plan_outputs(
    topics: Sequence[str], types: Sequence[str], joints: Sequence[str], guarded: Sequence[str],
    control_mode: str = 'position', limits_jerk: bool = False,
    details: OutputDetails = OutputDetails(),
) -> tuple[Output, ...]:
    """Outputs from three lists with one entry each for every output.

    joints: names separated by commas, in the order that the controller wants; an empty list gives
    a single output all of `guarded`. Every guarded joint must be in exactly one output, and every
    output of the guard's control mode. limits_jerk: then none may be a stream of positions,
    where late ticks would cost jerk. Raises OutputError.
    """
    if not topics:
        raise OutputError('output_topics is empty: name the topic of the commands')
    if len(types) != len(topics):
        raise OutputError(f'output_types has {len(types)} entries, output_topics {len(topics)}')
    if not joints and len(topics) == 1:
        joints = [','.join(guarded)]
    if len(joints) != len(topics):
        raise OutputError(f'output_joints has {len(joints)} entries, output_topics {len(topics)}')
    outputs: list[Output] = []
    taken: dict[str, str] = {}
    for topic, output_type, text in zip(topics, types, joints, strict=True):
        names = tuple(name.strip() for name in text.split(','))
        if not topic or topic in [output.topic for output in outputs]:
            raise OutputError(f'output_topics: {topic!r} is empty or given twice')
        if output_type not in OUTPUT_TYPES:
            raise OutputError(f'output_types: {output_type!r} is not one of '
                              f'{", ".join(OUTPUT_TYPES)}')
        if (output_type == VELOCITY_ARRAY) != (control_mode == 'velocity'):
            raise OutputError(f'output_types: {output_type!r} of {topic!r} does not go with '
                              f'control_mode {control_mode!r}')
        for name in names:
            if name not in guarded:
                raise OutputError(f'output_joints: {name!r} of {topic!r} is not under guard')
            if name in taken:
                raise OutputError(f'output_joints: {name!r} is in {taken[name]!r} and in {topic!r}')
            taken[name] = topic
        columns = tuple(list(guarded).index(name) for name in names)
        outputs.append(_detailed(Output(topic, output_type, names, columns), details,
                                 len(outputs), len(topics)))
    missing = [name for name in guarded if name not in taken]
    if missing:
        raise OutputError(f'output_joints: {missing[0]!r} is in no output')
    streams = [output for output in outputs if output.output_type in POSITION_STREAMS]
    if streams and limits_jerk:
        raise OutputError(f'output_types: {streams[0].output_type!r} of {streams[0].topic!r} '
                          'cannot keep jerk limits; use trajectory, or leave jerk out of them')
    return tuple(outputs)


def _detailed(output: Output, details: OutputDetails, index: int, count: int) -> Output:
    """The output with what the details say of it."""
    said: dict[str, Any] = {}
    for key, parameter, values in (
        ('name', 'output_names', details.names), ('scale', 'output_scales', details.scales),
        ('offset', 'output_offsets', details.offsets),
        ('hysteresis', 'output_hysteresis', details.hysteresis),
    ):
        if not values:
            continue
        if len(values) != count:
            raise OutputError(f'{parameter} has {len(values)} entries, output_topics {count}')
        said[key] = value = values[index]
        if isinstance(value, float) and not math.isfinite(value):
            raise OutputError(f'{parameter}: {value} of {output.topic!r} is not finite')
    detailed = replace(output, **said)
    plain = (1.0, 0.0, 0.0)
    if output.output_type not in POSITION_STREAMS and plain != (
        detailed.scale, detailed.offset, detailed.hysteresis
    ):
        raise OutputError(f'output_types: {output.output_type!r} of {output.topic!r} takes no '
                          'scale, offset or hysteresis')
    if detailed.scale == 0.0 or detailed.hysteresis < 0.0:
        raise OutputError(f'{output.topic!r}: scale must not be 0, nor hysteresis below it')
    if (output.output_type in NAMED) != bool(detailed.name):
        raise OutputError(f'output_names: {output.output_type!r} of {output.topic!r} '
                          + ('needs the name of a group or joint' if not detailed.name
                             else 'has no name'))
    if output.output_type == INTERBOTIX_SINGLE and len(output.joints) != 1:
        raise OutputError(f'output_joints: {output.topic!r} is for one joint, not '
                          f'{len(output.joints)}')
    return detailed


def check_hysteresis(outputs: Sequence[Output], velocity: Array, period_s: float) -> None:
    """Raise OutputError where a step over the hysteresis would be faster than a joint may move.

    velocity: limits [joints] in the order of the guard.
    """
    for output in outputs:
        for name, column in zip(output.joints, output.columns, strict=True):
            if output.hysteresis > velocity[column] * period_s:
                raise OutputError(
                    f'output_hysteresis of {output.topic!r} is {output.hysteresis:g}, more than '
                    f'{name} may move in a tick: {velocity[column] * period_s:g}')


class DeadBand:
    """Keeps what was sent of an output until a joint is commanded farther than its hysteresis."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._columns = list(output.columns)
        self._sent: Array | None = None

    def command(self, positions: Array) -> Array:
        """What to send [joints of the output], of positions [joints of the guard]."""
        wanted = positions[self._columns]
        sent = self._sent
        if sent is None or self._output.hysteresis == 0.0:
            sent = wanted
        else:
            sent = np.where(np.abs(wanted - sent) > self._output.hysteresis, wanted, sent)
        self._sent = sent
        return np.asarray(self._output.scale * sent + self._output.offset)
