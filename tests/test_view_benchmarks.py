"""The benchmarks of views: masks with an exact share of missing entries, and settings of the published configs."""

import numpy as np
import pytest

from benchmarks.missing_views import mask_of
from benchmarks.views_later import METHODS, PUBLISHED, SETS, config_of


@pytest.mark.parametrize(
    ("n", "views", "rate", "missing"), [(50, 2, 0.1, 10), (50, 2, 0.5, 50), (21, 5, 0.7, 74), (9, 3, 0.0, 0)]
)
def test_an_exact_share_of_entries_is_missing_and_each_row_keeps_a_view(n, views, rate, missing):
    mask = mask_of(n, views, rate, 0)
    assert mask.shape == (n, views) and (~mask).sum() == missing and mask.any(1).all()
    assert np.array_equal(mask, mask_of(n, views, rate, 0))
    assert missing == 0 or not np.array_equal(mask, mask_of(n, views, rate, 1))


def test_all_entries_are_missing_equally_often():
    share = np.mean([mask_of(6, 3, 0.5, seed) for seed in range(400)], axis=0)
    assert abs(share - 0.5).max() < 0.1


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("method", METHODS)
def test_the_settings_are_those_of_the_config_and_a_trial_is_shorter(method, name):
    whole, short = (config_of(method, name, "DIR", 3, epochs) for epochs in (0, 2))
    assert (name, method) in PUBLISHED and whole["seed"] == short["seed"] == 3 and short["epochs"] == 2
    assert whole["method"] == ("cmmc" if method == "bdcl" else "scmvc") and whole["epochs"] >= 10
    assert whole["data"]["path"] == f"DIR/{SETS[name][0]}.npz" and whole["data"]["label_key"] == "y"
    lengths = [config["model"]["reconstruction_epochs"] for config in (whole, short)]
    assert lengths[0] in (0, 200) and lengths[1] == min(lengths[0], 2)
