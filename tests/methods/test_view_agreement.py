"""The agreement of views with a clustering: high for shared structure, low for noise, few clusters or one view."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import normalized_mutual_info_score

from clustering_jax.methods.view_agreement import view_agreement

N, K = 120, 4
RNG = np.random.default_rng(0)
LABELS = RNG.permutation(N) % K
VIEWS = [3 * RNG.normal(size=(K, d))[LABELS] + RNG.normal(size=(N, d)) for d in (5, 8)]


def test_is_the_textbook_loop():
    order = np.random.default_rng(0).permutation(N)
    values = []
    for view in VIEWS:
        x = (view - view.mean(0)) / view.std(0)
        predicted = np.zeros(N, int)
        for number in range(5):
            test = order[number::5]
            train = np.setdiff1d(np.arange(N), test)
            predicted[test] = Ridge(alpha=x.shape[1]).fit(x[train], np.eye(K)[LABELS[train]]).predict(x[test]).argmax(1)
        values.append(normalized_mutual_info_score(LABELS, predicted))
    assert view_agreement(VIEWS, LABELS, K) == pytest.approx(np.mean(values), abs=0.02)


def test_what_is_shared_wins():
    truth, noise = view_agreement(VIEWS, LABELS, K), view_agreement(VIEWS, RNG.permutation(LABELS), K)
    assert truth > 0.9 and noise < 0.2
    assert view_agreement(VIEWS, LABELS // 2, K) > 0 and view_agreement(VIEWS, np.zeros(N, int), K) == 0


@pytest.mark.parametrize(
    "change",
    [lambda x: 7 * x + 3, lambda x: x @ np.linalg.qr(RNG.normal(size=(x.shape[1],) * 2))[0]],
    ids=["units", "rotation"],
)
def test_units_do_not_matter(change):
    found = view_agreement([change(view) for view in VIEWS], LABELS, K)
    assert found == pytest.approx(view_agreement(VIEWS, LABELS, K), abs=0.05)


def test_few_clusters_that_are_easy_to_predict_do_not_win():
    easy = view_agreement(VIEWS, LABELS // 2, 2)
    assert view_agreement(VIEWS, LABELS // 2, K) == pytest.approx(easy / 2) and easy > 0


def test_names_of_clusters_do_not_matter():
    assert view_agreement(VIEWS, 10 - LABELS, K) == pytest.approx(view_agreement(VIEWS, LABELS, K))


def test_rows_that_lack_a_view_do_not_count():
    mask = np.ones((N, 2), bool)
    mask[:30, 0] = False
    holes = [np.where(mask[:, [0]], VIEWS[0], 1e6), VIEWS[1]]
    assert view_agreement(holes, LABELS, K, mask) > 0.9 > view_agreement(holes, LABELS, K)


def test_wide_views_are_reduced():
    wide = np.concatenate([VIEWS[0], 1e-3 * RNG.normal(size=(N, 400))], 1)
    assert 0 <= view_agreement([wide], LABELS, K) <= 1
