# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""How many tokens a policy has learnt, which its tokenizer does not say: that may know more."""

from __future__ import annotations

import json

from vla_deploy.files import FileError, read_bytes
from vla_deploy.pipeline.bundle import PARAMETERS, Bundle, BundleError

_EMBEDDING = '.embed_tokens.weight'
_MAX_TABLE_BYTES = 16 << 20


def embedding_rows(bundle: Bundle) -> int | None:
    """Return the number of rows of the token embedding, from the bundle's table of parameters.

    None where the bundle does not tell: those of older versions have no table. Raises BundleError
    for a table that is not readable.
    """
    if PARAMETERS not in bundle.receipt['files']:
        return None
    path = bundle.path / PARAMETERS
    try:
        tensors = json.loads(read_bytes(path, _MAX_TABLE_BYTES))['tensors']
        rows = [int(entry['shape'][0]) for name, entry in tensors.items()
                if name.endswith(_EMBEDDING)]  # fmt: skip
    except FileError as error:
        raise BundleError(str(error)) from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BundleError(f'{path}: is no table of parameters; export again') from error
    return min(rows, default=None)
