"""Runs scikit-learn's own checks."""

import pytest
from sklearn.utils import estimator_checks, get_tags

from clustering_jax.estimators import ContrastiveClustering, FeatureClustering, SemanticClustering
from tests.estimators.small import CROSSMODAL, MULTIVIEW, SEMANTIC, TEMI, TURTLE

pytestmark = pytest.mark.filterwarnings("ignore")

ESTIMATORS = (MULTIVIEW, CROSSMODAL, SEMANTIC, TURTLE, TEMI)
ONE = "n_clusters=1, which is refused: the methods contrast clusters"
# Failures for which scikit-learn has no tag.
ONE_CLUSTER = {
    "check_dont_overwrite_parameters": ONE,
    "check_fit2d_predict1d": ONE,
    "check_methods_subset_invariance": ONE,
}
ZEROS = {"check_estimators_dtypes": "a row of zeros, which is refused: it has no direction"}
# The other checks fit an estimator, and take minutes in total.
QUICK = {
    "check_complex_data",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_sparse_array",
    "check_estimators_empty_data_messages",
    "check_estimators_pickle",
    "check_estimators_unfitted",
    "check_fit1d",
    "check_fit2d_1feature",
    "check_fit2d_1sample",
    "check_get_params_invariance",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_valid_tag_types",
}


def unfit(estimator):
    return {**ONE_CLUSTER, **(ZEROS if isinstance(estimator, SemanticClustering | FeatureClustering) else {})}


def cases():
    """Every check. Checks that fit are marked slow, and listed checks must fail."""
    for estimator in ESTIMATORS:
        seen = set()
        for _, check in estimator_checks.estimator_checks_generator(estimator, mark=None):
            name = getattr(check, "func", check).__name__
            quick = name in QUICK and name not in seen
            reason = unfit(estimator).get(name)
            marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
            marks += [] if quick else [pytest.mark.slow]
            seen.add(name)
            yield pytest.param(estimator, check, marks=marks, id=f"{type(estimator).__name__}-{name}")


@pytest.mark.parametrize(("estimator", "check"), list(cases()))
@pytest.mark.long
def test_check_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ONE_CLUSTER))
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_checks_that_use_one_cluster_pass_with_two(estimator, name):
    class AtLeastTwo(type(estimator)):
        def _config(self):
            config = super()._config()
            return {**config, "num_clusters": max(2, config["num_clusters"])}

    getattr(estimator_checks, name)("AtLeastTwo", AtLeastTwo(**estimator.get_params()))


def test_images_are_tagged():
    assert not get_tags(ContrastiveClustering()).input_tags.two_d_array
