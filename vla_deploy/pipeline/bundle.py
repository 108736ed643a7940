# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Opening a bundle: every byte of every file is what its receipt says, or it is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vla_deploy.core.canonical import canonical_json, parse_canonical_json, without
from vla_deploy.core.contract import Contract, ContractError
from vla_deploy.files import FileError, read_bytes, read_yaml

CONTRACT = 'contract.yaml'
PREFIX_GRAPH = 'prefix.onnx'
STEP_GRAPH = 'step.onnx'
WEIGHTS = 'weights.bin'
NORMALIZER = 'normalizer.safetensors'
TOKENIZER = 'tokenizer.json'
FIXTURES = 'fixtures.npz'
RECEIPT = 'receipt.json'
PARAMETERS = 'parameters.json'  # bundles of older versions lack it
REPORT = 'VERIFICATION.md'
# Folder of engines that a serving machine makes of the graphs, which no receipt can list.
ENGINES = 'engines'
FILES = (
    CONTRACT, PREFIX_GRAPH, STEP_GRAPH, WEIGHTS, NORMALIZER, TOKENIZER, FIXTURES, RECEIPT, REPORT
)


@dataclasses.dataclass(frozen=True)
class Graphs:
    """Names of the graphs of one precision and of the weights that all of them refer to."""

    prefix: str = PREFIX_GRAPH
    step: str = STEP_GRAPH
    unrolled: str = 'unrolled.onnx'
    loop: str = 'loop.onnx'
    weights: str = WEIGHTS


def _graphs(mark: str, weights: str) -> Graphs:
    prefix, step, unrolled, loop = (
        f'{part}.{mark}.onnx' for part in ('prefix', 'step', 'unrolled', 'loop')
    )
    return Graphs(prefix, step, unrolled, loop, weights)


# Of each precision, what a bundle may hold; FILES are in every bundle.
GRAPHS = {
    'fp32': Graphs(),
    'bf16': _graphs('bf16', 'weights.bf16.bin'),
    'fp16': _graphs('fp16', 'weights.fp16.bin'),
    'int8': _graphs('int8', 'weights.int8.bin'),
}
# Of how products of the float32 graphs are taken.
TF32 = 'tf32'
# Of a backend that needs no graphs.
FP8 = 'fp8'
# Of a precision and a provider that lacks its kernels, or has better ones: other graphs over the
# same weights.
_GRAPHS_ON = {
    ('bf16', 'cpu'): _graphs('bf16.cpu', 'weights.bf16.bin'),
    ('fp16', 'cpu'): _graphs('fp16.cpu', 'weights.fp16.bin'),
    ('fp32', 'cuda'): _graphs('cuda', WEIGHTS),
    ('bf16', 'cuda'): _graphs('bf16.cuda', 'weights.bf16.bin'),
    ('fp16', 'cuda'): _graphs('fp16.cuda', 'weights.fp16.bin'),
}
VARIANTS = ('split', 'unrolled', 'loop')
MAX_RECEIPT_BYTES = 16 << 20
HASH_BLOCK_BYTES = 1 << 20


class BundleError(ValueError):
    """A bundle is not whole or not what its receipt says; the message names the file."""


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A verified bundle folder. `model_sha256` is the self-digest of its receipt."""

    path: Path
    contract: Contract
    receipt: Mapping[str, Any]
    model_sha256: str


def open_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Verify a bundle folder against its receipt and read its contract.

    Raises BundleError, which names the file that is missing, extra, changed or not readable.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise BundleError(f'{folder}: is not a folder')
    receipt = _read_receipt(folder / RECEIPT)
    _verify_files(folder, receipt['files'])
    try:
        contract = Contract.from_mapping(read_yaml(folder / CONTRACT))
    except ContractError as error:
        raise BundleError(f'{folder / CONTRACT}: {error}') from error
    except FileError as error:
        raise BundleError(str(error)) from error
    return Bundle(folder, contract, receipt, receipt['self_sha256'])


def graphs_of(precision: str, provider: str) -> Graphs:
    """Return the names of the graphs that a provider runs at a precision; at tf32 those of fp32."""
    precision = 'fp32' if precision == TF32 else precision
    return _GRAPHS_ON.get((precision, provider), GRAPHS[precision])


def threshold_name(precision: str) -> str:
    """Return the receipt's key for the largest error of the self-test at a precision."""
    return 'target_max_abs' if precision == 'fp32' else f'{precision}_target_max_abs'


def seal_receipt(receipt: Mapping[str, Any]) -> bytes:
    """Return the bytes of receipt.json: `receipt` with its `self_sha256`, canonical JSON."""
    body = without(receipt, 'self_sha256')
    return canonical_json({**body, 'self_sha256': _digest(body)})


def sha256_of_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file in hexadecimal, read in blocks; raises OSError."""
    digest = hashlib.sha256()
    block = bytearray(HASH_BLOCK_BYTES)
    view = memoryview(block)
    with open(path, 'rb', buffering=0) as file:
        while count := file.readinto(block):
            digest.update(view[:count])
    return digest.hexdigest()


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(body)).hexdigest()


def _read_receipt(path: Path) -> dict[str, Any]:
    try:
        receipt = parse_canonical_json(read_bytes(path, MAX_RECEIPT_BYTES))
    except FileError as error:
        raise BundleError(f'{error}; a bundle is a folder that export wrote') from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f'{path}: has been changed: {error}') from error
    if not isinstance(receipt, dict) or receipt.get('self_sha256') != _digest(
        without(receipt, 'self_sha256')
    ):
        raise BundleError(f'{path}: has been changed: self_sha256 does not match')
    files = receipt.get('files')
    if not isinstance(files, dict) or not all(isinstance(v, str) for v in files.values()):
        raise BundleError(f'{path}: has no list of files')
    absent = sorted(set(FILES) - set(files) - {RECEIPT})
    if absent:
        raise BundleError(f'{path}: does not list {", ".join(absent)}')
    return receipt


def _verify_files(folder: Path, files: Mapping[str, str]) -> None:
    present = {entry.name for entry in os.scandir(folder)} - {RECEIPT, ENGINES}
    for name in sorted(set(files) - present):
        raise BundleError(f'{folder / name}: is missing from the bundle')
    for name in sorted(present - set(files)):
        raise BundleError(f'{folder / name}: is not listed in {RECEIPT}; remove it or export again')
    for name, expected in sorted(files.items()):
        try:
            actual = sha256_of_file(folder / name)
        except OSError as error:
            raise BundleError(f'{folder / name}: cannot be read: {error.strerror}') from error
        if actual != expected:
            raise BundleError(
                f'{folder / name}: has been changed: sha256 is {actual}, '
                f'but {RECEIPT} says {expected}'
            )
