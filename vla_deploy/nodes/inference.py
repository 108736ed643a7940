# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The inference node: cameras, joint states and a text in, chunks of actions out.

Callbacks store what arrives and ask the loop whether a chunk is due. Every front (the topic
`instruction`, `~/start` and `~/stop`, the action, the service) goes through the same loop.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rclpy.duration import Duration
from std_msgs.msg import Float32MultiArray, String
from std_srvs.srv import Trigger

from vla_deploy.core.contract import Contract, ContractError
from vla_deploy.core.guard_io import GuardState
from vla_deploy.core.limits import JointLimits
from vla_deploy.files import FileError, read_text
from vla_deploy.pipeline import BundleError, ObservationError, Policy, PolicyError
from vla_deploy.pipeline.breaker import CircuitBreaker
from vla_deploy.pipeline.inference_config import InferenceConfig
from vla_deploy.pipeline.session import Execution, GuardReadiness, InstructionError, SessionCore
from vla_deploy.pipeline.strategy import SYNCHRONOUS, ChunkStrategy
from vla_deploy.ros import qos
from vla_deploy.ros.chunk_front import ChunkFront
from vla_deploy.ros.chunk_loop import ChunkLoop, LoopPorts
from vla_deploy.ros.chunk_maker import ChunkMaker
from vla_deploy.ros.conversions import time_ns
from vla_deploy.ros.graph_names import check_topics
from vla_deploy.ros.guard_rules import GuardRules, guard_rules
from vla_deploy.ros.instruction_front import InstructionFront
from vla_deploy.ros.lifecycle import ConfigureError, LifecycleConfig, ManagedNode, run_node
from vla_deploy.ros.observation_streams import ObservationStreams
from vla_deploy.ros.parameters import read_config
from vla_deploy.ros.policy_health import STATUS_PERIOD_S, PolicyHealth
from vla_deploy.ros.policy_messages import flat_message
from vla_deploy.ros.recorders import unheard
from vla_deploy.ros.robot_limits import robot_limits
from vla_deploy.ros.served_policy import ServedPolicy, load_policy, strategy_options
from vla_deploy_msgs.msg import ActionChunk, ExecutionState, PolicyStatus

_READINESS = {
    GuardState.DISARMED: GuardReadiness.REFUSES,
    GuardState.ESTOP_LATCHED: GuardReadiness.LATCHED,
    GuardState.FAULT: GuardReadiness.LATCHED,
}
_TELL_PERIOD_S = 1.0
_END_RECEIVED_S = 0.2  # at most, before the publisher of chunks may be taken away


