"""Tests runs on embeddings: training and scoring on different splits, names, choice of the number, errors."""

import contextlib
import csv
import io
import json
import re
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clustering_jax import main, metrics, run
from clustering_jax.data.embeddings import embeddings
from clustering_jax.data.planted import planted_embeddings
from clustering_jax.errors import UserError
from clustering_jax.files import read_json
from clustering_jax.inference.predictor import Predictor
from clustering_jax.kmeans import kmeans, number_of_clusters
from clustering_jax.settings import cmmc, dxmc
from clustering_jax.training.signals import Interrupted
from tests.test_run import ROOT, call, checksums, start, wait_for_step
from tests.test_run import metrics as logged
from tests.training.test_loop import interrupt_at

N, K = 240, 4
SMALL = {"hidden": 64, "instance_dim": 16, "neighbours": 8, "center_restarts": 2}


def write(path, seed=0, labels=True, nouns=True):
    """Writes four classes. A third of the rows is for scoring; five of these rows have no label."""
    found = planted_embeddings(N, num_clusters=K, width=12, num_nouns=40, seed=seed)
    train = np.arange(N) % 3 > 0
    arrays = {"image": found.features["image"], "train": train}
    if nouns:
        arrays |= {"nouns": found.vocabulary.embeddings, "noun_words": found.vocabulary.words}
    if labels:
        known = found.labels.copy()
        known[np.flatnonzero(~train)[:5]] = -1
        arrays["y"] = known
    np.savez(path, **arrays)
    return path


def source(path, split, **options):
    return {"source": "embeddings", "path": str(path), "split": split, "train_key": "train", **options}


