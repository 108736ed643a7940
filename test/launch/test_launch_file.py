# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""`franka.launch.py sim:=true` brings up the graph, and Ctrl-C ends all of it."""

import signal
import sys

import psutil
import pytest
from fr3_motion import SHARE
from graph_bundles import reach_bundle
from graph_harness import Graph
from lifecycle_msgs.msg import State
from rclpy.serialization import deserialize_message

from vla_deploy.trace.bag import Bag
from vla_deploy_msgs.msg import GuardStatus, PolicyStatus

for package in ('launch.actions', 'launch.launch_description_sources'):
    pytest.importorskip(package, reason='the launch stack of ROS 2 is not installed')

NODES = 3
CAMERAS = 1  # a process that the simulated robot starts
LAUNCH = f"""
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
arguments = [word.split(':=', 1) for word in sys.argv[1:]]
source = PythonLaunchDescriptionSource({str(SHARE / 'launch' / 'franka.launch.py')!r})
service = LaunchService()
service.include_launch_description(LaunchDescription([
    IncludeLaunchDescription(source, launch_arguments=arguments)]))
sys.exit(service.run())
"""


@pytest.fixture
def graph(tmp_path):
    made = Graph(tmp_path)
    yield made
    made.close()


def launched(graph, *arguments):
    """Start the launch file; return the process, and its nodes' once the robot moves."""
    process = graph.run(
        sys.executable, '-c', LAUNCH, 'sim:=true', f'bundle:={reach_bundle()}',
        'instruction:=reach the red cube', *arguments,
    )  # fmt: skip
    graph.wait_until_moving()
    nodes = psutil.Process(process.pid).children(recursive=True)
    count = len([n for n in nodes if any('vla_deploy.nodes' in w for w in n.cmdline())])
    assert count == NODES + CAMERAS + ('record:=true' in arguments)
    return process, nodes


def wait_until_gone(graph, nodes):
    graph.wait(lambda: not any(node.is_running() for node in nodes), 'the end of every node')


@pytest.mark.parametrize('how', ['ctrl_c', 'sigint'])
def test_when_interrupted_expect_every_process_ended_and_exit_code_0(graph, how):
    process, nodes = launched(graph)
    if how == 'ctrl_c':
        process.interrupt_group()
    else:
        process.send(signal.SIGINT)
    assert graph.wait_for_exit(process) == 0
    wait_until_gone(graph, nodes)
    assert 'Traceback' not in process.output()
    assert process.output().count('process has finished cleanly') == NODES
    assert not graph.excess().excess.any


def test_when_a_recorded_run_is_interrupted_expect_the_end_of_guard_and_inference_in_its_bag(
    graph, tmp_path
):
    process, nodes = launched(graph, 'record:=true', f'record_directory:={tmp_path}/bags')
    process.interrupt_group()
    assert graph.wait_for_exit(process) == 0
    wait_until_gone(graph, nodes)
    (folder,) = (tmp_path / 'bags').iterdir()
    bag = Bag(folder)
    last = {bag.topics[m.topic].name: m.data for m in bag.messages()}
    assert bag.broken == ''
    for topic, kind in (('/guard/status', GuardStatus), ('/inference/status', PolicyStatus)):
        status = deserialize_message(last[topic], kind)
        assert status.lifecycle_state == State.PRIMARY_STATE_FINALIZED


def test_when_a_node_dies_expect_it_named_and_the_others_ended(graph):
    process, nodes = launched(graph)
    guard = next(n for n in nodes if 'vla_deploy.nodes.guard' in n.cmdline())
    guard.kill()
    graph.wait_for_exit(process)
    wait_until_gone(graph, nodes)
    assert f'[guard-2]: process has died [pid {guard.pid}, exit code -9' in process.output()
