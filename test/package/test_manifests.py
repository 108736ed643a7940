# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""package.xml, setup.py and the locks in requirements/ say the same."""

import re
import sys
from importlib import metadata

import pytest
from package_files import (
    ROOT,
    declared_dependencies,
    imported_modules,
    locked,
    normalise,
    not_on_a_bare_machine,
    package_xml,
    set_names,
    setup_data,
    wanted,
)

import vla_deploy

FOLDERS = ('.', 'vla_deploy_msgs')
OWN = {'vla_deploy', 'vla_deploy_msgs'}
# names of package.xml that the package index spells otherwise
KEYS = {'python3-numpy': 'numpy', 'python3-yaml': 'pyyaml', 'python3-pytest': 'pytest'}
# what package.xml calls by the name of the group that the wheels leave out
GENERATORS = {'rosidl_default_runtime': 'ros-rosidl-default-runtime'}
SETUP = setup_data()
LOCKED = {name: set_name for set_name in set_names() for name in locked(set_name)}


def index_name(dependency):
    """Return the name under which the package index has a dependency of package.xml."""
    return KEYS.get(dependency, 'ros-' + normalise(dependency))


def bare_name(requirement):
    """Return the normalised name of a requirement."""
    return normalise(re.split(r'[^\w.-]', requirement)[0])


def declared_by_setup():
    """Return every name that setup.py requires, extras included."""
    lists = [SETUP['requires'], *SETUP['extras'].values()]
    return {bare_name(requirement) for names in lists for requirement in names}


@pytest.mark.parametrize('folder', FOLDERS)
def test_when_package_xml_names_a_dependency_expect_it_in_a_lock_or_on_the_list(folder):
    without = set(not_on_a_bare_machine()['package_xml'])
    missing = {
        name for name in declared_dependencies(folder) - OWN - without
        if index_name(name) not in LOCKED
    }  # fmt: skip
    assert not missing


def test_when_setup_py_requires_a_package_expect_it_in_a_lock_or_on_the_list():
    without = {normalise(name) for name in not_on_a_bare_machine()['setup_py']}
    assert declared_by_setup() - without <= set(LOCKED)


def test_when_a_name_is_on_the_list_expect_it_declared_explained_and_in_no_lock():
    without = not_on_a_bare_machine()
    assert set(without['package_xml']) <= declared_dependencies()
    assert {normalise(name) for name in without['setup_py']} <= declared_by_setup()
    for names in without.values():
        for name, reason in names.items():
            assert len(reason) > 15, name
            assert not {index_name(name), normalise(name)} & set(LOCKED), name


def test_when_serving_needs_a_package_expect_setup_py_to_require_the_same():
    assert {bare_name(name) for name in SETUP['requires']} == wanted('serve')


def test_when_the_simulation_needs_a_package_expect_setup_py_to_require_the_same():
    assert {bare_name(name) for name in SETUP['extras']['sim']} == wanted('sim')


def test_when_export_needs_a_package_expect_setup_py_to_require_the_same():
    of_torch = {bare_name(name) for name in metadata.requires('torch') if 'extra ==' not in name}
    declared = {bare_name(name) for name in SETUP['extras']['export']}
    assert declared - wanted('torch') == wanted('export') - of_torch


def test_when_torch_requires_a_package_expect_it_in_a_lock():
    of_torch = {bare_name(name) for name in metadata.requires('torch') if 'extra ==' not in name}
    assert of_torch <= set(LOCKED)


def test_when_tests_run_under_colcon_expect_pytest_among_the_extras():
    assert 'pytest' in {bare_name(name) for name in SETUP['extras']['test']}


def test_when_the_code_imports_a_package_expect_it_declared():
    imported = {
        name.split('.')[0]
        for path in (ROOT / 'vla_deploy').rglob('*.py') for name in imported_modules(path)
    } - set(sys.stdlib_module_names) - {'', '__future__', 'vla_deploy'}  # fmt: skip
    import_names = {'pyyaml': 'yaml', 'pillow': 'PIL'}
    declared = {import_names.get(n, n.replace('-', '_')) for n in declared_by_setup()}
    assert imported <= declared | declared_dependencies()


@pytest.mark.parametrize('set_name', set_names())
def test_when_a_set_wants_a_package_expect_it_locked(set_name):
    assert wanted(set_name) <= set(LOCKED)


@pytest.mark.parametrize('set_name', set_names())
def test_when_a_package_is_locked_expect_one_version_and_a_hash(set_name):
    entries = locked(set_name)
    assert entries
    for name, lines in entries.items():
        pins = [line for line in lines if not line.startswith(' ')]
        assert all(re.match(r'[\w.-]+==[\w.+]+( ; .*)? \\$', pin) for pin in pins), name
        hashes = [line for line in lines if line.startswith(' ')]
        assert len(hashes) >= len(pins), name
        assert all(re.match(r'    --hash=sha256:[0-9a-f]{64}( \\)?$', h) for h in hashes), name


@pytest.mark.parametrize('python', ['3.10', '3.11', '3.12'])
def test_when_several_sets_are_installed_expect_no_package_locked_twice(python):
    names = [
        name for set_name in set_names() for name, lines in locked(set_name).items()
        for line in lines if '==' in line.split(' ;')[0]
        and (' ; ' not in line or f'"{python}"' in line)
    ]  # fmt: skip
    assert len(names) == len(set(names))


def test_when_the_version_is_stated_expect_the_same_everywhere():
    versions = {package_xml(folder).findtext('version') for folder in FOLDERS}
    assert versions == {SETUP['version']} == {vla_deploy.__version__}


def test_when_the_maintainer_is_stated_expect_a_valid_address_everywhere():
    emails = {package_xml(folder).find('maintainer').get('email') for folder in FOLDERS}
    assert emails == {SETUP['email']}
    assert re.fullmatch(r'[\w.-]+@[\w-]+(\.[\w-]+)+', SETUP['email'])


def test_when_packages_are_installed_expect_each_folder_of_code():
    folders = {
        '.'.join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / 'vla_deploy').rglob('*.py')
    }
    assert folders == set(SETUP['packages'])
