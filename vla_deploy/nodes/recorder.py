# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The recorder node: everything that the guard and inference say and hear, in a bag, from a
process of its own.

Callbacks put the bytes that came into a bounded queue; a thread writes them. A message that finds
no room is dropped, and the status says so, in the bag too.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node

from vla_deploy.core.parameter import ParameterError
from vla_deploy.files import FileError
from vla_deploy.ros import qos
from vla_deploy.ros.conversions import time_msg
from vla_deploy.ros.graph_names import check_nodes, resolved_topics
from vla_deploy.ros.lifecycle import EXIT_FAILED, ConfigureError, run_node
from vla_deploy.ros.parameter_snapshot import ParameterSnapshot
from vla_deploy.ros.parameters import declare_parameters, read_config
from vla_deploy.ros.recorded_topics import IMAGES, RecordedTopics
from vla_deploy.ros.recorder_messages import diagnostics_message, status_message
from vla_deploy.trace.bag_writer import BagWriter, Topic
from vla_deploy.trace.digest import digest_topic, digester
from vla_deploy.trace.episodes import RECORDING, EpisodeWatch
from vla_deploy.trace.record import Recorder
from vla_deploy.trace.record_config import RecorderConfig
from vla_deploy.trace.record_files import (
    attachments,
    camera_topics,
    cameras,
    new_folder,
    recording,
)
from vla_deploy_msgs.msg import RecorderStatus

_POLL_PERIOD_S = 0.01
_SCAN_PERIOD_S = 0.2
_STATUS_PERIOD_S = 1.0
_DROP_STATUS_PERIOD_S = 0.1
_BYTES_PER_MB = 1e6
# Heard even before a node that is recorded hears or says them.
_HEARD = ('joint_states', 'action_chunk', 'execution_state')


class RecorderNode(Node):
    """Records one bag, from its start to its end; see RecorderConfig."""

    def __init__(self, **kwargs: Any) -> None:
        """Make the bag; raises ConfigureError with one line."""
        super().__init__('recorder', **kwargs)
        self.exit_code: int | None = None
        self._recorder: Recorder | None = None
        self._told_drop_s = 0.0
        self._lingers_until_s = 0.0
        self._changes: dict[str, tuple[Topic, Any]] = {}
        begun = False
        try:
            self._begin()
            begun = True
        except (OSError, FileError, ParameterError) as error:
            raise ConfigureError(f'recorder: {error}') from error
        finally:
            if not begun:
                self._give_up()

    def _begin(self) -> None:
        declare_parameters(self, RecorderConfig)
        config = self._config = read_config(self, RecorderConfig)
        files = attachments(config)
        heard = cameras(config)
        both = [name for camera in heard for name in camera_topics(camera)]
        # All names before the bag: one that ROS refuses shall leave neither folder nor thread.
        check_nodes('nodes', config.nodes)
        resolved_topics(self, 'topics', config.topics)
        topics = resolved_topics(self, 'bundle', (*_HEARD, *both))
        folder = new_folder(config.directory, config.robot, time.localtime())
        writer = BagWriter(folder, config.compression, os.environ.get('ROS_DISTRO', ''))
        self._folder = folder
        watch = EpisodeWatch()
        self._recorder = Recorder(
            writer, round(config.queue_mb * _BYTES_PER_MB), config.flush_period_s, watch.see,
            watch.closing,
        )  # fmt: skip
        record = recording(config, topics)
        self._recorder.add(lambda bag: bag.add_metadata(RECORDING, record))
        now_ns = time.time_ns()
        for name, (kind, data) in files.items():
            self._recorder.add(
                lambda bag, n=name, k=kind, d=data: bag.add_attachment(n, k, d, now_ns)
            )
        images = () if config.images == 'none' else heard.values()
        self._connect([topics[name] for name in (*_HEARD, *images)])
        self.get_logger().info(f'records into {folder}')

    def _give_up(self) -> None:
        """Leave nothing of a bag that has not begun: its thread would keep the process alive."""
        if self._recorder is not None:
            self._recorder.close()
            shutil.rmtree(self._folder, ignore_errors=True)
        super().destroy_node()

    def _connect(self, topics: list[str]) -> None:
        """Begin to listen to `topics`, and to what the nodes that are recorded hear and say."""
        config = self._config
        self._status = self.create_publisher(RecorderStatus, '~/status', qos.STATUS)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', qos.DIAGNOSTICS)
        self._own_status = self.resolve_topic_name('~/status')
        self._topics = RecordedTopics(
            self, config.nodes, [*topics, *config.topics, self._own_status],
            config.images != 'none', self._take, self._recorder.add_lost,
        )  # fmt: skip
        self._snapshot = ParameterSnapshot(self, config.nodes, self._on_parameters)
        self.create_timer(_POLL_PERIOD_S, self._topics.poll)
        self.create_timer(_SCAN_PERIOD_S, self._scan)
        self.create_timer(_STATUS_PERIOD_S, self._publish_status)
        self._scan()
        self._publish_status()

    def lingers(self) -> bool:
        """Whether a node that is recorded is still there, for at most `linger_s` from the first
        call."""
        now_s = time.monotonic()
        self._lingers_until_s = self._lingers_until_s or now_s + self._config.linger_s
        there = {(space, name) for name, space in self.get_node_names_and_namespaces()}
        return now_s < self._lingers_until_s and bool(there & set(self._topics.nodes))

    def destroy_node(self) -> None:
        """Write what waits, and close the bag."""
        if self._recorder is not None:
            self._topics.poll()
            self._recorder.close()
            self.exit_code = EXIT_FAILED if self._recorder.failure else None
            total = sum(self._recorder.counts.recorded.values())
            print(f'recorder: {self._folder}: {total} messages'
                  f'{f"; {self._recorder.problem()}" if self._recorder.problem() else ""}',
                  flush=True)  # fmt: skip
        super().destroy_node()

    def _scan(self) -> None:
        known = set(self._topics.unreadable)
        self._topics.scan()
        for name in set(self._topics.unreadable) - known:
            self.get_logger().info(f'not recorded: {name}: {self._topics.unreadable[name]}')
        self._snapshot.poll()

    def _take(self, topic: Topic, log_ns: int, publish_ns: int, data: bytes) -> None:
        change = None
        if self._config.images == 'hashed' and topic.type_name in IMAGES:
            if topic.name not in self._changes:
                self._changes[topic.name] = (digest_topic(topic), digester(topic))
            topic, change = self._changes[topic.name]
        keep = topic.name == self._own_status
        if not self._recorder.offer(topic, log_ns, publish_ns, data, change, keep):
            self._tell_drop()

    def _tell_drop(self) -> None:
        now_s = time.monotonic()
        if now_s - self._told_drop_s >= _DROP_STATUS_PERIOD_S:
            self._told_drop_s = now_s
            self._publish_status()

    def _on_parameters(self, node: str, values: dict[str, Any]) -> None:
        record = {name: json.dumps(value, default=list) for name, value in values.items()}
        self._recorder.add(partial(BagWriter.add_metadata, name=f'parameters/{node}',
                                   values=record))  # fmt: skip

    def _publish_status(self) -> None:
        stamp = time_msg(self.get_clock().now().nanoseconds)
        status = status_message(self._recorder, str(self._folder), stamp)
        self._status.publish(status)
        self._diagnostics.publish(diagnostics_message(self.get_name(), status))


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT; then the bag is closed. Exit code 1: it could not be written."""
    return run_node(RecorderNode, args, __doc__ or '', RecorderConfig)


if __name__ == '__main__':
    sys.exit(main())
