# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Parameters of the recorder, declared once."""

from __future__ import annotations

from dataclasses import dataclass

from vla_deploy.core.parameter import parameter


@dataclass(frozen=True)
class RecorderConfig:
    """What the recorder reads at start."""

    directory: str = parameter('traces', 'Folder in which each run makes a bag of its own.')
    robot: str = parameter('robot', 'Name of the robot: the bag begins with it, queries find it.')
    nodes: list[str] = parameter(
        ['guard', 'inference'],
        'Nodes whose topics are recorded, all that they publish or hear, and whose parameters.',
    )
    topics: list[str] = parameter([], 'Further topics to record.')
    images: str = parameter(
        'full',
        'Images whole, as the digest of their pixels (on <topic>/digest), or not at all. Only '
        'whole ones can be replayed.',
        choices=('full', 'hashed', 'none'),
    )
    compressed_cameras: list[str] = parameter(
        [],
        'As the parameter of inference: these are heard on image/<camera>/compressed, not raw.',
    )
    compression: str = parameter(
        'lz4', 'Compression of the file.', choices=('none', 'lz4', 'zstd')
    )
    queue_mb: float = parameter(
        64.0,
        'What may wait for the disk; beyond that messages are dropped, counted and reported.',
        'MB',
        minimum=0.01,
        maximum=8192.0,
    )
    flush_period_s: float = parameter(
        0.5,
        'How often all is handed to the operating system: what a killed recorder loses.',
        's',
        minimum=0.01,
        maximum=1.0,
    )
    linger_s: float = parameter(
        0.0,
        'How long to go on after SIGINT, at most, while nodes that are recorded are still there: '
        'their end is in the bag then. A second signal ends it at once.',
        's',
        minimum=0.0,
        maximum=60.0,
    )
    bundle: str = parameter('', 'Bundle that is served: its receipt and contract go into the bag.')
    urdf_path: str = parameter('', 'File of the URDF, for the bag.')
    limits_path: str = parameter('', 'File of the limits, for the bag.')
