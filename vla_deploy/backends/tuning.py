# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Which block sizes a kernel runs with: measured once on a card, then read from a file.

The package brings tables for cards that it was measured on (`tuned/<card>.json`). What a table
lacks is measured when a bundle is loaded and kept in the cache folder, so that the next start
measures nothing; with other kernels, another Triton, torch or driver it is measured anew.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
import warnings
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import torch

from vla_deploy.core import strict
from vla_deploy.files import write_bytes
from vla_deploy.pipeline.backend import PolicyError
from vla_deploy.share import cache_folder

HERE = Path(__file__).parent
SHIPPED = HERE / 'tuned'
DRIVER = Path('/proc/driver/nvidia/version')
COUNTS = {'attention': (4, 5), 'linear': (3,), 'pair': (4,)}  # of sizes, by kind of kernel
NOT_A_TABLE = (OSError, ValueError, TypeError, AttributeError)
HOPPERS_SHARED_MEMORY_BYTES = 227 << 10  # of a program; cards have from 99 KiB
SHARE_OF_BLOCKS = 0.9  # of that; the rest is for what a kernel keeps beside its blocks
MIN_DEPTH = 256  # of each part of a sum
DEPTHS_AND_STAGES = (
    (64, 4), (64, 6), (128, 3), (128, 4), (256, 3), (128, 6), (256, 4), (512, 2), (64, 12),
    (128, 8),
)
KEYS_WARPS_STAGES = (
    (64, 4, 2), (32, 4, 3), (64, 8, 2), (128, 8, 2), (128, 8, 3), (128, 4, 3), (256, 8, 2),
    (512, 8, 1), (128, 8, 1), (64, 4, 3), (64, 4, 5), (128, 2, 3),
)
PROGRAMS = (40, 600)  # so many programs at least and at most: a card has 100 to 150 processors
LEAST_ROWS, ONE_BLOCK = 64, 128  # of a block: a matrix instruction takes 64 at least
# where rows of several observations are several blocks
WIDE_BLOCKS = ((64, 32, 4), (64, 64, 4), (64, 128, 4), (128, 64, 8), (128, 128, 8), (128, 256, 8))
WIDE_DEPTHS_AND_STAGES = ((64, 4), (128, 3))
WIDE_KEYS_WARPS_STAGES = (
    (32, 4, 2), (64, 4, 2), (32, 4, 3), (64, 8, 2), (64, 4, 3), (128, 4, 3), (128, 8, 2),
)
WIDE_PROGRAMS = (80, 300)
LARGE_PRODUCT = 1 << 20  # weights, from which cuBLAS is worth a kernel more


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of a kernel's blocks: `rows` of queries, or of a product where not all are one block
    (0: all), `columns` of the result, `depth` of the sum at a time, in how many parts it is taken,
    warps, and loads in flight."""

    rows: int
    columns: int
    depth: int
    split: int
    warps: int
    stages: int


SMALL_ATTENTION = Config(rows=16, columns=16, depth=0, split=1, warps=4, stages=1)
LIBRARY = Config(rows=0, columns=0, depth=0, split=1, warps=4, stages=1)


def by_library(config: Config) -> bool:
    """Say whether a product is left to cuBLAS, and a kernel of one row a program ends it."""
    return config.columns == 0


def padded_rows(rows: int) -> int:
    """Return the rows of all blocks: of one, where it can hold them."""
    if rows > ONE_BLOCK:
        return -(-rows // ONE_BLOCK) * ONE_BLOCK
    return max(LEAST_ROWS, 1 << (rows - 1).bit_length())


class Tuning:
    """Configurations by kernel and sizes. `changed` says that some were measured."""

    def __init__(self, configs: dict[str, Config] | None = None) -> None:
        self._configs = dict(configs or {})
        self.timings: dict[str, list[tuple[float, Config]]] = {}
        self.calls: dict[str, int] = {}

    @property
    def changed(self) -> bool:
        """Say whether there is something to save."""
        return bool(self.timings)

    def knows(self, key: str) -> bool:
        """Say whether a kernel has a configuration for its sizes."""
        return key in self._configs

    def get(self, key: str, kind: str, sizes: Sequence[int], dtype: torch.dtype) -> Config:
        """Return a kernel's configuration, or one that works on any card."""
        return self._configs.get(key) or default(kind, sizes, dtype)

    def set(self, key: str, timed: list[tuple[float, Config]]) -> None:
        """Keep the first of the measured configurations, and what all took in milliseconds."""
        self._configs[key] = timed[0][1]
        self.timings[key] = timed

    def save(self, path: Path) -> None:
        """Write what was measured as JSON, beside what others did meanwhile; raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            configs = _table(path) if path.is_file() else {}
        except NOT_A_TABLE:
            configs = {}
        configs |= {key: self._configs[key] for key in self.timings}
        rows = {key: list(dataclasses.astuple(c)) for key, c in sorted(configs.items())}
        lines = [f'{json.dumps(key)}: {json.dumps(row)}' for key, row in rows.items()]
        write_bytes(path, ('{\n' + ',\n'.join(lines) + '\n}\n').encode())


def load_tuning(card: str, dtype: torch.dtype) -> Tuning:
    """Return what is known of a card: the package's table, and over it the cache's. What kernels
    cannot run with is left out, and so measured.

    Raises PolicyError for a file that does not hold such a table.
    """
    configs = {}
    for path in (SHIPPED / f'{_name(card, dtype)}.json', cache_path(card, dtype)):
        if path.is_file():
            try:
                configs |= {k: c for k, c in _table(path).items() if _possible(k, c, dtype)}
            except NOT_A_TABLE as error:
                raise PolicyError(
                    f'{path}: is not a table of measured kernels ({error}); remove it, and they '
                    'are measured again'
                ) from error
    return Tuning(configs)


def _possible(key: str, config: Config, dtype: torch.dtype) -> bool:
    """Say whether a configuration is one of those that would be measured for a key."""
    kind, *words = key.split('-')
    sizes = [int(word) for word in words if word.isdecimal()]
    known = len(sizes) == len(words) and len(sizes) in COUNTS.get(kind, ()) and min(sizes) > 0
    return known and config in candidates(kind, sizes, dtype)


def _table(path: Path) -> dict[str, Config]:
    rows = json.loads(path.read_text(encoding='utf-8'))
    names = [field.name for field in dataclasses.fields(Config)]
    return {
        key: strict.from_mapping(Config, dict(zip(names, row, strict=True)), key)
        for key, row in rows.items()
    }


def keep_tuning(tuning: Tuning, path: Path) -> None:
    """Save what was measured; where that cannot be, warn that each start will measure again."""
    try:
        tuning.save(path)
    except OSError as error:
        warnings.warn(
            f'{path}: cannot be written ({error.strerror}), so that each start measures the '
            'kernels again; set VLA_DEPLOY_CACHE to a folder that can',
            stacklevel=2,
        )


def cache_path(card: str, dtype: torch.dtype) -> Path:
    """Return the file of measured configurations in `$VLA_DEPLOY_CACHE` or the user's cache."""
    return cache_folder() / 'tuned' / f'{_name(card, dtype)}_{_measured_with()}.json'


