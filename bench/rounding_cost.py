# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What it costs a policy to round the factors of its large products to 8 bits, group by group.

The PyTorch backend runs a bundle's fixtures on the CPU at bf16, with both factors of the products
of one group in float8 besides, and is compared with the reference's chunks. That is what says which
products are in 8 bits at precision fp8.

    python bench/rounding_cost.py [OUTPUT.json] [--bundles BUNDLE [BUNDLE ...]]

Without, the bundle of the demonstration.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from _record import parser, write  # noqa: E402

from vla_deploy.backends import fused_layers  # noqa: E402
from vla_deploy.backends.fused_policy import FusedPolicy  # noqa: E402
from vla_deploy.backends.quantised import quantised  # noqa: E402
from vla_deploy.export.own_bundle import bundle_for  # noqa: E402
from vla_deploy.pipeline import Policy  # noqa: E402
from vla_deploy.pipeline.bundle import FIXTURES  # noqa: E402
from vla_deploy.pipeline.fixtures import Fixture, read_fixtures  # noqa: E402

DEMONSTRATION = 'franka'  # whose policy the demonstration's is
ONE_PART = 1 << 40  # of a long sum: taken in one product, which can be told by its weight
LINEAR, ADDMM = F.linear, Tensor.addmm_


def groups_of(policy: FusedPolicy) -> dict[str, list[Tensor]]:
    """Return the weights of each group of large products."""
    layers, tower = policy.language.layers, policy.tower.layers
    groups: dict[str, list[Tensor]] = {
        'language, MLPs': [w for own in layers[:-1] for w in (own.gate_up, own.down)],
        'tower, MLPs': [w for own in tower for w in (own.fc1[0], own.fc2[0])],
        'language, queries, keys and values': [own.qkv for own in layers],
        'tower, queries, keys and values': [own.qkv[0] for own in tower],
    }
    return {'nothing': [], **groups, 'all': [w for own in groups.values() for w in own]}


def error(policy: Policy, fixtures: list[Fixture], weights: list[Tensor]) -> dict[str, float]:
    """Return how far chunks are off where the products of these weights take 8 bits."""
    rounded = {weight.data_ptr() for weight in weights}

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if weight.data_ptr() not in rounded:
            return LINEAR(x, weight, bias)
        x_wide, weight_wide = (quantised(own.float()).dequantised() for own in (x, weight))
        return LINEAR(x_wide, weight_wide, None if bias is None else bias.float()).to(x.dtype)

    def addmm(x: Tensor, y: Tensor, transposed: Tensor) -> Tensor:
        if transposed.data_ptr() not in rounded:
            return ADDMM(x, y, transposed)
        return x.add_(linear(y, transposed.T))

    with (
        mock.patch.object(F, 'linear', linear),
        mock.patch.object(Tensor, 'addmm_', addmm),
        mock.patch.object(fused_layers, 'LONG_SUM', ONE_PART),
    ):
        made = np.stack([policy.infer(f.observation, noise=f.noise).raw for f in fixtures])
    expected = np.stack([fixture.chunk for fixture in fixtures])
    return {
        'relative': float(np.linalg.norm(made - expected) / np.linalg.norm(expected)),
        'max_abs': float(np.abs(made - expected).max()),
    }


def main() -> int:
    """Print and write the error of each group for each bundle."""
    options = parser(__doc__ or '', 'rounding_cost')
    options.add_argument(
        '--bundles', type=Path, nargs='+', help="others than the demonstration's own"
    )
    arguments = options.parse_args()
    bundles = arguments.bundles or [bundle_for(DEMONSTRATION, '')]
    figures: dict[str, Any] = {}
    for bundle in bundles:
        policy = Policy.load(bundle, 'torch_cuda', 'cpu', 'bf16')
        fixtures = read_fixtures(bundle / FIXTURES, policy.contract)
        backend: Any = policy._backend
        figures[bundle.name] = {
            name: error(policy, fixtures, weights)
            for name, weights in groups_of(backend._policy).items()
        }
        for name, found in figures[bundle.name].items():
            print(f'{bundle.name}, in 8 bits: {name}: relative {found["relative"]:.1e}, '
                  f'max_abs {found["max_abs"]:.4f}')
    write(arguments.output, {'torch': torch.__version__, 'bundles': figures})
    return 0


if __name__ == '__main__':
    sys.exit(main())
