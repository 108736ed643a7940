# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from vla_deploy.core.contract import Normalization, TokenizerSpec
from vla_deploy.pipeline.normalize import StatisticsError, VectorNormalizer, read_statistics
from vla_deploy.pipeline.observation import PromptError
from vla_deploy.pipeline.tokenize import PromptEncoder, TokenizerError, state_in_text

SPEC = TokenizerSpec(
    max_length=48, padding='max_length', pad_token_id=2, newline='none', prompt='instruction'
)
WITH_STATE = dataclasses.replace(SPEC, max_length=200, prompt='instruction_and_state')
STATE = np.float32([0.0, 0.5])
FLOATS = st.floats(-1e3, 1e3, width=32)


def normalizer(plain_contract, mode, first, second, epsilon=1e-8):
    names = {'mean_std': ('mean', 'std'), 'quantiles': ('q01', 'q99'), 'min_max': ('min', 'max')}
    spec = dataclasses.replace(
        plain_contract.state,
        normalization=Normalization(mode, epsilon),
        joints=None,
        units=None,
        dim=len(first),
    )
    arrays = [np.array(values, np.float32) for values in (first, second)]
    keys = [f'state.{name}' for name in names.get(mode, ('a', 'b'))]
    return VectorNormalizer('state', spec, dict(zip(keys, arrays, strict=True)))


def test_when_mean_std_expect_epsilon_forth_and_none_back(plain_contract):
    norm = normalizer(plain_contract, 'mean_std', [1.0, 1.0], [2e-8, 0.0])
    values = norm.normalize(np.array([1.0 + 2**-20, 1.0], np.float32))
    assert values[0] == pytest.approx(2**-20 / 3e-8, rel=1e-6)
    assert values[1] == 0.0
    assert (norm.unnormalize(np.array([1e6, 5.0], np.float32)) == np.float32([1.02, 1.0])).all()


@pytest.mark.parametrize('mode', ['quantiles', 'min_max'])
def test_when_bounded_expect_ends_at_one_and_no_clipping(plain_contract, mode):
    norm = normalizer(plain_contract, mode, [-2.0, 3.0], [6.0, 3.0])
    assert norm.normalize(np.float32([-2, 3])).tolist() == [-1.0, -1.0]
    assert norm.normalize(np.float32([10, 3]))[0] == 2.0
    # an empty range is replaced by the epsilon
    assert norm.normalize(np.float32([0, 3 + 2**-20]))[1] == pytest.approx(
        2 * 2**-20 / 1e-8 - 1, rel=1e-6
    )


@given(st.lists(st.tuples(FLOATS, st.floats(0.125, 100, width=32), FLOATS), min_size=1, max_size=7))
@pytest.mark.parametrize('mode', ['identity', 'mean_std', 'quantiles', 'min_max'])
def test_when_normalized_and_back_expect_the_same(plain_contract, mode, rows):
    first, width, values = (np.array(column, np.float32) for column in zip(*rows, strict=True))
    norm = normalizer(plain_contract, mode, first, width if mode == 'mean_std' else first + width)
    back = norm.unnormalize(norm.normalize(values))
    assert back.dtype == np.float32
    assert np.abs(back - values).max() <= 1e-2


def test_when_padded_expect_zeros_behind(plain_contract):
    norm = normalizer(plain_contract, 'mean_std', [1.0], [1.0])
    assert norm.normalize_padded(np.float32([3])).tolist() == [2.0] + [0.0] * 7


@pytest.mark.parametrize(
    ('statistics', 'message'),
    [
        ({}, r'state\.mean is missing'),
        ({'state.mean': np.zeros(7, np.float32)}, r'state\.std is missing'),
        ({'state.mean': np.zeros(6, np.float32)}, r'state\.mean must be float32 \[7\]'),
        ({'state.mean': np.zeros(7)}, r'state\.mean must be float32 \[7\], not float64'),
        (
            {'state.mean': np.full(7, np.nan, np.float32)},
            r'state\.mean holds a value that is not finite',
        ),
        (
            {'state.mean': np.zeros(7, np.float32), 'state.std': np.full(7, -1, np.float32)},
            r'state\.std is negative',
        ),
    ],
)
def test_when_statistics_cannot_be_right_expect_error_naming_them(
    plain_contract, statistics, message
):
    with pytest.raises(StatisticsError, match=message):
        VectorNormalizer('state', plain_contract.state, statistics)


def test_when_statistics_file_is_damaged_expect_error_naming_it(tmp_path):
    path = tmp_path / 'normalizer.safetensors'
    path.write_bytes(b'nothing of the kind')
    with pytest.raises(StatisticsError, match=r'normalizer\.safetensors: cannot be read'):
        read_statistics(path)


@pytest.fixture
def tokenizer_file(plain_bundle):
    return plain_bundle() / 'tokenizer.json'


