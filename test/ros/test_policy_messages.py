# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What a chunk's message says of a prompt that did not fit."""

from __future__ import annotations

import numpy as np
import pytest

from vla_deploy.pipeline import PolicyChunk, Timings
from vla_deploy.pipeline.strategy import Placed
from vla_deploy.ros.policy_messages import ChunkContext, chunk_to_message, lacking


@pytest.mark.parametrize(
    ('truncated', 'lost', 'told'),
    [
        (False, False, ''),
        (True, False, 'prompt: the text lost its end'),
        (True, True, 'prompt: the state that stands in the text was lost'),
    ],
)
def test_when_a_prompt_is_cut_expect_it_and_a_lost_state_in_the_message_and_in_words(
    plain_contract, truncated, lost, told
):
    actions = np.zeros((6, 7))
    chunk = PolicyChunk(
        actions=actions, raw=np.zeros((6, 8), np.float32), timings=Timings(0.0, 0.0, 0.0, 0.0),
        noise_seed=1, prompt_truncated=truncated, state_lost=lost, missing_cameras=(),
        instruction='reach', denoise_steps=10, finite=True,
    )
    context = ChunkContext(
        placed=Placed(actions, 1, 0, 0, 0.0, 0), strategy='asynchronous', session_id='a',
        seq=0, model_sha256='b',
        adaptive_error=0.0, observation_stamp_ns=1, sent_stamp_ns=2, valid_until_ns=3,
        period_s=0.1, inference_s=0.0, decode_s=0.0, anchor_position=np.zeros(7),
        joint_names=plain_contract.action.joints, image_stamps={}, guidance=None,
    )
    msg = chunk_to_message(chunk, plain_contract, context)
    assert (msg.prompt_truncated, msg.state_lost) == (truncated, lost)
    assert lacking(chunk).split(';')[0] == told
