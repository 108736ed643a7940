# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A process under test, and a ROS domain that it has to itself."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vla_deploy.ros.transport import IMAGES, use_profile

DOMAINS = 101  # of more, the port numbers run into those that Linux gives to anybody


@contextlib.contextmanager
def joining_with_images() -> Iterator[None]:
    """Join a graph as a process that sends images, and leave this one's environment as it was."""
    kept = dict(os.environ)
    use_profile(IMAGES)
    yield
    os.environ.clear()
    os.environ.update(kept)


class Domain:
    """A ROS domain that no other test uses at the same time, in this process or another."""

    def __init__(self) -> None:
        first = os.getpid()
        for offset in range(DOMAINS):
            number = 1 + (first + offset) % DOMAINS
            path = Path(tempfile.gettempdir()) / f'vla_deploy_test_domain_{number}'
            lock = path.open('w')
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.close()
                continue
            self.number, self._lock = number, lock
            return
        raise RuntimeError(f'all {DOMAINS} ROS domains are in use by tests')

    def fileno(self) -> int:
        """Return what a process of the domain inherits, which keeps the domain until it has ended
        as well: a test that is killed leaves its processes behind."""
        return self._lock.fileno()

    def release(self) -> None:
        self._lock.close()


class GraphProcess:
    """A process of the graph; its output goes to a file, so that nobody has to read a pipe."""

    def __init__(
        self, command: list[str], log: Path, environment: dict[str, str], domain: Domain
    ) -> None:
        self._log = log
        with log.open('wb') as stream:
            self._popen = subprocess.Popen(
                command,
                env=environment,
                stdout=stream,
                stderr=subprocess.STDOUT,
                pass_fds=[domain.fileno()],
                start_new_session=True,  # so that `interrupt_group` is Ctrl-C in its terminal
            )
        self.pid = self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._popen.poll()

    def output(self) -> str:
        return self._log.read_text(errors='replace')

    def error_lines(self) -> list[str]:
        """The lines that a user would take for the reason of a failure."""
        return [line for line in self.output().splitlines() if 'error' in line.lower()]

    def send(self, number: int) -> None:
        self._popen.send_signal(number)

    def interrupt_group(self) -> None:
        """Ctrl-C in the terminal of this process: its children are interrupted too."""
        os.killpg(self.pid, signal.SIGINT)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self._popen.kill()
        self._popen.wait()
