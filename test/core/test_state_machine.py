# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The guard's table of states, walked at random beside a model that is nothing but the table."""

from typing import Any

import numpy as np
from guard_world import World
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.guard_io import Answer, Outputs

IN_CONTROL = ('HOLD', 'ARMED')
LATCHED = ('ESTOP_LATCHED', 'FAULT')
FREE = ('DISARMED', 'SHADOW', 'HOLD', 'ARMED')
TRIP_COUNT = 3
SETTLE_TICKS = 40
PLACES = st.sampled_from(['here', 'here', 'armed once', 'HOLD', 'ARMED'])
CONDITIONS = {  # what the guard is told in each tick while the condition lasts
    'second publisher': {'other_publishers': 1},
    'description changed': {'description_changed': True},
    'external': {'external_fault': 'a log that cannot be written'},
    'no subscriber': {'subscribers': 0},
}


class Table:
    """The table of states. `live`: conditions that last; `stop`: an emergency stop is held."""

    def __init__(self, shadow: bool) -> None:
        self.shadow = shadow
        self.state = 'DISARMED'
        self.live: set[str] = set()
        self.stop = False
        self.bad_in_a_row = 0
        self.tripped = False

    def conditions(self) -> None:
        """What lasts acts in every tick, before requests do."""
        if self.stop:
            self.state = 'ESTOP_LATCHED'
        elif self.faulty() and self.state in FREE:
            self.state = 'FAULT'

    def faulty(self) -> bool:
        """Whether a condition forbids control; nobody has to listen to a guard without control."""
        return bool(self.live - {'no subscriber'}) or (
            'no subscriber' in self.live and self.state in IN_CONTROL)

    def arm(self) -> bool:
        """Return whether arming succeeds."""
        if self.state in IN_CONTROL:
            return True
        if self.state in LATCHED or self.stop or self.live:
            return False
        shadow = self.shadow and self.state == 'DISARMED'
        self.state = 'SHADOW' if shadow else 'HOLD'
        self.bad_in_a_row, self.tripped = 0, False
        return True

    def reset(self) -> bool:
        """Return whether the reset is granted."""
        if self.state not in LATCHED:
            return True
        if self.stop or self.faulty():
            return False
        self.state = 'DISARMED'
        return True

    def disarm(self) -> bool:
        """Return whether disarming is granted; the stop before it has ended."""
        if self.state in LATCHED:
            return False
        self.state = 'DISARMED'
        return True

    def chunk(self, good: bool) -> None:
        """Take the verdict on a chunk."""
        if good:
            self.bad_in_a_row, self.tripped = 0, False
            if self.state == 'HOLD':
                self.state = 'ARMED'
        elif self.state not in (*IN_CONTROL, 'SHADOW'):
            self.bad_in_a_row = 0
        else:
            self.bad_in_a_row += 1
            if self.bad_in_a_row >= TRIP_COUNT and not self.tripped:
                self.tripped = True
                self.to_hold()

    def to_hold(self) -> None:
        """Plan ended, tick gap, clock jump, trip."""
        if self.state == 'ARMED':
            self.state = 'HOLD'


