# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Every Triton kernel in Triton's interpreter against its definition in plain torch.

Run with TRITON_INTERPRET=1; prints one JSON object, name -> largest difference. Matrices in 8 bits
are compared before their codes are rounded, at which Triton's interpreter drops a carry into the
exponent.
"""

from __future__ import annotations

import json

import numpy as np
import torch

from vla_deploy.backends import quantised
from vla_deploy.backends.torch_ops import (
    ALL,
    CAUSAL,
    FIRST_APART,
    LAST_APART,
    Heads,
    Ops,
    TorchOps,
    Turn,
)
from vla_deploy.backends.triton_ops import TritonOps
from vla_deploy.backends.tuning import LIBRARY, Config, Tuning

TOKENS, WIDTH, NARROW, WIDE, PREFIX = 20, 96, 80, 176, 40
COUNTS = {'whole': 1, 'split': 3, 'blocks of rows': 8, 'library': 8}  # observations at a time
LEFT = 24  # columns of the last product, which no library takes
HEADS = Heads(6, 2, 32)
EPS = 1e-5
CONFIGS = {
    'whole': {
        'linear': Config(0, 16, 32, 1, 4, 2),
        'pair': Config(0, 16, 32, 1, 4, 2),
        'attention': Config(16, 16, 0, 1, 4, 1),
    },
    'split': {
        'linear': Config(0, 32, 32, 4, 4, 2),
        'pair': Config(0, 16, 64, 1, 4, 2),
        'attention': Config(32, 16, 0, 4, 4, 1),
    },
    'blocks of rows': {
        'linear': Config(64, 32, 32, 2, 4, 2),
        'pair': Config(128, 16, 32, 1, 4, 2),
        'attention': Config(16, 16, 0, 2, 4, 1),
    },
    'library': {
        'linear': LIBRARY, 'pair': LIBRARY, 'attention': Config(32, 16, 0, 1, 4, 1),
        'left': Config(64, 16, 32, 1, 4, 2),
    },
}


class Fixed(Tuning):
    """One configuration for each kind of kernel."""

    def __init__(self, configs: dict[str, Config]) -> None:
        super().__init__()
        self._fixed = configs

    def get(self, key, kind, sizes, dtype):
        left = kind == 'linear' and sizes[1] == LEFT and 'left' in self._fixed
        return self._fixed['left' if left else kind]


def normal(*shape: int) -> torch.Tensor:
    """Return random numbers whose products over the last axis stay near 1."""
    return torch.randn(*shape) / (shape[-1] ** 0.5 if len(shape) > 1 else 1.0)


def differences(configs: dict[str, Config], count: int) -> dict[str, float]:
    """Return the largest difference of each operation, for `count` observations."""
    plain, rows_of_all = TorchOps(), count * TOKENS
    fused = TritonOps(torch.device('cpu'), torch.float32, Fixed(configs), overlap=False)
    found: dict[str, float] = {}

    def compare(name: str, ours: torch.Tensor, theirs: torch.Tensor) -> None:
        # of numpy, whose maximum of anything and NaN is NaN
        found[name] = float(np.maximum(found.get(name, 0.0), float((ours - theirs).abs().max())))

    both = (plain, fused)
    x, bias, scale = torch.randn(rows_of_all, NARROW), normal(WIDTH), 1 + normal(WIDTH)
    weight, wide = normal(WIDTH, NARROW), normal(WIDTH, WIDE)
    compare('linear', *(ops.linear(x, weight, bias) for ops in both))
    rows = [ops.enter(x, weight, bias, scale) for ops in both]
    compare('enter', *(r.scaled for r in rows))
    bare = [ops.enter(x[:count], weight, bias, None) for ops in both]
    other = TritonOps(torch.device('cpu'), torch.float32, Fixed(CONFIGS['split']), overlap=False)
    joined = [
        ops.join(first, entering.enter(x, weight, bias, None), count)
        for ops, first, entering in zip(both, bare, (plain, other), strict=True)
    ]
    update = torch.randn(rows_of_all, WIDE)
    rows = [
        ops.add(r, update, wide, scale, scale) for ops, r in zip(both, rows, strict=True)
    ]
    compare('add', *(r.hidden for r in rows))
    _heads(compare, plain, fused, rows, count)
    gates, gate_bias = normal(2 * 64, WIDTH), normal(2 * 64)
    out, out_bias, dt = normal(LEFT, WIDTH), normal(LEFT), torch.full((LEFT,), -0.1)
    for index, silu in enumerate((True, False)):
        for given in (rows, joined):
            compare('glu', *(o.glu(r, gates, gate_bias, EPS, silu)
                             for o, r in zip(both, given, strict=True)))
        state = torch.randn(rows_of_all, LEFT)
        left = [o.leave(r, out, out_bias, EPS, state, dt)
                for o, r in zip(both, rows, strict=True)]
        compare('leave', *(pair[index] for pair in left))
        product = torch.randn(rows_of_all, 200)
        compare('activate', *(ops.activate(product, silu) for ops in both))
        product[0] = 0.0
        _narrow(compare, 'activate', *(ops.activate(product, silu, narrow=True) for ops in both))

    def moved(ops: Ops, given: torch.Tensor) -> torch.Tensor:
        return ops.leave(ops.enter(given, weight, bias, None), out, out_bias, EPS, state, dt)[0]

    first, again = fused.recorded(lambda: moved(fused, x))
    if again is not None:  # no product was left to a library
        following, last = torch.randn_like(x), torch.empty_like(first)
        again([(x, following), (first, last)])
        compare('again', moved(plain, following), last)
    assert (again is None) == (LIBRARY in configs.values())
    for parts in (None, torch.randn(3, rows_of_all, NARROW)):
        streams = [x.clone(), x.clone()]
        compare('norm', *(o.norm(s, EPS, parts) for o, s in zip(both, streams, strict=True)))
        compare('norm x', *streams)
        narrow = [o.norm(s, EPS, narrow=True) for o, s in zip(both, streams, strict=True)]
        _narrow(compare, 'norm', *narrow)
    streams = [x.clone(), x.clone()]
    vectors = [torch.randn(NARROW) for _ in range(3)]
    for updated in (None, torch.randn(rows_of_all, NARROW)):
        added = [
            o.add_norm(s, updated, None if updated is None else vectors[0], *vectors[1:], EPS)
            for o, s in zip(both, streams, strict=True)
        ]
        compare('add_norm', *added)
        compare('add_norm x', *streams)
    return found


def _narrow(compare, name, plain, fused) -> None:
    """Compare matrices in 8 bits: what they are, and of their largest codes."""
    compare(f'{name} narrow', plain.dequantised(), fused.dequantised())
    compare(f'{name} codes', *(m.codes.float().abs().amax(1) / 448 for m in (plain, fused)))
    compare(f'{name} scales', plain.scale, fused.scale)


def _heads(compare, plain, fused, rows, count) -> None:
    """Compare projection, rotation and attention."""
    places, own = PREFIX + TOKENS, torch.arange(count, dtype=torch.int32)
    turn = Turn(*torch.randn(2, count * places, 16))
    first = places * own
    offset = first + 11 - own
    weight, bias = normal(HEADS.rows, WIDTH), normal(HEADS.rows)
    caches = [[torch.zeros(count * places, 2, 32) for _ in range(2)] for _ in range(2)]
    queries = [
        ops.qkv(r, weight, bias, EPS, HEADS, turn, offset, *cache)
        for ops, r, cache in zip((plain, fused), rows, caches, strict=True)
    ]
    compare('qkv', *queries)
    for name, pair in zip(('keys', 'values'), zip(*caches, strict=True), strict=True):
        compare(name, *pair)
    alone = HEADS._replace(kv=0)
    only = [
        ops.qkv(r, weight[: 6 * 32], None, EPS, alone, turn, offset, *cache)
        for ops, r, cache in zip((plain, fused), rows, caches, strict=True)
    ]
    compare('queries', *only)
    query = queries[1].contiguous()
    keys, values = torch.randn(2, count * places, 2, 32)
    for mode, extra, length in (
        (ALL, 0, 17), (ALL, TOKENS, 17), (CAUSAL, TOKENS, 17), (LAST_APART, 0, TOKENS),
        (FIRST_APART, TOKENS, 17),
    ):
        seen = length - own
        compare(f'attend {mode}', *(
            ops.attend(query, keys, values, seen, extra, mode) for ops in (plain, fused)
        ))
    for keys_only in (False, True):
        product = torch.randn(count * PREFIX, 4 * 32 if keys_only else HEADS.rows)
        turned = [
            ops.rope(product, HEADS, turn, first, *cache, keys_only)
            for ops, cache in zip((plain, fused), caches, strict=True)
        ]
        if not keys_only:
            compare('rope', *turned)
        for pair in zip(*caches, strict=True):
            compare('rope keys', *pair)


if __name__ == '__main__':
    torch.manual_seed(0)
    quantised.CODES = torch.float32
    found_of = {name: differences(configs, COUNTS[name]) for name, configs in CONFIGS.items()}
    print(json.dumps(found_of))
