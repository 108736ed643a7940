# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""Export writes a whole, proven bundle, or nothing."""

from __future__ import annotations

import dataclasses
import errno
import functools
import gc
import json
import resource
import signal
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from vla_deploy.cli.export import main
from vla_deploy.export import build
from vla_deploy.export.build import ExportOptions, export_bundle
from vla_deploy.export.families import FAMILIES
from vla_deploy.models.smolvla import SmolVLA
from vla_deploy.pipeline import Policy
from vla_deploy.pipeline.bundle import (
    FILES,
    FIXTURES,
    PARAMETERS,
    REPORT,
    open_bundle,
    sha256_of_file,
)
from vla_deploy.pipeline.fixtures import read_fixtures

ROBOT_IO = """period_s: 0.1
state: {joints: [a, b, c, d, e, f], units: [rad, rad, rad, rad, rad, m]}
action:
  joints: [a, b, c, d, e, f]
  units: [rad, rad, rad, rad, rad, m]
  control_mode: velocity
  first_sample_offset_steps: 1
cameras: [{key: observation.images.camera2, name: wrist}]
"""


@pytest.fixture
def export(checkpoint, ready_graphs):
    """Return a function that exports the copied checkpoint with ready-made graphs."""

    def run(**changes):
        options = ExportOptions(checkpoint, checkpoint.parent / 'bundle', **changes)
        return export_bundle(options, 1, lambda stage: None)

    return run


@pytest.fixture
def run_cli(checkpoint, ready_graphs):
    """Return a function that runs the command on the copied checkpoint."""

    def run(*arguments):
        target = checkpoint.parent / 'bundle'
        command = ['--model', str(checkpoint), '--output', str(target), '--threads', '1']
        return main([*command, *arguments])

    return run


def left_behind(checkpoint):
    """Return the names beside the checkpoint and its backbone."""
    return {path.name for path in checkpoint.parent.iterdir()} - {'backbone', 'checkpoint'}


def test_when_exported_again_expect_the_same_bundle(golden_bundle, checkpoint):
    target = checkpoint.parent / 'bundle'
    again = export_bundle(ExportOptions(checkpoint, target), 1, lambda stage: None)
    assert again.model_sha256 == open_bundle(golden_bundle('smolvla_3cam')).model_sha256


def test_when_the_runtime_loads_the_weights_expect_the_torch_modules_gone(checkpoint):
    alive = []

    def progress(stage):
        if stage.startswith(('torch modules', 'rung 1, prefix.onnx')):
            alive.append(any(type(kept) is SmolVLA for kept in gc.get_objects()))

    gc.disable()  # or chance decides when cycles go
    try:
        export_bundle(ExportOptions(checkpoint, checkpoint.parent / 'bundle'), 1, progress)
    finally:
        gc.enable()
    assert alive == [True] * 3 + [False] * 3


def test_when_exported_expect_every_file_listed_and_nothing_else(golden_bundle):
    folder = golden_bundle('smolvla_3cam')
    assert {path.name for path in folder.iterdir()} == {
        *FILES, PARAMETERS, 'unrolled.onnx', 'loop.onnx', 'prefix.cuda.onnx', 'step.cuda.onnx',
        'unrolled.cuda.onnx', 'loop.cuda.onnx',
    }
    bundle = open_bundle(folder)
    for name, digest in bundle.receipt['files'].items():
        assert sha256_of_file(folder / name) == digest


@pytest.mark.parametrize('name', ['smolvla_3cam', 'smolvla_2cam_empty'])
def test_when_exported_expect_figures_within_the_bars(golden_bundle, name):
    receipt = open_bundle(golden_bundle(name)).receipt
    worst = receipt['parity']['worst']
    assert worst['graph_chunk']['max_abs'] <= 2e-6
    assert worst['pipeline_chunk']['max_abs'] <= 5e-6
    assert worst['pipeline_actions_scaled']['max_abs'] <= 5e-6
    for figure in worst.values():
        assert figure['cosine'] >= 0.9999999
    assert len(receipt['parity']['fixtures']) == 3


def test_when_exported_expect_full_precision_in_the_report(golden_bundle):
    folder = golden_bundle('smolvla_3cam')
    report = (folder / REPORT).read_text(encoding='utf-8')
    for fixture in open_bundle(folder).receipt['parity']['fixtures']:
        assert repr(fixture['graph']['chunk']['max_abs']) in report
        assert repr(fixture['actions']['max_abs']) in report


def test_when_exported_expect_no_path_and_no_host_in_any_text(golden_bundle, checkpoint):
    folder = golden_bundle('smolvla_3cam')
    for name in ('receipt.json', 'VERIFICATION.md', 'contract.yaml', 'prefix.onnx', 'step.onnx'):
        data = (folder / name).read_bytes()
        assert str(folder.parent).encode() not in data
        assert b'/vla_deploy/' not in data
        assert b'site-packages' not in data


def enlarge(data):
    """Multiply one weight by a large number, in the middle of the file."""
    offset = len(data) // 2 // 4096 * 4096
    (value,) = struct.unpack_from('<f', data, offset)
    struct.pack_into('<f', data, offset, value * 64 + 8)


