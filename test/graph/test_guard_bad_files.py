# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Files that a guard must not start with: one line that names the key, within two seconds, and
nothing is sent."""

import os
import time

import pytest
from fr3_motion import LIMITS, URDF, guard_parameters
from rclpy.lifecycle import TransitionCallbackReturn

from vla_deploy.core.urdf import MAX_BYTES
from vla_deploy.nodes.guard import GuardNode
from vla_deploy.ros.robot_limits import MAX_LIMITS_BYTES

JOINT = 'joint_limits.fr3_joint3'
BOMB = '<!DOCTYPE b [<!ENTITY a "aaaaaaaaaa">' + ''.join(
    f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip('abcdefghi', 'bcdefghij', strict=True)
) + ']><robot name="r">&j;</robot>'


def limits_text(old, new):
    text = LIMITS.read_text()
    assert old in text
    return text.replace(old, new)


def third(old, new):
    """The limits with a change in the entry of the third joint."""
    head, key, tail = LIMITS.read_text().partition('  fr3_joint3:\n')
    assert old in tail
    return head + key + tail.replace(old, new, 1)


def sparse(path):
    """A file of 2 GB, of which the disk holds nothing."""
    with path.open('wb') as file:
        file.truncate(2**31)


def content(text):
    return lambda path: path.write_bytes(text if isinstance(text, bytes) else text.encode())


BAD_LIMITS = {
    'missing': (lambda path: None, 'cannot be read: No such file'),
    'a_folder': (lambda path: path.mkdir(), 'Is a directory'),
    'a_pipe': (os.mkfifo, 'is not a regular file'),
    'empty': (content(''), 'must be a mapping'),
    'not_yaml': (content('joint_limits: [1, {'), 'line 1: is not YAML'),
    'not_utf8': (content(b'\xff\xfe'), 'is not UTF-8'),
    'no_mapping': (content('- 1\n'), 'must be a mapping'),
    'unknown_key': (content(third('acceleration:', 'accelaration:')),
                    f"unknown key {JOINT}.accelaration; did you mean 'acceleration'?"),
    'key_twice': (content(third('jerk: 5000.0', 'jerk: 1.0\n    jerk: 1.0')),
                  "key 'jerk' is given twice"),
    'min_above_max': (content(third('    jerk: 5000.0',
                                    '    position_lower: 1.0\n    position_upper: 0.5')),
                      "joint 'fr3_joint3': lower 1 is not below upper 0.5"),
    'nan': (content(third('acceleration: 10.0', 'acceleration: .nan')),
            f'{JOINT}.acceleration must be finite'),
    'infinite': (content(third('acceleration: 10.0', 'acceleration: .inf')),
                 f'{JOINT}.acceleration must be finite'),
    'huge': (content(third('acceleration: 10.0', 'acceleration: 1' + '0' * 400)),
             'a whole number of 401 digits'),
    'a_text': (content(third('acceleration: 10.0', 'acceleration: fast')),
               f'{JOINT}.acceleration must be a number'),
    'wrong_length': (content(third('acceleration: 10.0', 'acceleration: [10.0, 10.0]')),
                     f'{JOINT}.acceleration must be a number'),
    'zero_velocity': (content(third('velocity: 2.62', 'velocity: 0.0')),
                      "'fr3_joint3': velocity limit is 0"),
    'zero_acceleration': (content(third('acceleration: 10.0', 'acceleration: 0')),
                          "'fr3_joint3': acceleration limit is 0"),
    'too_wide': (content(third('velocity: 2.62', 'velocity: 99.0')),
                 f'{JOINT}.velocity is 99, wider than'),
    'unknown_joint': (content(limits_text('fr3_joint3', 'fr3_jiont3')),
                      "joint_limits.fr3_jiont3: no such joint in the robot description; did you "
                      "mean 'fr3_joint3'?"),
    'no_units': (content(limits_text('units: {angle: rad, length: m, time: s}', '')),
                 'units must be'),
    'degrees': (content(limits_text('angle: rad', 'angle: deg')), 'units must be'),
    'no_source': (content(third('    source:', '    #')), f'{JOINT}.source must say'),
    'huge_file': (sparse, f'is larger than {MAX_LIMITS_BYTES} bytes'),
    'aliases': (content('a: &a [1, 1]\nb: &b [*a, *a]\nunits: [*b, *b]\n'), 'aliases (*a)'),
    'deep': (content('a: ' + '[' * (MAX_LIMITS_BYTES - 9)), 'is nested too deeply'),
}


@pytest.mark.parametrize('kind', BAD_LIMITS)
def test_when_the_limits_file_is_bad_expect_configure_to_fail_at_once_naming_file_and_key(
    shared_graph, tmp_path, kind
):
    make, said = BAD_LIMITS[kind]
    make(tmp_path / 'limits.yaml')
    line = refusal(shared_graph, limits_path=str(tmp_path / 'limits.yaml'))
    assert line.startswith(f'{tmp_path}/limits.yaml: ')
    assert said in line


def urdf_text(old, new):
    text = URDF.read_text()
    assert old in text
    return text.replace(old, new, 1)


BAD_URDFS = {
    'missing': (lambda path: None, 'cannot be read: No such file'),
    'empty': (content(''), 'robot description is empty'),
    'not_xml': (content('<robot name="r"'), 'is not XML'),
    'not_utf8': (content(b'<robot name="\xff"/>'), 'is not UTF-8'),
    'utf16': (content('<robot/>'.encode('utf-16')), 'UTF-8'),
    'a_bomb': (content(BOMB), 'holds <!DOCTYPE, which is refused'),
    'no_robot': (content('<sdf/>'), 'root element is <sdf>'),
    'nan': (content(urdf_text('upper="2.7437"', 'upper="nan"')),
            "joint 'fr3_joint1': upper is 'nan', not finite"),
    'min_above_max': (content(urdf_text('lower="-2.7437"', 'lower="2.8"')),
                      "joint 'fr3_joint1': lower 2.8 is not below upper 2.7437"),
    'no_limit': (content(urdf_text('upper="2.7437"', '')),
                 "joint 'fr3_joint1': limit upper is missing"),
    'joint_gone': (content(urdf_text('<joint name="fr3_joint1"', '<joint name="fr3_joint0"')),
                   'fr3_joint1'),
    'huge_file': (sparse, f'is larger than {MAX_BYTES} bytes'),
    'large': (content('<robot>' + '<joint/>' * (MAX_BYTES // 9) + '</robot>'),
              'a <joint> has no name'),
}


@pytest.mark.parametrize('kind', BAD_URDFS)
def test_when_the_urdf_is_bad_expect_configure_to_fail_at_once_naming_file_and_joint(
    shared_graph, tmp_path, kind
):
    make, said = BAD_URDFS[kind]
    make(tmp_path / 'robot.urdf')
    line = refusal(shared_graph, urdf_path=str(tmp_path / 'robot.urdf'))
    assert 'robot.urdf: ' in line or 'joint_limits.yaml' in line or kind.startswith('min_above')
    assert said in line


def refusal(graph, **parameters):
    """Return the line with which a guard refuses to configure; it takes at most two seconds."""
    given = {**guard_parameters(), 'autostart': False, **parameters}
    guard = graph.add_node(GuardNode, **given)
    try:
        begin_s = time.monotonic()
        assert guard.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert time.monotonic() - begin_s < 2.0
        assert '\n' not in guard.configure_error
        assert guard.count_publishers('joint_trajectory') == 0
        return guard.configure_error
    finally:
        graph.remove_node(guard)


def test_when_a_file_is_bad_expect_the_process_to_end_with_one_line_and_exit_code_1(
    graph, tmp_path
):
    sparse(tmp_path / 'limits.yaml')
    guard = graph.start_guard(limits_path=str(tmp_path / 'limits.yaml'))
    assert graph.wait_for_exit(guard) == 1
    (line,) = guard.error_lines()
    assert f'limits.yaml: is larger than {MAX_LIMITS_BYTES} bytes' in line
    assert graph.trajectories == []


def test_when_the_largest_allowed_limits_file_is_read_expect_it_judged_within_two_seconds(
    shared_graph, tmp_path
):
    filler = ''.join(f'k{i}: {{a: [1, 2], b: 1.5}}\n' for i in range(800))
    text = LIMITS.read_text() + filler
    path = tmp_path / 'limits.yaml'
    path.write_text(text)
    assert MAX_LIMITS_BYTES * 0.6 < path.stat().st_size < MAX_LIMITS_BYTES
    assert 'unknown key k0' in refusal(shared_graph, limits_path=str(path))
