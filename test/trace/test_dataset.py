# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Each fault of a data set is found by exactly its check, in both formats."""

import json
import sys

import numpy as np
import pytest
from lerobot_sets import (
    CAMERA,
    LENGTHS,
    TASKS,
    check,
    episode_rows,
    failing,
    in_rows,
    picture,
    statistics,
    write_dataset,
    write_video,
)

from vla_deploy.cli import validate
from vla_deploy.trace.dataset_checks import CHECKS

VERSIONS = ('v3.0', 'v2.1')


@pytest.fixture(params=VERSIONS)
def version(request):
    return request.param


def in_info(**values):
    def change(part, what):
        return {**what, **values} if part == 'info' else what

    return change


def without_column(name):
    def change(part, what):
        if part == 'rows':
            what[1] = {k: v for k, v in what[1].items() if k != name}
        return what

    return change


def narrow_state(part, what):
    if part == 'rows':
        what[1]['observation.state'] = what[1]['observation.state'][:, :5]
    return what


def wrong_mean(part, what):
    if part == 'stats':
        for row in what if isinstance(what, list) else [{'stats': what}]:
            row['stats']['action']['mean'][2] += 0.5
    return what


def swapped_times(part, what):
    if part == 'rows':
        what[0]['timestamp'] = what[0]['timestamp'].copy()
        what[0]['timestamp'][[3, 4]] = what[0]['timestamp'][[4, 3]]
    return what


def part_is(**parts):
    """A change that replaces whole parts."""
    return lambda part, what: parts.get(part, what)


def without_feature(beginning):
    def change(part, what):
        if part == 'info':
            features = what['features']
            kept = {n: f for n, f in features.items() if not n.startswith(beginning)}
            return {**what, 'features': kept}
        if part == 'rows':
            return [{n: v for n, v in e.items() if not n.startswith(beginning)} for e in what]
        return what

    return change


def one_row_less_in_the_table(part, what):
    if part == 'lengths':
        return [what[0] - 1, *what[1:]]
    return {**what, 'total_frames': sum(LENGTHS) - 1} if part == 'info' else what


def another_task_of_the_episode(part, what):
    if part == 'episodes':
        what[1]['tasks'] = ['dance']
    return what


def without_a_text(part, what):
    if part == 'episodes':
        what[1]['tasks'] = [' ']
    return {0: TASKS[0], 1: ' '} if part == 'tasks' else what


def another_column(part, what):
    if part == 'rows':
        what[1]['velocity'] = np.zeros(LENGTHS[1])
    return what


def with_text(part, what):
    """A declared feature of texts that no data file has."""
    if part == 'info':
        what['features']['language'] = {'dtype': 'string', 'shape': [1]}
    return what


# The check that finds it, the change, and a part of what it says.
FAULTS = [
    ('schema', without_column('frame_index'), 'frame_index'),
    ('schema', without_feature('action'), 'declares no feature action'),
    ('schema', without_feature('timestamp'), 'declares no feature timestamp'),
    ('schema', without_feature('observation'), 'no feature observation.*'),
    ('schema', with_text, 'has no column language'),
    ('shapes', narrow_state, 'observation.state: 5 numbers a row, declared 6'),
    ('actions_finite', in_rows('action', 5, np.nan), 'row 5, dim 0 is nan'),
    ('episode_count', in_info(total_episodes=3), '2 episodes, meta/info.json says 3'),
    ('episode_count', in_info(total_frames=21), '20 frames, meta/info.json says 21'),
    ('episode_count', part_is(numbers=[0, 2]), 'not numbered from 0 without a gap'),
    ('episode_count', one_row_less_in_the_table, 'episode 0 has 12 rows in data'),
    ('timestamps', swapped_times, 'episode 0 in'),
    ('fps', in_info(fps=25), '0.0333 s between two frames, but 25 fps are 0.0400 s'),
    ('statistics', wrong_mean, 'action: mean of dim 2'),
    ('tasks', in_rows('task_index', 0, 7), 'task_index 7'),
    ('tasks', part_is(tasks={0: TASKS[0], 1: 'turn it'}), "'put it down' is not among the tasks"),
    ('tasks', another_task_of_the_episode, "episode 1: 'dance' is not among the tasks"),
    ('tasks', without_a_text, 'a task has no text'),
    ('limits', in_rows('action', 0, 90.0), 'shoulder_pan'),
]


@pytest.mark.parametrize(('name', 'change', 'said'), FAULTS, ids=[f'{f[0]}-{f[2]}' for f in FAULTS])
def test_when_a_data_set_has_a_fault_expect_exactly_its_check_to_find_it(
    tmp_path, version, name, change, said, capsys
):
    root = write_dataset(tmp_path / 'set', version, change)
    if name == 'limits':  # the statistics are those of the data, 90.0 included
        mend_statistics(root, version)
    code, statuses, checks = check(root, tmp_path)
    assert failing(statuses) == [name]
    assert said in checks[name]['found']
    assert checks[name]['mend']
    assert code == 1
    out = capsys.readouterr().out
    assert f'FAIL     {name}' in out
    assert checks[name]['mend'] in out


