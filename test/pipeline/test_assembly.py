# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""One observation out of several streams, or the name of the stream that is at fault."""

import numpy as np
import pytest

from vla_deploy.pipeline.assembly import ObservationAssembler, StreamError

MS = 1_000_000
NOW = 1_000 * MS


def make(**changes):
    ages_s = {'front': 0.3, 'wrist': 0.3}
    settings = {'image_max_age_s': ages_s, 'joint_state_max_age_s': 0.1, 'max_skew_s': 0.08}
    return ObservationAssembler(**{**settings, **changes})


def fill(assembler, front_ms=100, wrist_ms=100, state_ms=100):
    assembler.add_image('front', front_ms * MS, 'front image', NOW)
    assembler.add_image('wrist', wrist_ms * MS, 'wrist image', NOW)
    assembler.add_state(state_ms * MS, np.array([float(state_ms)]), NOW)
    return assembler


def test_when_all_is_fresh_expect_the_payloads_and_the_oldest_stamp():
    got = fill(make(), front_ms=100, wrist_ms=90, state_ms=110).assemble(120 * MS)
    assert got.images == {'front': 'front image', 'wrist': 'wrist image'}
    assert got.stamp_ns == 90 * MS


def test_when_states_are_many_expect_the_one_nearest_to_the_oldest_image():
    assembler = fill(make(), front_ms=100, wrist_ms=100, state_ms=80)
    for ms in (98, 110, 120):
        assembler.add_state(ms * MS, np.array([float(ms)]), NOW)
    assert assembler.assemble(125 * MS).state.tolist() == [98.0]


def test_when_an_older_image_arrives_late_expect_it_dropped():
    assembler = fill(make())
    assembler.add_image('front', 50 * MS, 'late', NOW)
    assert assembler.assemble(120 * MS).images['front'] == 'front image'


def test_when_a_camera_never_came_expect_it_named():
    assembler = make()
    assembler.add_image('front', 0, 'x', NOW)
    with pytest.raises(StreamError, match='image/wrist: no image yet'):
        assembler.assemble(0)


def test_when_no_state_came_expect_joint_states_named():
    assembler = make()
    assembler.add_image('front', 0, 'x', NOW)
    assembler.add_image('wrist', 0, 'x', NOW)
    with pytest.raises(StreamError, match='joint_states: no joint state'):
        assembler.assemble(0)


@pytest.mark.parametrize(
    ('now_ms', 'settings', 'stream'),
    [
        (401, {'joint_state_max_age_s': 9.0}, 'image/front'),
        (201, {}, 'joint_states'),
    ],
)
def test_when_a_stream_is_stale_expect_it_named_with_its_age(now_ms, settings, stream):
    assembler = fill(make(**settings))
    assert assembler.assemble((now_ms - 1) * MS) is not None
    with pytest.raises(StreamError, match=f'{stream}: newest message is'):
        assembler.assemble(now_ms * MS)


def test_when_cameras_differ_in_rate_expect_each_held_to_its_own_age():
    ages_s = {'front': 0.3, 'wrist': 2.0}
    assembler = make(image_max_age_s=ages_s, joint_state_max_age_s=9.0, max_skew_s=9.0)
    fill(assembler, front_ms=1000, wrist_ms=100, state_ms=1000)
    assert assembler.assemble(1200 * MS).stamp_ns == 100 * MS
    with pytest.raises(StreamError, match='image/front: newest message is'):
        assembler.assemble(1301 * MS)


def test_when_a_camera_is_slower_expect_the_image_of_the_other_at_the_same_moment():
    assembler = make()
    for ms in (100, 133, 167, 200, 233):
        assembler.add_image('front', ms * MS, f'front {ms}', NOW)
        assembler.add_state(ms * MS, np.array([float(ms)]), NOW)
    assembler.add_image('wrist', 110 * MS, 'wrist 110', NOW)
    got = assembler.assemble(240 * MS)
    assert got.images == {'front': 'front 100', 'wrist': 'wrist 110'}
    assert got.stamp_ns == 100 * MS
    assert got.state.tolist() == [100.0]


def test_when_nothing_is_kept_of_that_moment_expect_the_late_camera_named():
    assembler = make()
    assembler.add_image('wrist', 100 * MS, 'wrist', NOW)
    for ms in range(190, 280, 10):
        assembler.add_image('front', ms * MS, 'front', NOW)
        assembler.add_state(ms * MS, np.array([float(ms)]), NOW)
    with pytest.raises(StreamError, match='image/wrist: 0.100 s behind'):
        assembler.assemble(290 * MS)


def test_when_cameras_are_out_of_step_expect_the_late_one_named():
    with pytest.raises(StreamError, match='image/wrist: 0.090 s behind'):
        fill(make(), front_ms=190, wrist_ms=100, state_ms=190).assemble(195 * MS)


def test_when_skew_is_allowed_expect_an_observation():
    assembler = fill(make(max_skew_s=0.2), front_ms=190, wrist_ms=100, state_ms=190)
    assert assembler.assemble(195 * MS).stamp_ns == 100 * MS


def test_when_state_is_out_of_step_expect_joint_states_named():
    with pytest.raises(StreamError, match='joint_states: 0.090 s away'):
        fill(make(), front_ms=100, wrist_ms=100, state_ms=190).assemble(195 * MS)


@pytest.mark.parametrize('stream', ['image/wrist', 'joint_states'])
def test_when_one_is_stamped_in_the_future_expect_it_named_until_the_next_of_its_stream(stream):
    assembler = fill(make())
    future_ns, now_ns = 90_000 * MS, 120 * MS
    add = {
        'image/wrist': lambda ns: assembler.add_image('wrist', ns, 'wrist image', now_ns),
        'joint_states': lambda ns: assembler.add_state(ns, np.array([0.0]), now_ns),
    }[stream]
    add(future_ns)
    add(future_ns + 1)
    with pytest.raises(StreamError, match=f'{stream}: newest message is stamped 89.880 s in the f'):
        assembler.assemble(now_ns)
    add(110 * MS)
    assert assembler.assemble(now_ns).images['wrist'] == 'wrist image'


def test_when_a_stamp_is_ahead_by_no_more_than_the_skew_expect_an_observation():
    assembler = fill(make(), front_ms=180, wrist_ms=180, state_ms=180)
    assert assembler.assemble(100 * MS).stamp_ns == 180 * MS
    with pytest.raises(StreamError, match='image/front: newest message is stamped 0.081 s in the'):
        assembler.assemble(99 * MS)


def test_when_cleared_expect_nothing_left():
    assembler = fill(make())
    assembler.clear()
    with pytest.raises(StreamError):
        assembler.assemble(100 * MS)
