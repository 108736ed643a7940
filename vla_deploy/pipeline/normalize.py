# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Normalisation of states and un-normalisation of actions, in float32 as policies are trained."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from vla_deploy.core.contract import ActionSpec, StateSpec

Float32 = NDArray[np.float32]
STATISTICS = {
    'identity': (),
    'mean_std': ('mean', 'std'),
    'quantiles': ('q01', 'q99'),
    'min_max': ('min', 'max'),
}


class StatisticsError(ValueError):
    """Statistics are missing or cannot be right; the message names them."""


def read_statistics(path: str | os.PathLike[str]) -> dict[str, Float32]:
    """Read the tensors of a normalizer file; raises StatisticsError, which names the file."""
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise StatisticsError(f'{path}: cannot be read: {error}') from error


class VectorNormalizer:
    """Normalises one vector of a contract and back.

    mean_std: (x − mean) / (std + epsilon) and y · std + mean, without the epsilon.
    quantiles, min_max: 2 · (x − low) / d − 1 and (y + 1) · d / 2 + low, where d = high − low, or
    epsilon where that is exactly 0. Nothing is clipped.
    """

    def __init__(
        self, part: str, spec: StateSpec | ActionSpec, statistics: Mapping[str, Float32]
    ) -> None:
        """Take what the spec's mode needs of `statistics`, named `<part>.<name>`.

        Raises StatisticsError for one that is missing, not finite, or of another shape or type.
        """
        self._dim, self._padded_dim = spec.dim, spec.padded_dim
        self._mode = spec.normalization.mode
        self._epsilon = np.float32(spec.normalization.epsilon)
        names = [f'{part}.{name}' for name in STATISTICS[self._mode]]
        for name in names:
            _check_statistic(name, statistics.get(name), spec.dim)
        if self._mode == 'mean_std' and (statistics[names[1]] < 0).any():
            raise StatisticsError(f'{names[1]} is negative')
        # mean and std, or low and high; identity reads neither
        zeros = np.zeros(spec.dim, np.float32)
        self._first, self._second = [statistics[name] for name in names] or [zeros, zeros]

    def normalize(self, values: Float32) -> Float32:
        """Return float32 [..., dim] normalised."""
        if self._mode == 'identity':
            return values
        if self._mode == 'mean_std':
            return (values - self._first) / (self._second + self._epsilon)
        return np.float32(2.0) * (values - self._first) / self._range() - np.float32(1.0)

    def normalize_padded(self, values: Float32) -> Float32:
        """Return float32 [dim] normalised and followed by zeros, float32 [padded_dim]."""
        padded = np.zeros(self._padded_dim, np.float32)
        padded[: self._dim] = self.normalize(values)
        return padded

    def unnormalize(self, values: Float32) -> Float32:
        """Return float32 [..., dim] in the units that the statistics are in."""
        if self._mode == 'identity':
            return values
        if self._mode == 'mean_std':
            return values * self._second + self._first
        return (values + np.float32(1.0)) * self._range() / np.float32(2.0) + self._first

    def _range(self) -> Float32:
        width = self._second - self._first
        return np.where(width == 0, self._epsilon, width)


class ActionDecoder:
    """Turns model-space chunks into actions of the robot, absolute ones where they are deltas."""

    def __init__(self, spec: ActionSpec, statistics: Mapping[str, Float32]) -> None:
        """Take what the spec needs of `statistics`; raises StatisticsError as VectorNormalizer."""
        self._dim = spec.dim
        self._normalizer = VectorNormalizer('action', spec, statistics)
        self._delta_dims = list(spec.delta_dims)

    def __call__(self, raw: Float32, state: Float32) -> Float32:
        """Return float32 [steps, dim] in robot units of `raw` [steps, padded_dim], with the state
        [dim] of the observation added where the policy gives differences to it."""
        actions = self._normalizer.unnormalize(raw[:, : self._dim])
        if self._delta_dims:
            actions = actions.copy()
            actions[:, self._delta_dims] += state[self._delta_dims]
        return actions


def _check_statistic(name: str, values: Float32 | None, dim: int) -> None:
    if values is None:
        raise StatisticsError(f'{name} is missing')
    if values.dtype != np.float32 or values.shape != (dim,):
        raise StatisticsError(
            f'{name} must be float32 [{dim}], not {values.dtype} {list(values.shape)}'
        )
    if not np.isfinite(values).all():
        raise StatisticsError(f'{name} holds a value that is not finite')
