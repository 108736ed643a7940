# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The Triton kernels without a GPU: interpreted, and compiled for the cards that are served."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip('torch')
triton = pytest.importorskip('triton', reason='Triton comes with a CUDA build of torch')
numpy = pytest.importorskip('numpy')

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from vla_deploy.backends import triton_attention, triton_products, triton_rows  # noqa: E402
from vla_deploy.backends.torch_requirements import SMALLEST_HEAD  # noqa: E402
from vla_deploy.backends.triton_launch import PLAIN, WIDE, WIDEST  # noqa: E402
from vla_deploy.backends.triton_ops import TritonOps  # noqa: E402
from vla_deploy.backends.tuning import Config, Tuning, default, padded_rows  # noqa: E402

FOLDER = Path(__file__).parent
TOLERANCE = 1e-4  # float32, values near 10
ASSEMBLERS = Path(triton.__file__).parent / 'backends' / 'nvidia' / 'bin'
CARDS = {80: 'sm_80', 89: 'sm_89', 90: 'sm_90a', 100: 'sm_100a'}
PDL_SINCE = 90
FLOAT8_SINCE = 89
BLACKWELL = 100
FLOAT32 = {'scales', 'squares', 'squares_in', 'squares_out', 'raw', 'partial', 'stats', 'cosine',
           'sine'}
INT32 = {'counters', 'offset', 'length'}
FLAGS = {'BIAS': False, 'SILU': False, 'GATE': True, 'RESIDUAL': True, 'SQUARES': True,
         'SCALE': True, 'RAW': False, 'EXACT': False}


def version(package):
    """Return the first two numbers of a package's version."""
    return tuple(map(int, package.__version__.split('.')[:2]))


def linear(n, k, count=1):
    """Return the linear kernel and its constants for 50 rows of each of `count` observations at
    its default configuration."""
    rows = padded_rows(50 * count)
    c = default('linear', (rows, n, k), torch.bfloat16)
    return triton_products.linear_kernel, c, {
        'M': 50 * count, 'N': n, 'K': k, 'BLOCKS': 0, 'PADDED': 1, 'ROWS': rows,
        'BM': c.rows or rows, 'BN': c.columns, 'BK': c.depth, 'SPLIT': c.split, 'LINES': 16,
    }


def pair(features, k, unit, rope, count=1):
    """Return the pair kernel likewise."""
    rows = padded_rows(50 * count)
    c = default('pair', (rows, features, k, unit), torch.bfloat16)
    return triton_products.pair_kernel, c, {
        'M': 50 * count, 'K': k, 'BLOCKS': 64, 'PADDED': 64, 'ROPE': rope, 'FEATURES': features,
        'HEADS': 8, 'KV_HEADS': 1, 'HEAD_DIM': 2 * unit if rope else 0, 'BATCH': count,
        'ROWS': rows, 'BM': c.rows or rows, 'BN': c.columns, 'BK': c.depth, 'LINES': 16,
    }


def attention(tokens, heads, kv, dim, mode, count=1):
    """Return the attention kernel likewise."""
    several = (count,) if count > 1 else ()
    c = default('attention', (tokens, heads, kv, dim, *several), torch.bfloat16)
    return triton_attention.attention_kernel, c, {
        'TOKENS': tokens, 'EXTRA': 0, 'MODE': mode, 'HEADS': heads, 'KV_HEADS': kv,
        'HEAD_DIM': dim, 'BATCH': count, 'CACHE': tokens + 900, 'BM': c.rows, 'BN': c.columns,
        'SPLIT': c.split, 'PREFETCH': tokens <= 64,
    }


def norm(width, narrow):
    """Return the norm of a product's rows and what it is added to, likewise."""
    return triton_rows.norm_kernel, PLAIN, {
        'WIDTH': width, 'BLOCK': triton.next_power_of_2(width), 'PARTS': 1, 'TOTAL': 816 * width,
        'QUANTISE': narrow,
    }


def gate(features, narrow, config):
    """Return the gate of a language layer's MLP likewise."""
    block = triton.next_power_of_2(features)
    return triton_rows.glu_kernel, config, {
        'FEATURES': features, 'BLOCK': block if narrow else min(block, 2048), 'K': 0, 'BLOCKS': 0,
        'PADDED': 1, 'ROWS': 0, 'QUANTISE': narrow,
    }