@functools.cache
def _measured_with() -> str:
    """Return a short name for what else the times depend on: the kernels, what compiles them, the
    cuBLAS that comes with torch, and the driver."""
    try:
        triton = metadata.version('triton')
    except metadata.PackageNotFoundError:
        triton = ''
    driver = DRIVER.read_text(encoding='utf-8') if DRIVER.is_file() else ''
    told = hashlib.sha256('\n'.join((torch.__version__, triton, driver)).encode())
    for source in sorted(HERE.glob('triton_*.py')):
        told.update(source.read_bytes())
    return told.hexdigest()[:12]


def default(kind: str, sizes: Sequence[int], dtype: torch.dtype) -> Config:
    """Return the configuration that is used where nothing was measured."""
    return candidates(kind, sizes, dtype)[0]


def candidates(kind: str, sizes: Sequence[int], dtype: torch.dtype) -> list[Config]:
    """Return configurations worth measuring for a kernel, the safest first."""
    size = torch.finfo(dtype).bits // 8
    if kind == 'attention':
        tokens, heads, kv, dim, *observations = sizes
        if observations:
            return _wide_attention(tokens * heads // kv, kv * observations[0], dim, size)
        return _attention(tokens * heads // kv, kv, dim, size)
    if sizes[0] > ONE_BLOCK:
        found = _wide_products(kind == 'pair', sizes, size)
        weights = sizes[1] * sizes[2] * (2 if kind == 'pair' else 1)
        # a product before its norm can be too large for float16
        library = dtype != torch.float16 and weights >= LARGE_PRODUCT
        return [*found, LIBRARY] if library else found
    return _products(kind == 'pair', sizes, size)


def _products(pair: bool, sizes: Sequence[int], size: int) -> list[Config]:
    """Return candidates for products of few rows: narrow blocks of columns, so that there are
    programs for all processors, or the sum in parts where there are not."""
    block, columns, depth, *unit = sizes
    found = []
    for width in (16, 32):
        if (unit and unit[0] % width) or width > max(16, columns):
            continue
        for split in (1,) if pair else (1, 2, 4, 8):
            programs = -(-columns // width) * split
            short = depth // split < MIN_DEPTH
            if split > 1 and (short or programs > PROGRAMS[1] // 2):
                continue
            can_split = not pair and depth // (2 * split) >= MIN_DEPTH
            if programs < PROGRAMS[0] and (width > 16 or can_split):
                continue
            for k, stages in DEPTHS_AND_STAGES:
                held = (block + width * (2 if pair else 1)) * k * size * stages
                if held <= _bytes_of_blocks() and k <= max(64, depth // split):
                    found.append(Config(0, width, k, split, 4, stages))
    return found or [Config(0, 16, 32, 1, 4, 2)]


def _wide_products(pair: bool, sizes: Sequence[int], size: int) -> list[Config]:
    """Return candidates for products of several blocks of rows."""
    rows, columns, depth, *unit = sizes
    found = []
    for block, width, warps in WIDE_BLOCKS:
        whole = width // 2 if pair else width  # both halves of a pair are in registers
        if (unit and unit[0] % whole) or whole > columns:
            continue
        for split in (1,) if pair else (1, 2, 4):
            programs = -(-columns // whole) * (rows // block) * split
            few, many = WIDE_PROGRAMS
            if depth // split < MIN_DEPTH or not few <= programs <= many:
                continue
            for k, stages in WIDE_DEPTHS_AND_STAGES:
                if (block + width) * k * size * stages <= _bytes_of_blocks():
                    found.append(Config(block, whole, k, split, warps, stages))
    # a small product, which has work for few processors anyway
    narrow = _products(pair, (WIDE_BLOCKS[0][0], *sizes[1:]), size)
    return found or [dataclasses.replace(own, rows=WIDE_BLOCKS[0][0]) for own in narrow]


def _wide_attention(rows: int, groups: int, dim: int, size: int) -> list[Config]:
    """Return candidates for attention of so many key heads of all observations."""
    found = []
    for block in (64, 128):
        blocks = -(-rows // block) * groups
        for split in (1, 2, 4, 8):
            few, many = WIDE_PROGRAMS
            if blocks * split < few or (split > 1 and blocks * split > many):
                continue
            found += _fitting(block, split, dim, size, WIDE_KEYS_WARPS_STAGES)
    return found or [SMALL_ATTENTION]


def _attention(rows: int, kv: int, dim: int, size: int) -> list[Config]:
    found = []
    for block in (16, 32, 64, 128):
        blocks = -(-rows // block) * kv
        if block > 16 and rows < block:
            continue
        for split in (1, 2, 4, 8, 16):
            programs = blocks * split
            if programs > PROGRAMS[1] or (split > 1 and programs > 320):
                continue
            if programs < PROGRAMS[0] and split < 16:
                continue
            found += _fitting(block, split, dim, size, KEYS_WARPS_STAGES)
    return found or [SMALL_ATTENTION]


def _fitting(
    block: int, split: int, dim: int, size: int, shapes: Sequence[tuple[int, int, int]]
) -> list[Config]:
    """Return the candidates for attention in blocks of so many rows, of keys, warps and stages
    whose memory and registers there are."""
    return [
        Config(block, keys, 0, split, warps, stages)
        for keys, warps, stages in shapes
        if dim * size * (block + 2 * keys * stages) <= _bytes_of_blocks()
        and block * dim <= 128 * 128 * warps // 4
    ]


@functools.cache
def _bytes_of_blocks() -> int:
    """Return how much shared memory blocks may take on the current card, on Hopper without one."""
    there = HOPPERS_SHARED_MEMORY_BYTES
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        there = properties.shared_memory_per_block_optin
    return int(there * SHARE_OF_BLOCKS)


def _name(card: str, dtype: torch.dtype) -> str:
    name = re.sub(r'[^a-z0-9]+', '_', card.lower()).strip('_')
    return f'{name}_{str(dtype).removeprefix("torch.")}'
