# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What the tests of the package read: its own files, their declarations and imports."""

from __future__ import annotations

import ast
import json
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / 'requirements'
IGNORED_FOLDERS = {'.git', '.venv', 'build', 'install', 'log', '__pycache__', '.hypothesis',
                   '.mypy_cache', '.pytest_cache', '.ruff_cache'}  # fmt: skip


def source_files(pattern: str = '*') -> list[pathlib.Path]:
    """List the project's own files: what git tracks, or all but what is built in an archive."""
    if (ROOT / '.git').exists():
        command = ['git', '-c', f'safe.directory={ROOT}', 'ls-files', '-z']
        result = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        tracked = (ROOT / name for name in result.stdout.split('\0') if name)
        return sorted(path for path in tracked if path.is_file() and path.match(pattern))
    return sorted(
        path for path in ROOT.rglob(pattern)
        if path.is_file() and not IGNORED_FOLDERS & set(path.relative_to(ROOT).parts)
        and not any(part.endswith('.egg-info') for part in path.parts)
    )  # fmt: skip


def normalise(name: str) -> str:
    """Return the package index's spelling of a name (PEP 503)."""
    return re.sub(r'[-_.]+', '-', name).lower()


def locked(set_name: str) -> dict[str, list[str]]:
    """Return {package: its lines} of a lock."""
    text = (REQUIREMENTS / f'{set_name}.txt').read_text()
    entries: dict[str, list[str]] = {}
    for entry in re.split(r'\n(?=[^\s#])', text.strip()):
        lines = [line for line in entry.splitlines() if not line.startswith('#')]
        if lines:
            entries.setdefault(normalise(re.split(r'[^\w.-]', lines[0])[0]), []).extend(lines)
    return entries


def wanted(set_name: str) -> set[str]:
    """Return the names in a set's .in file."""
    lines = (REQUIREMENTS / f'{set_name}.in').read_text().splitlines()
    return {
        normalise(re.split(r'[^\w.-]', line)[0]) for line in lines if line and line[0] != '#'
    }


def set_names() -> list[str]:
    """Return the names of all requirement sets."""
    return sorted(path.stem for path in REQUIREMENTS.glob('*.in'))


def not_on_a_bare_machine() -> dict[str, dict[str, str]]:
    """Return {list: {name: reason}} of what is declared but not brought by the locks."""
    return yaml.safe_load((REQUIREMENTS / 'not_on_a_bare_machine.yaml').read_text())


def package_xml(folder: str = '.') -> ElementTree.Element:
    """Return the root element of a package.xml."""
    return ElementTree.parse(ROOT / folder / 'package.xml').getroot()


def declared_dependencies(folder: str = '.') -> set[str]:
    """Return every name that a package.xml depends on, in any way."""
    return {
        (element.text or '').strip()
        for element in package_xml(folder)
        if element.tag.endswith('depend')
    }


def setup_data() -> dict:
    """Return what setup.py declares, as setuptools understands it."""
    code = (
        'import json, distutils.core as core\n'
        "d = core.run_setup('setup.py', stop_after='init')\n"
        "print(json.dumps({'version': d.get_version(), 'email': d.get_maintainer_email(),"
        " 'license': d.get_license(), 'packages': d.packages,"
        " 'requires': list(d.install_requires), 'extras': dict(d.extras_require),"
        " 'scripts': d.entry_points['console_scripts']}))\n"
    )
    result = subprocess.run(
        [sys.executable, '-c', 'import setuptools\n' + code],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return json.loads(result.stdout.splitlines()[-1])


def imported_modules(path: pathlib.Path) -> set[str]:
    """Return the absolute names of all modules that a file imports, anywhere in it.

    `from a.b import c` counts as a.b and as a.b.c, since c may be a module.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(), filename=str(path))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                package = path.relative_to(ROOT).with_suffix('').parts[: -node.level]
                base = '.'.join([*package, *([base] if base else [])])
            names.add(base)
            names.update(f'{base}.{alias.name}' for alias in node.names)
    return names
