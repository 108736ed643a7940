#!/usr/bin/env bash
# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
#
# tools/setup/lint.sh : ruff over everything, mypy strict on core and pipeline (pyproject.toml). And
# on what tests do not run everywhere, mypy for what cannot work: the benchmarks, as far as a call
# that does not fit, and export, whose way beside LeRobot needs LeRobot, as far as a name that is not
# there.
set -euo pipefail
cd "$(dirname "$0")/../.."
echo '[lint] ruff check'
python -m ruff check .
echo '[lint] mypy --strict: vla_deploy.core, vla_deploy.pipeline'
python -m mypy
echo '[lint] mypy: bench'
python -m mypy --config-file= --follow-imports=silent --ignore-missing-imports \
  --disable-error-code attr-defined --disable-error-code misc bench/*.py
echo '[lint] mypy: export'
python -m mypy --config-file= --follow-imports=silent --ignore-missing-imports \
  --disable-error-code arg-type --disable-error-code call-overload --disable-error-code misc \
  -p vla_deploy.export -m tools.export.random_cases
