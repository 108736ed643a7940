# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What one episode is, and when it ends."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_deploy.sim import reach

Point = NDArray[np.float64]

TIME_LIMIT_S = 8.0
ENDINGS = ('still', 'time_limit')
"""How an episode may end by itself; anything else is why the graph stopped."""
_LEAST_S = 1.5  # the arm stands still at first, too
_STILL_S = 0.6
_STILL_M = 0.003


@dataclass(frozen=True)
class EpisodePlan:
    """One episode to run. `kind` is reach, blank (no text) or black (no picture)."""

    index: int
    kind: str
    seed: int
    colour: str  # the cube that is named, or would be
    drawn: str  # the cube that the scene's seed drew

    @property
    def instruction(self) -> str:
        """Return the text that is published."""
        return ' ' if self.kind == 'blank' else reach.instruction(self.colour)


@dataclass(frozen=True)
class EpisodeResult:
    """How it ended. Distances are those of the tool to 8 cm above a cube, at the end."""

    plan: EpisodePlan
    distance_m: float
    nearest: str  # the cube whose goal the tool was nearest to
    duration_s: float
    ended: str  # still, time_limit, or why the graph stopped

    @property
    def reached(self) -> bool:
        """Tell whether the tool ended at the named cube's goal."""
        return self.distance_m <= reach.SUCCESS_M

    def to_mapping(self) -> dict[str, Any]:
        """Return what the report holds."""
        return {
            **asdict(self.plan),
            'instruction': self.plan.instruction,
            'distance_m': self.distance_m,
            'nearest': self.nearest,
            'duration_s': self.duration_s,
            'ended': self.ended,
            'reached': self.reached,
        }


def plan_episodes(episodes: int, controls: int, seed: int) -> list[EpisodePlan]:
    """Return the episodes of a run: red, blue, green in turn, then the controls."""
    turn = ('red', 'blue', 'green')
    kinds = ['reach'] * episodes + ['blank'] * controls + ['black'] * controls
    plans = []
    for index, kind in enumerate(kinds):
        scene_seed = seed * 100_000 + index
        drawn = reach.place_scene(scene_seed).named
        plans.append(EpisodePlan(index, kind, scene_seed, turn[index % 3], drawn))
    return plans


class StillDetector:
    """Says when an episode is over: the tool stands still, or the time is up."""

    def __init__(self, begin_ns: int) -> None:
        self._begin_ns = begin_ns
        self._recent: deque[tuple[int, Point]] = deque()

    def add(self, stamp_ns: int, tool_m: Point) -> str:
        """Take a tool position [3]; return why the episode is over, or an empty text."""
        elapsed_s = (stamp_ns - self._begin_ns) * 1e-9
        if elapsed_s >= TIME_LIMIT_S:
            return 'time_limit'
        self._recent.append((stamp_ns, tool_m))
        while (stamp_ns - self._recent[0][0]) * 1e-9 > _STILL_S:
            self._recent.popleft()
        covered_s = (stamp_ns - self._recent[0][0]) * 1e-9
        if elapsed_s < _LEAST_S or covered_s < 0.9 * _STILL_S:
            return ''
        points = np.stack([p for _, p in self._recent])
        spread_m = float(np.linalg.norm(points.max(axis=0) - points.min(axis=0)))
        return 'still' if spread_m < _STILL_M else ''


def judge(
    plan: EpisodePlan, tool_m: Point, goals_m: dict[str, Point], duration_s: float, ended: str
) -> EpisodeResult:
    """Return the result from the tool's last position and the goal above each cube [3]."""
    distances = {c: float(np.linalg.norm(tool_m - goal)) for c, goal in goals_m.items()}
    nearest = min(distances, key=lambda colour: distances[colour])
    return EpisodeResult(plan, distances[plan.colour], nearest, duration_s, ended)
