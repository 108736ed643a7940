# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The guard node: the only publisher of commands, in a process of its own.

Callbacks store what arrives; the tick hands it to the core with the time, and publishes what the
core decides. E-stop and service calls make an extra step at once.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.event_handler import SubscriptionEventCallbacks
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from vla_deploy.core.bounds import Bounds
from vla_deploy.core.guard import GuardCore
from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.guard_io import GuardState, Inputs, Outputs
from vla_deploy.core.guard_io import JointState as CoreJointState
from vla_deploy.core.limits import JointLimits, LimitsError, tighten
from vla_deploy.core.outputs import OutputError, plan_outputs
from vla_deploy.core.urdf import UrdfError, parse_urdf
from vla_deploy.files import FileError, read_text
from vla_deploy.ros import qos
from vla_deploy.ros.chunk_messages import message_to_chunk
from vla_deploy.ros.command_outputs import CommandOutputs
from vla_deploy.ros.conversions import time_msg, time_ns
from vla_deploy.ros.guard_messages import (
    diagnostics_message,
    execution_message,
    violation_message,
)
from vla_deploy.ros.guard_node_config import GuardNodeConfig
from vla_deploy.ros.lifecycle import ConfigureError, LifecycleConfig, ManagedNode, run_node
from vla_deploy.ros.parameters import read_config
from vla_deploy.ros.percentiles import DurationWindow
from vla_deploy.ros.rate_limit import RateLimit
from vla_deploy.ros.realtime import calm_garbage_collector, try_sched_fifo
from vla_deploy.ros.robot_limits import robot_limits
from vla_deploy_msgs.msg import ActionChunk, ExecutionState, GuardStatus, Violation

_SILENT = (GuardState.DISARMED, GuardState.ESTOP_LATCHED, GuardState.FAULT)
_GRAPH_PERIOD_S = 0.1  # how often publishers and subscribers of the command topic are counted
_STATUS_PERIOD_S = 0.5


