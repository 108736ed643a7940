# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What a device's errors mean to whoever runs the robot: one line, with what to do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from vla_deploy.pipeline.backend import PolicyError

# Parts of what libraries say, in small letters, and what to do; the first that fits.
_ADVICE = (
    (
        ('fallback to cpu ep has been explicitly disabled',),
        "the graph has nodes that this provider cannot compute: choose another (with 'tensorrt', "
        "variant 'loop' hands them to CUDA)",
    ),
    (
        ('out of memory', 'failed to allocate', 'bfcarena', 'cudamalloc', 'status_alloc_failed'),
        'stop what else uses the device, or choose a precision with fewer bits',
    ),
    (
        ('driver version is insufficient', 'driver is too old', 'found no nvidia driver'),
        'install a driver that is new enough (nvidia-smi shows which is there)',
    ),
    (
        ('no cuda-capable device', 'no nvidia gpu'),
        "check nvidia-smi and the driver, or choose provider 'cpu'",
    ),
    (
        ('tensorrt', 'libnv'),
        "install the TensorRT that this onnxruntime was built for, or choose provider 'cuda'",
    ),
    (
        ('stream is capturing',),
        'something was launched for the first time while a graph was captured, which is a fault of '
        'this program: report it with the name of the card, or choose backend onnx_runtime',
    ),
    (
        ('cuda failure', 'cuda error', 'cudnn failure', 'cublas failure', 'device-side',
         'triton error [cuda]'),
        'the device may be lost: check nvidia-smi and dmesg, then restart the node',
    ),
    (
        ('find c compiler',),
        'install a C compiler, as gcc, which Triton needs, or set CC to one',
    ),
    (
        ('out of resource',),
        'the kernels are too large for this card: choose backend onnx_runtime',
    ),
)
# What to do about errors whose text says nothing that is known, by their kind.
_ADVICE_BY_KIND = (
    (
        OSError,
        'check that this can be read, and that the folders of TRITON_CACHE_DIR (else ~/.triton) '
        'and TMPDIR can be written and have room',
    ),
    (
        subprocess.SubprocessError,
        'what Triton compiles with fails: check the C compiler (gcc, or what CC names) and the '
        'header files of Python',
    ),
)
_TRITON_ADVICE = (
    'install the triton that fits this torch; where it does, report this with the name of the '
    'card, and choose backend onnx_runtime'
)

_MARKS = ('CUDA failure', 'CUDNN failure', 'CUBLAS failure', 'Failed to allocate memory',
          'Please install TensorRT')


@contextmanager
def told(what: str, *errors: type[Exception]) -> Iterator[None]:
    """Turn errors of a library into a PolicyError of one line that begins with `what`.

    `errors`: without any, those of torch, of Triton, and of what Triton compiles with.
    """
    try:
        yield
    except PolicyError:
        raise
    except Exception as error:
        if not isinstance(error, errors or torch_errors()):
            raise
        raise PolicyError(f'{what}: {first_line(error)}{_advice_on(error)}') from error


def torch_errors() -> tuple[type[Exception], ...]:
    """Return what computing with torch and Triton can raise that is no fault of the program."""
    # who has not imported Triton cannot have met its errors
    triton = sys.modules.get('triton.errors')
    own = () if triton is None else (triton.TritonError,)
    return RuntimeError, OSError, subprocess.SubprocessError, *own


def _advice_on(error: Exception) -> str:
    known = advice(str(error))
    if known:
        return known
    for kind, what in _ADVICE_BY_KIND:
        if isinstance(error, kind):
            return f'; {what}'
    triton = type(error).__module__.partition('.')[0] == 'triton'
    return f'; {_TRITON_ADVICE}' if triton else ''


def first_line(error: Exception) -> str:
    """Return the first line of what an error says, or its name where it says nothing.

    ONNX Runtime puts the signatures of its own functions before what happened, and Triton the
    place in a kernel that does not compile.
    """
    line = _not_compiled(error) or (str(error).splitlines() or [type(error).__name__])[0]
    happened = next((line.find(mark) for mark in _MARKS if mark in line), 0)
    return line[happened:]


def _not_compiled(error: BaseException) -> str:
    """Return the line of a kernel that Triton does not compile, and why; '' for other errors."""
    node, source = getattr(error, 'node', None), getattr(error, 'src', None)
    if source is None or not hasattr(node, 'lineno'):
        return ''
    inner = error.__cause__  # of a function that this one calls, or what Python says of the line
    if inner is not None and (deeper := _not_compiled(inner)):
        return deeper
    said = str(getattr(error, 'error_message', None) or inner or '').split('\n')[0]
    line = source.split('\n')[node.lineno - 1].strip()
    return f'Triton does not compile {line!r}: {said}'


def advice(text: str) -> str:
    """Return what to do about an error that says `text`, after a semicolon; '' if not known."""
    small = text.lower()
    return next(
        (f'; {what}' for parts, what in _ADVICE if any(part in small for part in parts)), ''
    )
