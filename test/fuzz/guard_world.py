# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A guard with a perfect robot behind it, and a judge of all that the controller may execute."""

from __future__ import annotations

import dataclasses

import numpy as np

from vla_deploy.core.chunk import Chunk, ControlMode
from vla_deploy.core.guard import GuardCore
from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.guard_io import GuardState, Inputs, JointState, Outputs
from vla_deploy.core.limits import JointLimit, JointLimits, VelocityEnvelope
from vla_deploy.core.trajectory import Trajectory, hermite_coefficients, trajectory_extrema

LOWER = (-2.7437, -1.7837, -2.9007, -3.0421, -2.8065, 0.5445, -3.0159)
UPPER = (2.7437, 1.7837, 2.9007, -0.1518, 2.8065, 4.5169, 3.0159)
VELOCITY = (2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26)
CURVES = ((12.0, 0.30, -2.7501, 2.7501), (5.17, 0.20, -1.7918, 1.7918),
          (7.0, 0.20, -2.9065, 2.9065), (8.0, 0.30, -3.0481, -0.1458),
          (34.0, 0.35, -2.8101, 2.8101), (11.0, 0.35, 0.54092, 4.5205),
          (34.0, 0.35, -3.0196, 3.0196))
HOME = np.array([0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785])
NAMES = tuple(f'fr3_joint{i}' for i in range(1, 8))
START_NS = 1_700_000_000_000_000_000
TOLERANCE = 1e-9


def fr3_limits(acceleration: float = 10.0, jerk: float | None = None) -> JointLimits:
    """The limits of a Franka FR3, its position-dependent velocity included."""
    return JointLimits.of([
        JointLimit(n, 'revolute', lo, up, v, acceleration, jerk, 87.0, 'test', False,
                   VelocityEnvelope(*curve))
        for n, lo, up, v, curve in zip(NAMES, LOWER, UPPER, VELOCITY, CURVES, strict=True)
    ])


def speed_excess(trajectory: Trajectory, limits: JointLimits) -> np.ndarray:
    """Speed above the published curve [33, segments, joints], at 33 instants of each segment."""
    curves = [joint.envelope or VelocityEnvelope(1.0, 0.0, -1e9, 1e9) for joint in limits.joints]
    k, c, lower, upper = np.array([(s.k, s.c, s.q_lower, s.q_upper) for s in curves]).T
    h = (np.diff(trajectory.times) * 1e-9)[:, None]
    p, v = trajectory.position, trajectory.velocity
    a0, jerk = hermite_coefficients(p[:-1], p[1:], v[:-1], v[1:], h)
    s = np.linspace(0.0, 1.0, 33)[:, None, None] * h
    position = p[:-1] + s * (v[:-1] + s * (0.5 * a0 + s * jerk / 6.0))
    velocity = v[:-1] + s * (a0 + 0.5 * s * jerk)
    room = np.where(velocity > 0.0, upper - position, position - lower)
    allowed = np.maximum(np.sqrt(k * np.maximum(room, 0.0)) - c, 0.0)
    return np.asarray(np.abs(velocity) - allowed)


class ExcessError(AssertionError):
    """The controller could execute something beyond a limit, or a jump."""


class Judge:
    """Holds each published trajectory, whole, against the limits; counts joint-steps.

    Also: it ends at rest and in the future, no two knots lie closer than 1 ms, and at the time the
    controller switches to it, it continues what was executed until then.
    """

    def __init__(self, limits: JointLimits) -> None:
        self.limits = limits
        self.joint_steps = 0
        self.current: Trajectory | None = None
        self.slack = TOLERANCE * np.maximum(np.abs(limits.lower), np.abs(limits.upper))
        self.slack = np.where(limits.has_position, self.slack, 0.0)

    def receive(self, trajectory: Trajectory, receive_ns: int) -> None:
        """Judge a trajectory that the controller switches to at receive_ns."""
        self.joint_steps += len(self.limits.names)
        gaps = np.diff(trajectory.times)
        if len(gaps) == 0 or gaps.min() < 1_000_000:
            raise ExcessError(f'knots {gaps} ns apart')
        if trajectory.velocity[-1].any() or trajectory.end_ns <= receive_ns:
            raise ExcessError('does not end at rest in the future')
        e = trajectory_extrema(trajectory)
        limits = self.limits
        for what, beyond in (
            ('position', limits.lower - self.slack - e.lower),
            ('position', e.upper - limits.upper - self.slack),
            ('velocity', e.speed - limits.velocity * (1.0 + TOLERANCE)),
            ('acceleration', e.acceleration - limits.acceleration * (1.0 + TOLERANCE)),
        ):
            if not (beyond <= 0.0).all():
                i, j = np.unravel_index(np.nanargmax(beyond), beyond.shape)
                raise ExcessError(f'{what} of {limits.names[j]} in segment {i} beyond its limit '
                                  f'by {beyond[i, j]:.3g}')
        if limits.jerk is not None:
            h = (gaps * 1e-9)[:, None]
            p, v = trajectory.position, trajectory.velocity
            jerk = np.abs(hermite_coefficients(p[:-1], p[1:], v[:-1], v[1:], h)[1])
            # Positions round to 4e-16, over 1 ms that is 5e-6 of jerk.
            if not (jerk <= limits.jerk * (1.0 + TOLERANCE) + 2e-5).all():
                raise ExcessError(f'jerk is {(jerk / limits.jerk).max():.12g} of its limit')
        too_fast = speed_excess(trajectory, limits).max(axis=(0, 1))
        if not (too_fast <= TOLERANCE).all():
            j = int(np.nanargmax(too_fast))
            raise ExcessError(f'{limits.names[j]} is too fast for its position by '
                              f'{too_fast[j]:.3g}')
        if self.current is not None:
            was, now = self.current.sample(receive_ns), trajectory.sample(receive_ns)
            for what, a, b, allowed in (('position', was[0], now[0], 1e-11),
                                        ('velocity', was[1], now[1], 1e-9)):
                if np.abs(a - b).max() > allowed:
                    raise ExcessError(f'{what} jumps by {np.abs(a - b).max():.3g}')
        elif np.abs(trajectory.sample(receive_ns)[1]).any():
            raise ExcessError('the first trajectory moves')
        self.current = trajectory


