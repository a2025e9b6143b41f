"""Tests the vote on planted clusters, the table, file and errors of the command, and the result on real data."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from scipy.spatial.distance import pdist

from clustering_jax import choose_k, cli
from clustering_jax.errors import UserError
from clustering_jax.kmeans import criteria, number_of_clusters
from tests.paths import ROOT

DATA = ROOT.parent / "shared" / "data"
KS = range(2, 9)


def centers(rng):
    """Eight centers in a box, with distances of at least 9 standard deviations of a cluster."""
    while True:
        drawn = rng.uniform(-10, 10, size=(8, 4))
        if pdist(drawn).min() > 9:
            return drawn


def planted(sizes, seed=0):
    """Rows [240, 4] with clusters. All tests use this shape, so that they share one compiled program."""
    rng = np.random.default_rng(seed)
    return np.repeat(centers(rng)[: len(sizes)], sizes, axis=0) + rng.normal(size=(240, 4))


def vote(rows, *, seed=0, samples=3):
    rows = np.asarray(rows, np.float32)
    return number_of_clusters.recommend(number_of_clusters.curves(rows, KS, seed=seed, samples=samples), KS, seed=seed)


SIZES = {
    "two": [120] * 2,
    "three": [80] * 3,
    "five": [48] * 5,
    "eight": [30] * 8,
    "unequal": [110, 60, 35, 20, 15],
}


@pytest.mark.long
@pytest.mark.parametrize("name", SIZES)
def test_every_criterion_finds_planted_clusters(name):
    """Also at the smallest and at the largest number of the range. The gap can't stop at the end of the range."""
    k = len(SIZES[name])
    found = vote(planted(SIZES[name]))
    expected = dict.fromkeys(criteria.RULES, k) | ({"gap": None} if k == KS[-1] else {})
    assert found["votes"] == expected and found["num_clusters"] == k
    assert found["interval"][0] <= k <= found["interval"][1] and found["interval"][1] - found["interval"][0] <= 1
    assert found["agree"] == (4 if k < KS[-1] else 3)


@pytest.mark.long
def test_the_criteria_disagree_on_one_cluster():
    found = vote(np.random.default_rng(0).normal(size=(240, 4)))
    assert found["votes"]["gap"] == 2
    assert found["interval"][1] - found["interval"][0] >= 3


ROWS = planted(SIZES["five"])
TURN = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
CHANGES = {
    "order": lambda x: x[np.random.default_rng(1).permutation(len(x))],
    "rotation": lambda x: x @ TURN,
    "scale": lambda x: 1e3 * x,
    "shift": lambda x: x + 50,
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.long
def test_the_vote_does_not_depend_on(name):
    found, plain = (vote(choose_k.principal(x.astype(np.float32), KS)) for x in (CHANGES[name](ROWS), ROWS))
    assert found["votes"] == plain["votes"] and found["num_clusters"] == 5


@pytest.mark.long
def test_the_seed_determines_all_draws():
    first, again, other = (vote(ROWS, seed=seed) for seed in (0, 0, 1))
    assert first == again != other and other["num_clusters"] == 5
    assert json.loads(json.dumps(first)) == first


def test_clusters_and_dispersion_equal_the_textbook():
    """The other half is assigned to the nearest mean. W sums squared distances in a cluster over twice its size."""
    rows, others = (ROWS[half::2].astype(np.float32) for half in (0, 1))
    own, crossed, inertia = number_of_clusters._fits(jax.random.key(0), rows, others, ks=tuple(KS))
    for k, labels, theirs, found in zip(KS, own, crossed, inertia, strict=True):
        assert set(labels.tolist()) == set(range(k))
        parts = [rows[labels == j].astype(np.float64) for j in range(k)]
        dispersion = sum(((p[:, None] - p[None]) ** 2).sum() / (2 * len(p)) for p in parts)
        assert found == pytest.approx(dispersion, rel=1e-4)
        means = np.stack([p.mean(0) for p in parts])
        nearest = ((others[:, None] - means) ** 2).sum(2).argmin(1)
        assert (theirs == nearest).mean() > 0.98


def curves(**rows):
    return {name: np.array(value, float) for name, value in rows.items()}


SAME = [[0, 0, 1, 0]] * 3


def test_the_median_of_the_votes_is_taken():
    """Of two middle votes the lower one is used. A missing vote has no effect and does not count as agreement."""
    last = [[0, 0, 0, 1]] * 3
    found = number_of_clusters.recommend(
        curves(silhouette=SAME, stability=last, merge=[[1, 0, 0, 0]] * 3), range(2, 6), seed=0
    )
    assert found["votes"] == {"silhouette": 4, "stability": 5, "merge": 2} and found["num_clusters"] == 4
    assert found["interval"] == [2, 5] and found["agree"] == 3
    found = number_of_clusters.recommend(curves(silhouette=SAME, stability=last), range(2, 6), seed=0)
    assert found["num_clusters"] == 4
    found = number_of_clusters.recommend(curves(silhouette=SAME, gap=[[0, 1, 2, 3]] * 3), range(2, 6), seed=0)
    assert found["votes"] == {"silhouette": 4, "gap": None} and found["interval"] == [4, 4] and found["agree"] == 1


def test_the_interval_comes_from_votes_on_resampled_samples():
    mixed = [[0, 0, 3, 0], [2, 0, 0, 0]] * 3
    found = number_of_clusters.recommend(curves(silhouette=mixed), range(2, 6), seed=0)
    assert found["num_clusters"] == 4 and found["interval"] == [2, 4]
    assert found["curve"][2] == {"k": 4, "silhouette": 1.5, "silhouette_std": 1.5}


# --- Components


def test_principal_components_hold_nine_tenths_of_the_variance():
    x = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32) * [4, 4, 3, 1, 0.1, 0.1, 0.1, 0.1]
    found = choose_k.principal(x.astype(np.float32), range(2, 4))
    assert found.shape == (200, 3)
    values = np.linalg.eigvalsh(np.cov(x.T))[::-1]
    np.testing.assert_allclose(found.var(0) / found.var(0)[0], values[:3] / values[0], rtol=1e-3)


