# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""From "a chunk is due" to "it was sent": the one loop behind every front of inference.

The policy runs in one worker thread, so that the executor never waits for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from vla_deploy.pipeline import ObservationError
from vla_deploy.pipeline.assembly import Assembled, StreamError
from vla_deploy.pipeline.goal import ErrorCode, Hindrance
from vla_deploy.pipeline.session import Execution, GuardReadiness, Session, SessionCore
from vla_deploy.ros.chunk_maker import ChunkMaker, Made
from vla_deploy.ros.observation_streams import ObservationStreams
from vla_deploy.ros.policy_health import PolicyHealth
from vla_deploy.ros.policy_messages import end_message
from vla_deploy_msgs.msg import ActionChunk


class ChunkLoop:
    """Computes chunks for the running session and sends them.

    `on_hindrance` is told why no chunk can be sent, and None once one was; it may be called by the
    worker. `now_ns` gives ROS time.
    """

    def __init__(
        self,
        session: SessionCore,
        maker: ChunkMaker,
        streams: ObservationStreams,
        health: PolicyHealth,
        send: Callable[[ActionChunk], None],
        now_ns: Callable[[], int],
        on_hindrance: Callable[[Hindrance | None], None],
        anchor: str,
    ) -> None:
        self._session, self._maker = session, maker
        self._streams, self._health = streams, health
        self._send, self._now_ns = send, now_ns
        self._tell = on_hindrance
        self._anchor = anchor
        self._lock = threading.Lock()  # the session is shared with the worker
        self._last_now_ns = 0
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix='inference')

    def close(self) -> None:
        """End the worker; what it is computing is not sent."""
        with self._lock:
            self._session.stop()
        self._worker.shutdown(wait=True, cancel_futures=True)

    @property
    def session(self) -> Session | None:
        """The running session."""
        return self._session.session

    @property
    def execution(self) -> Execution | None:
        """The guard's newest execution state; None before the first."""
        return self._session.execution

    def check_instruction(self, instruction: str) -> None:
        """Raise InstructionError for a text that is no instruction."""
        self._session.check_instruction(instruction)

    def newest_over(self) -> bool:
        """Tell whether the newest chunk is not executed any more, or was never taken."""
        return self._session.newest_over(self._now_ns())

    def samples_ahead(self) -> int:
        """Return how many samples of this session's running plan lie ahead."""
        return self._session.samples_ahead(self._maker.chunk_steps)

    # -- sessions -------------------------------------------------------------------------------

    def begin(self, session_id: str, instruction: str, max_chunks: int = 0) -> None:
        """Follow an instruction in a new session; raises InstructionError, changing nothing."""
        with self._lock:
            self._session.start(session_id, instruction, max_chunks)
        self._health.show_session(self._session.session)

    def end(self) -> None:
        """End the session, and have the guard brake and hold."""
        with self._lock:
            session = self._session.session
            self._session.stop()
            if session is not None:
                self._send(end_message(session.session_id, session.next_seq, self._now_ns()))
        self._health.show_session(None)

    def on_execution(self, execution: Execution) -> None:
        """Take the guard's newest execution state."""
        with self._lock:
            self._session.on_execution(execution)

    # -- chunks ---------------------------------------------------------------------------------

    def step(self) -> None:
        """Compute a chunk if one is due and can be; say why if it cannot."""
        now_ns = self._now_ns()
        self._watch_clock(now_ns)
        with self._lock:
            session = self._session.session
            blocked = self._session.blocked_by(now_ns) if session is not None else ''
            due = session is not None and self._session.due(now_ns)
        if blocked:
            execution = self._session.execution
            latched = execution is not None and execution.readiness is GuardReadiness.LATCHED
            self._hinder(Hindrance(ErrorCode.GUARD, blocked, latched))
        if not due or session is None:
            return
        try:
            assembled = self._streams.assemble(now_ns)
        except StreamError as error:
            self._hinder(Hindrance(ErrorCode.OBSERVATION, str(error)))
            return
        self._session.in_flight = True
        # From a standing start the time since the observation has not been lost: the motion
        # begins where the plan does. Dated back, it would have to catch up.
        dated_back = self._anchor == 'observation' and not self._session.standing
        future = self._worker.submit(
            self._infer, session.session_id, session.instruction, assembled, dated_back
        )
        future.add_done_callback(self._on_done)

    def compute(self, instruction: str, noise_seed: int | None) -> Future[Made]:
        """Compute one chunk that belongs to no session and is not sent.

        Raises StreamError where there is no observation; the future may hold ObservationError.
        """
        assembled = self._streams.assemble(self._now_ns())
        return self._worker.submit(self._maker.make, assembled, instruction, noise_seed)

    def _infer(
        self, session_id: str, instruction: str, assembled: Assembled, dated_back: bool
    ) -> Hindrance | None:
        """Compute and send one chunk, in the worker; return why it is of no use, if so."""
        try:
            made = self._maker.make(assembled, instruction)
        except ObservationError as error:
            return Hindrance(ErrorCode.OBSERVATION, str(error))
        now_ns = self._now_ns()
        with self._lock:
            seq = self._session.sent(session_id, now_ns)
            if seq is None:
                return None
            begins_ns = assembled.stamp_ns if dated_back else now_ns
            self._send(self._maker.message(made, session_id, seq, begins_ns, now_ns))
        self._health.count_chunk(made.inference_s)
        if made.chunk.finite:
            return None
        return Hindrance(ErrorCode.POLICY, 'the policy returned a value that is not finite')

    def _on_done(self, future: Future[Hindrance | None]) -> None:
        """Note the outcome; a fault of the backend is reported and the node lives on."""
        if future.cancelled():
            return
        error = future.exception()
        hindrance = (
            future.result()
            if error is None
            else Hindrance(ErrorCode.POLICY, f'inference failed: {error}')
        )
        if hindrance is not None:
            self._health.count_failure()
        self._health.set_reason('' if hindrance is None else hindrance.text)
        self._tell(hindrance)
        self._session.in_flight = False

    def _hinder(self, hindrance: Hindrance) -> None:
        self._health.set_condition(hindrance.text)
        self._tell(hindrance)

    def _watch_clock(self, now_ns: int) -> None:
        """After a backward jump nothing that was received is of any use."""
        if now_ns < self._last_now_ns:
            self._streams.clear()
            with self._lock:
                self._session.forget_times()
        self._last_now_ns = now_ns
