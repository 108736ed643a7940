# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest

from vla_deploy.files import write_yaml
from vla_deploy.pipeline import Guidance, Observation, Policy, PolicyError

onnx = pytest.importorskip('onnx')
T = onnx.TensorProto


def graph(inputs, outputs, nodes):
    """Return the bytes of a model; inputs and outputs are name -> (type, shape)."""
    values = [
        [onnx.helper.make_tensor_value_info(name, *kind) for name, kind in side.items()]
        for side in (inputs, outputs)
    ]
    made = onnx.helper.make_graph(nodes, 'tiny', *values)
    opset = onnx.helper.make_opsetid('', 20)
    return onnx.helper.make_model(made, opset_imports=[opset], ir_version=10).SerializeToString()


PREFIX_INPUTS = {
    'images': (T.FLOAT, [3, 3, 32, 32]),
    'image_mask': (T.BOOL, [3]),
    'tokens': (T.INT64, [12]),
    'token_mask': (T.BOOL, [12]),
    'state': (T.FLOAT, [8]),
}
STEP_INPUTS = {
    'memory': (T.FLOAT, [8]),
    'x': (T.FLOAT, [6, 8]),
    'time_embedding': (T.FLOAT, [16]),
    'dt': (T.FLOAT, []),
}
STEP_OUTPUTS = {'x_next': (T.FLOAT, [6, 8]), 'velocity': (T.FLOAT, [6, 8])}


@pytest.fixture
def tiny_bundle(plain_bundle, seal_bundle):
    """A bundle whose velocity is the state that its prefix remembers."""

    def write(prefix_inputs=None, step_outputs=None):
        folder = plain_bundle()
        node = onnx.helper.make_node
        prefix = graph(
            prefix_inputs or PREFIX_INPUTS,
            {'memory': (T.FLOAT, [8])},
            [node('Identity', ['state'], ['memory'])],
        )
        step = graph(
            STEP_INPUTS,
            step_outputs or STEP_OUTPUTS,
            [
                node('Shape', ['x'], ['shape']),
                node('Expand', ['memory', 'shape'], ['velocity']),
                node('Mul', ['velocity', 'dt'], ['move']),
                node('Add', ['x', 'move'], ['x_next']),
            ],
        )
        (folder / 'prefix.onnx').write_bytes(prefix)
        (folder / 'step.onnx').write_bytes(step)
        seal_bundle(folder)
        return folder

    return write


def test_when_prefix_remembers_the_state_expect_every_step_to_see_it(tiny_bundle):
    policy = Policy.load(tiny_bundle(), threads=1)
    image = np.zeros((32, 32, 3), np.uint8)
    noise = np.zeros((6, 8), np.float32)
    mean = np.linspace(-1, 1, 7, dtype=np.float32)
    chunk = policy.infer(Observation({'front': image}, mean + 1.0, 'go'), noise=noise)
    # (state - mean) / std is 2 for the seven joints, and four steps of -1/4 were taken
    assert np.abs(chunk.raw[:, :7] + 2.0).max() <= 1e-6
    assert (chunk.raw[:, 7] == 0).all()


def test_when_graph_does_not_fit_the_contract_expect_error_naming_it(tiny_bundle):
    inputs = {**PREFIX_INPUTS, 'tokens': (T.INT64, [13])}
    with pytest.raises(PolicyError, match=r'prefix\.onnx: has .*13.*but the contract leads to'):
        Policy.load(tiny_bundle(prefix_inputs=inputs))


def test_when_step_gives_something_else_expect_error_naming_it(tiny_bundle):
    outputs = {**STEP_OUTPUTS, 'shape': (T.INT64, [2])}
    with pytest.raises(PolicyError, match=r'step\.onnx: has .*shape'):
        Policy.load(tiny_bundle(step_outputs=outputs))


def test_when_graph_is_no_graph_expect_one_line_naming_it(plain_bundle):
    with pytest.raises(PolicyError, match=r'prefix\.onnx: does not load') as error:
        Policy.load(plain_bundle())
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'provider': 'gpu'}, "provider 'gpu' is not possible with backend onnx_runtime"),
        ({'precision': 'int4'}, "precision 'int4' is not possible"),
        ({'variant': 'knot'}, "variant 'knot' is not possible"),
        ({'variant': 'loop'}, r'holds no loop\.onnx, which precision .fp32. with variant .loop.'),
        ({'precision': 'int8'}, 'export again with --precision int8'),
        ({'threads': 0}, 'threads is 0, but must be at least 1'),
    ],
)
def test_when_option_cannot_be_fulfilled_expect_error_and_no_fall_back(
    tiny_bundle, changes, message
):
    with pytest.raises(PolicyError, match=message):
        Policy.load(tiny_bundle(), **changes)


