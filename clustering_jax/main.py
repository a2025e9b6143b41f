"""``python -m clustering_jax.main --config=configs/cc_digits.py --workdir=runs/digits [--config.seed=1 ...]``.

Trains what the config says and writes to the workdir. The same command again resumes a run cut short and does nothing
to a finished one. A config file is Python and is executed: use only those you trust. Exit codes: see `cli`.

Several processes, on one or more machines, train together: each is the same command with ``--coordinator=HOST:PORT
--num_processes=N --process_id=I`` behind it, or all with ``--distributed=auto`` under SLURM or on a TPU. The workdir
must be one that all of them reach: on a shared file system, or in a bucket, ``gs://...`` (with gcsfs installed).
"""

from __future__ import annotations

import os
import re
import sys
import threading

from absl import flags
from etils import epath

from clustering_jax import cli
from clustering_jax.cli import read_flags
from clustering_jax.errors import UserError
from clustering_jax.training.signals import Diverged, Interrupted, Signals


def _processes() -> flags.FlagValues:
    """The flags of a run of several processes."""
    values = flags.FlagValues()
    flags.DEFINE_string("coordinator", None, "HOST:PORT of the first of several processes.", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "How many.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("process_id", None, "Which this is, from 0.", lower_bound=0, flag_values=values)
    flags.DEFINE_enum("distributed", None, ["auto"], "Asks SLURM or the TPU for these three.", flag_values=values)
    flags.DEFINE_integer("heartbeat", 100, "Seconds after which a silent process is dead.", 1, flag_values=values)
    return values


def _check_processes(values: flags.FlagValues) -> bool:
    """Whether there are several processes; UserError for flags that don't go together."""
    given = {name: values[name].value for name in ("coordinator", "num_processes", "process_id")}
    missing = [name for name, value in given.items() if value is None]
    if values.distributed and len(missing) < 3:
        raise UserError("--distributed=auto finds coordinator, num_processes and process_id itself: leave those out")
    if 0 < len(missing) < 3:
        raise UserError(f"--coordinator, --num_processes and --process_id go together: --{missing[0]} is missing")
    if not missing and not re.fullmatch(r".+:\d+", values.coordinator):
        raise UserError(f"--coordinator={values.coordinator}: give HOST:PORT of the first process")
    if not missing and values.process_id >= values.num_processes:
        raise UserError(f"--process_id={values.process_id} of {values.num_processes} processes: they count from 0")
    return not missing or values.distributed is not None


def _reached(bucket: str) -> epath.Path:
    """The path of a directory in a bucket; UserError where it can't be reached."""
    if bucket.startswith("file:"):
        raise UserError(f"--workdir={bucket}: give a directory of this machine by its path alone, without file://")
    path = epath.Path(bucket)
    try:
        path.exists()
    except Exception as error:  # of the library that knows such buckets, or that it is not installed
        raise UserError(f"--workdir={bucket} can't be reached: {error}") from error
    return path


def main(argv: list[str]) -> None:
    """Reads the flags and runs; `argv` begins with the name by which the command was called."""
    values = _processes()
    config, workdir = read_flags(argv, "workdir", __doc__, values)
    several = _check_processes(values)
    workdir = _reached(values.workdir) if "://" in values.workdir else workdir
    from clustering_jax import parallel, recipe  # with JAX, which takes seconds: not before the flags are right

    if not several:
        recipe.train(config, workdir)
        return
    parallel.connect(values.coordinator, values.num_processes, values.process_id, values.heartbeat)
    # One can't stop alone. Entered here, and not before, since JAX has put a handler of its own in place.
    with Signals() as signals:
        try:
            recipe.train(config, workdir, signals)
        except (Interrupted, Diverged):
            raise  # as all do
        except Exception as error:
            # At its end a process waits for the others, which may not have failed.
            leave = threading.Timer(values.heartbeat, os._exit, (2 if isinstance(error, UserError) else 1,))
            leave.daemon = True
            leave.start()
            raise


def command(argv: list[str]) -> None:
    """Runs `main` as a program, which ends here; `argv` begins with the name by which it was called."""
    cli.use_huge_pages()
    cli.run(lambda: main(argv))


if __name__ == "__main__":
    command(["python -m clustering_jax.main", *sys.argv[1:]])
