"""The progress bar and metrics.jsonl: compilation apart, the time to go once, and what a second Ctrl-C does."""

import json
import signal

import jax.numpy as jnp
import pytest

from clustering_jax.training import log
from clustering_jax.training.log import MetricsLog
from clustering_jax.training.signals import Signals

HINT = "there is a faster way"


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still: tests move it."""
    now = [0.0]
    monkeypatch.setattr(log.time, "monotonic", lambda: now[0])
    return now


def train(clock, path, steps, total, *, compiling=100.0, each=2.0, log_every=4, **options):
    """One step for each call; the first one also compiles."""
    with MetricsLog(path, 0, total, 10, **options) as metrics:
        for step in range(steps):
            metrics.begin("first" if step < steps // 2 else "second")
            clock[0] += each + compiling * (step in (0, steps // 2))
            metrics.add({"loss": jnp.ones(1)}, 1)
            if (step + 1) % log_every == 0:
                metrics.flush(step + 1, "first")


def test_the_rate_is_without_compilation(clock, tmp_path):
    train(clock, tmp_path / "metrics.jsonl", 16, 1000)
    rates = [json.loads(line)["images_per_second"] for line in (tmp_path / "metrics.jsonl").open()]
    # 10 rows in 2 s. The first call of a phase ends, for the log, as the second one has been started.
    assert rates[1] == rates[3] == 5 and all(4 < rate < 10 for rate in rates)


@pytest.mark.parametrize(
    ("each", "total", "printed"),
    [(0.01, 1000, ""), (2.0, 30, ""), (2.0, 500, "16 min"), (4.0, 3000, "3 h to go on this machine; " + HINT)],
    ids=["quick steps", "less than a minute", "minutes", "hours"],
)
@pytest.mark.parametrize("log_every", [1, 4, 100])
def test_the_time_to_go_is_printed_once(clock, tmp_path, capsys, each, total, printed, log_every):
    train(clock, tmp_path / "metrics.jsonl", 24, total, each=each, log_every=log_every, hint=HINT)
    found = capsys.readouterr().out
    assert found.count("to go") == bool(printed) and printed in found
    assert (HINT in found) == (HINT in printed)


def test_quiet_prints_nothing(clock, tmp_path, capsys):
    train(clock, tmp_path / "metrics.jsonl", 24, 9000, quiet=True, hint=HINT)
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def default_handler():
    """The handler outside of the command line, whose own handler another test may have left."""
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, earlier)


@pytest.mark.usefixtures("default_handler")
def test_a_second_ctrl_c_stops_at_once(capfd):
    with pytest.raises(KeyboardInterrupt), Signals() as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.caught and "stopping after this step" in capfd.readouterr().err
        signal.raise_signal(signal.SIGINT)
    with Signals() as signals:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert signals.caught and capfd.readouterr().err == ""
