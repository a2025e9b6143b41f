"""Tests the phases after CC: their training rows and the rows that they draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clustering_jax.data.images.folder import synthetic
from clustering_jax.errors import UserError
from clustering_jax.methods.cc.refine import check_refine, refine_phases
from clustering_jax.settings.cc import CC
from clustering_jax.training.update import draw_partners

SIZE, K = 8, 3
IMAGES = synthetic(n=12, size=SIZE, num_clusters=K).features["image"]
BATCH = {"image": jnp.asarray(IMAGES), "image_partner": jnp.asarray(IMAGES[::-1].copy()), "index": jnp.arange(12)}
KEY = jax.random.key(0)


def forward(variables, images):
    """A linear softmax classifier whose only collection counts the passes."""
    logits = images.reshape(len(images), -1) @ variables["params"]["w"]
    return jax.nn.softmax(logits), {"passes": variables["passes"] + 1}


def embed(variables, batch):
    return jnp.asarray(batch["image"], jnp.float32).reshape(len(batch["image"]), -1)


def phases(**settings):
    return refine_phases(CC(**settings), forward, embed, SIZE, steps=2)


def start(scale=1.0):
    w = scale * np.random.default_rng(0).normal(size=(SIZE * SIZE * IMAGES.shape[-1], K)).astype(np.float32)
    return {"params": {"w": jnp.asarray(w)}, "passes": jnp.zeros(())}


def test_phases_have_the_order_of_the_setting():
    names = [phase.name for phase in phases(refine="selflabel, scan", scan_epochs=3, selflabel_epochs=5)]
    assert names == ["selflabel", "scan"]
    assert [phase.num_steps for phase in phases(refine="scan,selflabel", scan_epochs=3, selflabel_epochs=5)] == [6, 10]
    assert phases() == ()


def test_an_unknown_phase_is_named_with_the_nearest():
    with pytest.raises(UserError, match=r"'scann'.*scan"):
        check_refine(CC(refine="scann"))


@pytest.mark.long
def test_scan_draws_near_rows_and_passes_both_views():
    (phase,) = phases(refine="scan", scan_neighbours=4)
    targets = phase.targets(KEY, start(), lambda function, variables: np.asarray(function(variables, BATCH)))
    neighbours = targets[phase.partners]
    assert neighbours.shape == (12, 5) and (neighbours[:, 0] == np.arange(12)).all()
    value, (changed, terms) = phase.objectives[0].loss(start(), BATCH, KEY)
    assert changed["passes"] == 2
    np.testing.assert_allclose(value, terms["consistency"] + 5 * terms["imbalance"], rtol=1e-6)


@pytest.mark.parametrize(("scale", "confident"), [(0.0, 0.0), (100.0, 1.0)])
def test_selflabel_learns_only_from_confident_rows(scale, confident):
    (phase,) = phases(refine="selflabel")
    (value, (_, terms)), gradient = jax.value_and_grad(
        lambda variables: phase.objectives[0].loss(variables, BATCH, KEY), has_aux=True
    )(start(scale))
    assert abs(terms["confident"] - confident) < 0.2
    assert (value > 0) == np.asarray(gradient["params"]["w"]).any() == (confident > 0)


def test_partners_depend_only_on_the_row_number():
    data = {"image": jnp.arange(10.0)}
    partners = jnp.asarray(np.random.default_rng(0).integers(0, 10, (10, 4)))
    whole = draw_partners(data, partners, jnp.arange(10), KEY)["image_partner"]
    part = draw_partners(data, partners[3:5], jnp.arange(3, 5), KEY)["image_partner"]
    np.testing.assert_array_equal(whole[3:5], part)
    assert all(whole[i] in partners[i] for i in range(10))
    other = draw_partners(data, partners, jnp.arange(10), jax.random.key(1))["image_partner"]
    assert (np.asarray(whole) != np.asarray(other)).any()
