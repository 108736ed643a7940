# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Robot descriptions and limit overlays: what is read, and that everything wrong is named."""

import copy
import math
from typing import Any

import pytest

from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.limits import LimitsError, load_limits, tighten
from vla_deploy.core.urdf import MAX_BYTES, Urdf, UrdfError, parse_urdf

LIMIT = '<limit lower="-1" upper="2" velocity="3" effort="4"/>'
OVERLAY: dict[str, Any] = {
    'units': {'angle': 'rad', 'length': 'm', 'time': 's'},
    'joint_limits': {
        'a': {'acceleration': 5.0, 'source': 'data sheet', 'placeholder': False},
        'slide': {'acceleration': 1.0, 'velocity': 0.2, 'source': 'x', 'placeholder': False},
    },
}


def robot(*joints: str) -> str:
    return f'<robot name="r">{"".join(joints)}</robot>'


def joint(name: str = 'a', kind: str = 'revolute', inner: str = LIMIT) -> str:
    return f'<joint name="{name}" type="{kind}">{inner}</joint>'


def a_robot() -> Urdf:
    return parse_urdf(robot(
        joint(), joint('slide', 'prismatic', '<limit lower="0" upper="0.04" velocity="0.5"/>'),
        joint('wheel', 'continuous', '<limit velocity="6" effort="1"/>'),
        joint('held', 'fixed', ''), joint('copy', 'revolute', LIMIT + '<mimic joint="a"/>'),
    ))


def changed(joint_name: str = 'a', **changes: Any) -> dict[str, Any]:
    overlay = copy.deepcopy(OVERLAY)
    overlay['joint_limits'].setdefault(joint_name, {}).update(changes)
    return overlay


def test_when_a_description_is_read_expect_its_joints_and_limits() -> None:
    urdf = a_robot()
    assert list(urdf.joints) == ['a', 'slide', 'wheel', 'held', 'copy']
    a = urdf.joints['a']
    assert (a.lower, a.upper, a.velocity, a.effort, a.unit) == (-1.0, 2.0, 3.0, 4.0, 'rad')
    assert urdf.joints['slide'].unit == 'm'
    assert urdf.joints['copy'].mimics == 'a'


@pytest.mark.parametrize(('text', 'said'), [
    ('', 'empty'),
    ('<robot', 'not XML'),
    ('<robot name="r"/>', 'no <joint>'),
    ('<model/>', 'root element is <model>'),
    ('<!DOCTYPE x [<!ENTITY a "b">]><robot/>', 'DOCTYPE'),
    ('<!doctype x><robot/>', 'DOCTYPE'),
    (robot(joint(), joint()), "'a' is declared twice"),
    (robot('<joint type="fixed"/>'), 'no name'),
    (robot(joint(kind='ball')), "'a': type is 'ball'"),
    (robot(joint(inner='')), "'a': <limit> is missing"),
    (robot(joint(inner='<limit upper="1" velocity="1"/>')), "'a': limit lower is missing"),
    (robot(joint(inner='<limit lower="-1" velocity="1"/>')), "'a': limit upper is missing"),
    (robot(joint(inner=LIMIT.replace('"3"', '"fast"'))), "'a': velocity is 'fast'"),
    (robot(joint(inner=LIMIT.replace('"2"', '"nan"'))), "'a': upper is 'nan', not finite"),
    (robot(joint(inner=LIMIT + '<mimic joint="b"/>')), "mimic names unknown joint 'b'"),
    (robot(joint(inner=LIMIT + '<mimic/>')), 'mimic has no joint'),
    ('<robot>\0</robot>', 'NUL'),
])
def test_when_a_description_is_bad_expect_one_line_that_names_it(text: str, said: str) -> None:
    with pytest.raises(UrdfError) as error:
        parse_urdf(text)
    assert said in str(error.value)
    assert '\n' not in str(error.value)


def test_when_a_description_is_huge_expect_it_refused_unparsed() -> None:
    with pytest.raises(UrdfError, match='bytes'):
        parse_urdf(b'<robot>' + b' ' * MAX_BYTES)


