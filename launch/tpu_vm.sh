#!/usr/bin/env bash
# Runs clustering_jax on Cloud TPU VMs of a queued resource: one slice, or several slices as a multislice.
#
#   launch/tpu_vm.sh create --name=NAME --accelerator-type=TYPE --runtime-version=VERSION [--spot] [-- GCLOUD FLAGS]
#   launch/tpu_vm.sh wait   --name=NAME               waits until the slice exists; checks it every --every=S seconds (30)
#   launch/tpu_vm.sh setup  --name=NAME               copies this project to all workers and installs it
#   launch/tpu_vm.sh run    --name=NAME --config=FILE --workdir=gs://... [-- PROGRAM FLAGS]
#   launch/tpu_vm.sh logs   --name=NAME [--worker=0] [--follow]
#   launch/tpu_vm.sh stop   --name=NAME               saves and ends the run; `run` again resumes it
#   launch/tpu_vm.sh status --name=NAME
#   launch/tpu_vm.sh delete --name=NAME               deletes the queued resource and its workers
#
#   --project=ID                 the Google Cloud project (the setting of gcloud; $CLUSTERING_PROJECT)
#   --zone=ZONE                  the zone (the setting of gcloud; $CLUSTERING_ZONE)
#   --name=NAME                  name of the queued resource and its slice ($CLUSTERING_NAME)
#   --accelerator-type=TYPE      accelerator type, for example v6e-16 ($CLUSTERING_ACCELERATOR_TYPE)
#   --runtime-version=VERSION    runtime version, for example v2-alpha-tpuv6e ($CLUSTERING_RUNTIME_VERSION)
#   --slices=N                   number of slices; several slices are named NAME-0, NAME-1, ... (1; $CLUSTERING_SLICES)
#   --spot                       uses spot machines, which are cheaper and can be preempted
#   --config=FILE                config, relative to this project ($CLUSTERING_CONFIG)
#   --workdir=DIR                directory that the run writes to; all workers need access to it ($CLUSTERING_WORKDIR)
#   --remote-dir=DIR             directory of this project on the workers, relative to the home directory (clustering_jax)
#   --dry-run                    prints the commands and does nothing
#   --help                       shows this text
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

project=${CLUSTERING_PROJECT:-} zone=${CLUSTERING_ZONE:-} name=${CLUSTERING_NAME:-} slices=${CLUSTERING_SLICES:-1}
accelerator_type=${CLUSTERING_ACCELERATOR_TYPE:-} runtime_version=${CLUSTERING_RUNTIME_VERSION:-}
config=${CLUSTERING_CONFIG:-} workdir=${CLUSTERING_WORKDIR:-}
remote_dir=clustering_jax worker=0 every=30 follow='' spot='' action=''
while (($#)); do
  case $1 in
    --project=*) project=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --name=*) name=${1#*=} ;;
    --accelerator-type=*) accelerator_type=${1#*=} ;;
    --runtime-version=*) runtime_version=${1#*=} ;;
    --slices=*) slices=${1#*=} ;;
    --spot) spot=--spot ;;
    --config=*) config=${1#*=} ;;
    --workdir=*) workdir=${1#*=} ;;
    --remote-dir=*) remote_dir=${1#*=} ;;
    --worker=*) worker=${1#*=} ;;
    --every=*) every=${1#*=} ;;
    --follow) follow=' --follow' ;;
    --dry-run) dry_run=1 ;;
    --help) usage && exit 0 ;;
    --) shift && break ;;
    create | wait | setup | run | logs | stop | status | delete)
      [[ -z $action ]] || fail "one thing at a time: $action or $1"
      action=$1
      ;;
    *) fail "unknown option '$1'; see launch/tpu_vm.sh --help" ;;
  esac
  shift
done
[[ $action ]] || fail "what to do? launch/tpu_vm.sh create, wait, setup, run, logs, stop, status or delete"
[[ $name ]] || fail "--name=NAME is missing"
[[ $slices =~ ^[1-9][0-9]*$ ]] || fail "--slices=$slices is no whole number above 0"

queue=(gcloud compute tpus queued-resources)
where=(${project:+"--project=$project"} ${zone:+"--zone=$zone"})
if ((slices == 1)); then
  workers=(gcloud compute tpus tpu-vm) every_node=()
else
  workers=("${queue[@]}") every_node=(--node=all)
fi

# on WORKERS COMMAND: runs the command on workers of the slices in parallel.
on() {
  run "${workers[@]}" ssh "$name" "${where[@]}" "${every_node[@]}" "--worker=$1" "--command=$2"
}

# worker_script ARGUMENT...: prints the command that calls launch/worker.sh on a worker.
worker_script() {
  quote bash "$remote_dir/launch/worker.sh" "$@"
}

create() {
  [[ $accelerator_type && $runtime_version ]] || fail "create needs --accelerator-type=TYPE and --runtime-version=VERSION"
  local nodes=("--node-id=$name")
  ((slices == 1)) || nodes=("--node-count=$slices" "--node-prefix=$name")
  run "${queue[@]}" create "$name" "${where[@]}" "${nodes[@]}" "--accelerator-type=$accelerator_type" \
    "--runtime-version=$runtime_version" ${spot:+"$spot"} "$@"
}

wait_until_active() {
  local state last=
  while :; do
    state=$(run "${queue[@]}" describe "$name" "${where[@]}" '--format=value(state.state)')
    [[ $state == "$last" ]] || printf '%s\n' "$state"
    case $state in
      ACTIVE) return ;;
      FAILED | SUSPENDING | SUSPENDED) fail "'$name' is $state; delete it and create it again" ;;
    esac
    [[ -z $dry_run ]] || return 0
    last=$state
    sleep "$every"
  done
}

setup() {
  local archive=clustering_jax.tgz
  if [[ -z $dry_run ]]; then
    archive=$(mktemp "${TMPDIR:-/tmp}/clustering_jax.XXXXXX")
    # shellcheck disable=SC2064  # expand now, because the variable does not exist any more when the trap runs
    trap "rm -f $(quote "$archive")" EXIT
  fi
  pack "$archive"
  run "${workers[@]}" scp "$archive" "$name:clustering_jax.tgz" "${where[@]}" "${every_node[@]}" --worker=all
  on all "$(unpack clustering_jax.tgz "$remote_dir")"
}

case $action in
  create) create "$@" ;;
  wait) wait_until_active ;;
  setup) setup ;;
  run)
    [[ $config && $workdir ]] || fail "run needs --config=FILE and --workdir=DIR"
    (($# == 0)) || set -- -- "$@"
    on all "$(worker_script start --distributed=auto "--config=$config" "--workdir=$workdir" "$@")"
    ;;
  logs)
    ((slices == 1)) || every_node=(--node=0)
    on "$worker" "$(worker_script logs)$follow"
    ;;
  stop) on all "$(worker_script stop)" ;;
  status) run "${queue[@]}" describe "$name" "${where[@]}" ;;
  delete) run "${queue[@]}" delete "$name" "${where[@]}" --force --quiet ;;
esac
