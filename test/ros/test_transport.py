# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Which Fast DDS profile a process uses, and what is in it."""

import os
import xml.etree.ElementTree as ElementTree

import pytest

from vla_deploy.ros.transport import (
    CONTROL,
    IMAGES,
    LOCALHOST_ONLY,
    PROFILES_FILE,
    RANGE,
    environment_with,
    use_profile,
)
from vla_deploy.share import share_directory

FOLDER = share_directory() / 'config' / 'fastdds'
NAMES = (CONTROL, IMAGES)


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch):
    for variable in (
        PROFILES_FILE, RANGE, LOCALHOST_ONLY, 'ROS_STATIC_PEERS', 'FASTDDS_BUILTIN_TRANSPORTS',
    ):  # fmt: skip
        monkeypatch.setenv(variable, '')  # so that it is as it was afterwards, unset or not
        monkeypatch.delenv(variable)


def elements(file, tag):
    root = ElementTree.parse(FOLDER / file).getroot()
    return [entry for entry in root.iter() if entry.tag.endswith(f'}}{tag}')]


@pytest.mark.parametrize('suffix', ['', '_localhost'])
@pytest.mark.parametrize(('name', 'expected'), [(CONTROL, {'UDPv4'}), (IMAGES, {'UDPv4', 'SHM'})])
def test_when_a_profile_is_for_control_expect_no_shared_memory_in_it(name, expected, suffix):
    kinds = {
        entry.findtext('{*}transport_id'): entry.findtext('{*}type')
        for entry in elements(f'{name}{suffix}.xml', 'transport_descriptor')
    }
    (used,) = elements(f'{name}{suffix}.xml', 'userTransports')
    assert {kinds[entry.text] for entry in used} == expected


@pytest.mark.parametrize('name', NAMES)
def test_when_a_profile_is_for_this_machine_expect_it_to_look_for_others_there_alone(name):
    (peers,) = elements(f'{name}_localhost.xml', 'initialPeersList')
    addresses = [entry.text for entry in peers.iter() if entry.tag.endswith('}address')]
    assert addresses == ['127.0.0.1']
    assert elements(f'{name}_localhost.xml', 'metatrafficUnicastLocatorList')  # so no multicast
    assert not elements(f'{name}.xml', 'initialPeersList')


@pytest.mark.parametrize('name', NAMES)
def test_when_nothing_is_chosen_expect_the_package_s_profile(name):
    assert use_profile(name) == ''
    assert os.environ[PROFILES_FILE] == str(FOLDER / f'{name}.xml')
    assert RANGE not in os.environ


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize(
    ('variable', 'value'),
    [(RANGE, 'LOCALHOST'), (RANGE, 'localhost'), (LOCALHOST_ONLY, '1')],
)
def test_when_the_range_is_this_machine_expect_the_profile_to_say_so_instead(
    monkeypatch, name, variable, value
):
    monkeypatch.setenv(variable, value)
    environment = environment_with(name)
    assert environment[PROFILES_FILE] == str(FOLDER / f'{name}_localhost.xml')
    assert environment[RANGE] == 'SYSTEM_DEFAULT'
    assert environment.get(LOCALHOST_ONLY, '0') == '0'


def test_when_the_process_that_started_it_has_chosen_expect_its_range_kept(monkeypatch):
    monkeypatch.setenv(RANGE, 'LOCALHOST')
    use_profile(CONTROL)
    environment = environment_with(IMAGES)
    assert environment[PROFILES_FILE] == str(FOLDER / 'images_localhost.xml')
    assert environment[RANGE] == 'SYSTEM_DEFAULT'


@pytest.mark.parametrize(
    ('reach', 'profile', 'expected'),
    [('', 'control_localhost', 'SYSTEM_DEFAULT'), ('SUBNET', 'control', 'SUBNET')],
)
def test_when_a_profile_of_this_machine_is_inherited_expect_no_multicast_unless_asked_for(
    monkeypatch, reach, profile, expected
):
    monkeypatch.setenv(PROFILES_FILE, str(FOLDER / 'images_localhost.xml'))
    monkeypatch.setenv(RANGE, reach)
    environment = environment_with(CONTROL)
    assert environment[PROFILES_FILE] == str(FOLDER / f'{profile}.xml')
    assert environment[RANGE] == expected


def test_when_profiles_differ_in_transports_expect_the_same_discovery_and_leases():
    said = {
        ElementTree.tostring(elements(path.name, 'discovery_config')[0]).strip()
        for path in FOLDER.glob('*.xml')
    }
    assert len(said) == 1


def test_when_peers_are_named_beside_localhost_expect_the_range_left_to_ros_and_a_warning(
    monkeypatch
):
    monkeypatch.setenv(RANGE, 'LOCALHOST')
    monkeypatch.setenv('ROS_STATIC_PEERS', '10.0.0.7')
    assert 'shared memory' in use_profile(CONTROL)
    assert os.environ[RANGE] == 'LOCALHOST'
    assert os.environ[PROFILES_FILE] == str(FOLDER / 'control.xml')
    assert use_profile(IMAGES) == ''


@pytest.mark.parametrize(
    ('variable', 'value'),
    [
        (PROFILES_FILE, '/etc/ours.xml'),
        (PROFILES_FILE, '/opt/ours/config/fastdds/control.xml'),
        ('FASTDDS_BUILTIN_TRANSPORTS', 'UDPv4'),
    ],
)
def test_when_the_user_has_chosen_expect_it_left_alone(monkeypatch, variable, value):
    monkeypatch.setenv(RANGE, 'LOCALHOST')
    monkeypatch.setenv(variable, value)
    assert environment_with(CONTROL) == dict(os.environ)


def test_when_the_middleware_is_another_expect_nothing_changed(monkeypatch):
    monkeypatch.setenv(RANGE, 'LOCALHOST')
    monkeypatch.setattr(
        'vla_deploy.ros.transport.get_rmw_implementation_identifier', lambda: 'rmw_cyclonedds_cpp'
    )
    assert environment_with(CONTROL) == dict(os.environ)
