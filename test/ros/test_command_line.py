# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Words that no node takes end it with one line, before it is anything in the graph."""

import os
import subprocess
import sys

import pytest

from vla_deploy.ros.command_line import wrong_words

FILES = {
    'list.yaml': '[1]',
    'no_node.yaml': 'start_jump: 1.0',
    'no_ros__parameters.yaml': 'guard: {start_jump: 1.0}',
    'ends_early.yaml': 'guard: [1',
}
TOLD = "'/**: {ros__parameters: {name: value}}'"


def started(node, *words):
    """Return exit code, output and the lines of errors of a node with these words."""
    command = [sys.executable, '-m', f'vla_deploy.nodes.{node}', *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr.splitlines()


@pytest.mark.parametrize(
    ('node', 'words', 'named'),
    [
        ('guard', ['--chunk', 'x'], "error: '--chunk' is nothing that a node takes"),
        ('inference', ['-p', 'bundle:=b'], "error: '-p' is nothing that a node takes"),
        ('guard', ['--ros-args', '--params-file', 'no.yaml'], 'error: --params-file no.yaml: '),
        ('sim_robot', ['--ros-args', 'x'], "error: 'x' behind --ros-args is nothing that ROS"),
    ],
)
def test_when_a_node_is_given_what_it_does_not_take_expect_one_line_and_exit_code_2(
    node, words, named
):
    code, output, (line,) = started(node, *words)
    assert (code, output) == (2, '')
    assert line.startswith(named)


@pytest.mark.parametrize('name', FILES)
def test_when_a_file_holds_no_parameters_of_nodes_expect_it_named_and_what_one_reads(
    tmp_path, name
):
    path = tmp_path / name
    path.write_text(FILES[name])
    line = wrong_words(['--ros-args', '--params-file', str(path)])
    assert line.startswith(f'--params-file {path}: ')
    assert TOLD in line
    assert '.c:' not in line
    assert '\n' not in line


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (['--ros-args', '-p', 'a:=1', '--', 'x', 'y'], "'x' is nothing"),
        (['bundle:=b'], "'bundle:=b' is nothing"),
        (['--ros-args', '-p', 'a:=1', '--', '--'], "'--' is nothing"),
        (['--ros-args', '-p', 'a'], '-p a: '),
        (['--ros-args', '-p', 'a:=[1, b]'], '-p a:=[1, b]: Sequence should be of same type'),
        (['--ros-args', '--params-file'], '--params-file flag. No file path provided.'),
    ],
)
def test_when_words_are_wrong_expect_the_word_named(words, said):
    line = wrong_words(words)
    assert said in line
    assert '.c:' not in line


@pytest.mark.parametrize(
    'words',
    [
        [],
        ['--ros-args'],
        ['--ros-args', '-r', '__node:=guard', '-p', 'urdf_path:=""', '--log-level', 'debug'],
        ['--ros-args', '-r', '__ns:=/left', '--'],
        ['--ros-args', '-p', 'a:=1', '--', '--ros-args', '-p', 'b:=1'],
    ],
)
def test_when_words_are_those_of_launch_and_bring_up_expect_them_taken(words):
    assert wrong_words(words) == ''


def test_when_parameters_come_through_a_pipe_expect_them_left_for_the_node():
    ends = os.pipe()
    os.write(ends[1], b'/**: {ros__parameters: {start_jmp: 1.0}}')
    os.close(ends[1])
    assert wrong_words(['--ros-args', '--params-file', f'/dev/fd/{ends[0]}']) == ''
    assert b'start_jmp' in os.read(ends[0], 100)
    os.close(ends[0])
