"""Compares the towers of CLIP with transformers and open_clip, and with loops over tokens."""

from __future__ import annotations

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clustering_jax.errors import UserError
from clustering_jax.nn.chunks import chunked
from clustering_jax.nn.vit.clip import CLIP, CONFIGS, ClipConfig, Tower, attend, end_positions, to_patches
from clustering_jax.nn.vit.clip_weights import load_clip
from clustering_jax.training.evaluate import make_infer
from tests.fixtures.make_clip_fixture import POOLED, ROWS, noise
from tests.paths import FIXTURES

STORED = np.load(FIXTURES / "clip_outputs.npz")
STRINGS = json.loads((FIXTURES / "clip_tokens.json").read_text())["strings"]
IMAGES = noise((3, 24, 24, 3))
load = functools.cache(lambda name: load_clip(FIXTURES / name))
TINY = ClipConfig(Tower(16, 2, 2, 24), Tower(8, 2, 2, 12), 6, 4, 8, 8, 10, 30)


@functools.cache
def tiny_params():
    ids = jnp.zeros((1, 10), int)
    return jax.jit(CLIP(TINY).init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3), jnp.uint8), ids)["params"]


def close(a, b, tolerance=1e-5):
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize(("directory", "library"), [("clip_hf", "hf"), ("clip_open", "open")])
@pytest.mark.long
def test_features_equal_those_of_the_library(directory, library):
    clip = load(directory)
    images = jax.jit(clip.image_features)(clip.params, IMAGES)
    texts = jax.jit(clip.text_features)(clip.params, clip.tokenize(STRINGS))
    assert images.dtype == texts.dtype == jnp.float32
    close(images, STORED[f"{library}/images"])
    close(texts, STORED[f"{library}/texts"])


@pytest.mark.parametrize("eos", POOLED)
def test_the_end_token_equals_hugging_face(eos):
    clip = load("clip_hf")
    model = CLIP(clip.config._replace(eos_token_id=eos))
    found = jax.jit(functools.partial(model.apply, method="text_features"))({"params": clip.params}, np.array(ROWS))
    close(found, STORED[f"hf/rows/{eos}"])


def test_end_positions():
    assert end_positions(jnp.array(ROWS), 2).tolist() == [2, 7, 2, 7]
    assert end_positions(jnp.array(ROWS), 7).tolist() == [3, 0, 4, 7]


# Number of parameters of OpenAI's models without the temperature, which features do not need.
@pytest.mark.parametrize(
    ("name", "count"), [("ViT-B/32", 151_277_312), ("ViT-B/16", 149_620_736), ("ViT-L/14", 427_616_512)]
)
def test_published_sizes(name, count):
    config = CONFIGS[name]
    images = jnp.zeros((1, config.image_size, config.image_size, 3), jnp.uint8)
    ids = jnp.zeros((1, config.context_length), int)
    shapes = jax.eval_shape(CLIP(config).init, jax.random.key(0), images, ids)
    assert sum(x.size for x in jax.tree.leaves(shapes)) == count


@pytest.mark.parametrize("causal", [False, True])
def test_attention_equals_the_textbook(causal):
    n, t, heads, d = 2, 5, 3, 4
    qkv = np.random.RandomState(0).standard_normal((n, t, 3 * heads * d)).astype(np.float32)
    q, k, v = qkv.astype(np.float64).reshape(n, t, 3, heads, d).transpose(2, 0, 1, 3, 4)
    wanted = np.zeros((n, t, heads, d))
    for i, h, a in np.ndindex(n, heads, t):
        seen = range(a + 1 if causal else t)
        weights = np.exp([q[i, a, h] @ k[i, b, h] / 2 for b in seen])
        wanted[i, a, h] = sum(w * v[i, b, h] for w, b in zip(weights, seen, strict=True)) / weights.sum()
    close(attend(jnp.array(qkv), heads, causal), wanted.reshape(n, t, heads * d))