def test_when_newline_is_appended_expect_it_once(tokenizer_file):
    spec = dataclasses.replace(SPEC, newline='append_if_missing')
    encode, plain = PromptEncoder(tokenizer_file, spec), PromptEncoder(tokenizer_file, SPEC)
    assert (encode('open it', STATE).ids == plain('open it\n', STATE).ids).all()
    assert (encode('open it\n', STATE).ids == plain('open it\n', STATE).ids).all()
    assert (plain('open it', STATE).ids != plain('open it\n', STATE).ids).any()


@pytest.mark.parametrize('fewer', [0, 1, 3])
def test_when_text_is_longer_than_allowed_expect_it_cut_on_the_right(tokenizer_file, fewer):
    whole = PromptEncoder(tokenizer_file, SPEC)('pick up the red cube', STATE)
    count = int(whole.mask.sum())
    spec = dataclasses.replace(SPEC, max_length=count - fewer)
    cut = PromptEncoder(tokenizer_file, spec)('pick up the red cube', STATE)
    assert cut.truncated == (fewer > 0)
    assert (cut.ids == whole.ids[: count - fewer]).all()
    assert cut.mask.all()


def test_when_text_is_short_expect_padding_on_the_right(tokenizer_file):
    prompt = PromptEncoder(tokenizer_file, SPEC)('a', STATE)
    count = int(prompt.mask.sum())
    assert prompt.mask[:count].all()
    assert (prompt.ids[count:] == 2).all()
    assert not prompt.truncated


def test_when_texts_alternate_expect_each_its_own_tokens(tokenizer_file):
    encode = PromptEncoder(tokenizer_file, SPEC)
    first, second, again = (encode(text, STATE) for text in ('red', 'blue', 'red'))
    assert (first.ids == again.ids).all()
    assert (first.ids != second.ids).any()


def test_when_tokenizer_file_is_damaged_expect_error_naming_it(tmp_path):
    path = tmp_path / 'tokenizer.json'
    path.write_text('{}')
    with pytest.raises(TokenizerError, match=r'tokenizer\.json: is not a tokenizer'):
        PromptEncoder(path, SPEC)


def test_when_pad_token_is_not_in_the_vocabulary_expect_error(tokenizer_file):
    with pytest.raises(TokenizerError, match='pads with token 1000000'):
        PromptEncoder(tokenizer_file, dataclasses.replace(SPEC, pad_token_id=1_000_000))


def test_when_a_token_is_beyond_the_embedding_expect_error_naming_that_part_of_the_text(
    tokenizer_file,
):
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    rows = tokenizer.get_vocab_size()
    tokenizer.add_special_tokens(['<picture>'])
    tokenizer.save(str(tokenizer_file))
    encode = PromptEncoder(tokenizer_file, SPEC, known=rows)
    with pytest.raises(PromptError, match=f"'<picture>' is token {rows}, .* the first {rows};"):
        encode('open <picture> it', STATE)
    assert not encode('open it', STATE).truncated
    cut = PromptEncoder(tokenizer_file, dataclasses.replace(SPEC, max_length=1), known=rows)
    assert cut('open it <picture>', STATE).truncated  # what is cut off is not given


def test_when_the_padding_is_beyond_the_embedding_expect_error(tokenizer_file):
    with pytest.raises(TokenizerError, match='pads with token 2, but the policy knows only the f'):
        PromptEncoder(tokenizer_file, SPEC, known=2)


@pytest.mark.parametrize(
    ('value', 'printed'),
    [
        (-1.0, '0'), (np.nextafter(np.float32(-1), np.float32(-2)), '-1'), (-7.0, '-1'),
        (0.0, '128'), (-1 + 1 / 128, '1'), (0.999, '255'), (1.0, '255'), (1e30, '255'),
    ],
)
def test_when_state_is_in_the_text_expect_its_bin(value, printed):
    text = state_in_text(' open_the\ndrawer ', np.float32([0.0, value]))
    assert text == f'Task: open the drawer, State: 128 {printed};\nAction: '


def test_when_prompt_is_the_instruction_expect_the_state_not_in_it(tokenizer_file):
    plain = PromptEncoder(tokenizer_file, SPEC)
    with_state = PromptEncoder(tokenizer_file, WITH_STATE)
    assert (plain('open', STATE).ids == plain('open', -STATE).ids).all()
    assert (with_state('open', STATE).ids != with_state('open', -STATE).ids).any()


def test_when_text_is_cut_expect_the_state_lost_only_where_it_reaches_the_cut(tokenizer_file):
    whole = PromptEncoder(tokenizer_file, WITH_STATE)('open it', STATE)
    count = int(whole.mask.sum())
    lost = []
    for length in range(count, count // 2, -1):
        spec = dataclasses.replace(WITH_STATE, max_length=length)
        prompt = PromptEncoder(tokenizer_file, spec)('open it', STATE)
        assert prompt.truncated == (length < count)
        text = PromptEncoder(tokenizer_file, spec)._tokenizer.decode(prompt.ids[:length].tolist())
        assert prompt.state_lost == ('State: 128 192' not in text)
        lost.append(prompt.state_lost)
    assert not lost[1]  # only the end of "Action: " is cut
    assert lost[-1]