class GuardNode(ManagedNode):
    """Verifies plans, limits commands, stops the robot."""

    expected_errors = (*ManagedNode.expected_errors, FileError, LimitsError, OutputError,
                       UrdfError)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('guard', GuardNodeConfig, GuardConfig, **kwargs)
        self._core: GuardCore | None = None
        self._inputs = Inputs()
        self._description = ''
        self._configured_description = ''
        self._fifo = False
        self._last_transport_s = -1.0
        self._last_seq = 0
        self._shown: tuple[GuardState, str] | None = None
        self._step_time, self._lateness = DurationWindow(), DurationWindow()
        self._due_ns: int | None = None
        self._status_publisher = self.create_publisher(GuardStatus, '~/status', qos.STATUS)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', qos.DIAGNOSTICS)
        # In the constructor, because a latched description may be all that there is.
        self.create_subscription(
            String, 'robot_description', self._on_description, qos.DESCRIPTION
        )
        self.create_timer(_STATUS_PERIOD_S, self.publish_status)
        self.create_timer(1.0, self._publish_diagnostics)
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
        self._limits = self._load_limits(node_config)
        for note in self._limits.notes:
            self.get_logger().info(note)
        self._core = GuardCore(self._limits, config)
        self._config, self._node_config = config, node_config
        self._configured_description = self._description
        self._rate_limit = RateLimit(node_config.violations_per_s)
        self._outputs = plan_outputs(node_config.output_topics, node_config.output_types,
                                     node_config.output_joints, self._limits.names,
                                     config.control_mode)
        self._create_interfaces()
        if node_config.sched_fifo_priority:
            refused = try_sched_fifo(node_config.sched_fifo_priority)
            self._fifo = not refused
            if refused:
                self.get_logger().warning(refused)
        calm_garbage_collector()

    def _load_limits(self, config: GuardNodeConfig) -> JointLimits:
        if not config.joint_names:
            raise ConfigureError("parameter 'joint_names' is empty: name the joints under guard")
        if not config.limits_path:
            raise ConfigureError("parameter 'limits_path' is empty: give the file of the limits")
        text = config.robot_description
        source = "parameter 'robot_description'"
        if not text and config.urdf_path:
            text, source = read_text(Path(config.urdf_path)), config.urdf_path
        if not text:
            text, source = self._description, "topic 'robot_description'"
        if not text:
            raise ConfigureError(
                "no robot description: give parameter 'robot_description' or 'urdf_path', "
                "or publish the latched topic 'robot_description'"
            )
        limits = robot_limits(text, source, config.joint_names, config.limits_path)
        if self._description and self._description != text:
            limits = tighten(limits, parse_urdf(self._description))
        return limits

    def _create_interfaces(self) -> None:
        period_s = self._config.period_s
        self._commands = CommandOutputs(
            self, self._outputs, Bounds.of(self._limits, self._config.soft_margin), period_s
        )
        self._execution = self.create_publisher(
            ExecutionState, 'execution_state', qos.EXECUTION_STATE
        )
        self._violations = self.create_publisher(Violation, '~/violations', qos.VIOLATIONS)
        subscribe = self.create_subscription
        self.owned += [
            *self._commands.publishers,
            self._execution,
            self._violations,
            subscribe(JointState, 'joint_states', self._on_joint_state, qos.SENSOR),
            subscribe(ActionChunk, 'action_chunk', self._on_chunk, qos.CHUNK),
            # A best-effort volatile reader hears every publisher; if it cannot, that is a fault.
            subscribe(
                Bool,
                'estop',
                self._on_estop,
                qos.ESTOP_VOLATILE,
                event_callbacks=SubscriptionEventCallbacks(
                    incompatible_qos=self._on_incompatible_estop
                ),
            ),
            subscribe(
                Bool,
                'estop',
                self._on_estop,
                qos.ESTOP_LATCHED,
                event_callbacks=SubscriptionEventCallbacks(incompatible_qos=lambda _event: None),
            ),
            *(
                self.create_service(Trigger, f'~/{name}', self._request_handler(request))
                for name, request in (
                    ('arm', Inputs(arm=True)),
                    ('disarm', Inputs(disarm=True)),
                    ('reset', Inputs(reset=True)),
                    ('estop', Inputs(estop_request=True)),
                )
            ),
            self.create_timer(period_s, self._tick),
            self.create_timer(_GRAPH_PERIOD_S, self._look_at_graph),
        ]
        self._look_at_graph()

    def activate(self) -> None:
        """Begin to command, once armed."""
        assert self._core is not None
        refusal = self._core.activation_refusal()
        if refusal:
            raise ConfigureError(refusal)
        self._auto_arm = self._node_config.auto_arm

    def deactivate(self) -> None:
        """Send the braking trajectory; the ticks go on until the robot stands, then disarm."""
        self._auto_arm = False
        self._step(disarm=True)
        self._commands.wait_until_received(0.5)

    def cleanup(self) -> None:
        """Take every interface but the status out of the graph."""
        self.destroy_owned()
        self._core = None
        self._inputs = Inputs()

    # -- what arrives ---------------------------------------------------------------------------

    def _on_joint_state(self, msg: JointState) -> None:
        velocity = np.asarray(msg.velocity, dtype=np.float64)
        state = CoreJointState(
            stamp_ns=time_ns(msg.header.stamp),
            names=tuple(msg.name),
            position=np.asarray(msg.position, dtype=np.float64),
            velocity=velocity if velocity.size else None,
        )
        self._inputs = replace(self._inputs, joint_state=state)

    def _on_chunk(self, msg: ActionChunk) -> None:
        sent_ns = time_ns(msg.sent_stamp)
        self._last_transport_s = (self.get_clock().now().nanoseconds - sent_ns) * 1e-9
        self._last_seq = msg.seq
        chunks = (*self._inputs.chunks, message_to_chunk(msg))
        self._inputs = replace(self._inputs, chunks=chunks)

    def _on_estop(self, msg: Bool) -> None:
        changed = msg.data != self._inputs.estop
        self._inputs = replace(self._inputs, estop=msg.data)
        if changed:
            self._step()

    def _on_incompatible_estop(self, _event: Any) -> None:
        self._inputs = replace(
            self._inputs, external_fault='estop: a publisher has an incompatible QoS'
        )

    def _on_description(self, msg: String) -> None:
        if not self._configured_description:
            self._configured_description = msg.data
        self._description = msg.data
        changed = self._core is not None and msg.data != self._configured_description
        self._inputs = replace(self._inputs, description_changed=changed)

    def _request_handler(self, request: Inputs) -> Any:
        def handle(_request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            if not self.is_active and (request.arm or request.reset):
                response.message = 'the guard is not active'
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

    def _look_at_graph(self) -> None:
        self._inputs = replace(
            self._inputs,
            subscribers=self._commands.subscribers(),
            other_publishers=self._commands.other_publishers(),
        )

    # -- the tick -------------------------------------------------------------------------------

    def _tick(self) -> None:
        now_steady_ns = time.monotonic_ns()
        period_ns = int(self._config.period_s * 1e9)
        if self._due_ns is not None:
            self._lateness.add(max(0, now_steady_ns - self._due_ns) * 1e-9)
        late = self._due_ns is None or now_steady_ns - self._due_ns > period_ns
        self._due_ns = (now_steady_ns if late else self._due_ns) + period_ns
        self._step(arm=self._wants_arming())

    def _wants_arming(self) -> bool:
        assert self._core is not None
        return (
            self.is_active
            and self._auto_arm
            and self._core.state is GuardState.DISARMED
            and self._inputs.joint_state is not None
        )

    def _step(self, **requests: bool) -> Outputs | None:
        """Make one step of the core and publish what it decided."""
        if self._core is None:
            return None
        begin_s = time.perf_counter()
        inputs = replace(self._inputs, **requests) if any(requests.values()) else self._inputs
        self._inputs = replace(self._inputs, chunks=(), joint_state=None)
        now_ns = self.get_clock().now().nanoseconds
        if not self.is_active and self._core.state in _SILENT and not requests.get('disarm'):
            inputs = replace(inputs, chunks=())
        out = self._core.step(now_ns, time.monotonic_ns(), inputs)
        self._commands.send(now_ns, out.trajectory)
        self._step_time.add(time.perf_counter() - begin_s)
        if requests.get('arm') and out.state is not GuardState.DISARMED:
            self._auto_arm = False
        self._execution.publish(execution_message(out.execution, out.state, self._limits.names))
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
        status = GuardStatus(
            lifecycle_state=self.lifecycle_state,
            state=GuardState.DISARMED.value,
            state_name=GuardState.DISARMED.name,
            reason=self.configure_error,
            sched_fifo=self._fifo,
            joint_state_age_s=-1.0,
            last_transport_s=self._last_transport_s,
            last_seq=self._last_seq,
        )
        now_ns = self.get_clock().now().nanoseconds
        status.header.stamp = time_msg(now_ns)
        core = self._core
        if core is None:
            return status
        status.state, status.state_name = core.state.value, core.state.name
        status.reason = core.reason
        status.mode = self._config.mode
        status.estop_active = core.estop_live
        status.limits_sha256 = self._limits.sha256
        status.joint_names = list(self._limits.names)
        counters = core.counters
        status.chunks_accepted = counters.accepted
        status.chunks_clamped = counters.clamped
        status.chunks_refused = counters.refused
        status.commands_published = counters.published
        status.rule_names = list(counters.rules)
        status.rule_counts = list(counters.rules.values())
        status.worst_margin = core.worst_margin
        status.joint_state_age_s = core.joint_state_age_s(now_ns)
        status.step_p50_s, status.step_p95_s, status.step_p99_s, status.step_max_s = (
            self._step_time.percentiles((50, 95, 99, 100))
        )
        status.tick_lateness_p99_s = self._lateness.percentiles((99,))[0]
        return status

    def publish_status(self) -> None:
        self._status_publisher.publish(self._status())

    def _publish_diagnostics(self) -> None:
        self._diagnostics.publish(diagnostics_message(self.get_name(), self._status()))


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT."""
    return run_node(GuardNode, args, __doc__ or '', LifecycleConfig, GuardNodeConfig, GuardConfig)


if __name__ == '__main__':
    sys.exit(main())
