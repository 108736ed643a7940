# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Work beside the executor: a callback that awaits it holds up no other."""

from __future__ import annotations

from concurrent.futures import Future as WorkerFuture
from typing import Any

from rclpy.node import Node
from rclpy.task import Future


async def wait_for(node: Node, computed: WorkerFuture[Any]) -> None:
    """Wait until a worker has finished, with whatever result, without holding up the executor.

    The callback that awaits this is to be in a reentrant group: one that waits would hold up every
    other callback of its group.
    """
    finished = Future(executor=node.executor)
    finished.add_done_callback(lambda _future: None)  # so that the end wakes the executor
    computed.add_done_callback(lambda _future: finished.set_result(True))
    await finished
