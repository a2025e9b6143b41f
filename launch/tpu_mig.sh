#!/usr/bin/env bash
# Runs clustering_jax on TPU VMs of Compute Engine (v5p, v6e, TPU7x) in managed instance groups: one group is one slice.
#
#   launch/tpu_mig.sh create --name=NAME --machine-type=TYPE --topology=AxB --hosts=N --image-family=FAMILY [-- GCLOUD FLAGS]
#   launch/tpu_mig.sh wait   --name=NAME               waits until all machines exist
#   launch/tpu_mig.sh setup  --name=NAME               copies this project to all machines and installs it
#   launch/tpu_mig.sh run    --name=NAME --config=FILE --workdir=gs://... [-- PROGRAM FLAGS]
#   launch/tpu_mig.sh logs   --name=NAME [--instance=INSTANCE] [--follow]
#   launch/tpu_mig.sh stop   --name=NAME               saves and ends the run; `run` again resumes it
#   launch/tpu_mig.sh status --name=NAME
#   launch/tpu_mig.sh delete --name=NAME               deletes the groups, the template and the policy
#
#   --project=ID             the Google Cloud project ($CLUSTERING_PROJECT)
#   --zone=ZONE              the zone ($CLUSTERING_ZONE)
#   --name=NAME              name of the template and the policy; the groups are NAME-0, NAME-1, ... ($CLUSTERING_NAME)
#   --machine-type=TYPE      machine type, for example ct6e-standard-4t ($CLUSTERING_MACHINE_TYPE)
#   --topology=AxB           topology of the chips of a slice, for example 4x4 ($CLUSTERING_TOPOLOGY)
#   --hosts=N                number of machines in a slice: chips of a slice / chips of a machine ($CLUSTERING_HOSTS)
#   --slices=N               number of groups; several groups are a multislice (1; $CLUSTERING_SLICES)
#   --image-family=FAMILY    image family of the machines' disks ($CLUSTERING_IMAGE_FAMILY)
#   --image-project=ID       project of the images (ubuntu-os-accelerator-images; $CLUSTERING_IMAGE_PROJECT)
#   --spot                   uses spot machines, which are cheaper and can be preempted
#   --config=FILE            config, relative to this project ($CLUSTERING_CONFIG)
#   --workdir=DIR            directory that the run writes to; all machines need access to it ($CLUSTERING_WORKDIR)
#   --remote-dir=DIR         directory of this project on the machines, relative to the home directory (clustering_jax)
#   --instance=INSTANCE      machine whose log is shown (the first machine in the list)
#   --dry-run                prints the commands, with placeholders for names that are not known yet, and does nothing
#   --help                   shows this text
#
# The GCLOUD FLAGS of `create` are passed to the template, for example -- --provisioning-model=FLEX_START
# --max-run-duration=7d --instance-termination-action=DELETE, or the flags of a reservation.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

project=${CLUSTERING_PROJECT:-} zone=${CLUSTERING_ZONE:-} name=${CLUSTERING_NAME:-} slices=${CLUSTERING_SLICES:-1}
machine_type=${CLUSTERING_MACHINE_TYPE:-} topology=${CLUSTERING_TOPOLOGY:-} hosts=${CLUSTERING_HOSTS:-}
image_family=${CLUSTERING_IMAGE_FAMILY:-} image_project=${CLUSTERING_IMAGE_PROJECT:-ubuntu-os-accelerator-images}
config=${CLUSTERING_CONFIG:-} workdir=${CLUSTERING_WORKDIR:-}
remote_dir=clustering_jax instance='' follow='' spot='' action=''
while (($#)); do
  case $1 in
    --project=*) project=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --name=*) name=${1#*=} ;;
    --machine-type=*) machine_type=${1#*=} ;;
    --topology=*) topology=${1#*=} ;;
    --hosts=*) hosts=${1#*=} ;;
    --slices=*) slices=${1#*=} ;;
    --image-family=*) image_family=${1#*=} ;;
    --image-project=*) image_project=${1#*=} ;;
    --spot) spot=1 ;;
    --config=*) config=${1#*=} ;;
    --workdir=*) workdir=${1#*=} ;;
    --remote-dir=*) remote_dir=${1#*=} ;;
    --instance=*) instance=${1#*=} ;;
    --follow) follow=' --follow' ;;
    --dry-run) dry_run=1 ;;
    --help) usage && exit 0 ;;
    --) shift && break ;;
    create | wait | setup | run | logs | stop | status | delete)
      [[ -z $action ]] || fail "one thing at a time: $action or $1"
      action=$1
      ;;
    *) fail "unknown option '$1'; see launch/tpu_mig.sh --help" ;;
  esac
  shift
done
[[ $action ]] || fail "what to do? launch/tpu_mig.sh create, wait, setup, run, logs, stop, status or delete"
[[ $project && $zone && $name ]] || fail "--project=ID, --zone=ZONE or --name=NAME is missing"
[[ $slices =~ ^[1-9][0-9]*$ ]] || fail "--slices=$slices is no whole number above 0"

region=${zone%-*}
zonal=("--project=$project" "--zone=$zone")
regional=("--project=$project" "--region=$region")
groups=(gcloud compute instance-groups managed)

