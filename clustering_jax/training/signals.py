"""The ways in which a run stops early."""

from __future__ import annotations

import os
import signal
from typing import Any


class Interrupted(Exception):
    """SIGTERM or SIGINT arrived during training. The current step is saved."""


class Stopped(BaseException):
    """SIGTERM or SIGINT arrived outside of the training loop.

    It is not an `Exception`, because code that handles exceptions would take it for damaged data.
    """


class Diverged(Exception):
    """A loss or a gradient was not finite. The last checkpoint is older than that."""


class Signals:
    """A context manager that records SIGTERM and SIGINT in `caught`, so that the loop can stop after its step.

    Until it is entered, the signals keep their handlers: Ctrl-C then raises KeyboardInterrupt at once. After a first
    Ctrl-C, a second one has the effect of the earlier handler, which stops at once.
    """

    caught = False

    def __enter__(self) -> Signals:
        self.caught = False
        self._handlers: dict[signal.Signals, Any] = {}
        for name in (signal.SIGTERM, signal.SIGINT):
            try:
                self._handlers[name] = signal.signal(name, self._note)
            except ValueError:  # not the main thread: its caller handles signals
                break
        return self

    def _note(self, number: int, frame: Any) -> None:
        again, self.caught = self.caught and number == signal.SIGINT, True
        if again and callable(earlier := self._handlers.get(signal.SIGINT)):
            earlier(number, frame)
        elif number == signal.SIGINT:
            # Not by print, which a signal may interrupt.
            os.write(2, b"\nstopping after this step, Ctrl-C again to stop at once\n")

    def __exit__(self, *_: object) -> None:
        for name, handler in self._handlers.items():
            signal.signal(name, handler)