def test_when_an_episode_has_no_statistics_expect_the_check_of_statistics_to_name_it(tmp_path):
    root = write_dataset(
        tmp_path / 'set', 'v2.1', lambda part, what: what[:1] if part == 'stats' else what
    )
    code, statuses, checks = check(root, tmp_path)
    assert failing(statuses) == ['statistics']
    assert checks['statistics']['found'] == 'meta/episodes_stats.jsonl: lacks episode 1'
    assert code == 1


def test_when_there_are_no_actions_expect_what_needs_them_not_run_and_no_pass(tmp_path, version):
    root = write_dataset(tmp_path / 'set', version, without_feature('action'))
    _, statuses, _ = check(root, tmp_path)
    needing = ('actions_finite', 'action_dim', 'statistics', 'limits')
    assert {statuses[name] for name in needing} == {'not run'}


@pytest.mark.parametrize(
    ('rows', 'failing_check', 'said'),
    [
        ([picture()] * LENGTHS[0], None, 'images in 2 data files'),
        (None, 'schema', 'has no column observation.images.front'),
        ([picture(), {'bytes': b'no image', 'path': ''}] * (LENGTHS[0] // 2), 'videos',
         'observation.images.front: row 1: cannot be decoded'),
        ([{'bytes': None, 'path': 'frame.png'}] * LENGTHS[0], 'videos', 'row 0: holds no image'),
    ],
    ids=['whole', 'no column', 'broken', 'empty'],
)  # fmt: skip
def test_when_a_camera_is_of_images_expect_each_of_them_decoded(
    tmp_path, version, rows, failing_check, said
):
    def change(part, what):
        if part == 'info':
            what['features'][CAMERA] |= {'dtype': 'image'}
        if part == 'rows':
            if rows is not None:
                what[0][CAMERA] = rows
            what[1][CAMERA] = [picture()] * LENGTHS[1]
        return what

    root = write_dataset(tmp_path / 'set', version, change)
    code, statuses, checks = check(root, tmp_path, '--strict')
    assert failing(statuses) == ([] if failing_check is None else [failing_check])
    assert said in checks[failing_check or 'videos']['found']
    assert code == (0 if failing_check is None else 1)


def test_when_a_file_has_a_column_that_is_not_declared_expect_a_warning(tmp_path, version):
    root = write_dataset(tmp_path / 'set', version, another_column)
    code, statuses, checks = check(root, tmp_path)
    assert [name for name, status in statuses.items() if status != 'pass'] == ['schema']
    assert 'the column velocity, which meta/info.json does not declare' in checks['schema']['found']
    assert code == 0


@pytest.mark.parametrize(('index', 'said'), [
    (7, 'episode 7 has rows in'), (0, 'episode 0 has rows in several files'),
])
def test_when_a_file_has_a_row_of_another_episode_expect_the_count_of_episodes_to_say_so(
    tmp_path, index, said
):
    episodes = [episode_rows(i) for i in range(2)]
    episodes[1] = {name: np.concatenate([rows, rows[-1:]]) for name, rows in episodes[1].items()}
    episodes[1]['episode_index'][-1] = index
    given = {'rows': episodes, 'stats': statistics(episodes)}  # these are those of the data
    root = write_dataset(tmp_path / 'set', 'v3.0', lambda part, value: given.get(part, value))
    code, statuses, checks = check(root, tmp_path)
    assert statuses['statistics'] == 'pass'
    assert statuses['episode_count'] == 'fail'
    assert said in checks['episode_count']['found']
    assert code == 1


def mend_statistics(root, version):
    path = root / 'meta' / ('stats.json' if version == 'v3.0' else 'episodes_stats.jsonl')
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    stats = lines[0] if version == 'v3.0' else lines[0]['stats']
    episodes = [episode_rows(i) for i in range(2)]
    episodes[0]['action'][0] = 90.0
    rows = np.concatenate([e['action'] for e in (episodes if version == 'v3.0' else episodes[:1])])
    stats['action'] = {'min': rows.min(0).tolist(), 'max': rows.max(0).tolist(),
                       'mean': rows.mean(0).tolist(), 'std': rows.std(0).tolist()}  # fmt: skip
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))


def test_when_a_data_set_is_whole_expect_every_check_passed_and_exit_code_0(tmp_path, version):
    code, statuses, _ = check(write_dataset(tmp_path / 'set', version), tmp_path, '--strict')
    assert statuses == dict.fromkeys(['info', *CHECKS], 'pass')
    assert code == 0


