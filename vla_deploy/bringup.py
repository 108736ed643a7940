# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The bring-up description: which processes a robot consists of, and their exact commands.

`ros2 run vla_deploy up ROBOT` and `ros2 launch vla_deploy ROBOT.launch.py` both start what
`bring_up` returns and nothing else, so they cannot differ. A robot is a folder `config/<robot>/`
with `bringup.yaml`.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_deploy.core.parameter import (
    Parameter,
    ParameterError,
    config_from_mapping,
    parameter,
    parameters_of,
)
from vla_deploy.files import read_yaml
from vla_deploy.share import share_directory

# A process that is to become ready and is not by then is a failure.
READY_TIMEOUT_S = 30.0
# Executables whose topics and parameters make a run explainable.
_RECORDED = ('guard', 'inference')
# Those that a description may name; the recorder is added where a run is recorded.
_EXECUTABLES = ('guard', 'inference', 'sim_robot')
_NODE_NAME = re.compile('[A-Za-z_][A-Za-z0-9_]*')


@dataclass(frozen=True)
class BringUpOptions:
    """Arguments of a bring-up, the same for `up` (`name:=value`) and for launch files."""

    sim: bool = parameter(False, 'Start the simulated robot, and arm the guard by itself.')
    instruction: str = parameter('', 'Text to follow from the start; empty: wait for the topic.')
    bundle: str = parameter(
        '', "Folder of the exported policy; empty: the robot's own, exported at first use."
    )
    backend: str = parameter('onnx_runtime', 'What computes the policy.')
    provider: str = parameter('cpu', 'Where it computes, as cpu or cuda; never another one.')
    precision: str = parameter(
        'fp32', 'In which precision: fp32, tf32, bf16, fp16, fp8 or int8, if the bundle has it.'
    )
    variant: str = parameter('split', 'Form of the graphs: split, unrolled or loop.')
    inference: bool = parameter(
        True, 'Start inference; false: robot and guard only, for chunks that come from elsewhere.'
    )
    record: bool = parameter(
        False, 'Record all that the nodes say and hear into a bag (docs/traces.md).'
    )
    record_directory: str = parameter('traces', 'Folder in which a recorded run makes its bag.')
    record_images: str = parameter(
        'full',
        'Images in the bag: whole, as digests, or not at all.',
        choices=('full', 'hashed', 'none'),
    )
    accept_placeholder_limits: bool = parameter(
        False,
        'Let the guard become active although limits are placeholders, not ratings of the robot; '
        'with sim:=true it does so anyway.',
    )
    use_sim_time: bool = parameter(
        False, 'Follow /clock. With sim:=true the simulation publishes it.'
    )
    sched_fifo_priority: int = parameter(
        50, 'SCHED_FIFO priority of the guard; 0: leave the scheduler alone.', minimum=0, maximum=99
    )
    log_folder: str = parameter(
        '',
        'Folder for the audit logs of the guard, one folder each; empty: $ROS_HOME/vla_deploy, '
        'where ROS_HOME is ~/.ros unless set. none: no log.',
    )


