# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Which Fast DDS profile a process uses, and what is in it."""

import os
import xml.etree.ElementTree as ElementTree

import pytest

from vla_deploy.ros.transport import (
    CONTROL,
    IMAGES,
    PROFILES_FILE,
    RANGE,
    environment_with,
    use_profile,
)  # fmt: skip
from vla_deploy.share import share_directory

FOLDER = share_directory() / 'config' / 'fastdds'
NAMES = (CONTROL, IMAGES)


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch):
    for variable in (
        PROFILES_FILE, RANGE, 'ROS_STATIC_PEERS',
        'FASTDDS_DEFAULT_PROFILES_FILE', 'FASTDDS_BUILTIN_TRANSPORTS',
    ):  # fmt: skip
        monkeypatch.delenv(variable, raising=False)


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
    use_profile(name)
    assert os.environ[PROFILES_FILE] == str(FOLDER / f'{name}.xml')
    assert RANGE not in os.environ


@pytest.mark.parametrize('name', NAMES)
def test_when_the_range_is_this_machine_expect_the_profile_to_say_so_instead(monkeypatch, name):
    monkeypatch.setenv(RANGE, 'LOCALHOST')
    environment = environment_with(name)
    assert environment[PROFILES_FILE] == str(FOLDER / f'{name}_localhost.xml')
    assert environment[RANGE] == 'SYSTEM_DEFAULT'


def test_when_the_process_that_started_it_has_chosen_expect_its_range_kept(monkeypatch):
    monkeypatch.setenv(RANGE, 'LOCALHOST')
    use_profile(CONTROL)
    environment = environment_with(IMAGES)
    assert environment[PROFILES_FILE] == str(FOLDER / 'images_localhost.xml')
    assert environment[RANGE] == 'SYSTEM_DEFAULT'


def test_when_peers_are_named_beside_localhost_expect_the_range_left_to_ros(monkeypatch):
    monkeypatch.setenv(RANGE, 'LOCALHOST')
    monkeypatch.setenv('ROS_STATIC_PEERS', '10.0.0.7')
    environment = environment_with(CONTROL)
    assert environment[RANGE] == 'LOCALHOST'
    assert environment[PROFILES_FILE] == str(FOLDER / 'control.xml')


@pytest.mark.parametrize(
    ('variable', 'value'),
    [
        (PROFILES_FILE, '/etc/ours.xml'),
        (PROFILES_FILE, '/etc/control.xml'),
        ('FASTDDS_DEFAULT_PROFILES_FILE', '/etc/ours.xml'),
        ('FASTDDS_BUILTIN_TRANSPORTS', 'UDPv4'),
    ],
)
def test_when_the_user_has_chosen_expect_it_left_alone(monkeypatch, variable, value):
    monkeypatch.setenv(RANGE, 'LOCALHOST')
    monkeypatch.setenv(variable, value)
    assert environment_with(CONTROL) == dict(os.environ)
