# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Record how far LeRobot's own SmolVLA is off at bfloat16, observation by observation.

    python -m tools.export.bf16_error policies/reach test/goldens/reach_bf16.json

Export holds what is served at bf16 to the error of its torch modules, rounded as the reference is.
What this writes says whether they have the reference's error; a test compares. Run it from the root
of the repository, where LeRobot can be imported.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vla_deploy.export.checkpoint import Checkpoint, read_checkpoint
from vla_deploy.export.families import family_of
from vla_deploy.export.fixtures import Case, make_cases
from vla_deploy.export.lerobot import LeRobotReference, NoReferenceError, versions
from vla_deploy.export.source import CheckpointError
from vla_deploy.files import write_bytes

COUNT = 100
SEED = 20261130
GREY_LEVELS = 24  # by so many at most are images off a fixture's
Pair = tuple[NDArray[np.float32], NDArray[np.float32]]


def observations(checkpoint: Checkpoint, count: int) -> Iterator[Case]:
    """Yield as many cases: a bundle's fixtures, whose images and noise are drawn anew."""
    contract = family_of(checkpoint).contract(checkpoint)
    cases = make_cases(contract, checkpoint.processors.statistics)
    generator = np.random.Generator(np.random.Philox(SEED))
    for index in range(count):
        case = cases[index % len(cases)]
        images = {}
        for name, image in case.observation.images.items():
            off = generator.integers(-GREY_LEVELS, GREY_LEVELS + 1, image.shape)
            images[name] = np.clip(image + off, 0, 255).astype(np.uint8)
        noise = generator.standard_normal(case.noise.shape, dtype=np.float32)
        yield Case(dataclasses.replace(case.observation, images=images), noise)


def relative_errors(pairs: Iterable[Pair]) -> list[float]:
    """Return |rounded - exact| / |exact| of each pair of chunks (rounded, exact)."""
    return [
        float(np.linalg.norm(rounded - exact) / np.linalg.norm(exact)) for rounded, exact in pairs
    ]


def _errors(checkpoint: Checkpoint) -> list[float]:
    """Return LeRobot's own error at bf16 on each observation."""
    contract = family_of(checkpoint).contract(checkpoint)
    exact, rounded = (LeRobotReference(checkpoint, contract) for _ in range(2))
    rounded.policy.model.vlm_with_expert.to(torch.bfloat16)  # as LeRobot loads published weights
    return relative_errors(
        (rounded(case).chunk, exact(case).chunk) for case in observations(checkpoint, COUNT)
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Write the errors, and what they were made with; returns 2 where they cannot be had."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('checkpoint', type=Path)
    parser.add_argument('output', type=Path)
    arguments = parser.parse_args(argv)
    try:
        errors = _errors(read_checkpoint(arguments.checkpoint, 'smolvla'))
    except (CheckpointError, NoReferenceError) as error:
        print(f'bf16_error: {error}', file=sys.stderr)
        return 2
    recorded = {'made_with': versions(), 'relative_errors': errors}
    write_bytes(arguments.output, (json.dumps(recorded, indent=1) + '\n').encode('ascii'))
    print(f'{np.mean(errors):.3e} on average of {COUNT}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