def test_pixels_are_divided_by_255_and_views_are_concatenated():
    image = np.random.default_rng(0).integers(256, size=(5, 2, 2, 1)).astype(np.uint8)
    found = choose_k.raw_rows(SimpleNamespace(features={"image": image}), np.array([1, 3]))
    np.testing.assert_allclose(found, image[[1, 3]].reshape(2, 4) / 255, rtol=1e-6)
    views = {"view0": np.ones((5, 2), np.float32), "view1": np.zeros((5, 1), np.float32), "mask": np.ones((5, 2), bool)}
    assert choose_k.raw_rows(SimpleNamespace(features=views), np.arange(5)).tolist() == [[1, 1, 0]] * 5


# --- The command


@pytest.fixture
def views(tmp_path):
    rows = ROWS.astype(np.float32)
    np.savez(tmp_path / "views.npz", view0=rows[:, :2], view1=rows[:, 2:])
    return ["--config=configs/cmmc_arrays.py", f"--config.data.path={tmp_path}/views.npz", "--config.data.scaling=none"]


def command(*arguments):
    choose_k.main(["choose_k", *arguments])


@pytest.mark.long
def test_the_table_the_line_and_the_file(views, tmp_path, capsys):
    command(*views, "--range=2:8", "--samples=2", f"--output={tmp_path}/out")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["k", *criteria.RULES] and [int(line.split()[0]) for line in lines[1:8]] == list(KS)
    assert lines[4].split()[0] == "5" and lines[4].count("*") == 4 and sum(line.count("*") for line in lines) == 4
    assert "240 rows" in lines[8] and "of the raw data" in lines[8]
    assert (
        lines[9].startswith("num_clusters 5 (80 % of votes between 5 and 5): silhouette 5, gap 5") and lines[10:] == []
    )
    found = json.loads((tmp_path / "out" / "choose_k.json").read_text())
    assert found["num_clusters"] == 5 and found["samples"] == 2 and [p["k"] for p in found["curve"]] == list(KS)
    assert choose_k.summary_line(found) == lines[9] and "\n".join(lines[:8]) == choose_k.table(found)


@pytest.mark.parametrize(
    "agree, odds", [(2, "2 of 3 criteria within 2 of it"), (1, "1 of 3 criteria within 2 of it, so they disagree")]
)
def test_the_summary_line(agree, odds):
    votes = {"gap": None, "stability": 9, "merge": 4}
    found = {"num_clusters": 4, "interval": [2, 9], "votes": votes, "agree": agree}
    expected = "num_clusters 4 (80 % of votes between 2 and 9): gap none in this range, stability 9, merge 4; "
    assert choose_k.summary_line(found) == expected + odds


def embedding(monkeypatch, tmp_path, shapes, embed=lambda features: features["view0"]):
    """Replaces the embedding of a finished run by a function."""
    (tmp_path / "result.json").write_text("{}")
    predictor = SimpleNamespace(shapes=shapes, embed=embed)
    monkeypatch.setattr(choose_k.Predictor, "restore", lambda _: predictor)
    return f"--workdir={tmp_path}"


SHAPES = {"view0": (2,), "view1": (2,)}


