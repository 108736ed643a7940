# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Tests have a ROS domain each, also beside what a test that was killed has left behind."""

import os
import sys

from graph_process import Domain, GraphProcess


def test_when_a_process_outlives_its_test_expect_its_domain_not_given_to_another(tmp_path):
    domain = Domain()
    wait = [sys.executable, '-c', 'import signal; signal.pause()']
    process = GraphProcess(wait, tmp_path / 'log', dict(os.environ), domain)
    domain.release()  # as the end of the test's process does
    second = Domain()
    second.release()
    process.kill()
    third = Domain()
    third.release()
    assert second.number != domain.number
    assert third.number == domain.number
