# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Which joints go to which topic, and in which form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vla_deploy.core.trajectory import Trajectory

TRAJECTORY = 'trajectory'
POSITION_ARRAY = 'position_array'
VELOCITY_ARRAY = 'velocity_array'
OUTPUT_TYPES = (TRAJECTORY, POSITION_ARRAY, VELOCITY_ARRAY)


class OutputError(ValueError):
    """Outputs that contradict each other or the guarded joints; one line that names which."""


@dataclass(frozen=True)
class Output:
    """One command topic. columns: where its joints are in the order of the guard."""

    topic: str
    output_type: str
    joints: tuple[str, ...]
    columns: tuple[int, ...]

    def part(self, trajectory: Trajectory) -> Trajectory:
        """The motion of this output's joints, in its own order."""
        columns = np.array(self.columns)
        if len(columns) == trajectory.position.shape[1] and (np.diff(columns) == 1).all():
            return trajectory
        return Trajectory(trajectory.times, trajectory.position[:, columns],
                          trajectory.velocity[:, columns])


def plan_outputs(
    topics: Sequence[str], types: Sequence[str], joints: Sequence[str], guarded: Sequence[str],
    control_mode: str = 'position', limits_jerk: bool = False,
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
        outputs.append(Output(topic, output_type, names, columns))
    missing = [name for name in guarded if name not in taken]
    if missing:
        raise OutputError(f'output_joints: {missing[0]!r} is in no output')
    streams = [output.topic for output in outputs if output.output_type == POSITION_ARRAY]
    if streams and limits_jerk:
        raise OutputError(f'output_types: {POSITION_ARRAY!r} of {streams[0]!r} cannot keep jerk '
                          'limits; use trajectory, or leave jerk out of the limits')
    return tuple(outputs)
