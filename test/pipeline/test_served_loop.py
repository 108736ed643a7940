# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Session, strategy and guard together, in time that the test makes: the robot gets on."""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / 'fuzz'))

from guard_world import START_NS, World

from vla_deploy.pipeline.session import Execution, GuardReadiness, SessionCore
from vla_deploy.pipeline.strategy import STRATEGIES, ChunkStrategy, StrategyOptions

STEPS, JOINTS = 8, 7
SPEED = 0.05  # rad/s of each joint, by every chunk
TICK_S = 0.01


@dataclass(frozen=True)
class Serving:
    """How a policy is served. latency_s: from an image to its chunk. image_period_s: between two
    images. The others: as the parameters and the contract have them."""

    strategy: str
    anchor: str
    period_s: float
    offset_steps: int
    execute_steps: int
    retry_s: float
    latency_s: float
    image_period_s: float


class Loop:
    """A policy that asks for one velocity, its session and strategy, a guard and its robot."""

    def __init__(self, serving):
        self.serving = serving
        self.world = World()
        self.world.arm()
        self.session = SessionCore(
            serving.execute_steps, serving.retry_s, 0.5, 100, False,
            serving.strategy == 'synchronous',
        )  # fmt: skip
        self.session.start('s', 'go')
        self.strategy = ChunkStrategy(
            StrategyOptions(
                serving.strategy, serving.execute_steps, serving.anchor, STEPS, serving.period_s,
                serving.offset_steps, JOINTS, 0.01, 'linear', 5.0, 0.0, 0,
            )
        )  # fmt: skip
        self.places = {}  # position by time, as measured
        self.computing = None
        self.arriving = ()

    @property
    def now_s(self):
        return (self.world.ros_ns - START_NS) * 1e-9

    def went(self):
        """How long the robot would have taken at the velocity that is asked for [s]."""
        first, *_, last = self.places.values()
        return float((last - first)[0]) / SPEED

    def went_back(self):
        """How long that would have taken it, where it went back farthest [s]."""
        positions = np.array([position[0] for position in self.places.values()])
        return float((np.maximum.accumulate(positions) - positions).max()) / SPEED

    def run(self, until_s):
        while self.now_s < until_s:
            self.tick()
        return self

    def tick(self):
        out = self.world.tick(chunks=self.arriving)
        self.arriving = ()
        now_ns = self.world.ros_ns
        self.places[now_ns] = self.world.robot_state(now_ns)[0]
        e = out.execution
        execution = Execution(
            now_ns, GuardReadiness.EXECUTES, out.state.name, e.session_id, e.seq, e.has_plan,
            e.next_index, e.consumed_total, not e.commanded_velocity.any(), e.chunks_refused,
        )  # fmt: skip
        self.refused = e.chunks_refused
        self.session.on_execution(execution)
        self.strategy.on_execution(execution)
        self.infer(now_ns)

    def infer(self, now_ns):
        if self.computing is not None:
            ready_ns, draft, begin = self.computing
            if now_ns >= ready_ns:
                self.computing, self.session.in_flight = None, False
                self.send(draft, begin, now_ns)
        if self.session.due(now_ns):
            seen_ns = _whole(now_ns, self.serving.image_period_s)
            begin = self.places.get(_whole(seen_ns, TICK_S))
            if begin is None or seen_ns < self.session.observe_from_ns:
                return
            draft = self.strategy.draft('s', seen_ns)
            ready_ns = now_ns + round(self.serving.latency_s * 1e9)
            self.computing = ready_ns, draft, begin
            self.session.in_flight = True

    def send(self, draft, begin, now_ns):
        steps = np.arange(STEPS)[:, None] + self.serving.offset_steps
        actions = begin + steps * self.serving.period_s * np.full(JOINTS, SPEED)
        seq = self.session.sent('s', now_ns)
        placed = self.strategy.place(draft, seq, actions, actions.astype(np.float32), now_ns)
        self.session.placed(placed.stamp_ns, draft.observation_ns)
        self.arriving = (
            self.world.chunk(
                placed.actions, self.serving.period_s, session_id='s', seq=seq,
                stamp_ns=placed.stamp_ns, observation_stamp_ns=draft.observation_ns,
                valid_until_ns=now_ns + 10**9,
            ),
        )  # fmt: skip


def _whole(t_ns, period_s):
    """The newest whole period by then."""
    period_ns = round(period_s * 1e9)
    return START_NS + (t_ns - START_NS) // period_ns * period_ns


def fits(serving):
    """Whether chunks last for what it takes to have the next one, and come often enough for the
    guard."""
    s = serving
    seen_and_computed_s = s.latency_s + s.image_period_s + 3 * TICK_S
    if s.strategy == 'synchronous':
        moving_s = (s.execute_steps - 1) * s.period_s  # configure demands two samples
        return moving_s > 5 * TICK_S
    between_s = (s.execute_steps - 1 + s.offset_steps) * s.period_s
    if s.anchor == 'arrival' and between_s < 2 * seen_and_computed_s:
        return False  # each chunk begins where the robot was, and it lags by that
    # a chunk is due when that many samples ran, and never before the one before it has come
    due_s = max(s.execute_steps * s.period_s, seen_and_computed_s)
    lasts_s = (STEPS - 1) * s.period_s
    silent_s = (s.execute_steps + 1) * s.period_s + seen_and_computed_s
    return due_s + seen_and_computed_s < lasts_s and silent_s < 1.9


def least_share(serving):
    """Of the velocity that is asked for, how much there is at least."""
    s = serving
    if s.strategy == 'synchronous':  # stands while a chunk is computed, and brakes before
        moving_s = (s.execute_steps - 1) * s.period_s
        return 0.4 * moving_s / (moving_s + s.latency_s + s.image_period_s + 0.3)
    if s.anchor == 'arrival':  # goes back by what it takes to have a chunk
        return 0.2
    return 0.8


servings = st.builds(
    Serving,
    strategy=st.sampled_from(STRATEGIES),
    anchor=st.sampled_from(['observation', 'arrival']),
    period_s=st.floats(0.02, 0.5),
    offset_steps=st.sampled_from([0, 1]),
    execute_steps=st.integers(1, STEPS - 1),
    retry_s=st.floats(3 * TICK_S, 1.0),  # the guard takes a chunk and says so in two
    latency_s=st.floats(0.0, 0.5),
    image_period_s=st.floats(0.02, 0.2),
).filter(fits)


@settings(max_examples=100, report_multiple_bugs=False)
@given(servings)
def test_when_a_policy_is_served_expect_the_robot_to_begin_in_time_and_to_get_on(serving):
    s = serving
    # an image, its chunk, the wait for the first sample and a tick of each; then the limiter
    begin_s = s.image_period_s + s.latency_s + s.offset_steps * s.period_s + 0.1
    loop = Loop(serving).run(begin_s + s.period_s)
    assert loop.went() > 0.0
    begun = loop.went()
    loop.run(loop.now_s + 4.0)
    assert loop.refused == 0
    assert loop.went() - begun > least_share(serving) * 4.0
    if s.anchor == 'observation':  # catches up with its first sample from rest, if that is offset
        assert loop.went_back() < 0.01 + 0.5 * s.offset_steps * s.period_s
