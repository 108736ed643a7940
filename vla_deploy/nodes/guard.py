# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The guard node: the only publisher of commands, in a process of its own.

Callbacks store what arrives; the tick hands it to the core with the time, and publishes what the
core decides. A chunk, an e-stop and service calls make a step of their own at once, so that no
tick has to judge a chunk; of several chunks between two ticks only the first.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from std_msgs.msg import String
from std_srvs.srv import Trigger

from vla_deploy.core.audit_config import AuditConfig
from vla_deploy.core.audit_file import AuditError
from vla_deploy.core.bounds import Bounds
from vla_deploy.core.guard import GuardCore
from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.guard_io import Answer, GuardState, Inputs, Outputs
from vla_deploy.core.limits import JointLimits, LimitsError
from vla_deploy.core.outputs import (
    Output,
    OutputDetails,
    OutputError,
    check_hysteresis,
    plan_outputs,
)
from vla_deploy.files import FileError
from vla_deploy.ros import qos
from vla_deploy.ros.apart import wait_for
from vla_deploy.ros.command_outputs import CommandOutputs
from vla_deploy.ros.estop_topics import EstopTopics
from vla_deploy.ros.execution_messages import ExecutionMessage
from vla_deploy.ros.graph_names import check_topics
from vla_deploy.ros.guard_audit import GuardAudit
from vla_deploy.ros.guard_inputs import GuardInputs
from vla_deploy.ros.guard_messages import diagnostics_message, violation_message
from vla_deploy.ros.guard_node_config import GuardNodeConfig
from vla_deploy.ros.guard_robot import load_robot
from vla_deploy.ros.guard_status import TickFigures, add_core, add_figures, empty_status
from vla_deploy.ros.joint_sources import JointSources
from vla_deploy.ros.lifecycle import ConfigureError, LifecycleConfig, ManagedNode, run_node
from vla_deploy.ros.parameters import read_config
from vla_deploy.ros.rate_limit import RateLimit
from vla_deploy.ros.realtime import calm_interpreter, try_sched_fifo
from vla_deploy.ros.transport import CONTROL
from vla_deploy_msgs.msg import ActionChunk, ExecutionState, GuardStatus, Violation

_SILENT = (GuardState.DISARMED, GuardState.ESTOP_LATCHED, GuardState.FAULT)
_GRAPH_PERIOD_S = 0.1  # how often publishers and subscribers of the command topic are counted
_STATUS_PERIOD_S = 0.5
_PLAY_OUT_S = 4.0  # launch terminates 5 s after it interrupts


