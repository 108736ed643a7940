# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Rules for every file of the project."""

import re

import pytest
from package_files import ROOT, source_files

HEADER = '# Copyright 2026 The vla_deploy authors\n# SPDX-License-Identifier: Apache-2.0\n'
MAX_LINES = 400
TEXT_SUFFIXES = {'.py', '.sh', '.md', '.yaml', '.xml', '.toml', '.cfg', '.in', '.txt', '.urdf',
                 '.msg', '.srv', '.action', '.json', '.c', ''}  # fmt: skip
# folders of somebody's machine; this pattern does not match itself
MACHINE_PATH = re.compile(r'(?<![\w.])/(?:work|root|home|tmp|Users)/[\w.]')


def ids(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize('path', source_files('*.py'), ids=ids)
def test_when_a_python_file_is_opened_expect_the_licence_header(path):
    text = path.read_text()
    if text.startswith('#!'):
        text = text.split('\n', 1)[1]
    assert text.startswith(HEADER)


@pytest.mark.parametrize('path', source_files('*.py'), ids=ids)
def test_when_a_python_file_is_opened_expect_no_more_than_400_lines(path):
    assert len(path.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize('path', source_files('*.sh'), ids=ids)
def test_when_a_script_is_opened_expect_the_licence_header(path):
    text = path.read_text()
    assert HEADER in text.split('\n', 1)[1] or text.startswith(HEADER)


def test_when_a_file_names_a_path_expect_none_of_one_machine():
    found = [
        f'{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}'
        for path in source_files()
        if path.suffix in TEXT_SUFFIXES and path.name != 'test_sources.py'
        for number, line in enumerate(path.read_text(errors='replace').splitlines(), start=1)
        if MACHINE_PATH.search(line)
    ]
    assert not found, '\n'.join(found)


def test_when_the_licence_is_stated_expect_its_text():
    assert 'Apache License' in (ROOT / 'LICENSE').read_text()[:200]
