#!/usr/bin/env bash
# Runs a command, and restarts it until it is done. The exit code decides:
#
#   launch/supervise.sh [OPTION...] -- COMMAND [ARGUMENT...]
#
#   0        done: the script ends
#   75       interrupted and saved: the command is restarted at once
#   2, 3     an error that the user can correct, or a diverged training: the script ends with this code
#   others   the command is restarted after a delay, which doubles each time; after --max-tries such codes in a row, without
#            a 75 in between, the script ends with the last code
#
# SIGTERM and SIGINT are forwarded to the command, and the script ends with the exit code of the command. If no command is
# running, because the script waits for the next try, it ends with 75.
#
#   --max-tries=N      number of runs that may fail in a row (10)
#   --first-delay=S    seconds before the second try (5)
#   --max-delay=S      largest delay in seconds (300)
#   --dry-run          prints the command and does nothing
#   --help             shows this text
set -euo pipefail
# Job control gives the command its own process group. Without job control, bash would start it with SIGINT ignored.
set -m
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

max_tries=10 first_delay=5 max_delay=300
while (($#)); do
  case $1 in
    --max-tries=*) max_tries=${1#*=} ;;
    --first-delay=*) first_delay=${1#*=} ;;
    --max-delay=*) max_delay=${1#*=} ;;
    --dry-run) dry_run=1 ;;
    --help) usage && exit 0 ;;
    --) shift && break ;;
    -*) fail "unknown option '$1'; see launch/supervise.sh --help" ;;
    *) break ;;
  esac
  shift
done
(($#)) || fail "no command: launch/supervise.sh [OPTION...] -- COMMAND"
[[ $max_tries =~ ^[1-9][0-9]*$ ]] || fail "--max-tries=$max_tries is no whole number above 0"
for delay in "$first_delay" "$max_delay"; do
  [[ $delay =~ ^[0-9]+([.][0-9]+)?$ ]] || fail "a delay of '$delay' is no number of seconds"
done
if [[ $dry_run ]]; then
  run "$@"
  exit 0
fi

child='' caught=0
pass_on() {
  caught=$((caught + 1))
  [[ -z $child ]] || kill -s "$1" "$child" 2>/dev/null || true
}
trap 'pass_on TERM' TERM
trap 'pass_on INT' INT

# start COMMAND...: runs the command and waits for its end, also after signals. Its exit code is in `code`.
start() {
  local before
  "$@" &
  child=$!
  ((caught == 0)) || kill -s TERM "$child" 2>/dev/null || true # the signal came before the child was started
  while :; do
    before=$caught code=0
    wait "$child" || code=$?
    ((caught == before)) && break # after a trap, `wait` returns early with another code
  done
  # If the command ended at the moment of the signal, bash has lost its exit code because of the trap. 75 makes the caller
  # restart the command, which then shows whether it was done.
  ((code >= 0 && code != 127)) || ((caught == 0)) || code=75
  child=
}

report() {
  printf 'supervise: exit code %s, %s\n' "$code" "$1" >&2
}

tries=0 delay=$first_delay
while :; do
  start "$@"
  if ((caught)); then
    report "stopped by a signal"
    exit "$code"
  fi
  case $code in
    0) exit 0 ;;
    2 | 3) report "not to be tried again" && exit "$code" ;;
    75)
      report "starting again"
      tries=0 delay=$first_delay
      continue
      ;;
  esac
  tries=$((tries + 1))
  if ((tries == max_tries)); then
    report "giving up after $tries tries"
    exit "$code"
  fi
  report "try $tries of $max_tries, again in $delay s"
  start sleep "$delay"
  ((caught == 0)) || exit 75
  delay=$(awk -v delay="$delay" -v most="$max_delay" 'BEGIN { delay *= 2; print (delay < most ? delay : most) }')
done
