"""What the commands share: one line for a user's error, and the exit codes.

0 done, 2 something the user can put right, 3 the loss was not finite, 75 interrupted and saved (start again to go on).
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from absl import flags, logging
from ml_collections import config_flags

from clustering_jax.errors import UserError
from clustering_jax.training.signals import Diverged, Interrupted, Stopped

# A config's numbers take no words.
AUTO = "--config.num_clusters=auto", "--config.num_clusters=0"


def read_flags(
    argv: list[str], directory: str, command: str, doc: str, more: flags.FlagValues | None = None
) -> tuple[dict, Path]:
    """The config of ``--config`` as a plain dictionary, and the path of ``--DIRECTORY``; the flags in `more` are set.

    `directory` "" is of a command that needs none. Prints `doc` and ends where help is asked for; UserError for what
    can't be read or is missing.
    """
    values = flags.FlagValues() if more is None else more
    config_flags.DEFINE_config_file("config", None, "Config file.", flag_values=values)
    if directory:
        flags.DEFINE_string(directory, None, "Directory for everything that is written.", flag_values=values)
    flags.DEFINE_bool("help", False, "Shows this help.", flag_values=values, short_name="h")
    try:
        rest = values([AUTO[1] if argument == AUTO[0] else argument for argument in argv])[1:]
        config = values.config.to_dict() if values["config"].value is not None else None
    except UserError:
        raise
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, SyntaxError) as error:
        said: object = error
        while isinstance(said, AttributeError | KeyError) and said.args:
            said = said.args[0]  # a KeyError's own text is quoted
        raise UserError(f"the flags or the config can't be read: {said}; see --help") from error
    if values.help:
        print(doc.strip(), values.main_module_help(), sep="\n\n")
        sys.exit(0)
    needed = "--config=FILE" + f" --{directory}=DIR" * bool(directory)
    if rest:
        raise UserError(f"unexpected argument '{rest[0]}'; flags are {needed} --config.KEY=VALUE")
    for name in filter(None, ("config", directory)):
        if not values[name].value:
            raise UserError(f"--{name} is missing: python -m clustering_jax.{command} {needed}")
    return config, Path(values[directory].value if directory else "")


def run(command: Callable[[], None]) -> NoReturn:
    """Runs `command` and exits by the table above."""
    logging.set_verbosity(logging.ERROR)  # Orbax warns there of what it was asked to do
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, _stop)
    try:
        command()
    except UserError as error:
        sys.exit(_say("error", error, 2))
    except Diverged as error:
        sys.exit(_say("diverged", error, 3))
    except Interrupted as error:
        sys.exit(_say("interrupted", error, 75))
    except Stopped as error:
        code = _say("interrupted", error, 75)
        sys.stdout.flush()
        # Not by sys.exit: an import of JAX that was cut short can crash as Python ends.
        os._exit(code)
    sys.exit(0)


def _stop(*_: object) -> NoReturn:
    raise Stopped("stopped by a signal; what was saved stays, the same command goes on from there")


def use_huge_pages() -> None:
    """Starts the program again, once, with glibc's huge pages; a GLIBC_TUNABLES that is set already stays.

    XLA's CPU backend returns its buffers after every step: without huge pages a step of ResNet18 at 32 px spends a
    quarter of its time on page faults. glibc reads the variable at the start of a process alone.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.execve(sys.executable, sys.orig_argv, {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"})


def _say(kind: str, error: BaseException, code: int) -> int:
    print(f"{kind}: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return code
