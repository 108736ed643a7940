# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""A graph of ONNX to be changed: its nodes by what they make and by who reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

OWN_DOMAIN = 'com.microsoft'  # of ONNX Runtime's own nodes
# A node, and those that take its place.
Change = tuple[NodeProto, list[NodeProto]]


def without_unread(model: ModelProto) -> None:
    """Take nodes and constants out of a model that nothing reads."""
    graph = Graph(model.graph)
    graph.sweep()
    graph.write()


@dataclass
class Graph:
    """A graph's nodes by what they make and who reads it."""

    proto: GraphProto
    made: dict[str, NodeProto] = field(default_factory=dict)
    constants: dict[str, TensorProto] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.nodes = list(self.proto.node)
        self.constants = {tensor.name: tensor for tensor in self.proto.initializer}
        self._index()

    def _index(self) -> None:
        self.made = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.outputs = {value.name for value in self.proto.output}

    def maker(self, name: str, kind: str) -> NodeProto | None:
        """Return the node of a kind that makes a value, or None."""
        node = self.made.get(name)
        return node if node is not None and node.op_type == kind else None

    def reader(self, name: str, kind: str) -> NodeProto | None:
        """Return the only reader of a value, if it is of that kind."""
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and readers[0].op_type == kind else None

    def value(self, name: str) -> NDArray[Any] | None:
        """Return a constant that lies inside the graph, or None."""
        tensor = self.constants.get(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            return None
        return numpy_helper.to_array(tensor)

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Return the name of a constant, which is added unless it is there."""
        if name not in self.constants:
            self.constants[name] = self.proto.initializer.add()
            self.constants[name].CopyFrom(numpy_helper.from_array(value, name))
        return name

    def replace(self, last: NodeProto, nodes: Sequence[NodeProto]) -> None:
        """Put nodes in the place of one; what only that one needed is swept away later."""
        at = next(index for index, node in enumerate(self.nodes) if node is last)
        self.nodes[at : at + 1] = nodes

    def drop(self, node: NodeProto) -> None:
        """Take a node away, whose outputs another one makes from now on."""
        self.nodes = [other for other in self.nodes if other is not node]

    def sweep(self) -> None:
        """Drop nodes that nobody reads."""
        self._index()
        needed, kept = set(self.outputs), []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)
        self.nodes = kept[::-1]
        self._index()

    def write(self) -> None:
        """Write the nodes, and drop constants that nobody reads."""
        del self.proto.node[:]
        self.proto.node.extend(self.nodes)
        kept = [t for t in self.proto.initializer if t.name in self.readers]
        del self.proto.initializer[:]
        self.proto.initializer.extend(kept)
