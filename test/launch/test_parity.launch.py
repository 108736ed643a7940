# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Rungs 2 and 3 of the parity ladder through topics, on the bundle of a golden checkpoint.

Rung 2: raw camera images, joint state and text go in as messages; what comes out is, bit for bit,
what the pipeline in this process makes of the same observation and the message's noise seed, and
that pipeline, given the reference's own noise, is within tolerance of the reference. (A node draws
its noise from a seed, so the reference's noise itself cannot be sent to it.)
Rung 3: the self-test of the node that serves.

    launch_test test/launch/test_parity.launch.py
"""

import json
import sys
import tempfile
import unittest
from pathlib import Path

import launch_testing.asserts
import numpy as np
from launch import LaunchDescription
from launch.actions import ExecuteProcess
from launch_testing.actions import ReadyToTest
from rclpy.time import Time

sys.path.insert(0, str(Path(__file__).parents[1] / 'graph'))
from fake_robot import FakeRobot
from graph_bundles import GOLDENS, golden_bundle
from graph_harness import Graph

from vla_deploy.pipeline import Observation, Policy
from vla_deploy.ros.images import rgb_to_image
from vla_deploy_msgs.msg import GuardStatus

GOLDEN = 'smolvla_3cam'
JOINTS = [f'joint{i}' for i in range(1, 7)]
PERIOD_S = 0.05


def generate_test_description():
    """Start inference on the bundle; everything else of the graph is played by the test."""
    bundle = golden_bundle(GOLDEN)
    graph = Graph(Path(tempfile.mkdtemp()))
    parameters = {
        'autostart': True, 'bundle': str(bundle), 'joint_names': JOINTS, 'period_s': PERIOD_S,
        'allow_blank_instruction': True, 'retry_s': 0.05, 'image_max_age_s': 10.0,
        'joint_state_max_age_s': 10.0, 'max_skew_s': 10.0, 'execution_timeout_s': 10.0,
    }  # fmt: skip
    words = [sys.executable, '-m', 'vla_deploy.nodes.inference', '--ros-args']
    for name, value in parameters.items():
        words += ['-p', f'{name}:={json.dumps(value)}']
    inference = ExecuteProcess(cmd=words, env=graph.environment, output='screen')
    return LaunchDescription([inference, ReadyToTest()]), {
        'graph': graph,
        'bundle': bundle,
        'inference': inference,
    }


def golden_cases():
    """Return (task, images by camera, state, noise, the reference's actions) of each case that
    has all cameras."""
    described = json.loads((GOLDENS / GOLDEN / 'cases.json').read_text(encoding='utf-8'))
    with np.load(GOLDENS / GOLDEN / 'cases.npz') as archive:
        for case in described['cases']:
            start = f'case{case["index"]}/'
            own = {k.removeprefix(start): archive[k] for k in archive.files if k.startswith(start)}
            if not case['missing_cameras']:
                key = 'image/observation.images.'
                images = {k.removeprefix(key): v for k, v in own.items() if k.startswith(key)}
                yield case['task'], images, own['state'], own['noise'][0], own['chunk_robot']


class TestParity(unittest.TestCase):
    """While the node runs."""

    def test_when_golden_observations_are_published_expect_the_references_actions(
        self, graph, bundle
    ):
        policy = Policy.load(bundle, threads=1)
        robot = FakeRobot(graph, policy.contract.camera_names, GuardStatus.STATE_HOLD)
        robot.names = ['finger', *JOINTS]
        tolerance = self.tolerance(bundle)
        cases = list(golden_cases())
        assert len(cases) >= 5
        for task, images, state, noise, reference in cases:
            robot.position = [0.04, *state.astype(float).tolist()]
            robot.images = {
                camera: rgb_to_image(image, 0, camera) for camera, image in images.items()
            }
            observation = Observation(images, state, task)
            chunk = self.chunk_of(graph, task, state)
            served = np.reshape(chunk.data, (chunk.steps, len(JOINTS)))
            same = policy.infer(observation, noise_seed=chunk.noise_seed)
            assert np.array_equal(served, same.actions)
            assert list(chunk.joint_names) == JOINTS
            actions = policy.infer(observation, noise).actions
            assert actions.shape == reference.shape
            assert (np.abs(actions - reference) <= tolerance).all()

    def test_when_it_serves_expect_the_self_test_within_its_threshold(self, graph):
        graph.wait(lambda: graph.policy.lifecycle_state == 3, 'inference to be active')
        assert 0.0 < graph.policy.parity_max_abs <= graph.policy.parity_threshold
        print(
            f'rung 3: {graph.policy.parity_max_abs!r}, at most {graph.policy.parity_threshold!r}'
        )

    def tolerance(self, bundle):
        """1e-5 of the range of each dimension, as the golden's own thresholds say."""
        from safetensors.numpy import load_file

        statistics = load_file(bundle / 'normalizer.safetensors')
        span = np.abs(statistics['action.mean']) + 4 * statistics['action.std']
        return 1e-5 * np.maximum(1.0, span)

    def chunk_of(self, graph, task, state):
        """Say the task, and return a chunk from an observation of this case."""
        graph.wait(lambda: graph.policy.lifecycle_state == 3, 'inference to be active')
        since_ns = graph.now_ns()  # every image that is sent from now on is this case's
        graph.tell(task)
        graph.chunks.clear()

        def answers(chunk):
            stamps_ns = [Time.from_msg(stamp).nanoseconds for stamp in chunk.image_stamps]
            return (
                chunk.instruction == task
                and min(stamps_ns) >= since_ns
                and np.array_equal(np.float32(chunk.anchor_position), state)
            )

        graph.wait(lambda: any(map(answers, graph.chunks)), f'a chunk for {task!r}')
        return next(chunk for chunk in graph.chunks if answers(chunk))


@launch_testing.post_shutdown_test()
class TestAfterwards(unittest.TestCase):
    """After launch has interrupted the node."""

    def test_when_interrupted_expect_exit_code_0(self, proc_info, inference, graph):
        launch_testing.asserts.assertExitCodes(proc_info, process=inference)
        graph.close()
