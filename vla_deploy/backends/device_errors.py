# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What a device's errors mean to whoever runs the robot: one line, with what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vla_deploy.pipeline.backend import PolicyError

# Parts of what libraries say, in small letters, and what to do; the first that fits.
_ADVICE = (
    (
        ('out of memory', 'failed to allocate', 'bfcarena', 'cudamalloc'),
        'stop what else uses the device, or choose bf16 or fp16',
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
        ('cuda failure', 'cuda error', 'cudnn failure', 'cublas failure', 'device-side'),
        'the device may be lost: check nvidia-smi and dmesg, then restart the node',
    ),
)


_MARKS = ('CUDA failure', 'CUDNN failure', 'CUBLAS failure', 'Failed to allocate memory',
          'Please install TensorRT')


@contextmanager
def told(what: str, *errors: type[Exception]) -> Iterator[None]:
    """Turn errors of a library into a PolicyError of one line that begins with `what`."""
    try:
        yield
    except PolicyError:
        raise
    except errors as error:
        raise PolicyError(f'{what}: {first_line(error)}{advice(str(error))}') from error


def first_line(error: Exception) -> str:
    """Return the first line of what an error says, or its name where it says nothing.

    ONNX Runtime puts the signatures of its own functions before what happened.
    """
    line = (str(error).splitlines() or [type(error).__name__])[0]
    happened = next((line.find(mark) for mark in _MARKS if mark in line), 0)
    return line[happened:]


def advice(text: str) -> str:
    """Return what to do about an error that says `text`, after a semicolon; '' if not known."""
    small = text.lower()
    return next(
        (f'; {what}' for parts, what in _ADVICE if any(part in small for part in parts)), ''
    )
