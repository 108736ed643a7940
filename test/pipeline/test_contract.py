# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
import copy

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from vla_deploy.core.contract import Contract, ContractError


@pytest.fixture
def values(plain_contract):
    return copy.deepcopy(plain_contract.to_mapping())


def leaves(mapping, path=()):
    for key, value in mapping.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))


def at(mapping, path):
    for key in path:
        mapping = mapping[key]
    return mapping


def test_when_written_as_yaml_and_read_expect_the_same_contract(plain_contract):
    text = yaml.safe_dump(plain_contract.to_mapping())
    assert Contract.from_mapping(yaml.safe_load(text)) == plain_contract


@given(st.data())
def test_when_any_key_is_missing_expect_error_naming_it(plain_contract, data):
    values = copy.deepcopy(plain_contract.to_mapping())
    path = data.draw(st.sampled_from(list(leaves(values))))
    del at(values, path[:-1])[path[-1]]
    with pytest.raises(ContractError) as error:
        Contract.from_mapping(values)
    assert str(error.value) == f'missing key {".".join(path)}'


def test_when_key_is_misspelt_expect_error_with_the_nearest_known(values):
    values['action']['control_mod'] = 'position'
    with pytest.raises(ContractError) as error:
        Contract.from_mapping(values)
    assert 'action.control_mod;' in str(error.value)
    assert "did you mean 'control_mode'" in str(error.value)


@pytest.mark.parametrize(
    ('path', 'value', 'message'),
    [
        (('schema_version',), 4, 'schema_version is 4'),
        (('cameras',), [], 'cameras is empty'),
        (('tokenizer', 'prompt'), 'poem', "tokenizer.prompt is 'poem'"),
        (('image', 'placement'), 'stretch', "image.placement is 'stretch'"),
        (('image', 'height'), 0, 'image.height is 0'),
        (('image', 'value_high'), -1.0, 'image.value_low'),
        (('image', 'value_low'), float('nan'), 'image.value_low must be finite'),
        (('state', 'dim'), 9, 'state.dim is 9'),
        (('state', 'dim'), True, 'state.dim must be int'),
        (('state', 'joints'), ['a'], 'state.joints has 1 names'),
        (('state', 'joints'), ['a'] * 7, "state.joints names 'a' twice"),
        (('state', 'joints'), [''] * 7, 'state.joints holds an empty name'),
        (('image', 'value_low'), 1, 'image.value_low must be below'),
        (('state', 'joints'), 'abcdefg', 'state.joints must be a list'),
        (('state', 'normalization', 'mode'), 'zscore', "state.normalization.mode is 'zscore'"),
        (('state', 'normalization', 'epsilon'), -1.0, 'state.normalization.epsilon'),
        (('action', 'control_mode'), 'torque', "action.control_mode is 'torque'"),
        (('action', 'semantics'), 'sum', "action.semantics is 'sum'"),
        (('action', 'semantics'), 'delta', "delta_dims is [], but action.semantics is 'delta'"),
        (('action', 'delta_dims'), [0], "delta_dims is [0], but action.semantics is 'absolute'"),
        (('action', 'first_sample_offset_steps'), 2, 'action.first_sample_offset_steps'),
        (('action', 'units'), [3] * 7, 'action.units[0] must be str'),
        (('chunk_steps',), 0, 'chunk_steps is 0'),
        (('denoise_steps',), 10.0, 'denoise_steps must be int'),
        (('period_s',), 0.0, 'period_s is 0.0'),
        (('tokenizer', 'max_length'), 0, 'tokenizer.max_length is 0'),
        (('tokenizer', 'newline'), 'always', "tokenizer.newline is 'always'"),
        (('tokenizer', 'padding'), 'left', "tokenizer.padding is 'left'"),
        (('tokenizer', 'pad_token_id'), -1, 'tokenizer.pad_token_id is -1'),
        (('empty_camera_slots',), -1, 'empty_camera_slots is -1'),
        (('time_embedding', 'dim'), 7, 'time_embedding needs an even dim'),
        (('time_embedding',), None, 'time_embedding must be a mapping'),
        (('reserved_inputs',), ['prev_chunk'], "reserved_inputs is ['prev_chunk']"),
    ],
)
def test_when_value_cannot_be_right_expect_error_naming_the_key(values, path, value, message):
    at(values, path[:-1])[path[-1]] = value
    with pytest.raises(ContractError) as error:
        Contract.from_mapping(values)
    assert message in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('part', ['tokenizer', 'action'])
