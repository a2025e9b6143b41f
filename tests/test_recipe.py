"""The recipe "auto": it keeps a candidate that the views predict, predicts new rows by it, and resumes."""

import csv
import runpy
import warnings

import numpy as np
import pytest

from clustering_jax import recipe, report
from clustering_jax.errors import UserError
from clustering_jax.files import read_json
from clustering_jax.inference import results
from clustering_jax.inference.new_rows import lines
from clustering_jax.inference.predictor import Predictor
from clustering_jax.settings import config_files, views
from clustering_jax.training.signals import Interrupted

K, N = 4, 90


def write_views(path):
    """Two views of four blobs each, and one of noise with a large scale."""
    rng = np.random.default_rng(0)
    labels = np.arange(N) % K
    blobs = [rng.normal(size=(K, width))[labels] * 3 + rng.normal(size=(N, width)) for width in (6, 9)]
    np.savez(path, view0=blobs[0], view1=50 * blobs[1] + 7, view2=rng.normal(size=(N, 5)), y=labels)
    return path


def config_of(path, **changes):
    config = views(num_clusters=K, **changes).to_dict()
    config["data"] |= {"path": str(path), "label_key": "y"}
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    config = config_of(write_views(folder / "views.npz"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "TURTLE_STEPS", 20)
        return folder, config, recipe.train(config, folder / "run", quiet=True)


def assignments(workdir):
    with (workdir / "assignments.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.long
def test_the_candidate_that_the_views_predict_best_is_kept(finished):
    folder, _, result = finished
    rows = result["candidates"]
    best = rows[recipe.kept(rows)]
    assert best["name"] == result["kept"] and best["acc"] == result["scores"]["acc"] > 0.95
    plain = [row["name"] for row in rows]
    assert plain[:2] == [*recipe.PLAIN] and {"TURTLE", "spectral, minmax"} < {*plain}
    assert result == read_json(folder / "run" / "result.json")
    assert not (folder / "run" / "candidates").exists()


@pytest.mark.long
def test_new_rows_are_assigned_by_the_kept_candidate(finished):
    folder, _, _ = finished
    rows = list(
        csv.DictReader("".join(lines(Predictor.restore(folder / "run"), folder / "views.npz", 16)).splitlines())
    )
    of_run = assignments(folder / "run")
    assert rows == [{name: row[name] for name in rows[0]} for row in of_run] and "second" in rows[0]


@pytest.mark.long
def test_the_report_is_of_the_kept_candidate(finished):
    before = (finished[0] / "run" / "report.html").read_text()
    report.write(finished[0] / "run")
    assert (finished[0] / "run" / "report.html").read_text() == before
    assert "the data has" not in before


@pytest.mark.long
def test_a_finished_run_stays(finished, capsys):
    folder, config, result = finished
    assert recipe.train(config, folder / "run") == result and "is finished" in capsys.readouterr().out


@pytest.mark.long
def test_a_run_that_is_cut_ends_as_the_whole_one(finished, tmp_path, monkeypatch):
    _, config, result = finished
    monkeypatch.setattr(recipe, "TURTLE_STEPS", 20)
    train, count = recipe.run.train, []

    def cut(*arguments, **options):
        if len(count) == 3:
            raise Interrupted("stopped by a signal")
        count.append(0)
        return train(*arguments, **options)

    monkeypatch.setattr(recipe.run, "train", cut)
    with pytest.raises(Interrupted):
        recipe.train(config, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "result.json").exists()
    monkeypatch.setattr(recipe.run, "train", train)
    again = recipe.train(config, tmp_path / "run", quiet=True, reported=False)
    assert again["candidates"] == result["candidates"]
    assert assignments(tmp_path / "run") == assignments(finished[0] / "run")


def test_candidates_by_the_number_of_rows():
    config = config_of("views.npz")
    few, many = (recipe.candidates(config, n, 3) for n in (recipe.FEW_ROWS, recipe.FEW_ROWS + 1))
    assert [*many] == [*few, "CMMC, settled", "CMMC"] and "k-means, view 2 alone" in few
    assert many["CMMC, settled"]["model"] == {**config["model"], **recipe.SETTLED}
    assert many["CMMC"] == {**config, "recipe": "published"}
    assert [*recipe.candidates({**config, "recipe": "quick"}, recipe.FEW_ROWS + 1, 3)] == [*few]
    most = recipe.candidates(config, recipe.MANY_ROWS + 1, 3)
    assert {*many} - {*most} == {"spectral, minmax", "spectral, standard"}
    single = recipe.candidates(config, recipe.FEW_ROWS + 1, 1)
    assert "CMMC, settled" not in single and not any("alone" in name for name in single)


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        ({}, None),
        ({"balanced": True, "reject": 0.9, "seed": 3}, None),
        ({"epochs": 7, "model": {"latent_dim": 8}}, "no CMMC here, so epochs, model.latent_dim change nothing"),
        ({"method": "mine.py:build"}, "so method change nothing"),
    ],
)
def test_settings_of_a_method_that_is_not_trained_are_named(changes, warned):
    config = views(num_clusters=K).to_dict()
    config |= {**changes, "model": config["model"] | changes.get("model", {})}
    few, many = (recipe.candidates(config, n, 2) for n in (recipe.FEW_ROWS, recipe.FEW_ROWS + 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recipe.warn_of_unused(config, many)
        if warned is None:
            recipe.warn_of_unused(config, few)
    if warned:
        with pytest.warns(UserWarning, match=warned):
            recipe.warn_of_unused(config, few)


@pytest.mark.parametrize("name", ["views", "cmmc_arrays", "dmim_arrays"])
def test_a_config_file_has_no_settings_without_effect(name):
    config = runpy.run_path(str(config_files.directory() / f"{name}.py"))["get_config"]().to_dict()
    assert config["recipe"] == "auto"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recipe.warn_of_unused(config, recipe.candidates(config, recipe.FEW_ROWS, 2))


@pytest.mark.long
def test_rejected_rows_and_balanced_sizes_change_no_choice(finished, tmp_path, monkeypatch):
    _, config, result = finished
    monkeypatch.setattr(recipe, "TURTLE_STEPS", 20)
    train = recipe.run.train

    def warns(*arguments, **options):
        results.warn_of_empty_clusters(K)
        return train(*arguments, **options)

    monkeypatch.setattr(recipe.run, "train", warns)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = recipe.train({**config, "reject": 0.9, "balanced": True}, tmp_path / "run", quiet=True, reported=False)
    texts = [str(w.message) for w in caught]
    assert not any("are empty" in text for text in texts), "of candidates that are not kept"
    unreachable = found["rejection"]["expected"] < 0.9
    assert sum("reject is 0.9" in text for text in texts) == unreachable
    assert found["kept"] == result["kept"]
    for name in ("agreement", "agreement_std"):
        np.testing.assert_allclose(*([row[name] for row in r["candidates"]] for r in (found, result)), rtol=1e-6)
    assert (found["scores"]["smallest"], found["scores"]["largest"]) == (N // K, -(-N // K))
    assert found["rejection"]["share"] == 0.9


@pytest.mark.parametrize(
    ("agreements", "std", "name"),
    [
        ((0.5, 0.4, 0.505), 0.0, "k-means, minmax"),
        ((0.4, 0.5, 0.505), 0.0, "k-means, standard"),
        ((0.5, 0.4, 0.52), 0.0, "spectral, minmax"),
        ((0.5, 0.4, 0.52), 0.03, "k-means, minmax"),
        ((0.5, 0.6, 0.55), 0.0, "k-means, standard"),
    ],
)
def test_plain_k_means_is_kept_unless_another_one_leads_clearly(agreements, std, name):
    names = (*recipe.PLAIN, "spectral, minmax")
    assert names[recipe.kept(judged(agreements, std))] == name


def judged(agreements, std=0.0):
    """Two candidates of plain k-means, one of spectral clustering, and then networks."""
    names = (*recipe.PLAIN, "spectral, minmax", "CMMC", "DMIM")
    methods = ("kmeans", "kmeans", "spectral", "cmmc", "dmim")
    keys = ("name", "method", "agreement", "agreement_std")
    return [dict(zip(keys, (*row, std), strict=True)) for row in zip(names, methods, agreements, strict=False)]


@pytest.mark.parametrize(
    ("agreements", "best"),
    [
        ((0.4, 0.3, 0.39, 0.44), 0),
        ((0.4, 0.3, 0.39, 0.46), 3),
        ((0.4, 0.3, 0.45, 0.49), 2),
        ((0.4, 0.3, 0.45, 0.49, 0.51), 4),
        ((0.4, 0.3, 0.45, 0.52, 0.51), 3),
    ],
)
def test_a_network_has_to_lead_by_more(agreements, best):
    assert recipe.kept(judged(agreements)) == best


@pytest.mark.parametrize(
    ("other", "sentence"), [(0.5, True), (0.505, True), (0.6, False)], ids=["k-means", "no lead", "a lead"]
)
def test_the_table_says_where_k_means_does_as_well(other, sentence):
    common = {"agreement_std": 0.0, "occupied": 4}
    found = (("k-means, minmax", "kmeans", 0.5), ("TURTLE", "turtle", other))
    rows = [{"name": name, "method": method, "agreement": a, **common} for name, method, a in found]
    text = recipe.table(rows, recipe.kept(rows))
    assert ("k-means does as well" in text) == sentence and text.count("kept") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": "best"}, "recipe is 'best': choose auto, quick or published"),
        ({"data": {"source": "planted_embeddings", "n": 40}}, "recipe 'auto' is for views"),
    ],
)
def test_refusals(changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        recipe.train({**config_of("none.npz"), **changes}, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_above_a_number_of_rows_networks_are_trained_too(tmp_path, monkeypatch):
    small = {"hidden": (8,), "latent_dim": 4, "feature_dim": 4, "reconstruction_epochs": 2, "matching_steps": 2}
    monkeypatch.setattr(recipe, "FEW_ROWS", 10)
    monkeypatch.setattr(recipe, "TURTLE_STEPS", 2)
    monkeypatch.setattr(recipe, "SETTLED", {**recipe.SETTLED, **small, "minimum_steps": 3})
    monkeypatch.setattr(recipe, "kept", lambda rows: [row["name"] for row in rows].index("CMMC, settled"))
    config = config_of(write_views(tmp_path / "views.npz"), epochs=2, model=small)
    result = recipe.train(config, tmp_path / "run", quiet=True, reported=False)
    assert [row["name"] for row in result["candidates"]][-2:] == ["CMMC, settled", "CMMC"]
    text = "".join(lines(Predictor.restore(tmp_path / "run"), tmp_path / "views.npz", 16))
    predicted = [row["cluster"] for row in csv.DictReader(text.splitlines())]
    assert predicted == [row["cluster"] for row in assignments(tmp_path / "run")]
