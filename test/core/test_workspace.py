# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Boxes and half-spaces for links: judged by MuJoCo, on all that the controller may execute."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from guard_world import HOME, NAMES, GuardState, World, smooth_plan
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_deploy.core.guard_config import GuardConfig
from vla_deploy.core.journal import Genesis, core_of, genesis_of
from vla_deploy.core.limits import JointLimits, LimitsError, load_limits, tighten
from vla_deploy.core.plain import from_plain, to_plain
from vla_deploy.core.trajectory import Trajectory
from vla_deploy.core.urdf import parse_urdf
from vla_deploy.core.violation import Action
from vla_deploy.core.workspace import MOST, Workspace
from vla_deploy.files import read_yaml

mujoco = pytest.importorskip('mujoco')
ROOT = Path(__file__).parents[2]
URDF = (ROOT / 'urdf' / 'fr3.urdf').read_text()
OVERLAY = read_yaml(ROOT / 'config' / 'franka' / 'joint_limits.yaml')
HAND, ELBOW = 'fr3_hand_tcp', 'fr3_link4'
SOURCE = {'source': 'a test'}


class Truth:
    """Where MuJoCo puts a link."""

    def __init__(self) -> None:
        options = '<mujoco><compiler fusestatic="false" discardvisual="false"/></mujoco>'
        end = URDF.index('>', URDF.index('<robot ')) + 1
        self.model = mujoco.MjModel.from_xml_string(URDF[:end] + options + URDF[end:])
        self.data = mujoco.MjData(self.model)
        self.columns = [self.model.joint(name).qposadr[0] for name in NAMES]

    def __call__(self, link: str, positions: np.ndarray) -> np.ndarray:
        points = []
        for q in np.atleast_2d(positions):
            self.data.qpos[self.columns] = q
            mujoco.mj_kinematics(self.model, self.data)
            points.append(self.data.body(link).xpos.copy())
        return np.array(points)


TRUTH = Truth()
TCP = TRUTH(HAND, HOME)[0]


def limits(with_jerk: bool = False, **regions: dict[str, Any]) -> JointLimits:
    overlay = {**OVERLAY, 'workspace': regions} if regions else OVERLAY
    made = load_limits(parse_urdf(URDF), NAMES, overlay)
    return made if with_jerk else made.without_jerk()


def floor(height: float, link: str = HAND) -> dict[str, Any]:
    return {'links': [link], 'half_space': {'normal': [0, 0, 2], 'offset': height}, **SOURCE}


def box(lower: np.ndarray, upper: np.ndarray, *links: str) -> dict[str, Any]:
    return {'links': list(links or (HAND,)), **SOURCE,
            'box': {'lower': lower.tolist(), 'upper': upper.tolist()}}


def downward(distance: float) -> np.ndarray:
    """A change of the joints that takes the hand down by about a distance [m]."""
    here = 1e-6 * np.eye(7)
    slope = (TRUTH(HAND, HOME + here) - TCP)[:, 2] / 1e-6
    return np.asarray(-distance * slope / (slope @ slope))


def executed(world: World) -> np.ndarray:
    """Positions [instants, joints], 2 ms apart, of all that was published, tails included."""
    found = []
    for out in world.outputs:
        if out.trajectory is not None:
            times = np.arange(out.trajectory.start_ns, out.trajectory.end_ns, 2_000_000)
            found += [out.trajectory.state(int(t))[0] for t in times]
    return np.array(found)


def test_when_no_workspace_is_given_expect_none() -> None:
    assert limits().workspace is None
    assert Workspace.of(limits()) is None


def test_when_a_plan_goes_through_the_table_expect_the_link_the_sample_and_the_distance() -> None:
    height = TCP[2] - 0.05
    world = World(limits=limits(table=floor(height)))
    world.arm()
    data = smooth_plan(HOME, downward(0.1), 40, 0.05)
    out = world.tick(chunks=(world.chunk(data),))
    (violation,) = out.violations
    assert (violation.rule, violation.joint, violation.unit) == ('workspace', HAND, 'm')
    assert out.reports[0].verdict == 'refused'
    truth = TRUTH(HAND, data)[:, 2] - height
    assert violation.value == pytest.approx(truth.min(), abs=2e-4)
    assert truth[violation.sample] == pytest.approx(truth.min(), abs=2e-4)
    assert HAND in violation.message
    assert 'table' in violation.message
    assert world.ticks(30).state is GuardState.HOLD
    accepted = world.tick(chunks=(world.chunk(smooth_plan(HOME, downward(0.045), 40, 0.05)),))
    assert accepted.reports[0].verdict == 'accepted'


