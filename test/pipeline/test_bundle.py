# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vla_deploy.core.canonical import canonical_json
from vla_deploy.pipeline.bundle import FILES, BundleError, open_bundle, seal_receipt


def test_when_bundle_is_whole_expect_contract_and_digest(plain_bundle, plain_contract):
    folder = plain_bundle()
    bundle = open_bundle(folder)
    assert bundle.contract == plain_contract
    assert bundle.model_sha256 == json.loads((folder / 'receipt.json').read_text())['self_sha256']


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_when_any_byte_of_any_file_is_changed_expect_refusal_naming_the_file(
    plain_bundle, tmp_path, data
):
    pristine = tmp_path / 'pristine'
    if not pristine.exists():
        plain_bundle(name='pristine')
    folder = tmp_path / 'changed'
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(pristine, folder)
    path = folder / data.draw(st.sampled_from(FILES))
    content = bytearray(path.read_bytes())
    index = data.draw(st.integers(0, len(content) - 1))
    content[index] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(BundleError) as error:
        open_bundle(folder)
    assert str(error.value).startswith(f'{path}: ')
    assert 'changed' in str(error.value)


@pytest.mark.parametrize('name', FILES)
def test_when_file_is_missing_expect_refusal_naming_it(plain_bundle, name):
    folder = plain_bundle()
    (folder / name).unlink()
    with pytest.raises(BundleError) as error:
        open_bundle(folder)
    assert str(error.value).startswith(f'{folder / name}: ')


@pytest.mark.parametrize('name', ['extra.bin', '.hidden', 'folder/'])
def test_when_something_else_is_in_the_folder_expect_refusal_naming_it(plain_bundle, name):
    folder = plain_bundle()
    if name.endswith('/'):
        (folder / name).mkdir()
    else:
        (folder / name).write_bytes(b'')
    with pytest.raises(BundleError, match='is not listed'):
        open_bundle(folder)


def test_when_file_grows_by_one_byte_expect_refusal(plain_bundle):
    folder = plain_bundle()
    with open(folder / 'weights.bin', 'ab') as file:
        file.write(b'\0')
    with pytest.raises(BundleError, match=r'weights\.bin: has been changed'):
        open_bundle(folder)


def test_when_receipt_lists_too_few_files_expect_refusal(plain_bundle):
    folder = plain_bundle()
    receipt = json.loads((folder / 'receipt.json').read_text())
    del receipt['files']['weights.bin']
    (folder / 'receipt.json').write_bytes(seal_receipt(receipt))
    with pytest.raises(BundleError, match=r'does not list weights\.bin'):
        open_bundle(folder)


def test_when_receipt_says_the_same_in_other_bytes_expect_refusal(plain_bundle):
    folder = plain_bundle()
    receipt = json.loads((folder / 'receipt.json').read_text())
    (folder / 'receipt.json').write_bytes(canonical_json(receipt) + b'\n')
    with pytest.raises(BundleError, match=r'receipt\.json: has been changed'):
        open_bundle(folder)


def test_when_sealed_contract_is_wrong_expect_error_naming_file_and_key(plain_bundle, seal_bundle):
    folder = plain_bundle()
    text = (folder / 'contract.yaml').read_text().replace('chunk_steps: 6', 'chunk_steps: 0')
    (folder / 'contract.yaml').write_text(text)
    seal_bundle(folder)
    with pytest.raises(BundleError, match=r'contract\.yaml: chunk_steps is 0'):
        open_bundle(folder)


def test_when_path_is_not_a_folder_expect_error(tmp_path):
    with pytest.raises(BundleError, match='is not a folder'):
        open_bundle(tmp_path / 'nothing')
