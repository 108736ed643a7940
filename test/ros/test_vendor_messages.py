# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Vendor messages: what is filled in, and that a missing package is named.

The vendor's package cannot be had here; what stands in for it has the fields of its messages.
"""

import sys
import types
from dataclasses import dataclass, field

import numpy as np
import pytest

from vla_deploy.core.outputs import Output, OutputError
from vla_deploy.ros.vendor_messages import VendorMessage

GROUP = Output('/arm/commands/joint_group', 'interbotix_group', ('a', 'b'), (0, 1), 'arm')
SINGLE = Output('/arm/commands/joint_single', 'interbotix_single', ('c',), (2,), 'gripper')


@dataclass
class JointGroupCommand:
    name: str = ''
    cmd: list[float] = field(default_factory=list)


@dataclass
class JointSingleCommand:
    name: str = ''
    cmd: float = 0.0


def test_when_the_package_is_missing_expect_it_named():
    with pytest.raises(OutputError, match='needs the package interbotix_xs_msgs, which is not'):
        VendorMessage(GROUP)


def test_when_commands_are_filled_in_expect_the_name_and_the_values(monkeypatch):
    package = types.ModuleType('interbotix_xs_msgs.msg')
    package.JointGroupCommand, package.JointSingleCommand = JointGroupCommand, JointSingleCommand
    monkeypatch.setitem(sys.modules, 'interbotix_xs_msgs', types.ModuleType('interbotix_xs_msgs'))
    monkeypatch.setitem(sys.modules, 'interbotix_xs_msgs.msg', package)
    group, single = VendorMessage(GROUP), VendorMessage(SINGLE)
    assert group.kind is JointGroupCommand
    assert group.fill(np.array([0.5, -1.0])) == JointGroupCommand('arm', [0.5, -1.0])
    assert single.fill(np.array([0.25])) == JointSingleCommand('gripper', 0.25)