class InferenceNode(ManagedNode):
    """Serves one policy."""

    expected_errors = (
        *ManagedNode.expected_errors,
        BundleError,
        ContractError,
        FileError,
        PolicyError,
    )

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('inference', InferenceConfig, **kwargs)
        self.loop: ChunkLoop | None = None
        self.maker: ChunkMaker | None = None
        self.streams: ObservationStreams | None = None
        self._policy: Policy | None = None
        self.limits: JointLimits | None = None
        self.rules: GuardRules | None = None
        self._health = PolicyHealth(self)
        self._last_instruction = ''
        self._recorded = False  # or need not be
        self._goals = InstructionFront(self, self, self._now_ns)
        ChunkFront(self, self, self._now_ns)
        self.create_timer(STATUS_PERIOD_S, self._on_status_timer)
        self.publish_status()

    # -- lifecycle ------------------------------------------------------------------------------

    def configure(self) -> None:
        """Verify and load the bundle, run the self-test on the variant that will serve."""
        config = self._config = read_config(self, InferenceConfig)
        if not config.bundle:
            raise ConfigureError("parameter 'bundle' is empty: give the folder of a bundle")
        check_topics(self, config, 'joint_state_topics')
        self._health.set_health(PolicyStatus.HEALTH_LOADING)
        self._announce_chunks()
        self._recorded = not config.wait_for_recorder
        served = load_policy(config)
        self._policy = served.policy
        self.rules = guard_rules(config.guard_parameters_path)
        self.limits = _limits(served.contract, config, self.rules)
        served = self._warm_up(served, config)
        self._goals.patience_s = config.goal_patience_s
        self.maker = ChunkMaker(
            served,
            config.strategy,
            config.noise_seed,
            config.chunk_valid_s,
            config.adaptive_steps,
            config.depth_max_m,
        )
        self.streams = ObservationStreams(self, served.contract, config, self._infer_if_due)
        session = SessionCore(
            config.execute_steps or served.contract.chunk_steps,
            config.retry_s,
            config.execution_timeout_s,
            config.instruction_max_length,
            config.allow_blank_instruction,
            config.strategy == SYNCHRONOUS,
        )
        own_dim = served.policy.contract.action.dim
        strategy = ChunkStrategy(strategy_options(served.contract, config, own_dim))
        breaker = CircuitBreaker(config.breaker_failures, config.breaker_open_s)
        self._health.watch(strategy, breaker)
        self._create_interfaces()
        ports = LoopPorts(
            self._send, self._now_ns, self._goals.hinder, self._injected_latency_s, self._unheard
        )
        deadline_s = config.deadline_ms * 1e-3 or None
        self.loop = ChunkLoop(
            session, strategy, breaker, self.maker, self.streams, self._health, ports, deadline_s
        )

    def _warm_up(self, served: ServedPolicy, config: InferenceConfig) -> ServedPolicy:
        """Run the self-test on what will serve, and measure what the parameters cost."""
        self._health.set_health(PolicyStatus.HEALTH_WARMING)
        try:
            test = served.policy.self_test()
            served = served.measured(config.adaptive_steps)
        except (BundleError, PolicyError, ObservationError) as error:
            self._health.set_health(PolicyStatus.HEALTH_WARMUP_FAILED, str(error))
            raise ConfigureError(f'self-test of {config.bundle}: {error}') from error
        self._health.show_policy(served, config, test)
        if test.passed:
            return served
        told = (
            f'self-test of {config.bundle}: max_abs {test.max_abs!r} is over the threshold '
            f'{test.threshold!r} on {config.backend}/{config.provider}/{config.precision}; choose '
            'another precision, provider or backend'
        )
        self._health.set_health(PolicyStatus.HEALTH_WARMUP_FAILED, told)
        raise ConfigureError(told)

    def _announce_chunks(self) -> None:
        """Before the policy is loaded, so that who hears of a topic late has the first chunk."""
        self._chunks = self.create_publisher(ActionChunk, 'action_chunk', qos.CHUNK)
        self._flat = self.create_publisher(Float32MultiArray, '~/action_chunk_flat', qos.CHUNK)
        self.owned += [self._chunks, self._flat]

    def _create_interfaces(self) -> None:
        assert self.streams is not None
        subscribe = self.create_subscription
        self.owned += [
            *self.streams.entities,
            subscribe(
                ExecutionState, 'execution_state', self._on_execution_state, qos.EXECUTION_STATE
            ),
            subscribe(String, 'instruction', self._on_instruction, qos.INSTRUCTION_VOLATILE),
            subscribe(String, 'instruction', self._on_instruction, qos.INSTRUCTION_LATCHED),
            self.create_service(Trigger, '~/start', self._on_start),
            self.create_service(Trigger, '~/stop', self._on_stop),
        ]

    def activate(self) -> None:
        """Begin to serve, with the configured instruction if there is one."""
        self._health.count_from_zero()
        if self._config.instruction:
            refusal = self.begin(self._config.instruction)
            if refusal:
                raise ConfigureError(f"parameter 'instruction': {refusal}")
        self._health.set_health(PolicyStatus.HEALTH_READY)

    def deactivate(self) -> None:
        """End the session; the guard comes to a planned stop."""
        self._goals.deactivated()
        self.end()
        self._chunks.wait_for_all_acked(Duration(seconds=_END_RECEIVED_S))
        self._health.set_health(PolicyStatus.HEALTH_READY)

    def cleanup(self) -> None:
        """Give back the policy, the worker and every interface that was configured."""
        if self.loop is not None:
            self.loop.close()
            self.loop = None
        if self._policy is not None:  # before another one takes its place on the card
            self._policy.close()
            self._policy = None
        self.destroy_owned()
        self._health.watch(None, None)
        self.maker = self.streams = self.limits = self.rules = None
        if not self._health.warmup_failed:
            self._health.set_health(PolicyStatus.HEALTH_INITIALIZING, self.configure_error)

    def destroy_node(self) -> None:
        """Leave the graph."""
        self._goals.destroy()
        super().destroy_node()

    # -- what arrives ---------------------------------------------------------------------------

    def _on_execution_state(self, msg: ExecutionState) -> None:
        assert self.loop is not None
        self.loop.on_execution(execution_of(msg))
        self._infer_if_due()

    def _on_instruction(self, msg: String) -> None:
        if not self.is_active:
            self.get_logger().warning('instruction: ignored, the node is not active',
                                      throttle_duration_sec=_TELL_PERIOD_S)  # fmt: skip
            return
        running = self.loop.session if self.loop is not None else None
        if running is not None and running.instruction == msg.data:
            return  # both subscriptions hear a latched publisher
        self.begin(msg.data)

    def _on_start(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if not self.is_active:
            response.message = 'the node is not active'
            return response
        response.message = self.begin(self._last_instruction or self._config.instruction)
        response.success = not response.message
        return response

    def _on_stop(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._goals.stopped()
        self.end()
        response.success = True
        return response

    def _on_status_timer(self) -> None:
        self._infer_if_due()  # notices that nothing comes in at all
        self.publish_status()

    # -- sessions -------------------------------------------------------------------------------

    def begin(self, instruction: str, max_chunks: int = 0, session_id: str = '') -> str:
        """Follow an instruction in a new session, of this id or a random one; return why not, or
        an empty text."""
        assert self.loop is not None
        try:
            self.loop.check_instruction(instruction)
        except InstructionError as error:
            self._health.set_reason(f'instruction: {error}')
            return str(error)
        self._goals.replaced()
        self.loop.begin(session_id or uuid.uuid4().hex, instruction, max_chunks)
        self._last_instruction = instruction
        self._health.set_reason('')
        self.publish_status()
        self._infer_if_due()
        return ''

    def end(self) -> None:
        """End the session, and have the guard brake and hold."""
        if self.loop is None:
            return
        self.loop.end()
        self._health.set_reason('')  # what hindered the session hinders nobody now
        self.publish_status()

    def latency_p95_s(self) -> float:
        """Return the windowed 95th percentile of the inference time in seconds."""
        return self._health.latency_p95_s

    def _infer_if_due(self) -> None:
        if self.is_active and self.loop is not None:
            self.loop.step()

    def _send(self, msg: ActionChunk) -> None:
        self._chunks.publish(msg)
        if not msg.ends_session:
            self._flat.publish(flat_message(msg))

    def _unheard(self) -> str:
        """Return why a chunk would not be recorded that has to be; once it is, it stays so."""
        missing = '' if self._recorded else unheard(self, self._chunks.topic_name)
        self._recorded = not missing
        return f'wait_for_recorder: {missing}' if missing else ''

    def _injected_latency_s(self) -> float:
        """Return the parameter as it is now: tests change it while the robot moves."""
        return float(self.get_parameter('inject_latency_ms').value) * 1e-3

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def publish_status(self) -> None:
        self._health.publish()


def execution_of(msg: ExecutionState) -> Execution:
    """Return what the guard says it executes; one in a state that is not known executes nothing."""
    try:
        state = GuardState(msg.guard_state)
    except ValueError:  # of another version, or no guard at all
        readiness = GuardReadiness.REFUSES
        state_name = f'in state {msg.guard_state}, which inference does not know'
    else:
        readiness = _READINESS.get(state, GuardReadiness.EXECUTES)
        state_name = state.name
    return Execution(
        stamp_ns=time_ns(msg.header.stamp),
        readiness=readiness,
        state_name=state_name,
        session_id=msg.session_id,
        seq=msg.seq,
        has_plan=msg.has_plan,
        next_index=msg.next_index,
        consumed_total=msg.consumed_total,
        at_rest=not any(msg.commanded_velocity),
        chunks_refused=msg.chunks_refused,
        guard_state=msg.guard_state,
    )


def _limits(
    contract: Contract, config: InferenceConfig, rules: GuardRules
) -> JointLimits | None:
    """Return the limits that single chunks are verified against; None where none are given."""
    if bool(config.urdf_path) != bool(config.limits_path):
        raise ConfigureError("give both parameters 'urdf_path' and 'limits_path', or neither")
    if not config.urdf_path:
        return None
    text = read_text(Path(config.urdf_path))
    return rules.in_force(
        robot_limits(text, config.urdf_path, contract.action.joints or (), config.limits_path)
    )


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT."""
    return run_node(InferenceNode, args, __doc__ or '', LifecycleConfig, InferenceConfig)


if __name__ == '__main__':
    sys.exit(main())