def test_when_limits_are_loaded_expect_declared_order_and_the_tighter_figure() -> None:
    limits = load_limits(a_robot(), ['slide', 'a'], OVERLAY)
    assert limits.names == ('slide', 'a')
    assert limits.velocity.tolist() == [0.2, 3.0]
    assert limits.lower.tolist() == [0.0, -1.0]
    assert limits.acceleration.tolist() == [1.0, 5.0]
    assert any('tightened' in note for note in limits.notes)


def test_when_a_joint_is_continuous_expect_no_position_bound() -> None:
    overlay = changed('wheel', acceleration=1.0, source='x', placeholder=False)
    limits = load_limits(a_robot(), ['wheel', 'a'], overlay)
    assert limits.has_position.tolist() == [False, True]


def test_when_a_safety_controller_is_given_expect_its_soft_limits() -> None:
    soft = '<safety_controller soft_lower_limit="-0.5" soft_upper_limit="1.5" k_velocity="1"/>'
    limits = load_limits(parse_urdf(robot(joint(inner=LIMIT + soft), joint('slide'))), ['a'],
                         OVERLAY)
    assert (limits.lower[0], limits.upper[0]) == (-0.5, 1.5)


def test_when_a_figure_widens_expect_it_refused_without_a_reason_and_noted_with_one() -> None:
    with pytest.raises(LimitsError, match=r'joint_limits.a.velocity is 9, wider than 3'):
        load_limits(a_robot(), ['a'], changed(velocity=9.0))
    limits = load_limits(a_robot(), ['a'], changed(velocity=9.0, allow_widen='new gearbox'))
    assert limits.velocity[0] == 9.0
    assert any('new gearbox' in note for note in limits.notes)


@pytest.mark.parametrize(('overlay', 'joints', 'said'), [
    (changed(acceleration=math.nan), ['a'], 'joint_limits.a.acceleration must be finite'),
    (changed(acceleration='10'), ['a'], 'joint_limits.a.acceleration must be a number'),
    (changed(acceleration=True), ['a'], 'joint_limits.a.acceleration must be a number'),
    (changed(acceleration=0.0), ['a'], "'a': acceleration limit is 0"),
    (changed(velocity=0.0), ['a'], "'a': velocity limit is 0"),
    (changed(jerk=-1.0), ['a'], "'a': jerk limit is -1"),
    (changed(position_lower=1.0, position_upper=0.5), ['a'], "'a': lower 1 is not below upper"),
    (changed(position_lower=-1.5), ['a'], 'joint_limits.a.position_lower is -1.5, wider'),
    (changed(position_upper=2.5), ['a'], 'joint_limits.a.position_upper is 2.5, wider'),
    (changed(source=''), ['a'], 'joint_limits.a.source'),
    (changed(placeholder='no'), ['a'], 'joint_limits.a.placeholder'),
    (changed(allow_widen=True), ['a'], 'joint_limits.a.allow_widen'),
    (changed(accelaration=3.0), ['a'], "did you mean 'acceleration'"),
    (changed('b', acceleration=1.0), ['a'], 'joint_limits.b: no such joint'),
    (changed('wheel', acceleration=1.0, source='x', placeholder=False, position_lower=0.0),
     ['wheel'], 'continuous joint has no bounds'),
    (changed(position_dependent_velocity={'k': 1.0}), ['a'], 'position_dependent_velocity.c'),
    (changed(position_dependent_velocity=3), ['a'], 'must be a mapping of k, c'),
    (changed(position_dependent_velocity={'k': -1.0, 'c': 0.0, 'q_lower': -1.0, 'q_upper': 1.0}),
     ['a'], 'needs k > 0'),
    (OVERLAY, ['b'], "'b' is not in the robot description"),
    (OVERLAY, ['wheel'], 'joint_limits.wheel is missing'),
    (OVERLAY, ['held'], "'held' is fixed"),
    (OVERLAY, ['copy'], "'copy' mimics 'a'"),
    (OVERLAY, ['a', 'a'], 'twice'),
    (OVERLAY, [], 'no joints'),
    ({'joint_limits': OVERLAY['joint_limits']}, ['a'], 'units must be'),
    ({'units': OVERLAY['units']}, ['a'], 'joint_limits is missing'),
    ({**OVERLAY, 'extra': 1}, ['a'], 'unknown key extra'),
    ([], ['a'], 'must be a mapping'),
    ({**OVERLAY, 'joint_limits': {'a': 3}}, ['a'], 'joint_limits.a must be a mapping'),
])
def test_when_an_overlay_is_bad_expect_one_line_that_names_it(
    overlay: Any, joints: list[str], said: str
) -> None:
    with pytest.raises(LimitsError) as error:
        load_limits(a_robot(), joints, overlay)
    assert said in str(error.value)
    assert '\n' not in str(error.value)


