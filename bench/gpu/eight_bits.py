# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The parts of a language layer's MLP on a GPU, at bf16 and in 8 bits: times, and equal numbers.

    python bench/gpu/eight_bits.py OUTPUT.json

Products are those of pi0 and pi0.5 for one observation and for eight, and of SmolVLA. What kernels
and products give in 8 bits is compared with plain torch of the same factors; products as they
serve, and both with sums in float32 and with those that the tensor cores keep shorter (fast).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from vla_deploy.backends.cuda_graph import Captures  # noqa: E402
from vla_deploy.backends.fused_layers import norm_of_sum  # noqa: E402
from vla_deploy.backends.quantised import Matrix, Quantised, product, quantised  # noqa: E402
from vla_deploy.backends.roofline import median_s  # noqa: E402
from vla_deploy.backends.torch_device import make_ops, own_stream  # noqa: E402
from vla_deploy.backends.torch_ops import TorchOps  # noqa: E402

SIZES = {  # rows, width, features, SiLU
    'pi0': (816, 2048, 16384, False), 'pi0.5': (968, 2048, 16384, False),
    'eight of pi0': (6528, 2048, 16384, False), 'smolvla': (241, 960, 2560, True),
}
EPS = 1e-6
CALLS = 20  # in a graph, one after the other
# Relative difference from plain torch, by part or by where sums are taken. Measured on an H200:
# norms 2.9e-3 and gates 1e-4 (codes that differ by one), products, which give bf16, 4e-3 with sums
# that are kept short and 1.7e-3 otherwise.
MOST_DIFFERENCE = {
    'norm': 1e-2, 'gate': 1e-3, 'gate and up': 1e-2, 'down': 1e-2, 'fast': 1e-2, 'float32': 5e-3,
}


def main() -> int:
    """Print and write the figures; returns 1 where numbers differ from plain torch's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('output', type=Path)
    arguments = parser.parse_args()
    figures: dict[str, Any] = {
        'card': torch.cuda.get_device_name(), 'torch': torch.__version__, 'sizes': {}
    }
    with torch.inference_mode(), own_stream(True) as stream:
        for name, sizes in SIZES.items():
            figures['sizes'][name] = found = _measure(*sizes, stream)
            print(name, json.dumps(found), flush=True)
    arguments.output.write_text(json.dumps(figures, indent=1) + '\n')
    far = [line for name, found in figures['sizes'].items() for line in _far(name, found)]
    print('\n'.join(far), end='\n' if far else '')
    return 1 if far else 0


def _far(name: str, found: dict[str, Any]) -> list[str]:
    """Return one line for each difference of a model's parts that is too large, or not a number."""
    told = [(part, part, value) for part, value in found['difference'].items()]
    told += [
        (part, part.rpartition(', ')[2], own['difference']) for part, own in found['sums'].items()
    ]
    return [
        f'{name}, {part}: {value!r} from plain torch (at most {MOST_DIFFERENCE[kind]!r})'
        for part, kind, value in told if not value <= MOST_DIFFERENCE[kind]
    ]


def _measure(
    rows: int, width: int, features: int, silu: bool, stream: torch.cuda.Stream
) -> dict[str, Any]:
    """Return microseconds of each part, and relative differences in 8 bits."""
    device, half = torch.device('cuda'), torch.bfloat16
    ops, plain = make_ops(device, half), TorchOps()
    x, sums = (torch.randn(rows, width, device=device, dtype=half) for _ in range(2))
    gates = torch.randn(rows, 2 * features, device=device, dtype=half)
    weights = [
        torch.randn(shape, device=device) / shape[1] ** 0.5
        for shape in ((2 * features, width), (width, features))
    ]

    def timed(function: Callable[[], Any]) -> float:
        def repeated() -> None:
            for _ in range(CALLS):
                function()

        return 1e6 / CALLS * median_s(Captures(stream).of(repeated, repeated))

    microseconds: dict[str, dict[str, float]] = {'bf16': {}, 'fp8': {}}
    for precision, narrow in (('bf16', False), ('fp8', True)):
        gate_up, down = (quantised(w) if narrow else w.to(half) for w in weights)
        normed: Matrix = ops.norm(x, EPS, None, narrow)
        active = ops.activate(gates, silu, narrow)
        microseconds[precision] = {
            'norm': timed(lambda n=narrow: ops.norm(x, EPS, None, n)),
            'gate and up': timed(lambda a=normed, w=gate_up: product(a, w)),
            'gate': timed(lambda n=narrow: ops.activate(gates, silu, n)),
            'down, sum and norm': timed(
                lambda a=active, w=down: norm_of_sum(ops, sums, a, w, EPS)
            ),
        }
    difference = {
        'norm': _apart(_values(normed), _values(plain.norm(x, EPS, None, True))),
        'gate': _apart(_values(active), _values(plain.activate(gates, silu, True))),
        'gate and up': _apart(product(normed, gate_up), _values(normed) @ _values(gate_up).T),
        'down': _apart(product(active, down), _values(active) @ _values(down).T),
    }
    sums_in = {
        f'{part}, {"fast" if fast else "float32"}': _multiplied(y, weight, fast, timed)
        for part, y, weight in (('gate and up', normed, gate_up), ('down', active, down))
        for fast in (False, True)
    }
    return {'us': microseconds, 'sums': sums_in, 'difference': difference}


def _multiplied(
    x: Any, weight: Any, fast: bool, timed: Callable[[Callable[[], Any]], float]
) -> dict[str, float]:
    """Return what a product in 8 bits takes, and how far it is from float32's."""

    def multiply() -> Tensor:
        return torch._scaled_mm(
            x.codes, weight.codes.T, x.scale[:, None], weight.scale[None],
            out_dtype=torch.bfloat16, use_fast_accum=fast,
        )

    microseconds, (rows, depth) = timed(multiply), x.codes.shape
    return {
        'us': microseconds,
        'TFLOP_per_s': 2e-6 * rows * depth * len(weight) / microseconds,
        'difference': _apart(multiply(), _values(x) @ _values(weight).T),
    }


def _values(matrix: Matrix) -> Tensor:
    return matrix.dequantised() if isinstance(matrix, Quantised) else matrix.float()


def _apart(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.float() - theirs).norm() / theirs.norm())


if __name__ == '__main__':
    sys.exit(main())
