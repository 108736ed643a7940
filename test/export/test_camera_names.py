# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Names of cameras: those that ROS takes, or a refusal that says where to give one."""

from __future__ import annotations

import pytest

from vla_deploy.cli.validate import main as validate_main
from vla_deploy.export.build import ExportOptions, export_bundle
from vla_deploy.export.checkpoint import read_checkpoint
from vla_deploy.export.contracts import cameras
from vla_deploy.export.source import CheckpointError
from vla_deploy.pipeline.bundle import open_bundle

START = 'observation.images.'
ROBOT_IO = """period_s: 0.1
state: {joints: [a, b, c, d, e, f], units: [rad, rad, rad, rad, rad, rad]}
action:
  joints: [a, b, c, d, e, f]
  units: [rad, rad, rad, rad, rad, rad]
  control_mode: position
  first_sample_offset_steps: 1
cameras: [%s]
"""


@pytest.fixture
def call_cameras(checkpoint, edit_json):
    """Return a function that gives the checkpoint's cameras other keys, in order."""

    def call(*keys):
        def change(values):
            features = values['input_features']
            for old, new in zip([k for k in features if k.startswith(START)], keys, strict=False):
                features[START + new] = features.pop(old)

        edit_json('config.json', change)
        return checkpoint

    return call


def robot_io(folder, **names):
    path = folder / 'mine.yaml'
    pairs = ', '.join(f"{{key: '{key}', name: '{name}'}}" for key, name in names.items())
    path.write_text(ROBOT_IO % pairs, encoding='utf-8')
    return path


@pytest.mark.parametrize('name', ['cam-high', 'top.0', '2d', 'a b', 'caméra', 'a//b', '~', '{x}'])
def test_when_ros_takes_no_such_topic_expect_a_refusal_that_says_where_to_name_it(
    call_cameras, name
):
    checkpoint = read_checkpoint(call_cameras(name))
    with pytest.raises(CheckpointError) as error:
        cameras(checkpoint)
    line = str(error.value)
    assert line.startswith(f'{checkpoint.path / "config.json"}: camera {START}{name} is called ')
    assert f'name it in robot_io.yaml, cameras: [{{key: {START}{name}, name: NAME}}]' in line


@pytest.mark.parametrize('name', ['top', '_a', 'a__b', 'Left0', 'wrist/left'])
def test_when_ros_takes_the_topic_expect_the_name(call_cameras, name):
    assert name in [camera.name for camera in cameras(read_checkpoint(call_cameras(name)))]


def test_when_robot_io_gives_a_name_that_ros_does_not_take_expect_that_file_named(checkpoint):
    given = robot_io(checkpoint.parent, **{f'{START}camera1': 'cam-high'})
    with pytest.raises(CheckpointError, match=r"mine\.yaml: camera .*camera1 is called 'cam-high'"):
        cameras(read_checkpoint(checkpoint, robot_io=given))


def test_when_only_robot_io_tells_cameras_apart_expect_the_bundle_to_validate(
    call_cameras, ready_graphs, capsys
):
    checkpoint = call_cameras('left.rgb', 'right.rgb', 'cam-high')
    target = checkpoint.parent / 'bundle'
    with pytest.raises(CheckpointError):
        export_bundle(ExportOptions(checkpoint, target), 1, lambda stage: None)
    names = {f'{START}left.rgb': 'left', f'{START}right.rgb': 'right', f'{START}cam-high': 'high'}
    given = robot_io(checkpoint.parent, **names)
    export_bundle(ExportOptions(checkpoint, target, robot_io=given), 1, lambda stage: None)
    assert open_bundle(target).contract.camera_names == ('left', 'right', 'high')
    assert validate_main(['export', str(target), '--model', str(checkpoint)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == 'PASS'
