# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The demonstration as it is run, with the processes that it starts."""

import json
import re
import sys

import pytest
from graph_bundles import reach_bundle


@pytest.fixture
def demo(graph, tmp_path):
    """Run the demonstration's command in a domain of its own; return its exit code and output."""
    def run(*arguments):
        process = graph.run(sys.executable, '-m', 'vla_deploy.cli.demo',
                            '--output', str(tmp_path / 'out'), *arguments)
        graph.wait(lambda: process.exit_code is not None, 'the demonstration to end', 120.0)
        return process.exit_code, process.output()

    return run


def test_when_an_episode_is_run_expect_a_report_a_picture_and_a_last_line(demo, tmp_path):
    code, output = demo('--bundle', str(reach_bundle()), '--episodes', '1', '--controls', '1',
                        '--seed', '3')
    assert code == 0, output
    assert re.fullmatch(r'demo: 1 of 1 reached \(95 % CI 21–100 %\), chunk latency p95 \d+\.\d ms',
                        output.splitlines()[-1])
    report = json.loads((tmp_path / 'out' / 'report.json').read_text())
    assert [episode['kind'] for episode in report['episodes']] == ['reach', 'blank', 'black']
    assert [episode['seed'] for episode in report['episodes']] == [300_000, 300_001, 300_002]
    assert [episode['reached'] for episode in report['episodes']] == [True, False, False]
    assert not report['largest_use_of_limits']['exceeded']
    assert report['largest_use_of_limits']['velocity'] > 0.05
    stages = ('decode', 'preprocess', 'prefix', 'sample', 'postprocess', 'transport', 'guard',
              'chunk')
    assert all(report['latency_ms'][stage]['p50'] > 0.0 for stage in stages)
    assert (tmp_path / 'out' / 'report.png').read_bytes().startswith(b'\x89PNG')
    for word in ('decode', 'within 2 cm', 'red cube', 'control: black images', 'report.png'):
        assert word in output


def test_when_the_bundle_is_not_one_expect_one_line_and_no_graph(demo, tmp_path):
    code, output = demo('--bundle', str(tmp_path / 'nothing'))
    assert code == 2
    assert output.startswith('demo: ')
    assert str(tmp_path / 'nothing') in output
    assert len(output.splitlines()) == 1


def test_when_a_number_of_episodes_is_not_one_expect_the_word_named(demo):
    code, output = demo('--episodes', 'many')
    assert code == 2
    assert "'many' is not a whole number" in output
