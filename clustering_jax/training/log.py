"""What a run writes for people: metrics.jsonl, the progress bar, small files replaced in one move."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from clustering_jax.files import is_local, write_atomic
from clustering_jax.parallel import is_first


class MetricsLog:
    """metrics.jsonl, one JSON object a line, and the progress bar.

    Terms of the steps are gathered as device arrays and fetched when a line is due, so that the devices need not wait.
    Lines after `first_step`, from a run cut short, are dropped on opening. Only the first process writes. quiet: the
    file alone, nothing in the terminal.
    """

    def __init__(self, path: str | Path, first_step: int, total_steps: int, batch_size: int, *, quiet: bool = False):
        self.path, self._batch_size = Path(path) if is_local(path) else path, batch_size
        self._lines, self._out, self._shown = self._kept(first_step), is_first(), is_first() and not quiet
        write_atomic(self.path, self._lines)
        # Nothing can be added to an object in a bucket: there it is written anew for each line.
        appends = self._out and is_local(path)
        self._file = self.path.open("a", encoding="utf-8", buffering=1) if appends else None
        # disable=None: no bar where stderr is not a terminal, where it would fill a log file.
        disable = None if self._shown else True
        self._bar = tqdm(total=total_steps, initial=first_step, unit="step", disable=disable, dynamic_ncols=True)
        self._pending: list[tuple[Mapping[str, jax.Array], int]] = []
        self._since, self._step = time.monotonic(), first_step
        if first_step:
            self._say(f"resuming at step {first_step} of {total_steps}")

    def _kept(self, first_step: int) -> list[str]:
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True) if self.path.exists() else []
        return [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= first_step]

    def add(self, terms: Mapping[str, jax.Array], count: int) -> None:
        """Takes the terms ``{name: [steps, ...]}`` of a call, the first `count` of each.

        Waits for the call before it: two under way are enough.
        """
        if self._pending:
            jax.block_until_ready(self._pending[-1][0])
        self._pending.append((terms, count))

    def flush(self, step: int, phase: str) -> dict[str, float]:
        """Writes the means since the last line and returns them; nothing where no step was taken."""
        if not self._pending:
            return {}
        fetched = jax.device_get(self._pending)
        values = _means([{name: term[:count] for name, term in terms.items()} for terms, count in fetched])
        rate = (step - self._step) * self._batch_size / (time.monotonic() - self._since)
        self._pending = []
        self._write(step, {"phase": phase, **values, "images_per_second": rate})
        self._bar.set_postfix(loss=f"{values['loss']:.4f}", rate=f"{rate:.0f}/s", refresh=False)
        self._bar.update(step - self._bar.n)
        self.restart(step)
        return values

    def restart(self, step: int) -> None:
        """Starts the clock of the rate anew, after work that is not training."""
        self._since, self._step = time.monotonic(), step

    def report(self, step: int, scores: Mapping[str, float]) -> None:
        """Writes an evaluation to the file and the terminal."""
        self._write(step, {f"eval/{k}": v for k, v in scores.items()})
        shown = " ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in scores.items())
        self._say(f"step {step}: {shown}")
        self.restart(step)

    def _say(self, text: str) -> None:
        if self._shown:
            self._bar.write(text)

    def _write(self, step: int, values: Mapping[str, Any]) -> None:
        # JSON has no word for a number that is not finite.
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        line = json.dumps({"step": step, **clean}) + "\n"
        if self._file:
            self._file.write(line)
        elif self._out:
            self._lines.append(line)
            write_atomic(self.path, self._lines)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()
        self._bar.close()


def _means(pending: list[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """Mean of each term of the last call over the calls that have it."""
    return {name: float(np.mean(np.concatenate([t[name] for t in pending if name in t]))) for name in pending[-1]}
