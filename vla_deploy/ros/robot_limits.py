# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Limits of a robot from its description and its limits file, with errors that name the source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vla_deploy.core.limits import JointLimits, LimitsError, load_limits
from vla_deploy.core.urdf import UrdfError, parse_urdf
from vla_deploy.files import read_yaml
from vla_deploy.ros.lifecycle import ConfigureError

MAX_LIMITS_BYTES = 32 * 1024  # parsed within a second; ALOHA's fourteen joints take a fifth


def robot_limits(
    description: str, source: str, joint_names: Sequence[str], limits_path: str
) -> JointLimits:
    """Return the limits of the joints, in that order.

    `description` is a URDF that came from `source`. Raises ConfigureError, which names the source
    or the file, and FileError.
    """
    overlay = read_yaml(Path(limits_path), MAX_LIMITS_BYTES)
    try:
        return load_limits(parse_urdf(description), joint_names, overlay)
    except UrdfError as error:
        raise ConfigureError(f'{source}: {error}') from error
    except LimitsError as error:
        raise ConfigureError(f'{limits_path}: {error}') from error
