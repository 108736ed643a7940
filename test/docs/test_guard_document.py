# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""docs/guard.md says of rules, chunks and the log what the code says."""

import re
from pathlib import Path

from vla_deploy.cli.chunk_file import read_chunk

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / 'docs' / 'guard.md').read_text(encoding='utf-8')
# What makes a violation: the rule is the first argument, or the first of a returned triple.
MAKES = re.compile(
    r"(?:_refusal|_hold|Violation|report\.add)\(\s*'([a-z_]+)'|"
    r"return '([a-z_]+)', (?:f?'|name|self)"
)


def rules_of_code():
    files = [*(ROOT / 'vla_deploy' / 'core').glob('*.py'), ROOT / 'vla_deploy/ros/guard_audit.py']
    found = [MAKES.findall(path.read_text(encoding='utf-8')) for path in files]
    return {a or b for matches in found for a, b in matches} - {'disarming'}


def rules_of_document():
    tables = re.split(r'\n\n', TEXT)
    rows = [line for table in tables if table.startswith('| rule of') for line in
            table.splitlines()[2:]]
    return {rule for row in rows for rule in re.findall(r'`([a-z_]+)`', row.split('|')[1])}


def test_when_a_rule_exists_expect_it_explained_and_none_that_does_not():
    assert len(rules_of_code()) > 30
    assert rules_of_document() == rules_of_code()


def test_when_the_example_of_a_chunk_is_read_expect_it_accepted(tmp_path):
    (example,) = re.findall(r'```json\n(.*?)```', TEXT, re.DOTALL)
    path = tmp_path / 'chunk.json'
    path.write_text(example)
    chunk, measured = read_chunk(path)
    assert (chunk.joint_names, chunk.data.shape) == (('a', 'b'), (2, 2))
    assert measured is not None
