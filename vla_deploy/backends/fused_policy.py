# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A policy on fused modules: prefix once a chunk, then Euler steps, of one observation or several.

Only what the policy looks at takes part: images of the cameras that are there, and the tokens
that are not padding, in a bucket of a few fixed lengths. How many of a bucket's rows are real is
a number on the device, so that one captured graph serves them all. Observations that are computed
together have as many rows each, and see nothing of one another.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vla_deploy.backends.fused_inputs import Config, Inputs
from vla_deploy.backends.fused_layers import Places, fold_norm, merged, shuffled, vectors
from vla_deploy.backends.fused_stacks import Stacks
from vla_deploy.backends.parameters import Factor, ParameterSource
from vla_deploy.backends.product_ops import KernelOps, ProductOps
from vla_deploy.backends.step_constants import LayerConstants, StepConstants
from vla_deploy.backends.torch_ops import (
    ALL,
    CAUSAL,
    FIRST_APART,
    LAST_APART,
    Ops,
    Rows,
    Turn,
)
from vla_deploy.models.gemma import gemma_rope_tables
from vla_deploy.models.language import rope_tables
from vla_deploy.models.smolvla import SmolVLAConfig


class FusedPolicy:
    """The fused modules of any family, and the state of the current prefix.

    length, int32 [batch]: rows of each observation's prefix that are real, without pi0's state
    token; the caller sets it before `prefix`. keys and values [layers,batch·places,kv,dim] are
    the prefix's, and behind them those of the step's own rows.
    """

    def __init__(
        self, config: Config, source: ParameterSource, dtype: torch.dtype, ops: Ops,
        batch: int = 1, mlp_dtype: torch.dtype | None = None,
    ) -> None:
        """Read all parameters from `source`, in `dtype`, onto its device. `batch`: observations
        at most that can be computed together. `mlp_dtype`: of the language layers' MLPs, see
        `fused_layers.Layer`. Multiplies nothing on the device."""
        self.config, self.dtype, self.device, self.ops = config, dtype, source.device, ops
        self._smolvla = isinstance(config, SmolVLAConfig)
        self.state_rows = int(self._smolvla)  # rows of `length` that are the state's
        stacks = Stacks(config, source, dtype, mlp_dtype)
        self.tower, self.language, self.expert = stacks.tower, stacks.language, stacks.expert
        self.heads, self.width = stacks.heads, stacks.width
        self._projector, self._embedding = stacks.projector, stacks.embedding
        self._crossing, self._cross_weights = stacks.crossing, stacks.cross_weights
        # by the time, in all norms of a step: its constants are products of weights
        self.conditioned = self.expert.spec.conditioned
        self._read_actions(source, stacks.expert_norm)
        self.has_state_token = self._state_weights is not None and not self._smolvla
        heads, places = self.heads, config.prefix_length + config.chunk_size
        layers = len(self.expert.layers)
        self.keys, self.values = torch.zeros(
            (2, layers, batch * places, heads.kv, heads.dim), dtype=dtype, device=self.device
        )
        make_tables = rope_tables if self._smolvla else gemma_rope_tables
        tables = (t.repeat(batch, 1) for t in make_tables(places, heads.dim))
        self._turn = Turn(*(
            source.made(tuple(table.shape), torch.float32, lambda table=table: table)
            for table in tables
        ))
        self._places = places
        # these say where kernels write, so that they must be there before any is launched
        self._first, self.length, self._behind, self._seen, self._own = torch.zeros(
            (5, batch), dtype=torch.int32, device=self.device
        )
        for slot in range(1, batch):
            self._first[slot].fill_(slot * places)
        crossing = len(self._crossing)
        self._cross = (
            torch.zeros_like(self.keys[:crossing]), torch.zeros_like(self.values[:crossing])
        )

    def shortest(self) -> FusedPolicy:
        """Return a policy of those layers that differ in what they launch, in the same memory: it
        launches each kernel that this one does, and most of them far fewer times."""
        # the first and the last of each kind: what comes first begins a stream of rows
        last = {own.cross: index for index, own in enumerate(self.expert.layers)}
        kept = sorted({0, *last.values()})
        short, stacks = copy.copy(self), (self.tower, self.language, self.expert)
        short.tower, short.language, short.expert = map(copy.copy, stacks)
        short.tower.layers = self.tower.layers[:1]
        short.language.layers, short.expert.layers = (
            [stack.layers[index] for index in kept] for stack in (self.language, self.expert)
        )
        short.keys, short.values = (cache[: len(kept)] for cache in (self.keys, self.values))
        short._crossing = [i for i, own in enumerate(short.expert.layers) if own.cross]
        return short

    def prefix(self, inputs: Inputs) -> None:
        """Fill keys and values from an observation."""
        self.prefix_without_state(inputs)
        self._run_state(inputs)

    def _run_state(self, inputs: Inputs) -> None:
        """Fill keys and values of pi0's state token, if there is one, behind those of `length`."""
        if self.has_state_token:
            token = self.ops.enter(inputs.state, *self._state_weights, None)
            places = self._behind_prefix(len(inputs.state))
            _last(self._run_expert(token, self._plain, None, ALL, places, keys_only=True))

    def prefix_without_state(self, inputs: Inputs) -> None:
        """Fill keys and values but those of pi0's state token, which `first_step` can bring."""
        for index, count in self._prefix_layers(inputs, self.ops):
            self._project(index, count, len(inputs.state))

    def load_products(self, inputs: Inputs) -> None:
        """Run the products of the prefix and the tower's attention, and nothing else of it, so
        that their libraries and kernels are loaded. Overwrites keys, values and `length`."""
        self._set_shortest(inputs)
        for index, count in self._prefix_layers(inputs, ProductOps(self.ops)):
            self._project(index, count, len(inputs.state))

    def load_kernels(self, inputs: Inputs) -> None:
        """Run tower and language layers without their products, and pi0's state token, so that
        their kernels are loaded. Overwrites keys, values and `length`, this to what
        `load_products` does."""
        tokens = self._set_shortest(inputs) + inputs.tokens.shape[1] + self.state_rows
        count = len(inputs.state)
        rows = self._embedding.new_empty((count * tokens, self._embedding.shape[1]))
        for _ in self._language_layers(rows, count, KernelOps(self.ops)):
            pass
        self.tower.load_kernels(self.ops, len(inputs.images) * self.tower.patches)
        self._run_state(inputs)

    def _set_shortest(self, inputs: Inputs) -> int:
        """Let observations be without text, since an earlier length may be beyond their rows;
        returns the rows of an observation's images."""
        images = len(inputs.images) // len(inputs.state) * self.config.tokens_per_image
        self.length.fill_(images + self.state_rows)
        return images

    def _prefix_layers(self, inputs: Inputs, ops: Ops) -> Iterator[tuple[int, int]]:
        """Run the prefix; yields each layer whose keys and values are there, and an
        observation's rows."""
        rows, count = self._embed(inputs, ops), len(inputs.state)
        for index in self._language_layers(rows, count, ops):
            yield index, len(rows) // count

    def _language_layers(self, rows: Tensor, count: int, ops: Ops) -> Iterator[int]:
        mode = LAST_APART if self._smolvla else ALL
        places = self._behind_prefix(count)
        cache = (self._of(self.keys, count), self._of(self.values, count))
        return self.language.run(ops, rows, self._turn, places, cache, mode)

    def prefix_and_first_step(
        self, inputs: Inputs, x: Tensor, dt: Tensor, constants: StepConstants
    ) -> tuple[Tensor, Tensor]:
        """Return what `first_step` does behind `prefix_without_state`, to the same bits.

        Each layer of the expert needs keys and values of the same layer only, and few processors:
        it runs beside the prefix's next layer.
        """
        expert, rows = self._first_rows(inputs, x, constants), None
        with self.ops.side() as side:
            for index, count in self._prefix_layers(inputs, self.ops):
                with side.behind():
                    self._project(index, count, len(inputs.state))
                    rows = next(expert)
        assert rows is not None
        return self._leave_first(rows, x, dt, constants)

    def constants(self, time_embedding: NDArray[np.float32]) -> StepConstants:
        """Fold a flow time's embedding, float32 [width], into constants; on the host, where few
        values are multiplied, or, of a conditioned policy, on the device."""
        time = torch.from_numpy(time_embedding)[None]
        if not self.conditioned:
            _, weight, bias, out_bias = self._folded.result()
            entry = F.linear(time.to(weight.device), weight, bias)[0].to(self.dtype)
            return StepConstants(entry, self._plain, None, out_bias)
        (into, into_bias), (out, out_bias) = self._time_mlp
        time = time.to(self.device)
        condition = F.silu(F.linear(F.silu(F.linear(time, into, into_bias)), out, out_bias))
        scale, shift, _ = fold_norm(self._last_norm, condition, self._action_out)
        return StepConstants(
            self._in_bias, self.expert.constants(condition), scale,
            self._out_bias + shift.float(),
        )

    def step(
        self, x: Tensor, dt: Tensor, constants: StepConstants
    ) -> tuple[Tensor, Tensor]:
        """Return x + dt · v and v, float32 [observations·steps,padded], at x; dt float32
        [padded]."""
        mode = CAUSAL if self._smolvla else ALL
        places = self._behind_state(len(x) // self.config.chunk_size)
        rows = self._enter(x, constants)
        rows = _last(self._run_expert(rows, *constants.of_layers, mode, places))
        return self._leave(rows, x, dt, constants)

    def steps(self, x: Tensor, dt: Tensor, constants: Sequence[StepConstants]) -> Tensor:
        """Take steps one after the other, each with its own constants; returns the last x. To the
        same bits as by `step`."""
        (moved, _), again = self.ops.recorded(lambda: self.step(x, dt, constants[0]))
        if again is None:
            for own in constants[1:]:
                moved, _ = self.step(moved, dt, own)
            return moved
        before, after, first = moved, torch.empty_like(moved), constants[0].tensors()
        for own in constants[1:]:
            again([(x, before), (moved, after), *zip(first, own.tensors(), strict=True)])
            before, after = after, before
        return before

    def first_step(
        self, inputs: Inputs, x: Tensor, dt: Tensor, constants: StepConstants
    ) -> tuple[Tensor, Tensor]:
        """Take the step behind `prefix_without_state`: the state token goes through the expert
        with the actions, which costs no pass of its own. Shapes as for `step`."""
        return self._leave_first(_last(self._first_rows(inputs, x, constants)), x, dt, constants)

    def _first_rows(
        self, inputs: Inputs, x: Tensor, constants: StepConstants
    ) -> Iterator[Rows]:
        """Run the expert for the first step; yields the rows behind each layer."""
        count = len(inputs.state)
        if self.has_state_token:
            token = self.ops.enter(inputs.state, *self._state_weights, None)
            rows = self.ops.join(token, self._enter(x, constants), count)
            places = self._behind_prefix(count)
            yield from self._run_expert(rows, *constants.of_layers, FIRST_APART, places)
        else:
            mode = CAUSAL if self._smolvla else ALL
            rows = self._enter(x, constants)
            places = self._behind_state(count)
            yield from self._run_expert(rows, *constants.of_layers, mode, places)

    def _leave_first(
        self, rows: Rows, x: Tensor, dt: Tensor, constants: StepConstants
    ) -> tuple[Tensor, Tensor]:
        if not self.has_state_token:
            return self._leave(rows, x, dt, constants)
        steps, padded = self.config.chunk_size, x.shape[1]
        with_state = F.pad(x.view(-1, steps, padded), (0, 0, 1, 0)).view(-1, padded)
        moved, velocity = (
            result.view(-1, 1 + steps, padded)[:, 1:].reshape(-1, padded)
            for result in self._leave(rows, with_state, dt, constants)
        )
        return moved, velocity

    def _enter(self, x: Tensor, constants: StepConstants) -> Rows:
        if not self.conditioned:
            actions = self.ops.linear(x, self._action_in, constants.entry)
            return self.ops.enter(actions, *self._mix_out, None)
        first = constants.layers[0].scales[0]
        return self.ops.enter(x, self._action_in, constants.entry, first)

    def _leave(
        self, rows: Rows, x: Tensor, dt: Tensor, constants: StepConstants
    ) -> tuple[Tensor, Tensor]:
        weight, eps = self._action_out, self.expert.spec.eps
        return self.ops.leave(rows, weight, constants.last_bias, eps, x, dt)

    def _run_expert(
        self, rows: Rows, layers: Sequence[LayerConstants], last_scale: Tensor | None, mode: int,
        places: Places, keys_only: bool = False,
    ) -> Iterator[Rows]:
        """Run the expert over rows that take their own places; see `Expert.run`."""
        count = len(places.own)
        keys, values, *cross = (
            self._of(cache, count) for cache in (self.keys, self.values, *self._cross)
        )
        return self.expert.run(
            self.ops, rows, self._turn, places, (keys, values), (cross[0], cross[1]),
            layers, last_scale, mode, keys_only,
        )

    def _of(self, cache: Tensor, count: int) -> Tensor:
        """Return the part of a cache [layers,batch·places,kv,dim] that is the first `count`
        observations'."""
        return cache[:, : count * self._places]

    def _behind_prefix(self, count: int) -> Places:
        """Return places of rows that come behind the prefix, where pi0's state token goes."""
        of_all = (self._first, self.length, self.length, self._behind)
        return Places(*(places[:count] for places in of_all))

    def _behind_state(self, count: int) -> Places:
        """Return places of the actions' rows."""
        of_all = (self._first, self.length, self._seen, self._own)
        return Places(*(places[:count] for places in of_all))

    def _embed(self, inputs: Inputs, ops: Ops) -> Tensor:
        """Return the rows that enter the language model; those of padding come last of each
        observation's.

        Text and state come into their rows beside the tower.
        """
        count, tokens = inputs.tokens.shape
        images = len(inputs.images) // count * self.config.tokens_per_image
        width = self._embedding.shape[1]
        rows = self._embedding.new_empty((count, images + tokens + self.state_rows, width))
        with ops.side() as side:
            with side.behind():
                torch.add(self.length, int(self.has_state_token), out=self._seen)
                torch.add(self._seen, self._first, out=self._own)
                torch.add(self.length, self._first, out=self._behind)
                for own, text in zip(rows, inputs.tokens, strict=True):
                    torch.index_select(self._embedding, 0, text, out=own[images : images + tokens])
                if self._smolvla:
                    state = F.linear(inputs.state, *self._state_weights)
                    rows[:, -1] = state
                    at = torch.arange(-1, rows.shape[0] * rows.shape[1] - 1, rows.shape[1],
                                      device=self.device) + self.length[:count]
                    rows.view(-1, width).index_copy_(0, at, state)
            features = self.tower.run(ops, inputs.images)
            if self._smolvla:
                features = shuffled(features, self.config.grid, self.config.scale_factor)
            weight, bias = self._projector
            for own, seen in zip(rows, features.view(count, images, -1), strict=True):
                if bias is None:
                    torch.mm(seen, weight.T, out=own[:images])
                else:
                    torch.addmm(bias, seen, weight.T, out=own[:images])
        return rows.view(-1, width)

    def _project(self, index: int, rows: int, count: int) -> None:
        """Project a language layer's keys and values, so many rows of each of `count`
        observations, to what a cross layer reads, if it is one."""
        if self._cross_weights is None or index not in self._crossing:
            return
        at = self._crossing.index(index)
        for cache, weight, cross in zip(
            (self.keys, self.values), self._cross_weights, self._cross, strict=True
        ):
            for begin in range(0, count * self._places, self._places):
                raw, target = (
                    own[begin : begin + rows].flatten(1) for own in (cache[index], cross[at])
                )
                torch.mm(raw, weight[at], out=target)

    def _read_actions(self, source: ParameterSource, expert_norm: str) -> None:
        """Ask for the way of actions, time and state into and out of the expert."""
        dtype, into, out = self.dtype, 'action_in_proj', 'action_out_proj'
        self._state_weights = None
        if self.conditioned:
            self._time_mlp = [
                vectors(source, name, torch.float32) for name in ('time_mlp_in', 'time_mlp_out')
            ]
            self._last_norm = vectors(source, f'{expert_norm}.dense', dtype)
            self._action_in, self._in_bias = vectors(source, into, dtype)
            self._action_out = merged(source, [f'{out}.weight'], dtype, None)
            self._out_bias = merged(source, [f'{out}.bias'], torch.float32, None)
            return
        width, padded = source.shape(f'{into}.weight')

        def fold() -> tuple[Tensor, Tensor, Tensor, Tensor]:
            mix = source.read('action_time_mlp_in.weight')
            of_actions, of_time = mix[:, :width], mix[:, width:]
            bias = source.read('action_time_mlp_in.bias')
            bias = bias + of_actions @ source.read(f'{into}.bias')
            weight = of_actions @ source.read(f'{into}.weight')
            return weight, of_time.contiguous(), bias, source.read(f'{out}.bias')

        self._plain = self.expert.constants(None)
        self._folded = folded = source.later(fold)
        self._action_in = source.made((width, padded), dtype, lambda: folded.result()[0])
        norm = Factor(self.expert.spec.norm_offset, f'{expert_norm}.weight')
        self._action_out = merged(source, [f'{out}.weight'], dtype, norm)
        self._mix_out = vectors(source, 'action_time_mlp_out', dtype)
        self._state_weights = vectors(source, 'state_proj', dtype)


def _last(rows: Iterator[Rows]) -> Rows:
    """Run to the end and return what is yielded last."""
    last = next(rows)
    for following in rows:
        last = following
    return last
