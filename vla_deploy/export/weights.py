# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Strict loading: every parameter is accounted for by name and shape, and is finite."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from vla_deploy.export.source import CheckpointError, unreadable

Module = TypeVar('Module', bound=nn.Module)


def load_module(
    make: Callable[[], Module], path: Path, key_prefix: str, unused: Collection[str]
) -> tuple[Module, tuple[str, ...]]:
    """Make a module and give it a file's tensors, in float32.

    Names in the file are the module's behind `key_prefix`; those in `unused` may be there or not.
    Returns the module in evaluation mode and the dtypes that the file held. Raises
    CheckpointError: a tensor is missing, left over, of another shape, or not finite.
    """
    with torch.device('meta'):  # no storage and no random numbers for what is replaced anyway
        module = make()
    expected = {key_prefix + name: value.shape for name, value in module.state_dict().items()}
    try:
        with safe_open(path, framework='pt') as file:
            names = set(file.keys())
            _require_equal_names(names - {key_prefix + name for name in unused}, expected, path)
            dtypes = set()
            tensors = {}
            for name, shape in expected.items():
                tensor = file.get_tensor(name)
                _check_tensor(path, name, tensor, shape)
                dtypes.add(str(tensor.dtype).removeprefix('torch.'))
                tensors[name.removeprefix(key_prefix)] = tensor.float()
    except (OSError, SafetensorError) as error:
        raise unreadable(path, error) from None
    module.load_state_dict(tensors, strict=True, assign=True)
    return module.eval().requires_grad_(False), tuple(sorted(dtypes))


def _require_equal_names(found: set[str], expected: Collection[str], path: Path) -> None:
    for problem, names in (
        ('lacks', sorted(set(expected) - found)),
        ('holds the unknown tensor', sorted(found - set(expected))),
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
    if not bool(torch.isfinite(tensor).all()):
        raise CheckpointError(f'{path}: {name} holds NaN or infinity; the training diverged')
