# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Strict loading: every parameter is accounted for by name and shape, and is finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from vla_deploy.export.layouts import MODEL, Renaming, require_one_each
from vla_deploy.export.source import CheckpointError, unreadable

Module = TypeVar('Module', bound=nn.Module)


def load_module(
    make: Callable[[], Module], path: Path, rename: Renaming, unused: Collection[str]
) -> tuple[Module, tuple[str, ...]]:
    """Make a module and give it a file's tensors, in float32.

    `rename` gives, for names in the file, the module's own behind `model.`; of these, `unused`
    may be there or not. Returns the module in evaluation mode and the dtypes that the file held.
    Raises CheckpointError: a tensor is missing, left over, of another shape, or not finite.
    """
    with torch.device('meta'):  # no storage and no random numbers for what is replaced anyway
        module = make()
    expected = {MODEL + name: value.shape for name, value in module.state_dict().items()}
    try:
        with safe_open(path, framework='pt') as file:
            names = _renamed(file.keys(), rename, path)
            stored = {now: name for name, now in names.items()}
            _require_equal_names(stored, expected, {MODEL + name for name in unused}, path)
        dtypes = set()
        tensors = {}
        for name, shape in expected.items():
            tensor = _read_tensor(path, stored[name])
            _check_tensor(path, stored[name], tensor, shape)
            dtypes.add(str(tensor.dtype).removeprefix('torch.'))
            tensors[name.removeprefix(MODEL)] = tensor.to(torch.float32, copy=True)
    except (OSError, SafetensorError) as error:
        raise unreadable(path, error) from None
    module.load_state_dict(tensors, strict=True, assign=True)
    return module.eval().requires_grad_(False), tuple(sorted(dtypes))


def _read_tensor(path: Path, name: str) -> torch.Tensor:
    """Return one tensor in the file's own pages.

    The file is opened anew, so that these pages are given back with the tensor. The caller copies
    it: where a tensor begins in the file is chance, and sums of unaligned numbers differ in bits.
    """
    with safe_open(path, framework='pt') as file:
        tensor: torch.Tensor = file.get_tensor(name)
        return tensor


def tensor_shapes(path: Path, rename: Renaming) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor in a file by its name of today, without `model.`."""
    try:
        with safe_open(path, framework='np') as file:
            names = _renamed(file.keys(), rename, path)
            return {
                now.removeprefix(MODEL): tuple(file.get_slice(name).get_shape())
                for name, now in names.items()
            }
    except (OSError, SafetensorError) as error:
        raise unreadable(path, error) from None


def _renamed(stored: Collection[str], rename: Renaming, path: Path) -> dict[str, str]:
    names = rename(stored)
    require_one_each(names, path)
    return names


def _require_equal_names(
    stored: Mapping[str, str], expected: Collection[str], unused: set[str], path: Path
) -> None:
    left_over = sorted(stored[name] for name in set(stored) - set(expected) - unused)
    for problem, names in (
        ('lacks', sorted(set(expected) - set(stored))),
        ('holds the unknown tensor', left_over),
    ):
        if names:
            more = f' and {len(names) - 1} more' if len(names) > 1 else ''
            raise CheckpointError(
                f'{path}: {problem} {names[0]}{more}; it does not fit config.json'
            )


def _check_tensor(path: Path, name: str, tensor: torch.Tensor, shape: torch.Size) -> None:
    if tensor.shape != shape:
        raise CheckpointError(
            f'{path}: {name} has shape {list(tensor.shape)}, but config.json and the backbone '
            f'ask for {list(shape)}'
        )
    if not tensor.is_floating_point():
        raise CheckpointError(f'{path}: {name} has dtype {tensor.dtype}, not a floating one')
    if not all(math.isfinite(bound) for bound in tensor.aminmax()):  # which hand on NaN
        raise CheckpointError(f'{path}: {name} holds NaN or infinity; the training diverged')
