# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Make or complete the environment .venv/ from the hashed locks in requirements/.

    python3 tools/setup/environment.py run|all --origin wheels|<ROS distribution>

`wheels` brings ROS 2 Jazzy itself. With a sourced distribution .venv/ sees that install's packages,
and only what it lacks is added. Each set that is in place leaves a stamp with the digest of its
lock, so a second run installs nothing; another Python, place or origin makes the environment anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
VENV = ROOT / '.venv'
LOG = VENV / 'setup.log'
PYTHON = VENV / 'bin' / 'python'
TORCH_INDEX = 'https://download.pytorch.org/whl/cpu'
WHEELS = 'wheels'
# part of every stamp: raise it when what is done beside pip changes
RECIPE = '1'


class SetupError(Exception):
    """The environment cannot be made; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class RequirementSet:
    """One lock: the name of requirements/<name>.txt, what it is, and the size of its download."""

    name: str
    title: str
    megabytes: int


BOOTSTRAP = RequirementSet('bootstrap', 'pip and setuptools', 3)
ROS = RequirementSet('ros', 'ROS 2 Jazzy', 43)
SIM = RequirementSet('sim', 'MuJoCo and matplotlib', 35)
TORCH = RequirementSet('torch', 'PyTorch for the CPU', 192)
RUN_SETS = (
    BOOTSTRAP,
    RequirementSet('build', 'colcon and pytest', 21),
    ROS,
    RequirementSet('serve', 'ONNX Runtime and tokenizers', 40),
    SIM,
)
ALL_SETS = (
    *RUN_SETS,
    RequirementSet('data', 'Arrow and FFmpeg', 90),
    RequirementSet('dev', 'lint, types and tests', 29),
    TORCH,
    RequirementSet('export', 'ONNX', 12),
)


def digest(*parts: str) -> str:
    """Return a short name for the given texts."""
    return hashlib.sha256('\0'.join(parts).encode()).hexdigest()[:16]


def identity(origin: str) -> str:
    """Return what an environment must share with this call to be used again."""
    return digest(origin, sys.version, str(VENV))


def stamp_of(requirement_set: RequirementSet) -> tuple[pathlib.Path, str]:
    """Return the set's stamp file and the text it holds once the set is in place."""
    lock = (ROOT / 'requirements' / f'{requirement_set.name}.txt').read_text()
    return VENV / 'stamps' / requirement_set.name, digest(lock, RECIPE)


def is_in_place(requirement_set: RequirementSet) -> bool:
    """Return whether the lock as it is now has been installed."""
    path, text = stamp_of(requirement_set)
    return path.is_file() and path.read_text() == text


