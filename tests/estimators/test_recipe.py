"""The recipe "auto" of the estimators of views: the same result as the command line, and when it is the default."""

import numpy as np
import pytest

from clustering_jax import recipe
from clustering_jax.data.planted import planted
from clustering_jax.estimators import CrossModalClustering, MultiViewClustering
from clustering_jax.settings import views as views_config

K = 3
FOUND = planted(47, num_clusters=K, width=6, private=0.0)
VIEWS = list(FOUND.features.values())
pytestmark = pytest.mark.filterwarnings("ignore:only", "ignore:batch size", "ignore:some of the")


@pytest.mark.parametrize("estimator", [MultiViewClustering, CrossModalClustering])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, "auto"),
        ({"scaling": "standard", "missing": "nan", "random_state": 3}, "auto"),
        ({"epochs": 5}, "published"),
        ({"n_init": 2}, "published"),
        ({"settings": {"model.hidden": (8,)}}, "published"),
        ({"learning_rate": 0.1, "recipe": "auto"}, "auto"),
        ({"recipe": "quick"}, "quick"),
        ({"recipe": "auto", "settings": {"recipe": "quick"}}, "quick"),
    ],
)
def test_the_recipe_of_the_arguments(estimator, arguments, expected):
    settings = {key: value for key, value in arguments.get("settings", {}).items() if key == "recipe"}
    arguments = {**arguments, "settings": settings} if settings else arguments
    if estimator is CrossModalClustering and "settings" in arguments and not settings:
        arguments = {"settings": {"model.power": 2.0}}
    assert estimator(K, **arguments)._config()["recipe"] == expected


@pytest.mark.parametrize(
    ("estimator", "arguments"),
    [(MultiViewClustering, {"reconstruction_epochs": 1}), (CrossModalClustering, {"robust": True})],
)
def test_an_argument_of_the_method_means_the_published_recipe(estimator, arguments):
    assert estimator(K, **arguments)._config()["recipe"] == "published"


@pytest.mark.long
def test_fit_is_the_run_of_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "TURTLE_STEPS", 20)
    found = MultiViewClustering(K, random_state=5).fit(VIEWS, FOUND.labels)
    np.savez(tmp_path / "views.npz", view0=VIEWS[0], view1=VIEWS[1], y=FOUND.labels)
    config = views_config(num_clusters=K, seed=5).to_dict()
    config["data"] |= {"path": str(tmp_path / "views.npz"), "label_key": "y"}
    by_hand = recipe.train(config, tmp_path / "run", quiet=True, reported=False)
    assert found.result_["kept"] == by_hand["kept"] and found.result_["candidates"] == by_hand["candidates"]
    assert found.n_clusters_ == K and found.result_["scores"]["acc"] > 0.9

    found.save(tmp_path / "saved")
    again = MultiViewClustering.load(tmp_path / "saved")
    np.testing.assert_array_equal(again.predict(VIEWS), found.labels_)
    assert (again.predict([None, VIEWS[1]]) == found.labels_).mean() > 0.8
    assert again.transform(VIEWS).shape == (47, 12)
