# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The inference node: cameras, joint states and a text in, chunks of actions out.

Callbacks only store what arrives and ask the session whether a chunk is due; the policy runs in
one worker thread, so that the executor never waits for it.
"""

from __future__ import annotations

import sys
import threading
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float32MultiArray, String
from std_srvs.srv import Trigger

from vla_deploy.core.contract import ContractError
from vla_deploy.core.guard_io import GuardState
from vla_deploy.files import FileError
from vla_deploy.pipeline import BundleError, ObservationError, Policy, PolicyError
from vla_deploy.pipeline.assembly import Assembled, ObservationAssembler, StreamError
from vla_deploy.pipeline.inference_config import InferenceConfig
from vla_deploy.pipeline.session import Execution, GuardReadiness, InstructionError, SessionCore
from vla_deploy.ros import qos
from vla_deploy.ros.chunk_maker import ChunkMaker, completed_contract
from vla_deploy.ros.conversions import ConversionError, JointMap, time_msg, time_ns
from vla_deploy.ros.lifecycle import ConfigureError, LifecycleConfig, ManagedNode, run_node
from vla_deploy.ros.parameters import read_config
from vla_deploy.ros.percentiles import DurationWindow
from vla_deploy.ros.policy_messages import flat_message
from vla_deploy_msgs.msg import ActionChunk, ExecutionState, PolicyStatus

_STATUS_PERIOD_S = 1.0
_EXECUTING_STATES = (GuardState.HOLD, GuardState.ARMED, GuardState.SHADOW)
_HEALTH_NAMES = {
    PolicyStatus.HEALTH_INITIALIZING: 'initializing',
    PolicyStatus.HEALTH_LOADING: 'loading',
    PolicyStatus.HEALTH_WARMING: 'warming',
    PolicyStatus.HEALTH_READY: 'ready',
    PolicyStatus.HEALTH_DEGRADED: 'degraded',
    PolicyStatus.HEALTH_WARMUP_FAILED: 'warmup_failed',
}


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
        self._status_publisher = self.create_publisher(PolicyStatus, '~/status', qos.STATUS)
        self._status = PolicyStatus(health=PolicyStatus.HEALTH_INITIALIZING)
        self._latency = DurationWindow()
        self._lock = threading.Lock()  # session, counters and status are shared with the worker
        self._maker: ChunkMaker | None = None
        self._worker: ThreadPoolExecutor | None = None
        self._last_instruction = ''
        self._joint_state_error = ''
        self._condition_told_s = 0.0
        self._last_now_ns = 0
        self.create_timer(_STATUS_PERIOD_S, self._on_status_timer)
        self.publish_status()

    # -- lifecycle ------------------------------------------------------------------------------

    def configure(self) -> None:
        """Verify and load the bundle, run the self-test on the variant that will serve."""
        config = self._config = read_config(self, InferenceConfig)
        if not config.bundle:
            raise ConfigureError("parameter 'bundle' is empty: give the folder of a bundle")
        self._set_health(PolicyStatus.HEALTH_LOADING)
        policy = Policy.load(
            config.bundle,
            backend=config.backend,
            provider=config.provider,
            precision=config.precision,
            variant=config.variant,
            threads=config.threads or None,
            stub_value=config.stub_value,
        )
        contract = completed_contract(policy.contract, config)
        self._set_health(PolicyStatus.HEALTH_WARMING)
        test = policy.self_test()
        self._status.family = policy.contract.family
        self._status.model_sha256 = policy.model_sha256
        self._status.backend = config.backend
        self._status.provider = config.provider
        self._status.precision = config.precision
        self._status.variant = config.variant
        self._status.parity_max_abs = test.max_abs
        self._status.parity_threshold = test.threshold
        if not test.passed:
            self._set_health(PolicyStatus.HEALTH_WARMUP_FAILED, 'self-test failed')
            raise ConfigureError(
                f'self-test of {config.bundle}: max_abs {test.max_abs!r} is over the threshold '
                f'{test.threshold!r} on {config.backend}/{config.provider}/{config.precision}'
            )
        self._maker = ChunkMaker(policy, contract, config.noise_seed, config.chunk_valid_s)
        self._assembler = ObservationAssembler(
            contract.camera_names,
            config.image_max_age_s,
            config.joint_state_max_age_s,
            config.max_skew_s,
        )
        self._joint_map = JointMap(contract.state.joints or ())
        self._session = SessionCore(
            config.execute_steps or contract.chunk_steps,
            config.retry_s,
            config.execution_timeout_s,
            config.instruction_max_length,
            config.allow_blank_instruction,
        )
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix='inference')
        self._create_interfaces(contract.camera_names)

    def _create_interfaces(self, cameras: Sequence[str]) -> None:
        self._chunks = self.create_publisher(ActionChunk, 'action_chunk', qos.CHUNK)
        self._flat = self.create_publisher(Float32MultiArray, '~/action_chunk_flat', qos.CHUNK)
        subscribe = self.create_subscription
        self.owned += [
            self._chunks,
            self._flat,
            subscribe(JointState, 'joint_states', self._on_joint_state, qos.SENSOR),
            subscribe(
                ExecutionState, 'execution_state', self._on_execution_state, qos.EXECUTION_STATE
            ),
            subscribe(String, 'instruction', self._on_instruction, qos.INSTRUCTION_VOLATILE),
            subscribe(String, 'instruction', self._on_instruction, qos.INSTRUCTION_LATCHED),
            *(
                subscribe(Image, f'image/{camera}', partial(self._on_image, camera), qos.SENSOR)
                for camera in cameras
            ),
            self.create_service(Trigger, '~/start', self._on_start),
            self.create_service(Trigger, '~/stop', self._on_stop),
        ]

    def activate(self) -> None:
        """Begin to serve, with the configured instruction if there is one."""
        self._status.chunks = self._status.failures = 0
        if self._config.instruction:
            refusal = self._begin(self._config.instruction)
            if refusal:
                raise ConfigureError(f"parameter 'instruction': {refusal}")
        self._set_health(PolicyStatus.HEALTH_READY)

    def deactivate(self) -> None:
        """End the session; the running plan ends at rest, in the guard."""
        with self._lock:
            self._session.stop()
        self._set_health(PolicyStatus.HEALTH_READY)

    def cleanup(self) -> None:
        """Give back the policy, the worker and every interface but the status."""
        if self._worker is not None:
            self._worker.shutdown(wait=True, cancel_futures=True)
            self._worker = None
        self.destroy_owned()
        self._maker = None
        if self._status.health != PolicyStatus.HEALTH_WARMUP_FAILED:
            self._set_health(PolicyStatus.HEALTH_INITIALIZING, self.configure_error)

    # -- what arrives ---------------------------------------------------------------------------

    def _on_image(self, camera: str, msg: Image) -> None:
        self._assembler.add_image(camera, time_ns(msg.header.stamp), msg)
        self._infer_if_due()

    def _on_joint_state(self, msg: JointState) -> None:
        try:
            position = self._joint_map.positions(msg)
        except ConversionError as error:
            self._joint_state_error = f'joint_states: {error}'
            return
        self._joint_state_error = ''
        self._assembler.add_state(time_ns(msg.header.stamp), position)

    def _on_execution_state(self, msg: ExecutionState) -> None:
        state = GuardState(msg.guard_state)
        executes = state in _EXECUTING_STATES
        with self._lock:
            self._session.on_execution(
                Execution(
                    stamp_ns=time_ns(msg.header.stamp),
                    readiness=GuardReadiness.EXECUTES if executes else GuardReadiness.REFUSES,
                    state_name=state.name,
                    session_id=msg.session_id,
                    seq=msg.seq,
                    has_plan=msg.has_plan,
                    next_index=msg.next_index,
                )
            )
        self._infer_if_due()

    def _on_instruction(self, msg: String) -> None:
        running = self._session.session
        if not self.is_active or (running is not None and running.instruction == msg.data):
            return  # both subscriptions hear a latched publisher
        self._begin(msg.data)

    def _on_start(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if not self.is_active:
            response.message = 'the node is not active'
            return response
        response.message = self._begin(self._last_instruction or self._config.instruction)
        response.success = not response.message
        return response

    def _on_stop(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._lock:
            self._session.stop()
        self._set_reason('')
        response.success = True
        self.publish_status()
        return response

    def _begin(self, instruction: str) -> str:
        """Start a session; return why not, or an empty text."""
        try:
            with self._lock:
                self._session.start(uuid.uuid4().hex, instruction)
        except InstructionError as error:
            self._set_reason(f'instruction: {error}')
            return str(error)
        self._last_instruction = instruction
        self._set_reason('')
        self.publish_status()
        self._infer_if_due()
        return ''

    # -- inference ------------------------------------------------------------------------------

    def _infer_if_due(self) -> None:
        if not self.is_active:
            return
        now_ns = self.get_clock().now().nanoseconds
        self._watch_clock(now_ns)
        with self._lock:
            session = self._session.session
            blocked = self._session.blocked_by(now_ns) if session is not None else ''
            due = session is not None and self._session.due(now_ns)
        if blocked:
            self._set_condition(blocked)
        if not due or session is None or self._worker is None:
            return
        try:
            assembled = self._assembler.assemble(now_ns)
        except StreamError as error:
            # Joint states that came and could not be used explain why there is none.
            unusable = str(error).startswith('joint_states') and self._joint_state_error
            self._set_condition(unusable or str(error))
            return
        self._session.in_flight = True
        # From a standing start the time since the observation has not been lost: the motion
        # begins where the plan does. Dated back, it would have to catch up.
        dated_back = self._config.anchor == 'observation' and not self._session.standing
        future = self._worker.submit(
            self._infer, session.session_id, session.instruction, assembled, dated_back
        )
        future.add_done_callback(self._on_done)

    def _infer(
        self, session_id: str, instruction: str, assembled: Assembled, dated_back: bool
    ) -> str:
        """Compute and send one chunk, in the worker; return why none was sent, or an empty text."""
        assert self._maker is not None
        try:
            made = self._maker.make(assembled, instruction)
        except ObservationError as error:
            return str(error)
        now_ns = self.get_clock().now().nanoseconds
        with self._lock:
            seq = self._session.sent(session_id, now_ns)
            if seq is None or not self.is_active:
                return ''
            begins_ns = assembled.stamp_ns if dated_back else now_ns
            msg = self._maker.message(made, session_id, seq, begins_ns, now_ns)
            self._chunks.publish(msg)
            self._flat.publish(flat_message(msg))
            self._status.chunks += 1
            self._latency.add(made.inference_s)
        return '' if made.chunk.finite else 'the policy returned a value that is not finite'

    def _on_done(self, future: Future[str]) -> None:
        """Note the outcome; a fault of the backend is reported and the node lives on."""
        if future.cancelled():
            return
        error = future.exception()
        reason = f'inference failed: {error}' if error is not None else future.result()
        if reason:
            with self._lock:
                self._status.failures += 1
        self._set_reason(reason)
        self._session.in_flight = False

    def _watch_clock(self, now_ns: int) -> None:
        """After a backward jump nothing that was received is of any use."""
        if now_ns < self._last_now_ns:
            self._assembler.clear()
            with self._lock:
                self._session.forget_times()
        self._last_now_ns = now_ns

    # -- status ---------------------------------------------------------------------------------

    def _on_status_timer(self) -> None:
        self._infer_if_due()  # notices that nothing comes in at all
        self.publish_status()

    def _set_condition(self, reason: str) -> None:
        """Set a reason that is found again with every message, perhaps with another age in it."""
        same = reason.split(':')[0] == self._status.reason.split(':')[0]
        now_s = time.monotonic()
        if same and now_s - self._condition_told_s < _STATUS_PERIOD_S:
            return
        self._condition_told_s = now_s
        self._set_reason(reason)

    def _set_reason(self, reason: str) -> None:
        """Publish a change of what is wrong; called from the executor and from the worker."""
        if reason == self._status.reason or not self.is_active:
            return
        degraded = PolicyStatus.HEALTH_DEGRADED if reason else PolicyStatus.HEALTH_READY
        if reason:
            self.get_logger().warning(reason)
        self._set_health(degraded, reason)

    def _set_health(self, health: int, reason: str = '') -> None:
        self._status.health = health
        self._status.reason = reason
        self.publish_status()

    def publish_status(self) -> None:
        status = self._status
        status.header.stamp = time_msg(self.get_clock().now().nanoseconds)
        status.health_name = _HEALTH_NAMES[status.health]
        status.lifecycle_state = self.lifecycle_state
        session = self._session.session if self._maker is not None else None
        status.session_id = session.session_id if session else ''
        status.instruction = session.instruction if session else ''
        status.latency_p50_s, status.latency_p95_s, status.latency_p99_s = (
            self._latency.percentiles((50, 95, 99))
        )
        self._status_publisher.publish(status)


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT."""
    return run_node(InferenceNode, args, __doc__ or '', LifecycleConfig, InferenceConfig)


if __name__ == '__main__':
    sys.exit(main())
