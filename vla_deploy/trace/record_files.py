# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What a bag holds beside messages: what the recording is of, and the files that made the run."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from vla_deploy import __version__
from vla_deploy.core.parameter import ParameterError
from vla_deploy.files import MAX_TEXT_BYTES, read_bytes, read_yaml
from vla_deploy.pipeline import bundle as bundles
from vla_deploy.trace.record_config import RecorderConfig

URDF, LIMITS = 'robot.urdf', 'joint_limits.yaml'
FORMAT = '1'


def attachments(config: RecorderConfig) -> dict[str, tuple[str, bytes]]:
    """Return name -> (media type, bytes) of the files for the bag; raises FileError."""
    wanted = []
    if config.bundle:
        folder = Path(config.bundle)
        wanted += [(bundles.RECEIPT, 'application/json', folder / bundles.RECEIPT)]
        wanted += [(bundles.CONTRACT, 'application/yaml', folder / bundles.CONTRACT)]
    if config.urdf_path:
        wanted += [(URDF, 'application/xml', Path(config.urdf_path))]
    if config.limits_path:
        wanted += [(LIMITS, 'application/yaml', Path(config.limits_path))]
    return {name: (kind, read_bytes(path, MAX_TEXT_BYTES)) for name, kind, path in wanted}


def camera_topics(camera: str) -> tuple[str, str]:
    """Return the names under which inference may hear a camera: raw, and compressed."""
    return f'image/{camera}', f'image/{camera}/compressed'


def cameras(config: RecorderConfig) -> dict[str, str]:
    """Return each camera of the bundle with the name under which it is heard.

    Raises FileError, and ParameterError for a compressed camera that the bundle does not have.
    """
    names = []
    if config.bundle:
        contract = read_yaml(Path(config.bundle) / bundles.CONTRACT)
        names = [str(camera['name']) for camera in contract.get('cameras', [])]
    unknown = set(config.compressed_cameras) - set(names)
    if unknown:
        raise ParameterError(
            f"parameter 'compressed_cameras' names {', '.join(sorted(unknown))}; the bundle has "
            f'{", ".join(names) or "not been named"}'
        )
    return {name: camera_topics(name)[name in config.compressed_cameras] for name in names}


def recording(config: RecorderConfig, topics: Mapping[str, str]) -> dict[str, str]:
    """Return the record that begins a bag. `topics`: what each is called on this robot."""
    return {
        'format': FORMAT,
        'robot': config.robot,
        'images': config.images,
        'bundle': config.bundle,
        'topics': json.dumps(dict(topics)),
        'version': __version__,
    }


def new_folder(directory: str, robot: str, now: time.struct_time) -> Path:
    """Return a folder for a bag that does not exist yet, named after the robot and the time."""
    name = f'{robot}_{time.strftime("%Y-%m-%d_%H-%M-%S", now)}'
    folder = Path(directory) / name
    number = 2
    while folder.exists():
        folder = Path(directory) / f'{name}_{number}'
        number += 1
    return folder.absolute()
