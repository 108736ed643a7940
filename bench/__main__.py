# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Run every benchmark, one after the other, each into build/bench/<name>.json.

    python -m bench
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def main() -> int:
    """Return 1 if one of them failed, after all have run."""
    failed = []
    for script in sorted(FOLDER.glob('[a-z]*.py')):
        print(f'[bench] {script.stem}', flush=True)
        if subprocess.run([sys.executable, str(script)], check=False).returncode:
            failed.append(script.stem)
    if failed:
        print(f'bench: failed: {", ".join(failed)}', file=sys.stderr)
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
