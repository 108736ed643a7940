#!/usr/bin/env bash
# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
#
# tools/setup/test.sh : lint, types, a minute of fuzz, then every test through colcon, results shown.
# The exit status is not 0 when anything failed, and when no test ran.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tools/setup/env.sh

tools/setup/lint.sh

echo '[fuzz] hostile chunks, judged as executed'
python test/fuzz/fuzz_guard.py --seconds 60 --workers 2

colcon() { python -c 'import sys; from colcon_core.command import main; sys.exit(main())' "$@"; }
results=build/vla_deploy/pytest.xml
log=build/test.log
rm -f "$results"
echo '[test] colcon test'
status=0
colcon test --return-code-on-test-failure --event-handlers console_direct+ 2>&1 | tee "$log" || status=$?
colcon test-result --all || status=$?

# colcon calls it a success when setuptools hides pytest from it and nothing runs
count=$(python - "$results" <<'PY'
import sys, xml.etree.ElementTree as tree
try:
    suites = tree.parse(sys.argv[1]).getroot().iter('testsuite')
    print(sum(int(suite.get('tests', 0)) for suite in suites))
except FileNotFoundError:
    print(0)
PY
)
if [ "$count" -eq 0 ]; then
  echo 'test: no test ran' >&2
  status=1
fi
# pytest's own closing line, last
grep -E '^=+ .*(passed|failed|error|skipped).* in [0-9.]+s' "$log" | tail -1 || true
exit "$status"
