# shellcheck shell=bash
# Read by the scripts beside it: help, one-line errors, and commands that --dry-run prints instead of running them.

dry_run=
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# fail MESSAGE: what the user can put right, as the program itself reports it.
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

# usage: the script's own header comment.
usage() {
  awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"
}

# quote WORD...: the words on one line, as any POSIX shell reads them back. Plain words stay as they are.
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

# run COMMAND...: runs it, or prints it under --dry-run.
run() {
  if [[ $dry_run ]]; then
    quote "$@"
    printf '\n'
  else
    "$@"
  fi
}

# pack FILE: what a worker needs of this project, as an archive.
pack() {
  run tar -czf "$1" --exclude=__pycache__ -C "$root" \
    pyproject.toml constraints.txt README.md LICENSE clustering_jax configs launch
}

# unpack FILE DIRECTORY: the command for a worker that installs what `pack` made.
unpack() {
  local directory
  directory=$(quote "$2")
  printf 'mkdir -p %s && tar -xzf %s -C %s && bash %s/launch/worker_setup.sh' \
    "$directory" "$(quote "$1")" "$directory" "$directory"
}
