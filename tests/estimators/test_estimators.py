"""Compares the estimators with runs of the command line, and tests their files and their use in scikit-learn."""

import json
import pickle
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from clustering_jax import run
from clustering_jax.errors import UserError
from clustering_jax.estimators import MultiViewClustering, SemanticClustering
from clustering_jax.inference.new_rows import lines
from clustering_jax.inference.predictor import Predictor
from clustering_jax.settings import EMBEDDINGS, dxmc
from tests.estimators.small import (
    BOTH,
    CC,
    CROSSMODAL,
    FOUND,
    IMAGES,
    MULTIVIEW,
    ROWS,
    SEMANTIC,
    VIEWS,
    WORD_SETTINGS,
    WORDS_OF,
    K,
    N,
    three,
)
from tests.inference.test_embedding import MODEL, NOUNS
from tests.test_run import ROOT

pytestmark = pytest.mark.filterwarnings("ignore:only", "ignore:batch size", "ignore:the batch")


@pytest.fixture(scope="module")
def views():
    return three(MULTIVIEW).fit(VIEWS)


@pytest.fixture(scope="module")
def words():
    return three(SEMANTIC, nouns=WORDS_OF.embeddings, noun_words=WORDS_OF.words).fit(
        ROWS, np.array(list("abc"))[FOUND.labels]
    )


@pytest.fixture(scope="module")
def images():
    return clone(CC).fit(IMAGES.features["image"])


FITTED = [
    ("views", VIEWS),
    ("words", ROWS),
    pytest.param("images", IMAGES.features["image"], marks=pytest.mark.slow),
]


