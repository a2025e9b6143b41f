"""What the commands share: one line for a user's error, and the exit codes.

0 done, 2 something the user can put right, 3 the loss was not finite, 75 interrupted and saved (start again to go on).
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

from absl import logging

from clustering_jax.errors import UserError
from clustering_jax.interrupt import Diverged, Interrupted, Stopped


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