@pytest.mark.long
def test_the_embedding_of_a_run_is_examined(views, tmp_path, monkeypatch, capsys):
    """The rows are embedded in parts and in order. The embedding has two clusters."""
    monkeypatch.setattr(choose_k, "CHUNK", 70)
    cluster = 10.0 * (ROWS @ [1, 0, 0, 0] > 0)
    place = iter(range(0, 240, 60))

    def embed(features):
        start = next(place)
        np.testing.assert_allclose(features["view1"], ROWS[start : start + 60, 2:], rtol=1e-6)
        noise = np.random.default_rng(start).normal(size=(60, 4))
        return noise + cluster[start : start + 60, None]

    command(*views, embedding(monkeypatch, tmp_path, SHAPES, embed), "--range=2:8", "--samples=2")
    out = capsys.readouterr().out
    assert "num_clusters 2 " in out and f"of the embedding of {tmp_path}" in out


def test_a_run_is_trained_with_more_clusters_than_the_range(views, tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(choose_k, "train", lambda *arguments: trained.append(arguments))
    monkeypatch.setattr(number_of_clusters, "curves", lambda rows, ks, **_: curves(silhouette=np.ones((2, len(ks)))))
    monkeypatch.setattr(choose_k, "table", lambda _: "")
    command(*views, embedding(monkeypatch, tmp_path, SHAPES), "--range=2:8", "--samples=2", "--train")
    (config, workdir), *more = trained
    assert config["num_clusters"] == 16 and config["method"] == "cmmc" and workdir == tmp_path and not more


def refuses(expected, *arguments):
    with pytest.raises(UserError, match=expected) as error:
        command(*arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("ends", ["5", "5:", "a:b", "1:5", "6:5", "2-5", "-2:5"])
def test_ranges(views, ends):
    refuses(f"--range={ends}: give LEAST:MOST", *views, f"--range={ends}")


def test_errors_of_the_user_are_one_line(views, tmp_path, monkeypatch):
    refuses("half of the 240 rows must be more than that", *views, "--range=2:120")
    refuses("--config is missing: choose_k --config=NAME$", "--range=2:5")
    refuses("unexpected argument 'more'; flags are --config=NAME --config.KEY=VALUE", *views, "more")
    refuses("there is no directory", *views, "--range=2:5", "--output=nowhere/out")
    refuses("--train needs --workdir=DIR", *views, "--range=2:5", "--train")
    refuses(r"holds no finished run: add --train to train one", *views, "--range=2:5", f"--workdir={tmp_path}")
    workdir = embedding(monkeypatch, tmp_path, {"image": (8, 8, 1)})
    refuses(r"was trained on rows of .*, the config's data has .*\(2,\)", *views, "--range=2:5", workdir)
    monkeypatch.setattr(choose_k, "MAX_PIXELS", 63)
    refuses("images of 64 values are too large", "--config=configs/cc_digits.py", "--range=2:5")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("distinct", [1, 3])
def test_equal_rows(distinct):
    rows = np.arange(20, dtype=np.float32)[:, None] % distinct * np.ones(3, np.float32)
    with pytest.raises(UserError, match=f"--range ends with 5, but only {distinct} rows differ"):
        choose_k.principal(rows, range(2, 6))


def test_the_default_range_is_the_one_of_the_config():
    assert choose_k.range_of(None, (2, 30)) == range(2, 31)


def test_exit_codes(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.run(lambda: command("--config=configs/cc_digits.py", "--range=9:3"))
    assert stopped.value.code == 2 and capsys.readouterr().err.startswith("error: --range=9:3: give LEAST:MOST")


# --- Real data, whose labels are used only here

VIEWS = "--config=configs/cmmc_arrays.py", "--config.data.label_key=y"
SHORT = "--config.model.reconstruction_epochs=50", "--config.run.checkpoint_every=0"
SETS = {
    "digits": (10, "5:30", ("--config=configs/cc_digits.py",)),
    "bdgp": (5, "2:15", (*VIEWS, *SHORT, "--config.epochs=10")),
    "mnist_usps": (10, "5:30", (*VIEWS, *SHORT, "--config.epochs=20")),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_the_true_number_is_near_the_recommendation(name, tmp_path):
    """Examines the embedding of a run with twice as many clusters as the end of the range."""
    true, ends, options = SETS[name]
    path = DATA / f"{name}.npz"
    if name != "digits":
        if not path.is_file():
            pytest.skip(f"needs {path}")
        options = *options, f"--config.data.path={path}"
    given = *options, f"--range={ends}", "--train", f"--workdir={tmp_path}/run", f"--output={tmp_path}"
    program = [sys.executable, "-m", "clustering_jax.choose_k", *given]
    subprocess.run(program, check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""})
    found = json.loads((tmp_path / "choose_k.json").read_text())
    assert abs(found["num_clusters"] - true) <= 2
    assert found["interval"][0] - 2 <= true <= found["interval"][1]
