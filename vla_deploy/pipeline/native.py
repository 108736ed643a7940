# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The compiled image code: resize.c's structures and its one function, loaded once."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vla_deploy.pipeline.compiled import CompileError, compile_library, library_name
from vla_deploy.share import cache_folder


class Axis(ctypes.Structure):
    """`struct axis`: int32 [n] indices and float32 [n] weights, by address."""

    _fields_ = tuple(
        (name, ctypes.c_void_p) for name in ('first', 'second', 'first_weight', 'second_weight')
    )


class Plan(ctypes.Structure):
    """`struct plan`; sizes in elements."""

    _fields_ = (
        ('rows', Axis),
        ('columns', Axis),
        ('source_row', ctypes.c_ssize_t),
        ('width', ctypes.c_ssize_t),
        ('output_row', ctypes.c_ssize_t),
        ('output_plane', ctypes.c_ssize_t),
        ('scale', ctypes.c_float),
        ('offset', ctypes.c_float),
    )


@functools.cache
def resize_function() -> Callable[..., None]:
    """Return `vla_deploy_resize`, which gives the interpreter free while it runs.

    The library lies beside this file where the package was installed. Where the sources are run as
    they are, it is compiled once into the cache. Raises CompileError.
    """
    path = Path(__file__).with_name(library_name())
    if not path.is_file():
        path = cache_folder() / 'native' / path.name
    if not path.is_file():
        print(f'compiling the image code to {path} (once)', file=sys.stderr, flush=True)
        compile_library(path)
    try:
        function: Any = ctypes.CDLL(str(path)).vla_deploy_resize
    except (OSError, AttributeError) as error:
        raise CompileError(f'{path}: cannot be loaded, delete it: {error}') from error
    function.restype = None
    function.argtypes = (
        ctypes.POINTER(Plan), ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_void_p,
        ctypes.c_ssize_t, ctypes.c_ssize_t,
    )  # fmt: skip
    result: Callable[..., None] = function
    return result
