"""The examples in the docstrings of the losses and of k-means."""

import doctest

import pytest

from clustering_jax import losses
from clustering_jax.kmeans import assign, kmeans

FUNCTIONS = [*(getattr(losses, name) for name in losses.__all__), kmeans, assign]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_examples(function):
    (examples,) = doctest.DocTestFinder().find(function, function.__name__)
    assert examples.examples, "the docstring has no example"
    report: list[str] = []
    assert doctest.DocTestRunner().run(examples, out=report.append).failed == 0, "".join(report)
