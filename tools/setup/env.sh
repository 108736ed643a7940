# Copyright 2026 The vla_deploy authors
# SPDX-License-Identifier: Apache-2.0
#
# . tools/setup/env.sh : what every run of this workspace needs, in bash. The ROS 2 in use, .venv/,
# install/, and the domain's reach.
_vla_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
if [ ! -f "$_vla_root/.venv/origin" ]; then
  echo "env.sh: no environment in $_vla_root/.venv: run make build first" >&2
  return 1
fi
if [ "$(cat "$_vla_root/.venv/origin")" = wheels ]; then
  . "$_vla_root/.venv/setup.sh"
else
  case ":$PATH:" in *":$_vla_root/.venv/bin:"*) ;; *) PATH="$_vla_root/.venv/bin:$PATH" ;; esac
fi
if [ -f "$_vla_root/install/local_setup.bash" ]; then
  # colcon's scripts read variables that may be unset
  case $- in *u*) set +u; . "$_vla_root/install/local_setup.bash"; set -u ;;
             *) . "$_vla_root/install/local_setup.bash" ;; esac
fi
export RMW_IMPLEMENTATION="${RMW_IMPLEMENTATION:-rmw_fastrtps_cpp}"
export ROS_AUTOMATIC_DISCOVERY_RANGE="${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}"
# the exported bundles of policies that come with the package
export VLA_DEPLOY_CACHE="${VLA_DEPLOY_CACHE:-$_vla_root/build/cache}"
export MUJOCO_GL="${MUJOCO_GL:-egl}"
unset _vla_root
