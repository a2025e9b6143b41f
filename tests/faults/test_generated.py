"""Inputs that hypothesis generates: texts of tables, and JSON of any shape, are read or refused in one line."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest

from clustering_jax import data
from clustering_jax.data.labels import read_labels
from clustering_jax.editing.request import from_json
from clustering_jax.files import read_json, read_json_lines, write_json
from clustering_jax.serving.inputs import Inputs
from clustering_jax.serving.requests import Limits, decode_features
from tests.faults.readers import IMAGES, TWO, one_line

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

# The same examples in every run, and no files of hypothesis in the working directory.
SETTINGS = hypothesis.settings(max_examples=60, derandomize=True, deadline=None, database=None)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner))
CELL = st.sampled_from(["1", "0", "2.5", "-3e4", "", "NA", "nan", "inf", "x", '"', "\r", "é", " 7 ", "1e999", "\0"])
TABLE = st.lists(st.lists(CELL, max_size=4), max_size=6)
NUMBERS = st.lists(st.lists(st.floats() | st.integers(), max_size=3), max_size=3)


@SETTINGS
@hypothesis.given(TABLE, TABLE)
def test_tables(first, second):
    with tempfile.TemporaryDirectory() as directory:
        for name, rows in {"a.csv": first, "b.csv": second}.items():
            text = "".join(",".join(row) + "\n" for row in rows)
            (Path(directory) / name).write_text(text, newline="")
        found = one_line(lambda: data.load("multiview", path=directory))
        assert found is None or all(np.isfinite(view).all() for view in found.features.values())


@SETTINGS
@hypothesis.given(st.lists(LEAVES, min_size=1, max_size=6))
def test_labels(values):
    found = one_line(lambda: read_labels(values, len(values), "y"))
    assert found is None or (found.dtype == np.int64 and len(found) == len(values) and found.min() >= -1)


@SETTINGS
@hypothesis.given(st.dictionaries(st.sampled_from(["view0", "view1", "mask", "image"]), NUMBERS | JSON) | JSON)
def test_bodies_of_requests(tree):
    body = json.dumps(tree).encode()
    for inputs in (TWO, IMAGES, Inputs({"image": (3,)}, {}, "error")):
        found = one_line(lambda inputs=inputs: decode_features("application/json", [body], inputs, Limits()))
        assert found is None or all(np.isfinite(rows).all() for rows in found.values())


@SETTINGS
@hypothesis.given(st.dictionaries(st.sampled_from(["merge", "split", "rename", "move", "lock", "unlock"]), JSON) | JSON)
def test_corrections(tree):
    one_line(lambda: from_json(tree, "edits.json"))


@SETTINGS
@hypothesis.given(st.dictionaries(st.text(max_size=6), JSON), st.binary(max_size=40))
def test_files_of_a_workdir(tree, content):
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "a.json"
        write_json(path, tree)
        expected = {name: value for name, value in tree.items() if name != "seal"}
        assert repr(one_line(lambda: read_json(path, dict))) == repr(json.loads(json.dumps(expected)))
        path.write_bytes(content)
        one_line(lambda: read_json(path, dict))
        one_line(lambda: read_json_lines(path))
