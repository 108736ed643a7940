# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The operations of the torch backend, in plain torch: for the CPU, and as their definition.

`triton_ops` computes the same with fused kernels on a GPU. Rows of several observations stand
behind one another, as many of each; how many observations they are is told by the length of
`offset` or `length`. Learned scales of norms are in the weights of the products that follow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vla_deploy.backends.quantised import Matrix, product, quantised

ALL, CAUSAL, LAST_APART, FIRST_APART = 0, 1, 2, 3
Result = TypeVar('Result')
Again = Callable[[Sequence[tuple[Tensor, Tensor]]], None]


class Heads(NamedTuple):
    """Numbers of query and of key heads, and their size."""

    query: int
    kv: int
    dim: int

    @property
    def rows(self) -> int:
        """Rows of the fused weight of queries, keys and values."""
        return (self.query + 2 * self.kv) * self.dim


class Turn(NamedTuple):
    """Cosines and sines for each place in the caches of keys, float32 [places, dim/2]."""

    cosine: Tensor
    sine: Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """The residual stream between products. hidden [M,W]; scaled: hidden times the scale of the
    norm that comes next; squares: partial sums of hidden², which only a fused kernel leaves."""

    hidden: Tensor
    scaled: Tensor
    squares: Tensor | None = None


class Ops(Protocol):
    """What the fused modules are made of. Weights are [out,in]; `offset` and `length` are int32
    [observations] on the device, so that one captured graph serves any length of the prefix. Keys
    and values [places,kv,dim] have as many places for each observation, one after the other.
    With `narrow`, rows come out in 8 bits, for a product that takes them so."""

    def awake(self) -> None:
        """Return when kernels can be launched without waiting for what finds them; raises what
        keeps it from that."""

    def measured(self, run: Callable[[], Any]) -> bool:
        """Call `run`, and say whether all kernels that it launches were measured in their sizes."""

    def recorded(self, run: Callable[[], Result]) -> tuple[Result, Again | None]:
        """Return what `run` returns, and what launches its kernels again, in a fraction of the
        time, with the second tensor of each pair instead of the first; None where an Euler step's
        operation left its product to a library. `run` may call these operations only: `linear`,
        `enter`, `add`, `leave`, `qkv`, `glu` and `attend`."""

    def keep(self) -> None:
        """Keep on the disk what had to be compiled."""

    def side(self) -> Side:
        """Return where operations can be put that need not wait for those that follow here."""

    def product(self, x: Matrix, weight: Matrix) -> Tensor:
        """x · weightᵀ, which is left to a library."""

    def product_parts(self, x: Tensor, weight: Tensor, parts: int) -> Tensor:
        """The same as so many parts of its sums, [parts,rows,out]."""

    def add_product(self, x: Tensor, y: Tensor, weight: Tensor) -> None:
        """x += y · weightᵀ in place, which is left to a library."""

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """silu(x · weightᵀ + bias); x, here and in `enter`, is rounded to the weight's dtype."""

    def enter(self, x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor | None) -> Rows:
        """Begin a residual stream with x · weightᵀ + bias."""

    def add(
        self, rows: Rows, x: Tensor, weight: Tensor, gate: Tensor | None, scale: Tensor | None
    ) -> Rows:
        """hidden + gate · (x · weightᵀ)."""

    def leave(
        self, rows: Rows, weight: Tensor, bias: Tensor, eps: float, x: Tensor, dt: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return x + dt · v and v = norm(rows) · weightᵀ + bias, float32; dt float32 [out]."""

    def qkv(
        self, rows: Rows, weight: Tensor, bias: Tensor | None, eps: float, heads: Heads,
        turn: Turn, offset: Tensor, keys: Tensor, values: Tensor,
    ) -> Tensor:
        """Norm, project and rotate; write keys and values of each observation from its place
        `offset` on, and return queries [M,heads,dim]. With heads.kv 0 there are only queries."""

    def glu(
        self, rows: Rows, weight: Tensor, bias: Tensor | None, eps: float, silu: bool
    ) -> Tensor:
        """act(gate) · up of the normed rows; weight holds gates over ups."""

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, length: Tensor, extra: int, mode: int
    ) -> Tensor:
        """Attention of queries [M,heads,dim] to the first length + extra keys of their
        observation, [M,heads·dim].

        CAUSAL: token i sees length + i + 1; LAST_APART: all see length - 1, the last one length;
        FIRST_APART: token 0 sees length + 1.
        """

    def join(self, first: Rows, second: Rows, count: int) -> Rows:
        """Put the second's rows of each of `count` observations behind the first's, both as
        `enter` left them without a scale."""

    def norm(
        self, x: Tensor, eps: float, parts: Tensor | None = None, narrow: bool = False
    ) -> Matrix:
        """x / rms(x); where there are parts [n,rows,W], x += their sum in place first."""

    def rope(
        self, qkv: Tensor, heads: Heads, turn: Turn, offset: Tensor, keys: Tensor,
        values: Tensor, keys_only: bool,
    ) -> Tensor | None:
        """Split a product, rotate it, write keys and values of each observation from its place
        `offset` on; return queries, or None where the product is `keys_only`."""

    def activate(self, x: Tensor, silu: bool, narrow: bool = False) -> Matrix:
        """act(gate) · up of x [rows, 2·features]."""

    def add_norm(
        self, x: Tensor, update: Tensor | None, bias: Tensor | None, weight: Tensor,
        shift: Tensor, eps: float,
    ) -> Tensor:
        """x += update + bias in place, where there is one; return the layer norm of x. The three
        vectors are float32."""

    def gelu_linear(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """gelu(x · weightᵀ + bias), the tanh form."""


class Side(Protocol):
    """A second order of operations, beside the first. As a context: what follows it comes behind
    both, after an error as well."""

    def __enter__(self) -> Side: ...

    def __exit__(self, *error: object) -> None: ...

    def behind(self) -> AbstractContextManager[None]:
        """Let what is called within come behind all that was called so far, and no further."""


class Inline:
    """The first order itself: one after the other."""

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *error: object) -> None:
        """See Side."""

    def behind(self) -> AbstractContextManager[None]:
        """See Side."""
        return nullcontext()


class LibraryProducts:
    """See Ops."""

    def product(self, x: Matrix, weight: Matrix) -> Tensor:
        """See Ops."""
        return product(x, weight)

    def product_parts(self, x: Tensor, weight: Tensor, parts: int) -> Tensor:
        """See Ops."""
        return torch.bmm(
            x.view(len(x), parts, -1).transpose(0, 1),
            weight.view(len(weight), parts, -1).permute(1, 2, 0),
        )

    def add_product(self, x: Tensor, y: Tensor, weight: Tensor) -> None:
        """See Ops."""
        x.addmm_(y, weight.T)


class TorchOps(LibraryProducts):
    """See Ops."""

    def awake(self) -> None:
        """See Ops."""

    def measured(self, run: Callable[[], Any]) -> bool:
        """See Ops."""
        run()
        return True

    def recorded(self, run: Callable[[], Result]) -> tuple[Result, Again | None]:
        """See Ops."""
        return run(), None

    def keep(self) -> None:
        """See Ops."""

    def side(self) -> Side:
        """See Ops."""
        return Inline()

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """See Ops."""
        return F.silu(F.linear(x.to(weight.dtype), weight, bias))

    def enter(self, x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor | None) -> Rows:
        """See Ops."""
        return _rows(F.linear(x.to(weight.dtype), weight, bias), scale)

    def add(
        self, rows: Rows, x: Tensor, weight: Tensor, gate: Tensor | None, scale: Tensor | None
    ) -> Rows:
        """See Ops."""
        update = F.linear(x, weight)
        return _rows(rows.hidden + (update if gate is None else update * gate), scale)

    def leave(
        self, rows: Rows, weight: Tensor, bias: Tensor, eps: float, x: Tensor, dt: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See Ops."""
        velocity = F.linear(_normed(rows, eps), weight).float() + bias
        return x + dt * velocity, velocity

    def qkv(
        self, rows: Rows, weight: Tensor, bias: Tensor | None, eps: float, heads: Heads,
        turn: Turn, offset: Tensor, keys: Tensor, values: Tensor,
    ) -> Tensor:
        """See Ops."""
        product = F.linear(_normed(rows, eps), weight, bias).view(len(rows.hidden), -1, heads.dim)
        at = _places(offset, len(product))
        turned = _rotate(product[:, : heads.query + heads.kv], turn.cosine[at], turn.sine[at])
        if heads.kv:
            keys.index_copy_(0, at, turned[:, heads.query :])
            values.index_copy_(0, at, product[:, heads.query + heads.kv :])
        return turned[:, : heads.query]

    def glu(
        self, rows: Rows, weight: Tensor, bias: Tensor | None, eps: float, silu: bool
    ) -> Tensor:
        """See Ops."""
        return _glu(F.linear(_normed(rows, eps), weight, bias), silu)

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, length: Tensor, extra: int, mode: int
    ) -> Tensor:
        """See Ops."""
        count = len(length)
        parts = [part.view(count, -1, *part.shape[1:]) for part in (queries, keys, values)]
        tokens, places = parts[0].shape[1], parts[1].shape[1]
        key = torch.arange(places, device=keys.device)
        length = length.view(-1, 1, 1, 1)
        if mode != ALL:
            token = torch.arange(tokens, device=keys.device)[:, None]
        if mode == CAUSAL:
            seen = length + token + 1
        elif mode == LAST_APART:
            seen = torch.where(token == length - 1, length, length - 1)
        elif mode == FIRST_APART:
            seen = torch.where(token == 0, length + 1, length + extra)
        else:
            seen = length + extra
        mixed = F.scaled_dot_product_attention(
            *(part.transpose(1, 2) for part in parts),
            attn_mask=(key < seen).expand(count, 1, tokens, places),
            enable_gqa=True,
        )
        return mixed.transpose(1, 2).reshape(len(queries), -1)

    def join(self, first: Rows, second: Rows, count: int) -> Rows:
        """See Ops."""
        hidden = joined(first.hidden, second.hidden, count)
        return Rows(hidden, hidden)

    def norm(
        self, x: Tensor, eps: float, parts: Tensor | None = None, narrow: bool = False
    ) -> Matrix:
        """See Ops."""
        if parts is not None:
            x += parts.sum(0, dtype=torch.float32)
        if narrow:
            return quantised(F.rms_norm(x.float(), (x.shape[-1],), eps=eps))
        return F.rms_norm(x, (x.shape[-1],), eps=eps)

    def rope(
        self, qkv: Tensor, heads: Heads, turn: Turn, offset: Tensor, keys: Tensor,
        values: Tensor, keys_only: bool,
    ) -> Tensor | None:
        """See Ops."""
        product = qkv.view(len(qkv), -1, heads.dim)
        at = _places(offset, len(product))
        turning = product.shape[1] - heads.kv
        turned = _rotate(product[:, :turning], turn.cosine[at], turn.sine[at])
        keys.index_copy_(0, at, turned[:, turning - heads.kv :])
        values.index_copy_(0, at, product[:, turning:])
        return None if keys_only else turned[:, : heads.query]

    def activate(self, x: Tensor, silu: bool, narrow: bool = False) -> Matrix:
        """See Ops."""
        return quantised(_glu(x.float(), silu)) if narrow else _glu(x, silu)

    def add_norm(
        self, x: Tensor, update: Tensor | None, bias: Tensor | None, weight: Tensor,
        shift: Tensor, eps: float,
    ) -> Tensor:
        """See Ops."""
        if update is not None:
            x += update + bias
        return F.layer_norm(x.float(), (x.shape[-1],), weight, shift, eps).to(x.dtype)

    def gelu_linear(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """See Ops."""
        return F.gelu(F.linear(x, weight, bias), approximate='tanh')


def joined(first: Tensor, second: Tensor, count: int) -> Tensor:
    """Put the second's rows of each of `count` observations behind the first's, [rows,W]."""
    parts = [rows.view(count, -1, rows.shape[1]) for rows in (first, second)]
    return torch.cat(parts, 1).view(-1, first.shape[1])


def _places(offset: Tensor, rows: int) -> Tensor:
    """Return the place of each row, int64 [rows]; those of an observation begin at its offset."""
    own = torch.arange(rows // len(offset), device=offset.device)
    return (offset[:, None] + own).view(-1)


def _glu(x: Tensor, silu: bool) -> Tensor:
    gate, up = x.chunk(2, -1)
    return (F.silu(gate) if silu else F.gelu(gate, approximate='tanh')) * up


def _rows(hidden: Tensor, scale: Tensor | None) -> Rows:
    return Rows(hidden, hidden if scale is None else hidden * scale)


def _normed(rows: Rows, eps: float) -> Tensor:
    if rows.scaled is rows.hidden:
        return F.rms_norm(rows.hidden, (rows.hidden.shape[-1],), eps=eps)
    squares = rows.hidden.float().pow(2).mean(-1, keepdim=True)
    return (rows.scaled * torch.rsqrt(squares + eps)).to(rows.hidden.dtype)


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate x [M,heads,dim] by cosines and sines [M,dim/2]; halves, not pairs."""
    first, second = x.float().chunk(2, -1)
    turn = torch.complex(cosine, sine)[:, None]
    turned = torch.complex(first, second) * turn
    return torch.cat((turned.real, turned.imag), -1).to(x.dtype)