class GuardMachine(RuleBasedStateMachine):
    """Each rule is an event; after it, guard and table agree."""

    @initialize(shadow=st.booleans())
    def begin(self, shadow: bool) -> None:
        self.table = Table(shadow)
        self.world = World(GuardConfig(shadow=shadow, trip_count=TRIP_COUNT,
                                       chunk_silence_s=60.0))
        self.tick()

    def tick(self, dt_s: float | None = None, **inputs: Any) -> Outputs:
        """One tick of both, with all that lasts; commands are held to the state."""
        before = self.world.core.state.name
        for condition in self.table.live & set(CONDITIONS):
            inputs.update(CONDITIONS[condition])
        inputs['estop'] = self.table.stop
        self.world.measure = 'stale' not in self.table.live
        out = self.world.tick(dt_s, **inputs)
        self.commands_fit(before, out)
        return out

    @staticmethod
    def commands_fit(before: str, out: Outputs) -> None:
        if out.state.name in ('DISARMED', 'SHADOW'):
            assert out.trajectory is None or before in IN_CONTROL  # the last of a disarming
        elif out.state.name in LATCHED:
            assert (out.trajectory is not None) == (before in IN_CONTROL)
        else:
            assert out.trajectory is not None

    def answered(self, out: Outputs, request: str, success: bool) -> None:
        answers = [a for a in out.answers if a.request == request]
        assert len(answers) == 1
        assert isinstance(answers[0], Answer)
        assert answers[0].success is success
        assert answers[0].message

    def chunk(self, steps: int, period_s: float, **changes: Any) -> Any:
        """A slow motion from where the robot is."""
        position = self.world.core._joints.position
        start = self.world.position if position is None else position
        if (execution := self.world.outputs[-1].execution).commanded_position is not None:
            start = execution.commanded_position
        data = start + 0.001 * np.linspace(0.0, 1.0, steps)[:, None]
        return self.world.chunk(data, period_s, **changes)

    # -- requests

    @rule(where=PLACES)
    def arm(self, where: str) -> None:
        self.go(where)
        self.table.conditions()
        if self.table.state == 'DISARMED':
            self.world.judge.current = None
        expected = self.table.arm()
        self.answered(self.tick(arm=True), 'arm', expected)

    @rule(where=PLACES)
    def disarm(self, where: str) -> None:
        self.go(where)
        self.table.conditions()
        expected = self.table.disarm()
        self.answered(self.tick(disarm=True), 'disarm', expected)
        for _ in range(SETTLE_TICKS):
            self.tick()
        self.table.conditions()

    @rule(where=PLACES)
    def reset(self, where: str) -> None:
        self.go(where)
        self.table.conditions()
        expected = self.table.reset()
        self.answered(self.tick(reset=True), 'reset', expected)

    # -- what lasts

    @rule(where=PLACES, kind=st.sampled_from([*sorted(CONDITIONS), 'stale', 'stop held',
                                              'stop requested']),
          then=st.sampled_from(['nothing', 'reset', 'arm', 'disarm']))
    def trouble(self, where: str, kind: str, then: str) -> None:
        self.go(where)
        self.begin_trouble(kind)
        self.states_agree()
        if then != 'nothing':
            getattr(self, then)('here')

    def begin_trouble(self, kind: str) -> None:
        if kind == 'stop requested':
            self.table.state = 'ESTOP_LATCHED'
            self.answered(self.tick(estop_request=True), 'estop', True)
            return
        if kind == 'stop held':
            self.table.stop = True
        else:
            self.table.live.add(kind)
        for _ in range(25 if kind == 'stale' else 1):
            self.tick()
        self.table.conditions()

    @precondition(lambda self: self.table.live or self.table.stop)
    @rule(data=st.data())
    def relief(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(['everything', *sorted(self.table.live)]))
        self.table.live -= self.table.live if gone == 'everything' else {gone}
        self.table.stop = self.table.stop and gone != 'everything'
        self.tick()
        self.table.conditions()

    def go(self, where: str) -> None:
        """All that it takes to be in a state, so that the walk does not stay among the latched."""
        if where == 'here':
            return
        self.table.live, self.table.stop = set(), False
        self.tick()
        self.reset('here')
        self.arm('here')
        if where in IN_CONTROL:
            self.arm('here')
        if where == 'ARMED':
            self.good_chunk('here')

    # -- chunks and clocks

    @rule(where=PLACES)
    def good_chunk(self, where: str) -> None:
        self.go(where)
        if 'stale' in self.table.live:
            return  # refused for its age, whatever it holds
        self.table.conditions()
        assert [r.verdict for r in self.tick(chunks=(self.chunk(60, 1.0),)).reports] == ['accepted']
        self.table.chunk(good=True)

    @rule(where=PLACES, count=st.integers(1, TRIP_COUNT + 1))
    def bad_chunks(self, where: str, count: int) -> None:
        self.go(where)
        if 'stale' in self.table.live:
            return  # refused for its age, whatever it holds
        self.table.conditions()
        for _ in range(count):
            out = self.tick(chunks=(self.chunk(60, 1.0, control_mode=77),))
            assert [r.verdict for r in out.reports] == ['refused']
            self.table.chunk(good=False)
            self.states_agree()

    @rule(where=PLACES)
    def plan_that_ends(self, where: str) -> None:
        self.go(where)
        if 'stale' in self.table.live:
            return  # refused for its age, whatever it holds
        self.table.conditions()
        self.tick(chunks=(self.chunk(3, 0.05),))
        self.table.chunk(good=True)
        for _ in range(20):
            self.tick()
        self.table.conditions()
        self.table.to_hold()

    @rule(where=PLACES)
    def tick_gap(self, where: str) -> None:
        self.go(where)
        self.table.conditions()
        self.table.to_hold()
        self.tick(0.5)

    @rule(where=PLACES)
    def clock_jump(self, where: str) -> None:
        self.go(where)
        if self.table.live or self.table.stop:
            return  # the world's own tick has no conditions
        self.table.to_hold()
        self.world.jump(-0.3)

    @rule()
    def nothing(self) -> None:
        self.table.conditions()
        self.tick()

    @invariant()
    def states_agree(self) -> None:
        if hasattr(self, 'table'):
            assert self.world.core.state.name == self.table.state


TestGuardMachine = GuardMachine.TestCase
TestGuardMachine.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
