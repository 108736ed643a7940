# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Parameters of the inference node, declared once."""

from __future__ import annotations

from dataclasses import dataclass

from vla_deploy.core.parameter import parameter
from vla_deploy.pipeline.end_effector import ROTATIONS, SEMANTICS
from vla_deploy.pipeline.guidance import SCHEDULES
from vla_deploy.pipeline.strategy import ASYNCHRONOUS, STRATEGIES


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
    joint_state_topics: list[str] = parameter(
        ['joint_states'], 'Topics of joint states; together they make one.'
    )
    joint_state_prefixes: list[str] = parameter(
        [], 'For each of these topics what its joint names get before them; none: nothing.'
    )
    period_s: float = parameter(
        0.0,
        'Time between two samples, where the bundle does not say.',
        's',
        minimum=0.0,
        maximum=10.0,
    )
    instruction: str = parameter('', 'Text to follow from activation; empty: wait for the topic.')
    wait_for_recorder: bool = parameter(
        False,
        'Compute no chunk for the guard before a recorder hears action_chunk reliably, so that '
        'it has the first one.',
    )
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
    strategy: str = parameter(
        ASYNCHRONOUS,
        'How one chunk follows the other; docs/execution.md compares them.',
        choices=STRATEGIES,
    )
    execute_steps: int = parameter(
        0,
        'Compute the next chunk when so many samples of the running one lie behind; '
        '0: when all do. With strategy synchronous no more than these are executed.',
        'samples',
        minimum=0,
        maximum=10_000,
    )
    ensemble_decay: float = parameter(
        0.01,
        'Strategy ensembling: the i-th prediction of a sample, the oldest first, has the weight '
        'exp(-decay * i).',
        minimum=0.0,
        maximum=10.0,
    )
    guidance_schedule: str = parameter(
        'exp',
        'Strategy real_time_chunking: how the pull toward the running chunk falls from the samples '
        'that are certain to the last.',
        choices=SCHEDULES,
    )
    guidance_max_weight: float = parameter(
        5.0,
        'Strategy real_time_chunking: bound of the pull toward the running chunk.',
        minimum=0.0,
        maximum=1000.0,
    )
    deadline_ms: float = parameter(
        0.0,
        'Time from the decision to compute a chunk to its sending; one that would be later is '
        'given up between two denoising steps, and the running plan goes on. 0: none.',
        'ms',
        minimum=0.0,
        maximum=3_600_000.0,
    )
    adaptive_steps: float = parameter(
        0.0,
        'Largest change of the velocity between two denoising steps, in model space, at which the '
        'rest is taken in one step; its error is measured at configure. 0: all steps are taken.',
        minimum=0.0,
        maximum=1000.0,
    )
    action_similarity: float = parameter(
        0.0,
        'Largest difference of a chunk to the one before, over the samples of both, at which the '
        'next inference is left out while the chunk goes on. 0: none is left out.',
        'rad or m',
        minimum=0.0,
        maximum=100.0,
    )
    max_skips: int = parameter(
        2, 'Inferences in a row that action_similarity may leave out.', minimum=1, maximum=1000
    )
    breaker_failures: int = parameter(
        5,
        'Faults of the policy in a row after which it is not asked for breaker_open_s.',
        minimum=1,
        maximum=1000,
    )
    breaker_open_s: float = parameter(
        5.0,
        'Time after which a policy that failed is tried again, once.',
        's',
        minimum=0.01,
        maximum=3600.0,
    )
    inject_latency_ms: float = parameter(
        0.0,
        'Time added to each inference, spread over the denoising steps: for tests. May be changed '
        'while active.',
        'ms',
        minimum=0.0,
        maximum=60_000.0,
        read_only=False,
    )
    retry_s: float = parameter(
        0.25,
        'Wait, from the first sample of the last chunk, before another one when that one is not '
        'being executed; longer than two periods of the guard, in which it takes the chunk and '
        'says so.',
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
    end_effector_link: str = parameter(
        '',
        'Link whose pose the first six elements of an action are; they become positions of the '
        'joints that move it. Empty: every element is a joint.',
    )
    end_effector_semantics: str = parameter(
        'absolute',
        'What those six are: a pose in the frame of the root link, or a change along and about its '
        'axes, from the observed pose or from that of the sample before.',
        choices=SEMANTICS,
    )
    end_effector_rotation: str = parameter(
        'rotation_vector',
        'Form of the three elements of rotation: axis times angle, or roll, pitch and yaw.',
        choices=ROTATIONS,
    )
    end_effector_others: list[str] = parameter(
        [], 'Joints that the elements after those six are positions of, as of a gripper.'
    )
    end_effector_max_residual_m: float = parameter(
        0.005,
        'How far the link may stay from a pose out of reach; beyond it no chunk is sent.',
        'm',
        minimum=1e-6,
        maximum=1.0,
    )
    end_effector_max_residual_rad: float = parameter(
        0.02, 'The same for its rotation.', 'rad', minimum=1e-6, maximum=3.2
    )
    urdf_path: str = parameter(
        '',
        'File of the URDF; get_action_chunk verifies against it, and gives nothing without. An '
        'end_effector_link is found in it.',
    )
    limits_path: str = parameter('', 'File with the limits that a URDF cannot hold; as urdf_path.')
    guard_parameters_path: str = parameter(
        '',
        "File of the guard's parameters; get_action_chunk verifies by its rules. Empty: by the "
        'defaults of a guard.',
    )
    image_max_age_s: float = parameter(
        0.3, 'Age beyond which an image is stale.', 's', minimum=0.001, maximum=60.0
    )
    camera_max_age_s: list[float] = parameter(
        [], "Age of each camera's image beyond which it is stale, in the policy's order; empty: "
        'image_max_age_s for all.', 's',
    )
    compressed_cameras: list[str] = parameter(
        [], 'Cameras whose images come as JPEG or PNG on image/<camera>/compressed.'
    )
    depth_max_m: float = parameter(
        0.0,
        'Distance from which on a depth image (16UC1, 32FC1) is white, for a policy that was '
        'trained on such; 0: depth images are refused.',
        'm',
        minimum=0.0,
        maximum=1000.0,
    )
    joint_state_max_age_s: float = parameter(
        0.1, 'Age beyond which a joint state is stale.', 's', minimum=0.001, maximum=60.0
    )
    max_skew_s: float = parameter(
        0.08,
        'Largest time between the parts of one observation, and how far ahead of the present one '
        'may be stamped.',
        's',
        minimum=0.001,
        maximum=10.0,
    )
    noise_seed: int = parameter(
        -1, 'Seed of the initial noise of chunk 0, counted up; -1: drawn anew for each chunk.',
        minimum=-1,
    )