def call(command: list[str]) -> None:
    """Run a command into the log; raise SetupError with the log's end if it fails."""
    environment = {**os.environ, '_ROS_WHEELS_BOOTSTRAP_COMPLETE': '1', 'PYTHONNOUSERSITE': '1'}
    with LOG.open('ab') as log:
        log.write(f'$ {" ".join(command)}\n'.encode())
        log.flush()
        start = log.tell()
        result = subprocess.run(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    if result.returncode != 0:
        said = LOG.read_bytes()[start:].decode(errors='replace')
        tail = '\n'.join(said.splitlines()[-25:])
        raise SetupError(f'{tail}\nfailed: {" ".join(command[:6])} …; the whole log: {LOG}')


def create(origin: str) -> None:
    """Make an empty environment; with a ROS install, one that sees its packages."""
    if VENV.exists():
        shutil.rmtree(VENV)
    options = [] if origin == WHEELS else ['--system-site-packages']
    VENV.mkdir()
    (VENV / 'COLCON_IGNORE').touch()
    (VENV / 'stamps').mkdir()
    call([sys.executable, '-m', 'venv', *options, str(VENV)])
    if origin != WHEELS:
        result = subprocess.run([str(PYTHON), '-c', 'import rclpy'], capture_output=True, text=True)
        if result.returncode != 0:
            raise SetupError(
                f'the sourced ROS 2 ({origin}) cannot be imported from an environment of '
                f'{sys.executable}: {result.stderr.strip().splitlines()[-1]}. Open a fresh shell '
                'and source that install, or none.'
            )
    (VENV / 'identity').write_text(identity(origin))
    (VENV / 'origin').write_text(f'{origin}\n')


def locked_entries(lock: str) -> dict[str, str]:
    """Split a lock into {package name: its lines}."""
    entries: dict[str, str] = {}
    for entry in re.split(r'\n(?=[^\s#])', lock.strip()):
        name, separator, _ = entry.partition('==')
        if separator and not name.startswith('#'):
            # two lines of one name differ in their markers
            entries[name] = f'{entries[name]}\n{entry}' if name in entries else entry
    return entries


def only_missing(requirement_set: RequirementSet) -> pathlib.Path:
    """Write the part of a lock that the sourced ROS install does not already bring."""
    lock = (ROOT / 'requirements' / f'{requirement_set.name}.txt').read_text()
    entries = locked_entries(lock)
    query = (
        'import importlib.metadata as m, sys\n'
        'for name in sys.argv[1:]:\n'
        '    try: m.version(name)\n'
        '    except m.PackageNotFoundError: print(name)\n'
    )
    result = subprocess.run(
        [str(PYTHON), '-c', query, *entries], check=True, capture_output=True, text=True
    )
    path = VENV / f'missing-{requirement_set.name}.txt'
    path.write_text('\n'.join(entries[name] for name in result.stdout.split()) + '\n')
    return path


def check_locked_for_this_python(requirement_set: RequirementSet) -> None:
    """Raise SetupError when the lock has no hashes for the running Python."""
    header = (ROOT / 'requirements' / f'{requirement_set.name}.txt').read_text().splitlines()[0]
    version = f'{sys.version_info.major}.{sys.version_info.minor}'
    if version not in header:
        raise SetupError(
            f'requirements/{requirement_set.name}.txt has no hashes for Python {version}: lock it '
            'with tools/setup/lock.py, or work with the ROS 2 wheels (a shell without ROS sourced).'
        )


def install(requirement_set: RequirementSet, origin: str) -> None:
    """Install one set by its hashes, and leave its stamp."""
    check_locked_for_this_python(requirement_set)
    lock = ROOT / 'requirements' / f'{requirement_set.name}.txt'
    if origin != WHEELS and requirement_set is not BOOTSTRAP:
        lock = only_missing(requirement_set)
    # Locks are complete, so pip resolves nothing. The one source archive is built with the
    # setuptools of the bootstrap set, not with one that pip would fetch unhashed.
    command = [
        str(PYTHON), '-m', 'pip', 'install', '--no-deps', '--require-hashes',
        '--no-build-isolation', '--disable-pip-version-check', '--requirement', str(lock),
    ]  # fmt: skip
    try:
        call(command)
    except SetupError:
        # the CPU build of torch lies on PyTorch's own index, unless pip is configured to find it
        if requirement_set is not TORCH:
            raise
        call([*command, '--extra-index-url', TORCH_INDEX])
    if requirement_set is ROS:
        strip_build_machine_paths()
        write_prefix_scripts()
    if requirement_set is SIM:
        call([str(PYTHON), str(ROOT / 'tools' / 'setup' / 'check_renderer.py')])
    path, text = stamp_of(requirement_set)
    path.write_text(text)


def strip_build_machine_paths() -> None:
    """Remove the include folders of the wheels' build machine from their CMake targets."""
    for path in VENV.glob('share/*/cmake/*__rosidl_generator_pyExport.cmake'):
        path.write_text(re.sub(r';?/opt/python/[^;"]*', '', path.read_text()))


def write_prefix_scripts() -> None:
    """Give .venv/ the setup scripts that a ROS install has."""
    site_packages = next(VENV.glob('lib/python3.*/site-packages'))
    libraries = ':'.join(str(path) for path in sorted(site_packages.glob('ros_*.libs')))
    prefix = VENV
    local_setup = f"""# ROS 2 Jazzy (wheels): the prefix's environment, written by tools/setup
_vla_prepend() {{
  eval "_vla_now=\\${{$1:-}}"
  case ":$_vla_now:" in *":$2:"*) ;; *) export "$1=$2${{_vla_now:+:$_vla_now}}" ;; esac
  unset _vla_now
}}
_vla_prepend AMENT_PREFIX_PATH "{prefix}"
_vla_prepend CMAKE_PREFIX_PATH "{prefix}"
_vla_prepend PATH "{prefix}/bin"
_vla_prepend LD_LIBRARY_PATH "{libraries}"
_vla_prepend LD_LIBRARY_PATH "{prefix}/lib"
unset -f _vla_prepend
export ROS_DISTRO=jazzy ROS_VERSION=2 ROS_PYTHON_VERSION=3
export RMW_IMPLEMENTATION="${{RMW_IMPLEMENTATION:-rmw_fastrtps_cpp}}"
# the wheels re-execute each python to set LD_LIBRARY_PATH; it is set above
export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1
# tells tools/setup that the ROS 2 in this shell is its own
export VLA_DEPLOY_PREFIX="{prefix}"
"""
    (VENV / 'local_setup.sh').write_text(local_setup)
    for name in ('setup.sh', 'setup.bash', 'setup.zsh', 'local_setup.bash', 'local_setup.zsh'):
        (VENV / name).write_text(f'. "{VENV}/local_setup.sh"\n')


def complete(purpose: str, origin: str) -> None:
    """Bring .venv/ to what the purpose needs, with one line of progress for each step."""
    known = VENV / 'identity'
    if not known.is_file() or known.read_text() != identity(origin):
        create(origin)
    wanted = RUN_SETS if purpose == 'run' else ALL_SETS
    if origin != WHEELS:
        wanted = tuple(s for s in wanted if s is not ROS)
    missing = [s for s in wanted if not is_in_place(s)]
    for index, requirement_set in enumerate(missing, start=1):
        what = f'{requirement_set.title} ({requirement_set.megabytes} MB)'
        print(f'[{index}/{len(missing)}] installing {what} …', end=' ', flush=True)
        start = time.monotonic()
        install(requirement_set, origin)
        print(f'{time.monotonic() - start:.0f} s', flush=True)


def main() -> int:
    """Complete the environment; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('purpose', choices=('run', 'all'))
    parser.add_argument('--origin', default=WHEELS, help='wheels, or the sourced ROS distribution')
    args = parser.parse_args()
    try:
        complete(args.purpose, args.origin)
    except SetupError as error:
        print(f'\nsetup: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
