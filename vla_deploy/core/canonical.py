# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Canonical JSON: one byte sequence for one value, so that digests of it mean something."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def canonical_json(value: Any) -> bytes:
    """Return `value` as JSON: keys sorted, no spaces, ASCII only, no NaN, no trailing newline.

    Raises ValueError for NaN and infinities, TypeError for what JSON does not have.
    """
    return json.dumps(
        value, sort_keys=True, separators=(',', ':'), ensure_ascii=True, allow_nan=False
    ).encode('ascii')


def parse_canonical_json(data: bytes) -> Any:
    """Parse `data` and require that it is canonical, to the byte.

    Raises ValueError for duplicate keys and for any other bytes than `canonical_json` writes.
    """
    value = json.loads(data.decode('ascii'), object_pairs_hook=_without_duplicates)
    if canonical_json(value) != data:
        raise ValueError('is not canonical JSON (sorted keys, no spaces, ASCII)')
    return value


def without(mapping: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return a copy of `mapping` that lacks `key`."""
    return {k: v for k, v in mapping.items() if k != key}


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError('has a key twice')
    return mapping
