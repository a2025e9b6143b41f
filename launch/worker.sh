#!/usr/bin/env bash
# Starts the run on one worker in the background, stops it, or shows its log. The launchers call this script over ssh.
#
#   launch/worker.sh start --config=FILE --workdir=DIR [--distributed=auto] [-- PROGRAM FLAGS]
#   launch/worker.sh stop
#   launch/worker.sh logs [--follow]
#
#   --config=FILE        config, relative to this project ($CLUSTERING_CONFIG)
#   --workdir=DIR        where the run writes, for example gs://...; all workers need access to it ($CLUSTERING_WORKDIR)
#   --distributed=auto   connects the processes of all workers (without it, the run has one process)
#   --follow             shows new lines of the log as they are written
#   --dry-run            prints the command and does nothing
#   --help               shows this text
#
# The run continues when the connection ends. launch/supervise.sh restarts it, and its output goes to run.log in this
# project. `stop` lets the run save, and returns when the run has ended.
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
  # The run inherits the lock, so the lock is held as long as the run exists.
  exec 9>run.lock
  flock --nonblock 9 || fail "a run is going on here; stop it first: launch/worker.sh stop"
  # The run has a session of its own and does not use the streams of ssh, so that the connection may end.
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
