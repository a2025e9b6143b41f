"""Compares with values and gradients of the code of CC, CMMC and DMIM in `../shared`, at every batch size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clustering_jax.losses import (
    balanced_labels,
    cluster_contrast,
    imbalance,
    mutual_information,
    nt_xent,
    prior_kl,
)
from tests.losses.test_contrastive import assert_close
from tests.paths import SHARED

AUTHORS = SHARED / "fixtures" / "reference_losses.npz"
pytestmark = pytest.mark.skipif(not AUTHORS.is_file(), reason="../shared is absent: no values of the authors' code")


def clusters(p, q, temperature):
    return cluster_contrast(p, q, temperature=temperature) + imbalance(p) + imbalance(q)


LOSSES = {
    "cc_instance": nt_xent,
    "cc_cluster": clusters,
    "cmmc_feature": nt_xent,
    "cmmc_label": clusters,
    "dmim_mutual_information": lambda p, q: -mutual_information(p, q),
    "dmim_prior_kl": prior_kl,
}
ON_THE_SIMPLEX = ("cc_cluster", "cmmc_label", "dmim_mutual_information")


def authors(name, case):
    with np.load(AUTHORS) as file:
        return {key.split("/")[2]: file[key] for key in file.files if key.startswith(f"{name}/{case}/")}


@pytest.mark.parametrize("case", range(4))
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("x64, value_tolerance, gradient_tolerance", [(False, 1e-5, 1e-4), (True, 1e-9, 1e-9)])
def test_losses(name, case, x64, value_tolerance, gradient_tolerance):
    found = authors(name, case)
    options = {"temperature": found["temperature"]} if "temperature" in found else {}
    with jax.enable_x64(x64):
        arrays = [jnp.asarray(found[key]) for key in ("in0", "in1")]
        value, gradients = jax.jit(jax.value_and_grad(LOSSES[name], (0, 1)))(*arrays, **options)
    assert_close(value, found["value"], value_tolerance)
    for gradient, expected in zip(gradients, (found["grad0"], found["grad1"]), strict=True):
        if name in ON_THE_SIMPLEX:  # A gradient through softmax does not depend on a constant per row.
            gradient, expected = (x - x.mean(1, keepdims=True) for x in (np.asarray(gradient), expected))
        assert_close(gradient, expected, gradient_tolerance)


@pytest.mark.parametrize("case", range(4))
def test_balanced_labels(case):
    found = authors("dmim_balanced_labels", case)
    np.testing.assert_array_equal(jax.jit(balanced_labels)(jnp.asarray(found["in0"])), found["labels"])