@dataclass(frozen=True)
class Process:
    """One process of a bring-up. `command` is complete; `environment` is added to the parent's.

    `ready`: what it prints when those behind it may start; empty: they start at once.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    ready: str = ''


def robots() -> list[str]:
    """Return the names of the robots that can be brought up."""
    described = sorted((share_directory() / 'config').glob('*/bringup.yaml'))
    return [path.parent.name for path in described]


def read_description(path: Path) -> dict[str, Any]:
    """Read a `bringup.yaml`; raise ParameterError naming the file and a key that is wrong."""
    description = read_yaml(path)
    _check_keys(path, '', description, ('urdf', 'limits', 'processes'), ('policy',))
    processes = description['processes']
    for index, process in enumerate(processes):
        if not isinstance(process, Mapping):
            raise ParameterError(f'{path}: processes[{index}] must be a mapping with keys as name '
                                 f'and executable, not {process!r}')
        _check_keys(
            path,
            f'processes.{process.get("name", "?")}.',
            process,
            ('name', 'executable', 'parameters', 'given'),
            ('only_in_sim', 'nice', 'remappings_on_robot', 'parameters_on_robot'),
        )
    names = [process['name'] for process in processes]
    for name in names:
        if names.count(name) > 1:
            raise ParameterError(f'{path}: processes: name {name!r} is given twice')
    guards = [process['name'] for process in processes if process['executable'] == 'guard']
    if len(guards) != 1:
        raise ParameterError(f'{path}: processes must have one with executable guard, not '
                             f'{len(guards)}')
    return description


def _check_keys(
    path: Path,
    where: str,
    values: Mapping[str, Any],
    required: tuple[str, ...],
    optional: tuple[str, ...],
) -> None:
    for key in values:
        if key not in required + optional:
            hint = _near(key, required + optional)
            raise ParameterError(f'{path}: unknown key {where}{key}{hint}')
    for key in required:
        if key not in values:
            raise ParameterError(f'{path}: missing key {where}{key}')
    for key, value in values.items():
        fits, wanted = _WANTED[key]
        if not fits(value):
            hint = _near(value, _EXECUTABLES) if key == 'executable' else ''
            raise ParameterError(f'{path}: {where}{key} must be {wanted}, not {value!r}{hint}')


def _near(given: Any, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(str(given), known, n=1)
    return f'; did you mean {near[0]!r}?' if near else ''


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ''


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(_is_text(value) for value in values)


def _are_remappings(values: Any) -> bool:
    return isinstance(values, dict) and _are_texts([*values, *values.values()])


def _is_niceness(value: Any) -> bool:
    return type(value) is int and -20 <= value <= 19


_FILE = (_is_text, 'a path as config/<robot>/guard.yaml')
# What each key of a `bringup.yaml` holds, and that in words.
_WANTED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    'urdf': _FILE,
    'limits': _FILE,
    'policy': _FILE,
    'processes': (lambda value: isinstance(value, list) and bool(value), 'a list of processes'),
    'name': (lambda value: isinstance(value, str) and bool(_NODE_NAME.fullmatch(value)),
             'a name of letters, digits and _'),
    'executable': (lambda value: value in _EXECUTABLES, f'one of {", ".join(_EXECUTABLES)}'),
    'parameters': _FILE,
    'parameters_on_robot': _FILE,
    'given': (_are_texts, 'a list of names'),
    'only_in_sim': (lambda value: isinstance(value, bool), 'true or false'),
    'nice': (_is_niceness, 'a whole number from -20 to 19'),
    'remappings_on_robot': (_are_remappings, 'a mapping of names to names'),
}


def options_from_arguments(arguments: list[str]) -> BringUpOptions:
    """Parse `name:=value` words; raise ParameterError naming the bad one."""
    values: dict[str, str] = {}
    for argument in arguments:
        name, separator, value = argument.partition(':=')
        if not separator:
            raise ParameterError(f'{argument!r} is not of the form name:=value')
        values[name] = value
    return options_from_texts(values)


def options_from_texts(texts: Mapping[str, str]) -> BringUpOptions:
    """Build options from texts, as launch gives them; raise ParameterError naming the bad one."""
    declared = {p.name: p for p in parameters_of(BringUpOptions)}
    values: dict[str, Any] = {
        name: _from_text(declared[name], text) if name in declared else text
        for name, text in texts.items()
    }
    return config_from_mapping(BringUpOptions, values)


def bring_up(robot: str, options: BringUpOptions, bundle: Path | None) -> list[Process]:
    """Return the processes of a robot, in the order in which they start.

    `bundle` may be None without inference. Raises ParameterError for a robot that is unknown.
    """
    share = share_directory()
    path = share / 'config' / robot / 'bringup.yaml'
    if not path.is_file():
        raise ParameterError(f'unknown robot {robot!r}; known: {", ".join(robots())}')
    description = read_description(path)
    given: dict[str, Any] = {
        'urdf_path': str(share / description['urdf']),
        'limits_path': str(share / description['limits']),
        'guard_parameters_path': _guard_parameters(share, description),
        'bundle': '' if bundle is None else str(bundle),
        'backend': options.backend,
        'provider': options.provider,
        'precision': options.precision,
        'variant': options.variant,
        'instruction': options.instruction,
        'use_sim_time': options.use_sim_time,
        'sched_fifo_priority': options.sched_fifo_priority,
        'simulated': options.sim,
        'auto_arm': options.sim,
        'accept_placeholder_limits': options.sim or options.accept_placeholder_limits,
        'clock': 'simulated' if options.use_sim_time else 'wall',
        'log_folder': _log_folder(options.log_folder),
        'robot': robot,
        'directory': str(Path(options.record_directory).absolute()),
        'images': options.record_images,
        'wait_for_recorder': True,
    }
    environment = _environment() if options.sim else {}
    entries = [
        entry
        for entry in description['processes']
        if (options.sim or not entry.get('only_in_sim', False))
        and (options.inference or entry['executable'] != 'inference')
    ]
    if options.record:
        recorder = _recorder(entries)
        given['nodes'] = [entry['name'] for entry in entries if entry['executable'] in _RECORDED]
        given['compressed_cameras'] = [
            camera for entry in entries if entry['executable'] == 'inference'
            for camera in _compressed_cameras(share, entry, options.sim)
        ]
        # The recorder starts first and ends last; inference waits until it listens.
        entries = [recorder, *map(_recorded, entries)]
    return [
        Process(
            entry['name'],
            _command(share, entry, given, options.sim),
            environment,
            entry.get('ready', ''),
        )
        for entry in entries
    ]


def _guard_parameters(share: Path, description: Mapping[str, Any]) -> str:
    """Return the parameter file of the robot's guard, for who judges by its rules."""
    (path,) = (p['parameters'] for p in description['processes'] if p['executable'] == 'guard')
    return str(share / path)


