# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Import MuJoCo late, with its offscreen renderer chosen in the open.

MuJoCo reads MUJOCO_GL once, when it is imported. Without a screen its own default fails long
after that with an error that names no cause, so the choice is made here: what the environment
says, else EGL.
"""

from __future__ import annotations

import importlib
import os
from typing import Any


class SimulatorMissingError(ImportError):
    """MuJoCo cannot be imported; the message says what to install."""


def load_mujoco() -> Any:
    """Return the `mujoco` module; raises SimulatorMissingError where it is not installed."""
    os.environ.setdefault('MUJOCO_GL', 'egl')
    try:
        return importlib.import_module('mujoco')
    except ImportError as error:
        raise SimulatorMissingError(
            f'the simulated robot needs MuJoCo, which failed to import ({error}); '
            'install it with: pip install mujoco==3.3.7'
        ) from error
    # A value of MUJOCO_GL that MuJoCo does not know; a library of OpenGL that is not there.
    except (RuntimeError, AttributeError, OSError) as error:
        raise SimulatorMissingError(
            f'MuJoCo cannot be imported with MUJOCO_GL={os.environ["MUJOCO_GL"]}: {error}; '
            'set it to egl or osmesa, and install libegl1 libgl1-mesa-dri or libosmesa6'
        ) from error
