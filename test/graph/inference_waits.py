# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What the tests of the inference node ask and wait for."""

from builtin_interfaces.msg import Duration
from rclpy.action import ActionClient

from vla_deploy_msgs.action import ExecuteInstruction
from vla_deploy_msgs.msg import GuardStatus, PolicyStatus

HOLD = GuardStatus.STATE_HOLD
# On a busy machine the played robot may be late; what is too late is the subject of some tests.
PATIENT = {
    'image_max_age_s': 5.0,
    'joint_state_max_age_s': 5.0,
    'max_skew_s': 5.0,
    'execution_timeout_s': 5.0,
    'retry_s': 0.05,
}


def next_chunk(graph):
    graph.chunks.clear()
    graph.wait(lambda: graph.chunks, 'a chunk')
    return graph.chunks[-1]


def listeners(graph, topic):
    return {info.node_name for info in graph.node.get_subscriptions_info_by_topic(topic)}


def wait_for_reason(graph, *parts):
    graph.wait(
        lambda: (
            graph.policy.health == PolicyStatus.HEALTH_DEGRADED
            and all(part in graph.policy.reason for part in parts)
        ),
        f'the reason {parts}',
    )


def wait_for_recovery(graph):
    next_chunk(graph)
    graph.wait(lambda: graph.policy.health == PolicyStatus.HEALTH_READY, 'the health ready')
    assert graph.policy.reason == ''


class Instructor:
    """An action client of the watcher: one goal after the other, with all that is heard of it."""

    def __init__(self, graph):
        self._graph = graph
        self.client = ActionClient(graph.node, ExecuteInstruction, 'execute_instruction')
        self.feedback = []

    def send(self, instruction='reach', max_duration_s=0.0, max_chunks=0):
        """Return the handle of a goal; not accepted while the node is inactive."""
        self._graph.wait(self.client.server_is_ready, 'the action server')
        whole, part = divmod(max_duration_s, 1.0)
        goal = ExecuteInstruction.Goal(
            instruction=instruction,
            max_duration=Duration(sec=int(whole), nanosec=int(part * 1e9)),
            max_chunks=max_chunks,
        )
        sent = self.client.send_goal_async(goal, lambda msg: self.feedback.append(msg.feedback))
        self._graph.wait(sent.done, 'an answer to the goal')
        return sent.result()

    def result(self, handle):
        """Return (status, result) of a goal, once it has ended."""
        future = handle.get_result_async()
        self._graph.wait(future.done, 'the result')
        return future.result().status, future.result().result

    def cancel(self, handle):
        future = handle.cancel_goal_async()
        self._graph.wait(future.done, 'an answer to the cancel')
        return future.result()
