# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Folds what is constant in a traced graph and drops what does nothing, without its weights.

These are the exporter's own passes in its own order, with those of its rewriting rules that apply
to such graphs. Its full set holds one, the join of slices to a split, whose search takes time with
the square of the number of nodes: a fifth of the export of a policy of published size.
"""

from __future__ import annotations

import onnx_ir.passes.common as passes
from onnxscript import ir
from onnxscript.optimizer import fold_constants
from onnxscript.rewriter import RewritePass
from onnxscript.rewriter.rules import common as rules

ROUNDS = 2
_RULES = (
    rules.cast_cast_rule,
    rules.no_op_cast_rule,
    rules.no_op_expand_rule,
    rules.reshape_reshape_rule,
    rules.no_op_transpose_rule,
    rules.transpose_transpose_rule,
    rules.unsqueeze_unsqueeze_rule,
)


def simplify(model: ir.Model) -> None:
    """Simplify a graph in place; what it computes stays the same to the bit."""
    passes.InlinePass()(model)
    for _ in range(ROUNDS):
        fold_constants(model, onnx_shape_inference=True)
        RewritePass(_RULES)(model)
        passes.RemoveUnusedNodesPass()(model)
    for tidy in (
        passes.RemoveUnusedFunctionsPass(),
        passes.RemoveUnusedOpsetsPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.OutputFixPass(),
        passes.NameFixPass(),
    ):
        tidy(model)
