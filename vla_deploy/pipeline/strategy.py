# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""How one chunk follows the other: what a new one is drawn toward, and when it begins.

synchronous: the robot stands while the next chunk is computed. asynchronous: the running chunk goes
on meanwhile, and is replaced where the new one has got to. ensembling: as asynchronous, each sample
the mean of all chunks that predicted it. real_time_chunking: as asynchronous, the new chunk drawn
toward what is left of the running one.

Nothing here goes by wall-clock time alone: how far the robot has got is counted in samples that the
guard says were consumed, so that a plan that was slowed or held is not left behind. Nothing is
carried from one session to the next.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_deploy.pipeline.ensemble import Ensemble, Float64, resampled
from vla_deploy.pipeline.execution_log import ExecutionLog
from vla_deploy.pipeline.guidance import Guidance
from vla_deploy.pipeline.session import Execution

SYNCHRONOUS, ASYNCHRONOUS = 'synchronous', 'asynchronous'
ENSEMBLING, REAL_TIME_CHUNKING = 'ensembling', 'real_time_chunking'
STRATEGIES = (SYNCHRONOUS, ASYNCHRONOUS, ENSEMBLING, REAL_TIME_CHUNKING)
DELAYS_KEPT = 50
CHUNKS_KEPT = 4
DELAY_PERCENTILE = 95


@dataclass(frozen=True)
class StrategyOptions:
    """name: one of STRATEGIES. execute_steps: samples of a chunk that are to be executed.
    anchor: observation or arrival. chunk_steps, period_s, first_sample_offset_steps: of the
    contract. action_dim: of the policy's own actions. The others: as the parameters of the same
    names."""

    name: str
    execute_steps: int
    anchor: str
    chunk_steps: int
    period_s: float
    first_sample_offset_steps: int
    action_dim: int
    ensemble_decay: float
    guidance_schedule: str
    guidance_max_weight: float
    action_similarity: float
    max_skips: int


@dataclass(frozen=True, eq=False)
class Draft:
    """What was known when the computation of a chunk began.

    basis: the chunk of the same session that ran then. consumed: the guard's count then; None where
    it had not been heard. standing: no plan had begun. guidance: what the chunk is drawn toward.
    """

    observation_ns: int
    basis: _Basis | None
    consumed: int | None
    standing: bool
    guidance: Guidance | None


@dataclass(frozen=True, eq=False)
class Placed:
    """A chunk as it is sent. actions: float64 [steps, dim]. stamp_ns: ROS time of sample 0.

    delay_steps: samples consumed since the observation. guided_steps: samples that were drawn
    toward the chunk before. difference: the largest one to the chunk before, over the samples that
    both hold, in robot units; 0 where there are none. skipped: inferences left out before it.
    """

    actions: Float64
    stamp_ns: int
    delay_steps: int
    guided_steps: int
    difference: float
    skipped: int


@dataclass(frozen=True, eq=False)
class _Sent:
    seq: int
    stamp_ns: int
    raw: NDArray[np.float32]
    ensemble: Ensemble
    consumed: int | None
    difference: float | None


@dataclass(frozen=True, eq=False)
class _Basis:
    """begin: where sample 0 of a new chunk lies, counted in samples of `chunk`."""

    chunk: _Sent
    begin: float


def standalone(actions: Float64, stamp_ns: int) -> Placed:
    """Return a chunk that follows none."""
    return Placed(actions, stamp_ns, 0, 0, 0.0, 0)


