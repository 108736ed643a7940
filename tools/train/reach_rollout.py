# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Closed-loop evaluation of a reach checkpoint without ROS: physics, controller, guard, policy.

    python tools/train/reach_rollout.py --checkpoint policies/reach --episodes 100

The simulated robot, its trajectory controller, the guard's core and the session are those that the
nodes run; time is simulated. The policy is the torch module in float32, or a bundle with --bundle.
Placements are held-out ones. Kinds of episode:

    named    the instruction names the cube that the seed drew
    other    it names another one; reached counts the cube that is named
    blank    no words;  reached counts the cube that was drawn
    black    every image is black
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from reach_checkpoint import CAMERA, EXECUTED_STEPS  # noqa: E402
from rollout_policy import Actions, Images, Infer, bundle_policy, torch_policy  # noqa: E402

from vla_deploy.core.chunk import Chunk, ControlMode  # noqa: E402
from vla_deploy.core.guard import GuardCore  # noqa: E402
from vla_deploy.core.guard_config import GuardConfig  # noqa: E402
from vla_deploy.core.guard_io import GuardState, Inputs, JointState, Outputs  # noqa: E402
from vla_deploy.core.limits import load_limits  # noqa: E402
from vla_deploy.core.trajectory import Trajectory  # noqa: E402
from vla_deploy.core.urdf import parse_urdf  # noqa: E402
from vla_deploy.demo.statistics import wilson_interval  # noqa: E402
from vla_deploy.files import read_text, read_yaml  # noqa: E402
from vla_deploy.pipeline.session import Execution, GuardReadiness, SessionCore  # noqa: E402
from vla_deploy.pipeline.strategy import (  # noqa: E402
    SYNCHRONOUS,
    ChunkStrategy,
    Draft,
    Placed,
    StrategyOptions,
)
from vla_deploy.sim import controller, reach  # noqa: E402
from vla_deploy.sim.render import Renderer  # noqa: E402
from vla_deploy.sim.robot import RobotConfig, SimulatedRobot  # noqa: E402

KINDS = ('named', 'other', 'blank', 'black')
EPISODE_S = 6.0
TICK_NS = 10_000_000
IMAGE_EVERY_TICKS = 7
LATENCY_TICKS = 4
"""From the decision to compute a chunk to the chunk at the guard: about 40 ms."""

OPTIONS = StrategyOptions(
    name='asynchronous',
    execute_steps=EXECUTED_STEPS,
    anchor='observation',
    chunk_steps=16,
    period_s=reach.STEP_PERIOD_S,
    first_sample_offset_steps=1,
    action_dim=len(reach.JOINTS),
    ensemble_decay=0.01,
    guidance_schedule='exp',
    guidance_max_weight=5.0,
    action_similarity=0.0,
    max_skips=2,
)


@dataclass(frozen=True)
class Result:
    """How one episode ended; distances in metres at its end."""

    kind: str
    seed: int
    drawn: str
    wanted: str
    distance_m: float
    drawn_distance_m: float
    nearest: str
    chunks: int
    clamped: int
    refused: int
    rules: dict[str, int]


@dataclass(frozen=True, eq=False)
class _Coming:
    """A chunk that is being computed: when it is ready, and what it is made of."""

    ready_ns: int
    draft: Draft
    actions: Actions
    position: NDArray[np.float64]


