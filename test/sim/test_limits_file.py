# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""config/franka/joint_limits.yaml together with urdf/fr3.urdf, read as the guard reads them."""

import numpy as np
import pytest

from vla_deploy.core.limits import load_limits
from vla_deploy.core.urdf import parse_urdf
from vla_deploy.files import read_yaml

ARM = tuple(f'fr3_joint{i}' for i in range(1, 8))
# libfranka, rate_limiting.h: k, c, upper and lower bound of the velocity curve.
CURVES = (
    (12.0, 0.30, 2.75010, -2.75010),
    (5.17, 0.20, 1.79180, -1.79180),
    (7.0, 0.20, 2.90650, -2.90650),
    (8.0, 0.30, -0.1458, -3.0481),
    (34.0, 0.35, 2.81010, -2.81010),
    (11.0, 0.35, 4.52050, 0.54092),
    (34.0, 0.35, 3.01960, -3.01960),
)


@pytest.fixture(scope='module')
def overlay(urdf_path):
    return read_yaml(urdf_path.parents[1] / 'config' / 'franka' / 'joint_limits.yaml')


def test_when_the_guard_loads_the_limits_expect_the_published_figures(urdf_text, overlay):
    limits = load_limits(parse_urdf(urdf_text), ARM, overlay)
    assert limits.names == ARM
    assert np.asarray(limits.velocity) == pytest.approx(
        (2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26)
    )
    assert np.asarray(limits.acceleration) == pytest.approx([10.0] * 7)
    assert not limits.placeholders


@pytest.mark.parametrize('index', range(7))
def test_when_a_velocity_curve_is_read_expect_the_published_figures(overlay, index):
    entry = overlay['joint_limits'][ARM[index]]
    curve = entry['position_dependent_velocity']
    assert (curve['k'], curve['c'], curve['q_upper'], curve['q_lower']) == CURVES[index]
    assert entry['jerk'] == 5000.0
    assert entry['placeholder'] is False
    assert 'libfranka' in entry['source']
