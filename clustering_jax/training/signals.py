"""How a run stops before its end."""

from __future__ import annotations

import signal


class Interrupted(Exception):
    """SIGTERM or SIGINT came; the step reached is saved."""


class Stopped(BaseException):
    """SIGTERM or SIGINT came outside of the loop. No `Exception`: what handles those would take it for damage."""


class Diverged(Exception):
    """A loss or gradient was not finite; the last checkpoint is from before that."""


class Signals:
    """While entered, notes SIGTERM and SIGINT in `caught`, for the loop to stop at the end of its step.

    Never entered it leaves them to the program: Ctrl-C then is a KeyboardInterrupt, at once.
    """

    caught = False

    def __enter__(self) -> Signals:
        self.caught, self._old = False, {}
        for name in (signal.SIGTERM, signal.SIGINT):
            try:
                self._old[name] = signal.signal(name, self._note)
            except ValueError:  # not the main thread: signals are its caller's business
                break
        return self

    def _note(self, *_: object) -> None:
        self.caught = True

    def __exit__(self, *_: object) -> None:
        for name, handler in self._old.items():
            signal.signal(name, handler)
