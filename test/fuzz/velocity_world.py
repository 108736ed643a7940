# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A guard of a robot that is commanded in velocity, such a robot, and a judge of what it hears."""

from __future__ import annotations

import dataclasses

import numpy as np
from guard_world import START_NS, TOLERANCE, ExcessError

from vla_deploy.core.bounds import Bounds
from vla_deploy.core.chunk import Chunk, ControlMode
from vla_deploy.core.guard import GuardCore
from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.guard_io import Inputs, JointState, Outputs
from vla_deploy.core.limits import JointLimit, JointLimits
from vla_deploy.core.stream import VelocityStream

NAMES = ('x', 'y', 'z', 'yaw')
HOVER = np.array([0.0, 0.0, 1.0, 0.0])
CONFIG = GuardConfig(control_mode='velocity', period_s=0.02, tracking_error=0.5)


def quadcopter_limits() -> JointLimits:
    """Three directions inside a fence, and a heading without end."""
    fence = ((-5.0, 5.0), (-5.0, 5.0), (0.0, 3.0))
    axes = [JointLimit(name, 'prismatic', *fence[i], 1.0, (1.5, 1.5, 1.0)[i], None, 30.0, 'test',
                       False) for i, name in enumerate(NAMES[:3])]
    return JointLimits.of([*axes, JointLimit('yaw', 'continuous', -np.inf, np.inf, 1.0, 2.0, None,
                                             5.0, 'test', False)])


class VelocityWorld:
    """Holds the robot's velocity from one message to the next; wind [joints] adds to it."""

    def __init__(
        self, config: GuardConfig = CONFIG, limits: JointLimits | None = None,
        position: np.ndarray = HOVER,
    ) -> None:
        self.limits, self.config = limits or quadcopter_limits(), config
        self.core = GuardCore(self.limits, config)
        self.stream = VelocityStream(Bounds.of(self.limits, config.soft_margin), config.period_s)
        self.now_ns, self.seq = START_NS, 0
        self.position = np.array(position, np.float64)
        self.velocity, self.wind = np.zeros(len(position)), np.zeros(len(position))
        self.sent: list[np.ndarray] = []
        self.joint_steps = 0
        self.wraps = False
        self.jittered = False
        """Ticks come late: then the robot flies on, and no guard can keep it inside exactly."""

    def measured(self) -> JointState:
        """The state now; `wraps`: a heading as a compass gives it, within a half turn of 0."""
        position = self.position.copy()
        if self.wraps:
            position[3] = (position[3] + np.pi) % (2 * np.pi) - np.pi
        return JointState(self.now_ns, self.limits.names, position, self.velocity)

    def tick(self, dt_s: float | None = None, **inputs: object) -> Outputs:
        """Let the robot move on, step the guard, judge what it sends."""
        dt_s = self.config.period_s if dt_s is None else dt_s
        self.now_ns += round(dt_s * 1e9)
        self.position = self.position + (self.velocity + self.wind) * dt_s
        given = dataclasses.replace(Inputs(joint_state=self.measured()), **inputs)  # type: ignore
        out = self.core.step(self.now_ns, self.now_ns, given)
        sent = self.stream.step(self.now_ns, out.trajectory)
        if sent is not None:
            self._judge(sent, min(dt_s, self.config.period_s))
            self.velocity = sent
            self.sent.append(sent)
        return out

    def ticks(self, count: int, **inputs: object) -> Outputs:
        """Several ticks with the same inputs; returns the last."""
        for _ in range(count):
            out = self.tick(**inputs)
        return out

    def arm(self) -> Outputs:
        """First joint state, then arm."""
        self.tick()
        return self.tick(arm=True)

    def chunk(self, data: np.ndarray, period_s: float = 0.05, **changes: object) -> Chunk:
        """The next chunk, beginning with the next tick."""
        begins = self.now_ns + round(self.config.period_s * 1e9)
        chunk = Chunk('a', self.seq, begins, begins, begins + 10**9, period_s,
                      ControlMode.VELOCITY, self.limits.names, np.asarray(data, np.float64))
        self.seq += 1
        return dataclasses.replace(chunk, **changes)  # type: ignore[arg-type]

    def _judge(self, sent: np.ndarray, dt_s: float) -> None:
        self.joint_steps += len(sent)
        limits = self.limits
        changed = np.abs(sent - self.velocity)
        for what, beyond in (
            ('velocity', np.abs(sent) - limits.velocity * (1.0 + TOLERANCE)),
            ('acceleration', changed - limits.acceleration * dt_s * (1.0 + TOLERANCE)),
        ):
            if not (beyond <= 1e-12).all():
                raise ExcessError(f'{what} of {limits.names[int(np.nanargmax(beyond))]}')
        out = np.maximum(limits.lower - self.position, self.position - limits.upper)
        if not (self.wind.any() or self.jittered) and not (out <= TOLERANCE).all():
            raise ExcessError(f'{limits.names[int(np.nanargmax(out))]} left its range')
