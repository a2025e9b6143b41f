# shellcheck shell=bash
# Functions that the other scripts source: help, one-line errors, and commands that --dry-run prints instead of running.

dry_run=
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# fail MESSAGE: reports an error that the user can correct, in the same format and with the same exit code as the program.
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

# usage: prints the header comment of the script.
usage() {
  awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"
}

# quote WORD...: prints the words on one line, quoted for any POSIX shell. Words without special characters are unchanged.
quote() {
  local word plain blank='' LC_ALL=C
  for word in "$@"; do
    plain=
    [[ $word =~ ^--[a-z-]+= ]] && plain=${BASH_REMATCH[0]} && word=${word#"$plain"}
    printf '%s%s' "$blank" "$plain"
    if [[ $plain$word && ! $word =~ [^A-Za-z0-9_./:=@%+,-] ]]; then
      printf '%s' "$word"
    else
      printf "'%s'" "$(printf '%s' "$word" | sed "s/'/'\\\\''/g")"
    fi
    blank=' '
  done
}

# run COMMAND...: runs the command; with --dry-run, prints it instead.
run() {
  if [[ $dry_run ]]; then
    quote "$@"
    printf '\n'
  else
    "$@"
  fi
}

# pack FILE: writes an archive with the files of this project that a worker needs.
pack() {
  run tar -czf "$1" --exclude=__pycache__ -C "$root" \
    pyproject.toml setup.py constraints.txt README.md LICENSE clustering_jax configs launch
}

# unpack FILE DIRECTORY: prints the command that installs the archive of `pack` on a worker.
unpack() {
  local directory
  directory=$(quote "$2")
  printf 'mkdir -p %s && tar -xzf %s -C %s && bash %s/launch/worker_setup.sh' \
    "$directory" "$(quote "$1")" "$directory" "$directory"
}
