# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A LeRobot checkpoint folder: its configuration, processors, tokenizer and robot description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_deploy.export.backbone import (
    BACKBONE,
    CONFIG,
    backbone_folder,
    find_tokenizer,
    load_tokenizer,
    pad_token_id,
)
from vla_deploy.export.old_processors import read_old_processors
from vla_deploy.export.processors import PREPROCESSOR, Processors, read_processors
from vla_deploy.export.robot_io import FILE_NAME as ROBOT_IO
from vla_deploy.export.robot_io import RobotIo, read_robot_io
from vla_deploy.export.source import CheckpointError, need, read_json

WEIGHTS = 'model.safetensors'
FAMILIES = ('smolvla', 'pi0', 'pi05')

WITH_DIMS = ('pi0', 'pi05')


@dataclass(frozen=True)
class Checkpoint:
    """Everything but the weights, which are read tensor by tensor from `weights`.

    `files`: those that the bundle's numbers and names come from, but for `tokenizer` and `dims`, by
    the names that the receipt gives them. Whatever else lies in the folder has no part in it.
    """

    path: Path
    family: str
    config: Mapping[str, Any]
    weights: Path
    processors: Processors
    tokenizer: Path
    pad_token_id: int
    robot_io: RobotIo | None
    dims: Path | None
    files: Mapping[str, Path]


def read_checkpoint(
    path: Path,
    family: str | None = None,
    tokenizer: Path | None = None,
    robot_io: Path | None = None,
    dims: Path | None = None,
) -> Checkpoint:
    """Read a checkpoint folder.

    `family` overrides config.json's `type`; `tokenizer` and `robot_io` replace what lies in the
    folder; `dims` holds sizes that no checkpoint of the family holds. Raises CheckpointError: a
    file is missing or damaged, the family is unknown, a processor step is not supported.
    """
    if not path.is_dir():
        raise CheckpointError(f'{path}: is not a folder; give the checkpoint folder')
    config = read_json(path / CONFIG)
    stated = need(config, 'type', str, path / CONFIG)
    if family is not None and family != stated:
        raise CheckpointError(f'{path / CONFIG}: type is {stated!r}, but --family says {family!r}')
    if stated not in FAMILIES:
        raise CheckpointError(
            f'{path / CONFIG}: family {stated!r} is not known; known: {", ".join(FAMILIES)}'
        )
    if not (path / WEIGHTS).is_file():
        raise CheckpointError(f'{path / WEIGHTS}: is missing; copy the whole checkpoint folder')
    if dims is not None and stated not in WITH_DIMS:
        raise CheckpointError(f'{dims}: {stated} has all its sizes in the checkpoint; drop --dims')
    if (path / PREPROCESSOR).is_file():
        processors = read_processors(path)
    else:
        processors = read_old_processors(path / WEIGHTS, stated, config, path / CONFIG)
    tokenizer_path = find_tokenizer(path, processors.tokenization.name, tokenizer)
    loaded = load_tokenizer(tokenizer_path)
    robot = read_robot_io(path, robot_io)
    files = {name: path / name for name in (CONFIG, WEIGHTS, *processors.files)}
    if robot is not None:
        files[ROBOT_IO] = robot_io or path / ROBOT_IO
    if stated == 'smolvla':  # the sizes of which stand there
        backbone = backbone_folder(path, need(config, 'vlm_model_name', str, path / CONFIG))
        if backbone is not None:
            files[f'{BACKBONE}/{CONFIG}'] = backbone / CONFIG
    return Checkpoint(
        path,
        stated,
        config,
        path / WEIGHTS,
        processors,
        tokenizer_path,
        pad_token_id(tokenizer_path, loaded),
        robot,
        dims,
        files,
    )
