# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The ActionGuard's core: from clocks and inputs to one trajectory a tick. No clock, no ROS.

It denies by default. DISARMED sends nothing; HOLD brakes and keeps the point; ARMED executes
verified plans; ESTOP_LATCHED and FAULT brake once and then are silent until a reset, which leads
to DISARMED: arming is a second act.
"""

from __future__ import annotations

from vla_deploy.core.arming import not_ready
from vla_deploy.core.chunk import Chunk
from vla_deploy.core.command import CommandLine
from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.guard_io import (
    Answer,
    ChunkReport,
    Counters,
    ExecutionState,
    GuardState,
    Inputs,
    Outputs,
)
from vla_deploy.core.joint_watch import JointWatch
from vla_deploy.core.limit_change import acceptable
from vla_deploy.core.limits import JointLimits, LimitsError
from vla_deploy.core.lines import Lines
from vla_deploy.core.schedule import Schedule, SessionBook
from vla_deploy.core.tracking import TrackingWatch
from vla_deploy.core.trajectory import NS_TO_S, Trajectory
from vla_deploy.core.verify import VerifyReport, VerifyState, verify_chunk
from vla_deploy.core.violation import Action, Violation

MAX_CHUNKS_A_STEP = 4
LATCHED = (GuardState.ESTOP_LATCHED, GuardState.FAULT)
IN_CONTROL = (GuardState.HOLD, GuardState.ARMED)
EXECUTES = (*IN_CONTROL, GuardState.SHADOW)


class GuardCore:
    """One guard over the joints of `limits`; call `step` once a tick."""

    def __init__(self, limits: JointLimits, config: GuardConfig) -> None:
        self.limits, self.config = limits, config
        self.state = GuardState.DISARMED
        self.reason = ''
        self.counters = Counters()
        self.worst_margin = 1.0
        self.estop_reason = ''
        self._lines = Lines(limits, config)
        self._joints = JointWatch(
            limits.names, config.joint_state_timeout_s, config.joint_state_steady_timeout_s,
            config.clock_tolerance_s, limits.continuous,
        )
        self._sessions = SessionBook()
        self._schedule = Schedule()
        self._line: CommandLine | None = None
        self._last_ros_ns: int | None = None
        self._last_steady_ns = 0
        self._last_accept_ns = 0
        self._in_a_row = 0
        self._tripped = False
        self._disarm_pending = False
        self._brake_once = False
        self._tracking = TrackingWatch(limits, config)
        self._tighter: tuple[JointLimits, Lines] | None = None
        self._joint_state_rule = ''
        self._violations: list[Violation] = []

    def activation_refusal(self) -> str:
        """Why the guard must not become active, as one line; empty if it may."""
        names = self.limits.placeholders
        if names and not self.config.accept_placeholder_limits:
            return (f'limits of {", ".join(names)} are placeholders; set '
                    'accept_placeholder_limits to use them')
        return ''

    def joint_state_age_s(self, now_ros_ns: int) -> float:
        """Age of the newest joint state [s]; -1 before the first."""
        return self._joints.age_s(now_ros_ns)

    def step(self, now_ros_ns: int, now_steady_ns: int, inputs: Inputs) -> Outputs:
        """Judge what arrived, decide the state and build the command for this tick."""
        self._violations = list(inputs.findings)
        self._watch_clocks(now_ros_ns, now_steady_ns)
        self._take_joint_state(now_ros_ns, now_steady_ns, inputs)
        self._watch_schedule(now_ros_ns)
        fault = self._fault(now_ros_ns, now_steady_ns, inputs)
        answers = []
        self.estop_reason = (inputs.estop_reason or 'emergency stop') if inputs.estop else ''
        if inputs.estop or inputs.estop_request:
            self._latch(GuardState.ESTOP_LATCHED, self.estop_reason or 'emergency stop')
        elif fault is not None:
            self._enter_fault(*fault)
        if inputs.estop_request:
            answers.append(Answer('estop', True, 'emergency stop latched'))
        if inputs.reset:
            answers.append(self._reset(now_ros_ns, now_steady_ns, fault))
        if inputs.disarm:
            answers.append(self._disarm())
        if inputs.tighten is not None:
            answers.append(self._tighten(inputs.tighten))
        reports = self._take_chunks(now_ros_ns, inputs)
        if inputs.arm:
            answers.append(self._arm(now_ros_ns, now_steady_ns, inputs, fault))
        trajectory = self._command(now_ros_ns)
        shadow = None
        if self.state is GuardState.SHADOW:
            trajectory, shadow = None, trajectory
        if trajectory is not None:
            self.counters.published += 1
        self.counters.count(self._violations)
        self._last_ros_ns, self._last_steady_ns = now_ros_ns, now_steady_ns
        return Outputs(
            self.state, self.reason, trajectory, shadow,
            ExecutionState.of(now_ros_ns, self._schedule, self.counters.refused, self._line),
            tuple(self._violations), tuple(reports), tuple(answers),
        )

    # -- watchdogs

    def _watch_clocks(self, now_ros_ns: int, now_steady_ns: int) -> None:
        if self._last_ros_ns is None:
            return
        back = self._last_ros_ns - now_ros_ns
        if back > 0:
            if self._line is not None:
                self._line.shift(-back)
            self._joints.forget()
            self._tracking.forget()
            self._hold('clock_jump', f'ROS time jumped back by {back * NS_TO_S:.3f} s',
                       back * NS_TO_S, 0.0, 's')
        gap = (now_steady_ns - self._last_steady_ns) * NS_TO_S
        if gap > self.config.tick_gap_s:
            self._hold('tick_gap', f'{gap:.3f} s between two ticks', gap,
                       self.config.tick_gap_s, 's')

    def _take_joint_state(self, now_ros_ns: int, now_steady_ns: int, inputs: Inputs) -> None:
        if inputs.joint_state is None:
            return
        rule, joint, message = self._joints.offer(inputs.joint_state, now_ros_ns, now_steady_ns)
        if rule and rule != self._joint_state_rule:
            self._report(Violation(rule, Action.REFUSED, message, joint))
        self._joint_state_rule = rule

    def _watch_schedule(self, now_ns: int) -> None:
        """Start a pending plan, count consumed samples, notice when plans or chunks have ended.

        A plan starts one tick after it was judged, so that no tick has to do both.
        """
        if not self._schedule.has_plan:
            return
        assert self._line is not None  # from arming on, and no plan is kept without it
        lag_ns = self._line.lag_ns
        if self._schedule.pending is not None:
            self._schedule.activate(self._line.splice_ns(now_ns), now_ns,
                                    round(self.config.period_s * 1e9))
        if (lag_s := lag_ns * NS_TO_S) > self.config.max_lag_s:
            self._hold('lag', f'the motion is {lag_s:.3f} s behind its plan', lag_s,
                       self.config.max_lag_s, 's')
        elif not self._schedule.advance(now_ns - lag_ns) and self._schedule.pending is None:
            self._to_hold('plan ended')
        silent = (now_ns - self._last_accept_ns) * NS_TO_S
        if self._schedule.running is not None and silent > self.config.chunk_silence_s:
            self._hold('chunk_silence', f'no chunk for {silent:.3f} s', silent,
                       self.config.chunk_silence_s, 's')

    def _fault(
        self, now_ros_ns: int, now_steady_ns: int, inputs: Inputs
    ) -> tuple[str, str, str] | None:
        """(rule, joint, sentence) of a condition that does not allow control, or None."""
        stale = self._joints.stale(now_ros_ns, now_steady_ns)
        if stale:
            return 'joint_state_age', '', stale
        if inputs.other_publishers > 0:
            return 'second_publisher', '', (f'{inputs.other_publishers} other publisher(s) on the '
                                            'command topic')
        if inputs.description_changed:
            return 'description_changed', '', 'the robot description changed'
        if inputs.external_fault:
            return 'external', '', inputs.external_fault
        if self.state in IN_CONTROL and inputs.subscribers < 1:
            return 'no_subscriber', '', 'nobody subscribes to the command topic'
        if self._line is None or self.state not in IN_CONTROL:
            self._tracking.forget()
            return None
        return self._tracking.fault(self._line, self._joints)

    # -- transitions

    def _report(self, violation: Violation) -> None:
        self._violations.append(violation)

    def _hold(self, rule: str, message: str, value: float, limit: float, unit: str) -> None:
        self._report(Violation(rule, Action.HOLD, message, '', -1, value, limit, unit))
        self._to_hold(message)

    def _to_hold(self, reason: str) -> None:
        """Leave ARMED; elsewhere only the plans are dropped."""
        self._schedule.drop()
        if self.state is GuardState.ARMED:
            self.state, self.reason = GuardState.HOLD, reason

    def _latch(self, state: GuardState, reason: str) -> None:
        if self.state is GuardState.ESTOP_LATCHED or self.state is state:
            return
        self._brake_once = self.state in IN_CONTROL
        if not self._brake_once:
            self._line = None
        self._schedule.drop()
        self._disarm_pending = False
        self.state, self.reason = state, reason

    def _enter_fault(self, rule: str, joint: str, message: str) -> None:
        if self.state not in LATCHED:
            self._report(Violation(rule, Action.FAULT, message, joint))
            self._latch(GuardState.FAULT, message)

    def _reset(
        self, now_ros_ns: int, now_steady_ns: int, fault: tuple[str, str, str] | None
    ) -> Answer:
        if self.state not in LATCHED:
            return Answer('reset', True, f'nothing to reset in {self.state.name}')
        if self.estop_reason or self._brake_once:
            return Answer('reset', False, f'still active: {self.estop_reason or self.reason}')
        if fault is not None:
            return Answer('reset', False, fault[2])
        if not self._joints.fresh(now_ros_ns, now_steady_ns):
            return Answer('reset', False, 'there is no fresh joint state')
        self._to_disarmed('')
        return Answer('reset', True, 'disarmed; arm to take control')

    def _disarm(self) -> Answer:
        if self.state in LATCHED:
            return Answer('disarm', False, f'{self.state.name} stays until a reset')
        if self.state in IN_CONTROL:
            self._to_hold('disarming')
            self._disarm_pending = True
            return Answer('disarm', True, 'disarmed once the robot has stopped')
        self._to_disarmed('')
        return Answer('disarm', True, 'disarmed')

    def _tighten(self, limits: JointLimits) -> Answer:
        """Take tighter limits: once the robot stands, braked under the old ones."""
        try:
            self._tighter = acceptable(limits, self.limits, self.config)
        except LimitsError as error:
            return Answer('tighten', False, str(error))
        if self.state in EXECUTES:
            self._to_hold('limits are being tightened')
        if self.state in IN_CONTROL and self._line is not None:
            return Answer('tighten', True, 'taken once the robot stands')
        self._take_limits()
        return Answer('tighten', True, 'taken')

    def _take_limits(self, at_rest_ns: int | None = None) -> None:
        """Put the tighter limits in force; a line at rest begins anew where it stands."""
        if self._tighter is None:
            return
        (self.limits, self._lines), self._tighter = self._tighter, None
        if self._line is not None and at_rest_ns is not None:
            self._line = self._lines.begin(at_rest_ns, self._line.sample(at_rest_ns)[0])
        self._report(Violation('limits', Action.NOTED,
                               f'tighter limits are in force, sha256 {self.limits.sha256}'))

    def _to_disarmed(self, reason: str) -> None:
        self.state, self.reason = GuardState.DISARMED, reason
        self._line = None
        self._take_limits()
        self._schedule.drop()
        self._disarm_pending = False

    def _arm(
        self, now_ros_ns: int, now_steady_ns: int, inputs: Inputs,
        fault: tuple[str, str, str] | None,
    ) -> Answer:
        if self.state in IN_CONTROL:
            return Answer('arm', not self._disarm_pending, 'still disarming'
                          if self._disarm_pending else f'already in {self.state.name}')
        refusal = self._arm_refusal(fault) or not_ready(
            self._joints, self.limits.names, self.config.arm_velocity, inputs.subscribers,
            now_ros_ns, now_steady_ns)
        if refusal:
            return Answer('arm', False, refusal)
        assert self._joints.position is not None
        from_disarmed = self.state is GuardState.DISARMED
        self.state = GuardState.HOLD
        if self.config.shadow and from_disarmed:
            self.state = GuardState.SHADOW
        self.reason = ''
        self._schedule.drop()
        self._schedule.consumed_total = 0
        self._in_a_row, self._tripped = 0, False
        self._tracking.forget(self._joints.stamp_ns)
        self._line = self._lines.begin(now_ros_ns, self._joints.position)
        return Answer('arm', True, f'armed: {self.state.name}')

    def _arm_refusal(self, fault: tuple[str, str, str] | None) -> str:
        if self.state in LATCHED:
            return f'{self.state.name}: {self.reason}; reset first'
        return self.estop_reason or (fault[2] if fault else '') or self.activation_refusal()

    # -- chunks

    def _take_chunks(self, now_ns: int, inputs: Inputs) -> list[ChunkReport]:
        flood = len(inputs.chunks) - MAX_CHUNKS_A_STEP
        if flood > 0:
            self._report(Violation(
                'flood', Action.REFUSED, f'{flood} chunks too many in one tick were not judged',
                value=len(inputs.chunks), limit=MAX_CHUNKS_A_STEP,
            ))
            self.counters.refused += flood
        return [self._take_chunk(now_ns, chunk) for chunk in inputs.chunks[-MAX_CHUNKS_A_STEP:]]

    def _take_chunk(self, now_ns: int, chunk: Chunk) -> ChunkReport:
        if chunk.ends_session:
            return self._end_session(chunk)
        splice_ns, commanded = now_ns, None
        if self._line is not None and self.state not in LATCHED:
            splice_ns = self._line.splice_ns(now_ns)
            if self.state is not GuardState.SHADOW or self._schedule.has_plan:
                commanded = self._line.place(splice_ns)
        state = VerifyState(now_ns, splice_ns, self._sessions, commanded, self._joints.position,
                            self._joints.stamp_ns)
        _, report = verify_chunk(chunk, state, self.limits, self.config)
        if self._tripped and report.verdict == 'clamped':
            report = report.as_refused()
        self._violations += report.violations
        self._count(now_ns, chunk, report)
        return ChunkReport(chunk.session_id, chunk.seq, report.verdict, report.violations)

    def _end_session(self, chunk: Chunk) -> ChunkReport:
        """Brake and hold, unless another session has taken over; what is late will be refused."""
        if chunk.session_id == self._sessions.session_id:
            self._to_hold('session ended')
        self._sessions.close(chunk.session_id)
        return ChunkReport(chunk.session_id, chunk.seq, 'ended', ())

    def _count(self, now_ns: int, chunk: Chunk, report: VerifyReport) -> None:
        """Count the verdict, trip after too many bad ones in a row, schedule a good one."""
        self.counters.add(report.verdict)
        clean = report.verdict == 'accepted'
        self._in_a_row = 0 if clean else self._in_a_row + 1
        self._tripped = self._tripped and not clean
        if self.state not in EXECUTES:
            self._in_a_row = 0
            return
        if self._in_a_row >= self.config.trip_count and not self._tripped:
            self._tripped = True
            self._hold('trip', f'{self._in_a_row} chunks in a row were refused or clamped',
                       self._in_a_row, self.config.trip_count, '1')
            return
        if report.plan is None or self._disarm_pending or self._tighter is not None:
            return
        self._sessions.accept(chunk.session_id, chunk.seq)
        self._schedule.offer(report.plan)
        assert self._line is not None  # from arming on
        self._line.expect(now_ns, report.plan)
        self._last_accept_ns = now_ns
        if self.state is GuardState.HOLD:
            self.state, self.reason = GuardState.ARMED, ''

    # -- command

    def _command(self, now_ns: int) -> Trajectory | None:
        if self.state in LATCHED:
            if not self._brake_once or self._line is None:
                return None
            self._brake_once = False
            trajectory = self._line.hold(now_ns)
            self._line = None
            return trajectory
        line = self._line
        if line is None:
            return None
        if self.state is GuardState.SHADOW and not self._schedule.has_plan:
            # Nothing was sent: what would be commanded next starts where the robot is.
            if self._joints.position is None:
                return None
            self._line = line = self._lines.begin(now_ns, self._joints.position)
        if self._schedule.running is not None:
            trajectory = line.follow(now_ns, self._schedule.running)
            if line.blocked is not None:
                self._report(line.blocked.violation())
                self._to_hold(line.blocked.violation().message)
        else:
            trajectory = line.hold(now_ns)
        self.worst_margin = min(self.worst_margin, line.worst_margin)
        if line.at_rest(now_ns):
            self._take_limits(now_ns)
            if self._disarm_pending:
                self._to_disarmed('')
        return trajectory
