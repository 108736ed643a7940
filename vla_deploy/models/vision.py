# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The SigLIP-like vision tower of SmolVLM and the connector behind it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class VisionConfig:
    """Sizes of a vision tower; `image_size` is the side the position table was made for."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    image_size: int
    patch_size: int
    num_channels: int = 3
    layer_norm_eps: float = 1e-6


def position_ids(rows: int, columns: int, table_side: int) -> Tensor:
    """Return int64 [rows*columns]: for each patch, its row in the position table.

    A patch at fraction i/rows of the image takes the table's bucket of that fraction. The
    arithmetic is the one of transformers >= 5 (float32 throughout, i * (1/rows)); version 4.57
    used a float32 `arange`, which shifts most rows by one.
    """
    side = 1.0 / table_side
    boundaries = torch.arange(side, 1.0, side, dtype=torch.float32, device='cpu')

    def buckets(count: int) -> Tensor:
        step = 1.0 / torch.tensor(count, device='cpu')
        fraction = torch.arange(count, dtype=torch.float32, device='cpu') * step
        return torch.bucketize(fraction.clamp(max=1.0 - 1e-6), boundaries, right=True)

    return (buckets(rows)[:, None] * table_side + buckets(columns)[None, :]).reshape(-1)


class VisionEmbeddings(nn.Module):
    """Patches and their learned positions, for images of one fixed size."""

    def __init__(self, config: VisionConfig, image_hw: tuple[int, int]) -> None:
        super().__init__()
        side = config.image_size // config.patch_size
        self.patch_embedding = nn.Conv2d(
            config.num_channels,
            config.hidden_size,
            kernel_size=config.patch_size,
            stride=config.patch_size,
        )
        self.position_embedding = nn.Embedding(side * side, config.hidden_size)
        rows, columns = (pixels // config.patch_size for pixels in image_hw)
        self.register_buffer('position_ids', position_ids(rows, columns, side), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [N,3,H,W] to patch embeddings [N,patches,hidden].

        A convolution of one channel, which holds the colours of a pixel side by side. So ONNX
        Runtime adds up a patch by row, column and colour, as oneDNN does under the reference, and
        gives the reference's bits; over three channels it adds up colour by colour, and the
        difference was the largest of the whole policy.
        """
        convolution = self.patch_embedding
        count, colours, height, width = images.shape
        side = convolution.kernel_size[0]
        pixels = images.permute(0, 2, 3, 1).reshape(count, 1, height, width * colours)
        kernel = convolution.weight.permute(0, 2, 3, 1).reshape(-1, 1, side, side * colours)
        patches = F.conv2d(pixels, kernel, convolution.bias, (side, side * colours))
        return patches.flatten(2).transpose(1, 2) + self.position_embedding(self.position_ids)


class VisionAttention(nn.Module):
    """Bidirectional attention with biases."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map [N,patches,hidden] to the same shape.

        Images look at nothing of one another, and their scores, heads·patches² each, are the
        largest tensors of the whole policy: they are made for one image after the other.
        """
        count, length, width = hidden.shape

        def split(projected: Tensor) -> tuple[Tensor, ...]:
            return projected.view(count, length, self.heads, -1).transpose(1, 2).split(1)

        parts = (split(layer(hidden)) for layer in (self.q_proj, self.k_proj, self.v_proj))
        mixed = torch.cat(
            [F.scaled_dot_product_attention(q, k, v) for q, k, v in zip(*parts, strict=True)]
        )
        return self.out_proj(mixed.transpose(1, 2).reshape(count, length, width))


class VisionMlp(nn.Module):
    """Two linear layers with the tanh form of GELU between them."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map [..., hidden] to the same shape."""
        return self.fc2(F.gelu(self.fc1(hidden), approximate='tanh'))


class VisionLayer(nn.Module):
    """One pre-norm encoder layer."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.self_attn = VisionAttention(config)
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = VisionMlp(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map [N,patches,hidden] to the same shape."""
        hidden = self.add(hidden, self.self_attn(self.layer_norm1(hidden)))
        return self.add(hidden, self.mlp(self.layer_norm2(hidden)))

    def add(self, hidden: Tensor, update: Tensor) -> Tensor:
        """Return the next state of the residual stream."""
        return hidden + update


class VisionEncoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VisionLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, hidden: Tensor) -> Tensor:
        """Map [N,patches,hidden] to the same shape."""
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden


class VisionTower(nn.Module):
    """Images in [-1, 1] to normalised patch features."""

    def __init__(self, config: VisionConfig, image_hw: tuple[int, int]) -> None:
        super().__init__()
        self.embeddings = VisionEmbeddings(config, image_hw)
        self.encoder = VisionEncoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [N,3,H,W] to features [N,patches,hidden]."""
        return self.post_layernorm(self.encoder(self.embeddings(images)))


class ModalityProjection(nn.Module):
    """One linear layer without bias."""

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__()
        self.proj = nn.Linear(input_size, output_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map [..., input_size] to [..., output_size]."""
        return self.proj(hidden)


class Connector(nn.Module):
    """Pixel shuffle: scale×scale patches become one token, projected to the text width."""

    def __init__(self, vision_size: int, text_size: int, scale: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.scale = scale
        self.grid = grid
        self.modality_projection = ModalityProjection(vision_size * scale * scale, text_size)

    def forward(self, features: Tensor) -> Tensor:
        """Map [N,rows*columns,vision_size] to [N,rows*columns/scale²,text_size]."""
        count, _, width = features.shape
        rows, columns = self.grid
        scale = self.scale
        blocks = features.view(count, rows // scale, scale, columns // scale, scale, width)
        tokens = blocks.permute(0, 1, 3, 2, 4, 5).reshape(count, -1, scale * scale * width)
        return self.modality_projection(tokens)
