# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The picture of a run: what the camera saw, and the joint commands against their limits."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use('Agg')

import matplotlib.pyplot as plt
import numpy as np

from vla_deploy.core.limits import JointLimits
from vla_deploy.demo.graph import Recording


def write_picture(recording: Recording, limits: JointLimits, title: str, path: Path) -> None:
    """Write a PNG: camera frames above, positions and velocities of each joint below."""
    frames = recording.pictures[:6]
    figure = plt.figure(figsize=(16, 11), constrained_layout=True)
    figure.suptitle(title)
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 2.4))
    for axes, (name, pixels) in zip(
        np.atleast_1d(top.subplots(1, max(1, len(frames)))), frames, strict=False
    ):
        axes.imshow(pixels)
        axes.set_title(name, fontsize=9)
        axes.set_axis_off()
    grid = bottom.subplots(2, len(limits.names), sharex=True)
    if recording.commands:
        time_s = np.array([c[0] for c in recording.commands])
        _plot_commands(grid, time_s - time_s[0], recording, limits)
    temporary = path.with_suffix('.png.part')
    figure.savefig(temporary, format='png', dpi=90)
    plt.close(figure)
    temporary.rename(path)


def _plot_commands(
    grid: np.ndarray, time_s: np.ndarray, recording: Recording, limits: JointLimits
) -> None:
    position = np.stack([c[1] for c in recording.commands])
    velocity = np.stack([c[2] for c in recording.commands])
    for column, name in enumerate(limits.names):
        rows = (
            (position[:, column], limits.lower[column], limits.upper[column]),
            (velocity[:, column], -limits.velocity[column], limits.velocity[column]),
        )
        for axes, (values, low, high) in zip(grid[:, column], rows, strict=True):
            axes.plot(time_s, values, linewidth=1.2)
            axes.axhline(low, color='tab:red', linestyle='--', linewidth=0.8)
            axes.axhline(high, color='tab:red', linestyle='--', linewidth=0.8)
            axes.tick_params(labelsize=7)
        grid[0, column].set_title(name, fontsize=9)
        grid[1, column].set_xlabel('time [s]', fontsize=8)
    grid[0, 0].set_ylabel('commanded position [rad]\nlimits dashed', fontsize=8)
    grid[1, 0].set_ylabel('commanded velocity [rad/s]\nlimits dashed', fontsize=8)
