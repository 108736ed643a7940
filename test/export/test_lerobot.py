# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Export compares with LeRobot itself where it is installed, and says which it did."""

from __future__ import annotations

from vla_deploy.export.lerobot import is_installed
from vla_deploy.pipeline.bundle import REPORT, open_bundle


def test_when_exported_expect_the_receipt_to_say_what_it_was_compared_with(golden_bundle):
    folder = golden_bundle('smolvla_3cam')
    reference = open_bundle(folder).receipt['reference']
    assert reference['reference']['lerobot'] == '0.6.1'
    report = (folder / REPORT).read_text(encoding='utf-8')
    if is_installed():
        assert reference['kind'] == 'direct comparison'
        assert reference['torch_chunk_max_abs'] <= 2e-6
        assert 'run on this checkpoint with its own processors' in report
    else:
        assert reference['kind'] == 'recorded cases'
        assert 'LeRobot cannot be imported' in reference['why_not_direct']
        assert reference['why_not_direct'] in report