def _recorder(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the entry of the recorder, the same for every robot; it calls topics as they do."""
    remappings = {
        source: target
        for entry in entries
        for source, target in entry.get('remappings_on_robot', {}).items()
    }
    return {
        'name': 'recorder',
        'executable': 'recorder',
        'parameters': 'config/recorder.yaml',
        'given': ['robot', 'directory', 'images', 'nodes', 'bundle', 'urdf_path', 'limits_path',
                  'compressed_cameras'],
        'nice': 10,
        'ready': 'records into',  # so that nothing is said before it listens
        'remappings_on_robot': remappings,
    }


def _recorded(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the entry of a process in a run that is recorded."""
    if entry['executable'] != 'inference':
        return entry
    return {**entry, 'given': [*entry['given'], 'wait_for_recorder']}


def _compressed_cameras(share: Path, entry: Mapping[str, Any], sim: bool) -> list[str]:
    """Return the cameras that inference hears compressed: its recorder must hear the same."""
    cameras: list[str] = []
    for path in _parameter_files(share, entry, sim):
        for node, section in read_yaml(path).items():
            if node.lstrip('/') in ('**', '*', entry['name']) and isinstance(section, Mapping):
                given = section.get('ros__parameters') or {}
                cameras = given.get('compressed_cameras', cameras)
    return cameras


def own_policy(robot: str) -> Path:
    """Return the checkpoint that comes with a robot; raise ParameterError if there is none."""
    description = read_description(share_directory() / 'config' / robot / 'bringup.yaml')
    if not description.get('policy'):
        raise ParameterError(f'{robot} comes without a policy: give bundle:=FOLDER')
    return share_directory() / str(description['policy'])


def _log_folder(given: str) -> str:
    """Return where the guard logs: an absolute folder, or an empty text for no log."""
    if given == 'none':
        return ''
    default = Path(os.environ.get('ROS_HOME') or '~/.ros') / 'vla_deploy'
    return str(Path(given or default).expanduser().absolute())


def _command(
    share: Path, entry: Mapping[str, Any], given: Mapping[str, Any], sim: bool
) -> tuple[str, ...]:
    words = ['nice', '-n', str(entry['nice'])] if entry.get('nice') else []
    words += [sys.executable, '-m', f'vla_deploy.nodes.{entry["executable"]}', '--ros-args']
    words += ['-r', f'__node:={entry["name"]}']
    if not sim:
        for source, target in entry.get('remappings_on_robot', {}).items():
            words += ['-r', f'{source}:={target}']
    for path in _parameter_files(share, entry, sim):
        words += ['--params-file', str(path)]
    for name in entry['given']:
        if name not in given:
            raise ParameterError(
                f'{entry["name"]}: {name!r} is not given to processes; known: {", ".join(given)}'
            )
        # JSON is YAML, so a text that looks like a number or a flag stays a text.
        words += ['-p', f'{name}:={json.dumps(given[name])}']
    return tuple(words)


def _parameter_files(share: Path, entry: Mapping[str, Any], sim: bool) -> list[Path]:
    """Return the files with a process's parameters; a later one overrides."""
    keys = ('parameters',) if sim else ('parameters', 'parameters_on_robot')
    return [share / entry[key] for key in keys if key in entry]


def _environment() -> dict[str, str]:
    """Return what a graph on one machine needs."""
    return {
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        'PYTHONUNBUFFERED': '1',
    }


def _from_text(declared: Parameter, text: str) -> Any:
    kind = declared.python_type
    if kind is bool:
        if text.lower() not in ('true', 'false'):
            raise ParameterError(f'{declared.name} must be true or false, not {text!r}')
        return text.lower() == 'true'
    if kind is int:
        try:
            return int(text)
        except ValueError as error:
            raise ParameterError(f'{declared.name} must be a whole number, not {text!r}') from error
    return text
