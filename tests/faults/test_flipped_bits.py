"""One flipped bit in a file that a run has written: what is read back is the same, or one line; never another value."""

import json
import shutil
import warnings

import jax
import numpy as np
import pytest

from clustering_jax.errors import UserError
from clustering_jax.estimators import SemanticClustering
from clustering_jax.files import read_json, write_json
from clustering_jax.inference.new_rows import lines
from clustering_jax.inference.predictor import Predictor
from clustering_jax.inference.results import write_assignments
from clustering_jax.methods.cache import ArrayCache
from clustering_jax.report.content import of_workdir
from clustering_jax.training.workdir import finished, write_result
from tests import runs
from tests.faults.mutations import flip, flipped

SMALL = ("config.json", "result.json", "clusters.json", "assignments.csv", "estimator.json", "num_clusters.json")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """The files of a finished run with names of clusters."""
    path = runs.workdir_of("dxmc", tmp_path_factory.mktemp("run") / "run")
    new = path.parent / "new.npz"
    np.savez(new, **runs.rows("dxmc", 12))
    write_json(path / "config.json", runs.config_of("dxmc"))
    write_json(path / "num_clusters.json", {"num_clusters": runs.CLUSTERS, "curve": [[5, 0.5]]})
    write_json(path / "estimator.json", {"params": {"n_clusters": runs.CLUSTERS}, "seen": {"n_features_in_": 12}})
    (path / "metrics.jsonl").write_text('{"step": 3, "loss": 0.5}\n')
    probabilities = Predictor.restore(path).predict_proba(runs.rows("dxmc", 12))
    write_assignments(path / "assignments.csv", [str(i) for i in range(12)], probabilities, runs.NAMES)
    scores = {"occupied": 5, "smallest": 1, "largest": 9, "confidence": 0.5, "entropy": 1.0}
    protocol = dict.fromkeys(("trained_on", "scored_on", "labels", "scored_at"), "none")
    result = {"method": "dxmc", "scores": scores, "baselines": [], "protocol": protocol, "seed": 0, "names": runs.NAMES}
    write_result(path, {**result, "versions": {}, "wall_time_seconds": 1.0})
    return path


def predicted(workdir):
    return "".join(lines(Predictor.restore(workdir), workdir.parent / "new.npz", 12))


def loaded(workdir):
    found = SemanticClustering.load(workdir)
    seen = found.labels_.tolist(), found.probabilities_.tolist(), found.ids_, found.result_, found._predictor.names
    return json.dumps([*seen, found.n_clusters, found.n_features_in_])


def read(function, workdir):
    """What the function gives, or None for a refusal in one line, or where a damaged file counts as missing."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            return function(workdir), any("is damaged" in str(warning.message) for warning in said)
        except UserError as error:
            assert len(str(error).splitlines()) == 1
            return None, True


def assert_same(function, workdir, name, good, content, expected):
    (workdir / name).write_bytes(content)
    found, refused = read(function, workdir)
    (workdir / name).write_bytes(good)
    assert found == expected or refused, name


@pytest.mark.parametrize("name", SMALL)
def test_a_flipped_bit_of_a_small_file(workdir, name):
    """Of every file that is read alone: its own reader."""
    readers = {
        "clusters.json": lambda path: read_json(path / name, list),
        "assignments.csv": lambda path: (finished(path), (path / name).read_bytes()) if _whole(path) else None,
    }
    reader = readers.get(name, lambda path: read_json(path / name, dict))
    good, expected = (workdir / name).read_bytes(), reader(workdir)
    for bit in np.random.default_rng(0).choice(8 * len(good), 40, replace=False):
        if name != "clusters.json":  # its names are compared with result.json by the predictor
            assert_same(reader, workdir, name, good, flipped(good, bit), expected)


def _whole(workdir):
    from clustering_jax.training.workdir import check_assignments

    check_assignments(workdir, finished(workdir))
    return True


@pytest.mark.long
@pytest.mark.parametrize("name", ["clusters.json", "result.json"])
def test_a_flipped_bit_does_not_change_a_prediction(workdir, name):
    good, expected = (workdir / name).read_bytes(), predicted(workdir)
    rng = np.random.default_rng(1)
    for _ in range(5):
        assert_same(predicted, workdir, name, good, flip(good, rng), expected)


def files_of(directory):
    return sorted(f.relative_to(directory) for f in directory.rglob("*") if f.is_file() and f.stat().st_size)


@pytest.mark.faults
@pytest.mark.parametrize("function, names", [(predicted, files_of), (loaded, lambda _: SMALL)])
def test_flipped_bits_of_all_files(workdir, tmp_path, function, names):
    """Of checkpoints too."""
    path = shutil.copytree(workdir.parent, tmp_path / "copy") / "run"
    expected, rng = function(path), np.random.default_rng(2)
    for name in names(path):
        for _ in range(2):
            good = (path / name).read_bytes()
            assert_same(function, path, name, good, flip(good, rng), expected)


@pytest.mark.faults
def test_a_report_of_damaged_files(workdir, tmp_path):
    path, rng = shutil.copytree(workdir, tmp_path / "run"), np.random.default_rng(3)
    for name in files_of(path):
        good = (path / name).read_bytes()
        (path / name).write_bytes(flip(good, rng))
        read(of_workdir, path)
        (path / name).write_bytes(good)


def test_a_flipped_bit_of_a_cached_array(tmp_path):
    cache, array = ArrayCache(tmp_path, jax.random.key(0)), np.random.default_rng(0).normal(size=(5, 3))
    cache("rows", 1, lambda: array)
    (path,) = tmp_path.iterdir()
    good, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        path.write_bytes(flip(good, rng))
        np.testing.assert_array_equal(cache("rows", 1, lambda: array), array)


def test_a_seal_notices_every_bit(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1.5, None], "c": {"d": "é"}})
    good = (tmp_path / "a.json").read_bytes()
    assert read_json(tmp_path / "a.json") == {"b": [1.5, None], "c": {"d": "é"}}
    for bit in range(8 * len(good)):
        (tmp_path / "a.json").write_bytes(flipped(good, bit))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert read_json(tmp_path / "a.json") in (None, {"b": [1.5, None], "c": {"d": "é"}})
