# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Strict reading of YAML and whole-or-nothing writing of files."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

MAX_YAML_BYTES = 1 << 20
MAX_TEXT_BYTES = 16 * 2**20  # a URDF with meshes inlined is far smaller


class FileError(ValueError):
    """A file cannot be read as what it should be; the one-line message names it."""


DEEPEST_FLOW = 50
"""Levels of [ and { within each other that are accepted; a thousand take seconds to refuse."""
LARGEST_INT = 2**64
"""Whole numbers beyond this are refused: nothing here has them, and a float may not hold them."""


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys, merge keys, keys that are not strings, and aliases:
    with those, a few lines can stand for more than any memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]
            line = event.start_mark.line + 1
            raise FileError(f'line {line}: aliases (*{event.anchor}) are not accepted')
        return super().compose_node(parent, index)

    def fetch_flow_collection_start(self, token_class: Any) -> None:
        if self.flow_level >= DEEPEST_FLOW:
            raise FileError(f'line {self.line + 1}: is nested too deeply')
        super().fetch_flow_collection_start(token_class)

    def construct_int(self, node: yaml.ScalarNode) -> int:
        value = self.construct_yaml_int(node)
        if abs(value) > LARGEST_INT:
            line = node.start_mark.line + 1
            raise FileError(f'line {line}: a whole number of {len(node.value)} digits')
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == 'tag:yaml.org,2002:merge':
                raise FileError(f'line {line}: merge keys (<<) are not accepted')
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise FileError(f'line {line}: key {key!r} is not a string')
            if key in seen:
                raise FileError(f'line {line}: key {key!r} is given twice')
            seen.add(key)
        return super().construct_mapping(node, deep)


_StrictLoader.add_constructor('tag:yaml.org,2002:int', _StrictLoader.construct_int)


class _PlainDumper(yaml.SafeDumper):
    """Writes no aliases, which the loader refuses."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def read_yaml(path: str | os.PathLike[str], max_bytes: int = MAX_YAML_BYTES) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping.

    Raises FileError, which names the file, and the line and key where there is one: not readable,
    larger than `max_bytes`, not UTF-8, not YAML, a key twice, a merge key, a key that is not a
    string, an alias, a whole number beyond LARGEST_INT, or a top level that is not a mapping.
    """
    data = read_bytes(path, max_bytes)
    try:
        parsed = yaml.load(data.decode('utf-8'), Loader=_StrictLoader)
    except FileError as error:
        raise FileError(f'{path}: {error}') from None
    except UnicodeDecodeError as error:
        raise FileError(f'{path}: is not UTF-8 at byte {error.start}') from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else '?'
        raise FileError(f'{path}: line {line}: is not YAML: {error.problem}') from None
    except yaml.YAMLError as error:
        first_line = str(error).splitlines()[0]
        raise FileError(f'{path}: is not YAML: {first_line}') from None
    except RecursionError:
        raise FileError(f'{path}: is nested too deeply') from None
    except ValueError as error:
        raise FileError(f'{path}: holds a value that cannot be read: {error}') from None
    if not isinstance(parsed, dict):
        raise FileError(f'{path}: must be a mapping of keys to values')
    return parsed


def read_bytes(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """Read a whole file of at most `max_bytes`; raises FileError, which names it."""
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # a pipe may keep us waiting
            raise FileError(f'{path}: is not a regular file')
        with open(path, 'rb') as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise FileError(f'{path}: cannot be read: {error.strerror}') from None
    if len(data) > max_bytes:
        raise FileError(f'{path}: is larger than {max_bytes} bytes')
    return data


def read_text(path: str | os.PathLike[str], max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Read a UTF-8 text of at most `max_bytes`, as a URDF; raises FileError, which names it."""
    try:
        return read_bytes(path, max_bytes).decode('utf-8')
    except UnicodeDecodeError as error:
        raise FileError(f'{path}: is not UTF-8 text: {error.reason}') from None


def yaml_text(values: Any) -> str:
    """Return values as YAML in their own order, without aliases and in block style."""
    return yaml.dump(
        values, Dumper=_PlainDumper, sort_keys=False, default_flow_style=False, width=10_000
    )


def write_yaml(path: str | os.PathLike[str], values: Mapping[str, Any]) -> None:
    """Write `values` as YAML in their own order, whole or not at all."""
    text = yaml.dump(
        dict(values), Dumper=_PlainDumper, sort_keys=False, default_flow_style=None,
        allow_unicode=True, width=100,
    )
    write_bytes(path, text.encode('utf-8'))


def check_writable(*paths: Path | None) -> None:
    """Raise OSError, which names the file, unless each could be written as things stand.

    For before the work whose result it is to take. None stands for a file that nobody asked for.
    """
    for path in paths:
        if path is None:
            continue
        if path.exists() and not path.is_file():  # a rename would fail, or replace a device
            raise OSError(errno.EEXIST, 'is not a regular file; name another', str(path))
        try:
            descriptor, temporary = _make_beside(path)
        except OSError as error:
            reason = f'cannot be written: {error.strerror}; its folder must be there and writable'
            raise OSError(error.errno, reason, str(path)) from None
        os.close(descriptor)
        os.unlink(temporary)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file through a temporary one beside it and a rename; OSError, which names `path`,
    leaves nothing."""
    try:
        _write_bytes(Path(path), data)
    except OSError as error:
        if error.errno is not None:
            error.filename = os.fspath(path)  # nobody knows the temporary one
        raise


def _make_beside(target: Path) -> tuple[int, str]:
    return tempfile.mkstemp(prefix=f'.{target.name}.', dir=target.parent)


def _write_bytes(target: Path, data: bytes) -> None:
    descriptor, temporary = _make_beside(target)
    try:
        with os.fdopen(descriptor, 'wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