class ChunkStrategy:
    """The chunks of one session after the other. Has no clock: every call takes ROS time."""

    def __init__(self, options: StrategyOptions) -> None:
        self.options = options
        self._period_ns = options.period_s * 1e9
        self._log = ExecutionLog()
        self._session_id = ''
        self._sent: deque[_Sent] = deque(maxlen=CHUNKS_KEPT)
        self._awaited: _Sent | None = None  # sent, and not yet seen to run
        self._delays: deque[int] = deque(maxlen=DELAYS_KEPT)
        self._skips = 0

    def forget_times(self) -> None:
        """After a backward jump of the clock: what was heard and sent lies in no known past."""
        self._log.clear()
        self._sent.clear()
        self._awaited = None

    def on_execution(self, execution: Execution) -> None:
        """Take the guard's newest execution state; measures the delay of a chunk that began."""
        self._log.add(execution)
        awaited = self._awaited
        if awaited is None or not execution.has_plan:
            return
        if (execution.session_id, execution.seq) == (self._session_id, awaited.seq):
            self._awaited = None
            if awaited.consumed is not None:
                self._delays.append(max(0, execution.consumed_total - awaited.consumed))

    @property
    def delay_steps(self) -> int:
        """Samples consumed between an observation and its chunk: the windowed 95th percentile,
        rounded up; `execute_steps` before the first was measured. 0 while the robot stands."""
        if self.options.name == SYNCHRONOUS:
            return 0
        if not self._delays:
            return self.options.execute_steps
        return int(np.percentile(list(self._delays), DELAY_PERCENTILE, method='higher'))

    def draft(self, session_id: str, observation_ns: int) -> Draft:
        """Note where the robot is at an observation, and what a chunk from it is drawn toward."""
        if session_id != self._session_id:
            self._session_id, self._awaited, self._skips = session_id, None, 0
            self._sent.clear()
        heard = self._log.at(observation_ns)
        consumed = None if heard is None else heard.consumed_total
        standing = heard is None or _stands(heard)
        basis = self._basis(observation_ns, heard)
        return Draft(observation_ns, basis, consumed, standing, self._guidance(basis))

    def place(
        self, draft: Draft, seq: int, actions: Float64, raw: NDArray[np.float32], now_ns: int
    ) -> Placed:
        """Say when a chunk [steps, dim] that is sent now begins, and what exactly is sent."""
        delay, begins_ns = self._begins(draft, now_ns)
        stamp_ns = begins_ns + round(self.options.first_sample_offset_steps * self._period_ns)
        ensemble, difference = self._joined(draft.basis, actions)
        sent = ensemble.mean
        if self.options.name == SYNCHRONOUS:
            sent = sent[: self.options.execute_steps]
        guided = 0 if draft.guidance is None else len(draft.guidance.previous)
        placed = Placed(sent, stamp_ns, delay, guided, difference or 0.0, self._skips)
        self._skips = 0
        if np.isfinite(actions).all():
            consumed = None if draft.standing else draft.consumed
            self._awaited = _Sent(seq, stamp_ns, raw, ensemble, consumed, difference)
            self._sent.append(self._awaited)
        return placed

    def may_skip(self, due_index: int) -> bool:
        """Tell whether an inference that is due at a sample of the running chunk may be left out:
        the last two chunks were alike, and enough of the running one is left until the next."""
        options = self.options
        if options.action_similarity <= 0.0 or not self._sent or self._skips >= options.max_skips:
            return False
        difference = self._sent[-1].difference
        if difference is None or difference > options.action_similarity:
            return False
        return due_index + options.execute_steps + self.delay_steps < options.chunk_steps

    def skip(self) -> None:
        """Note that an inference was left out."""
        self._skips += 1

    def _begins(self, draft: Draft, now_ns: int) -> tuple[int, int]:
        """Return the samples consumed since the observation, and ROS time of the moment of which
        the chunk speaks: that of the observation, put off by the time in which no sample was
        consumed although one should have been. Chunks that were made of a standing robot speak of
        the same moment, that at which the first of them begins."""
        newest = self._log.newest
        if draft.consumed is None or newest is None:
            return 0, now_ns
        delay = max(0, newest.consumed_total - draft.consumed)
        if self.options.anchor != 'observation':
            return delay, now_ns
        if draft.standing:
            if delay == 0 and _stands(newest):
                return 0, now_ns
            if self._sent and self._runs(self._sent[-1], newest):
                ahead = self._position(self._sent[-1], newest, newest.stamp_ns)
                ahead += self.options.first_sample_offset_steps
                return delay, newest.stamp_ns - round(ahead * self._period_ns)
        since_ns = newest.stamp_ns - draft.observation_ns
        stall_ns = max(0.0, since_ns - (delay + 1) * self._period_ns)
        return delay, draft.observation_ns + round(stall_ns)

    def _joined(self, basis: _Basis | None, actions: Float64) -> tuple[Ensemble, float | None]:
        """Return what is sent for the actions, and their largest difference to what runs."""
        if basis is None:
            return Ensemble(actions), None
        before = resampled(basis.chunk.ensemble.mean, basis.begin)[: len(actions)]
        difference = float(np.abs(actions[: len(before)] - before).max()) if len(before) else None
        if self.options.name != ENSEMBLING:
            return Ensemble(actions), difference
        decay = self.options.ensemble_decay
        return basis.chunk.ensemble.add(actions, basis.begin, decay), difference

    def _basis(self, t_ns: int, heard: Execution | None) -> _Basis | None:
        """Return the chunk of this session that runs, and where a new one from `t_ns` begins in it.

        The guard's count decides; the time within a period only says where between two samples.
        """
        if heard is None or not heard.has_plan or heard.session_id != self._session_id:
            return None
        # The newest chunk, unless the guard has not been seen to take it.
        known = [sent for sent in self._sent if sent is not self._awaited]
        if not known:
            return None
        chunk = known[-1]
        position = self._position(chunk, heard, t_ns)
        return _Basis(chunk, position + self.options.first_sample_offset_steps)

    def _runs(self, chunk: _Sent, heard: Execution) -> bool:
        ran = heard.session_id == self._session_id and heard.seq == chunk.seq
        return ran and heard.has_plan

    def _position(self, chunk: _Sent, heard: Execution, t_ns: int) -> float:
        """Return which sample of a chunk it is at a time, by what the guard said last before."""
        position = (t_ns - chunk.stamp_ns) / self._period_ns
        if not self._runs(chunk, heard):
            return position
        most = heard.next_index + (t_ns - heard.stamp_ns) / self._period_ns
        return min(max(position, heard.next_index - 1.0), most)

    def _guidance(self, basis: _Basis | None) -> Guidance | None:
        options = self.options
        if options.name != REAL_TIME_CHUNKING or basis is None:
            return None
        rows = basis.chunk.raw[:, : options.action_dim].astype(np.float64)
        previous = resampled(rows, basis.begin)[: options.chunk_steps].astype(np.float32)
        if len(previous) == 0:
            return None
        # A new chunk begins somewhere between two samples of the running one, so that one more of
        # its own may have passed than were consumed.
        delay = self.delay_steps + 1 - options.first_sample_offset_steps
        return Guidance(
            previous, delay, len(previous), options.guidance_schedule, options.guidance_max_weight
        )


def _stands(heard: Execution) -> bool:
    """Whether no plan has begun: there is none, or its first sample is still awaited at rest."""
    return not heard.has_plan or (heard.next_index == 0 and heard.at_rest)
