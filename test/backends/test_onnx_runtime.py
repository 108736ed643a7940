# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses
import shutil

import numpy as np
import onnxruntime
import pytest

from vla_deploy.backends import device_errors, onnx_session
from vla_deploy.backends.onnx_runtime import OnnxRuntimeBackend
from vla_deploy.files import write_yaml
from vla_deploy.pipeline import BundleError, Guidance, Observation, Policy, PolicyError
from vla_deploy.pipeline.backend import BackendOptions, ModelInputs
from vla_deploy.pipeline.bundle import open_bundle

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
        ({'precision': 'tf32'}, "precision 'tf32' is not possible with backend onnx_runtime on c"),
        ({'provider': 'cuda', 'precision': 'int8'}, "'int8' is not possible .* on cuda"),
        ({'provider': 'tensorrt', 'precision': 'fp32'}, "'fp32' is not possible .* on tensorrt"),
        ({'provider': 'cuda'}, r'holds no prefix\.cuda\.onnx'),
        ({'threads': 0}, 'threads is 0, but must be at least 1'),
    ],
)
def test_when_option_cannot_be_fulfilled_expect_error_and_no_fall_back(
    tiny_bundle, changes, message
):
    with pytest.raises(PolicyError, match=message):
        Policy.load(tiny_bundle(), **changes)


@pytest.mark.parametrize(
    ('provider', 'precision', 'name'),
    [('cuda', 'tf32', 'CUDAExecutionProvider'), ('tensorrt', 'fp16', 'TensorrtExecutionProvider')],
)
def test_when_provider_is_not_in_the_runtime_expect_error_naming_it(
    tiny_bundle, seal_bundle, provider, precision, name
):
    if name in onnxruntime.get_available_providers():
        pytest.skip(f'this onnxruntime has {name}')
    folder = tiny_bundle()
    for graph in ('prefix', 'step'):
        for mark in ('cuda', 'fp16'):
            shutil.copyfile(folder / f'{graph}.onnx', folder / f'{graph}.{mark}.onnx')
    seal_bundle(folder)
    with pytest.raises(PolicyError, match=f'{name} is not in this onnxruntime; it has .*CPU'):
        Policy.load(folder, provider=provider, precision=precision)


@pytest.mark.parametrize('threads', [1, 2])
def test_when_threads_are_given_expect_the_sessions_to_have_so_many(tiny_bundle, threads):
    backend = Policy.load(tiny_bundle(), threads=threads)._backend
    for graph in (backend._prefix, backend._step):
        assert graph.session.get_session_options().intra_op_num_threads == threads


# -- between fixed places, on whatever device ------------------------------------------------------


def observed(state):
    """Model inputs with this state, all else 0."""
    return ModelInputs(np.zeros((3, 3, 32, 32), np.float32), np.ones(3, bool),
                       np.zeros(12, np.int64), np.ones(12, bool), state)  # fmt: skip


X, TIME, DT = np.zeros((6, 8), np.float32), np.zeros(16, np.float32), np.float32(-0.25)


@pytest.fixture
def backends(tiny_bundle, plain_contract):
    """Backends that run as on a CPU, and through one thread, as graphs of a GPU are replayed."""
    folder = tiny_bundle()
    return [
        OnnxRuntimeBackend(
            folder / 'prefix.onnx', folder / 'step.onnx', plain_contract,
            onnx_session.Placement(((onnx_session.CPU, {}),), 'cpu', replays, 1),
        )
        for replays in (False, True)
    ]


def test_when_steps_follow_a_prefix_expect_its_outputs_taken_where_they_are(backends):
    for backend in backends:
        assert backend._step.place('memory') is backend._prefix.place('memory')
        prefix = backend.prefix(observed(np.full(8, 2.0, np.float32)))
        x, velocity = backend.step(prefix, X, TIME, DT)
        assert (velocity == 2.0).all()
        assert (x == -0.5).all()
        backend.step(prefix, x, TIME, DT)
        assert (x == -0.5).all()  # what was returned is the caller's


def test_when_another_prefix_was_computed_expect_the_earlier_one_refused(backends):
    for backend in backends:
        first = backend.prefix(observed(np.zeros(8, np.float32)))
        backend.prefix(observed(np.ones(8, np.float32)))
        with pytest.raises(PolicyError, match='have been overwritten'):
            backend.step(first, X, TIME, DT)


