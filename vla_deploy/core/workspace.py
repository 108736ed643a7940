# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Whether a motion keeps links inside the workspace, between its knots and while braking too.

A link's path is sampled. Between two samples it departs from their chord by about an eighth of its
second difference; twice that is taken off every distance, so that nothing is missed in between.
A robot that is outside, or nearer to a wall than that, may move, but not farther out.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.kinematics import Chain, KinematicsError
from vla_deploy.core.limits import JointLimits, LimitsError
from vla_deploy.core.trajectory import NS_TO_S, Trajectory, hermite_coefficients
from vla_deploy.core.violation import Action, Violation
from vla_deploy.core.workspace_limits import WorkspaceLimits

Array = NDArray[np.float64]

SAMPLE_S = 0.02
"""Time between two samples of a motion, at most while a segment needs no more than MOST of them."""
MOST = 16
TAIL_SAMPLES = 8
"""Samples of braking from a knot to rest."""
ROUNDING = 1e-9
"""Distance [m] by which rounding may carry a link."""


@dataclass(frozen=True)
class Breach:
    """A link outside a region: at which knot (the segment from it, or braking from it), and its
    distance to the region [m], negative."""

    region: str
    link: str
    knot: int
    distance: float
    braking: bool

    def __str__(self) -> str:
        when = 'braking from here ' if self.braking else ''
        return f'{when}{self.link} is {-self.distance:.4g} m outside {self.region}'

    def violation(self) -> Violation:
        """That the motion was left because of this."""
        return Violation('workspace', Action.HOLD, f'the motion would leave the workspace: {self}',
                         self.link, -1, self.distance, 0.0, 'm')


@dataclass(frozen=True, eq=False)
class _Wall:
    """The half-spaces of one region for one link: inside where normals @ p >= offsets."""

    region: str
    link: str
    chain: Chain
    columns: NDArray[np.intp]
    normals: Array
    offsets: Array

    def room(self, position: Array) -> Array:
        """Distance [..., half-spaces] of the link into the region; position [..., joints]."""
        origin = self.chain.pose(position[..., self.columns])[..., :3, 3]
        return np.asarray(origin @ self.normals.T - self.offsets)


class Workspace:
    """The regions of a robot, for positions in the order of its limits."""

    def __init__(self, limits: WorkspaceLimits, joint_names: Sequence[str]) -> None:
        """Place the links; raises LimitsError naming region and link."""
        urdf = limits.urdf
        self._walls: list[_Wall] = []
        for region in limits.regions:
            for link in region.links:
                try:
                    chain = Chain(urdf, link)
                except KinematicsError as error:
                    raise LimitsError(f'workspace.{region.name}.links: {error}') from None
                for name in chain.joint_names:
                    if name not in joint_names:
                        raise LimitsError(f'workspace.{region.name}.links: {link!r} is moved by '
                                          f'{name!r}, which is not under guard')
                columns = [list(joint_names).index(name) for name in chain.joint_names]
                self._walls.append(_Wall(
                    region.name, link, chain, np.array(columns, np.intp),
                    np.array(region.normals), np.array(region.offsets)))

    @staticmethod
    @functools.lru_cache(maxsize=16)
    def of(limits: JointLimits) -> Workspace | None:
        """The workspace that limits hold, or None."""
        return None if limits.workspace is None else Workspace(limits.workspace, limits.names)

    def breach(
        self, motion: Trajectory, tails: Array | None = None, robot: Array | None = None
    ) -> Breach | None:
        """The worst place of a motion outside a region, or None.

        tails: decelerations [joints]; given, braking from every knot is judged as well. robot:
        where the robot is [joints], if the motion does not begin there.
        """
        path = _sampled(motion)
        stops = None if tails is None else _stops(motion, tails)
        worst: Breach | None = None
        for wall in self._walls:
            room = wall.room(path)
            start = room[0, 0] if robot is None else wall.room(robot)
            found = _deepest(wall, room, start, braking=False)
            if found is None and stops is not None:
                found = _deepest(wall, wall.room(stops), start, braking=True)
            if found is not None and (worst is None or found.distance < worst.distance):
                worst = found
        return worst


def _deepest(wall: _Wall, room: Array, start: Array, braking: bool) -> Breach | None:
    """The deepest sample outside of paths room [knots, samples, half-spaces], or None.

    start: [half-spaces], where the robot is; no sample may be farther out than that.
    """
    least = room
    if room.shape[1] > 2:
        bend = np.abs(room[:, 2:] - 2.0 * room[:, 1:-1] + room[:, :-2])
        least = room - 0.25 * np.concatenate((bend[:, :1], bend, bend[:, -1:]), axis=1)
    outside = (least < -ROUNDING) & (room < start - ROUNDING)
    if not outside.any():
        return None
    least = np.where(outside, least, 0.0).min(axis=2)
    knot, sample = np.unravel_index(int(least.argmin()), least.shape)
    return Breach(wall.region, wall.link, int(knot), float(least[knot, sample]), braking)


def _sampled(motion: Trajectory) -> Array:
    """Positions [segments, samples, joints] along the cubics, both knots of each included."""
    p, v = motion.position, motion.velocity
    if len(p) < 2:
        return p[:, None]
    h = (np.diff(motion.times).astype(np.float64) * NS_TO_S)[:, None, None]
    count = min(max(math.ceil(float(h.max()) / SAMPLE_S), 2), MOST)
    s = h * (np.arange(count + 1) / count)[None, :, None]
    p0, p1, v0, v1 = (x[:, None] for x in (p[:-1], p[1:], v[:-1], v[1:]))
    a0, jerk = hermite_coefficients(p0, p1, v0, v1, h)
    return np.asarray(p0 + s * (v0 + s * (0.5 * a0 + s * jerk * (1.0 / 6.0))))


def _stops(motion: Trajectory, deceleration: Array) -> Array:
    """Positions [knots, TAIL_SAMPLES + 1, joints] while braking fully from every knot to rest."""
    p, v = motion.position[:, None], motion.velocity[:, None]
    stop_s = np.abs(v) / deceleration
    t = stop_s.max(axis=2, keepdims=True) * (
        np.arange(TAIL_SAMPLES + 1) / TAIL_SAMPLES)[None, :, None]
    t = np.minimum(t, stop_s)
    return np.asarray(p + v * t - np.copysign(0.5 * deceleration, v) * (t * t))