create() {
  [[ $machine_type && $topology && $hosts && $image_family ]] ||
    fail "create needs --machine-type=TYPE, --topology=AxB, --hosts=N and --image-family=FAMILY"
  local slice provisioning=()
  [[ -z $spot ]] || provisioning=(--provisioning-model=SPOT --instance-termination-action=STOP)
  run gcloud compute resource-policies create workload-policy "$name" "${regional[@]}" \
    --type=HIGH_THROUGHPUT "--accelerator-topology=$topology"
  run gcloud compute instance-templates create "$name" "--project=$project" "--instance-template-region=$region" \
    "--machine-type=$machine_type" "--image-family=$image_family" "--image-project=$image_project" \
    --maintenance-policy=TERMINATE --scopes=cloud-platform "${provisioning[@]}" "$@"
  for ((slice = 0; slice < slices; slice++)); do
    # A slice needs all its machines at once, so they are created in bulk. gcloud needs the full paths of the template and
    # the policy here.
    run "${groups[@]}" create "$name-$slice" "${zonal[@]}" --size=0 --target-size-policy-mode=bulk \
      "--template=projects/$project/regions/$region/instanceTemplates/$name" \
      "--workload-policy=projects/$project/regions/$region/resourcePolicies/$name" \
      --default-action-on-vm-failure=do-nothing
    run "${groups[@]}" resize "$name-$slice" "${zonal[@]}" "--size=$hosts"
  done
}

# list SLICE: sets `listing` to the names of the machines of the slice, one per line.
list() {
  local command=("${groups[@]}" list-instances "$name-$1" "${zonal[@]}" '--format=value(instance.basename())')
  if [[ $dry_run ]]; then
    run "${command[@]}"
    listing="INSTANCE-OF-SLICE-$1"
    return
  fi
  listing=$("${command[@]}")
  [[ $listing ]] || fail "'$name-$1' has no machines yet; see launch/tpu_mig.sh status"
}

# each FUNCTION: calls FUNCTION SLICE INSTANCE for all machines in parallel. If calls fail, returns the code of one of them.
each() {
  local slice machine pid pids=() code=0
  for ((slice = 0; slice < slices; slice++)); do
    list "$slice"
    while read -r machine; do
      if [[ $dry_run ]]; then
        "$1" "$slice" "$machine"
      else
        "$1" "$slice" "$machine" </dev/null &
        pids+=($!)
      fi
    done <<<"$listing"
  done
  for pid in "${pids[@]}"; do wait "$pid" || code=$?; done
  return "$code"
}

ssh_to() {
  run gcloud compute ssh "$1" "${zonal[@]}" "--command=$2"
}

worker_script() {
  quote bash "$remote_dir/launch/worker.sh" "$@"
}

copy() {
  run gcloud compute scp "$archive" "$2:clustering_jax.tgz" "${zonal[@]}"
  ssh_to "$2" "$(unpack clustering_jax.tgz "$remote_dir")"
}

setup() {
  archive=clustering_jax.tgz
  if [[ -z $dry_run ]]; then
    archive=$(mktemp "${TMPDIR:-/tmp}/clustering_jax.XXXXXX")
    trap 'rm -f "$archive"' EXIT
  fi
  pack "$archive"
  each copy
}

# The groups do not know each other, so all slices connect to worker 0 of slice 0. JAX and the TPU runtime read its address
# from the environment variable that `start` sets.
find_coordinator() {
  local endpoints='http://metadata.google.internal/computeMetadata/v1/instance/attributes/worker-network-endpoints'
  list 0
  endpoints=$(ssh_to "${listing%%$'\n'*}" "curl -sf -H 'Metadata-Flavor: Google' $endpoints")
  if [[ $dry_run ]]; then
    printf '%s\n' "$endpoints"
    coordinator=WORKER-0-OF-SLICE-0
    return
  fi
  coordinator=${endpoints%%,*} # entries are name or name:id:address, separated by commas
  coordinator=${coordinator##*:}
}

start() {
  local command
  command=$(worker_script start --distributed=auto "--config=$config" "--workdir=$workdir" "${flags[@]}")
  if ((slices > 1)); then
    command="MEGASCALE_COORDINATOR_ADDRESS=$coordinator MEGASCALE_NUM_SLICES=$slices MEGASCALE_SLICE_ID=$1 $command"
  fi
  ssh_to "$2" "$command"
}

stop() {
  ssh_to "$2" "$(worker_script stop)"
}

show_log() {
  if [[ -z $instance ]]; then
    list 0
    instance=${listing%%$'\n'*}
  fi
  ssh_to "$instance" "$(worker_script logs)$follow"
}

# each_group VERB FLAG...
each_group() {
  local slice verb=$1
  shift
  for ((slice = 0; slice < slices; slice++)); do
    run "${groups[@]}" "$verb" "$name-$slice" "${zonal[@]}" "$@"
  done
}

case $action in
  create) create "$@" ;;
  wait) each_group wait-until --stable ;;
  setup) setup ;;
  run)
    [[ $config && $workdir ]] || fail "run needs --config=FILE and --workdir=DIR"
    (($# == 0)) || set -- -- "$@"
    flags=("$@")
    ((slices == 1)) || find_coordinator
    each start
    ;;
  logs) show_log ;;
  stop) each stop ;;
  status) each_group list-instances ;;
  delete)
    each_group delete --quiet
    run gcloud compute instance-templates delete "$name" "${regional[@]}" --quiet
    run gcloud compute resource-policies delete "$name" "${regional[@]}" --quiet
    ;;
esac
