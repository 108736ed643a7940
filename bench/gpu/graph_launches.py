# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Count the nodes of a graph that launch something on a GPU. Needs none.

    python bench/gpu/graph_launches.py GRAPH.onnx ...

As ONNX Runtime leaves them: each value is computed once, what depends on constants alone is
computed at load, views launch nothing, and a sigmoid and the product behind it are one. A graph
with a loop or a branch is refused: how often those nodes run is not in it.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto

INNER = ('Loop', 'If', 'Scan')  # nodes that hold a graph of their own
VIEWS = ('Reshape', 'Unsqueeze', 'Squeeze', 'Identity')


def launches(model: ModelProto) -> Counter[str]:
    """Return how many nodes of each kind launch something; raises ValueError for a graph with one
    that holds others."""
    graph = model.graph
    for node in graph.node:
        if node.op_type in INNER:
            raise ValueError(
                f"{node.op_type} '{node.name}' holds nodes that run any number of times; count "
                'unrolled.*.onnx, or prefix and step'
            )
    defaults = {value.name for value in graph.input}
    constant = {tensor.name for tensor in graph.initializer} - defaults
    same: dict[str, str] = {}
    contents: dict[bytes, str] = {}
    for tensor in graph.initializer:
        if tensor.name in constant and tensor.data_location != TensorProto.EXTERNAL:
            content = TensorProto()
            content.CopyFrom(tensor)
            content.name = ''
            same[tensor.name] = contents.setdefault(content.SerializeToString(), tensor.name)
    known: dict[tuple[object, ...], list[str]] = {}
    counts: Counter[str] = Counter()
    for node in graph.node:
        inputs = tuple(same.get(name, name) for name in node.input)
        if all(not name or name in constant for name in inputs):
            constant.update(node.output)
            continue
        attributes = sorted((a.name, a.SerializeToString()) for a in node.attribute)
        key = node.op_type, inputs, tuple(attributes)
        if key in known:
            same |= dict(zip(node.output, known[key], strict=True))
            continue
        known[key] = list(node.output)
        counts[node.op_type] += node.op_type not in VIEWS
    counts['Mul'] -= counts['Sigmoid']
    return +counts


def main() -> int:
    """Print the counts of each graph."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('graphs', nargs='+', metavar='GRAPH.onnx')
    for path in parser.parse_args().graphs:
        try:
            counts = launches(onnx.load(path, load_external_data=False))
        except (OSError, DecodeError, ValueError) as error:
            parser.error(f'{path}: {error}')
        kinds = ', '.join(f'{kind} {count}' for kind, count in counts.most_common())
        print(f'{path}: {counts.total()} ({kinds})')
    return 0


if __name__ == '__main__':
    sys.exit(main())
