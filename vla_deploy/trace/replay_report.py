# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What a replay found: for each chunk and each step of the guard, and over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vla_deploy.core.contract import Contract
from vla_deploy.core.guard_io import Outputs
from vla_deploy.core.journal import JournalStep
from vla_deploy.trace.replay import (
    ENSEMBLING,
    FULL,
    ChunkDifference,
    ChunkKey,
    Plan,
    SeenChunk,
    compare,
    plan_of,
)

_SHOWN = 5
_RANKS = (50, 95, 99, 100)
_RANK_NAMES = ('p50', 'p95', 'p99', 'max')
_BUNDLES = {True: 'the same bundle', False: 'another bundle than recorded',
            None: 'the bundle that was given'}  # fmt: skip


class ComputedChunk(Protocol):
    """What the pipeline computed."""

    raw: NDArray[np.float32]
    actions: NDArray[np.float64]


class Computed(Protocol):
    """A chunk that was computed again, and how long that took, decoding included [s]."""

    @property
    def chunk(self) -> ComputedChunk: ...
    @property
    def inference_s(self) -> float: ...


@dataclass(frozen=True, eq=False)
class Drawn:
    """A chunk for the picture: actions [steps, joints] as recorded and computed again, NaN for
    joints that the bundle does not know."""

    begin_s: float
    period_s: float
    replayed_period_s: float
    joint_names: tuple[str, ...]
    recorded: NDArray[np.float64]
    replayed: NDArray[np.float64]


