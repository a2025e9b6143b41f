"""Tests the outputs of released models (fixtures/make_cmmc_fixture.py), and which models are refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from clustering_jax import run
from clustering_jax.errors import UserError
from clustering_jax.inference.predictor import Predictor
from clustering_jax.methods.cmmc.method import Network
from clustering_jax.methods.cmmc.weights import load_cmmc, torch_name
from clustering_jax.settings import cmmc
from clustering_jax.weights.torch_file import read_torch
from tests.paths import FIXTURES

FILE, WIDTHS = FIXTURES / "cmmc.pth", (6, 5, 4)


def network(clusters=4, hidden=(7, 8)):
    return Network(clusters, hidden, 6, 5, jnp.float32)


@functools.cache
def template(net, widths=WIDTHS):
    batch = {f"view{v}": jnp.zeros((2, d)) for v, d in enumerate(widths)}
    return jax.eval_shape(lambda: net.init(jax.random.key(0), batch, decode=True))


@pytest.mark.long
def test_loaded_network_computes_what_torch_computed():
    expected = np.load(FIXTURES / "cmmc_outputs.npz")
    batch = {f"view{v}": expected[f"view{v}"] for v in range(3)}
    outputs = network().apply(load_cmmc(FILE, template(network())), batch, decode=True)
    for name in ("h", "q", "x"):
        for v, value in enumerate(getattr(outputs, name)):
            np.testing.assert_allclose(value, expected[f"{name}{v}"], rtol=1e-5, atol=1e-6)


def test_names_equal_those_of_the_authors():
    ours = [torch_name(path) for path in flatten_dict(template(network()))]
    assert sorted(ours) == sorted(read_torch(FILE))
    assert {
        "encoders.0.encoder.0.weight",
        "decoders.2.decoder.4.bias",
        "feature_contrastive_module.0.weight",
        "label_contrastive_module.0.bias",
    } < set(ours)


@pytest.mark.parametrize(
    "net, widths, message",
    [
        (network(7), WIDTHS, r"label_contrastive_module.0.weight is \[4, 6\], the config expects 7 clusters"),
        (network(), WIDTHS[:2], r"12 tensors left over \(decoders.2.decoder.0.bias"),
        (network(), (*WIDTHS, 3), r"12 tensors missing \(decoders.3.decoder.0.bias"),
        (network(), (6, 5, 9), r"decoders.2.decoder.4.weight is \[4, 7\], the network expects \[9, 7\]"),
        (network(hidden=(7,)), WIDTHS, "12 tensors left over"),
    ],
    ids=["clusters", "fewer views", "more views", "another width", "fewer layers"],
)
def test_other_networks_are_refused(net, widths, message):
    with pytest.raises(UserError, match=message) as caught:
        load_cmmc(FILE, template(net, widths))
    assert "\n" not in str(caught.value) and str(FILE) in str(caught.value)


@pytest.mark.filterwarnings("ignore:only")
@pytest.mark.long
def test_only_released_weights_are_scored(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "views.npz", **{f"view{v}": rng.random((24, d)) for v, d in enumerate(WIDTHS)})
    settings = cmmc(
        num_clusters=4,
        epochs=0,
        init_from=str(FILE),
        data={"source": "multiview", "path": str(tmp_path / "views.npz")},
        model={
            "hidden": (7, 8),
            "latent_dim": 6,
            "feature_dim": 5,
            "reconstruction_epochs": 0,
            "matching_steps": 0,
        },
    )
    run.train(settings.to_dict(), tmp_path / "run")
    loaded = load_cmmc(FILE, template(network()))
    jax.tree.map(np.testing.assert_array_equal, Predictor.restore(tmp_path / "run").variables, loaded)