@pytest.mark.parametrize('mode', ['clamp', 'reject'])
def test_when_a_plan_lies_outside_from_its_first_sample_on_expect_it_refused(mode: str) -> None:
    world = World(GuardConfig(mode=mode), limits(table=floor(TCP[2] - 0.03)))
    world.arm()
    below = HOME + downward(0.05)
    assert np.abs(below - HOME).max() < world.config.start_jump
    out = world.tick(chunks=(world.chunk(np.tile(below, (20, 1))),))
    assert [v.rule for v in out.violations] == ['workspace']
    assert out.reports[0].verdict == 'refused'


def test_when_only_samples_that_have_passed_lie_outside_expect_the_plan_accepted() -> None:
    world = World(limits=limits(table=floor(TCP[2] - 0.03)))
    world.arm()
    way = np.concatenate((np.linspace(0.045, 0.0, 4), np.zeros(16)))[:, None]
    data = HOME + way * downward(1.0)
    begun_ns = world.ros_ns - 300_000_000
    late = world.chunk(data, stamp_ns=begun_ns, observation_stamp_ns=begun_ns)
    out = world.tick(chunks=(late,))
    assert [v.rule for v in out.violations if v.rule == 'workspace'] == []


def test_when_a_margin_is_asked_for_expect_it_kept() -> None:
    data = smooth_plan(HOME, downward(0.045), 40, 0.05)
    for margin, verdict in ((0.0, 'accepted'), (0.01, 'refused')):
        world = World(limits=limits(table={**floor(TCP[2] - 0.05), 'margin': margin}))
        world.arm()
        assert world.tick(chunks=(world.chunk(data),)).reports[0].verdict == verdict


def test_when_only_braking_would_leave_the_workspace_expect_the_plan_refused() -> None:
    # At constant speed downward, the last sample still above the table.
    data = HOME + np.linspace(0.0, 1.0, 12)[:, None] * downward(0.25)
    height = TRUTH(HAND, data[-1])[0, 2] - 0.004
    world = World(limits=limits(table=floor(height)))
    world.arm()
    assert (TRUTH(HAND, data)[:, 2] > height).all()
    out = world.tick(chunks=(world.chunk(data),))
    (violation,) = out.violations
    assert violation.rule == 'workspace'
    assert 'braking from here' in violation.message
    assert violation.sample == 11


def test_when_the_path_swings_out_between_two_samples_expect_it_seen() -> None:
    # Two samples far apart in time: between them the cubic overshoots both.
    data = np.tile(HOME, (4, 1))
    data[:, 1] += [0.0, 0.06, 0.06, 0.0]
    inside = TRUTH(HAND, data)
    wall = inside[:, 0].max() + 1e-4
    forward = {'links': [HAND], 'half_space': {'normal': [-1, 0, 0], 'offset': -wall}, **SOURCE}
    world = World(limits=limits(wall=forward))
    world.arm()
    out = world.tick(chunks=(world.chunk(data, period_s=0.4),))
    assert [v.rule for v in out.violations] == ['workspace']


