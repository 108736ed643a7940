# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
"""What the demonstration's options become, without its graph."""

import io
from pathlib import Path

import pytest

pytest.importorskip('rclpy')

from vla_deploy.cli import demo


class Stop(Exception):
    """Ends the demonstration where its graph would begin."""


def test_when_a_backend_and_a_precision_are_asked_for_expect_the_graph_to_serve_so(monkeypatch):
    served = []

    def bring_up(_robot, options, _bundle):
        served.append((options.backend, options.provider, options.precision))
        raise Stop

    monkeypatch.setattr(demo, 'bring_up', bring_up)
    for words in ([], ['--backend', 'torch_cuda', '--precision', 'fp8']):
        arguments = demo._parser().parse_args(words)
        with pytest.raises(Stop):
            demo._run(arguments, Path('bundle'), 'simulated', io.StringIO())
    assert served == [('onnx_runtime', 'cpu', 'fp32'), ('torch_cuda', 'cpu', 'fp8')]
