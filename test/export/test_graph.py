# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""The exported graphs: versions, names, shared weights, and nothing that names a machine."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto

from vla_deploy.export import graph as graph_module
from vla_deploy.export import smolvla
from vla_deploy.export.checkpoint import read_checkpoint
from vla_deploy.export.graph import IR_VERSION, OPSET, export_graphs
from vla_deploy.export.weight_store import ALIGNMENT_BYTES, INLINE_BYTES
from vla_deploy.pipeline.bundle import PREFIX_GRAPH, STEP_GRAPH, WEIGHTS

CHECKPOINT = Path(__file__).parents[1] / 'goldens' / 'smolvla_3cam' / 'checkpoint'


@pytest.fixture(params=[PREFIX_GRAPH, STEP_GRAPH])
def graph(request, golden_bundle):
    """Return one of the graphs, weights not loaded."""
    path = golden_bundle('smolvla_3cam') / request.param
    return onnx.load(path, load_external_data=False)


def external(tensor):
    return {entry.key: entry.value for entry in tensor.external_data}


def test_when_exported_expect_the_declared_versions(graph):
    assert graph.ir_version == IR_VERSION
    assert [(item.domain, item.version) for item in graph.opset_import] == [('', OPSET)]
    assert not graph.functions


def test_when_exported_expect_no_notes_of_the_exporter(graph):
    parts = (graph, graph.graph, *graph.graph.node, *graph.graph.input, *graph.graph.initializer)
    for part in parts:
        assert not part.metadata_props
        assert not part.doc_string


def test_when_exported_expect_every_shape_static(graph):
    for value in (*graph.graph.input, *graph.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            assert dim.HasField('dim_value')


def test_when_exported_expect_large_tensors_aligned_in_the_one_file(graph, golden_bundle):
    size = (golden_bundle('smolvla_3cam') / WEIGHTS).stat().st_size
    count = 0
    for tensor in graph.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            assert len(tensor.raw_data) < INLINE_BYTES
            continue
        place = external(tensor)
        assert place['location'] == WEIGHTS
        assert int(place['offset']) % ALIGNMENT_BYTES == 0
        assert int(place['offset']) + int(place['length']) <= size
        count += 1
    assert count > 10


def test_when_both_graphs_hold_a_tensor_expect_it_stored_once(golden_bundle):
    folder = golden_bundle('smolvla_3cam')
    contents, places = set(), set()
    data = (folder / WEIGHTS).read_bytes()
    for name in (PREFIX_GRAPH, STEP_GRAPH):
        for tensor in onnx.load(folder / name, load_external_data=False).graph.initializer:
            if tensor.data_location == TensorProto.EXTERNAL:
                place = external(tensor)
                offset, length = int(place['offset']), int(place['length'])
                places.add((offset, length))
                contents.add(data[offset : offset + length])
    assert len(contents) == len(places)


def test_when_loaded_expect_onnx_to_accept_the_graph(graph, golden_bundle):
    for name in (PREFIX_GRAPH, STEP_GRAPH):
        onnx.checker.check_model(str(golden_bundle('smolvla_3cam') / name), full_check=True)


def test_when_torch_cannot_leave_out_stack_traces_expect_the_same_files(
    golden_bundle, tmp_path, monkeypatch
):
    # torch 2.11, which comes with LeRobot 0.6.1, knows no such switch
    monkeypatch.setattr(graph_module, 'STACK_TRACES', 'no_switch_of_this_torch')
    model, _ = smolvla.load(read_checkpoint(CHECKPOINT))
    export_graphs(model, *(tmp_path / name for name in (PREFIX_GRAPH, STEP_GRAPH, WEIGHTS)))
    bundle = golden_bundle('smolvla_3cam')
    for name in (PREFIX_GRAPH, STEP_GRAPH):
        assert (tmp_path / name).read_bytes() == (bundle / name).read_bytes()
    # weights that no graph holds stand behind those of the graphs
    assert (bundle / WEIGHTS).read_bytes().startswith((tmp_path / WEIGHTS).read_bytes())
