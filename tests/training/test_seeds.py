"""Tests a run on views from files: seeds side by side, the kept seed, and prediction from all or some views."""

import csv

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from clustering_jax import run
from clustering_jax.data.base import Dataset, row_ids
from clustering_jax.data.views.dataset import multiview
from clustering_jax.errors import UserError
from clustering_jax.files import read_json
from clustering_jax.inference.new_rows import lines
from clustering_jax.inference.predictor import Predictor
from clustering_jax.inference.results import kmeans_baseline
from clustering_jax.method import Method
from clustering_jax.methods.views import mean_pairwise_mi
from clustering_jax.settings import cmmc
from clustering_jax.training import seeds

N = 48


def write(path, seed=0, keys=("a", "b", "c")):
    """Writes three clusters in three views with different scales. The last view is missing in every fourth row."""
    rng, labels = np.random.default_rng(seed), np.arange(N) % 3
    views = {k: (10.0**i) * (rng.normal(size=(N, 4 + i)) + 4 * labels[:, None]) for i, k in enumerate("abc")}
    mask = np.ones((N, len(keys)), int)
    mask[::4, -1] = 0
    np.savez(path, y=labels, there=mask, **{k: views[k] for k in keys})
    return path


def config(path, **changes):
    data = {
        "source": "multiview",
        "path": str(path),
        "views": ("a", "b", "c"),
        "label_key": "y",
        "mask_key": "there",
        "scaling": "minmax",
    }
    model = {"hidden": (16,), "latent_dim": 8, "feature_dim": 8, "reconstruction_epochs": 2, "matching_steps": 3}
    settings = {"num_clusters": 3, "batch_size": 16, "epochs": 2, "data": data, "kmeans_baseline": True, **changes}
    return cmmc(model={**model, "kmeans_restarts": 2}, **settings).to_dict()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Three seeds side by side."""
    directory = tmp_path_factory.mktemp("views")
    with pytest.warns(UserWarning, match="12 of 48 objects lack a view"):
        result = run.train(config(write(directory / "views.npz"), num_seeds=3, seed=5), directory / "run")
    return directory, result


@pytest.mark.long
def test_the_result_has_every_seed_and_keeps_one_without_labels(finished, capsys):
    directory, result = finished
    assert result == read_json(directory / "run" / "result.json")
    each = result["seeds"]["each"]
    assert [row["seed"] for row in each] == [5, 6, 7]
    kept = min(each, key=lambda row: row["criterion"])
    assert (result["seed"], result["criterion"]) == (kept["seed"], kept["criterion"])
    assert result["scores"]["acc"] == kept["acc"]
    accs = [row["acc"] for row in each]
    assert result["seeds"]["mean"]["acc"] == pytest.approx(np.mean(accs))
    assert result["seeds"]["std"]["acc"] == pytest.approx(np.std(accs))
    assert result["baselines"][0]["name"] == "k-means on views"


def test_the_baseline_is_scored_on_the_same_known_labels_as_the_run(tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(N) % 3
    view = rng.normal(size=(N, 4)) + 9 * y[:, None]
    np.savez(tmp_path / "a.npz", view0=view, view1=view + 1, y=np.where(y == 2, -1, y))
    found = kmeans_baseline(multiview(tmp_path / "a.npz", label_key="y"), 3)
    assert found["acc"] == found["nmi"] == 1


def test_the_baseline_does_not_read_missing_rows():
    rng, y = np.random.default_rng(0), np.arange(N) % 3
    mask = np.arange(N)[:, None] % 4 != np.array([0, 1])
    views = [np.where(mask[:, [v]], rng.normal(size=(N, 2)) + 9 * y[:, None], 1e4 * v) for v in range(2)]
    dataset = Dataset({"view0": views[0], "view1": views[1], "mask": mask}, row_ids(N), y, "views", "all")
    assert kmeans_baseline(dataset, 3)["acc"] == 1


@pytest.mark.long
def test_a_single_seed_gives_the_same_run(finished):
    directory, result = finished
    alone = run.train(config(directory / "views.npz", seed=6), directory / "alone")
    among = result["seeds"]["each"][1]
    # Only the selected seed has scores of its features.
    own = {name: value for name, value in alone["scores"].items() if not name.startswith("knn_")}
    assert own == {name: pytest.approx(among[name], rel=1e-5) for name in own}
    assert "seeds" not in alone


@pytest.mark.long
def test_prediction_of_the_training_file_is_the_assignments(finished):
    directory, _ = finished
    predictor = Predictor.restore(directory / "run")
    new = list(csv.DictReader("".join(lines(predictor, directory / "views.npz", 10)).splitlines()))
    with (directory / "run" / "assignments.csv").open() as file:
        trained = list(csv.DictReader(file))
    assert new == [{name: row[name] for name in new[0]} for row in trained] and "second" in new[0]


@pytest.mark.long
def test_prediction_from_some_views_uses_the_training_scale(finished, tmp_path):
    directory, _ = finished
    predictor = Predictor.restore(directory / "run")
    part = write(tmp_path / "part.npz", keys=("a", "c"))
    whole = Predictor.restore(directory / "run").predict_proba
    with np.load(directory / "views.npz") as file:
        scaled = {f"view{v}": file[k] for v, k in enumerate("abc")}
        low, high = scaled["view0"].min(0), scaled["view0"].max(0)
    expected = whole({"view0": ((scaled["view0"] - low) / (high - low)).astype(np.float32)})
    found = "".join(lines(predictor, directory / "views.npz", 10, [0])).splitlines()[1:]
    assert [int(line.split(",")[1]) for line in found] == expected.argmax(1).tolist()
    assert len("".join(lines(predictor, part, 10, [0, 2])).splitlines()) == N + 1


@pytest.mark.long
def test_errors(finished, tmp_path):
    directory, _ = finished
    predictor = Predictor.restore(directory / "run")
    with pytest.raises(UserError, match="there is no view 3: the training data had views 0 to 2"):
        list(lines(predictor, directory / "views.npz", 10, [0, 3]))
    (directory / "run" / "result.json").rename(tmp_path / "result.json")
    with pytest.raises(UserError, match="has not finished its 3 seeds"):
        Predictor.restore(directory / "run")
    (tmp_path / "result.json").rename(directory / "run" / "result.json")
    with pytest.raises(UserError, match="seed is -1: choose 0 or more"):
        run.train(config(directory / "views.npz", seed=-1), tmp_path / "none")
    with pytest.raises(UserError, match="num_seeds is 0"):
        run.train(config(directory / "views.npz", num_seeds=0), tmp_path / "none")


@pytest.mark.parametrize(
    "labels, expected",
    [([[0, 1], [1, 0], [0, 1], [1, 0]], np.log(2)), ([[0, 0]] * 4, 0.0), ([[0, 0], [0, 1], [1, 0], [1, 1]], 0.0)],
    ids=["renamed", "collapsed", "independent"],
)
def test_mean_pairwise_mi(labels, expected):
    labels = np.array(labels)
    assert mean_pairwise_mi(labels, np.ones((4, 2), bool)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("mask", [[[1, 0]] * 4, [[1]] * 4], ids=["no row with both", "one view"])
def test_mean_pairwise_mi_without_rows_is_0(mask):
    assert mean_pairwise_mi(np.zeros(np.shape(mask), int), np.array(mask, bool)) == 0


def test_mean_pairwise_mi_counts_rows_with_both_views():
    labels = np.array([[0, 1], [1, 0], [0, 1], [1, 0], [1, 1]])
    mask = np.array([[1, 1]] * 4 + [[1, 0]], bool)
    assert mean_pairwise_mi(labels, mask) == pytest.approx(np.log(2))


LABELS = np.arange(30) % 3
ONE_ERROR, TWO_ERRORS = LABELS.copy(), LABELS.copy()
ONE_ERROR[0], TWO_ERRORS[3:5] = 1, 0


@pytest.mark.parametrize(
    "clusters, kept",
    [
        ([ONE_ERROR, LABELS, TWO_ERRORS], 1),
        ([TWO_ERRORS, (ONE_ERROR + 1) % 3, LABELS[::-1]], 2),
        ([np.zeros(30, int), ONE_ERROR, np.zeros(30, int)], 1),
        ([np.minimum(LABELS, 1), LABELS, np.minimum(LABELS, 1)], 1),
    ],
    ids=["errors of their own", "renamed and reversed", "most collapsed", "most collapsed in part"],
)
def test_the_seed_closest_to_the_others_is_kept(clusters, kept):
    own = [-mutual_info_score(c, c) for c in clusters]
    found = seeds.disagreement(clusters, own)
    assert int(np.argmin(found)) == kept
    for i, value in enumerate(found):
        others = [mutual_info_score(clusters[i], c) for j, c in enumerate(clusters) if j != i]
        assert value == pytest.approx(-np.mean([-own[i], *others]), abs=1e-12)


def test_equal_clusters_have_mutual_information_log_k():
    assert seeds.disagreement([LABELS, (LABELS + 1) % 3, LABELS], [-np.log(3)] * 3) == pytest.approx([-np.log(3)] * 3)


@pytest.mark.parametrize(
    "consensus, count", [(True, 3), (True, 2), (True, 1), (False, 3)], ids=["three", "two", "alone", "no consensus"]
)
def test_which_criterion_selects_the_seed(consensus, count):
    clusters, own = [ONE_ERROR, LABELS, TWO_ERRORS][:count], [-1.0, -0.5, -2.0][:count]
    method = Method(None, (), None, None, criterion=lambda k, v, infer: v, consensus=consensus)
    variables = jnp.array(own if count > 1 else own[0])
    found = seeds.criteria(method, range(count), variables, None, lambda: clusters)
    assert found == (seeds.disagreement(clusters, own) if consensus and count > 1 else own)