def test_when_the_path_is_out_for_less_than_a_sample_lasts_expect_it_seen() -> None:
    velocity = np.zeros((2, 7))
    velocity[:, 1] = [0.05, -0.03]
    swing = Trajectory.of(np.array([0, 10 * 10**9]), np.stack((HOME, HOME)), velocity)
    dense = [TRUTH(HAND, swing.state(int(t))[0])[0, 0] for t in np.linspace(0, 1e10, 3201)]
    sampled = dense[::3200 // MOST]
    wall = 0.5 * (max(dense) + max(sampled))
    assert max(sampled) < wall < max(dense)
    forward = {'links': [HAND], 'half_space': {'normal': [-1, 0, 0], 'offset': -wall}, **SOURCE}
    workspace = Workspace.of(limits(wall=forward))
    assert workspace is not None
    assert workspace.breach(swing) is not None


def corners(seed: int) -> np.ndarray:
    """Three straight legs with sharp corners, faster than they can be followed."""
    rng = np.random.default_rng(seed)
    steps = int(rng.integers(4, 12))
    path = [HOME]
    for _ in range(3):
        change = rng.normal(0, 0.12, 7)
        path += list(path[-1] + np.linspace(0.0, 1.0, steps)[1:, None] * change)
    return np.array(path)


@pytest.mark.parametrize('with_jerk', [False, True])
def test_when_a_clamped_plan_just_fits_expect_the_motion_that_follows_it_to_stay_inside(
    with_jerk: bool,
) -> None:
    held = 0
    for seed in range(12):
        data = corners(seed)
        points = TRUTH(HAND, data)
        lower, upper = points.min(axis=0) - 1e-3, points.max(axis=0) + 1e-3
        world = World(GuardConfig(start_jump=10.0), limits(with_jerk, cell=box(lower, upper)))
        world.arm()
        out = world.tick(chunks=(world.chunk(data),))
        stopped = [v for _ in range(120) for v in world.tick().violations if v.rule == 'workspace']
        if out.reports[0].verdict == 'clamped' and stopped:
            held += 1
            assert stopped[0].joint == HAND
            assert stopped[0].action is Action.HOLD
            assert 'would leave the workspace' in world.core.reason
        reached = TRUTH(HAND, executed(world)[::3])
        assert (reached >= lower - 1e-6).all()
        assert (reached <= upper + 1e-6).all()
    assert held > 0


def test_when_it_starts_outside_expect_only_the_way_back() -> None:
    world = World(limits=limits(table=floor(TCP[2] + 0.05)))
    world.arm()
    down = world.tick(chunks=(world.chunk(smooth_plan(HOME, downward(0.03), 40, 0.05)),))
    assert [v.rule for v in down.violations] == ['workspace']
    up = world.tick(chunks=(world.chunk(smooth_plan(HOME, downward(-0.1), 40, 0.05)),))
    assert up.reports[0].verdict == 'accepted'
    world.ticks(220)
    assert TRUTH(HAND, world.commanded()[0])[0, 2] > TCP[2] + 0.09
    again = world.chunk(smooth_plan(world.commanded()[0], downward(0.1), 40, 0.05))
    assert [v.rule for v in world.tick(chunks=(again,)).violations] == ['workspace']


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_when_plans_are_hostile_expect_mujoco_to_see_every_link_inside(seed: int) -> None:
    rng = np.random.default_rng(seed)
    half = rng.uniform(0.02, 0.25, 3)
    elbow = TRUTH(ELBOW, HOME)[0]
    regions = {'cell': box(TCP - half, TCP + half), 'low': floor(TCP[2] - half[2] / 2),
               'elbow': box(elbow - 0.1, elbow + 0.1, ELBOW)}
    world = World(GuardConfig(trip_count=1000, start_jump=10.0),
                  limits(bool(seed % 2), **regions), seed=seed)
    world.arm()
    around = HOME
    for _ in range(10):
        kind, steps = rng.integers(3), int(rng.integers(3, 30))
        data = smooth_plan(around, rng.normal(0, (0.2, 0.5, 0.2)[kind], 7), steps, 0.05)
        if kind == 2:
            data = data + rng.normal(0, 0.01, data.shape)
        world.tick(chunks=(world.chunk(data),))
        for _ in range(int(rng.integers(5, 40))):
            world.tick(world.config.period_s * float(2.0 ** rng.uniform(-2, 2)))
        if rng.random() < 0.1:
            world.tick(estop_request=True)
            world.ticks(60)
            world.tick(reset=True)
            world.judge.current = None
            world.tick(arm=True)
        around = world.commanded()[0]
    positions = executed(world)[::3]
    hand, arm = TRUTH(HAND, positions), TRUTH(ELBOW, positions)
    assert (np.abs(hand - TCP) <= half + 1e-6).all()
    assert (hand[:, 2] >= TCP[2] - half[2] / 2 - 1e-6).all()
    assert (np.abs(arm - elbow) <= 0.1 + 1e-6).all()


def test_when_a_region_changes_expect_another_digest_and_the_same_guard_replayed() -> None:
    one, two = limits(table=floor(0.1)), limits(table=floor(0.2))
    assert len({one.sha256, two.sha256, limits().sha256}) == 3
    genesis = genesis_of(one, GuardConfig(), {}, {})
    read = from_plain(Genesis, {k: v for k, v in genesis.items() if k != 'kind'})
    core = core_of(read)
    assert core.limits.workspace == one.workspace
    assert core.limits.sha256 == one.sha256
    assert to_plain(read) == {k: v for k, v in genesis.items() if k != 'kind'}


GOOD = {**floor(0.0)}


@pytest.mark.parametrize(('change', 'says'), [
    ({'links': []}, 'workspace.table.links must be a list'),
    ({'links': ['fr3_hand']}, None),
    ({'links': ['claw']}, "workspace.table.links: robot description has no link 'claw'"),
    ({'links': ['fr3_leftfinger']}, "'fr3_leftfinger' is moved by 'fr3_finger_joint1', which"),
    ({'source': ' '}, 'workspace.table.source must say'),
    ({'box': {'lower': [0, 0, 0], 'upper': [1, 1, 1]}}, 'needs either box or half_space'),
    ({'half_space': {'normal': [0, 0, 0], 'offset': 0.0}}, 'half_space.normal has no length'),
    ({'half_space': {'normal': [0, 0, 1]}}, 'half_space.offset is missing'),
    ({'half_space': {'normal': [0, 1], 'offset': 0.0}}, 'normal must be three numbers'),
    ({'half_space': {'normal': [0, 0, True], 'offset': 0.0}}, 'normal must be a number'),
    ({'half_space': {'normal': [0, 0, 1], 'offset': float('nan')}}, 'offset must be finite'),
    ({'half_space': 3}, 'half_space must be a mapping of normal and offset'),
    ({'margin': -0.1}, 'margin is -0.1, below 0'),
    ({'margins': 0.1}, "unknown key workspace.table.margins; did you mean 'margin'"),
])
def test_when_a_region_is_wrong_expect_one_line_that_names_the_key(
    change: dict[str, Any], says: str | None
) -> None:
    def load() -> None:
        Workspace.of(limits(table={**GOOD, **change}))

    if says is None:
        load()
        return
    with pytest.raises(LimitsError, match=says.replace('.', r'\.')):
        load()


def test_when_a_box_is_inverted_expect_the_axis_named() -> None:
    with pytest.raises(LimitsError, match='lower 0.5 is not below upper 0.4 along y'):
        limits(cell=box(np.array([0.0, 0.5, 0.0]), np.array([1.0, 0.4, 1.0])))
    narrow = {**box(np.zeros(3), np.ones(3)), 'margin': 0.6}
    with pytest.raises(LimitsError, match='margins included'):
        limits(cell=narrow)
    with pytest.raises(LimitsError, match='workspace must be a mapping'):
        load_limits(parse_urdf(URDF), NAMES, {**OVERLAY, 'workspace': [3]})
    with pytest.raises(LimitsError, match=r'workspace\.cell must be a mapping'):
        load_limits(parse_urdf(URDF), NAMES, {**OVERLAY, 'workspace': {'cell': 3}})


def test_when_the_robot_tightens_its_limits_expect_the_workspace_kept() -> None:
    ours = limits(table=floor(0.1))
    assert tighten(ours, parse_urdf(URDF)).workspace == ours.workspace


def test_when_a_plan_that_stands_is_left_expect_the_robot_to_go_on_standing() -> None:
    world = World(limits=limits(table=floor(TCP[2] - 0.05)))
    world.arm()
    world.tick(chunks=(world.chunk(np.tile(HOME, (40, 1))),))
    assert world.ticks(10).state is GuardState.ARMED
    out = world.tick(estop_request=True)
    assert out.trajectory is not None
    assert (out.trajectory.position == HOME).all()
    assert not out.violations
