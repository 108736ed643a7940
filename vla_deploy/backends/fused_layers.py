# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A policy's stacks with merged weights: vision tower, language layers, action expert.

Queries, keys and values are one product, gates and ups another. The learned scale of an RMS norm
multiplies the columns of the weights behind it, in float32 before they are rounded. What depends
on the flow time alone is computed once for each time (`Expert.constants`). Rows of several
observations stand behind one another, as many of each.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vla_deploy.backends.parameters import Factor, ParameterSource
from vla_deploy.backends.quantised import CODES, Matrix, Quantised
from vla_deploy.backends.step_constants import LayerConstants
from vla_deploy.backends.torch_ops import ALL, Heads, Ops, Rows, Turn
from vla_deploy.backends.torch_requirements import require_8_bits
from vla_deploy.models.vision import VisionConfig, position_ids

ALIGNMENT = 16  # elements: what rows of a matrix are padded to
LONG_SUM = 2  # of a product, in its width
SUM_PARTS = 2


def merged(
    source: ParameterSource, names: Sequence[str], dtype: torch.dtype, factor: Factor | None
) -> Tensor:
    """Return parameters [out,in] (or [out]) over one another, each row times `factor`."""
    rows = sum(source.shape(name)[0] for name in names)
    size = (rows, *source.shape(names[0])[1:])
    target = torch.empty(size, dtype=dtype, device=source.device)
    _fill(target, source, names, factor)
    return target


def merged_mlp(
    source: ParameterSource, names: Sequence[str], dtype: torch.dtype,
    mlp_dtype: torch.dtype | None, factor: Factor | None,
) -> Matrix:
    """Return what `merged` does; in 8 bits with float8 as `mlp_dtype`, which is the only one that
    there is. Raises PolicyError for sizes that cannot be multiplied so."""
    if mlp_dtype is None:
        return merged(source, names, dtype, factor)
    if mlp_dtype != CODES:
        raise ValueError(f'an MLP beside {dtype} can be in {CODES}, not in {mlp_dtype}')
    for name in names:
        require_8_bits(name, *source.shape(name))
    rows, columns = sum(source.shape(name)[0] for name in names), source.shape(names[0])[1]
    target = Quantised.empty(rows, columns, source.device)
    _fill(target, source, names, factor)
    return target


def _fill(
    target: Matrix, source: ParameterSource, names: Sequence[str], factor: Factor | None
) -> None:
    begin = 0
    for name in names:
        end = begin + source.shape(name)[0]
        source.fill(target[begin:end], name, factor)
        begin = end


