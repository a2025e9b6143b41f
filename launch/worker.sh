#!/usr/bin/env bash
# The run on one worker: starts it in the background, stops it, shows its log. The launchers call it over ssh.
#
#   launch/worker.sh start --config=FILE --workdir=DIR [--distributed=auto] [-- PROGRAM FLAGS]
#   launch/worker.sh stop
#   launch/worker.sh logs [--follow]
#
#   --config=FILE        config, relative to this project ($CLUSTERING_CONFIG)
#   --workdir=DIR        where the run writes; with several workers one that all reach, as gs://... ($CLUSTERING_WORKDIR)
#   --distributed=auto   the processes find each other (left out: one process)
#   --follow             the log as it grows
#   --dry-run            prints the command and does nothing
#   --help               shows this
#
# The run outlives the connection, under launch/supervise.sh; its output goes to run.log in this project. `stop` lets it
# save, and returns when it has ended.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"

config=${CLUSTERING_CONFIG:-} workdir=${CLUSTERING_WORKDIR:-} distributed='' follow='' action=''
while (($#)); do
  case $1 in
    --config=*) config=${1#*=} ;;
    --workdir=*) workdir=${1#*=} ;;
    --distributed=auto) distributed=$1 ;;
    --follow) follow=--follow ;;
    --dry-run) dry_run=1 ;;
    --help) usage && exit 0 ;;
    --) shift && break ;;
    start | stop | logs)
      [[ -z $action ]] || fail "one thing at a time: $action or $1"
      action=$1
      ;;
    *) fail "unknown option '$1'; see launch/worker.sh --help" ;;
  esac
  shift
done

start() {
  [[ $config && $workdir ]] || fail "start needs --config=FILE and --workdir=DIR"
  local command=(bash launch/supervise.sh -- .venv/bin/python -m clustering_jax.main)
  command+=(${distributed:+"$distributed"} "--config=$config" "--workdir=$workdir" "$@")
  if [[ $dry_run ]]; then
    run "${command[@]}"
    return
  fi
  # The run inherits the lock, which so tells whether there is one.
  exec 9>run.lock
  flock --nonblock 9 || fail "a run is going on here; stop it first: launch/worker.sh stop"
  # A session of its own, and none of ssh's streams: the connection may end.
  setsid "${command[@]}" </dev/null >>run.log 2>&1 &
  echo $! >run.pid
}

stop() {
  if [[ $dry_run ]]; then
    run kill -s TERM PID
    return
  fi
  ! flock --nonblock run.lock true || fail "no run is going on here"
  kill -s TERM "$(cat run.pid)"
  flock run.lock true
}

case $action in
  start) start "$@" ;;
  stop) stop ;;
  logs) run tail -n 100 ${follow:+"$follow"} run.log ;;
  *) fail "what to do? launch/worker.sh start, stop or logs" ;;
esac