CASES = {
    'pi norm': norm(2048, False),
    'pi norm in 8 bits': norm(2048, True),
    'pi gate': gate(16384, False, WIDE),
    'pi gate in 8 bits': gate(16384, True, WIDEST),
    'smolvla gate in 8 bits': gate(2560, True, WIDEST),
    'pi out': linear(1024, 2048),
    'pi down': linear(1024, 4096),
    'smolvla down': linear(720, 2048),
    'pi qkv': pair(1280, 1024, 128, True),
    'pi gate and up': pair(4096, 1024, 4096, False),
    'smolvla gate and up': pair(2048, 720, 2048, False),
    'pi step': attention(50, 8, 1, 256, 0),
    'pi prefix': attention(816, 8, 1, 256, 0),
    'smolvla step': attention(50, 15, 5, 64, 1),
    'smolvla prefix': attention(241, 15, 5, 64, 2),
    'smallest step': attention(50, 4, 2, SMALLEST_HEAD, 1),
    'smallest qkv': pair(128, 96, SMALLEST_HEAD // 2, True),
    'eight of pi down': linear(1024, 4096, 8),
    'eight of pi leave': linear(32, 1024, 8),
    'eight of pi qkv': pair(1280, 1024, 128, True, 8),
    'eight of pi gate and up': pair(4096, 1024, 4096, False, 8),
    'eight of pi step': attention(50, 8, 1, 256, 0, 8),
    'eight of pi prefix': attention(816, 8, 1, 256, 0, 8),
    'eight of smolvla prefix': attention(241, 15, 5, 64, 2, 8),
}


@pytest.mark.skipif(
    version(numpy) >= (2, 4) and version(triton) < (3, 7),
    reason='the interpreter of Triton before 3.7 does not run with numpy 2.4 and later',
)
def test_when_interpreted_expect_every_kernel_to_compute_its_definition():
    found = subprocess.run(
        [sys.executable, str(FOLDER / 'triton_cases.py')],
        check=True, capture_output=True, text=True,
        env={**os.environ, 'TRITON_INTERPRET': '1', 'PYTHONPATH': str(FOLDER.parents[1])},
    )
    differences = json.loads(found.stdout)
    assert set(differences) == {'whole', 'split', 'blocks of rows', 'library'}
    for configs, figures in differences.items():
        assert len(figures) >= 16
        assert {n: d for n, d in figures.items() if not d < TOLERANCE} == {}, configs


@pytest.mark.parametrize(('case', 'capability'), [
    (case, card) for case, (_, _, constants) in CASES.items() for card in CARDS
    if card >= FLOAT8_SINCE or not constants.get('QUANTISE')
])  # fmt: skip
def test_when_compiled_for_a_card_expect_no_register_spilled(case, capability, tmp_path):
    kernel, config, constants = CASES[case]
    constants = {**FLAGS, **constants, 'PDL': capability >= PDL_SINCE}
    names = kernel.arg_names
    signature, fixed, aligned = {}, {}, {}
    for index, name in enumerate(names):
        if name in constants:
            signature[name], fixed[(index,)] = 'constexpr', constants[name]
        elif name in ('eps', 'scale') and not (name == 'scale' and 'scaled' in names):
            signature[name] = 'fp32'
        else:
            kind = 'fp32' if name in FLOAT32 else 'i32' if name in INT32 else 'bf16'
            if name == 'y' and constants.get('QUANTISE'):
                kind = 'fp8e4nv'
            signature[name] = f'*{kind}'
            aligned[(index,)] = [['tt.divisibility', 16]]
    compiled = triton.compile(
        ASTSource(kernel, signature, fixed, aligned),
        target=GPUTarget('cuda', capability, 32),
        options={'num_warps': config.warps, 'num_stages': config.stages},
    )
    ptx = tmp_path / 'kernel.ptx'
    ptx.write_text(compiled.asm['ptx'])
    assembler = ASSEMBLERS / ('ptxas-blackwell' if capability >= BLACKWELL else 'ptxas')
    report = subprocess.run(
        [assembler, '-v', f'--gpu-name={CARDS[capability]}', ptx, '-o', tmp_path / 'kernel.cubin'],
        check=True, capture_output=True, text=True,
    ).stderr
    spilled = re.findall(r'(\d+) bytes spill (?:stores|loads)', report)
    assert spilled
    assert set(spilled) == {'0'}


def test_when_a_kernel_is_launched_again_expect_what_was_compiled_by_its_types():
    ops = TritonOps(torch.device('cpu'), torch.bfloat16, Tuning(), overlap=False)
    ops.awake()
    compiled, launched, config = [], [], Config(1, 0, 0, 1, 4, 1)

    def find(_kernel, arguments, constants, _kinds):
        compiled.append((arguments[0].dtype, constants['WIDTH']))
        return lambda grid, given: launched.append((grid, given[1], compiled[-1]))

    ops._find, x = find, torch.zeros(64, dtype=torch.bfloat16)
    for argument, width in ((x, 8), (x, 8), (x[8:], 8), (x[1:], 8), (x.float(), 8), (x, 16)):
        ops._launch(object, (3, 2), config, (argument, 1e-5), WIDTH=width, PDL=False)
    half, single = torch.bfloat16, torch.float32
    assert compiled == [(half, 8), (half, 8), (single, 8), (half, 16)]
    assert [grid for grid, *_ in launched] == [(3, 2, 1)] * 6
