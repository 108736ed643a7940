# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Starts a bring-up's processes, names the one that dies, and ends all of them cleanly."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import IO, TextIO

from vla_deploy.bringup import READY_TIMEOUT_S, Process
from vla_deploy.shared_memory import remove_stale_ports, remove_stale_segments

_PR_SET_PDEATHSIG = 1
# SIGINT lets the guard come to a planned stop; what has not ended so long after it is reported and
# killed. Each has this time of its own: one that hangs takes none from a guard or a recorder.
END_TIMEOUT_S = 15.0
TOLD_AGAIN = 2 / 3  # of that time


class Supervisor:
    """The running processes of one bring-up; every line they print is prefixed with their name.

    Where one is to become ready, those behind it start in a later `poll`.
    """

    def __init__(self, processes: Sequence[Process], output: TextIO | None = None) -> None:
        self._output = output if output is not None else sys.stdout
        self._lock = threading.Lock()
        self._readers: list[threading.Thread] = []
        self._waiting = deque(processes)
        self._ready = threading.Event()  # the process that was started last is
        self._ready.set()
        self._give_up_s = 0.0
        self._failed = ''
        self.output_problem = ''  # why lines could not be shown, as one line
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.poll()

    def poll(self) -> str:
        """Start what may start by now. Return a sentence about a process that cannot be started,
        has ended by itself, or has not become ready; empty if all is well."""
        wrong = self._failed or self._died()
        while self._waiting and self._ready.is_set() and not wrong:
            process = self._waiting.popleft()
            try:
                self._start(process)
            except OSError as error:
                wrong = self._failed = f'{process.name} cannot be started: {error}'
        if self._waiting and not wrong and time.monotonic() > self._give_up_s:
            wrong = f'{list(self.running)[-1]} was not ready within {READY_TIMEOUT_S:g} s'
        return wrong

    def _died(self) -> str:
        for name, process in self.running.items():
            code = process.poll()
            if code is not None:
                how = f'signal {signal.Signals(-code).name}' if code < 0 else f'exit code {code}'
                return f'{name} ended by itself: {how}'
        return ''

    def end(self) -> list[str]:
        """End all processes, the last started first; return the names that had to be killed.

        SIGINT can get lost while Python starts, which goes on after an interrupted .pth file: who
        has not ended soon is told by SIGTERM, too.
        """
        killed = []
        for name, process in reversed(self.running.items()):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            if _ends(process, TOLD_AGAIN * END_TIMEOUT_S):
                continue
            process.terminate()
            if not _ends(process, (1.0 - TOLD_AGAIN) * END_TIMEOUT_S):
                process.kill()
                process.wait()
                killed.append(name)
        for reader in self._readers:
            reader.join(timeout=1.0)
        remove_stale_segments()
        remove_stale_ports()
        return killed

    def _start(self, process: Process) -> None:
        if process.ready:
            self._ready.clear()
            self._give_up_s = time.monotonic() + READY_TIMEOUT_S
        started = subprocess.Popen(
            process.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **process.environment},
            preexec_fn=_own_group,
        )
        self.running[process.name] = started
        assert started.stdout is not None
        reader = threading.Thread(
            target=self._copy, args=(process, started.stdout), daemon=True
        )
        reader.start()
        self._readers.append(reader)

    def _copy(self, process: Process, stream: IO[bytes]) -> None:
        for line in stream:
            text = line.decode(errors='replace').rstrip()
            if process.ready and process.ready in text:
                self._ready.set()
            self._show(f'[{process.name}] {text}\n')

    def _show(self, text: str) -> None:
        """Write a line, and go on without it where the output takes none: a process whose pipe
        nobody reads any more, as the guard, would wait in its next print."""
        with self._lock:
            try:
                self._output.write(text)
                self._output.flush()
            except (OSError, ValueError) as error:  # ValueError: it is closed
                if not self.output_problem:
                    self.output_problem = (
                        f'output: cannot be written: {error}; the processes go on, '
                        'and lines of theirs are lost'
                    )
                    with contextlib.suppress(OSError, ValueError):
                        print(f'supervisor: {self.output_problem}', file=sys.stderr, flush=True)


def _own_group() -> None:
    """Begin a process group: Ctrl-C then reaches us alone, so that we choose the order. Not a
    session: Linux shares time among sessions first (autogroup), and niceness would not count.

    And have the kernel send SIGINT when the parent dies, so that no node is left behind.
    """
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def _ends(process: subprocess.Popen[bytes], within_s: float) -> bool:
    try:
        process.wait(timeout=within_s)
    except subprocess.TimeoutExpired:
        return False
    return True
