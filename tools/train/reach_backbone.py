# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The backbone of the reach policy: its sizes, and a tokenizer for the words of its sentences.

A SmolVLA checkpoint names a backbone and takes from it the vision-language model's sizes and the
tokenizer. Ours is a folder beside the weights, in the format of the public SmolVLM2 backbone, with
much smaller sizes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

SPECIAL_TOKENS = (
    '<|endoftext|>',
    '<|im_start|>',
    '<|im_end|>',
    '<fake_token_around_image>',
    '<image>',
    '<end_of_utterance>',
    '<global-img>',
    '<video>',
)
UNKNOWN_TOKEN, START_TOKEN, PAD_TOKEN = SPECIAL_TOKENS[:3]
IMAGE_TOKEN, END_TOKEN = SPECIAL_TOKENS[4:6]
WORDS = ('\n', 'reach', 'go', 'to', 'move', 'above', 'the', 'red', 'green', 'blue', 'cube')

IMAGE_SIDE_PX = 128
PATCH_SIDE_PX = 16
VISION = {
    'model_type': 'smolvlm_vision',
    'num_channels': 3,
    'hidden_act': 'gelu_pytorch_tanh',
    'layer_norm_eps': 1e-06,
    'attention_dropout': 0.0,
    'hidden_size': 128,
    'intermediate_size': 512,
    'num_hidden_layers': 4,
    'num_attention_heads': 4,
    'image_size': IMAGE_SIDE_PX,
    'patch_size': PATCH_SIDE_PX,
}
TEXT = {
    'model_type': 'llama',
    'hidden_act': 'silu',
    'rms_norm_eps': 1e-05,
    'rope_theta': 100000,
    'max_position_embeddings': 8192,
    'attention_bias': False,
    'mlp_bias': False,
    'tie_word_embeddings': False,
    'hidden_size': 128,
    'intermediate_size': 384,
    'num_hidden_layers': 4,
    'num_attention_heads': 4,
    'num_key_value_heads': 2,
    'head_dim': 32,
}


def build_tokenizer() -> Tokenizer:
    """Return a word-level tokenizer; words part at spaces, and a newline is a word."""
    names = SPECIAL_TOKENS + WORDS
    tokenizer = Tokenizer(
        models.WordLevel({name: index for index, name in enumerate(names)}, unk_token=UNKNOWN_TOKEN)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(' +'), 'removed'),
            pre_tokenizers.Split(Regex('\n'), 'isolated'),
        ]
    )
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in SPECIAL_TOKENS]
    )
    return tokenizer


def backbone_config() -> dict[str, Any]:
    """Return the backbone's config.json: sizes of both models, and token numbers."""
    names = SPECIAL_TOKENS + WORDS
    tokens = {
        'pad_token_id': names.index(PAD_TOKEN),
        'bos_token_id': names.index(START_TOKEN),
        'eos_token_id': names.index(END_TOKEN),
        'vocab_size': len(names),
    }
    return {
        'architectures': ['SmolVLMForConditionalGeneration'],
        'model_type': 'smolvlm',
        'image_token_id': names.index(IMAGE_TOKEN),
        'pad_token_id': tokens['pad_token_id'],
        'scale_factor': 2,
        'tie_word_embeddings': False,
        'use_cache': False,
        'vocab_size': len(names),
        'vision_config': VISION,
        'text_config': TEXT | tokens,
    }


def write_backbone(folder: Path) -> None:
    """Write the backbone's five files into `folder`, which is made when it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    side = {'longest_edge': IMAGE_SIDE_PX}
    tokenizer_config = {
        'backend': 'tokenizers',
        'bos_token': START_TOKEN,
        'end_of_utterance_token': END_TOKEN,
        'eos_token': END_TOKEN,
        'extra_special_tokens': [],
        'fake_image_token': '<fake_token_around_image>',
        'global_image_token': '<global-img>',
        'image_token': IMAGE_TOKEN,
        'model_max_length': 8192,
        'pad_token': PAD_TOKEN,
        'padding_side': 'right',
        'tokenizer_class': 'TokenizersBackend',
        'unk_token': UNKNOWN_TOKEN,
        'video_token': '<video>',
    }
    image_processor = {
        'image_processor_type': 'SmolVLMImageProcessor',
        'processor_class': 'SmolVLMProcessor',
        'do_convert_rgb': True,
        'do_image_splitting': False,
        'do_normalize': True,
        'do_pad': True,
        'do_rescale': True,
        'do_resize': True,
        'image_mean': [0.5, 0.5, 0.5],
        'image_std': [0.5, 0.5, 0.5],
        'max_image_size': side,
        'resample': 1,
        'rescale_factor': 1 / 255,
        'size': side,
        'video_sampling': {'fps': 1, 'max_frames': 64, 'video_size': side},
    }
    tokens_an_image = (IMAGE_SIDE_PX // PATCH_SIDE_PX // 2) ** 2
    processor = {'image_seq_len': tokens_an_image, 'processor_class': 'SmolVLMProcessor'}
    write_json(folder / 'config.json', backbone_config())
    write_json(folder / 'tokenizer_config.json', tokenizer_config)
    write_json(folder / 'preprocessor_config.json', image_processor)
    write_json(folder / 'processor_config.json', processor)
    build_tokenizer().save(str(folder / 'tokenizer.json'))


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a mapping as indented JSON that ends with a newline."""
    path.write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')
