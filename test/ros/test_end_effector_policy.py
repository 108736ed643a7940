# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A policy whose actions are poses, behind the parameters of inference."""

import numpy as np
import pytest

from vla_deploy.pipeline import ObservationError, PolicyError
from vla_deploy.pipeline.assembly import Assembled
from vla_deploy.pipeline.inference_config import InferenceConfig
from vla_deploy.ros.chunk_maker import ChunkMaker
from vla_deploy.ros.images import rgb_to_image
from vla_deploy.ros.served_policy import load_policy
from vla_deploy.share import share_directory

ARM = tuple(f'fr3_joint{i}' for i in range(1, 8))
HOME = np.array([0.0, -0.6, 0.0, -2.2, 0.0, 1.7, 0.785])


def config(bundle, **changes):
    given = {
        'bundle': str(bundle), 'backend': 'stub', 'end_effector_link': 'fr3_hand_tcp',
        'end_effector_others': ['fr3_finger_joint1'],
        'end_effector_semantics': 'from_observation',
        'urdf_path': str(share_directory() / 'urdf' / 'fr3.urdf'), **changes,
    }  # fmt: skip
    return InferenceConfig(**given)


def make(served):
    images = {name: rgb_to_image(np.zeros((48, 64, 3), np.uint8), 0, name)
              for name in served.contract.camera_names}
    maker = ChunkMaker(served, 'asynchronous', 1, 1.0, 0.0, 10.0)
    return maker.make(Assembled(images, HOME, 0), 'go')


def test_when_the_pose_does_not_change_expect_the_joints_where_they_are(plain_bundle):
    served = load_policy(config(plain_bundle()))
    assert served.contract.action.joints == (*ARM, 'fr3_finger_joint1')
    actions = make(served).chunk.actions
    assert actions.shape == (served.contract.chunk_steps, 8)
    np.testing.assert_allclose(actions, np.tile([*HOME, 0.0], (len(actions), 1)), atol=1e-6)


def test_when_the_policy_returns_nonsense_expect_no_chunk_and_the_reason(plain_bundle):
    served = load_policy(config(plain_bundle(), stub_value=100.0))
    with pytest.raises(ObservationError, match='end effector: sample 0 asks for a pose that fr3_h'):
        make(served)


def test_when_rotations_are_written_otherwise_expect_other_joints(plain_bundle):
    bundle = plain_bundle()
    given = {'stub_value': 0.2, 'end_effector_max_residual_m': 1.0}
    vector, rpy = (
        make(load_policy(config(bundle, **given, end_effector_rotation=rotation)))
        .chunk.actions[0, :7]
        for rotation in ('rotation_vector', 'rpy')
    )
    assert np.abs(vector - rpy).max() > 0.01


@pytest.mark.parametrize('bounds', [(1000.0, 4.0), (1000.0, 0.0), (0.005, 4.0)])
def test_when_more_may_be_left_of_a_pose_expect_each_bound_to_count(plain_bundle, bounds):
    bounds = dict(zip(('end_effector_max_residual_m', 'end_effector_max_residual_rad'), bounds,
                      strict=True))  # fmt: skip
    served = load_policy(config(plain_bundle(), stub_value=100.0, **bounds))
    if min(bounds.values()) > 1.0:
        assert np.isfinite(make(served).chunk.actions).all()
    else:
        with pytest.raises(ObservationError, match='end effector'):
            make(served)


@pytest.mark.parametrize(('changes', 'says'), [
    ({'urdf_path': ''}, "'end_effector_link' needs 'urdf_path'"),
    ({'end_effector_link': 'claw'}, "no link 'claw'"),
    ({'end_effector_others': []}, "has 6 elements and control mode 'position'; the bundle's has 7"),
])
def test_when_parameters_do_not_fit_expect_one_line(plain_bundle, changes, says):
    with pytest.raises(PolicyError, match=says):
        load_policy(config(plain_bundle(), **changes))


def test_when_what_is_left_of_a_chunk_is_relative_to_its_observation_expect_no_guidance_toward_it(
    plain_bundle,
):
    guided = {'strategy': 'real_time_chunking', 'execute_steps': 3}
    bundle = plain_bundle()
    with pytest.raises(PolicyError, match="'strategy' is 'real_time_chunking'.*from_observation"):
        load_policy(config(bundle, **guided))
    for semantics in ('absolute', 'from_previous'):
        load_policy(config(bundle, **guided, end_effector_semantics=semantics))