@pytest.mark.long
def test_import_starts_no_backend():
    code = """
import sys, clustering_jax
assert not {"jax", "sklearn"} & set(sys.modules)
import clustering_jax.estimators
from jax._src import xla_bridge
print([m for m in ("tensorflow", "torch", "matplotlib") if m in sys.modules], xla_bridge.backends_are_initialized())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "False"]


@pytest.mark.parametrize(("name", "X"), FITTED)
@pytest.mark.long
def test_attributes_and_predictions_of_a_fitted_estimator(name, X, request):
    estimator = request.getfixturevalue(name)
    q = estimator.predict_proba(X)
    assert q.shape == (len(estimator.labels_), estimator.n_clusters_)
    np.testing.assert_allclose(q.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(estimator.predict(X), estimator.labels_)
    np.testing.assert_allclose(q.max(1), estimator.probabilities_, atol=1e-6)
    assert estimator.transform(X).shape == (len(q), len(estimator.get_feature_names_out()))
    assert estimator.n_iter_ == estimator.history_[-1]["step"] > 0
    assert -1 <= estimator.score(X) <= 1 and estimator.score(X, np.arange(len(q))) == estimator.score(X)


@pytest.mark.parametrize(("name", "X"), FITTED)
@pytest.mark.long
def test_pickle_and_save_keep_the_predictions(name, X, request, tmp_path, capfd, caplog):
    estimator = request.getfixturevalue(name)
    estimator.save(tmp_path / "saved")
    expected = estimator.predict_proba(X)
    for other in (pickle.loads(pickle.dumps(estimator)), type(estimator).load(tmp_path / "saved")):
        np.testing.assert_allclose(other.predict_proba(X), expected, atol=1e-6)
        assert other.history_ == estimator.history_ and other.ids_ == estimator.ids_
        assert getattr(other, "n_features_in_", 0) == getattr(estimator, "n_features_in_", 0)
    assert capfd.readouterr() == ("", "") and not caplog.records
    # A parameter that JSON can't represent has its default again.
    kept = {k: v for k, v in estimator.get_params().items() if k not in ("nouns", "settings")}
    assert {k: v for k, v in other.get_params().items() if k in kept} == kept
    assert json.loads(json.dumps(other.settings)) == json.loads(json.dumps(estimator.settings))
    with pytest.raises(UserError, match="save to a new directory"):
        estimator.save(tmp_path / "saved")


@pytest.mark.long
def test_the_predict_command_reads_a_saved_estimator(words, tmp_path):
    words.save(tmp_path / "saved")
    np.savez(tmp_path / "new.npz", image=ROWS[:7])
    text = "".join(lines(Predictor.restore(tmp_path / "saved"), tmp_path / "new.npz", 8))
    rows = [line.split(",") for line in text.splitlines()[1:]]
    assert [int(row[1]) for row in rows] == words.labels_[:7].tolist()
    assert words.cluster_names_[words.labels_[0]][0] in rows[0][3]


@pytest.mark.long
def test_fit_equals_the_run_of_the_command_line(words, tmp_path):
    np.savez(tmp_path / "x.npz", image=ROWS, nouns=WORDS_OF.embeddings, noun_words=WORDS_OF.words, y=FOUND.labels)
    config = dxmc(
        num_clusters=K,
        epochs=60,
        batch_size=N,
        data={**EMBEDDINGS, "split": "all", "path": str(tmp_path / "x.npz"), "label_key": "y"},
        model={
            name.removeprefix("model."): value for name, value in WORD_SETTINGS.items() if name.startswith("model.")
        },
    )
    result = run.train(config.to_dict(), tmp_path / "run", quiet=True)
    assert result["scores"] == words.result_["scores"] and result["scores"]["acc"] > 0.9
    loaded = SemanticClustering.load(tmp_path / "run")
    np.testing.assert_array_equal(loaded.labels_, words.labels_)
    assert loaded.n_clusters == K and loaded.cluster_names_ == words.cluster_names_
    with pytest.raises(UserError, match="holds a run of dxmc"):
        MultiViewClustering.load(tmp_path / "run")


@pytest.mark.long
def test_cluster_names_come_from_one_class(words):
    for names in words.cluster_names_:
        assert len({name.split("_")[0] for name in names[:2]}) == 1


@pytest.mark.long
@pytest.mark.parametrize(
    "X",
    [
        {"a": VIEWS[0], "b": VIEWS[1]},
        tuple(jnp.asarray(view) for view in VIEWS),
        BOTH,
        BOTH.tolist(),
        "path",
    ],
    ids=["dictionary", "jax", "array", "rows", "path"],
)
def test_every_form_of_views_gives_the_same_predictions(views, X, tmp_path):
    if isinstance(X, str):
        X = tmp_path / "views.npz"
        np.savez(X, view0=VIEWS[0], view1=VIEWS[1])
    np.testing.assert_array_equal(views.predict(X), views.labels_)
    estimator = three(MULTIVIEW, view_widths=(6, 6))
    found = estimator._dataset(X, estimator._config())
    for name, rows in three(MULTIVIEW)._dataset(VIEWS, estimator._config()).features.items():
        np.testing.assert_array_equal(found.features[name], rows)


@pytest.mark.slow
def test_files_and_one_array_give_the_same_fit(views, tmp_path):
    np.savez(tmp_path / "views.npz", view0=VIEWS[0], view1=VIEWS[1])
    for X in (tmp_path / "views.npz", BOTH):
        fitted = three(MULTIVIEW, view_widths=(6, 6)).fit(X)
        np.testing.assert_array_equal(fitted.labels_, views.labels_)


@pytest.mark.long
def test_views_may_be_missing(views):
    alone = views.predict_proba([None, VIEWS[1]])
    assert alone.shape == (N, K) and (alone.argmax(1) == views.labels_).mean() > 0.8
    gaps = [view.copy() for view in VIEWS]
    gaps[0][:5] = np.nan
    fitted = three(MULTIVIEW, missing="nan").fit(gaps)
    np.testing.assert_array_equal(fitted.predict(np.concatenate(gaps, axis=1)), fitted.labels_)
    with pytest.raises(UserError, match="row 0, column 0 is nan"):
        views.predict(gaps)


def test_one_array_is_split_into_halves_with_a_warning():
    with pytest.warns(UserWarning, match="its 12 columns are taken for two views"):
        assert clone(MULTIVIEW)._widths(12) == [6, 6]
    assert clone(MULTIVIEW).set_params(view_widths=3)._widths(8) == [3, 3, 2]


@pytest.mark.long
def test_labels_are_used_only_for_scores(words, capfd):
    without = three(SEMANTIC, nouns=WORDS_OF.embeddings, noun_words=WORDS_OF.words).fit(ROWS)
    np.testing.assert_array_equal(without.labels_, words.labels_)
    assert capfd.readouterr() == ("", "")  # because verbose is 0
    assert "acc" in words.result_["scores"] and "acc" not in without.result_["scores"]


@pytest.mark.long
def test_random_state(views):
    states = [0, np.random.RandomState(3), np.random.RandomState(3), None]
    seeds = [clone(MULTIVIEW).set_params(random_state=state)._config()["seed"] for state in states]
    assert seeds[0] == 0 and seeds[1] == seeds[2] and len({*seeds}) == 3


@pytest.mark.slow
def test_one_of_several_seeds_is_kept(tmp_path):
    estimator = three(CROSSMODAL, epochs=2, n_init=2).fit(VIEWS)
    estimator.save(tmp_path / "saved")
    assert [each["seed"] for each in estimator.result_["seeds"]["each"]] == [0, 1]
    np.testing.assert_array_equal(type(estimator).load(tmp_path / "saved").predict(VIEWS), estimator.labels_)


@pytest.mark.long
def test_a_workdir_is_kept_and_holds_one_run(tmp_path, capfd):
    estimator = three(CROSSMODAL, epochs=2, workdir=tmp_path / "run", verbose=1).fit(VIEWS)
    assert "clusters occupied" in capfd.readouterr().out
    written = (tmp_path / "run" / "result.json").stat().st_mtime_ns
    again = clone(estimator).fit(VIEWS)
    assert (tmp_path / "run" / "result.json").stat().st_mtime_ns == written
    np.testing.assert_array_equal(again.labels_, estimator.labels_)
    with pytest.raises(UserError, match=r"on other data, they differ in view0"):
        clone(estimator).fit([VIEWS[1], VIEWS[0]])
    shutil.rmtree(tmp_path / "run")
    np.testing.assert_array_equal(again.predict(VIEWS), estimator.labels_)


def test_without_a_workdir_signal_handlers_are_unchanged(monkeypatch):
    class Seen(Exception):
        pass

    def train(config, workdir, signals, **_):
        raise Seen(signals.caught, workdir.is_dir(), workdir)

    monkeypatch.setattr(run, "train", train)
    with pytest.raises(Seen) as error:
        three(MULTIVIEW).fit(VIEWS)
    caught, there, workdir = error.value.args
    assert (caught, there, workdir.exists()) == (False, True, False)


@pytest.mark.slow
def test_in_a_pipeline_and_a_grid_search_without_labels():
    grid = GridSearchCV(
        make_pipeline(StandardScaler(), three(SEMANTIC, epochs=20)),
        {"semanticclustering__n_clusters": [2, 3]},
        cv=[(np.arange(N), np.arange(N))],
    ).fit(ROWS)
    assert grid.best_params_ == {"semanticclustering__n_clusters": 3}
    assert grid.predict(ROWS).shape == (N,)


@pytest.mark.long
def test_score_of_a_single_cluster_is_minus_one(views, monkeypatch):
    monkeypatch.setattr(type(views), "predict_proba", lambda self, X: np.eye(3)[np.zeros(N, int)])
    assert views.score(VIEWS) == -1.0


@pytest.mark.long
def test_a_folder_of_photos(tmp_path):
    for i, image in enumerate(IMAGES.features["image"]):
        Image.fromarray(np.kron(image, np.ones((2, 2, 1), np.uint8))).save(tmp_path / f"{i}.png")
    fitted = clone(CC).fit(tmp_path)
    assert fitted.ids_[:2] == ["0.png", "1.png"]
    np.testing.assert_array_equal(fitted.predict(str(tmp_path)), fitted.labels_)
    arrays = np.stack([np.asarray(Image.open(tmp_path / name).resize((10, 10), 2)) for name in fitted.ids_])
    np.testing.assert_array_equal(fitted.predict(arrays), fitted.labels_)
    np.testing.assert_array_equal(fitted.predict(arrays / np.float32(255)), fitted.labels_)
    with pytest.raises(UserError, match="but the model was trained on"):
        fitted.predict(arrays[:, :9])


@pytest.mark.slow
def test_photos_by_clip(tmp_path):
    for i in range(12):
        Image.fromarray(np.full((30, 30, 3), 20 * i, np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "nouns.txt").write_text("\n".join(NOUNS))
    estimator = clone(SEMANTIC).set_params(clip=MODEL, nouns=tmp_path / "nouns.txt", epochs=1).fit(tmp_path)
    assert estimator.ids_[1] == "1.png" and {name for names in estimator.cluster_names_ for name in names} <= {*NOUNS}
    np.testing.assert_array_equal(estimator.predict(tmp_path), estimator.labels_)


@pytest.mark.long
def test_refuses_new_rows_of_another_kind(views, words):
    with pytest.raises(UserError, match="X has 3 views but the model was trained on 2; pass None for a missing view"):
        views.predict([*VIEWS, VIEWS[0]])
    with pytest.raises(ValueError, match="X has 7 features"):
        words.predict(ROWS[:, :7])
    with pytest.raises(UserError, match="y has shape"):
        three(SEMANTIC).fit(ROWS, [1, 2])
    for method in ("predict", "transform", "score", "predict_proba"):
        with pytest.raises(NotFittedError):
            getattr(clone(MULTIVIEW), method)(VIEWS)
    with pytest.raises(NotFittedError):
        clone(MULTIVIEW).save("nowhere")
