# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""From "a chunk is due" to "it was sent": the one loop behind every front of inference.

The policy runs in one worker thread, so that the executor never waits for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from vla_deploy.pipeline import ObservationError
from vla_deploy.pipeline.assembly import Assembled, StreamError
from vla_deploy.pipeline.breaker import CircuitBreaker
from vla_deploy.pipeline.goal import ErrorCode, Hindrance
from vla_deploy.pipeline.observation import PromptError
from vla_deploy.pipeline.sampler import DeadlineError
from vla_deploy.pipeline.session import Execution, GuardReadiness, Session, SessionCore
from vla_deploy.pipeline.strategy import SYNCHRONOUS, ChunkStrategy, Draft
from vla_deploy.ros.chunk_maker import ChunkMaker, Made
from vla_deploy.ros.observation_streams import ObservationStreams
from vla_deploy.ros.policy_health import PolicyHealth
from vla_deploy.ros.policy_messages import end_message, lacking
from vla_deploy_msgs.msg import ActionChunk


class NotFiniteError(ArithmeticError):
    """A policy returned NaN or infinity."""


class RefusedError(RuntimeError):
    """A request is not computed now; the text says why, and when to ask again."""


@dataclass(frozen=True)
class LoopPorts:
    """What the loop needs of its node. now_ns: ROS time. on_hindrance is told why no chunk can be
    sent, and None once one was, or is computed with no failed attempt before it; it may be called
    by the worker. unheard says why a chunk would not be heard by all who must, or is empty."""

    send: Callable[[ActionChunk], None]
    now_ns: Callable[[], int]
    on_hindrance: Callable[[Hindrance | None], None]
    injected_latency_s: Callable[[], float]
    unheard: Callable[[], str]


