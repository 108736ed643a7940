# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Graphs and bundles for the tests of the running graph."""

from __future__ import annotations

import pathlib
import shutil
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import graph_bundles
from fake_robot import FakeRobot
from graph_harness import Graph
from inference_waits import HOLD, PATIENT
from rclpy.lifecycle import TransitionCallbackReturn

from vla_deploy.files import read_yaml, write_yaml
from vla_deploy.nodes.inference import InferenceNode
from vla_deploy.pipeline import bundle as bundles


@pytest.fixture(scope='session')
def reach_bundle():
    """Folder of the bundle of the FR3's own policy."""
    return graph_bundles.reach_bundle()


@pytest.fixture(scope='session')
def changed_bundle(reach_bundle, seal_bundle, tmp_path_factory):
    """Return a function that copies the bundle, lets `change` alter the folder, and seals it."""

    def make(change):
        folder = tmp_path_factory.mktemp('changed') / 'bundle'
        shutil.copytree(reach_bundle, folder)
        change(folder)
        seal_bundle(folder)
        return folder

    return make


@pytest.fixture(scope='session')
def hundred_bundle(changed_bundle):
    """A bundle whose policy, through the real pipeline and graphs, asks 100.0 of every joint.

    Its action statistics say mean 100 and standard deviation 0: whatever the network computes,
    that is what un-normalising makes of it.
    """

    def change(folder):
        _change_statistics(folder, {'action.mean': 100.0, 'action.std': 0.0})

    return changed_bundle(change)


@pytest.fixture(scope='session')
def infinite_bundle(changed_bundle):
    """A bundle whose policy asks for more than a number can hold."""

    def change(folder):
        huge = np.finfo(np.float32).max
        _change_statistics(folder, {'action.mean': -huge, 'action.std': huge})

    return changed_bundle(change)


@pytest.fixture(scope='session')
def silent_bundle(changed_bundle):
    """A bundle whose contract names neither joints nor the period."""

    def change(folder):
        contract = read_yaml(folder / bundles.CONTRACT)
        for part in ('state', 'action'):
            contract[part] = {**contract[part], 'joints': None, 'units': None}
        write_yaml(folder / bundles.CONTRACT, {**contract, 'period_s': None})

    return changed_bundle(change)


def _change_statistics(folder, values):
    path = folder / bundles.NORMALIZER
    statistics = load_file(path)
    for name, value in values.items():
        statistics[name] = np.full_like(statistics[name], value)
    save_file(statistics, path)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    item.has_failed = report.failed or getattr(item, 'has_failed', False)
    return report


@pytest.fixture(autouse=True)
def shared_again(request):
    """After a failure, let the next try, or the next test, begin with another shared graph: what
    a killed process left in shared memory can keep one from hearing for good."""
    yield
    failed, request.node.has_failed = request.node.has_failed, False
    if failed and 'shared_graph' in request.fixturenames:
        request._get_active_fixturedef('shared_graph').finish(request)  # and all that is made of it


@pytest.fixture
def graph(tmp_path):
    """An empty graph for one test."""
    made = Graph(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope='module')
def shared_graph(tmp_path_factory):
    """An empty graph for all tests of a module."""
    made = Graph(tmp_path_factory.mktemp('graph'))
    yield made
    made.close()


@pytest.fixture(scope='module')
def guarded_robot(shared_graph):
    """The shared graph with a simulated robot and an armed guard; no inference."""
    shared_graph.sim_robot = shared_graph.start_sim_robot()
    shared_graph.guard_process = shared_graph.start_guard(
        log_folder=str(shared_graph.log_folder)
    )
    shared_graph.wait(lambda: shared_graph.guard.state_name == 'HOLD', 'the guard to arm itself')
    return shared_graph


def pytest_terminal_summary(terminalreporter):
    """Show figures that tests measured: they are for people, no test judges them."""
    figures = [
        text
        for report in terminalreporter.getreports('passed')
        for name, text in report.user_properties
        if name == 'figure'
    ]
    if figures:
        terminalreporter.section('figures of the running graph')
        for text in figures:
            terminalreporter.line(text)


@pytest.fixture
def robot(shared_graph):
    """A robot at rest whose guard would execute what comes."""
    robot = FakeRobot(shared_graph, ['front'], guard_state=HOLD)
    yield robot
    robot.leave()


@pytest.fixture
def serve(shared_graph, reach_bundle):
    """Return a function that configures and activates an inference node in this process."""
    nodes = []

    def start(**parameters):
        shared_graph.policies.clear()
        shared_graph.chunks.clear()
        given = {'bundle': str(reach_bundle), 'backend': 'stub', **PATIENT, **parameters}
        node = shared_graph.add_node(InferenceNode, **given)
        nodes.append(node)
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        return node

    def stop():
        """Take away the last one, for another with other parameters."""
        shared_graph.remove_node(nodes.pop())

    start.stop = stop
    yield start
    for node in nodes:
        shared_graph.remove_node(node)


@pytest.fixture
def refuse(shared_graph, reach_bundle):
    """Return a function that gives the line with which configure or activate fails."""

    def start(**parameters):
        given = {'bundle': str(reach_bundle), 'backend': 'stub', **parameters}
        node = shared_graph.add_node(InferenceNode, **given)
        try:
            failure = TransitionCallbackReturn.FAILURE
            assert node.trigger_configure() == failure
            return node.configure_error
        finally:
            shared_graph.remove_node(node)

    return start
