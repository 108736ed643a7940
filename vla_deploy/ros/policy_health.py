# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The latched status of inference: what is served, how well, and what is wrong."""

from __future__ import annotations

import threading
import time

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from vla_deploy.pipeline import SelfTest
from vla_deploy.pipeline.breaker import CircuitBreaker
from vla_deploy.pipeline.inference_config import InferenceConfig
from vla_deploy.pipeline.session import Session
from vla_deploy.pipeline.strategy import ChunkStrategy
from vla_deploy.ros import qos
from vla_deploy.ros.conversions import time_msg
from vla_deploy.ros.diagnostics import PERIOD_S, diagnostic
from vla_deploy.ros.lifecycle import ManagedNode
from vla_deploy.ros.percentiles import DurationWindow
from vla_deploy.ros.served_policy import ServedPolicy
from vla_deploy_msgs.msg import PolicyStatus

STATUS_PERIOD_S = 1.0
HEALTH_NAMES = {
    PolicyStatus.HEALTH_INITIALIZING: 'initializing',
    PolicyStatus.HEALTH_LOADING: 'loading',
    PolicyStatus.HEALTH_WARMING: 'warming',
    PolicyStatus.HEALTH_READY: 'ready',
    PolicyStatus.HEALTH_DEGRADED: 'degraded',
    PolicyStatus.HEALTH_WARMUP_FAILED: 'warmup_failed',
}
_LEVELS = {
    PolicyStatus.HEALTH_READY: DiagnosticStatus.OK,
    PolicyStatus.HEALTH_WARMUP_FAILED: DiagnosticStatus.ERROR,
}


class PolicyHealth:
    """Keeps the status and publishes each change; called from the executor and the worker."""

    def __init__(self, node: ManagedNode) -> None:
        self._node = node
        self._publisher = node.create_publisher(PolicyStatus, '~/status', qos.STATUS)
        self._diagnostics = node.create_publisher(DiagnosticArray, '/diagnostics', qos.DIAGNOSTICS)
        node.create_timer(PERIOD_S, self._publish_diagnostics)
        self._status = PolicyStatus(health=PolicyStatus.HEALTH_INITIALIZING)
        self._latency = DurationWindow()
        self._strategy: ChunkStrategy | None = None
        self._breaker: CircuitBreaker | None = None
        self._told_s = 0.0
        self._lock = threading.RLock()

    def publish(self) -> None:
        """Publish the status as it is now."""
        with self._lock:
            status = self._status
            status.header.stamp = time_msg(self._node.get_clock().now().nanoseconds)
            status.health_name = HEALTH_NAMES[status.health]
            status.lifecycle_state = self._node.lifecycle_state
            status.latency_p50_s, status.latency_p95_s, status.latency_p99_s = (
                self._latency.percentiles((50, 95, 99))
            )
            if self._strategy is not None:
                status.delay_steps = self._strategy.delay_steps
            if self._breaker is not None:
                now_s = time.monotonic()
                status.breaker = self._breaker.state(now_s)
                status.retry_after_s = self._breaker.retry_after_s(now_s)
            self._publisher.publish(status)

    def _publish_diagnostics(self) -> None:
        with self._lock:
            name = self._node.get_name()
            self._diagnostics.publish(policy_diagnostics(name, self._status))

    def watch(self, strategy: ChunkStrategy | None, breaker: CircuitBreaker | None) -> None:
        """Tell from now on how these stand; None: nothing is served."""
        with self._lock:
            self._strategy, self._breaker = strategy, breaker
            self._status.strategy = '' if strategy is None else strategy.options.name

    def set_health(self, health: int, reason: str = '') -> None:
        """Publish another health."""
        with self._lock:
            self._status.health, self._status.reason = health, reason
            self.publish()

    def set_reason(self, reason: str) -> None:
        """Publish a change of what is wrong while the node serves; empty: nothing."""
        with self._lock:
            if reason == self._status.reason or not self._node.is_active:
                return
            if reason:
                self._node.get_logger().warning(reason)
            degraded = PolicyStatus.HEALTH_DEGRADED if reason else PolicyStatus.HEALTH_READY
            self.set_health(degraded, reason)

    def set_condition(self, reason: str) -> None:
        """Set a reason that is found again with every message, perhaps with another age in it."""
        with self._lock:
            same = reason.split(':')[0] == self._status.reason.split(':')[0]
            now_s = time.monotonic()
            if same and now_s - self._told_s < STATUS_PERIOD_S:
                return
            self._told_s = now_s
            self.set_reason(reason)

    @property
    def warmup_failed(self) -> bool:
        """Whether the last configure ended with a policy that does not compute what it should."""
        return bool(self._status.health == PolicyStatus.HEALTH_WARMUP_FAILED)

    @property
    def latency_p95_s(self) -> float:
        """Windowed 95th percentile of the inference time in seconds; 0 before the first."""
        return self._latency.percentiles((95,))[0]

    def show_policy(self, served: ServedPolicy, config: InferenceConfig, test: SelfTest) -> None:
        """Say what is served, and how far from the reference it is."""
        with self._lock:
            self._latency = DurationWindow()  # of another policy, perhaps
            status = self._status
            status.family = served.contract.family
            status.model_sha256 = served.policy.model_sha256
            status.backend, status.provider = config.backend, config.provider
            status.precision, status.variant = config.precision, config.variant
            status.adaptive_error = served.adaptive_error
            status.parity_max_abs, status.parity_threshold = test.max_abs, test.threshold

    def show_session(self, session: Session | None) -> None:
        """Say which instruction is followed."""
        with self._lock:
            self._status.session_id = session.session_id if session else ''
            self._status.instruction = session.instruction if session else ''

    def count_from_zero(self) -> None:
        """Begin to count, at activation."""
        with self._lock:
            self._status.chunks = self._status.failures = 0
            self._status.deadline_misses = self._status.skips = 0

    def count_chunk(self, inference_s: float) -> None:
        """Count a chunk that was sent."""
        with self._lock:
            self._status.chunks += 1
            self._latency.add(inference_s)

    def count_failure(self) -> None:
        """Count an inference from which no usable chunk came."""
        with self._lock:
            self._status.failures += 1

    def count_miss(self) -> None:
        """Count an inference that was given up because of the deadline."""
        with self._lock:
            self._status.deadline_misses += 1

    def count_skip(self) -> None:
        """Count an inference that was left out."""
        with self._lock:
            self._status.skips += 1


def policy_diagnostics(name: str, status: PolicyStatus) -> DiagnosticArray:
    """Return the status as a diagnostic: OK while it serves, ERROR after a failed self-test, WARN
    in between."""
    level = _LEVELS.get(status.health, DiagnosticStatus.WARN)
    health = HEALTH_NAMES[status.health]
    values = {
        'reason': status.reason,
        'model_sha256': status.model_sha256,
        'backend': '/'.join((status.backend, status.provider, status.precision, status.variant)),
        'parity_max_abs': status.parity_max_abs,
        'parity_threshold': status.parity_threshold,
        'instruction': status.instruction,
        'chunks': status.chunks,
        'failures': status.failures,
        'latency_p50_s': f'{status.latency_p50_s:.6f}',
        'latency_p99_s': f'{status.latency_p99_s:.6f}',
    }
    message = f'{health}: {status.reason}' if status.reason else health
    return diagnostic(status.header, f'{name}: inference', level, message, values)
