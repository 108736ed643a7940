# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Compare a family's pipeline with recorded reference cases and write what came out.

    python -m tools.export.evidence smolvla

Run it from the root of the repository after a change to any file that decides a number; a test
says when that is due.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import vla_deploy
from vla_deploy.export.build import ExportOptions, export_bundle
from vla_deploy.export.evidence import SOURCES, source_digests
from vla_deploy.export.golden import GOLDENS_OF, compare_golden, golden_dims
from vla_deploy.export.receipt import versions
from vla_deploy.files import write_bytes


def main(argv: Sequence[str] | None = None) -> int:
    """Write `vla_deploy/export/evidence/<family>.json`."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('family', choices=sorted(SOURCES))
    family = parser.parse_args(argv).family
    root = Path(__file__).parents[2]
    cases, reference = {}, {}
    for name in GOLDENS_OF[family]:
        folder = root / 'test' / 'goldens' / name
        with tempfile.TemporaryDirectory() as scratch:
            bundle = Path(scratch) / 'bundle'
            options = ExportOptions(folder / 'checkpoint', bundle, dims=golden_dims(folder))
            export_bundle(options, None, print)
            cases[name] = compare_golden(folder, bundle)
        reference = json.loads((folder / 'cases.json').read_text(encoding='utf-8'))['reference']
    evidence = {
        'family': family,
        'reference': {k: v for k, v in reference.items() if k != 'notes'},
        'cases': cases,
        'made_with': versions(),
        'sources': source_digests(family),
    }
    target = Path(vla_deploy.__file__).parent / 'export' / 'evidence' / f'{family}.json'
    text = json.dumps(evidence, indent=1, sort_keys=True) + '\n'
    write_bytes(target, text.encode('ascii'))
    print(target)
    return 0


if __name__ == '__main__':
    sys.exit(main())
