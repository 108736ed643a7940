# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Check for what only the system's package manager can bring, and install it where that is allowed.

    python3 tools/setup/system_libraries.py

What MuJoCo's off-screen renderer loads, Python's headers (the generated messages are C extensions)
and venv. As root on a Debian or Ubuntu they are installed; otherwise the line to run is printed and
the exit status is 1.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import sysconfig

# library -> Debian package. libEGL finds Mesa's driver by itself when a context is made; that
# driver comes with libgl1-mesa-dri and has no name to load.
LIBRARIES = {
    'libEGL.so.1': 'libegl1',
    'libGL.so.1': 'libgl1',
    'libEGL_mesa.so.0': 'libegl-mesa0',
    'libgbm.so.1': 'libgbm1',
}
MESA_DRIVER = 'libgl1-mesa-dri'


def loads(library: str) -> bool:
    """Return whether the dynamic linker finds the library."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def missing_packages() -> list[str]:
    """Return the Debian packages that this machine lacks."""
    missing = [package for library, package in LIBRARIES.items() if not loads(library)]
    if missing:
        missing.append(MESA_DRIVER)
    version = f'{sys.version_info.major}.{sys.version_info.minor}'
    if not pathlib.Path(sysconfig.get_path('include'), 'Python.h').is_file():
        missing.append(f'python{version}-dev')
    if importlib.util.find_spec('ensurepip') is None:
        missing.append(f'python{version}-venv')
    return missing


def main() -> int:
    """Install what is missing, or say how; return the exit status."""
    missing = missing_packages()
    if not missing:
        return 0
    command = ['apt-get', 'install', '-y', '--no-install-recommends', *missing]
    if os.geteuid() != 0 or shutil.which('apt-get') is None:
        print(
            f'setup: this machine lacks {", ".join(missing)}. Run: sudo {shlex.join(command)}',
            file=sys.stderr,
        )
        return 1
    print(f'[system] installing {", ".join(missing)} by apt-get', flush=True)
    environment = {**os.environ, 'DEBIAN_FRONTEND': 'noninteractive'}
    for step in (['apt-get', 'update'], command):
        result = subprocess.run(
            step, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if result.returncode != 0:
            print(result.stdout[-3000:], file=sys.stderr)
            print(f'setup: failed: {shlex.join(step)}', file=sys.stderr)
            return 1
    still = missing_packages()
    if still:
        print(f'setup: after apt-get still without {", ".join(still)}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
