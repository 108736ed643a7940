# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Parameters of the inference node, declared once."""

from __future__ import annotations

from dataclasses import dataclass

from vla_deploy.core.parameter import parameter


@dataclass(frozen=True)
class InferenceConfig:
    """What the inference node reads at configure."""

    bundle: str = parameter('', 'Folder of the exported policy.')
    backend: str = parameter('onnx_runtime', 'What computes the policy.')
    provider: str = parameter('cpu', 'Execution provider of the backend; never another one.')
    precision: str = parameter('fp32', 'Precision in which the policy is computed.')
    variant: str = parameter('split', 'Form of the graphs: prefix and step apart, or one.')
    threads: int = parameter(
        1, 'Threads of the backend; 0: as many as it likes.', minimum=0, maximum=256
    )
    stub_value: float = parameter(
        0.0, 'What the backend `stub` returns for every joint, in robot units.'
    )
    joint_names: list[str] = parameter(
        [], "Joints in the policy's order, where the bundle does not name them."
    )
    period_s: float = parameter(
        0.0,
        'Time between two samples, where the bundle does not say.',
        's',
        minimum=0.0,
        maximum=10.0,
    )
    instruction: str = parameter('', 'Text to follow from activation; empty: wait for the topic.')
    instruction_max_length: int = parameter(
        1000, 'Longest instruction that is accepted.', 'characters', minimum=1, maximum=100_000
    )
    allow_blank_instruction: bool = parameter(
        False, 'Accept an instruction without text; only to show that a policy needs one.'
    )
    anchor: str = parameter(
        'observation',
        'Time of sample 0: the stamp of the observation, or the moment of sending; always the '
        'latter for a chunk that begins from a standing start.',
        choices=('observation', 'arrival'),
    )
    execute_steps: int = parameter(
        0,
        'Compute the next chunk when so many samples of the running one lie behind; '
        '0: when all do.',
        'samples',
        minimum=0,
        maximum=10_000,
    )
    retry_s: float = parameter(
        0.25,
        'Wait before another chunk when the last one is not being executed.',
        's',
        minimum=0.01,
        maximum=60.0,
    )
    chunk_valid_s: float = parameter(
        1.0,
        'Time after sending beyond which a chunk must not be started.',
        's',
        minimum=0.01,
        maximum=60.0,
    )
    execution_timeout_s: float = parameter(
        0.5, 'Silence of the guard beyond which no chunk is sent.', 's', minimum=0.02, maximum=60.0
    )
    goal_patience_s: float = parameter(
        3.0,
        'How long a goal of execute_instruction waits while no chunk can be made or sent, before '
        'it ends with an error; an emergency stop and a fault end it at once.',
        's',
        minimum=0.0,
        maximum=3600.0,
    )
    urdf_path: str = parameter(
        '', 'File of the URDF; get_action_chunk verifies against it, and gives nothing without.'
    )
    limits_path: str = parameter('', 'File with the limits that a URDF cannot hold; as urdf_path.')
    image_max_age_s: float = parameter(
        0.3, 'Age beyond which an image is stale.', 's', minimum=0.001, maximum=60.0
    )
    joint_state_max_age_s: float = parameter(
        0.1, 'Age beyond which a joint state is stale.', 's', minimum=0.001, maximum=60.0
    )
    max_skew_s: float = parameter(
        0.08,
        'Largest time between the parts of one observation.',
        's',
        minimum=0.001,
        maximum=10.0,
    )
    noise_seed: int = parameter(
        -1, 'Seed of the initial noise of chunk 0, counted up; -1: drawn anew for each chunk.',
        minimum=-1,
    )