class Tower:
    """The vision tower: images of all cameras in one call, to normed patch features."""

    def __init__(
        self, source: ParameterSource, name: str, config: VisionConfig,
        image_hw: tuple[int, int], dtype: torch.dtype,
    ) -> None:
        """Read the tower whose parameters begin with `name`."""
        self.config = config
        self.patches = patches(config, image_hw)
        side, width = config.image_size // config.patch_size, config.hidden_size
        rows, columns = (pixels // config.patch_size for pixels in image_hw)
        self.columns = math.prod(source.shape(f'{name}embeddings.patch_embedding.weight')[1:])
        missing = -self.columns % ALIGNMENT

        def patch() -> Tensor:
            kernel = source.read(f'{name}embeddings.patch_embedding.weight')
            return F.pad(kernel.flatten(1), (0, missing))

        def start() -> Tensor:
            positions = source.read(f'{name}embeddings.position_embedding.weight')
            bias = source.read(f'{name}embeddings.patch_embedding.bias')
            return positions[position_ids(rows, columns, side)] + bias

        self.patch = source.made((width, self.columns + missing), dtype, patch)
        self.start = source.made((self.patches, width), dtype, start)
        self.layers = [
            _TowerLayer(source, f'{name}encoder.layers.{index}.', dtype)
            for index in range(config.num_hidden_layers)
        ]
        self.last_norm = vectors(source, f'{name}post_layernorm', torch.float32)

    def run(self, ops: Ops, images: Tensor) -> Tensor:
        """Map images [N,3,H,W] to features [N·patches,hidden]. The tower is where most memory is
        taken, so that nothing is held on to that is not read any more."""
        config, count = self.config, len(images)
        x = self._embedded(images)
        norms = [*(layer.norm1 for layer in self.layers), self.last_norm]
        y = ops.add_norm(x, None, None, *norms[0], config.layer_norm_eps)
        for layer, next_norm in zip(self.layers, norms[1:], strict=True):
            product = F.linear(y, *layer.qkv)
            del y
            update = self._attended(product, layer, count)
            del product
            y = ops.add_norm(x, update, layer.out[1], *layer.norm2, config.layer_norm_eps)
            del update
            active = ops.gelu_linear(y, *layer.fc1)
            del y
            update = F.linear(active, layer.fc2[0])
            del active
            y = ops.add_norm(x, update, layer.fc2[1], *next_norm, config.layer_norm_eps)
            del update
        return y

    def _embedded(self, images: Tensor) -> Tensor:
        """Return patches as rows with their positions [N·patches,hidden]."""
        count, channels, height, width = images.shape
        size = self.config.patch_size
        grid = (count, channels, height // size, size, width // size, size)
        patches = images.view(grid).permute(0, 2, 4, 1, 3, 5).reshape(-1, self.columns)
        if self.patch.shape[1] > self.columns:
            patches = F.pad(patches, (0, self.patch.shape[1] - self.columns))
        # the sum is rounded once: plain areas of an image have the same error in all their rows
        return self.start.repeat(count, 1).addmm_(patches, self.patch.T)

    def load_kernels(self, ops: Ops, rows: int) -> None:
        """Launch what is no library's, over so many rows without a meaning."""
        layer = self.layers[0]
        x = self.patch.new_zeros((rows, self.start.shape[1]))
        y = ops.add_norm(x, None, None, *layer.norm1, self.config.layer_norm_eps)
        ops.add_norm(x, y, layer.out[1], *layer.norm2, self.config.layer_norm_eps)

    def _attended(self, product: Tensor, layer: _TowerLayer, count: int) -> Tensor:
        """Return what a layer's attention adds to queries, keys and values, without the bias."""
        mixed = attend(product, count, self.config)
        return F.linear(mixed.transpose(1, 2).reshape(-1, self.config.hidden_size), layer.out[0])


def patches(config: VisionConfig, image_hw: tuple[int, int]) -> int:
    """Return how many patches an image has."""
    height, width = image_hw
    return (height // config.patch_size) * (width // config.patch_size)


def attend(product: Tensor, count: int, config: VisionConfig) -> Tensor:
    """Return the tower's attention, [images,heads,patches,dim], of queries, keys and values
    [images·patches,3·hidden]."""
    heads = config.num_attention_heads
    qkv = product.view(count, -1, 3, heads, config.hidden_size // heads)
    return F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4).unbind(0))


class _TowerLayer:
    def __init__(self, source: ParameterSource, name: str, dtype: torch.dtype) -> None:
        projections = [f'{name}self_attn.{which}_proj' for which in 'qkv']
        self.qkv = (
            merged(source, [f'{p}.weight' for p in projections], dtype, None),
            merged(source, [f'{p}.bias' for p in projections], dtype, None),
        )
        # what only kernels of our own read costs nothing in float32, and spares a rounding
        wide = torch.float32
        self.norm1 = vectors(source, f'{name}layer_norm1', wide)
        self.norm2 = vectors(source, f'{name}layer_norm2', wide)
        self.out = vectors(source, f'{name}self_attn.out_proj', dtype, wide)
        self.fc1 = vectors(source, f'{name}mlp.fc1', dtype)
        self.fc2 = vectors(source, f'{name}mlp.fc2', dtype, wide)


def vectors(
    source: ParameterSource, name: str, dtype: torch.dtype, bias_dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """Return a layer's weight and bias, this in `dtype` where it has none of its own."""
    return (
        merged(source, [f'{name}.weight'], dtype, None),
        merged(source, [f'{name}.bias'], bias_dtype or dtype, None),
    )


def shuffled(features: Tensor, grid: tuple[int, int], scale: int) -> Tensor:
    """Join scale × scale patches of a grid to one token, [images·tokens, hidden·scale²]."""
    (rows, columns), width = grid, features.shape[-1]
    blocks = features.view(-1, rows // scale, scale, columns // scale, scale, width)
    return blocks.permute(0, 1, 3, 2, 4, 5).reshape(-1, scale * scale * width)


@dataclasses.dataclass(frozen=True)
class StackSpec:
    """Facts of a stack of layers: `heads`, epsilon of its norms, SiLU or GELU in its MLP, what
    its norms add to their learned scale, and whether they are conditioned on the time."""

    heads: Heads
    eps: float
    silu: bool
    norm_offset: float
    conditioned: bool = False


class Layer:
    """One layer's merged weights. `cross`: it has no keys and values of its own."""

    def __init__(
        self, source: ParameterSource, name: str, spec: StackSpec, dtype: torch.dtype,
        cross: bool = False, last: bool = False, mlp_dtype: torch.dtype | None = None,
    ) -> None:
        """Read a layer; of the `last` one of a prefix only keys and values are needed.
        `mlp_dtype`: of both factors of the MLP's products, where it is another one."""
        self.cross = cross
        first, second = (
            None if spec.conditioned else Factor(spec.norm_offset, f'{name}{norm}.weight')
            for norm in ('input_layernorm', 'post_attention_layernorm')
        )
        which = 'q' if cross else 'kv' if last else 'qkv'
        names = [f'{name}self_attn.{part}_proj.weight' for part in which]
        self.qkv = merged(source, names, dtype, first)
        if last:
            return
        self.out = merged(source, [f'{name}self_attn.o_proj.weight'], dtype, None)
        names = [f'{name}mlp.{part}_proj.weight' for part in ('gate', 'up')]
        self.gate_up = merged_mlp(source, names, dtype, mlp_dtype, second)
        self.down = merged_mlp(source, [f'{name}mlp.down_proj.weight'], dtype, mlp_dtype, None)


class Places(NamedTuple):
    """Where rows of observations lie among keys and values; each int32 [observations].

    first: place of an observation's first key; length: keys of the prefix; seen: keys before the
    rows in question, and own: the place of the first of these rows.
    """

    first: Tensor
    length: Tensor
    seen: Tensor
    own: Tensor


class Language:
    """The language layers over the prefix; what they leave is keys and values."""

    def __init__(
        self, source: ParameterSource, name: str, count: int, spec: StackSpec,
        dtype: torch.dtype, mlp_dtype: torch.dtype | None = None,
    ) -> None:
        """`mlp_dtype`: see `Layer`."""
        self.spec = spec
        self.layers = [
            Layer(
                source, f'{name}{index}.', spec, dtype, last=index + 1 == count,
                mlp_dtype=mlp_dtype,
            )
            for index in range(count)
        ]

    def run(
        self, ops: Ops, x: Tensor, turn: Turn, places: Places, cache: tuple[Tensor, Tensor],
        mode: int,
    ) -> Iterator[int]:
        """Fill keys and values [layers,places,kv,dim] from x [R,W], which is used up.

        Yields each layer's index once its keys and values are there and it reads them no more.
        """
        spec = self.spec
        normed = ops.norm(x, spec.eps)
        for index, (layer, key, value) in enumerate(zip(self.layers, *cache, strict=True)):
            projected = ops.product(normed, layer.qkv)
            last = layer is self.layers[-1]
            queries = ops.rope(projected, spec.heads, turn, places.first, key, value, last)
            if queries is None:
                yield index
                return
            attended = ops.attend(queries, key, value, places.length, 0, mode)
            yield index
            narrow = isinstance(layer.gate_up, Quantised)
            normed = norm_of_sum(ops, x, attended, layer.out, spec.eps, narrow)
            gates = ops.product(normed, layer.gate_up)
            active = ops.activate(gates, spec.silu, isinstance(layer.down, Quantised))
            normed = norm_of_sum(ops, x, active, layer.down, spec.eps)


def norm_of_sum(
    ops: Ops, x: Tensor, y: Matrix, weight: Matrix, eps: float, narrow: bool = False
) -> Matrix:
    """x += y · weightᵀ in place; return its norm, in 8 bits if `narrow`. Long sums are taken in
    parts, which fill the processors, and the kernel of the norm adds them; those of factors in 8
    bits are one part."""
    if isinstance(y, Quantised) or isinstance(weight, Quantised):
        return ops.norm(x, eps, ops.product(y, weight)[None], narrow)
    depth, width = y.shape[1], len(weight)
    if depth <= LONG_SUM * width or depth % (SUM_PARTS * ALIGNMENT):
        ops.add_product(x, y, weight)
        return ops.norm(x, eps, None, narrow)
    return ops.norm(x, eps, ops.product_parts(y, weight, SUM_PARTS), narrow)


class Expert:
    """The action expert's layers over rows of actions (or pi0's state token)."""

    def __init__(
        self, source: ParameterSource, name: str, crosses: Sequence[bool], spec: StackSpec,
        dtype: torch.dtype,
    ) -> None:
        """`crosses`: for each layer, whether it only reads the prefix."""
        self.spec = spec
        self.layers = [
            Layer(source, f'{name}{index}.', spec, dtype, cross)
            for index, cross in enumerate(crosses)
        ]
        self._norms: list[tuple[tuple[Tensor, Tensor], ...]] = []
        if spec.conditioned:
            self._norms = [
                tuple(
                    vectors(source, f'{name}{index}.{norm}.dense', dtype)
                    for norm in ('input_layernorm', 'post_attention_layernorm')
                )
                for index in range(len(crosses))
            ]

    def constants(self, condition: Tensor | None) -> list[LayerConstants]:
        """Fold a condition float32 [1,W] into scales, biases and gates, one entry a layer."""
        if condition is None:
            return [LayerConstants()] * len(self.layers)
        folded = []
        for layer, norms in zip(self.layers, self._norms, strict=True):
            both = [
                fold_norm(norm, condition, weight)
                for norm, weight in zip(norms, (layer.qkv, layer.gate_up), strict=True)
            ]
            scales, biases, gates = zip(*both, strict=True)
            folded.append(LayerConstants(scales, biases, gates))
        return folded

    def run(
        self, ops: Ops, rows: Rows, turn: Turn, places: Places,
        cache: tuple[Tensor, Tensor], cross: tuple[Tensor, Tensor],
        constants: Sequence[LayerConstants], last_scale: Tensor | None, mode: int,
        keys_only: bool = False,
    ) -> Iterator[Rows]:
        """Run all layers over rows [M,W]; yields the rows behind each.

        cache: keys and values [layers,places,kv,dim]; cross: those that cross layers read, [cross
        layers,places,kv,dim]. last_scale: of the norm behind the last layer. mode: who sees whom
        among the rows, see `Ops.attend`. keys_only: the last layer's keys and values are all
        that is wanted.
        """
        spec, count = self.spec, len(rows.hidden) // len(places.own)
        keys, values = cache
        own_heads = spec.heads._replace(kv=0)
        crossed = 0
        for index, layer in enumerate(self.layers):
            own = constants[index]
            last = index + 1 == len(self.layers)
            if layer.cross:
                key, value = cross[0][crossed], cross[1][crossed]
                crossed += 1
                queries = ops.qkv(
                    rows, layer.qkv, None, spec.eps, own_heads, turn, places.first, key, value
                )
                mixed = ops.attend(queries, key, value, places.length, 0, ALL)
            else:
                key, value = keys[index], values[index]
                queries = ops.qkv(
                    rows, layer.qkv, own.biases[0], spec.eps, spec.heads, turn, places.own, key,
                    value,
                )
                if last and keys_only:
                    yield rows
                    return
                mixed = ops.attend(queries, key, value, places.seen, count, mode)
            rows = ops.add(rows, mixed, layer.out, own.gates[0], own.scales[1])
            active = ops.glu(rows, layer.gate_up, own.biases[1], spec.eps, spec.silu)
            following = last_scale if last else constants[index + 1].scales[0]
            rows = ops.add(rows, active, layer.down, own.gates[1], following)
            yield rows


def fold_norm(
    norm: tuple[Tensor, Tensor], condition: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what a conditioned norm becomes in front of `weight` [out,W]: the scale of its rows
    [W], the bias of the product [out], and the gate of the residual [W]."""
    dense, bias = (tensor.float() for tensor in norm)
    scale, shift, gate = F.linear(condition, dense, bias)[0].chunk(3)
    kind = weight.dtype
    return (1.0 + scale).to(kind), F.linear(shift, weight.float()).to(kind), gate.to(kind)
