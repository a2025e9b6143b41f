"""New rows for a fitted estimator."""

import numpy as np
import pytest

from clustering_jax.errors import UserError
from tests.estimators.small import MULTIVIEW, TURTLE, VIEWS, three

pytestmark = pytest.mark.filterwarnings("ignore:only", "ignore:batch size", "ignore:the batch", "ignore:some of")


@pytest.mark.long
def test_new_rows_come_behind_the_old_ones_and_are_scaled_as_those():
    """Without training the clusters are those of `predict`. The new rows are far outside the range of the old ones."""
    old, new = [view[:30] for view in VIEWS], [3 * view[30:] for view in VIEWS]
    new[0][:4] = np.nan
    model = three(MULTIVIEW, epochs=2, missing="nan", scaling="minmax").fit(old)
    wanted = np.concatenate([model.labels_, model.predict(new)])
    assert model.update(old, new, steps=0) is model
    np.testing.assert_array_equal(model.labels_, wanted)
    assert model.ids_ == [str(row) for row in range(len(VIEWS[0]))]
    assert model.result_["updates"][0]["rows"] == {"old": 30, "new": 17}
    both = [np.concatenate(pair) for pair in zip(old, new, strict=True)]
    first = int(model.labels_[0])
    model.edit(both, rename={first: "a"})
    np.testing.assert_array_equal(model.labels_, wanted)
    model.update(both, old, steps=2)
    assert len(model.labels_) == len(model.probabilities_) == 77 and len(model.predict(new)) == 17


@pytest.mark.long
def test_files_are_for_the_command():
    model = three(TURTLE, epochs=1).fit(VIEWS)
    with pytest.raises(UserError, match="use the command clustering-jax update"):
        model.update(VIEWS, "more.npz")
    with pytest.raises(UserError, match="columns"):
        model.update(VIEWS, [view[:, :2] for view in VIEWS])