def test_when_provider_is_not_in_the_runtime_expect_error_naming_it(tiny_bundle, monkeypatch):
    from vla_deploy.backends import onnx_runtime

    monkeypatch.setitem(onnx_runtime.PROVIDERS, 'rocket', 'RocketExecutionProvider')
    with pytest.raises(PolicyError, match='RocketExecutionProvider is not in this onnxruntime'):
        Policy.load(tiny_bundle(), provider='rocket')


@pytest.mark.parametrize('threads', [1, 2])
def test_when_threads_are_given_expect_the_sessions_to_have_so_many(tiny_bundle, threads):
    backend = Policy.load(tiny_bundle(), threads=threads)._backend
    for session in (backend._prefix, backend._step):
        assert session.get_session_options().intra_op_num_threads == threads


# -- a policy that was trained to continue its previous chunk -------------------------------------


@pytest.fixture
def continuing_bundle(tiny_bundle, plain_contract, seal_bundle):
    """A bundle whose step keeps the first `delay` rows of the previous chunk."""
    node, constant = onnx.helper.make_node, onnx.numpy_helper.from_array
    folder = tiny_bundle()
    contract = dataclasses.replace(plain_contract, reserved_inputs=('prev_chunk', 'delay'))
    write_yaml(folder / 'contract.yaml', contract.to_mapping())
    rows = constant(np.arange(6, dtype=np.int64).reshape(6, 1), 'rows')
    step = graph(
        {**STEP_INPUTS, 'prev_chunk': (T.FLOAT, [6, 8]), 'delay': (T.INT64, [])},
        STEP_OUTPUTS,
        [
            node('Shape', ['x'], ['shape']),
            node('Expand', ['memory', 'shape'], ['velocity']),
            node('Mul', ['velocity', 'dt'], ['move']),
            node('Add', ['x', 'move'], ['free']),
            node('Constant', [], ['row'], value=rows),
            node('Less', ['row', 'delay'], ['certain']),
            node('Where', ['certain', 'prev_chunk', 'free'], ['x_next']),
        ],
    )
    (folder / 'step.onnx').write_bytes(step)
    seal_bundle(folder)
    return folder


def test_when_the_contract_reserves_the_inputs_expect_the_policy_given_what_is_left(
    continuing_bundle,
):
    policy = Policy.load(continuing_bundle, threads=1)
    observation = Observation({'front': np.zeros((32, 32, 3), np.uint8)}, np.zeros(7), 'go')
    noise = np.zeros((6, 8), np.float32)
    free = policy.infer(observation, noise).raw
    previous = np.full((4, 7), 9.0, np.float32)
    guided = policy.infer(observation, noise, guidance=Guidance(previous, 2, 4, 'ones', 5.0)).raw
    assert (guided[:2, :7] == 9.0).all()
    assert (guided[:2, 7] == 0.0).all()
    assert np.array_equal(guided[2:], free[2:])  # the velocity itself is left alone


def test_when_more_is_certain_than_is_left_expect_what_is_left(continuing_bundle):
    policy = Policy.load(continuing_bundle, threads=1)
    observation = Observation({'front': np.zeros((32, 32, 3), np.uint8)}, np.zeros(7), 'go')
    guidance = Guidance(np.full((3, 7), 9.0, np.float32), 5, 3, 'ones', 5.0)
    guided = policy.infer(observation, np.zeros((6, 8), np.float32), guidance=guidance).raw
    assert (guided[:3, :7] == 9.0).all()
    assert not (guided[3:, :7] == 9.0).any()
    with pytest.raises(ValueError, match='more than the chunk'):
        policy.infer(
            observation, guidance=Guidance(np.zeros((7, 7), np.float32), 1, 7, 'ones', 5.0)
        )


def test_when_the_graph_lacks_the_reserved_inputs_expect_error_naming_it(
    tiny_bundle, plain_contract, seal_bundle
):
    folder = tiny_bundle()
    contract = dataclasses.replace(plain_contract, reserved_inputs=('prev_chunk', 'delay'))
    write_yaml(folder / 'contract.yaml', contract.to_mapping())
    seal_bundle(folder)
    with pytest.raises(PolicyError, match=r'step\.onnx: has .*but the contract leads to'):
        Policy.load(folder)


@pytest.mark.parametrize('variant', ['unrolled', 'loop'])
def test_when_the_steps_are_not_apart_expect_a_continuing_policy_refused(
    continuing_bundle, variant
):
    with pytest.raises(PolicyError, match='continues its previous chunk'):
        Policy.load(continuing_bundle, variant=variant)
