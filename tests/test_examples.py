"""The examples in the docstrings of the losses, of k-means and of the estimators."""

import doctest

import pytest

from clustering_jax import estimators, losses
from clustering_jax.kmeans import assign, kmeans

FUNCTIONS = [*(getattr(losses, name) for name in losses.__all__), kmeans, assign]
ESTIMATORS = [pytest.param(getattr(estimators, name), marks=pytest.mark.long) for name in estimators.__all__]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:only", "ignore:batch size")
@pytest.mark.parametrize("documented", [*FUNCTIONS, *ESTIMATORS], ids=lambda documented: documented.__name__)
def test_examples(documented):
    (examples,) = doctest.DocTestFinder(recurse=False).find(documented, documented.__name__)
    assert examples.examples, "the docstring has no example"
    report: list[str] = []
    assert doctest.DocTestRunner().run(examples, out=report.append).failed == 0, "".join(report)
