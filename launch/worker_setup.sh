#!/usr/bin/env bash
# Prepares one worker: a virtual environment .venv beside this project, the project in it, huge pages.
#
#   launch/worker_setup.sh [OPTION...]
#
#   --extra=NAME     the project's extra for the accelerator: tpu, cuda12, or none (tpu; $CLUSTERING_EXTRA)
#   --python=FILE    an interpreter of version 3.11 or newer (the newest found; with none, uv fetches one; $CLUSTERING_PYTHON)
#   --dry-run        prints the commands and does nothing
#   --help           shows this
#
# Again on a worker that has the environment, it brings the installation up to date.
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

# recent PYTHON: whether it runs and is new enough.
recent() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

make_environment() {
  local name
  for name in python3.13 python3.12 python3.11 python3; do
    [[ -z $python ]] && recent "$name" && python=$name
  done
  if [[ -z $python ]]; then # as on tpu-ubuntu2204-base, which has 3.10
    run python3 -m pip install --quiet --user uv
    run python3 -m uv venv --seed --python=3.12 "$root/.venv"
    return
  fi
  recent "$python" || fail "--python=$python does not run or is older than Python 3.11"
  if ! "$python" -c 'import ensurepip' 2>/dev/null; then # Debian and Ubuntu keep it in a package of its own
    run sudo apt-get update
    run sudo apt-get install --yes python3-venv
  fi
  run "$python" -m venv "$root/.venv"
}

# The TPU runtime starts and stops faster, and host memory costs fewer page faults, with transparent huge pages always on.
use_huge_pages() {
  run sudo --non-interactive sh -c 'echo always > /sys/kernel/mm/transparent_hugepage/enabled' ||
    printf 'warning: transparent huge pages stay as they are\n' >&2
}

[[ -x $root/.venv/bin/python ]] || make_environment
run "$root/.venv/bin/python" -m pip install --quiet --constraint "$root/constraints.txt" --editable "$project"
use_huge_pages
# Only the import: the TPUs of a slice start on all its workers together or not at all.
run "$root/.venv/bin/python" -c 'import clustering_jax.main, jax; print("jax", jax.__version__)'