def test_when_there_are_videos_but_no_path_of_them_expect_the_info_refused(tmp_path, version):
    root = write_dataset(tmp_path / 'set', version, in_info(video_path=None))
    code, statuses, checks = check(root, tmp_path)
    assert failing(statuses) == ['info']
    assert f'has no video_path, but {CAMERA} is a video' in checks['info']['found']
    assert code == 1


@pytest.mark.parametrize('text', ['{"codebase_version": ', '[]', '{}', '{"fps": 30}'])
def test_when_the_info_cannot_be_read_expect_that_and_nothing_else_run(tmp_path, text):
    root = write_dataset(tmp_path / 'set', 'v3.0')
    (root / 'meta' / 'info.json').write_text(text)
    code, statuses, _ = check(root, tmp_path)
    assert failing(statuses) == ['info']
    assert {statuses[name] for name in CHECKS} == {'not run'}
    assert code == 1


@pytest.mark.parametrize('how', ['gone', 'cut'])
def test_when_a_data_file_is_gone_or_cut_expect_the_check_of_files(tmp_path, version, how):
    root = write_dataset(tmp_path / 'set', version)
    path = sorted(root.glob('data/*/*.parquet'))[1]
    if how == 'gone':
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-40])
    code, statuses, checks = check(root, tmp_path)
    assert failing(statuses) == ['files']
    assert path.name in checks['files']['found']
    assert statuses['episode_count'] == 'not run'
    assert code == 1


@pytest.mark.parametrize('how', ['gone', 'cut', 'short'])
def test_when_a_video_is_gone_cut_or_short_expect_the_check_of_videos(tmp_path, version, how):
    root = write_dataset(tmp_path / 'set', version)
    path = sorted(root.glob('videos/**/*.mp4'))[0]
    if how == 'gone':
        path.unlink()
    elif how == 'cut':
        path.write_bytes(path.read_bytes()[:200])
    else:
        write_video(path, min(LENGTHS) - 1)
    code, statuses, checks = check(root, tmp_path)
    assert failing(statuses) == ['videos']
    assert path.name in checks['videos']['found']
    assert code == 1


def test_when_the_robot_has_other_joints_expect_the_check_of_dims(tmp_path, version):
    root = write_dataset(tmp_path / 'set', version)
    code, statuses, checks = check(root, tmp_path, robot='franka')
    assert failing(statuses) == ['action_dim']
    assert checks['action_dim']['found'] == 'actions have 6 dims, the robot has 7 joints'
    assert statuses['limits'] == 'not run'
    assert code == 1


def test_when_dims_are_called_otherwise_expect_a_warning_that_fails_if_strict(tmp_path, version):
    def renamed(part, what):
        if part == 'info':
            what['features']['action'] = {**what['features']['action'], 'names': list('abcdef')}
        return what

    root = write_dataset(tmp_path / 'set', version, renamed)
    code, statuses, _ = check(root, tmp_path)
    assert (code, statuses['action_dim']) == (0, 'warn')
    assert check(root, tmp_path, '--strict')[0] == 1


def test_when_a_file_belongs_to_no_episode_expect_a_warning(tmp_path, version):
    root = write_dataset(tmp_path / 'set', version)
    path = sorted(root.glob('data/*/*.parquet'))[0]
    (path.parent / 'stray.parquet').write_bytes(path.read_bytes())
    code, statuses, _ = check(root, tmp_path)
    assert (code, statuses['files']) == (0, 'warn')


@pytest.mark.parametrize('part', ['episodes', 'tasks', 'stats'])
def test_when_metadata_are_gone_expect_the_check_that_needs_them(tmp_path, version, part):
    root = write_dataset(tmp_path / 'set', version)
    for path in [*root.glob(f'meta/{part}*'), *root.glob(f'meta/{part}*/*/*'),
                 *root.glob(f'meta/episodes_{part}*')]:  # fmt: skip
        if path.is_file() and not (part == 'episodes' and 'stats' in path.name):
            path.unlink()
    code, statuses, _ = check(root, tmp_path)
    assert failing(statuses) == [{'episodes': 'files', 'stats': 'statistics'}.get(part, part)]
    assert code == 1


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [(['DIR', '--robot', 'nobody'], "unknown robot 'nobody'"),
     (['DIR/none', '--robot', 'so101'], 'none: is no folder')],
)  # fmt: skip
def test_when_an_argument_is_wrong_expect_exit_code_2_and_one_line(
    tmp_path, capsys, arguments, said
):
    words = [a.replace('DIR', str(tmp_path)) for a in arguments]
    assert validate.main(['dataset', *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.parametrize('module', ['pyarrow', 'av'])
def test_when_a_package_is_not_installed_expect_what_installs_it(
    tmp_path, monkeypatch, capsys, module
):
    for name in [n for n in sys.modules if n.startswith('vla_deploy.trace.dataset')]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    assert validate.main(['dataset', str(tmp_path), '--robot', 'so101']) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert 'pip install pyarrow av' in line
