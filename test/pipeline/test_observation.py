# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses
from concurrent.futures import Future

import numpy as np
import pytest

from vla_deploy.pipeline.observation import Observation, ObservationError, check_observation
from vla_deploy.pipeline.preprocess import ImageStack

IMAGE = np.zeros((48, 64, 3), np.uint8)


def observation(**changes):
    usual = Observation({'front': IMAGE, 'wrist': IMAGE}, np.zeros(7), 'reach the red cube')
    return dataclasses.replace(usual, **changes)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'images': {}}, 'image: no camera is there; the policy knows front, wrist'),
        ({'images': {'frnt': IMAGE}}, 'image/frnt: the policy has no such camera; did you mean'),
        (
            {'images': {'front': IMAGE, 'observation.images.front': IMAGE}},
            'image/observation.images.front: is given twice',
        ),
        ({'images': {'front': [[0]]}}, 'image/front: must be a numpy array, not list'),
        ({'images': {'front': IMAGE.astype(np.float32)}}, 'image/front: must be uint8'),
        ({'images': {'front': IMAGE.transpose(2, 0, 1)}}, 'image/front: must be uint8'),
        ({'images': {'front': IMAGE[:, :, :1]}}, 'image/front: must be uint8'),
        ({'images': {'front': IMAGE[:0]}}, 'image/front: must be uint8'),
        ({'state': np.zeros(6)}, 'joint_states: must be 7 numbers, not of shape [6]'),
        ({'state': np.zeros((1, 7))}, 'joint_states: must be 7 numbers, not of shape [1, 7]'),
        ({'state': ['a'] * 7}, 'joint_states: must be 7 numbers'),
        ({'state': [0, 0, np.nan, 0, 0, 0, 0]}, 'joint_states: fr3_joint3 is nan, not finite'),
        ({'state': [0, 0, 0, 0, 0, 0, -np.inf]}, 'joint_states: fr3_joint7 is -inf, not finite'),
        ({'instruction': None}, 'instruction: must be text, not NoneType'),
    ],
)
def test_when_observation_cannot_be_used_expect_error_naming_the_stream(
    plain_contract, changes, message
):
    with pytest.raises(ObservationError) as error:
        check_observation(observation(**changes), plain_contract)
    assert str(error.value).startswith(message)
    assert '\n' not in str(error.value)


def test_when_joints_have_no_names_expect_the_element_named(plain_contract):
    spec = dataclasses.replace(plain_contract.state, joints=None)
    contract = dataclasses.replace(plain_contract, state=spec)
    with pytest.raises(ObservationError, match='element 1 is nan'):
        check_observation(observation(state=[0, np.nan, 0, 0, 0, 0, 0]), contract)


def test_when_state_is_beyond_float32_expect_error(plain_contract):
    with pytest.raises(ObservationError, match='fr3_joint1 is inf'):
        check_observation(observation(state=[1e300, 0, 0, 0, 0, 0, 0]), plain_contract)


def test_when_cameras_come_by_key_and_in_another_order_expect_the_contracts_order(plain_contract):
    images = {'observation.images.wrist': IMAGE + 1, 'front': IMAGE}
    checked = check_observation(observation(images=images), plain_contract)
    assert [int(image[0, 0, 0]) for image in checked.images] == [0, 1]
    assert checked.missing_cameras == ()


def test_when_first_camera_is_missing_expect_the_other_to_move_up(plain_contract):
    checked = check_observation(observation(images={'wrist': IMAGE + 255}), plain_contract)
    assert checked.missing_cameras == ('front',)
    images, mask = ImageStack(plain_contract).fill(checked.images)
    assert mask.tolist() == [True, False, False]
    assert images[0].max() > 0.999
    assert (images[1:] == -1.0).all()


def test_when_slot_is_taken_by_another_size_expect_nothing_left_of_the_old(plain_contract):
    stack = ImageStack(plain_contract)
    tall, wide = np.full((64, 32, 3), 200, np.uint8), np.full((32, 64, 3), 90, np.uint8)
    stack.fill([tall, wide])
    reused, _ = stack.fill([wide])
    fresh, _ = ImageStack(plain_contract).fill([wide])
    assert np.array_equal(reused, fresh)


def test_when_many_sizes_come_expect_only_some_kept(plain_contract):
    stack = ImageStack(plain_contract)
    for width in range(32, 96):
        stack.fill([np.zeros((32, width, 3), np.uint8)])
    assert len(stack._resizers) <= 16


def test_when_image_vanishes_in_the_resize_expect_error_naming_the_stream(plain_contract):
    with pytest.raises(ObservationError, match='image: an image of 3000x1 pixels vanishes'):
        ImageStack(plain_contract).fill([np.zeros((1, 3000, 3), np.uint8)])


@pytest.mark.parametrize('threads', [2, 3, 5])
def test_when_threads_share_the_images_expect_the_same_to_the_bit(plain_contract, threads):
    rng = np.random.default_rng(5)
    images = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((480, 640), (20, 99))]
    alone, _ = ImageStack(plain_contract).fill(images)
    shared, _ = ImageStack(plain_contract, threads).fill(images)
    assert np.array_equal(alone, shared)


def test_when_a_helper_gets_no_processor_expect_its_images_done_by_the_others(
    plain_contract, monkeypatch
):
    stack = ImageStack(plain_contract, threads=2)
    monkeypatch.setattr(stack._helpers, 'submit', lambda *arguments: Future())  # never starts
    image = np.random.default_rng(6).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    alone, _ = ImageStack(plain_contract).fill([image, image])
    assert np.array_equal(stack.fill([image, image])[0], alone)
