# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_deploy.core.canonical import canonical_json, parse_canonical_json
from vla_deploy.files import FileError, check_writable, read_yaml, write_bytes, write_yaml

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('a: 1\na: 2\n', "line 2: key 'a' is given twice"),
        ('a:\n  b: 1\n  b: 2\n', "line 3: key 'b' is given twice"),
        ('1: a\n', 'line 1: key 1 is not a string'),
        ('b:\n  <<: {a: 1}\n', 'line 2: merge keys'),
        ('- a\n', 'must be a mapping'),
        ('a: &x [1]\nb: *x\n', 'line 2: aliases (*x) are not accepted'),
        ('a: 1\nb: ' + '9' * 400, 'line 2: a whole number of 400 digits'),
        ('', 'must be a mapping'),
        ('a: [1\n', 'line 2: is not YAML'),
        ('a: !!python/object:os.system x\n', 'line 1: is not YAML'),
        ('a: 2026-13-45\n', 'holds a value that cannot be read'),
        pytest.param('a: ' + '[' * 500, 'is nested too deeply', id='nested'),
    ],
)
def test_when_yaml_is_not_strict_expect_one_line_naming_file_and_place(tmp_path, text, message):
    path = tmp_path / 'limits.yaml'
    path.write_text(text, encoding='utf-8')
    with pytest.raises(FileError) as error:
        read_yaml(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)
    assert '\n' not in str(error.value)


def test_when_file_is_not_utf8_expect_error_naming_the_byte(tmp_path):
    path = tmp_path / 'a.yaml'
    path.write_bytes(b'a: \xff\n')
    with pytest.raises(FileError, match='not UTF-8 at byte 3'):
        read_yaml(path)


def test_when_file_is_larger_than_allowed_expect_error(tmp_path):
    path = tmp_path / 'a.yaml'
    path.write_text('a: ' + 'x' * 100)
    assert read_yaml(path, max_bytes=103)
    with pytest.raises(FileError, match='larger than 102 bytes'):
        read_yaml(path, max_bytes=102)


def test_when_file_is_absent_expect_error_naming_it(tmp_path):
    with pytest.raises(FileError, match=r'gone\.yaml: cannot be read: No such file'):
        read_yaml(tmp_path / 'gone.yaml')


def test_when_mapping_is_written_expect_it_read_back_in_order(tmp_path):
    values = {'b': [1, 2.5, 'é'], 'a': {'x': None, 'y': True}}
    write_yaml(tmp_path / 'a.yaml', values)
    read = read_yaml(tmp_path / 'a.yaml')
    assert read == values
    assert list(read) == ['b', 'a']


def test_when_one_list_is_written_twice_expect_it_read_back_twice(tmp_path):
    same = [1, 2]
    write_yaml(tmp_path / 'a.yaml', {'a': same, 'b': same})
    assert read_yaml(tmp_path / 'a.yaml') == {'a': same, 'b': same}


def test_when_a_pipe_is_given_expect_it_refused_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    with pytest.raises(FileError, match='pipe: is not a regular file'):
        read_yaml(tmp_path / 'pipe')


def test_when_writing_fails_expect_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / 'a.bin'
    write_bytes(path, b'old')

    def fail(descriptor):
        raise OSError('disk is full')

    monkeypatch.setattr(os, 'fsync', fail)
    with pytest.raises(OSError, match='disk is full'):
        write_bytes(path, b'new')
    assert path.read_bytes() == b'old'
    assert [entry.name for entry in tmp_path.iterdir()] == ['a.bin']


@pytest.mark.parametrize('write', [lambda path: write_bytes(path, b''),
                                   lambda path: write_yaml(path, {}), check_writable])
def test_when_a_folder_is_missing_expect_the_error_to_name_the_file_asked_for(tmp_path, write):
    path = tmp_path / 'gone' / 'a.bin'
    with pytest.raises(FileNotFoundError) as error:
        write(path)
    assert error.value.filename == str(path)


def test_when_files_can_be_written_expect_the_check_to_leave_them_and_nothing_else(tmp_path):
    path = tmp_path / 'a.bin'
    path.write_bytes(b'old')
    check_writable(path, None, tmp_path / 'b.bin')
    assert path.read_bytes() == b'old'
    assert [entry.name for entry in tmp_path.iterdir()] == ['a.bin']


@pytest.mark.parametrize('make', [os.mkdir, os.mkfifo])
def test_when_what_is_there_is_no_file_expect_it_not_to_be_replaced(tmp_path, make):
    make(tmp_path / 'there')
    with pytest.raises(OSError, match='is not a regular file; name another'):
        check_writable(tmp_path / 'there')


@given(JSON)
def test_when_value_is_canonical_expect_it_back(value):
    data = canonical_json(value)
    assert parse_canonical_json(data) == value
    assert data.isascii()


@pytest.mark.parametrize(
    'data', [b'{"b":1,"a":2}', b'{"a": 1}', b'{"a":1}\n', b'{"a":1,"a":1}', b'{"a":NaN}', b'1.0e0']
)
def test_when_json_is_not_canonical_expect_refusal(data):
    with pytest.raises(ValueError, match=r'canonical|twice|JSON compliant'):
        parse_canonical_json(data)
