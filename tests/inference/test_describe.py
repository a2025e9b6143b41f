"""A whole, small run: the columns of its assignments, rejection, levels, and what is refused."""

import csv
import json
import warnings

import numpy as np
import pytest

from clustering_jax.errors import UserError
from clustering_jax.files import read_json
from clustering_jax.inference.predictor import Predictor
from clustering_jax.report.content import of_workdir
from clustering_jax.report.page import page
from tests.editing import small


def lines(workdir):
    with (workdir / "assignments.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_describes_its_rows(tmp_path):
    workdir, part = small.trained(tmp_path, levels=(2,), reject=0.9)
    table = lines(workdir)
    assert list(table[0]) == [
        *("id", "cluster", "probability", "second", "second_probability"),
        *("outlier", "duplicate_group", "typical", "level_2"),
    ]
    clusters = np.array([int(line["cluster"]) for line in table])
    np.testing.assert_array_equal(clusters, np.where(part == 4, 2, part))  # all are sure: the rows lie apart
    assert all(line["second"] != line["cluster"] for line in table)
    assert max(float(line["outlier"]) for line in table) == 1
    typical = [(line["cluster"], line["typical"]) for line in table if line["typical"]]
    assert sorted(typical) == [(str(c), str(t)) for c in range(4) for t in (1, 2, 3)]
    found = read_json(workdir / "result.json")["rejection"]
    assert found["assigned"] == 80 and found["expected"] >= 0.9
    assert found["calibrated_by"] == "clusterings of half of the rows"


def test_rows_without_a_cluster_everywhere(tmp_path):
    """A threshold between two rows: the file, prediction and the report leave out the rows below it."""
    workdir, _ = small.trained(tmp_path, reject=0.9)
    sure = np.array([float(line["probability"]) for line in lines(workdir)])
    result = read_json(workdir / "result.json")
    result["rejection"]["threshold"] = float(np.median(sure))
    (workdir / "result.json").write_text(json.dumps(result))
    image, _ = small.rows()
    found = Predictor.restore(workdir).predict({"image": image / np.linalg.norm(image, axis=1, keepdims=True)})
    np.testing.assert_array_equal(found < 0, sure < np.median(sure) - 1e-6)
    text = (workdir / "assignments.csv").read_text().splitlines()
    cut = [f"{row},-1,{line.split(',', 2)[2]}" if found[row] < 0 else line for row, line in enumerate(text[1:])]
    (workdir / "assignments.csv").write_text("\n".join([text[0], *cut, ""]))
    assert f"{int((found < 0).sum())} rows of low confidence have no cluster" in page(of_workdir(workdir), "pca")


def test_too_many_rows_are_not_compared(tmp_path):
    with pytest.warns(UserWarning, match="80 rows are more than rows.limit, 79"):
        workdir, _ = small.trained(tmp_path, rows={"limit": 79})
    assert list(lines(workdir)[0]) == ["id", "cluster", "probability", "second", "second_probability"]


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"reject": 1.5}, "reject is 1.5"),
        ({"levels": (4,)}, "levels has 4: a level has from 2 to 3"),
        ({"rows": {"neighbours": -1}}, "rows.neighbours is -1"),
    ],
)
def test_settings_out_of_range(tmp_path, changes, words):
    with pytest.raises(UserError, match=words), warnings.catch_warnings():
        small.trained(tmp_path, **changes)
    assert not (tmp_path / "run").exists()