class World:
    """Clocks, a robot that follows perfectly with a delay, a guard and the judge."""

    def __init__(
        self, config: GuardConfig | None = None, limits: JointLimits | None = None,
        position: np.ndarray = HOME, receive_delay_ns: int = 3_000_000, seed: int = 0,
    ) -> None:
        self.limits = limits or fr3_limits()
        self.config = config or GuardConfig()
        self.core = GuardCore(self.limits, self.config)
        self.judge = Judge(self.limits)
        self.rng = np.random.default_rng(seed)
        self.ros_ns, self.steady_ns = START_NS, 5_000_000_000
        self.position = np.array(position, np.float64)
        self.receive_delay_ns = receive_delay_ns
        self.executing: Trajectory | None = None
        self.received: list[tuple[int, Trajectory]] = []
        self.outputs: list[Outputs] = []
        self.keep_outputs = True
        self.measure = True
        self.session, self.seq = 'a', 0

    def measured(self) -> JointState:
        """The robot's state now, in its own joint order."""
        order = np.arange(len(self.limits.names))[::-1]
        names = (*[self.limits.names[i] for i in order], 'finger')
        q, v = self.robot_state(self.ros_ns)
        return JointState(self.ros_ns, names, np.append(q[order], 0.0), np.append(v[order], 0.0))

    def robot_state(self, t_ns: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the robot is: on the newest trajectory received by then."""
        while self.received and self.received[0][0] <= t_ns:
            self.executing = self.received.pop(0)[1]
        if self.executing is None:
            return self.position, np.zeros_like(self.position)
        q, v, _ = self.executing.sample(t_ns)
        return q, v

    def tick(self, dt_s: float | None = None, **inputs: object) -> Outputs:
        """Advance both clocks, step the guard and judge what it published."""
        dt_ns = round((self.config.period_s if dt_s is None else dt_s) * 1e9)
        self.ros_ns += dt_ns
        self.steady_ns += dt_ns
        joint_state = self.measured() if self.measure else None
        given = dataclasses.replace(Inputs(joint_state=joint_state), **inputs)  # type: ignore
        out = self.core.step(self.ros_ns, self.steady_ns, given)
        if out.trajectory is not None:
            self.judge.receive(out.trajectory, self.ros_ns + self.receive_delay_ns)
            self.received.append((self.ros_ns + self.receive_delay_ns, out.trajectory))
        if self.keep_outputs:
            self.outputs.append(out)
        return out

    def stray(self, ticks: int, offset: float | np.ndarray) -> Outputs:
        """Ticks in which the robot is measured `offset` [joints] beside its motion."""
        for _ in range(ticks):
            now_ns = self.ros_ns + round(self.config.period_s * 1e9)
            q = self.robot_state(now_ns)[0] + offset
            out = self.tick(joint_state=JointState(now_ns, self.limits.names, q))
        return out

    def jump(self, delta_s: float) -> Outputs:
        """One tick after which ROS time differs by delta_s; the robot's motion goes along."""
        delta_ns = round(delta_s * 1e9)
        self.robot_state(self.ros_ns)
        if self.executing is not None:
            self.executing = self.executing.shifted(delta_ns)
        if self.judge.current is not None:
            self.judge.current = self.judge.current.shifted(delta_ns)
        self.received = [(t + delta_ns, trajectory.shifted(delta_ns))
                         for t, trajectory in self.received]
        self.steady_ns += round((self.config.period_s - delta_s) * 1e9)
        return self.tick(delta_s)

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
        """The next chunk of the running session, beginning now."""
        now = self.ros_ns + round(self.config.period_s * 1e9)
        chunk = Chunk(
            session_id=self.session, seq=self.seq, stamp_ns=now, observation_stamp_ns=now,
            valid_until_ns=now + 10**9, period_s=period_s, control_mode=ControlMode.POSITION,
            joint_names=self.limits.names, data=np.asarray(data, np.float64),
        )
        self.seq += 1
        return dataclasses.replace(chunk, **changes)  # type: ignore[arg-type]

    def commanded(self) -> tuple[np.ndarray, np.ndarray]:
        """What the guard says it commands now."""
        execution = self.outputs[-1].execution
        return execution.commanded_position, execution.commanded_velocity


def smooth_plan(start: np.ndarray, delta: np.ndarray, steps: int, period_s: float) -> np.ndarray:
    """Minimum-jerk motion from start by delta within the steps; float64 [steps, joints]."""
    s = np.linspace(0.0, 1.0, steps)[:, None]
    return start + (10 * s**3 - 15 * s**4 + 6 * s**5) * delta


__all__ = ['HOME', 'NAMES', 'START_NS', 'ExcessError', 'GuardState', 'Judge', 'World',
           'fr3_limits', 'smooth_plan', 'speed_excess']
