# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""`up franka sim:=true` as a user starts it: it moves, its topics are those of the README, and
however it ends, no process is left."""

import contextlib
import os
import re
import signal
import sys
from pathlib import Path

import psutil
import pytest

README = Path(__file__).parents[2] / 'README.md'
NODES = ('sim_robot', 'guard', 'inference')


def start_up(graph, bundle, *options):
    """Start the bring-up; return its process and its nodes' pids by name, once all are there."""
    up = graph.run(
        sys.executable, '-m', 'vla_deploy.cli.up', 'franka', 'sim:=true', f'bundle:={bundle}',
        *options,
    )  # fmt: skip
    graph.wait(lambda: len(node_pids(up)) == len(NODES) or up.exit_code is not None, 'three nodes')
    return up, node_pids(up)


def node_pids(up):
    pids = {}
    with contextlib.suppress(psutil.Error):  # one may end while it is looked at
        for child in psutil.Process(up.pid).children(recursive=True):
            words = child.cmdline()
            for name in NODES:
                if f'vla_deploy.nodes.{name}' in words and words[0] != 'nice':
                    pids[name] = child.pid
    return pids


def wait_until_serving(graph):
    graph.wait(lambda: graph.policy.lifecycle_state == 3, 'inference to be active')
    graph.wait(lambda: graph.guard.state_name in ('HOLD', 'ARMED'), 'the guard to be in control')


def wait_until_gone(graph, pids):
    graph.wait(lambda: not any(psutil.pid_exists(pid) for pid in pids.values()), 'their end')


@pytest.mark.parametrize('use_sim_time', ['false', 'true'])
def test_when_brought_up_expect_motion_and_after_sigint_exit_code_0_and_no_process_left(
    graph, reach_bundle, use_sim_time
):
    up, pids = start_up(
        graph, reach_bundle, 'instruction:=reach the red cube', f'use_sim_time:={use_sim_time}'
    )
    wait_until_serving(graph)
    graph.wait_until_moving()
    up.send(signal.SIGINT)
    assert graph.wait_for_exit(up) == 0
    wait_until_gone(graph, pids)
    assert not graph.excess().excess.any
    assert 'Traceback' not in up.output()


def test_when_a_node_is_killed_expect_it_named_exit_code_1_and_the_others_ended(
    graph, reach_bundle
):
    up, pids = start_up(graph, reach_bundle)
    wait_until_serving(graph)
    os.kill(pids['inference'], signal.SIGKILL)
    assert graph.wait_for_exit(up) == 1
    assert 'up: inference ended by itself: signal SIGKILL; ended the others' in up.output()
    wait_until_gone(graph, pids)


def test_when_up_itself_is_killed_expect_no_node_left_behind(graph, reach_bundle):
    up, pids = start_up(graph, reach_bundle)
    wait_until_serving(graph)
    up.kill()
    wait_until_gone(graph, pids)


def test_when_a_node_cannot_configure_expect_up_to_end_naming_it_and_the_reason(
    graph, reach_bundle, tmp_path
):
    broken = tmp_path / 'broken'
    broken.mkdir()
    for file in reach_bundle.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = bytearray((broken / 'weights.bin').read_bytes())
    weights[len(weights) // 2] ^= 1
    (broken / 'weights.bin').write_bytes(weights)
    up, pids = start_up(graph, broken)
    assert graph.wait_for_exit(up) == 1
    (line,) = [text for text in up.output().splitlines() if '[ERROR]' in text]
    assert f'{broken}/weights.bin: has been changed' in line
    assert 'up: inference ended by itself: exit code 1' in up.output()
    wait_until_gone(graph, pids)
    assert graph.chunks == []


def test_when_the_graph_runs_expect_the_topics_and_services_of_the_readme(graph, reach_bundle):
    start_up(graph, reach_bundle)
    wait_until_serving(graph)
    node = graph.node
    # A node's topics may be known before its name is.
    graph.wait(lambda: {'guard', 'inference'} <= set(node.get_node_names()), 'both names')
    running = dict(node.get_topic_names_and_types())
    running |= dict(node.get_service_names_and_types())
    named = readme_table()
    assert len(named) > 15
    wrong = {
        name: running.get(name, 'nothing')
        for name, kind in named.items()
        if not any(re.search(f'(^|/){kind}$', have) for have in running.get(name, ()))
    }
    assert wrong == {}
    own = {
        name
        for name, _ in node.get_publisher_names_and_types_by_node('guard', '/')
        + node.get_publisher_names_and_types_by_node('inference', '/')
        if name not in ('/rosout', '/parameter_events')
        and not name.endswith('/transition_event')
        and '/_action/' not in name
    }
    assert own <= set(named)


def readme_table():
    """Return absolute name -> type of the README's table of topics and services."""
    named = {}
    for line in README.read_text(encoding='utf-8').splitlines():
        cells = [cell.strip() for cell in line.strip('|').split('|')]
        if len(cells) != 3 or '→' not in cells[2] or not cells[0].startswith('`'):
            continue
        names = re.findall(r'`([^`]+)`', cells[0])
        kinds = re.findall(r'\b(?:[a-z_]+_msgs/|std_srvs/)?([A-Z]\w+)', cells[1])
        prefix = names[0].rpartition('/')[0]
        for name in names:
            full = name if '/' in name or len(names) == 1 else f'{prefix}/{name}'
            full = full.replace('<camera>', 'front')
            kind = kinds[min(names.index(name), len(kinds) - 1)]
            if cells[1].startswith('action '):  # ROS makes services and topics of it
                full, kind = f'{full}/_action/get_result', f'{kind}_GetResult'
            named['/' + full.lstrip('/')] = kind
    return named


