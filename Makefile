# Two commands do all of it: `make demo` and `make test`. The work is in tools/setup/.
SHELL := /bin/bash
EPISODES ?=
SEED ?=
SECONDS ?=
WORKERS ?=
JOINT_STEPS ?=
run := . tools/setup/env.sh &&

.DEFAULT_GOAL := help
.PHONY: help setup build demo test bench coverage fuzz faults lint clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

setup: ## install everything that builds, serves, simulates and tests into .venv/
	@tools/setup/setup.sh all

build: ## install what serves a bundle and simulates, no torch; build both packages into install/
	@tools/setup/setup.sh run

demo: setup ## run the simulated FR3 through the whole graph (EPISODES=100 SEED=7)
	@$(run) exec python -m vla_deploy.cli.demo \
	  $(if $(EPISODES),--episodes $(EPISODES)) $(if $(SEED),--seed $(SEED))

test: setup ## lint, types and every test, as .ci/run does
	@$(run) exec tools/setup/test.sh

bench: setup ## measure into build/bench/ (not a test)
	@$(run) exec python -m bench

coverage: setup ## which lines and branches of core/ the tests of core/ take; 98 % or an error
	@$(run) COVERAGE_FILE=build/coverage exec python -m pytest -q test/core test/ros/test_parameters.py \
	  test/cli/test_guard_tools.py test/cli/test_verify_log.py test/pipeline/test_contract.py \
	  test/pipeline/test_end_effector.py test/robots/test_descriptions.py test/robots/test_kinematics.py \
	  --cov=vla_deploy.core --cov-branch --cov-report=term-missing:skip-covered --cov-fail-under=98

fuzz: setup ## drive the guard with hostile chunks, judge all it sends (SECONDS=60 SEED=7 WORKERS=2)
	@$(run) exec python test/fuzz/fuzz_guard.py $(if $(SECONDS),--seconds $(SECONDS)) \
	  $(if $(SEED),--seed $(SEED)) $(if $(WORKERS),--workers $(WORKERS)) \
	  $(if $(JOINT_STEPS),--joint-steps $(JOINT_STEPS))

faults: setup ## kill, stall and contradict the processes of a moving robot, ten times each
	@$(run) FAULT_REPEATS=10 exec python -m pytest -q test/graph/test_faults.py \
	  test/graph/test_guard_stops.py test/graph/test_full_graph.py -k 'test_faults or emergency or killed'

lint: setup ## ruff and mypy
	@$(run) exec tools/setup/lint.sh

clean: ## remove what was built (.venv/ stays: delete it by hand to download again)
	rm -rf build install log