def test_when_a_run_fails_expect_one_line_naming_the_graph(backends):
    for backend in backends:
        with pytest.raises(PolicyError, match=r'prefix\.onnx: cannot be computed') as error:
            backend.prefix(observed(np.zeros(9, np.float32)))
        assert '\n' not in str(error.value)


def test_when_a_node_would_go_to_the_cpu_expect_error_instead(tiny_bundle):
    # a provider that is in every onnxruntime for CPUs and has no kernel for these nodes
    where = onnx_session.Placement((('AzureExecutionProvider', {}),), 'cuda', False, 1)
    disabled = 'fallback to CPU EP has been explicitly disabled.*cannot compute: choose another'
    with pytest.raises(PolicyError, match=disabled):
        onnx_session.open_session(tiny_bundle() / 'prefix.onnx', where)


@pytest.mark.parametrize(
    ('said', 'told'),
    [
        ('f.cc:9 T f() CUDA failure 2: out of memory', 'CUDA failure 2: out of memory; stop what'),
        ('x\ny CUDA', 'x'),
        ('CUDA failure 100: no CUDA-capable device is detected', "choose provider 'cpu'"),
        ('a() CUDA failure 710: device-side assert', 'CUDA failure 710: device-side assert; the d'),
        ('CUDA driver version is insufficient for CUDA runtime version', 'install a driver'),
        ('Please install TensorRT libraries', 'install the TensorRT that'),
    ],
)
def test_when_a_device_fails_expect_what_happened_and_what_to_do(said, told):
    with pytest.raises(PolicyError) as error, device_errors.told('graph', RuntimeError):
        raise RuntimeError(said)
    assert str(error.value).startswith('graph: ')
    assert told in str(error.value)
    assert '\n' not in str(error.value)


# -- where graphs are computed ---------------------------------------------------------------------


@pytest.fixture
def placed(tiny_bundle):
    """Return options -> the providers and their options by name, and the placement."""
    bundle = open_bundle(tiny_bundle())

    def place(**options):
        where = onnx_session.placement(bundle, BackendOptions(**options))
        return dict(where.providers), where, bundle

    return place


def test_when_precision_is_tf32_expect_only_it_to_multiply_so(placed):
    for precision, used in (('fp32', '0'), ('tf32', '1'), ('bf16', '0'), ('fp16', '0')):
        providers, where, _ = placed(provider='cuda', precision=precision)
        assert list(providers) == [onnx_session.CUDA]
        assert providers[onnx_session.CUDA]['use_tf32'] == used
        assert where.device == 'cuda'


def test_when_the_graph_is_a_loop_expect_no_cuda_graph(placed):
    for variant, replays in (('split', True), ('unrolled', True), ('loop', False)):
        providers, where, _ = placed(provider='cuda', variant=variant)
        assert where.replays is replays
        assert providers[onnx_session.CUDA]['enable_cuda_graph'] == str(int(replays))


def test_when_tensorrt_serves_expect_engines_kept_in_the_bundle_by_its_digest(placed):
    providers, _, bundle = placed(provider='tensorrt', precision='fp16')
    engines = str(bundle.path / 'engines' / bundle.model_sha256)
    assert providers[onnx_session.TENSORRT]['trt_engine_cache_path'] == engines
    for precision, flags in (('tf32', ('0', '0')), ('bf16', ('0', '1')), ('fp16', ('1', '0'))):
        own = placed(provider='tensorrt', precision=precision)[0][onnx_session.TENSORRT]
        assert (own['trt_fp16_enable'], own['trt_bf16_enable']) == flags


def test_when_tensorrt_replays_a_cuda_graph_expect_no_other_provider_beside_it(placed):
    for variant, helped in (('split', False), ('unrolled', False), ('loop', True)):
        providers, where, _ = placed(provider='tensorrt', precision='fp16', variant=variant)
        assert where.replays is not helped
        assert list(providers) == [onnx_session.TENSORRT, *[onnx_session.CUDA] * helped]
        assert providers[onnx_session.TENSORRT]['trt_cuda_graph_enable'] == str(int(not helped))


def test_when_engines_lie_in_the_bundle_expect_it_whole_and_other_folders_refused(tiny_bundle):
    folder = tiny_bundle()
    (folder / 'engines' / 'digest').mkdir(parents=True)
    open_bundle(folder)
    (folder / 'motors').mkdir()
    with pytest.raises(BundleError, match='motors: is not listed'):
        open_bundle(folder)


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