def config(path, labels=True, **changes):
    options = {"label_key": "y"} if labels else {}
    settings = {
        "num_clusters": K,
        "batch_size": 40,
        "epochs": 30,
        "data": source(path, "train", **options),
        "scored": source(path, "test", **options),
        "model": SMALL,
        "run": {"log_every": 20, "evaluate_every": 15, "checkpoint_every": 0},
    }
    return dxmc(**{**settings, **changes}).to_dict()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The file, the workdir, the result and the output of a complete run."""
    directory, printed = tmp_path_factory.mktemp("scored"), io.StringIO()
    path = write(directory / "emb.npz")
    with contextlib.redirect_stdout(printed):
        result = run.train(config(path), directory / "run")
    return path, directory / "run", result, printed.getvalue()


def rows_of(workdir):
    return list(csv.DictReader((workdir / "assignments.csv").open()))


# --- Trained on one split, scored on another


@pytest.mark.long
def test_the_protocol_names_both_splits(finished):
    _, workdir, result, out = finished
    assert result == read_json(workdir / "result.json")
    assert result["protocol"] == {
        "trained_on": "emb.npz, train: 160 examples",
        "scored_on": "emb.npz, test: 80 examples",
        "labels": "for scoring alone",
        "scored_at": "last epoch",
        "neighbours": "20 nearest of 75 of 80 rows, by cosine, leave one out",
    }
    assert "trained on emb.npz, train: 160 examples; scored on emb.npz, test: 80 examples;" in out


@pytest.mark.long
def test_the_scored_split_is_assigned_and_scored(finished):
    path, workdir, result, _ = finished
    scored = embeddings(path, split="test", train_key="train", label_key="y")
    found = Predictor.restore(workdir).predict_proba(scored.features)
    rows = rows_of(workdir)
    assert [row["id"] for row in rows] == [str(i) for i in range(N) if i % 3 == 0]
    assert [int(row["cluster"]) for row in rows] == found.argmax(1).tolist()
    np.testing.assert_allclose([float(row["probability"]) for row in rows], found.max(1), atol=1e-4)
    known = scored.labels >= 0
    assert known.sum() == 75
    expected = metrics.scores(scored.labels[known], found.argmax(1)[known])
    assert expected.items() <= result["scores"].items()
    sizes = np.bincount(found.argmax(1), minlength=K)
    assert (result["scores"]["smallest"], result["scores"]["largest"]) == (sizes.min(), sizes.max())


@pytest.mark.long
def test_evaluations_during_training_use_the_scored_split(finished):
    _, workdir, result, _ = finished
    lines = [line for line in logged(workdir) if "eval/acc" in line]
    assert [line["step"] for line in lines] == [60, 120]
    last = {name.removeprefix("eval/"): value for name, value in lines[-1].items() if name.startswith("eval/")}
    assert last == pytest.approx({name: result["scores"][name] for name in last}) and {"acc", "occupied"} <= set(last)


@pytest.mark.long
def test_every_file_and_the_table_have_the_names(finished):
    _, workdir, result, out = finished
    clusters, rows = json.loads((workdir / "clusters.json").read_text()), rows_of(workdir)
    counts = np.bincount([int(row["cluster"]) for row in rows], minlength=K).tolist()
    assert [(c["cluster"], c["size"], c["names"]) for c in clusters] == list(
        zip(range(K), counts, result["names"], strict=True)
    )
    assert all(0 < len(names) <= 5 for names in result["names"])
    assert {re.sub(r"_\d+", "", names[0]) for names in result["names"]} == {f"class{c}" for c in range(K)}
    assert all(row["names"] == "; ".join(result["names"][int(row["cluster"])]) for row in rows)
    assert all(f"cluster {i}: {', '.join(names)}" in out.splitlines() for i, names in enumerate(result["names"]))


@pytest.mark.long
def test_baselines_use_the_scored_rows_with_labels(finished):
    path, _, result, out = finished
    assert [b["name"] for b in result["baselines"]] == ["k-means on image", "k-means on [image; text]"]
    scored = embeddings(path, split="test", train_key="train", label_key="y")
    labels = kmeans(jax.random.key(0), jnp.asarray(scored.features["image"]), K, restarts=20, spherical=True).labels
    known = scored.labels >= 0
    expected = metrics.scores(scored.labels[known], np.asarray(labels)[known])
    assert result["baselines"][0] == {"name": "k-means on image", **expected}
    assert result["baselines"][1]["acc"] > 0.9
    assert all(any(line.startswith(b["name"]) for line in out.splitlines()) for b in result["baselines"])


# --- The number of clusters


@pytest.fixture(scope="module")
def automatic(tmp_path_factory):
    """A run of two seeds without labels that was interrupted once; its output, and the call that chose the number."""
    directory, printed, chosen, original = (
        tmp_path_factory.mktemp("auto"),
        io.StringIO(),
        [],
        number_of_clusters.num_clusters,
    )

    def counted(*args, **options):
        chosen.append(original(*args, **options))
        return chosen[-1]

    changes = {"num_clusters": 0, "cluster_range": (2, 7), "num_seeds": 2}
    settings = config(write(directory / "emb.npz", labels=False), labels=False, **changes)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(number_of_clusters, "num_clusters", counted)
        with pytest.MonkeyPatch.context() as cut:
            interrupt_at(50, cut)
            with pytest.raises(Interrupted):
                run.train(settings, directory / "run")
        result = run.train(settings, directory / "run")
    return directory / "run", settings, result, printed.getvalue(), chosen


@pytest.mark.long
def test_the_curve_is_saved_and_not_computed_again(automatic):
    workdir, _, _, out, chosen = automatic
    assert len(chosen) == 1 and read_json(workdir / "num_clusters.json") == chosen[0]
    assert chosen[0]["num_clusters"] == K and [k for k, _ in chosen[0]["curve"]] == list(range(2, 8))
    assert chosen[0]["criterion"] == "mean silhouette of k-means on 160 rows"
    assert out.count(number_of_clusters.summary_line(chosen[0])) == 2


@pytest.mark.long
def test_the_run_has_the_chosen_number_and_the_config_keeps_auto(automatic):
    workdir, _, result, _, _ = automatic
    assert json.loads((workdir / "config.json").read_text())["num_clusters"] == 0
    assert len(result["names"]) == K == len(json.loads((workdir / "clusters.json").read_text()))
    rows = rows_of(workdir)
    assert len(rows) == 80 and {int(row["cluster"]) for row in rows} <= set(range(K))
    assert Predictor.restore(workdir).predict_proba({"image": np.eye(1, 12, dtype=np.float32)}).shape == (1, K)


@pytest.mark.long
def test_without_labels_there_are_no_scores_that_need_them(automatic):
    _, _, result, out, _ = automatic
    assert result["baselines"] == [] and result["protocol"]["labels"] == "none" and "ACC" not in out
    assert "acc" not in result["scores"] and result["scores"]["occupied"] > 1
    assert [row["seed"] for row in result["seeds"]["each"]] == [0, 1] and "cluster 0: " in out


@pytest.mark.long
def test_another_range_in_the_same_workdir_is_refused(automatic):
    workdir, settings, *_ = automatic
    with pytest.raises(UserError, match=re.escape("cluster_range ([2, 7] there, [2, 6] now)")):
        run.train({**settings, "cluster_range": (2, 6)}, workdir)


@pytest.mark.parametrize("value, expected", [("auto", 0), ("0", 0), ("7", 7)])
def test_values_of_the_flag_num_clusters(value, expected):
    assert flags(value)[0]["num_clusters"] == expected


def test_a_misspelt_value_of_the_flag_num_clusters():
    with pytest.raises(UserError, match="num_clusters"):
        flags("atuo")


def flags(value):
    given = ["main", f"--config={ROOT}/configs/dxmc_embeddings.py", f"--config.num_clusters={value}", "--workdir=x"]
    return main.read_flags(given, "workdir", "")


@pytest.mark.slow
def test_auto_from_the_command_line(tmp_path):
    flags = ["--config=configs/dxmc_embeddings.py:smoke", "--config.num_clusters=auto", "--config.cluster_range=(2, 5)"]
    code, out, err = call("main", *flags, f"--workdir={tmp_path / 'run'}")
    assert code == 0, err
    assert re.search(r"num_clusters [2-5], chosen by mean silhouette of k-means on 20 rows \(2:\S+ 3:", out)
    assert "k-means on [image; text]" in out and (tmp_path / "run" / "num_clusters.json").is_file()


# --- Refusals


def without_nouns(path):
    return config(write(path, nouns=False))


def other_width(path):
    np.savez(path.with_name("other.npz"), image=np.ones((6, 5)), train=np.zeros(6, int), y=np.zeros(6, int))
    other = config(write(path))
    return {**other, "scored": {**other["scored"], "path": str(path.with_name("other.npz"))}}


def scored_views(path):
    np.savez(path, view0=np.random.default_rng(0).normal(size=(30, 4)), view1=np.eye(30))
    views = {"source": "multiview", "path": str(path), "scaling": "standard"}
    return cmmc(num_clusters=3, batch_size=10, data=views, scored=views).to_dict()


def changed(**changes):
    return lambda path: config(write(path), **changes)


REFUSED = {
    "too many clusters": (changed(num_clusters=161), "num_clusters is 161: .*between 2 and .* 160"),
    "one cluster": (changed(num_clusters=1), "num_clusters is 1: "),
    "too many centers": (changed(model={**SMALL, "centers": 161}), "model.centers is 161: .* 160"),
    "no nouns": (without_nouns, "'emb.npz' has no embeddings of nouns"),
    "no data": (changed(data={**source("", "train")}), "nothing to cluster: give --config.data.path"),
    "scored of another width": (other_width, r"scored has features .*5.* the training data .*12"),
    "scored is absent": (changed(scored=source("absent.npz", "test")), "absent.npz' does not exist"),
    "scored views": (scored_views, "scored supports images and embeddings only"),
    "range": (changed(num_clusters=0, cluster_range=(1, 5)), r"cluster_range is \(1, 5\)"),
    "range beyond": (changed(num_clusters=0, cluster_range=(2, 160)), r"cluster_range is \(2, 160\): .* < 160"),
    "range of three": (changed(num_clusters=0, cluster_range=(2, 3, 4)), r"cluster_range is \(2, 3, 4\)"),
    "range of fractions": (changed(num_clusters=0, cluster_range=(2.5, 4)), r"cluster_range is \(2.5, 4\)"),
    "auto with too many centers": (
        changed(num_clusters=0, cluster_range=(2, 3), model={**SMALL, "centers": 161}),
        "model.centers is 161",
    ),
    "no seeds": (changed(num_seeds=0), "num_seeds is 0"),
    "released weights": (changed(init_from="weights.tar"), "dxmc can't load released weights"),
    "auto for images": (
        changed(num_clusters=0, data={"source": "synthetic", "n": 40, "size": 4}, scored={}),
        "set a number for images",
    ),
    "method": (changed(model={**SMALL, "hiden": 3}), "no setting 'hiden' .*did you mean 'hidden'"),
}


@pytest.mark.parametrize("refused", REFUSED)
@pytest.mark.long
def test_refusals_are_one_line_and_write_nothing(tmp_path, refused):
    make, message = REFUSED[refused]
    settings = make(tmp_path / "emb.npz")
    with pytest.raises(UserError, match=message) as error:
        run.train(settings, tmp_path / "run")
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


@pytest.mark.long
def test_the_default_file_of_scored_rows_is_the_training_file(finished, tmp_path):
    settings = config(write(tmp_path / "emb.npz"), epochs=1)
    settings["scored"] = {**settings["scored"], "path": ""}
    result = run.train({**settings, "kmeans_baseline": True}, tmp_path / "run")
    assert result["protocol"]["scored_on"] == finished[2]["protocol"]["scored_on"]
    assert result["baselines"][0]["name"] == "k-means on embeddings" and len(result["baselines"]) == 3


@pytest.mark.long
def test_a_workdir_that_is_a_file(finished, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be written"):
        run.train(config(finished[0]), tmp_path / "file")


# --- Kills


@pytest.mark.slow
def test_kills_in_preparation_and_training_end_bitwise_equal(tmp_path):
    path = write(tmp_path / "emb.npz")
    flags = [
        "--config=configs/dxmc_embeddings.py",
        f"--config.data.path={path}",
        "--config.num_clusters=auto",
        "--config.cluster_range=(2, 6)",
        "--config.batch_size=40",
        "--config.epochs=40",
        "--config.run.log_every=1",
        "--config.run.checkpoint_every=1",
    ]
    code, _, err = call("main", *flags, f"--workdir={tmp_path / 'whole'}")
    assert code == 0, err
    workdir = tmp_path / "killed"
    for step in (0, 1, 90):
        process = start("main", *flags, f"--workdir={workdir}")
        if step:
            wait_for_step(workdir, step, process)
        else:
            wait_for_file(workdir / "prepared", process)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it was finished before"
    code, _, err = call("main", *flags, f"--workdir={workdir}")
    assert code == 0, err
    assert checksums(workdir) == checksums(tmp_path / "whole")
    for name in ("assignments.csv", "clusters.json", "num_clusters.json"):
        assert (workdir / name).read_text() == (tmp_path / "whole" / name).read_text()


def wait_for_file(directory, process):
    """Waits until a result of the preparation is stored or half-written."""
    until = time.monotonic() + 240
    while time.monotonic() < until and process.poll() is None and not (directory.is_dir() and any(directory.iterdir())):
        time.sleep(0.005)
