#!/usr/bin/env bash
# Prepares one worker: creates the virtual environment .venv in the directory of this project, installs the project into it,
# and enables huge pages.
#
#   launch/worker_setup.sh [OPTION...]
#
#   --extra=NAME     extra of the project for the accelerator: tpu, cuda12, or none (tpu; $CLUSTERING_EXTRA)
#   --python=FILE    Python 3.11 or newer (the newest one in PATH; if there is none, uv downloads one; $CLUSTERING_PYTHON)
#   --dry-run        prints the commands and does nothing
#   --help           shows this text
#
# If the worker already has the environment, the script updates the installation.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

extra=${CLUSTERING_EXTRA:-tpu} python=${CLUSTERING_PYTHON:-}
while (($#)); do
  case $1 in
    --extra=*) extra=${1#*=} ;;
    --python=*) python=${1#*=} ;;
    --dry-run) dry_run=1 ;;
    --help) usage && exit 0 ;;
    *) fail "unknown option '$1'; see launch/worker_setup.sh --help" ;;
  esac
  shift
done
case $extra in
  tpu | cuda12) project="${root}[$extra]" ;;
  none) project=$root ;;
  *) fail "--extra=$extra is none of tpu, cuda12, none" ;;
esac

# recent PYTHON: returns whether the interpreter runs and is new enough.
recent() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

make_environment() {
  local name
  for name in python3.13 python3.12 python3.11 python3; do
    [[ -z $python ]] && recent "$name" && python=$name
  done
  if [[ -z $python ]]; then # for example on tpu-ubuntu2204-base, which has Python 3.10
    run python3 -m pip install --quiet --user uv
    run python3 -m uv venv --seed --python=3.12 "$root/.venv"
    return
  fi
  recent "$python" || fail "--python=$python does not run or is older than Python 3.11"
  if ! "$python" -c 'import ensurepip' 2>/dev/null; then # Debian and Ubuntu have ensurepip in a separate package
    run sudo apt-get update
    run sudo apt-get install --yes python3-venv
  fi
  run "$python" -m venv "$root/.venv"
}

# With transparent huge pages always on, the TPU runtime starts and stops faster, and host memory has fewer page faults.
use_huge_pages() {
  run sudo --non-interactive sh -c 'echo always > /sys/kernel/mm/transparent_hugepage/enabled' ||
    printf 'warning: transparent huge pages stay as they are\n' >&2
}

[[ -x $root/.venv/bin/python ]] || make_environment
run "$root/.venv/bin/python" -m pip install --quiet --constraint "$root/constraints.txt" --editable "$project"
use_huge_pages
# The check only imports JAX and starts no TPU, because the TPUs of a slice can only start on all its workers together.
run "$root/.venv/bin/python" -c 'import clustering_jax.main, jax; print("jax", jax.__version__)'
