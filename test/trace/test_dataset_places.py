# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What LeRobot finds rows, frames and pictures by is checked: a data set that it could not use, or
would read wrongly, does not pass."""

import numpy as np
import pytest
from lerobot_sets import (
    CAMERA,
    JOINTS,
    LENGTHS,
    check,
    episode_rows,
    failing,
    in_rows,
    picture,
    statistics,
    write_dataset,
    write_video,
)

from vla_deploy.cli.guarded_robot import guarded_robot
from vla_deploy.trace.dataset_pictures import declared_size

VERSIONS = ('v3.0', 'v2.1')
FROM, TO = (f'videos/{CAMERA}/{name}_timestamp' for name in ('from', 'to'))


def index_of_each_episode_from_0(part, what):
    if part == 'rows':
        what[1]['index'] = what[1]['frame_index']
    return what


def second_episode_a_second_later(part, what):
    if part == 'rows':
        what[1]['timestamp'] = what[1]['timestamp'] + np.float32(1.0)
    return what


def in_places(episode, name, value):
    """A change of what the table of the episodes says of one."""

    def change(part, what):
        if part == 'places':
            assert name in what[episode]
            what[episode][name] = value
        return what

    return change


# The check that finds it, the change, and a part of what it says.
FAULTS = [
    ('indices', in_rows('index', 3, 99), 'index of row 3 is 99, but 3 rows come before it'),
    ('indices', index_of_each_episode_from_0, 'index of row 0 is 0, but 12 rows come before it'),
    ('indices', in_rows('frame_index', 2, 5, episode=1), 'frame_index of its row 2 is 5'),
    ('fps', second_episode_a_second_later, 'frame 0 is at 1.0000 s, its place is 0.0000 s'),
]
FAULTS_V3 = [
    ('indices', in_places(1, 'dataset_from_index', 11), 'rows from 11 to 20, but is those from 12'),
    ('indices', in_places(0, 'dataset_to_index', 13), 'episode 0 is said to be the rows from 0 to'),
    ('videos', in_places(1, FROM, 12.5 / 30), 'frame 0 of episode 1 is looked for at 0.4167 s'),
    ('videos', in_places(1, FROM, 13 / 30), 'frame 7 of episode 1 is looked for at 0.6667 s'),
    ('videos', in_places(1, FROM, 0.0), 'episode 1 begins at 0.0000 s, within or before the one'),
    ('videos', in_places(1, FROM, np.nan), 'frame 0 of episode 1 is looked for at nan s'),
    ('videos', in_places(0, TO, 6 / 30), 'episode 0 is said to end at 0.2000 s, but its last'),
    ('videos', in_places(1, TO, 9.0), 'episode 1 is said to end at 9.0000 s, but its last'),
    ('videos', in_places(0, TO, np.nan), 'episode 0 is said to end at nan s'),
    ('files', in_places(0, FROM, None), 'meta/episodes: TypeError'),
]


@pytest.mark.parametrize(
    ('version', 'name', 'change', 'said'),
    [(version, *fault) for version in VERSIONS for fault in FAULTS]
    + [('v3.0', *fault) for fault in FAULTS_V3],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_when_a_place_is_wrong_expect_exactly_its_check_to_find_it(
    tmp_path, version, name, change, said
):
    code, statuses, checks = check(write_dataset(tmp_path / 'set', version, change), tmp_path)
    assert failing(statuses) == [name]
    assert said in checks[name]['found']
    assert checks[name]['mend']
    assert code == 1


@pytest.mark.parametrize('name', ['dataset_from_index', 'dataset_to_index', FROM, TO])
def test_when_the_table_of_episodes_lacks_a_place_expect_it_named(tmp_path, name):
    def change(part, what):
        return [{k: v for k, v in row.items() if k != name} for row in what] if (
            part == 'places'
        ) else what

    code, statuses, checks = check(write_dataset(tmp_path / 'set', 'v3.0', change), tmp_path)
    assert failing(statuses) == ['files']
    assert name in checks['files']['found']
    assert statuses['indices'] == statuses['videos'] == 'not run'
    assert code == 1


def test_when_the_files_are_in_another_order_than_their_rows_expect_the_indices_refused(tmp_path):
    root = write_dataset(tmp_path / 'set', 'v3.0')
    first, second = sorted(root.glob('data/*/*.parquet'))
    first.rename(tmp_path / 'moved')
    second.rename(first)
    (tmp_path / 'moved').rename(second)
    _, statuses, checks = check(root, tmp_path)
    assert statuses['indices'] == 'fail'
    assert 'index of row 0 is 12, but 0 rows come before it' in checks['indices']['found']


@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize(
    ('width', 'fps', 'said'),
    [
        (32, 30, 'pictures of 16 x 32 pixels (height x width), declared 16 x 16'),
        (16, 15, 'frame 1 of episode 0 is looked for at 0.0333 s, the nearest one is 0.0333 s'),
    ],
)
def test_when_a_video_has_another_size_or_rate_expect_the_check_of_videos(
    tmp_path, version, width, fps, said
):
    root = write_dataset(tmp_path / 'set', version)
    path = sorted(root.glob('videos/**/*.mp4'))[0]
    write_video(path, sum(LENGTHS), width, fps)
    code, statuses, checks = check(root, tmp_path)
    assert failing(statuses) == ['videos']
    assert path.name in checks['videos']['found']
    assert said in checks['videos']['found']
    assert code == 1


@pytest.mark.parametrize('version', VERSIONS)
def test_when_an_image_has_another_size_expect_its_row_named(tmp_path, version):
    def change(part, what):
        if part == 'info':
            what['features'][CAMERA] |= {'dtype': 'image'}
        if part == 'rows':
            for index, rows in enumerate(what):
                rows[CAMERA] = [picture()] * LENGTHS[index]
            what[1][CAMERA][3:] = [picture(width=8)] * (LENGTHS[1] - 3)
        return what

    code, statuses, checks = check(write_dataset(tmp_path / 'set', version, change), tmp_path)
    assert failing(statuses) == ['videos']
    assert 'row 3: pictures of 16 x 8 pixels' in checks['videos']['found']
    assert code == 1


@pytest.mark.parametrize(
    ('shape', 'names', 'size'),
    [
        ([16, 32, 3], ['height', 'width', 'channels'], (16, 32)),
        ([16, 32, 3], None, (16, 32)),
        ([3, 16, 32], ['channels', 'height', 'width'], (16, 32)),
        ([3, 16, 32], None, (16, 32)),
        ([2, 3, 1], {'axes': ['height', 'width', 'channel']}, (2, 3)),
        ([16, 32], None, None),
    ],
)
def test_when_a_shape_is_declared_expect_height_and_width_wherever_channels_stand(
    shape, names, size
):
    assert declared_size({'shape': shape, 'names': names}) == size


@pytest.mark.parametrize(('beyond', 'code'), [(0, 0), (2, 1)])
@pytest.mark.parametrize('side', ['lower', 'upper'])
def test_when_actions_were_clipped_to_a_limit_in_float32_expect_no_fault_found_with_it(
    tmp_path, side, beyond, code
):
    limits = guarded_robot('so101').limits
    episodes = [episode_rows(index) for index in range(len(LENGTHS))]
    for joint in range(len(JOINTS)):
        value = np.float32(getattr(limits, side)[joint])
        for _ in range(beyond):
            value = np.nextafter(value, np.float32(np.inf if side == 'upper' else -np.inf))
        if value != 0:  # nothing is rounded there
            episodes[0]['action'][joint, joint] = value
    given = {'rows': episodes, 'stats': statistics(episodes)}
    root = write_dataset(tmp_path / 'set', 'v3.0', lambda part, value: given.get(part, value))
    found, statuses, _ = check(root, tmp_path)
    assert (found, failing(statuses)) == (code, ['limits'] if code else [])
