"""docs/scale.md has the figures of docs/scale.json."""

import numpy as np
import pytest

from benchmarks import memory, scale
from clustering_jax.files import read_json
from tests.paths import ROOT

DOCS = ROOT / "docs"
RESULTS = read_json(DOCS / "scale.json")
TABLES = {
    "memory": lambda: memory.table(RESULTS["memory"]),
    "sent": lambda: scale.sent_table(RESULTS["sent"]),
    "held": lambda: scale.held_table(RESULTS["held"]),
    "bounds": lambda: scale.bounds_table(RESULTS),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_document_has_the_table(name):
    assert TABLES[name]() in (DOCS / "scale.md").read_text()


def test_the_document_has_every_program():
    assert list(RESULTS["memory"]) == list(memory.CASES)
    assert list(RESULTS["sent"]) == list(scale.SENT) and list(RESULTS["held"]) == list(scale.HELD)
    assert memory.error(RESULTS["memory"]) < 0.03


@pytest.mark.parametrize("name, line", [("CMMC", [2e9, 7e6]), (memory.PARABOLAS[0], [2e9, 7e6, 5e2])])
def test_the_largest_batch_is_on_the_line(name, line):
    rows = np.array([100, 200, 400])
    found = memory.fitted(name, {"rows": rows, "bytes": np.polynomial.polynomial.polyval(rows, line)})
    np.testing.assert_allclose(found, line, rtol=1e-6)
    held = np.polynomial.polynomial.polyval(np.array([0, 1]) + memory.largest(found, 16), line)
    assert held[0] <= 16e9 < held[1] and memory.largest(found, 1) == 0
