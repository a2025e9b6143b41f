"""The estimators refuse invalid arguments with one-line errors."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone

from clustering_jax.errors import UserError
from tests.estimators.small import BOTH, CC, IMAGES, MULTIVIEW, ROWS, SEMANTIC, VIEWS


@pytest.mark.parametrize(
    ("estimator", "X", "message"),
    [
        (MULTIVIEW, [VIEWS[0], VIEWS[1][:5]], "has 47 rows, .* has 5"),
        (MULTIVIEW, VIEWS[:1], "a list of one view; if GridSearchCV .*: give np.concatenate"),
        (clone(MULTIVIEW).set_params(view_widths=(6, 7)), BOTH, "6, 7 columns don't make the 12"),
        (clone(MULTIVIEW).set_params(view_widths=1), BOTH, "view_widths is 1"),
        (clone(MULTIVIEW).set_params(settings={"model.hiden": 1}), VIEWS, "did you mean 'model.hidden'"),
        (clone(MULTIVIEW).set_params(epochs="many"), VIEWS, "epochs is 'many': str is not the type"),
        (clone(MULTIVIEW).set_params(n_clusters=1), VIEWS, "num_clusters is 1"),
        (clone(SEMANTIC).set_params(nouns=np.ones((3, 2))), ROWS, r"they must be \[m, 8\]"),
        (SEMANTIC, "nowhere.npz", "'nowhere.npz' does not exist"),
        (CC, IMAGES.features["image"].astype(int), "images must be uint8"),
        (CC, Path("nowhere"), "'nowhere' does not exist"),
        (MULTIVIEW, IMAGES.features["image"], "these are images, .*: use FeatureClustering"),
        (SEMANTIC, IMAGES.features["image"], "these are images, .*: use FeatureClustering"),
    ],
    ids=lambda value: None if isinstance(value, str) else "",
)
def test_refuses(estimator, X, message):
    with pytest.raises(UserError, match=message) as error:
        clone(estimator).fit(X)
    assert "\n" not in str(error.value)
