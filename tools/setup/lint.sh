#!/usr/bin/env bash
# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
#
# tools/setup/lint.sh : ruff over everything, mypy strict on core and pipeline (pyproject.toml), and
# on the benchmarks, which no test runs, as far as a call that does not fit.
set -euo pipefail
cd "$(dirname "$0")/../.."
echo '[lint] ruff check'
python -m ruff check .
echo '[lint] mypy --strict: vla_deploy.core, vla_deploy.pipeline'
python -m mypy
echo '[lint] mypy: bench'
python -m mypy --config-file= --follow-imports=silent --ignore-missing-imports \
  --disable-error-code attr-defined --disable-error-code misc bench/*.py