def test_when_graph_is_wrong_expect_exit_1_and_nothing_left(
    run_cli, checkpoint, ready_graphs, capsys
):
    ready_graphs.append(enlarge)
    assert run_cli() == 1
    assert not left_behind(checkpoint)
    lines = capsys.readouterr().err.splitlines()
    assert any('gate failed, nothing was written: rung 1, chunk, fixture 0' in x for x in lines)
    assert any('rung 3, target' in line for line in lines)


def test_when_graph_gives_nan_expect_exit_1_and_nothing_left(
    run_cli, checkpoint, ready_graphs, capsys
):
    def spoil(data):
        middle = len(data) // 2 // 4096 * 4096
        data[middle : middle + 4096] = b'\xff' * 4096

    ready_graphs.append(spoil)
    assert run_cli() == 1
    assert not left_behind(checkpoint)
    assert 'holds NaN or infinity' in capsys.readouterr().err


def nudge(data):
    """Change many weights a little: more than the strict gate allows, less than the plain one."""
    values = np.frombuffer(data, np.float32).copy()
    real = np.isfinite(values) & (np.abs(values) > 1e-20)  # not the integers, which look tiny
    values[real] *= np.float32(1 + 1e-5)
    data[:] = values.tobytes()


@pytest.fixture
def moving(checkpoint):
    """Give every dimension of the state a std above zero, as --strict wants it."""
    (path,) = checkpoint.glob('policy_preprocessor_step_*_normalizer_processor.safetensors')
    arrays = load_file(path)
    arrays['observation.state.std'] = np.maximum(arrays['observation.state.std'], 0.1)
    save_file(arrays, path)


@pytest.mark.usefixtures('moving')
def test_when_strict_expect_a_gate_ten_times_tighter(run_cli, checkpoint, ready_graphs, capsys):
    ready_graphs.append(nudge)
    assert run_cli('--strict') == 1
    assert not left_behind(checkpoint)
    assert 'below 1e-05' in capsys.readouterr().err
    assert run_cli() == 0
    assert left_behind(checkpoint) == {'bundle'}


def test_when_strict_and_evidence_is_stale_expect_exit_1(run_cli, monkeypatch, capsys):
    from vla_deploy.export import evidence

    digests = dict.fromkeys(evidence.source_digests('smolvla'), '0')
    monkeypatch.setattr(evidence, 'source_digests', lambda family: digests)
    assert run_cli('--strict') == 1
    assert 'models/smolvla.py' in capsys.readouterr().err


def test_when_evidence_is_stale_expect_a_warning_in_report_and_output(
    run_cli, checkpoint, monkeypatch, capsys
):
    from vla_deploy.export import evidence

    digests = {**evidence.source_digests('smolvla'), 'models/flow.py': '0'}
    monkeypatch.setattr(evidence, 'source_digests', lambda family: digests)
    assert run_cli() == 0
    assert 'not for these sources: models/flow.py' in capsys.readouterr().err
    report = (checkpoint.parent / 'bundle' / REPORT).read_text(encoding='utf-8')
    assert 'Changed since that comparison: models/flow.py' in report


@pytest.mark.parametrize(
    ('stage', 'error', 'code'),
    [
        ('write_fixtures', OSError(errno.ENOSPC, 'No space left on device', 'fixtures.npz'), 2),
        ('export_graphs', OSError(errno.ENOSPC, 'No space left on device', 'weights.bin'), 2),
        ('run_pipeline', KeyboardInterrupt(), 130),
        ('make_receipt', KeyboardInterrupt(), 130),
    ],
)
def test_when_it_breaks_off_expect_nothing_left(
    run_cli, checkpoint, monkeypatch, capsys, stage, error, code
):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(build, stage, fail)
    assert run_cli() == code
    assert not left_behind(checkpoint)
    last = capsys.readouterr().err.splitlines()[-1]
    assert 'No space left' in last if code == 2 else 'interrupted, nothing was written' in last


def test_when_no_more_can_be_written_expect_the_output_named_and_nothing_left(checkpoint):
    bundle = checkpoint.parent / 'bundle'
    command = [sys.executable, '-m', 'vla_deploy.cli.export', '--model', str(checkpoint)]
    limit = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (100_000, 100_000))
    done = subprocess.run(
        [*command, '--output', str(bundle)], capture_output=True, text=True, preexec_fn=limit,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1] == f'export: {bundle}: File too large'
    assert not left_behind(checkpoint)


@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGTERM])
def test_when_the_process_is_ended_expect_exit_130_and_nothing_left(checkpoint, how):
    command = [sys.executable, '-m', 'vla_deploy.cli.export', '--model', str(checkpoint)]
    command += ['--output', str(checkpoint.parent / 'bundle')]
    # A shell that runs the tests in its background has them ignore SIGINT, and their children too.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, preexec_fn=heed
    ) as process:
        for line in process.stderr:
            if 'exporting two graphs' in line:
                assert left_behind(checkpoint)  # the folder it works in
                process.send_signal(how)
                break
        rest = process.stderr.read()
    assert process.returncode == 130, rest
    assert rest.splitlines()[-1] == 'export: interrupted, nothing was written'
    assert not left_behind(checkpoint)


