# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The journal of the guard: a replay of it is the same to the bit, and what differs is told."""

import dataclasses
import json
import math
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz_guard import random_config, random_data
from guard_world import GuardState, World, fr3_limits
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vla_deploy.core.audit import AuditLog
from vla_deploy.core.audit_config import AuditConfig
from vla_deploy.core.audit_file import AuditError
from vla_deploy.core.canonical import canonical_json
from vla_deploy.core.chunk import Chunk
from vla_deploy.core.guard_io import Inputs, JointState, Outputs
from vla_deploy.core.journal import (
    JournalError,
    core_of,
    difference,
    genesis_of,
    read_genesis,
    read_journal,
    replay,
)
from vla_deploy.core.limits import JointLimit
from vla_deploy.core.plain import PlainError, from_plain, to_plain

WAIT_S = 30.0


class LoggedWorld(World):
    """A world whose guard keeps a journal."""

    def __init__(self, folder: Path, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        genesis = genesis_of(self.limits, self.config, {'urdf': 'a' * 64}, {'vla_deploy': '1'})
        self.log = AuditLog(folder, AuditConfig(log_fsync='never', log_queue_length=10000), genesis)
        step = self.core.step

        def logged(now_ros_ns: int, now_steady_ns: int, inputs: Inputs) -> Outputs:
            out = step(now_ros_ns, now_steady_ns, inputs)
            self.log.step(now_ros_ns, now_steady_ns, inputs, out)
            return out

        self.core.step = logged  # type: ignore[method-assign]
        self.judge.receive = lambda *_: None  # type: ignore[method-assign]  # judged elsewhere


def live(world: World, seed: int, ticks: int) -> None:
    """Some ticks of chunks of every kind, late ticks, stops, resets, jumps of the clock."""
    rng = np.random.default_rng(seed)
    world.arm()
    for _ in range(ticks):
        inputs: dict[str, Any] = {}
        if rng.random() < 0.2:
            period_s = float(rng.choice([0.01, 0.05, 0.1]))
            data = random_data(rng, world.robot_state(world.ros_ns)[0], period_s)
            inputs['chunks'] = (world.chunk(data, period_s, model_sha256='b' * 64),)
        for name, chance in (('disarm', 0.01), ('estop_request', 0.01), ('estop', 0.01),
                             ('description_changed', 0.005)):
            if rng.random() < chance:
                inputs[name] = True
        if world.core.state in (GuardState.DISARMED, GuardState.ESTOP_LATCHED, GuardState.FAULT):
            inputs['reset'] = inputs['arm'] = rng.random() < 0.1
        if rng.random() < 0.01:
            world.jump(float(rng.choice([-0.3, 0.3])))
        world.tick(world.config.period_s * float(2.0 ** rng.uniform(-1, 2)), **inputs)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_when_a_journal_is_replayed_expect_identical_commands_violations_and_states(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = random_config(np.random.default_rng(seed))
    world = LoggedWorld(tmp_path_factory.mktemp('journal') / 'log', config=config,
                        limits=fr3_limits(5.0))
    live(world, seed, 60)
    assert world.log.close(WAIT_S)
    core = core_of(read_genesis(world.log.folder))
    replayed = list(replay(core, read_journal(world.log.folder)))
    assert len(replayed) == len(world.outputs)
    for (step, again), first in zip(replayed, world.outputs, strict=True):
        assert difference(step, again) == ''
        assert repr(again.violations) == repr(first.violations)
        assert (again.trajectory is None) == (first.trajectory is None)
        if again.trajectory is not None and first.trajectory is not None:
            assert again.trajectory.times.tobytes() == first.trajectory.times.tobytes()
            assert again.trajectory.position.tobytes() == first.trajectory.position.tobytes()
            assert again.trajectory.velocity.tobytes() == first.trajectory.velocity.tobytes()
    assert core.counters == world.core.counters


@pytest.fixture(scope='module')
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    world = LoggedWorld(tmp_path_factory.mktemp('journal') / 'log')
    live(world, 3, 80)
    assert world.log.close(WAIT_S)
    return world.log.folder


def test_when_a_genesis_is_read_expect_the_limits_files_and_builds_that_were_in_force(
    logged: Path,
) -> None:
    genesis = read_genesis(logged)
    assert genesis.files == {'urdf': 'a' * 64}
    assert genesis.build == {'vla_deploy': '1'}
    core = core_of(genesis)
    assert core.limits.sha256 == genesis.limits_sha256 == fr3_limits().sha256
    assert core.limits.joints == fr3_limits().joints
    assert core.config == World().config


def test_when_the_limits_differ_expect_the_step_and_what_differs(logged: Path) -> None:
    genesis = read_genesis(logged)
    slow = tuple(dataclasses.replace(j, acceleration=1.0) for j in genesis.limits)
    core = core_of(dataclasses.replace(genesis, limits=slow))
    told = [difference(step, out) for step, out in replay(core, read_journal(logged))]
    first = next(text for text in told if text)
    assert 'was recorded, replayed' in first
    assert first.split(':')[0] in ('command', 'violations', 'verdicts')


def test_when_steps_were_lost_expect_the_replay_to_end_there_naming_the_record(
    tmp_path: Path,
) -> None:
    world = LoggedWorld(tmp_path / 'log')
    small = AuditLog(tmp_path / 'small', AuditConfig(log_queue_length=5),
                     genesis_of(world.limits, world.config, {}, {}))
    for _ in range(9):
        out = world.tick()
        small.step(world.ros_ns, world.steady_ns, Inputs(), out)
    assert small.close(WAIT_S)
    world.log.close(WAIT_S)
    journal = read_journal(small.folder)
    assert [next(journal).number for _ in range(5)] == [1, 2, 3, 4, 5]
    with pytest.raises(JournalError, match='record 6: 4 records were lost here'):
        next(journal)


FLOATS = st.floats(width=64)
ARRAYS = st.lists(st.lists(FLOATS, min_size=2, max_size=2), max_size=3).map(
    lambda rows: np.array(rows, np.float64).reshape(-1, 2))
TIMES = st.integers(-(2**62), 2**62)
CHUNKS = st.builds(Chunk, session_id=st.text(max_size=4), seq=st.integers(0, 2**64 - 1),
                   stamp_ns=TIMES, observation_stamp_ns=TIMES, valid_until_ns=TIMES,
                   period_s=FLOATS, control_mode=st.integers(0, 255),
                   joint_names=st.lists(st.text(max_size=3), max_size=2).map(tuple), data=ARRAYS,
                   anchor_position=ARRAYS, schema_version=st.integers(0, 9),
                   model_sha256=st.text(max_size=3))
STATES = st.builds(JointState, stamp_ns=TIMES, names=st.just(('a', 'b')), position=ARRAYS,
                   velocity=st.none() | ARRAYS)
INPUTS = st.builds(Inputs, chunks=st.lists(CHUNKS, max_size=2).map(tuple),
                   joint_state=st.none() | STATES)


@given(inputs=INPUTS, data=st.data())
def test_when_inputs_are_written_and_read_expect_every_field_as_it_was_to_the_bit(
    inputs: Inputs, data: st.DataObject
) -> None:
    """Every field, also one that is added to the inputs later."""
    scalars = {'bool': st.booleans(), 'int': st.integers(-9, 9), 'str': st.text(max_size=5)}
    others = {f.name: data.draw(scalars[str(f.type)], f.name) for f in dataclasses.fields(Inputs)
              if str(f.type) in scalars}
    inputs = dataclasses.replace(inputs, **others)
    plain = to_plain(inputs)
    again = from_plain(Inputs, json.loads(canonical_json(plain)))
    assert canonical_json(to_plain(again)) == canonical_json(plain)
    for name in others:
        assert getattr(again, name) == getattr(inputs, name)
    for chunk, first in zip(again.chunks, inputs.chunks, strict=True):
        assert chunk.data.tobytes() == first.data.tobytes()
        assert chunk.data.shape == first.data.shape
        assert repr(chunk.period_s) == repr(first.period_s)
    if inputs.joint_state is not None:
        assert again.joint_state is not None
        assert again.joint_state.position.tobytes() == inputs.joint_state.position.tobytes()


@dataclasses.dataclass(frozen=True)
class Odd:
    """Forms that are allowed, and not used by the journal in every combination."""

    pair: tuple[int, float] = (1, -0.0)
    table: dict[str, float] = dataclasses.field(default_factory=dict)
    limit: JointLimit | None = None
    number: float = 0.0
    state: GuardState = GuardState.HOLD


@pytest.mark.parametrize('value', [
    Odd(), Odd(number=-0.0), Odd(number=math.inf), Odd(pair=(2, 1e-320), table={'a': 5e-324}),
    Odd(state=GuardState.FAULT, limit=fr3_limits().joints[0]),
])
def test_when_a_value_is_written_and_read_expect_the_same(value: Odd) -> None:
    assert repr(from_plain(Odd, json.loads(canonical_json(to_plain(value))))) == repr(value)


@pytest.mark.parametrize(('plain', 'said'), [
    ({'numbr': 1.0}, "Odd has no 'numbr'"),
    ({'number': 'many'}, "'many' is not a number"),
    ({'number': True}, 'True is not a number'),
    ({'pair': [1]}, '1 values where 2 belong'),
    ({'pair': 3}, 'int where list belongs'),
    ({'table': []}, 'list where dict belongs'),
    ({'state': 77}, '77 is not a valid GuardState'),
    ({'limit': {'name': 'a'}}, 'missing'),
])
def test_when_a_plain_value_is_of_another_form_expect_it_named(
    plain: dict[str, Any], said: str
) -> None:
    with pytest.raises(PlainError, match=said):
        from_plain(Odd, plain)


@pytest.mark.parametrize('array', [None, ['<f8', [2], 'AAAA'], ['<f8', [1], '!'], ['?8', [0], '']])
def test_when_an_array_is_broken_expect_it_said(array: Any) -> None:
    with pytest.raises(PlainError, match='is not an array'):
        from_plain(JointState, {'stamp_ns': 1, 'names': [], 'position': array})


def test_when_the_type_of_arrays_is_an_alias_expect_them_written_and_read_as_arrays() -> None:
    """As numpy 2.5 makes NDArray on Python 3.12; elsewhere this stands for it."""
    class Alias:
        __value__ = NDArray[np.float64]
        __class_getitem__ = classmethod(types.GenericAlias)

    kind = dataclasses.make_dataclass('Measured', [('values', Alias[np.float64])])
    values = np.array([1.5, -0.0, math.nan])
    read = from_plain(kind, json.loads(canonical_json(to_plain(kind(values)))))
    assert read.values.tobytes() == values.tobytes()


def test_when_a_type_has_no_plain_form_expect_it_named_before_anything_is_written() -> None:
    @dataclasses.dataclass
    class Bad:
        value: bytes

    @dataclasses.dataclass
    class Either:
        value: int | str

    for bad in (Bad(b''), Either(1)):
        with pytest.raises(TypeError, match='has no plain form'):
            to_plain(bad)


@pytest.mark.parametrize(('record', 'said'), [
    ({'kind': 'genesis', 'format': 99}, 'record 0: is not the genesis of a journal of format 1'),
    ({'kind': 'genesis', 'format': 1}, 'record 0: is of another version'),
])
def test_when_a_genesis_is_of_another_version_expect_it_said(
    tmp_path: Path, record: dict[str, Any], said: str
) -> None:
    log = AuditLog(tmp_path / 'log', AuditConfig(), record)
    log.event('step', 0)
    log.close(WAIT_S)
    with pytest.raises(JournalError, match=said):
        read_genesis(log.folder)


def test_when_a_step_is_of_another_version_expect_its_record_named(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / 'log', AuditConfig(), {'kind': 'genesis'})
    log.event('x', 0, kind='step')
    log.close(WAIT_S)
    with pytest.raises(JournalError, match='record 1: is of another version'):
        list(read_journal(log.folder))
    assert issubclass(JournalError, AuditError)
