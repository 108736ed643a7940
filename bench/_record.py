# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: where the figures go, and on what machine they were taken."""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / 'build' / 'bench'


def parser(description: str, name: str) -> argparse.ArgumentParser:
    """Return a parser that knows the output file, build/bench/<name>.json by default."""
    result = argparse.ArgumentParser(description=description.splitlines()[0])
    result.add_argument('output', nargs='?', type=Path, default=FOLDER / f'{name}.json')
    return result


def write(path: Path, figures: dict[str, Any]) -> None:
    """Write the figures beside what they were measured on."""
    machine = {
        'cpus': os.cpu_count(),
        'processor': platform.processor() or platform.machine(),
        'python': platform.python_version(),
        'load_average_1_min': os.getloadavg()[0],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({'machine': machine, **figures}, indent=2) + '\n')
