# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Write requirements/<set>.txt, pinned and hashed, from requirements/<set>.in.

    python3 tools/setup/lock.py [--set NAME ...] [--pip-option=OPTION ...]

pip itself resolves each set, in a dry run, once for each Python that the set serves (they must be
on the PATH as python3.10, python3.11 and python3.12); nothing is installed. The sets are resolved
in the order of SETS, each under the versions that the earlier ones chose, so that they fit into one
environment; a lock lists only what no earlier lock has. Where the Pythons differ in a version, the
line carries a marker. Sets that are not named keep the versions that their locks have.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile
from collections import defaultdict

ROOT = pathlib.Path(__file__).resolve().parents[2]
ALL_PYTHONS = ('3.10', '3.11', '3.12')
# set -> Pythons it is locked for.
SETS = {
    'bootstrap': ALL_PYTHONS,
    'build': ALL_PYTHONS,
    'serve': ALL_PYTHONS,
    'sim': ALL_PYTHONS,
    'data': ALL_PYTHONS,
    'dev': ALL_PYTHONS,
    'torch': ('3.11', '3.12'),
    'export': ('3.11', '3.12'),
    'ros': ('3.11', '3.12'),
}

Pins = dict[str, tuple[str, str]]  # normalised name -> (version, sha256)

# The CPU build of torch is not on the package index. Its digests are those that PyTorch's own index
# lists, https://download.pytorch.org/whl/cpu/torch/, for Linux on x86_64; there is none for 3.10.
# What it requires is named in export.in.
BY_HAND: dict[str, dict[str, Pins]] = {
    'torch': {
        python: {'torch': ('2.13.0+cpu', sha256)}
        for python, sha256 in {
            '3.11': '6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b',
            '3.12': '4ca4a9394b0c771238a4f73590fdbbc4debad85ed0fa63d026ae1b085da7d6e2',
        }.items()
    },
}


def normalise(name: str) -> str:
    """Return the package index's spelling of a name (PEP 503)."""
    return name.lower().replace('_', '-').replace('.', '-')


def resolve(set_name: str, python: str, earlier: Pins, pip_options: list[str]) -> Pins:
    """Let pip choose the set's versions for one Python, keeping the versions in `earlier`."""
    with tempfile.TemporaryDirectory() as folder:
        constraints = pathlib.Path(folder, 'constraints.txt')
        constraints.write_text(
            ''.join(
                f'{name}=={version}\n'
                for name, (version, _) in earlier.items()
                if name not in BY_HAND
            )
        )
        report = pathlib.Path(folder, 'report.json')
        command = [
            f'python{python}', '-m', 'pip', 'install', '--quiet', '--dry-run',
            '--ignore-installed', '--only-binary=:all:', '--no-binary=empy',
            '--report', str(report), '--constraint', str(constraints),
            '--requirement', str(ROOT / 'requirements' / f'{set_name}.in'), *pip_options,
        ]  # fmt: skip
        subprocess.run(command, check=True)
        items = json.loads(report.read_text())['install']
    return {
        normalise(item['metadata']['name']): (
            item['metadata']['version'],
            item['download_info']['archive_info']['hashes']['sha256'],
        )
        for item in items
    }


def locked(set_name: str, python: str) -> Pins:
    """Read what a set's lock has for one Python; of several digests the first."""
    text = (ROOT / 'requirements' / f'{set_name}.txt').read_text()
    found = re.findall(r'^(\S+)==(\S+)(?: ; (.*?))?((?: \\\n    --hash=\S+)+)$', text, re.MULTILINE)
    return {
        name: (version, hashes.split('sha256:')[1].split()[0])
        for name, version, marker, hashes in found
        if not marker or f'"{python}"' in marker
    }


def lock_lines(pins: dict[str, Pins]) -> list[str]:
    """Merge the choices of several Pythons (version -> pins) into requirement lines."""
    merged: dict[str, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for python, chosen in pins.items():
        for name, (version, sha256) in chosen.items():
            merged[name][version][python] = sha256
    lines = []
    for name in sorted(merged):
        for version, hashes in sorted(merged[name].items()):
            marker = ''
            if len(hashes) < len(pins):
                marker = ' ; ' + ' or '.join(f'python_version == "{p}"' for p in hashes)
            parts = [f'{name}=={version}{marker}']
            parts += [f'    --hash=sha256:{sha256}' for sha256 in sorted(set(hashes.values()))]
            lines.append(' \\\n'.join(parts))
    return lines


def main() -> int:
    """Lock the sets named on the command line, or all; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--set', action='append', choices=SETS, help='write only this set')
    parser.add_argument('--pip-option', action='append', default=[], help='passed on to pip')
    args = parser.parse_args()
    known: dict[str, Pins] = {python: {} for python in ALL_PYTHONS}
    for set_name, pythons in SETS.items():
        new: dict[str, Pins] = {}
        for python in pythons:
            if args.set and set_name not in args.set:
                known[python].update(locked(set_name, python))
                continue
            print(f'{set_name}: resolving for Python {python}', file=sys.stderr)
            if set_name in BY_HAND:
                pins = BY_HAND[set_name][python]
            else:
                pins = resolve(set_name, python, known[python], args.pip_option)
            new[python] = {n: pin for n, pin in pins.items() if n not in known[python]}
            known[python].update(new[python])
        if args.set and set_name not in args.set:
            continue
        text = '\n'.join([
            f'# Written by tools/setup/lock.py from {set_name}.in for Python '
            f'{", ".join(pythons)} on Linux x86_64: do not edit.',
            *lock_lines(new),
        ])
        (ROOT / 'requirements' / f'{set_name}.txt').write_text(text + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