class ChunkLoop:
    """Computes chunks for the running session and sends them.

    `deadline_s`: from the decision to compute a chunk to its sending; None: none.
    """

    def __init__(
        self,
        session: SessionCore,
        strategy: ChunkStrategy,
        breaker: CircuitBreaker,
        maker: ChunkMaker,
        streams: ObservationStreams,
        health: PolicyHealth,
        ports: LoopPorts,
        deadline_s: float | None,
    ) -> None:
        self._session, self._strategy, self._breaker = session, strategy, breaker
        self._maker, self._streams, self._health = maker, streams, health
        self._ports, self._now_ns = ports, ports.now_ns
        self._deadline_s = deadline_s
        # session, strategy and breaker are shared with the worker
        self._lock = threading.Lock()
        self._last_now_ns = 0
        self._failed = False  # the newest inference; only the executor and _on_done use it
        self._asked: Future[Made] | None = None
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

    @property
    def computing(self) -> bool:
        """Whether a chunk for a session is being computed."""
        return self._session.in_flight

    def samples_ahead(self) -> int:
        """Return how many samples of this session's running plan lie ahead."""
        return self._session.samples_ahead(self._maker.contract.chunk_steps)

    # -- sessions -------------------------------------------------------------------------------

    def begin(self, session_id: str, instruction: str, max_chunks: int = 0) -> None:
        """Follow an instruction in a new session; raises InstructionError, changing nothing."""
        if self._strategy.options.name == SYNCHRONOUS:
            self.end()  # the robot stands before anything is computed
        with self._lock:
            self._session.start(session_id, instruction, max_chunks)
        self._health.show_session(self._session.session)

    def end(self) -> None:
        """End the session, and have the guard brake and hold."""
        with self._lock:
            session = self._session.session
            self._session.stop()
            if session is not None:
                self._ports.send(end_message(session.session_id, session.next_seq, self._now_ns()))
        self._health.show_session(None)

    def on_execution(self, execution: Execution) -> None:
        """Take the guard's newest execution state."""
        with self._lock:
            self._session.on_execution(execution)
            self._strategy.on_execution(execution)

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
        if not due or session is None or self._skips():
            return
        unheard = self._ports.unheard()
        if unheard:
            self._hinder(Hindrance(ErrorCode.INACTIVE, unheard))
            return
        if not self._breaker.allows(time.monotonic()):
            self._hinder(Hindrance(ErrorCode.POLICY, self._breaker.refusal(time.monotonic())))
            return
        try:
            assembled = self._streams.assemble(now_ns)
        except StreamError as error:
            self._hinder(Hindrance(ErrorCode.OBSERVATION, str(error)))
            return
        if assembled.stamp_ns < self._session.observe_from_ns:
            return  # the robot still moved then, or nothing new has been seen
        begin_s = time.perf_counter()
        with self._lock:
            draft = self._strategy.draft(session.session_id, assembled.stamp_ns)
            self._session.in_flight = True
            self._breaker.begin(time.monotonic())
        deadline_s = None if self._deadline_s is None else begin_s + self._deadline_s
        if not self._failed:  # failures add up, though each attempt begins like any other
            self._ports.on_hindrance(None)
        future = self._worker.submit(self._infer, session, assembled, draft, deadline_s)
        future.add_done_callback(self._on_done)

    def compute(self, instruction: str, noise_seed: int | None) -> Future[Made]:
        """Compute one chunk that belongs to no session and is not sent.

        One at a time, so that whoever asks often cannot hold up the session. Raises StreamError
        where there is no observation, and RefusedError while another is computed or the policy is
        left alone; the future may hold ObservationError.
        """
        now_s = time.monotonic()
        if self._asked is not None and not self._asked.done():
            raise RefusedError('another request is being computed; ask again when it is answered')
        if not self._breaker.allows(now_s):
            raise RefusedError(self._breaker.refusal(now_s))
        assembled = self._streams.assemble(self._now_ns())
        with self._lock:
            self._breaker.begin(now_s)
        self._asked = future = self._worker.submit(
            self._maker.make,
            assembled,
            instruction,
            noise_seed,
            injected_latency_s=self._ports.injected_latency_s(),
        )
        future.add_done_callback(self._on_computed)
        return future

    def _skips(self) -> bool:
        """Leave out an inference if the strategy says so."""
        with self._lock:
            due_index = self._session.skippable_at
            if due_index is None or not self._strategy.may_skip(due_index):
                return False
            self._session.skip()
            self._strategy.skip()
        self._health.count_skip()
        return True

    def _infer(
        self, session: Session, assembled: Assembled, draft: Draft, deadline_s: float | None
    ) -> str:
        """Compute and send one chunk, in the worker; return what the policy lacked all the same,
        or raise what made it useless."""
        made = self._maker.make(
            assembled,
            session.instruction,
            guidance=draft.guidance,
            deadline_s=deadline_s,
            injected_latency_s=self._ports.injected_latency_s(),
        )
        if deadline_s is not None and time.perf_counter() > deadline_s:
            raise DeadlineError('deadline: the chunk was ready too late')
        now_ns = self._now_ns()
        with self._lock:
            seq = self._session.sent(session.session_id, now_ns)
            if seq is None:
                return ''
            chunk = made.chunk
            placed = self._strategy.place(draft, seq, chunk.actions, chunk.raw, now_ns)
            self._session.placed(placed.stamp_ns, draft.observation_ns)
            self._ports.send(self._maker.message(made, placed, session.session_id, seq, now_ns))
        self._health.count_chunk(made.inference_s)
        if not made.chunk.finite:
            raise NotFiniteError('the policy returned a value that is not finite')
        return lacking(made.chunk)

    def _on_done(self, future: Future[str]) -> None:
        """Note the outcome; a fault of the backend is reported and the node lives on."""
        if future.cancelled():
            return
        error = future.exception()
        self._failed = error is not None
        self._judge(error)
        hindrance = None if error is None else _hindrance(error)
        if isinstance(error, DeadlineError):
            self._health.count_miss()
        elif error is not None:
            self._health.count_failure()
        told = future.result() if hindrance is None else hindrance.text
        if told and self._session.session is not None:
            self._health.set_condition(told)
        else:
            self._health.set_reason('')
        self._ports.on_hindrance(hindrance)
        self._session.in_flight = False

    def _on_computed(self, future: Future[Made]) -> None:
        if not future.cancelled():
            self._judge(future.exception())

    def _judge(self, error: BaseException | None) -> None:
        """Tell the breaker; only faults of the server itself count."""
        with self._lock:
            if error is None:
                self._breaker.succeeded()
            elif isinstance(error, (ObservationError, DeadlineError)):
                self._breaker.abandoned()
            else:
                self._breaker.failed(time.monotonic(), str(error))

    def _hinder(self, hindrance: Hindrance) -> None:
        self._health.set_condition(hindrance.text)
        self._ports.on_hindrance(hindrance)

    def _watch_clock(self, now_ns: int) -> None:
        """After a backward jump nothing that was received is of any use."""
        if now_ns < self._last_now_ns:
            self._streams.clear()
            with self._lock:
                self._session.forget_times()
                self._strategy.forget_times()
        self._last_now_ns = now_ns


def _hindrance(error: BaseException) -> Hindrance:
    """Return what an inference that ended with an error is told as."""
    if isinstance(error, PromptError):
        return Hindrance(ErrorCode.INSTRUCTION, str(error), final=True)
    if isinstance(error, ObservationError):
        return Hindrance(ErrorCode.OBSERVATION, str(error))
    if isinstance(error, (DeadlineError, NotFiniteError)):
        return Hindrance(ErrorCode.POLICY, str(error))
    return Hindrance(ErrorCode.POLICY, f'inference failed: {error}')
