#!/usr/bin/env bash
# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
#
# tools/setup/setup.sh run|all : make the environment .venv/ and build both packages into install/.
# `run` is what serves and simulates; `all` adds torch, lint and tests.
# A second run with nothing changed ends within seconds.
set -euo pipefail
cd "$(dirname "$0")/../.."

purpose=${1:-run}

fail() { printf 'setup: %s\n' "$1" >&2; exit 1; }

# The Python that everything is installed for. A sourced ROS 2 brings its own.
if [ -n "${ROS_DISTRO:-}" ] && [ "${VLA_DEPLOY_PREFIX:-}" != "$PWD/.venv" ]; then
  python=$(command -v python3 || true)
  [ -n "$python" ] && "$python" -c 'import rclpy' 2>/dev/null || fail \
    "ROS_DISTRO is '$ROS_DISTRO', but python3 cannot import rclpy: source that install's setup.bash,
       or run 'unset ROS_DISTRO' to have ROS 2 Jazzy installed into .venv/."
  origin=$ROS_DISTRO
else
  # our own environment, when sourced, puts its Python first: look behind it
  PATH=$(printf '%s' "$PATH" | tr ':' '\n' | grep -vxF "$PWD/.venv/bin" | paste -sd:)
  python=
  for candidate in python3 python3.11 python3.12; do
    case "$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>&1)" in
      3.11|3.12) python=$(command -v "$candidate"); break ;;
    esac
  done
  [ -n "$python" ] || fail \
    "Python 3.11 or 3.12 is needed (the ROS 2 wheels are built for them): apt-get install python3.11
       python3.11-venv python3.11-dev on Debian 12, or put another one of them on the PATH."
  origin=wheels
fi

missing=()
command -v cc >/dev/null && command -v c++ >/dev/null || missing+=(build-essential)
command -v cmake >/dev/null || missing+=(cmake)
[ ${#missing[@]} -eq 0 ] || fail \
  "a C compiler and cmake are needed to build the packages. Run: apt-get install -y ${missing[*]}"

mkdir -p build
exec 9>build/.setup.lock
flock -n 9 || { echo 'setup: another setup runs in this folder: waiting for it'; flock 9; }

"$python" tools/setup/system_libraries.py
"$python" tools/setup/environment.py "$purpose" --origin "$origin"
exec tools/setup/build.sh
