# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The picture of a replay: actions as recorded and computed again, their difference, latencies."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib

matplotlib.use('Agg')

import matplotlib.pyplot as plt
import numpy as np

from vla_deploy.files import write_bytes
from vla_deploy.trace.replay_report import Report


def write_plot(report: Report, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    names = report.drawn[0].joint_names if report.drawn else ()
    figure, axes = plt.subplots(
        len(names) + 2, 1, figsize=(12, 1.6 * (len(names) + 2)), constrained_layout=True
    )
    figure.suptitle(f'{report.bag}\nmax_abs {report.max_abs!r}', fontsize=10)
    begin_s = report.drawn[0].begin_s if report.drawn else 0.0
    for column, name in enumerate(names):
        for index, chunk in enumerate(report.drawn):
            time_s = chunk.begin_s - begin_s + chunk.period_s * np.arange(len(chunk.recorded))
            first = index == 0
            axes[column].plot(time_s, chunk.recorded[:, column], color='tab:blue', linewidth=2.5,
                              alpha=0.4, label='recorded' if first else None)  # fmt: skip
            time_s = chunk.begin_s - begin_s + chunk.replayed_period_s * np.arange(
                len(chunk.replayed)
            )
            axes[column].plot(time_s, chunk.replayed[:, column], color='tab:orange', linewidth=0.9,
                              label='replayed' if first else None)  # fmt: skip
        axes[column].set_ylabel(name, fontsize=8)
    if names:
        axes[0].legend(fontsize=8, loc='upper right')
        axes[len(names) - 1].set_xlabel('time [s]', fontsize=8)
    axes[-2].plot([chunk.max_abs for chunk in report.chunks], drawstyle='steps-mid')
    axes[-2].set_ylabel('max_abs', fontsize=8)
    axes[-1].plot([c.recorded_s * 1e3 for c in report.chunks], color='tab:blue', alpha=0.5)
    axes[-1].plot([c.replayed_s * 1e3 for c in report.chunks], color='tab:orange', linewidth=0.9)
    axes[-1].set_ylabel('latency [ms]', fontsize=8)
    axes[-1].set_xlabel('chunk', fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, format='png', dpi=90)
    plt.close(figure)
    write_bytes(path, picture.getvalue())