def test_patches_are_in_row_order():
    images = noise((2, 6, 6, 3))
    wanted = [[x[r : r + 2, c : c + 2].ravel() for r in (0, 2, 4) for c in (0, 2, 4)] for x in images]
    np.testing.assert_array_equal(to_patches(jnp.array(images), 2), wanted)


@pytest.mark.long
def test_tokens_after_the_end_have_no_effect():
    features = jax.jit(functools.partial(CLIP(TINY).apply, method="text_features"))
    ids = np.array([[28, 3, 4, 29, 29, 29, 29, 29, 29, 29], [28, 3, 4, 29, 0, 5, 1, 29, 2, 2]])
    long, short = features({"params": tiny_params()}, ids), features({"params": tiny_params()}, ids[:1, :4])
    close(long, np.repeat(short, 2, 0))


def test_rows_do_not_depend_on_their_batch():
    """An image has the same features in other batches and on several devices."""
    clip = load("clip_hf")
    infer = make_infer(lambda params, batch: clip.image_features(params, batch["image"]), 16)
    found = infer(clip.params, {"image": np.concatenate([IMAGES] * 7)})
    close(found, np.concatenate([STORED["hf/images"]] * 7))


@pytest.mark.long
def test_bfloat16_multiplies_in_bfloat16():
    clip = load("clip_hf")
    model = CLIP(clip.config, jnp.bfloat16)
    for method, x in (("image_features", IMAGES), ("text_features", clip.tokenize(STRINGS))):
        features = functools.partial(model.apply, {"params": clip.params}, method=method)
        dots = [e for e in jax.make_jaxpr(features)(x).eqns if e.primitive.name == "dot_general"]
        assert len(dots) >= 9 and {v.aval.dtype for e in dots for v in e.invars} == {jnp.dtype(jnp.bfloat16)}
        found, wanted = jax.jit(features)(x), jax.jit(getattr(clip, method))(clip.params, x)
        assert found.dtype == jnp.float32
        assert 1e-4 < np.abs(found - wanted).max() / np.abs(wanted).max() < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("remat, chunk", [(True, 0), (False, 3), (True, 3)])
def test_remat_and_chunks_change_no_gradient(remat, chunk):
    inputs = {"image_features": noise((4, 8, 8, 3)), "text_features": np.array([[1, 29]] * 4)}

    def gradient(remat, chunk):
        def loss(params):
            apply = functools.partial(CLIP(TINY, remat=remat).apply, {"params": params})
            images, texts = (chunked(functools.partial(apply, method=m), chunk)(x) for m, x in inputs.items())
            return jnp.sum(images * texts)

        return jax.jit(jax.grad(loss))(tiny_params()), str(jax.make_jaxpr(jax.grad(loss))(tiny_params()))

    (plain, before), (again, after) = gradient(False, 0), gradient(remat, chunk)
    assert "remat" in after and "remat" not in before
    jax.tree.map(functools.partial(close, tolerance=1e-4), again, plain)
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(plain["vision"]["transformer"]["block_0"]["mlp_in"]))


@pytest.mark.long
def test_a_loaded_model_recomputes_on_request():
    for remat in (False, True):
        clip = load_clip(FIXTURES / "clip_hf", texts=False, remat=remat)
        program = jax.make_jaxpr(clip.image_features)(clip.params, IMAGES)
        assert ("remat" in str(program)) == remat


@pytest.mark.parametrize(
    ("method", "x", "message"),
    [
        ("image_features", np.zeros((2, 8, 9, 3), np.uint8), r"images are \[2, 8, 9, 3\]: CLIP expects \[n, 8, 8, 3\]"),
        ("image_features", np.zeros((2, 8, 8, 1), np.uint8), r"\[n, 8, 8, 3\]"),
        ("text_features", np.zeros((2, 11), np.int32), r"token ids are \[2, 11\]: CLIP expects \[n, 10\]"),
        ("text_features", np.zeros(10, np.int32), r"token ids are \[10\]"),
    ],
)
@pytest.mark.long
def test_wrong_shapes_are_refused(method, x, message):
    with pytest.raises(UserError, match=message):
        CLIP(TINY).apply({"params": tiny_params()}, x, method=method)