class Loop:
    """Runs episodes; the physics, the renderer and the limits are made once.

    `watch` is given each step of the guard, and the chunks that came with it; `placed` each chunk
    as it is sent.
    """

    def __init__(
        self,
        infer: Infer,
        options: StrategyOptions = OPTIONS,
        latency_ticks: int = LATENCY_TICKS,
        watch: Callable[[Outputs, tuple[Chunk, ...]], None] = lambda out, chunks: None,
        placed: Callable[[Placed], None] = lambda placed: None,
    ) -> None:
        self._options, self._latency_ns = options, latency_ticks * TICK_NS
        self._watch, self._placed = watch, placed
        urdf = read_text(ROOT / 'urdf' / 'fr3.urdf')
        self._infer = infer
        self._limits = load_limits(
            parse_urdf(urdf), reach.JOINTS, read_yaml(ROOT / 'config/franka/joint_limits.yaml')
        )
        given = read_yaml(ROOT / 'config/franka/guard.yaml')['/**']['ros__parameters']
        names = set(GuardConfig.__dataclass_fields__)
        self._guard_config = GuardConfig(**{k: v for k, v in given.items() if k in names})
        self._robot = SimulatedRobot(urdf, RobotConfig(reach.JOINTS), 0, 10**9)
        self._arm = self._robot.scene.indices(reach.JOINTS)
        self._renderer = Renderer(self._robot.scene)

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, *_: object) -> None:
        self._renderer.close()

    def run(self, kind: str, seed: int) -> Result:
        """Run one episode of `EPISODE_S` simulated seconds."""
        robot = self._robot
        placement = robot.reset(seed, black_images=kind == 'black')
        wanted = placement.named
        if kind == 'other':
            others = [c for c in reach.COLOURS if c != placement.named]
            wanted = others[seed // len(reach.COLOURS) % 2]
        sentence = ' ' if kind == 'blank' else reach.instruction(wanted)
        guard = GuardCore(self._limits, self._guard_config)
        session = SessionCore(
            self._options.execute_steps, 0.25, 0.5, 1000, True, self._options.name == SYNCHRONOUS
        )
        strategy = ChunkStrategy(self._options)
        session.start('episode', sentence)
        coming: _Coming | None = None
        seen: tuple[Images, NDArray[np.float64], int] | None = None
        for tick in range(round(EPISODE_S * 1e9 / TICK_NS)):
            now_ns = robot.time_ns + TICK_NS
            robot.advance(now_ns)
            sample = robot.joint_sample()
            if tick % IMAGE_EVERY_TICKS == 0:
                seen = (self._draw(), sample.position[self._arm], now_ns)
            ready: tuple[Chunk, ...] = ()
            if coming is not None and coming.ready_ns <= now_ns:
                ready = (self._send(session, strategy, coming, now_ns),)
                coming, session.in_flight = None, False
            if seen is not None and self._due(session, strategy, seen[2], now_ns):
                coming = self._compute(session, strategy, seed, seen, sentence, now_ns)
            state = JointState(now_ns, sample.names, sample.position, sample.velocity)
            out = guard.step(now_ns, now_ns, Inputs(chunks=ready, joint_state=state, arm=tick == 1))
            if out.trajectory is not None:
                robot.accept(_trajectory(out.trajectory), now_ns)
            execution = _execution(out)
            session.on_execution(execution)
            strategy.on_execution(execution)
            self._watch(out, ready)
        return self._judge(kind, seed, placement, wanted, guard)

    def _draw(self) -> Images:
        view = self._robot.view()
        image = self._renderer.render(view.state, CAMERA)
        return np.zeros_like(image) if view.black else image

    @staticmethod
    def _due(session: SessionCore, strategy: ChunkStrategy, seen_ns: int, now_ns: int) -> bool:
        if not session.due(now_ns) or seen_ns < session.observe_from_ns:
            return False
        due_index = session.skippable_at
        if due_index is None or not strategy.may_skip(due_index):
            return True
        session.skip()
        strategy.skip()
        return False

    def _compute(
        self,
        session: SessionCore,
        strategy: ChunkStrategy,
        seed: int,
        seen: tuple[Images, NDArray[np.float64], int],
        sentence: str,
        now_ns: int,
    ) -> _Coming:
        image, position, stamp_ns = seen
        assert session.session is not None
        draft = strategy.draft('episode', stamp_ns)
        noise_seed = 1000 * seed + session.session.next_seq
        actions = self._infer(image, position, sentence, noise_seed, draft.guidance)
        session.in_flight = True
        return _Coming(now_ns + self._latency_ns, draft, actions, position)

    def _send(
        self, session: SessionCore, strategy: ChunkStrategy, coming: _Coming, now_ns: int
    ) -> Chunk:
        seq = session.sent('episode', now_ns)
        assert seq is not None
        placed = strategy.place(coming.draft, seq, *coming.actions, now_ns)
        session.placed(placed.stamp_ns, coming.draft.observation_ns)
        self._placed(placed)
        return Chunk(
            session_id='episode',
            seq=seq,
            stamp_ns=placed.stamp_ns,
            observation_stamp_ns=coming.draft.observation_ns,
            valid_until_ns=now_ns + 10**9,
            period_s=reach.STEP_PERIOD_S,
            control_mode=ControlMode.POSITION,
            joint_names=reach.JOINTS,
            data=placed.actions,
            anchor_position=coming.position,
        )

    def _judge(
        self, kind: str, seed: int, placement: reach.Placement, wanted: str, guard: GuardCore
    ) -> Result:
        if guard.state not in (GuardState.HOLD, GuardState.ARMED):
            print(f'seed {seed}: the guard ended in {guard.state.name}: {guard.reason}')
        tool = self._robot.scene.tool_position()
        distance = {cube.colour: reach.distance_m(tool, cube) for cube in placement.cubes}
        counters = guard.counters
        return Result(
            kind,
            seed,
            placement.named,
            wanted,
            distance[wanted],
            distance[placement.named],
            min(distance, key=lambda colour: distance[colour]),
            counters.accepted + counters.clamped + counters.refused,
            counters.clamped,
            counters.refused,
            dict(counters.rules),
        )


def summary(results: list[Result]) -> dict[str, object]:
    """Return the figures of one kind of episode."""
    distance = np.array([result.distance_m for result in results])
    within = distance <= reach.SUCCESS_M
    low, high = wilson_interval(int(within.sum()), len(within))
    rules: dict[str, int] = {}
    for result in results:
        for rule, count in result.rules.items():
            rules[rule] = rules.get(rule, 0) + count
    return {
        'episodes': len(results),
        'within_3_cm': int(within.sum()),
        'wilson_95_percent': [round(low, 3), round(high, 3)],
        'within_2_cm': int((distance <= reach.STRICT_M).sum()),
        'by_colour': {
            colour: [
                int(sum(hit for hit, r in zip(within, results, strict=True) if r.wanted == colour)),
                sum(r.wanted == colour for r in results),
            ]
            for colour in reach.COLOURS
        },
        'at_the_drawn_cube': sum(r.drawn_distance_m <= reach.SUCCESS_M for r in results),
        'nearest_is_wanted': sum(r.nearest == r.wanted for r in results),
        'distance_mm_p50_p90_max': [
            round(1000 * float(value), 1) for value in np.percentile(distance, (50, 90, 100))
        ],
        'chunks': sum(r.chunks for r in results),
        'clamped': sum(r.clamped for r in results),
        'refused': sum(r.refused for r in results),
        'rules': rules,
    }


def _trajectory(trajectory: Trajectory) -> controller.Trajectory:
    start_ns = trajectory.start_ns
    return controller.Trajectory(
        start_ns,
        reach.JOINTS,
        tuple(
            controller.TrajectoryPoint(int(time_ns) - start_ns, position, velocity)
            for time_ns, position, velocity in zip(
                trajectory.times, trajectory.position, trajectory.velocity, strict=True
            )
        ),
    )


def _execution(out: Outputs) -> Execution:
    executes = out.state in (GuardState.HOLD, GuardState.ARMED)
    done = out.execution
    return Execution(
        stamp_ns=done.stamp_ns,
        readiness=GuardReadiness.EXECUTES if executes else GuardReadiness.REFUSES,
        state_name=out.state.name,
        session_id=done.session_id,
        seq=done.seq,
        has_plan=done.has_plan,
        next_index=done.next_index,
        consumed_total=done.consumed_total,
        at_rest=done.commanded_velocity is None or not done.commanded_velocity.any(),
    )


def main() -> int:
    """Run the episodes and print the figures; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--checkpoint', type=Path, help='checkpoint folder, run by torch')
    source.add_argument('--bundle', type=Path, help='exported bundle, run by ONNX Runtime')
    parser.add_argument('--episodes', type=int, default=100)
    parser.add_argument('--seed', type=int, default=0, help='first placement')
    parser.add_argument('--kinds', nargs='+', choices=KINDS, default=list(KINDS))
    parser.add_argument('--output', type=Path, help='write every episode to this JSON file')
    arguments = parser.parse_args()
    policy = (
        bundle_policy(arguments.bundle)
        if arguments.bundle is not None
        else torch_policy(arguments.checkpoint)
    )
    report: dict[str, object] = {}
    with Loop(policy) as loop:
        for kind in arguments.kinds:
            seeds = range(arguments.seed, arguments.seed + arguments.episodes)
            results = [loop.run(kind, seed) for seed in seeds]
            figures = summary(results)
            report[kind] = {'summary': figures, 'episodes': [asdict(result) for result in results]}
            print(kind, json.dumps(figures), flush=True)
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(report, indent=1) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
