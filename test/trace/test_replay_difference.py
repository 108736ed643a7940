# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A chunk computed again is equal only where it is the same plan: shape, joints, order, period."""

from types import SimpleNamespace

import numpy as np
import pytest

from vla_deploy.trace.replay import ENSEMBLING, SeenChunk, compare, plan_of
from vla_deploy.trace.replay_report import Report

RECORDED = np.arange(6.0).reshape(3, 2)
RAW = np.zeros((3, 4), np.float32)
MOMENT = SimpleNamespace(sec=0, nanosec=0)


def seen(strategy='asynchronous', steps=3):
    """A recorded chunk of two joints, of which `steps` were sent."""
    return SeenChunk(SimpleNamespace(
        session_id='a', seq=0, strategy=strategy, joint_names=['j', 'k'], steps=steps,
        data=RECORDED[:steps].ravel(), raw=RAW.ravel(), raw_steps=3, raw_dims=4, control_mode=1,
        inference_time=MOMENT, header=SimpleNamespace(stamp=MOMENT), model_sha256='m',
        period=SimpleNamespace(sec=0, nanosec=33_333_333),
    ), {})  # fmt: skip


def contract(joints=('j', 'k'), period_s=1 / 30, control_mode='position'):
    return SimpleNamespace(
        action=SimpleNamespace(joints=joints, control_mode=control_mode), period_s=period_s
    )


def test_when_all_is_the_same_expect_no_difference():
    found = compare(seen(), RAW, RECORDED, 0.0, contract())
    assert (found.actions, found.raw, found.contract, found.max_abs) == (0.0, 0.0, '', 0.0)


@pytest.mark.parametrize('shape', [(2, 2), (4, 2), (3, 1), (3, 3)])
def test_when_another_shape_was_computed_expect_an_infinite_difference_whatever_raw_says(shape):
    actions = np.zeros(shape)
    rows, columns = min(3, shape[0]), min(2, shape[1])
    actions[:rows, :columns] = RECORDED[:rows, :columns]
    joints = ('j', 'k', 'l')[: shape[1]]
    assert compare(seen(), RAW, actions, 0.0, contract(joints)).max_abs == float('inf')


def test_when_only_the_first_steps_were_sent_expect_as_many_compared_and_given_to_the_guard():
    cut = seen('synchronous', steps=2)
    assert compare(cut, RAW, RECORDED, 0.0, contract()).max_abs == 0.0
    assert plan_of(cut, RECORDED, contract()).data.tolist() == RECORDED[:2].tolist()


@pytest.mark.parametrize('strategy', ['asynchronous', ENSEMBLING])
@pytest.mark.parametrize(
    ('other', 'said'),
    [
        (contract(('k', 'j')), 'its joints are k, j, those recorded j, k'),
        (contract(period_s=1 / 29), 'its period is'),
        (contract(period_s=None), 'its period is'),
        (contract(control_mode='velocity'), 'its control mode is velocity'),
    ],
)
def test_when_the_contract_is_another_expect_it_named_in_what_differs(strategy, other, said):
    computed = SimpleNamespace(
        chunk=SimpleNamespace(raw=RAW, actions=RECORDED), inference_s=0.0
    )
    report = Report(('actions', 'guard'), 'bag')
    report.add(seen(strategy), computed, other)
    failures = report.failures({'actions': 1e9, 'guard': 0.0})
    assert [line.partition(':')[0] for line in failures] == ['actions', 'guard']
    assert all(said in line for line in failures)
    assert report.max_abs == float('inf')


def test_when_the_guard_gets_a_plan_expect_its_own_joints_and_the_period_of_messages():
    plan = plan_of(seen(), RECORDED, contract(('k', 'j'), control_mode='velocity'))
    assert (plan.joint_names, plan.period_s, plan.control_mode) == (('k', 'j'), 0.033333333, 2)


def test_when_a_joint_is_not_the_bundles_expect_the_picture_without_it():
    report = Report(('actions',), 'bag')
    computed = SimpleNamespace(chunk=SimpleNamespace(raw=RAW, actions=RECORDED), inference_s=0.0)
    report.add(seen(), computed, contract(('k', 'l')))
    (drawn,) = report.drawn
    assert np.isnan(drawn.replayed[:, 0]).all()
    assert drawn.replayed[:, 1].tolist() == RECORDED[:, 0].tolist()
