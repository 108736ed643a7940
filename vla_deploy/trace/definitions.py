# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Message definitions: the .msg text that stands in a bag, and the fields that it declares."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

from vla_deploy.files import FileError, read_text

SEPARATOR = '=' * 80
PRIMITIVES = frozenset(
    ('bool', 'byte', 'char', 'int8', 'uint8', 'int16', 'uint16', 'int32', 'uint32', 'int64',
     'uint64', 'float32', 'float64', 'string')
)  # fmt: skip
_FIELD = re.compile(
    r'^(?P<type>[A-Za-z][\w/]*)(?:<=\d+)?(?P<array>\[(?:<=)?\d*\])?\s+(?P<name>[a-z]\w*)'
)
_CONSTANT = re.compile(r'^[A-Za-z]\w*(?:<=\d+)?\s+[A-Z]\w*\s*=')


class DefinitionError(ValueError):
    """A message definition is missing or cannot be read; the text names the type."""


@dataclass(frozen=True)
class Field:
    """One field: `kind` is a primitive or `package/msg/Name`; `count` is None for one value, the
    length of a fixed array, or -1 for a sequence."""

    name: str
    kind: str
    count: int | None


def parse_fields(text: str, package: str) -> list[Field]:
    """Return the fields of one .msg text; raises DefinitionError with the line that is wrong."""
    fields = []
    for line in text.splitlines():
        code = line.split('#', 1)[0].strip()
        if not code or _CONSTANT.match(code):
            continue
        found = _FIELD.match(code)
        if found is None:
            raise DefinitionError(f'cannot read the line {line.strip()!r}')
        array = found['array']
        size = array.strip('[]') if array else ''
        count = None if not array else int(size) if size.isdigit() else -1
        fields.append(Field(found['name'], _full_name(found['type'], package), count))
    return fields


def split_definition(type_name: str, text: str) -> dict[str, list[Field]]:
    """Return the fields of a type and of each it depends on, by `package/msg/Name`."""
    sections = re.split(rf'^{SEPARATOR}\nMSG: (\S+)\n', text, flags=re.MULTILINE)
    texts = {type_name: sections[0]}
    for name, body in zip(sections[1::2], sections[2::2], strict=True):
        texts[_full_name(name, '')] = body
    try:
        return {name: parse_fields(body, name.split('/')[0]) for name, body in texts.items()}
    except DefinitionError as error:
        raise DefinitionError(f'{type_name}: {error}') from error


def installed_definition(type_name: str) -> tuple[str, str]:
    """Return the definition of an installed message type with all it depends on, as it stands in
    a bag, and its RIHS01 hash (empty where the ROS of this machine does not know hashes).

    Raises DefinitionError for a type without a .msg file, as those of actions.
    """
    return full_definition(type_name, _installed_text), _installed_hash(type_name)


def full_definition(type_name: str, text_of: Callable[[str], str]) -> str:
    """Return the text of a type followed by those it depends on, each once."""
    parts, waiting, seen = [text_of(type_name)], [type_name], {type_name}
    while waiting:
        name = waiting.pop(0)
        for field in parse_fields(text_of(name), name.split('/')[0]):
            if field.kind not in PRIMITIVES and field.kind not in seen:
                seen.add(field.kind)
                waiting.append(field.kind)
                short = field.kind.replace('/msg/', '/')
                parts.append(f'{SEPARATOR}\nMSG: {short}\n{text_of(field.kind)}')
    return '\n'.join(part.rstrip('\n') + '\n' for part in parts).replace('\n\n' + SEPARATOR,
                                                                        '\n' + SEPARATOR)


def _installed_text(type_name: str) -> str:
    path = _share_file(type_name, 'msg')
    try:
        return read_text(path)
    except FileError as error:
        raise DefinitionError(f'{type_name}: {error}') from error


def _installed_hash(type_name: str) -> str:
    path = _share_file(type_name, 'json')
    if not path.is_file():
        return ''
    hashes = json.loads(read_text(path)).get('type_hashes', [])
    return next((h['hash_string'] for h in hashes if h['type_name'] == type_name), '')


def _share_file(type_name: str, suffix: str) -> Path:
    try:
        package, folder, name = type_name.split('/')
        return Path(get_package_share_directory(package)) / folder / f'{name}.{suffix}'
    except (ValueError, PackageNotFoundError) as error:
        raise DefinitionError(f'{type_name}: no such message type is installed') from error


def _full_name(name: str, package: str) -> str:
    if name in PRIMITIVES:
        return name
    if name == 'Header':
        return 'std_msgs/msg/Header'
    parts = name.split('/')
    if len(parts) == 1:
        return f'{package}/msg/{name}'
    return f'{parts[0]}/msg/{parts[-1]}'
