# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The action ExecuteInstruction: an instruction with limits, feedback, and an end that is told.

A new goal replaces the running one, as a new instruction on the topic does: what is asked last
counts. Callbacks that wait are coroutines, so that the executor goes on meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.task import Future

from vla_deploy.pipeline.goal import (
    CANCELLED,
    REPLACED,
    ErrorCode,
    Goal,
    Hindrance,
    Outcome,
    failed,
)
from vla_deploy.ros.chunk_loop import ChunkLoop
from vla_deploy.ros.conversions import duration_msg, duration_s
from vla_deploy.ros.lifecycle import ManagedNode
from vla_deploy_msgs.action import ExecuteInstruction

WATCH_PERIOD_S = 0.05
FEEDBACK_PERIOD_S = 0.2


class Follower(Protocol):
    """What the front needs of its node."""

    loop: ChunkLoop | None

    def begin(self, instruction: str, max_chunks: int = 0, session_id: str = '') -> str:
        """Follow an instruction in a new session; return why not, or an empty text."""

    def end(self) -> None:
        """End the session and stop the robot."""

    def latency_p95_s(self) -> float:
        """Return the windowed 95th percentile of the inference time in seconds."""


@dataclass
class _Running:
    """A goal under way. `done` gets its Outcome and the number of chunks sent."""

    goal: Goal
    handle: Any
    done: Future
    session_id: str
    refused_before: int
    told_ns: int


class InstructionFront:
    """Serves the action in every lifecycle state: goals are refused while inactive."""

    def __init__(self, node: ManagedNode, follower: Follower, now_ns: Callable[[], int]) -> None:
        self._node, self._follower, self._now_ns = node, follower, now_ns
        self._running: _Running | None = None
        self.patience_s = 0.0
        self._server = ActionServer(
            node,
            ExecuteInstruction,
            'execute_instruction',
            execute_callback=self._execute,
            goal_callback=self._on_goal,
            cancel_callback=self._on_cancel,
        )
        node.create_timer(WATCH_PERIOD_S, self._watch)

    def destroy(self) -> None:
        """Leave the graph."""
        self._server.destroy()

    def hinder(self, hindrance: Hindrance | None) -> None:
        """Note why no chunk can be sent, or that one was; also called by the worker."""
        running = self._running
        if running is not None:
            running.goal.hindered(hindrance, self._now_ns())

    def replaced(self) -> None:
        """End the running goal, before another instruction is followed."""
        self._finish(REPLACED)

    def stopped(self) -> None:
        """End the running goal, before its session is stopped by somebody else."""
        self._finish(CANCELLED)

    def deactivated(self) -> None:
        """End the running goal, before the node ceases to serve."""
        self._finish(failed(ErrorCode.INACTIVE, 'the node was deactivated'))

    # -- callbacks of the server ----------------------------------------------------------------

    def _on_goal(self, _goal: ExecuteInstruction.Goal) -> GoalResponse:
        if self._node.is_active:
            return GoalResponse.ACCEPT
        self._node.get_logger().warning('execute_instruction: refused, the node is not active')
        return GoalResponse.REJECT

    def _on_cancel(self, handle: Any) -> CancelResponse:
        running = self._running
        if running is not None and running.handle == handle:
            self._finish(CANCELLED)
            self._follower.end()
        return CancelResponse.ACCEPT

    async def _execute(self, handle: Any) -> ExecuteInstruction.Result:
        if handle.is_cancel_requested:  # before anything began
            handle.canceled()
            return _result(CANCELLED, 0, 0, 0.0)
        running = self._begin(handle, handle.request)
        if isinstance(running, Outcome):
            handle.abort()
            return _result(running, 0, 0, 0.0)
        outcome, sent = await running.done
        elapsed_s = running.goal.elapsed_s(self._now_ns())
        if handle.is_cancel_requested:
            handle.canceled()
        elif outcome.reason in ('max_duration', 'max_chunks'):
            handle.succeed()
        else:
            handle.abort()
        return _result(outcome, sent, self._refused() - running.refused_before, elapsed_s)

    def _begin(self, handle: Any, request: ExecuteInstruction.Goal) -> _Running | Outcome:
        """Follow the instruction of a goal, or say why not."""
        loop = self._follower.loop
        if not self._node.is_active or loop is None:
            return failed(ErrorCode.INACTIVE, 'the node is not active')
        limit_s = duration_s(request.max_duration)
        if limit_s < 0.0:
            return failed(ErrorCode.INSTRUCTION,
                          f'max_duration is {limit_s:g} s; give 0 for no limit')
        # The session bears the goal's id, so that a trace can say how which episode ended.
        session_id = bytes(handle.goal_id.uuid).hex()
        refusal = self._follower.begin(request.instruction, request.max_chunks, session_id)
        if refusal or loop.session is None:
            return failed(ErrorCode.INSTRUCTION, refusal)
        now_ns = self._now_ns()
        goal = Goal(now_ns, limit_s, request.max_chunks, self.patience_s)
        self._running = _Running(
            goal,
            handle,
            Future(executor=self._node.executor),
            loop.session.session_id,
            self._refused(),
            now_ns,
        )
        return self._running

    # -- the running goal -----------------------------------------------------------------------

    def _watch(self) -> None:
        """Notice the end of the running goal, and tell how it goes."""
        running, loop = self._running, self._follower.loop
        if running is None or loop is None or loop.session is None:
            return
        now_ns = self._now_ns()
        outcome = running.goal.outcome(
            now_ns, self._sent(running), loop.newest_over(), loop.computing
        )
        if outcome is not None:
            self._finish(outcome)
            self._follower.end()
        elif now_ns - running.told_ns >= FEEDBACK_PERIOD_S * 1e9:
            running.told_ns = now_ns
            running.handle.publish_feedback(self._feedback(running, loop, now_ns))

    def _feedback(
        self, running: _Running, loop: ChunkLoop, now_ns: int
    ) -> ExecuteInstruction.Feedback:
        execution = loop.execution
        return ExecuteInstruction.Feedback(
            elapsed=duration_msg(running.goal.elapsed_s(now_ns)),
            chunks=self._sent(running),
            queue_depth=loop.samples_ahead(),
            latency=duration_msg(self._follower.latency_p95_s()),
            guard_state=0 if execution is None else execution.guard_state,
        )

    def _finish(self, outcome: Outcome) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.done.set_result((outcome, self._sent(running)))

    def _sent(self, running: _Running) -> int:
        loop = self._follower.loop
        session = None if loop is None else loop.session
        if session is None or session.session_id != running.session_id:
            return 0
        return session.next_seq

    def _refused(self) -> int:
        execution = self._follower.loop.execution if self._follower.loop is not None else None
        return 0 if execution is None else execution.chunks_refused


def _result(
    outcome: Outcome, sent: int, refused: int, elapsed_s: float
) -> ExecuteInstruction.Result:
    return ExecuteInstruction.Result(
        error_code=int(outcome.code),
        error_msg=outcome.text,
        termination_reason=outcome.reason,
        chunks_sent=sent,
        chunks_refused=max(0, refused),
        elapsed=duration_msg(elapsed_s),
    )