@dataclass
class Report:
    """A replay that goes on, chunk by chunk and step by step."""

    diffs: tuple[str, ...]
    bag: str
    bundle_sha256: str = ''
    journal: str = ''
    chunks: list[ChunkDifference] = field(default_factory=list)
    drawn: list[Drawn] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    skipped: int = 0  # chunks whose images are not in the bag
    steps: int = 0
    step_differences: list[str] = field(default_factory=list)
    recorded_violations: int = 0
    replayed_violations: int = 0
    _models: set[str] = field(default_factory=set)
    _sent: dict[ChunkKey, Plan] = field(default_factory=dict)

    def add(self, seen: SeenChunk, computed: Computed, contract: Contract) -> None:
        """Take a chunk that was computed again by the bundle of this contract."""
        chunk, message = computed.chunk, seen.message
        self.chunks.append(
            compare(seen, chunk.raw, chunk.actions, computed.inference_s, contract)
        )
        self._models.add(message.model_sha256)
        plan = plan_of(seen, chunk.actions, contract)
        if message.strategy != ENSEMBLING:  # what it sends is a mean over several chunks
            self._sent[seen.key] = plan
        stamp, names = message.header.stamp, tuple(message.joint_names)
        self.drawn.append(
            Drawn(stamp.sec + stamp.nanosec * 1e-9, seen.period_ns * 1e-9, plan.period_s, names,
                  seen.actions, _columns(plan, names))
        )  # fmt: skip

    def skip(self, seen: SeenChunk, kept: str) -> None:
        """Note a chunk whose images are not in the bag. `kept`: how it keeps images."""
        self._models.add(seen.message.model_sha256)
        self.skipped += 1
        session_id, seq = seen.key
        gap = (
            f'chunk {seq} of session {session_id}: the image it saw on {seen.missing} is not in '
            'the bag'
            if kept == FULL
            else f'any chunk: images were recorded as {kept!r}, and only whole ones '
            '(record_images:=full) can be shown to a policy again'
        )
        if gap not in self.gaps:
            self.gaps.append(gap)

    def replayed_plans(self) -> Mapping[ChunkKey, Plan]:
        """Return what the guard gets in place of the recorded chunks."""
        return self._sent

    def add_step(self, step: JournalStep, outputs: Outputs, text: str) -> None:
        """Take a step of the guard; `text` says what differs, if anything."""
        self.steps += 1
        self.recorded_violations += len(step.outcome.violations)
        self.replayed_violations += len(outputs.violations)
        if text:
            self.step_differences.append(f'record {step.number}: {text}')

    @property
    def same_bundle(self) -> bool | None:
        """Whether the bundle is the one that was recorded; None where no chunk names one."""
        return self._models == {self.bundle_sha256} if self._models else None

    @property
    def max_abs(self) -> float | None:
        """The largest difference of any chunk; None where none was computed again."""
        return max((chunk.max_abs for chunk in self.chunks), default=None)

    def latency_ms(self) -> dict[str, dict[str, float]]:
        """Return p50, p95, p99 and max in milliseconds, recorded and replayed."""
        return {
            'recorded': _percentiles_ms([chunk.recorded_s for chunk in self.chunks]),
            'replayed': _percentiles_ms([chunk.replayed_s for chunk in self.chunks]),
        }

    def failures(self, limits: Mapping[str, float]) -> list[str]:
        """Return what differs by more than its limit, by name of the diff; one line each."""
        found = []
        if 'actions' in limits:
            over = [c for c in self.chunks if c.max_abs > limits['actions']]
            if over:
                found.append(
                    f'actions: {len(over)} of {len(self.chunks)} chunks by more than '
                    f'{limits["actions"]!r}, at most {self.max_abs!r}; the first is chunk '
                    f'{over[0].seq} of session {over[0].session_id}'
                    f'{f": {over[0].contract}" if over[0].contract else ""}'
                )
        latency = self.latency_ms()
        if 'latency' in limits and latency['recorded']:
            was, is_now = latency['recorded']['p95'], latency['replayed']['p95']
            if is_now > limits['latency'] * was:
                found.append(f'latency: p95 {is_now:.3f} ms against {was:.3f} ms recorded, more '
                             f'than {limits["latency"]:g} times as much')  # fmt: skip
        unlike = [chunk for chunk in self.chunks if chunk.contract]
        if 'guard' in limits and unlike:  # even where it took the recorded ones (ensembling)
            found.append(f'guard: {len(unlike)} chunks are plans of another kind: '
                         f'{unlike[0].contract}')  # fmt: skip
        if 'guard' in limits and self.step_differences:
            found.append(f'guard: {len(self.step_differences)} of {self.steps} steps; '
                         f'{self.step_differences[0]}')  # fmt: skip
        return found

    def lines(self) -> list[str]:
        """Return what people read."""
        bundle = _BUNDLES[self.same_bundle]
        lines = [f'{self.bag}: {len(self.chunks)} chunks with {bundle} ({self.bundle_sha256[:8]})']
        if 'actions' in self.diffs and self.chunks:
            lines.append(f'actions  max_abs {self.max_abs!r}')
            worst = sorted(self.chunks, key=lambda chunk: -chunk.max_abs)[:_SHOWN]
            lines += [
                f'         chunk {c.seq:4d}  robot units {c.actions!r}  model space {c.raw!r}'
                for c in worst if c.max_abs > 0
            ]  # fmt: skip
        if 'latency' in self.diffs and self.chunks:
            for name, figures in self.latency_ms().items():
                text = '  '.join(f'{rank} {value:.2f}' for rank, value in figures.items())
                lines.append(f'latency  {name:8s} {text} ms')
        if 'guard' in self.diffs:
            lines.append(
                f'guard    {self.steps} steps, {len(self.step_differences)} differ; violations '
                f'{self.recorded_violations} recorded, {self.replayed_violations} replayed'
            )
            lines += [f'         {text}' for text in self.step_differences[:_SHOWN]]
        return lines

    def to_mapping(self) -> dict[str, Any]:
        """Return what the JSON file holds."""
        return {
            'bag': self.bag,
            'journal': self.journal,
            'bundle_sha256': self.bundle_sha256,
            'same_bundle': self.same_bundle,
            'max_abs': self.max_abs,
            'latency_ms': self.latency_ms(),
            'chunks': [asdict(chunk) for chunk in self.chunks],
            'guard': {
                'steps': self.steps,
                'differences': self.step_differences,
                'recorded_violations': self.recorded_violations,
                'replayed_violations': self.replayed_violations,
            },
            'not_compared': self.gaps,
        }


def _columns(plan: Plan, names: Sequence[str]) -> NDArray[np.float64]:
    """Return the columns of a plan by the names of joints."""
    known = dict(zip(plan.joint_names, plan.data.T, strict=True))
    absent = np.full(len(plan.data), np.nan)
    return np.array([known.get(name, absent) for name in names]).T


def _percentiles_ms(durations_s: Sequence[float]) -> dict[str, float]:
    if not durations_s:
        return {}
    values = np.percentile(np.asarray(durations_s) * 1e3, _RANKS)
    return dict(zip(_RANK_NAMES, map(float, values), strict=True))