class GuardNode(ManagedNode):
    """Verifies plans, limits commands, stops the robot."""

    expected_errors = (*ManagedNode.expected_errors, AuditError, FileError, OutputError)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('guard', GuardNodeConfig, GuardConfig, AuditConfig, **kwargs)
        self._core: GuardCore | None = None
        self._inputs = GuardInputs()
        self._audit: GuardAudit | None = None
        self._commands: CommandOutputs | None = None
        self._description = ''
        self._configured_description = ''
        self._fifo = False
        self._estopped = False
        self._chunk_had_step = False  # since the last tick
        self._stepped_s = time.monotonic()
        self._shown: tuple[GuardState, str] | None = None
        self._figures = TickFigures()
        self._reader = ThreadPoolExecutor(1, 'reader')  # of files, while the guard is in control
        self._status_publisher = self.create_publisher(GuardStatus, '~/status', qos.STATUS)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', qos.DIAGNOSTICS)
        # In the constructor, because a latched description may be all that there is.
        self.create_subscription(
            String, 'robot_description', self._on_description, qos.DESCRIPTION,
            callback_group=ReentrantCallbackGroup(),
        )
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_STATUS_PERIOD_S, self.publish_status, clock=self._steady)
        self.create_timer(1.0, self._publish_diagnostics, clock=self._steady)
        self.publish_status()

    # -- lifecycle ------------------------------------------------------------------------------

    def waiting_for(self) -> str:
        config = read_config(self, GuardNodeConfig)
        if config.robot_description or config.urdf_path or self._description:
            return ''
        return 'robot_description'

    def configure(self) -> None:
        """Read the robot and its limits; anything missing or contradictory is an error."""
        node_config = read_config(self, GuardNodeConfig)
        config = read_config(self, GuardConfig)
        if node_config.auto_arm and not node_config.simulated:
            raise ConfigureError("parameter 'auto_arm' is for simulated robots; arm by ~/arm")
        check_topics(self, node_config, 'joint_state_topics', 'output_topics', 'estop_topics')
        robot = load_robot(node_config, self._description)
        self._limits = robot.limits
        # rclpy takes 20 ms over its first line, so there is one before the ticks begin
        in_force = f'limits in force: {robot.limits.sha256}, from {node_config.limits_path}'
        for note in (in_force, *robot.limits.notes):
            self.get_logger().info(note)
        try:
            self._core = GuardCore(self._limits, config)
        except LimitsError as error:
            raise ConfigureError(f'{node_config.limits_path}: {error}') from error
        self._figures = TickFigures()
        self._inputs = GuardInputs(self._limits.names)
        self._config, self._node_config = config, node_config
        self._configured_description = self._description
        self._rate_limit = RateLimit(node_config.violations_per_s)
        self._outputs = self._outputs_for(self._limits)
        self._audit = GuardAudit(self.get_name(), read_config(self, AuditConfig), robot, config)
        if self._audit.folder:
            self.get_logger().info(f'audit log: {self._audit.folder}')
        self._create_interfaces()
        if node_config.sched_fifo_priority:
            refused = try_sched_fifo(
                node_config.sched_fifo_priority, (self._audit.thread_id,)
            )
            self._fifo = not refused
            if refused:
                self.get_logger().warning(refused)
        calm_interpreter()
        if self._estopped:  # before it was configured anew, which is no reset
            self._step(estop_request=True)

    def _outputs_for(self, limits: JointLimits) -> tuple[Output, ...]:
        config = self._node_config
        outputs = plan_outputs(
            config.output_topics, config.output_types, config.output_joints, limits.names,
            self._config.control_mode, limits.jerk is not None,
            OutputDetails(config.output_names, config.output_scales, config.output_offsets,
                          config.output_hysteresis),
        )
        check_hysteresis(outputs, limits.velocity, self._config.period_s)
        return outputs

    def _create_interfaces(self) -> None:
        period_s = self._config.period_s
        self.owned += JointSources(
            self, self._node_config.joint_state_topics, self._node_config.joint_state_prefixes,
            self._inputs.add_joint_state,
        ).entities
        self._commands = CommandOutputs(
            self, self._outputs, Bounds.of(self._limits, self._config.soft_margin), period_s
        )
        self._execution = self.create_publisher(
            ExecutionState, 'execution_state', qos.EXECUTION_STATE
        )
        self._execution_message = ExecutionMessage(self._limits.names)
        self._violations = self.create_publisher(Violation, '~/violations', qos.VIOLATIONS)
        self._estop = EstopTopics(
            self, self._node_config, self._on_estop, self._on_incompatible_estop
        )
        subscribe = self.create_subscription
        self.owned += [
            *self._commands.publishers,
            self._execution,
            self._violations,
            subscribe(ActionChunk, 'action_chunk', self._on_chunk, qos.CHUNK),
            *self._estop.subscriptions,
            *(
                self.create_service(Trigger, f'~/{name}', self._request_handler(request))
                for name, request in (
                    ('arm', Inputs(arm=True)),
                    ('disarm', Inputs(disarm=True)),
                    ('reset', Inputs(reset=True)),
                    ('estop', Inputs(estop_request=True)),
                )
            ),
            self.create_service(
                Trigger, '~/tighten_limits', self._on_tighten,
                callback_group=ReentrantCallbackGroup(),
            ),
            *self._timers_of_ticks(period_s),
            self.create_timer(_GRAPH_PERIOD_S, self._look_at_graph, clock=self._steady),
        ]
        self._look_at_graph()

    def _timers_of_ticks(self, period_s: float) -> list[Any]:
        """Ticks by the steady clock, which nobody sets; with simulated time by that, and where it
        stands still a step all the same, so that what has to be noticed then is."""
        if not self.get_parameter('use_sim_time').value:
            return [self.create_timer(period_s, self._tick, clock=self._steady)]
        return [
            self.create_timer(period_s, self._tick),
            self.create_timer(0.5 * self._config.tick_gap_s, self._watch_ticks, clock=self._steady),
        ]

    def activate(self) -> None:
        """Begin to command, once armed."""
        assert self._core is not None
        refusal = self._core.activation_refusal()
        if refusal:
            raise ConfigureError(refusal)
        self._auto_arm = self._node_config.auto_arm
        self._audit.event('activate', self.get_clock().now().nanoseconds)

    def deactivate(self) -> None:
        """Send the braking trajectory; the ticks go on until the robot stands, then disarm."""
        self._auto_arm = False
        self._step(disarm=True)
        self._audit.event('deactivate', self.get_clock().now().nanoseconds)
        self._commands.wait_until_received(0.5)

    def cleanup(self) -> None:
        """Take every interface but the status out of the graph, once streams have come to rest."""
        if self._commands is not None and not self._commands.play_out(
            self.get_clock().now().nanoseconds, _PLAY_OUT_S
        ):
            self.get_logger().error(f'the last motion was not sent to its end in {_PLAY_OUT_S:g} s')
        self._commands = None
        self.destroy_owned()
        if self._audit is not None and (problem := self._audit.close()):
            self.get_logger().error(problem)
        self._estopped = self._core is not None and self._core.state is GuardState.ESTOP_LATCHED
        self._core = self._audit = None
        self._inputs = GuardInputs()

    # -- what arrives ---------------------------------------------------------------------------

    def _on_chunk(self, msg: ActionChunk) -> None:
        self._inputs.add_chunk(msg, self.get_clock().now().nanoseconds)
        if not self._chunk_had_step:
            self._chunk_had_step = True
            self._step()

    def _on_estop(self) -> None:
        core = self._core
        if core is not None and self._estop.inputs()['estop_reason'] != core.estop_reason:
            self._step()

    def _on_incompatible_estop(self, topic: str) -> None:
        self._inputs.set(external_fault=f'{topic}: a publisher has an incompatible QoS')

    async def _on_description(self, msg: String) -> None:
        """Keep it for configure. What comes later is to be what was configured; the first, where
        something else was, may tighten it."""
        self._description, core = msg.data, self._core
        if core is None:
            return
        if self._configured_description:
            self._inputs.set(description_changed=msg.data != self._configured_description)
            return
        self._configured_description = msg.data
        answer = await self._tighten()
        if not answer.success and self._core is core:  # else configured anew, with this one
            self.get_logger().error(f"topic 'robot_description': {answer.message}")
            self._inputs.set(description_changed=True)

    def _request_handler(self, request: Inputs) -> Any:
        def handle(_request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            if not self.is_active and (request.arm or request.reset):
                response.message = 'the guard is not active'
                return response
            if request.arm and self._estop.missing():
                response.message = self._estop.missing()
                return response
            out = self._step(
                arm=request.arm,
                disarm=request.disarm,
                reset=request.reset,
                estop_request=request.estop_request,
            )
            if out is not None and out.answers:
                response.success = out.answers[-1].success
                response.message = out.answers[-1].message
            return response

        return handle

    async def _on_tighten(
        self, _request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        answer = await self._tighten()
        response.success, response.message = answer.success, answer.message
        return response

    async def _tighten(self) -> Answer:
        """Read the robot again, apart, and take its limits if they are tighter."""
        core = self._core
        read = self._reader.submit(load_robot, self._node_config, self._description)
        await wait_for(self, read)
        if self._core is None or self._core is not core:
            return Answer('tighten', False, 'the guard was cleaned up')
        try:
            limits = read.result().limits
            self._outputs_for(limits)
        except (ConfigureError, FileError, LimitsError, OutputError) as error:
            return Answer('tighten', False, str(error))
        if limits.sha256 == self._core.limits.sha256:
            return Answer('tighten', True, 'the limits are those in force')
        out = self._step(tighten=limits)
        assert out is not None  # there is a core
        return out.answers[0]

    def _look_at_graph(self) -> None:
        self._estop.look_at_graph()
        self._inputs.set(
            subscribers=self._commands.subscribers(),
            other_publishers=self._commands.other_publishers(),
        )

    # -- the tick -------------------------------------------------------------------------------

    def _tick(self) -> None:
        begin_s = time.perf_counter()
        self._chunk_had_step = False
        self._figures.begin_tick(time.monotonic_ns(), round(self._config.period_s * 1e9))
        self._step(arm=self._wants_arming())
        self._figures.tick_time.add(time.perf_counter() - begin_s)

    def _watch_ticks(self) -> None:
        if time.monotonic() - self._stepped_s > self._config.tick_gap_s:
            self._step()

    def _wants_arming(self) -> bool:
        assert self._core is not None
        return (
            self.is_active
            and self._auto_arm
            and not self._estop.missing()
            and self._core.state is GuardState.DISARMED
            and self._inputs.has_joint_state
        )

    def _step(self, **requests: Any) -> Outputs | None:
        """Make one step of the core and publish what it decided."""
        if self._core is None:
            return None
        self._stepped_s = time.monotonic()
        inputs = self._inputs.take(
            **requests, **self._estop.inputs(), **self._audit.findings()
        )
        now_ns = self.get_clock().now().nanoseconds
        if not self.is_active and self._core.state in _SILENT and not requests.get('disarm'):
            inputs = replace(inputs, chunks=())
        now_steady_ns = time.monotonic_ns()
        begin_s = time.perf_counter()
        out = self._core.step(now_ns, now_steady_ns, inputs)
        self._figures.step_time.add(time.perf_counter() - begin_s)
        if self._core.limits is not self._limits:
            self._limits = self._core.limits
            self._commands.keep_within(Bounds.of(self._limits, self._config.soft_margin))
        self._commands.send(now_ns, out.trajectory)
        self._audit.step(now_ns, now_steady_ns, inputs, out)
        if requests.get('arm') and out.state is not GuardState.DISARMED:
            self._auto_arm = False
        self._execution.publish(self._execution_message.fill(out.execution, out.state))
        for violation in out.violations:
            held_back = self._rate_limit.passes((violation.rule, violation.joint), now_ns)
            if held_back is not None:
                self._violations.publish(violation_message(violation, now_ns, held_back))
        if (out.state, out.reason) != self._shown or out.reports:
            self._shown = (out.state, out.reason)
            self.publish_status()
        return out

    # -- status ---------------------------------------------------------------------------------

    def _status(self) -> GuardStatus:
        now_ns = self.get_clock().now().nanoseconds
        status = empty_status(now_ns, self.lifecycle_state, self.configure_error, self._fifo)
        if self._core is not None:
            add_core(status, self._core, now_ns)
            add_figures(status, self._inputs, self._figures, self._audit.status())
        return status

    def publish_status(self) -> None:
        self._status_publisher.publish(self._status())

    def _publish_diagnostics(self) -> None:
        self._diagnostics.publish(diagnostics_message(self.get_name(), self._status()))


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT."""
    return run_node(GuardNode, args, __doc__ or '', LifecycleConfig, GuardNodeConfig, GuardConfig,
                    AuditConfig, profile=CONTROL)


if __name__ == '__main__':
    sys.exit(main())
