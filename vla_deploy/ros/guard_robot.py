# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The robot under guard: its description and limits, and the digests of what they came from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from vla_deploy.core.canonical import parse_canonical_json
from vla_deploy.core.limits import JointLimits, LimitsError, tighten
from vla_deploy.core.urdf import MAX_BYTES, UrdfError, parse_urdf
from vla_deploy.files import FileError, read_bytes, read_text
from vla_deploy.ros.guard_node_config import GuardNodeConfig
from vla_deploy.ros.lifecycle import ConfigureError
from vla_deploy.ros.robot_limits import MAX_LIMITS_BYTES, robot_limits

RECEIPT = 'receipt.json'
MAX_RECEIPT_BYTES = 2**24


@dataclass(frozen=True, eq=False)
class GuardedRobot:
    """limits: in force. files: what they were read from -> its SHA-256. model_sha256: digest of
    the bundle that will be served, empty if that is not known."""

    limits: JointLimits
    files: dict[str, str]
    model_sha256: str


def load_robot(config: GuardNodeConfig, published: str) -> GuardedRobot:
    """Read the robot and its limits; `published` is the latched description, empty if none came.

    Raises ConfigureError, FileError and LimitsError: one line that names the file and the key.
    """
    if not config.joint_names:
        raise ConfigureError("parameter 'joint_names' is empty: name the joints under guard")
    if not config.limits_path:
        raise ConfigureError("parameter 'limits_path' is empty: give the file of the limits")
    text, source = _description(config, published)
    limits = robot_limits(text, source, config.joint_names, config.limits_path)
    overlay = read_bytes(config.limits_path, MAX_LIMITS_BYTES)
    files = {source: _sha256(text.encode()), config.limits_path: _sha256(overlay)}
    if published and published != text:
        try:
            limits = tighten(limits, parse_urdf(published))
        except (UrdfError, LimitsError) as error:
            raise ConfigureError(f"topic 'robot_description': {error}") from error
        files["topic 'robot_description'"] = _sha256(published.encode())
    if not config.enforce_jerk:
        limits = limits.without_jerk()
    return GuardedRobot(limits, files, _model_sha256(config.bundle))


def _model_sha256(bundle: str) -> str:
    """Return the digest that a bundle's receipt gives; inference holds the bundle against it."""
    if not bundle:
        return ''
    path = Path(bundle) / RECEIPT
    try:
        return str(parse_canonical_json(read_bytes(path, MAX_RECEIPT_BYTES))['self_sha256'])
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, FileError):
            raise
        raise ConfigureError(f'{path}: is not the receipt of a bundle: {error}') from None


def _description(config: GuardNodeConfig, published: str) -> tuple[str, str]:
    """Return the URDF and where it came from."""
    if config.robot_description:
        return config.robot_description, "parameter 'robot_description'"
    if config.urdf_path:
        return read_text(Path(config.urdf_path), MAX_BYTES), config.urdf_path
    if published:
        return published, "topic 'robot_description'"
    raise ConfigureError(
        "no robot description: give parameter 'robot_description' or 'urdf_path', "
        "or publish the latched topic 'robot_description'"
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
