# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A recorder that cannot begin says which parameter is wrong, ends, and leaves nothing behind."""

import subprocess
import sys
import threading

import pytest
from rclpy.parameter import Parameter

from vla_deploy.core.parameter import ParameterError
from vla_deploy.nodes.recorder import RecorderNode
from vla_deploy.ros.graph_names import check_nodes
from vla_deploy.ros.lifecycle import ConfigureError

WRONG = [
    ("topics:=['/camera/front-left']", "parameter 'topics': '/camera/front-left' is no name of a"),
    ("topics:=['']", "parameter 'topics': '' is no name of a topic"),
    ("nodes:=['bad node']", "parameter 'nodes': 'bad node' is no name of a node"),
    ("nodes:=['']", "parameter 'nodes': '' is no name of a node"),
    ("nodes:=['/front-left/guard']", "parameter 'nodes': '/front-left/guard' is no name"),
]


def begin(context, folder, **parameters):
    given = {'directory': str(folder), **parameters}
    overrides = [Parameter(name, value=value) for name, value in given.items()]
    return RecorderNode(context=context, parameter_overrides=overrides)


@pytest.mark.parametrize(('word', 'said'), WRONG)
def test_when_ros_refuses_a_name_expect_exit_code_2_one_line_and_no_folder(tmp_path, word, said):
    command = [sys.executable, '-m', 'vla_deploy.nodes.recorder', '--ros-args',
               '-p', f'directory:={tmp_path}/bags', '-p', word]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f'error: recorder: {said}')
    assert '.c:' not in line
    assert not (tmp_path / 'bags').exists()


def test_when_beginning_fails_in_between_expect_no_thread_and_no_folder(
    context, tmp_path, monkeypatch
):
    monkeypatch.setattr(RecorderNode, '_connect', fails)
    with pytest.raises(RuntimeError, match='a fault of the program'):
        begin(context, tmp_path)
    assert 'bag_writer' not in {thread.name for thread in threading.enumerate()}
    assert list(tmp_path.iterdir()) == []


def fails(_node, _topics):
    raise RuntimeError('a fault of the program')


def test_when_a_bundle_names_a_camera_that_no_topic_can_have_expect_it_named(context, tmp_path):
    (tmp_path / 'contract.yaml').write_text('cameras: [{name: front-left}]')
    (tmp_path / 'receipt.json').write_text('{}')
    with pytest.raises(ConfigureError, match="parameter 'bundle': 'image/front-left' is no name"):
        begin(context, tmp_path / 'bags', bundle=str(tmp_path))
    assert not (tmp_path / 'bags').exists()


@pytest.mark.parametrize('name', ['guard', '/guard', '/arm/left/guard'])
def test_when_a_node_has_a_namespace_or_none_expect_it_taken(name):
    check_nodes('nodes', [name])


def test_when_a_namespace_is_not_absolute_expect_it_refused_since_no_node_has_it():
    with pytest.raises(ParameterError, match="'arm/guard' is no name of a node"):
        check_nodes('nodes', ['arm/guard'])
