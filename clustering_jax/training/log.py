"""What a run reports during training: metrics.jsonl and the progress bar."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from clustering_jax.files import is_local, read_json_lines, write_atomic, writing
from clustering_jax.parallel import is_first
from clustering_jax.seal import sealed

# Seconds of steps, compilation apart, before the time of the rest is estimated.
MEASURED = 10.0
# A run of this many seconds and more names its alternative.
LONG = 1800.0


class MetricsLog:
    """Writes metrics.jsonl, one JSON object with its checksum per line, and shows the progress bar.

    The first call of each phase compiles its program, so its time counts neither in the rate nor in the estimate of the
    time to go, which is printed once.

    The terms of the steps are collected as device arrays and fetched only when a line is due, so that the devices need
    not wait. If a run was interrupted, its lines after `first_step` are dropped at the start. Only process 0 writes.

    Args:
      path: the file: a path of this machine, or a path of etils to a bucket.
      first_step: the step that the run starts from.
      total_steps: number of steps of the whole run.
      batch_size: images per step, for the rate.
      quiet: whether to show nothing in the terminal.
      hint: a sentence about a faster way, which is printed if the run takes long.
    """

    def __init__(
        self,
        path: str | Path,
        first_step: int,
        total_steps: int,
        batch_size: int,
        *,
        quiet: bool = False,
        hint: str = "",
    ):
        self.path, self._batch_size, self._total, self._hint = _as_path(path), batch_size, total_steps, hint
        self._lines, self._writes, self._shows = self._old_lines(first_step), is_first(), is_first() and not quiet
        write_atomic(self.path, self._lines)
        # An object in a bucket can't be appended to, so there the whole file is written again for each line.
        appends = self._writes and is_local(path)
        self._file = self.path.open("a", encoding="utf-8", buffering=1) if appends else None
        # disable=None: no bar if stderr is not a terminal, where it would fill a log file.
        disable = None if self._shows else True
        self._bar = tqdm(total=total_steps, initial=first_step, unit="step", disable=disable, dynamic_ncols=True)
        self._pending: list[tuple[Mapping[str, jax.Array], int]] = []
        self._since, self._step, self._finished = time.monotonic(), first_step, first_step
        self._phase, self._compiled, self._estimated = "", True, False
        self._seconds, self._steps = 0.0, 0
        if first_step:
            self._print(f"resuming at step {first_step} of {total_steps}")

    def _old_lines(self, first_step: int) -> list[str]:
        objects, whole = read_json_lines(self.path)
        if not whole and is_first():
            kept = self.path.with_name(f"{self.path.name}.damaged")
            warnings.warn(
                f"{self.path} is damaged after {len(objects)} lines, and goes on there; it is kept as {kept}",
                stacklevel=3,
            )
            with writing(kept):
                self.path.rename(kept)
        return [_line(values) for values in objects if values["step"] <= first_step]

    def begin(self, phase: str) -> None:
        """Says that a call of the update follows. The first one of a phase compiles its program."""
        if phase != self._phase:
            self._phase, self._compiled = phase, False
            self._bar.set_description(f"{phase}: compiling ...")

    def add(self, terms: Mapping[str, jax.Array], count: int) -> None:
        """Adds the terms of one call of the update. It waits for the previous call, so at most two are in flight.

        Args:
          terms: ``{name: [steps, ...]}``. Only the first `count` entries of each term are valid.
          count: number of steps that the call took.
        """
        if self._pending:
            jax.block_until_ready(self._pending[-1][0])
            self._advance(self._finished + self._pending[-1][1])
        self._pending.append((terms, count))

    def _advance(self, step: int) -> None:
        """Shows the steps that have finished. The first call of a phase ends the compilation."""
        self._finished = step
        if not self._compiled:
            self._compiled = True
            self._bar.set_description(self._phase, refresh=False)
            self._bar.unpause()  # The bar's own rate leaves compilation out too.
            self.restart(step)
        self._bar.update(step - self._bar.n)
        self._estimate(*self._window())

    def _window(self) -> tuple[float, int]:
        """Seconds and steps since the clock started."""
        return time.monotonic() - self._since, self._finished - self._step

    def _estimate(self, seconds: float, steps: int) -> None:
        """Prints once how long the rest takes at the rate of the steps so far."""
        seconds, steps = seconds + self._seconds, steps + self._steps
        if self._estimated or seconds < MEASURED or not steps:
            return
        self._estimated, left = True, (self._total - self._finished) * seconds / steps
        if left > 60:
            hint = f"; {self._hint}" * (bool(self._hint) and left > LONG)
            self._print(f"{steps} steps took {seconds:.0f} s: {duration(left)} to go on this machine{hint}")

    def flush(self, step: int, phase: str) -> dict[str, float]:
        """Writes a line with the means since the last line.

        Args:
          step: the current step.
          phase: name of the phase.

        Returns:
          The means by name; empty, and no line, if no step was taken.
        """
        if not self._pending:
            return {}
        fetched = jax.device_get(self._pending)
        values = _means([{name: term[:count] for name, term in terms.items()} for terms, count in fetched])
        # If the first call of a phase is the only one since the last line, the time of the line includes compilation.
        measured, self._finished, self._compiled = self._compiled, step, True
        seconds, steps = self._window()
        rate = steps * self._batch_size / max(seconds, 1e-9)
        if measured:
            self._seconds, self._steps = self._seconds + seconds, self._steps + steps
            self._estimate(0.0, 0)
        self._pending = []
        self._write(step, {"phase": phase, **values, "images_per_second": rate})
        self._bar.set_description(phase, refresh=False)
        self._bar.set_postfix(loss=f"{values['loss']:.4f}", rate=f"{rate:.0f}/s", refresh=False)
        self._bar.update(step - self._bar.n)
        self.restart(step)
        return values

    def restart(self, step: int) -> None:
        """Restarts the clock of the rate, after work that is not training."""
        self._since, self._step, self._finished = time.monotonic(), step, step

    def report(self, step: int, scores: Mapping[str, float]) -> None:
        """Writes the scores of an evaluation to the file and to the terminal."""
        self._write(step, {f"eval/{k}": v for k, v in scores.items()})
        line = " ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in scores.items())
        self._print(f"step {step}: {line}")
        self.restart(step)

    def _print(self, text: str) -> None:
        if self._shows:
            self._bar.write(text)

    def _write(self, step: int, values: Mapping[str, Any]) -> None:
        # JSON has no notation for numbers that are not finite.
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        line = _line({"step": step, **clean})
        if self._file:
            with writing(self.path):
                self._file.write(line)
        elif self._writes:
            self._lines.append(line)
            write_atomic(self.path, self._lines)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            with suppress(OSError):  # of a line whose error was raised when it was written
                self._file.close()
        self._bar.close()


def duration(seconds: float) -> str:
    """A time for people: minutes below two hours, otherwise hours."""
    return f"about {seconds / 60:.0f} min" if seconds < 7200 else f"about {seconds / 3600:.0f} h"


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(sealed(values)) + "\n"


def _as_path(path: Any) -> Any:
    """Returns a `Path`, or the path of etils: both have the same methods, but no common type."""
    return Path(path) if is_local(path) else path


def _means(pending: list[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """Returns the mean of each term of the last call, over all calls that have the term."""
    return {name: float(np.mean(np.concatenate([t[name] for t in pending if name in t]))) for name in pending[-1]}
