# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Which sizes graphs are made for."""

import pytest

pytest.importorskip('torch')

from vla_deploy.backends.fused_inputs import BLOCK_ROWS, bucket_of, lengths_of
from vla_deploy.models.published import PUBLISHED
from vla_deploy.models.smolvla import SmolVLAConfig


def test_when_texts_are_of_any_length_expect_few_sizes_that_hold_them():
    for config in PUBLISHED.values():
        lengths = range(config.max_tokens + 1)
        buckets = [bucket_of(config, 2, tokens) for tokens in lengths]
        assert len(set(buckets)) <= 4
        assert all(b.tokens >= n for b, n in zip(buckets, lengths, strict=True))
        assert buckets[-1].tokens == config.max_tokens


def test_when_a_text_is_shorter_expect_another_size_only_where_it_spares_a_block_of_rows():
    for config in PUBLISHED.values():
        state = int(isinstance(config, SmolVLAConfig))
        for cameras in range(1, config.camera_slots + 1):
            *shorter, longest = lengths_of(config, cameras)
            rows = [cameras * config.tokens_per_image + state + own for own in shorter]
            assert all(count % BLOCK_ROWS == 0 for count in rows)
            assert sorted({*shorter, longest}) == [*shorter, longest]
    assert len(lengths_of(PUBLISHED['pi05'], 3)) == 4