def test_when_json_is_asked_for_expect_the_result_on_stdout(run_cli, capsys):
    assert run_cli('--json') == 0
    result = json.loads(capsys.readouterr().out)
    assert open_bundle(result['bundle']).model_sha256 == result['model_sha256']
    assert result['parity']['worst']['graph_chunk']['max_abs'] < 1e-4


def test_when_std_is_zero_expect_the_dimension_and_joint_in_a_warning(
    run_cli, checkpoint, capsys
):
    (checkpoint / 'robot_io.yaml').write_text(ROBOT_IO, encoding='utf-8')
    assert run_cli() == 0
    errors = capsys.readouterr().err
    assert 'warning: state dimension 4 (e) has zero std: it never moved' in errors
    assert 'divided by 1e-08' in errors
    assert 'warning: action dimension 4 (e) has zero std' in errors
    assert 'keeps it constant' in errors


def test_when_strict_and_a_state_never_moved_expect_exit_2_naming_it(run_cli, checkpoint, capsys):
    assert run_cli('--strict') == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert 'refused by --strict: state dimension 4 has zero std' in last
    assert 'action' not in last
    assert not left_behind(checkpoint)


def test_when_help_is_asked_for_expect_strict_to_refuse_still_states_only(capsys):
    with pytest.raises(SystemExit):
        main(['--help'])
    text = ' '.join(capsys.readouterr().out.split())
    assert 'no dimension of the state whose std or range is 0' in text
    assert 'an action whose std is 0 is constant, and stays a warning' in text


def test_when_an_error_is_unforeseen_expect_one_line_exit_2_and_the_traceback_in_a_file(
    run_cli, checkpoint, monkeypatch, capsys, tmp_path
):
    def fail(*arguments):
        raise ZeroDivisionError('nobody\nthought of this')

    monkeypatch.setattr(build, 'compose_variants', fail)
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    assert run_cli() == 2
    last = capsys.readouterr().err.splitlines()[-1]
    start = 'export: nothing was written: unforeseen ZeroDivisionError: nobody thought of this; '
    assert last.startswith(start)
    log = Path(last.split()[-1])
    assert 'in fail' in log.read_text(encoding='utf-8')
    assert not left_behind(checkpoint)


def test_when_steps_are_given_expect_them_in_the_contract_and_another_chunk(export, golden_bundle):
    three = Policy.load(export(steps=3).path, threads=1)
    ten = Policy.load(golden_bundle('smolvla_3cam'), threads=1)
    assert three.contract.denoise_steps == 3
    case = read_fixtures(golden_bundle('smolvla_3cam') / FIXTURES, ten.contract)[0]
    a, b = (policy.infer(case.observation, case.noise).raw for policy in (three, ten))
    assert np.abs(a - b).max() > 1e-3


@pytest.mark.parametrize('given', [False, True], ids=['in the folder', 'by --robot-io'])
def test_when_robot_io_is_there_expect_its_names_in_the_contract(export, checkpoint, given):
    path = checkpoint.parent / 'robot.yaml' if given else checkpoint / 'robot_io.yaml'
    path.write_text(ROBOT_IO, encoding='utf-8')
    contract = open_bundle(export(robot_io=path if given else None).path).contract
    assert contract.period_s == 0.1
    assert contract.state.joints == tuple('abcdef')
    assert contract.state.units[-1] == 'm'
    assert contract.action.control_mode == 'velocity'
    assert contract.action.first_sample_offset_steps == 1
    assert contract.camera_names == ('camera1', 'wrist', 'camera3')


def test_when_observations_are_renamed_expect_the_robots_camera_names(export, edit_json):
    renamed = {'observation.images.front': 'observation.images.camera1'}
    edit_json(
        'policy_preprocessor.json', lambda p: p['steps'][0]['config'].update(rename_map=renamed)
    )
    camera = open_bundle(export().path).contract.cameras[0]
    assert (camera.name, camera.key) == ('front', 'observation.images.camera1')


def test_when_tokenizer_is_given_expect_that_one(export, checkpoint):
    folder = checkpoint.parent / 'words'
    (checkpoint.parent / 'backbone').rename(folder)
    (checkpoint.parent / 'backbone').mkdir()
    (folder / 'config.json').rename(checkpoint.parent / 'backbone' / 'config.json')
    exported = export(tokenizer=folder)
    assert sha256_of_file(exported.path / 'tokenizer.json') == sha256_of_file(
        folder / 'tokenizer.json'
    )


def test_when_weights_are_not_float32_expect_it_in_warning_and_receipt(export, monkeypatch):
    family = FAMILIES['smolvla']

    def load(checkpoint):
        return family.load(checkpoint)[0], ('bfloat16',)

    monkeypatch.setitem(FAMILIES, 'smolvla', dataclasses.replace(family, load=load))
    exported = export()
    assert exported.receipt['checkpoint']['weights_dtypes'] == ['bfloat16']
    assert any('bfloat16; parity holds for them cast' in line for line in exported.warnings)
