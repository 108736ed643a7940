# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks of policies and their graphs record, and when they fail."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip('torch')

import onnx
from onnx import TensorProto, helper

BENCH = Path(__file__).parents[2] / 'bench'
EQUAL = {'different': 0, 'steps_different': 0}
GOOD = {'equal_to_eager': EQUAL, 'parity': {'ratio': 1.0}}


@pytest.fixture
def bench(monkeypatch):
    """Return name -> a benchmark's module, its arguments those that are given."""

    def load(name, *arguments):
        monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
        monkeypatch.setattr(sys, 'path', [str(BENCH), str(BENCH / 'gpu'), *sys.path])
        monkeypatch.delitem(sys.modules, name, raising=False)
        return __import__(name)

    return load


@pytest.mark.parametrize(
    ('words', 'named'), [(('--bundle', 'some/bundle'), 'some/bundle'), ((), '')]
)
def test_when_a_loop_is_closed_expect_the_bundle_in_the_record(
    bench, monkeypatch, tmp_path, words, named
):
    closed_loop = bench('closed_loop', tmp_path / 'f.json', *words)
    rate = {'wilson_95': [0.7, 1.0], 'successes': 1, 'episodes': 1}
    report = {
        'model_sha256': 'ab12', 'backend': 'b', 'reached': rate, 'episodes': [{'distance_m': 0.0}]
    }  # fmt: skip
    monkeypatch.setattr(closed_loop, 'run', lambda *arguments: report)
    assert closed_loop.main() == 0
    record = json.loads((tmp_path / 'f.json').read_text())
    assert (record['bundle'], record['model_sha256']) == (named, 'ab12')


@pytest.mark.parametrize(('precision', 'most'), [('bf16', 1.25), ('fp8', 3.0)])
def test_when_a_chunk_is_further_off_than_the_plain_modules_expect_a_bound_at_any_precision(
    bench, precision, most
):
    full_size = bench('full_size')
    bound = full_size.MOST_RATIO[precision]
    assert bound == most
    assert full_size._passed(GOOD, bound)
    for ratio in (most + 0.01, float('inf'), float('nan')):
        assert not full_size._passed({**GOOD, 'parity': {'ratio': ratio}}, bound)


@pytest.mark.parametrize(
    'wrong',
    [{'equal_to_eager': {**EQUAL, 'different': 1}},
     {'equal_to_eager': {**EQUAL, 'steps_different': 1}}, {'changed_by_neighbours': 1},
     {'relative_to_alone': float('nan')}],
)  # fmt: skip
def test_when_graph_or_neighbours_change_a_chunk_expect_it_to_fail(bench, wrong):
    full_size = bench('full_size')
    beside = {'changed_by_neighbours': 0, 'relative_to_alone': 1e-3}
    assert full_size._passed({**GOOD, **beside}, 1.25)
    assert not full_size._passed({**GOOD, **beside, **wrong}, 1.25)


def test_when_a_part_in_8_bits_is_far_from_plain_torch_expect_it_named(bench):
    eight_bits = bench('eight_bits')
    parts = {'norm': 2.9e-3, 'gate': 1e-4, 'gate and up': 4e-3, 'down': 1.7e-3}
    sums = {'down, fast': 4e-3, 'down, float32': 1.7e-3, 'gate and up, fast': 4e-3}

    def far(**changed):
        both = {**parts, **sums, **changed}
        return eight_bits._far('pi0', {
            'difference': {part: both[part] for part in parts},
            'sums': {part: {'difference': both[part]} for part in sums},
        })  # fmt: skip

    assert far() == []
    for part in (*parts, *sums):
        for value in (2e-2, float('nan')):
            (line,) = far(**{part: value})
            assert line.startswith(f'pi0, {part}: {value!r} from plain torch (at most ')
    assert len(far(**{'down, float32': 6e-3})) == 1


@pytest.mark.parametrize(
    ('other', 'waited'),
    [([], 0.0), ([(-3.0, -1.0)], 0.0), ([(-3.0, 2.0)], 2.0), ([(1.0, 4.0)], 3.0),
     ([(-3.0, 2.0), (3.0, 4.0)], 3.0), ([(1.0, 6.0)], 0.0), ([(0.0, 4.5)], 4.0)],
)  # fmt: skip
def test_when_two_robots_share_a_card_expect_a_chunk_to_wait_for_those_that_end_first(
    bench, other, waited
):
    assert bench('two_robots').waits_s([(0.0, 5.0)], other, 1.0) == [waited]


@pytest.mark.parametrize(
    ('other', 'free'),
    [([], True), ([(-3.0, 0.0), (5.0, 7.0)], True), ([(-3.0, 1.0)], False), ([(4.0, 7.0)], False),
     ([(1.0, 2.0)], False), ([(-1.0, 6.0)], False)],
)  # fmt: skip
def test_when_a_chunk_of_the_other_robot_is_computed_meanwhile_expect_it_not_undisturbed(
    bench, other, free
):
    chunk = (0.0, 5.0)
    assert bench('two_robots').undisturbed([chunk], other) == ([chunk] if free else [])


@pytest.mark.parametrize('kind', ['Loop', 'If'])
def test_when_a_graph_holds_others_expect_its_nodes_not_counted_as_one(
    bench, kind, tmp_path, capsys
):
    value = helper.make_tensor_value_info('y', TensorProto.FLOAT, [1])
    graph = helper.make_graph(
        [helper.make_node(kind, ['x'], ['y'], name='steps')], 'g',
        [helper.make_tensor_value_info('x', TensorProto.FLOAT, [1])], [value],
    )  # fmt: skip
    onnx.save(helper.make_model(graph), tmp_path / 'g.onnx')
    with pytest.raises(SystemExit):
        bench('graph_launches', tmp_path / 'g.onnx').main()
    assert f"g.onnx: {kind} 'steps' holds nodes" in capsys.readouterr().err
