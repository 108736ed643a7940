# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the parity ladder on a bundle folder and gathers its figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vla_deploy.export.evidence import evidence_for
from vla_deploy.export.fixtures import Case
from vla_deploy.export.parity import (
    MIN_COSINE,
    Figure,
    GraphParity,
    GraphRunner,
    TorchRun,
    action_scale,
    compare,
    compare_actions,
    graph_parity,
    run_torch,
    worst,
)
from vla_deploy.export.torch_pipeline import TorchPipeline
from vla_deploy.pipeline import Policy, SelfTest
from vla_deploy.pipeline.bundle import Graphs

Progress = Callable[[str], None]
# How a bundle is compared with the reference: by what was recorded once, or by running it.
RECORDED, DIRECT = 'recorded cases', 'direct comparison'


@dataclass(frozen=True)
class FixtureParity:
    """All figures of one fixture.

    graph: rung 1, absent where there is no checkpoint to compare with. chunk: the served
    pipeline's model-space chunk against the expected one. actions: rung 2, robot units divided
    by the size of each dimension.
    """

    instruction: str
    graph: GraphParity | None
    chunk: Figure
    actions: Figure


@dataclass(frozen=True, eq=False)
class Served:
    """What the served pipeline gave for one fixture, and how far that is from what is expected:
    the model-space chunk `raw` float32 [steps,padded_dim], and scaled robot-unit actions."""

    chunk: Figure
    actions: Figure
    raw: NDArray[np.float32]


def run_reference(
    reference: TorchPipeline, cases: Sequence[Case], threads: int | None, progress: Progress
) -> list[TorchRun]:
    """Run every fixture through the torch modules."""
    runs = []
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(threads or torch_threads)  # its last bits depend on them, too
    try:
        for index, case in enumerate(cases):
            progress(f'torch modules: fixture {index + 1} of {len(cases)}')
            inputs = reference.inputs(case.observation)
            runs.append(run_torch(reference.model, inputs, case.noise))
    finally:
        torch.set_num_threads(torch_threads)
    return runs


def run_graphs(
    folder: Path,
    graphs: Graphs,
    runs: Sequence[TorchRun],
    threads: int | None,
    progress: Progress,
) -> list[GraphParity]:
    """Run rung 1 for every fixture, on a pair of graphs with float32 in and out.

    The torch modules are better gone by then: the runtime loads the same weights.
    """
    runner = GraphRunner(folder / graphs.prefix, folder / graphs.step, threads or 0)
    figures = []
    for index, run in enumerate(runs):
        progress(f'rung 1, {graphs.prefix}, {graphs.step}: fixture {index + 1} of {len(runs)}')
        figures.append(graph_parity(runner, run))
    return figures


def run_pipeline(
    policy: Policy,
    cases: Sequence[Case],
    chunks: Sequence[NDArray[np.float32]],
    actions: Sequence[NDArray[np.float32]],
    statistics: Mapping[str, NDArray[np.float32]],
    progress: Progress,
) -> list[Served]:
    """Run rung 2: from raw observations, the served chunk and robot-unit actions.

    `chunks` and `actions` are what the reference gave, float32 [steps,padded_dim] and [steps,dim].
    """
    scale = action_scale(policy.contract, statistics)
    figures = []
    for index, case in enumerate(cases):
        progress(f'rung 2, pipeline: fixture {index + 1} of {len(cases)}')
        served = policy.infer(case.observation, noise=case.noise)
        figures.append(
            Served(
                compare(served.raw, chunks[index], 'chunk'),
                compare_actions(served.actions, actions[index], scale),
                served.raw,
            )
        )
    return figures


def evidence_summary(family: str) -> dict[str, Any]:
    """Return what the receipt says about the recorded cases of the family's reference."""
    evidence = evidence_for(family)
    return {
        'kind': RECORDED,
        'reference': evidence['reference'],
        'cases': evidence['cases'],
        'changed_sources': evidence['changed_sources'],
    }


def failures(
    parities: Sequence[FixtureParity], target: SelfTest, threshold: float
) -> list[str]:
    """Return one line for each figure that misses the gate, and where configure would refuse:
    `target` has the receipt's threshold, which may be another than the gate's."""
    lines = []
    for index, parity in enumerate(parities):
        checks = [('rung 2, actions', parity.actions), ('rung 2, chunk', parity.chunk)]
        if parity.graph is not None:
            checks.insert(0, ('rung 1, chunk', parity.graph.chunk))
        for name, figure in checks:
            if not figure.passes(threshold):
                lines.append(
                    f'{name}, fixture {index}: max_abs {figure.max_abs!r} (below {threshold!r}), '
                    f'cosine {figure.cosine!r} (at least {MIN_COSINE!r})'
                )
    if not target.max_abs < threshold:
        lines.append(f'rung 3, target: max_abs {target.max_abs!r} (below {threshold!r})')
    elif not target.passed:
        lines.append(
            f'rung 3, target: max_abs {target.max_abs!r} (at most {target.threshold!r}, which the '
            'receipt says and configure asks for)'
        )
    return lines


def fused_failures(parities: Sequence[GraphParity], threshold: float) -> list[str]:
    """Return a line for each fixture where the graphs for GPUs miss the gate, on a CPU."""
    return [
        f'rung 1, graphs for GPUs: chunk max_abs {parity.chunk.max_abs!r} (below {threshold!r})'
        for parity in parities
        if not parity.chunk.max_abs < threshold
    ]


def figures_mapping(parities: Sequence[FixtureParity]) -> dict[str, Any]:
    """Return the figures as the receipt holds them."""
    fixtures = [asdict(parity) for parity in parities]
    summary: dict[str, Any] = {
        'pipeline_chunk': asdict(worst(p.chunk for p in parities)),
        'pipeline_actions_scaled': asdict(worst(p.actions for p in parities)),
    }
    graphs = [p.graph for p in parities if p.graph is not None]
    if graphs:
        for name in ('key', 'value', 'velocity', 'chunk'):
            summary[f'graph_{name}'] = asdict(worst(getattr(g, name) for g in graphs))
    return {'fixtures': fixtures, 'worst': summary}


def table(parities: Sequence[FixtureParity]) -> list[str]:
    """Return the figures as lines of a table, full precision."""
    lines = [
        '| fixture | rung 1 chunk max_abs | rung 1 cosine | rung 2 chunk max_abs '
        '| rung 2 actions max_abs, scaled | rung 2 cosine |',
        '|---|---|---|---|---|---|',
    ]
    for index, parity in enumerate(parities):
        chunk = parity.graph.chunk if parity.graph else None
        cells = [
            str(index),
            repr(chunk.max_abs) if chunk else 'not run',
            repr(chunk.cosine) if chunk else 'not run',
            repr(parity.chunk.max_abs),
            repr(parity.actions.max_abs),
            repr(parity.actions.cosine),
        ]
        lines.append(f'| {" | ".join(cells)} |')
    return lines
