# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Lines that are chained by hash, so that no record can be changed, removed, doubled or moved.

A line is `{"record":BODY,"sha256":"HASH"}` and a newline. BODY is canonical JSON; HASH is the
SHA-256 over the hash of the line before, as text, and BODY. It is called the head while the line
is the last one: a cut tail shows to whoever knows the head.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from vla_deploy.core.canonical import canonical_json

NO_HEAD = '0' * 64
"""What the first line is chained to."""

_OPEN, _MIDDLE, _CLOSE = b'{"record":', b',"sha256":"', b'"}'
_TAIL = len(_MIDDLE) + 64 + len(_CLOSE)


class ChainError(ValueError):
    """A line is not the one that was written there; says in what."""


def seal(record: Mapping[str, Any], head: str) -> tuple[bytes, str]:
    """Return the line of a record, with its newline, and the new head."""
    body = canonical_json(record)
    new = _hash(head, body)
    return b''.join((_OPEN, body, _MIDDLE, new.encode('ascii'), _CLOSE, b'\n')), new


def unseal(line: bytes, head: str) -> tuple[dict[str, Any], str]:
    """Return the record of a line without its newline, and the new head; raises ChainError."""
    body = line[len(_OPEN):-_TAIL]
    if not body:
        raise ChainError('is too short')
    new = _hash(head, body)
    if line != b''.join((_OPEN, body, _MIDDLE, new.encode('ascii'), _CLOSE)):
        raise ChainError('does not continue the record before: its hash differs')
    record = json.loads(body)  # its bytes are those that were hashed
    if not isinstance(record, dict):
        raise ChainError('is not a mapping')
    return record, new


def _hash(head: str, body: bytes) -> str:
    digest = hashlib.sha256(head.encode('ascii'))
    digest.update(body)
    return digest.hexdigest()