def test_when_a_part_of_an_older_contract_is_no_mapping_expect_it_named(values, part):
    values.update({'schema_version': 1, part: 'none'})
    with pytest.raises(ContractError, match=f'{part} must be a mapping'):
        Contract.from_mapping(values)


def test_when_contract_is_not_a_mapping_expect_error():
    with pytest.raises(ContractError, match='must be a mapping'):
        Contract.from_mapping([1, 2])


def test_when_two_cameras_share_a_name_expect_error(values):
    values['cameras'][1]['name'] = 'front'
    with pytest.raises(ContractError, match="cameras names 'front' twice"):
        Contract.from_mapping(values)


def test_when_robot_is_given_for_open_contract_expect_it_filled_in(values):
    for part in ('state', 'action'):
        values[part]['joints'] = values[part]['units'] = None
    values['period_s'] = None
    names = list('abcdefg')
    contract = Contract.from_mapping(values).with_robot(
        state_joints=names, action_joints=names, period_s=0.05
    )
    assert contract.state.joints == contract.action.joints == tuple(names)
    assert contract.period_s == 0.05
    assert contract.state.units is None


def test_when_other_joints_are_commanded_expect_an_action_of_those_alone(plain_contract):
    names = tuple('abcdefg')
    made = plain_contract.commanding(names)
    assert (made.action.joints, made.action.dim, made.action.units) == (names, 7, None)
    assert made.state == plain_contract.state
    with pytest.raises(ContractError, match='padded_dim'):
        plain_contract.commanding([f'joint{i}' for i in range(99)])


def test_when_cameras_are_left_out_expect_slots_for_them_all(values):
    values['empty_camera_slots'] = 2
    contract = Contract.from_mapping(values)
    assert contract.camera_names == tuple(camera['name'] for camera in values['cameras'])
    assert contract.camera_slots == len(values['cameras']) + 2


def test_when_robot_contradicts_the_contract_expect_error(plain_contract):
    with pytest.raises(ContractError, match='period_s is 0.1 in the contract, but 0.2 was given'):
        plain_contract.with_robot(period_s=0.2)
    with pytest.raises(ContractError, match=r'state\.joints is'):
        plain_contract.with_robot(state_joints=list('abcdefg'))


@pytest.mark.parametrize('version', [1, 2])
def test_when_contract_is_of_an_older_version_expect_what_all_were_then(
    plain_contract, values, version
):
    values['schema_version'] = version
    del values['action']['delta_dims']
    if version == 1:
        del values['tokenizer']['prompt']
    assert Contract.from_mapping(values) == plain_contract


@pytest.mark.parametrize('version', [1, 2])
def test_when_an_older_version_has_a_key_of_today_expect_a_refusal(values, version):
    values['schema_version'] = version
    with pytest.raises(ContractError, match=f'schema_version is {version}'):
        Contract.from_mapping(values)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'delta_dims': [7]}, 'delta_dims: 7 is no dim'),
        ({'delta_dims': [1, 1]}, 'delta_dims: 1 is no dim of state and action, or twice there'),
        ({'control_mode': 'velocity'}, "needs control_mode 'position'"),
        ({'joints': list('abcdefg')}, "delta_dims: 2 is 'c' in the action, but 'fr3_joint3'"),
    ],
)
def test_when_deltas_cannot_be_made_absolute_expect_an_error(values, changes, message):
    values['action'] |= {'semantics': 'delta', 'delta_dims': [2]} | changes
    with pytest.raises(ContractError, match=message):
        Contract.from_mapping(values)