def test_when_acceleration_is_missing_expect_it_named() -> None:
    overlay = changed()
    del overlay['joint_limits']['a']['acceleration']
    with pytest.raises(LimitsError, match=r'joint_limits.a.acceleration is missing'):
        load_limits(a_robot(), ['a'], overlay)


def test_when_no_velocity_is_known_expect_it_named() -> None:
    urdf = parse_urdf(robot(joint(inner='<limit lower="0" upper="1"/>'), joint('slide')))
    with pytest.raises(LimitsError, match="'a': velocity limit is missing"):
        load_limits(urdf, ['a'], OVERLAY)


def test_when_a_figure_changes_expect_another_digest() -> None:
    first = load_limits(a_robot(), ['a'], OVERLAY)
    again = load_limits(a_robot(), ['a'], OVERLAY)
    other = load_limits(a_robot(), ['a'], changed(acceleration=4.999))
    assert first.sha256 == again.sha256 != other.sha256


def test_when_the_robots_own_description_is_tighter_expect_it_in_force_and_noted() -> None:
    ours = load_limits(a_robot(), ['a'], OVERLAY)
    theirs = parse_urdf(robot(joint(inner='<limit lower="-0.5" upper="3" velocity="1"/>')))
    limits = tighten(ours, theirs)
    assert (limits.lower[0], limits.upper[0], limits.velocity[0]) == (-0.5, 2.0, 1.0)
    assert sum('robot description' in note for note in limits.notes) == 2


@pytest.mark.parametrize(('text', 'said'), [
    (robot(joint('b')), "'a' is not in"),
    (robot(joint(kind='prismatic')), "'a' is prismatic"),
    (robot(joint(inner='<limit lower="1" upper="2" velocity="0"/>')), 'velocity limit is 0'),
])
def test_when_the_robots_own_description_contradicts_expect_an_error(text: str, said: str) -> None:
    with pytest.raises(LimitsError, match=said):
        tighten(load_limits(a_robot(), ['a'], OVERLAY), parse_urdf(text))


def test_when_figures_are_placeholders_expect_them_listed() -> None:
    limits = load_limits(a_robot(), ['a', 'slide'], changed(placeholder=True))
    assert limits.placeholders == ('a',)
    assert GuardConfig().accept_placeholder_limits is False


def test_when_jerk_is_not_enforced_expect_no_such_limit_and_a_note_that_names_it() -> None:
    limits = load_limits(a_robot(), ['a', 'slide'], changed(jerk=50.0))
    without = limits.without_jerk()
    assert without.jerk is None
    assert without.sha256 != limits.sha256
    assert (without.acceleration == limits.acceleration).all()
    assert without.notes[-1].endswith('not enforced (enforce_jerk): a 50')
    assert without.without_jerk() is without


def test_when_only_the_lower_end_of_the_robots_own_range_is_tighter_expect_it_alone() -> None:
    ours = load_limits(a_robot(), ['a'], OVERLAY)
    theirs = parse_urdf(robot(joint(inner='<limit lower="-0.5" upper="9" velocity="9"/>')))
    (a,) = tighten(ours, theirs).joints
    assert (a.lower, a.upper, a.velocity) == (-0.5, 2.0, 3.0)


def test_when_the_speed_curve_leaves_no_range_expect_it_named() -> None:
    curve = {'k': 1.0, 'c': 1.0, 'q_lower': -0.9, 'q_upper': 0.9}
    with pytest.raises(LimitsError, match="'a': position_dependent_velocity leaves no range"):
        load_limits(a_robot(), ['a'], changed(position_dependent_velocity=curve))
