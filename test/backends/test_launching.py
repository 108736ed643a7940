# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""How kernels are launched and their measuring is kept, without a card to launch them on."""

import json

import pytest

torch = pytest.importorskip('torch')

from vla_deploy.backends.triton_launch import PLAIN, Launcher  # noqa: E402
from vla_deploy.backends.tuning import (  # noqa: E402
    Tuning,
    cache_path,
    default,
    keep_tuning,
    load_tuning,
)
from vla_deploy.pipeline import PolicyError  # noqa: E402

CARD, KEY, SIZES = 'no such card', 'linear-64-8-96', (64, 8, 96)


class Kernel:
    """Keeps the constants that it is launched with."""

    def __init__(self):
        self.launched = []

    def __getitem__(self, _grid):
        return lambda *_arguments, **constants: self.launched.append(constants)


@pytest.mark.parametrize('waits', [True, False])
def test_when_a_kernel_does_not_wait_itself_expect_it_not_to_start_early(waits):
    launcher, kernel = Launcher(overlap=True), Kernel()
    launcher._launch(kernel, (1,), PLAIN, (), PDL=waits)
    assert kernel.launched[0].get('launch_pdl', False) == waits


def test_when_a_kernel_follows_another_stream_expect_it_neither_to_wait_nor_to_start_early():
    launcher, kernel = Launcher(overlap=True), Kernel()
    launcher._set_apart()
    for _ in range(2):
        launcher._launch(kernel, (1,), PLAIN, (), PDL=True)
    assert [(c['PDL'], c.get('launch_pdl', False)) for c in kernel.launched] == [
        (False, False), (True, True),
    ]  # fmt: skip


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('VLA_DEPLOY_CACHE', str(tmp_path / 'cache'))
    return cache_path(CARD, torch.bfloat16)


def measured():
    tuning = Tuning()
    tuning.set(KEY, [(1.0, default('linear', SIZES, torch.bfloat16))])
    return tuning


def test_when_kernels_were_measured_expect_the_next_start_to_know_them(cache):
    keep_tuning(measured(), cache)
    assert load_tuning(CARD, torch.bfloat16).knows(KEY)


def test_when_measures_cannot_be_written_expect_a_warning_that_names_the_file(cache):
    cache.parent.parent.mkdir()
    cache.parent.write_text('in the way')
    with pytest.warns(UserWarning, match=f'{cache.name}: cannot be written.*VLA_DEPLOY_CACHE'):
        keep_tuning(Tuning(), cache)


@pytest.mark.parametrize('content', ['', '{"linear": ', '[1]', '{"linear": [1]}',
                                     '{"linear": "abcdef"}', '{"linear": null}'])  # fmt: skip
def test_when_the_table_is_damaged_expect_its_name_and_to_remove_it(cache, content):
    cache.parent.mkdir(parents=True)
    cache.write_text(content)
    with pytest.raises(PolicyError, match=f'{cache.name}: is not a table.*remove it'):
        load_tuning(CARD, torch.bfloat16)


def test_when_a_table_is_written_expect_plain_json_of_numbers(cache):
    keep_tuning(measured(), cache)
    assert all(isinstance(n, int) for n in json.loads(cache.read_text())[KEY])


class Twice(Kernel):
    """Keeps what it is launched with, in its order."""

    def __getitem__(self, grid):
        return lambda *arguments, **_constants: self.launched.append((grid, arguments))


def test_when_launches_were_recorded_expect_the_same_again_with_other_tensors():
    launcher, kernel = Launcher(overlap=False), Twice()
    x, y, z = torch.zeros(3, 4)

    def run():
        launcher._launch(kernel, (2,), PLAIN, (x, y, 0.5), PDL=False)
        launcher._launch(kernel, (3, 4), PLAIN, [y, x], PDL=False)
        return 'result'

    result, again = launcher.recorded(run)
    assert result == 'result'
    kernel.launched.clear()
    again([(x, z)])
    (first, given), (second, back) = kernel.launched
    assert (first, second) == ((2, 1, 1), (3, 4, 1))
    assert [id(own) for own in given[:2]] == [id(z), id(y)]
    assert [id(own) for own in back] == [id(y), id(z)]


def test_when_a_tensor_that_is_to_be_replaced_was_not_given_expect_an_error():
    launcher, kernel = Launcher(overlap=False), Twice()
    x, y, z = torch.zeros(3, 4)
    _, again = launcher.recorded(lambda: launcher._launch(kernel, (2,), PLAIN, (x,), PDL=False))
    with pytest.raises(RuntimeError, match='was not given to any kernel'):
        again([(x, z), (y, z)])


def test_when_a_recorded_function_fails_expect_later_launches_not_recorded():
    launcher, kernel = Launcher(overlap=False), Twice()

    def run():
        raise MemoryError

    with pytest.raises(MemoryError):
        launcher.recorded(run)
    launcher._launch(kernel, (2,), PLAIN, (), PDL=False)
    assert launcher._tape is None
