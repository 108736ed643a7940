#!/usr/bin/env bash
# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
#
# tools/setup/build.sh : colcon build of the packages whose files changed since the last build.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tools/setup/env.sh

# names, sizes and times of a package's files: equal means that nothing is to be built
state() { { echo "$PWD"; cat .venv/identity; find "$@" -type f ! -name "*.pyc" -printf "%p %s %T@\n" | sort; } | sha256sum; }
names() { find "$@" -type f ! -name "*.pyc" | sort | sha256sum; }
sources=(vla_deploy launch config urdf resource package.xml setup.py setup.cfg)
if [ -d policies ]; then sources+=(policies); fi
changed() { [ ! -d "install/$1" ] || [ "$(cat "build/.state-$1" 2>/dev/null)" != "$2" ]; }

messages_state=$(state vla_deploy_msgs)
package_state=$(state "${sources[@]}")
package_names=$(names "${sources[@]}")
packages=()
if changed vla_deploy_msgs "$messages_state"; then packages+=(vla_deploy_msgs vla_deploy)
elif changed vla_deploy "$package_state"; then packages+=(vla_deploy); fi
[ ${#packages[@]} -gt 0 ] || exit 0

# setuptools leaves modules behind that are gone from the sources
if [ "$(cat build/.names-vla_deploy 2>/dev/null)" != "$package_names" ]; then
  rm -rf build/vla_deploy install/vla_deploy
fi
printf '[build] %s …' "${packages[*]}"
start=$SECONDS
if ! python -c 'import sys; from colcon_core.command import main; sys.exit(main())' \
    build --packages-select "${packages[@]}" --event-handlers console_cohesion- \
    --cmake-args -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF > build/colcon.log 2>&1; then
  echo ' failed'; cat build/colcon.log >&2; echo 'setup: colcon build failed (above)' >&2; exit 1
fi
printf ' %s s\n' $((SECONDS - start))
for package in "${packages[@]}"; do
  case $package in
    vla_deploy_msgs) echo "$messages_state" > build/.state-vla_deploy_msgs ;;
    vla_deploy) echo "$package_state" > build/.state-vla_deploy
                echo "$package_names" > build/.names-vla_deploy ;;
  esac
done
