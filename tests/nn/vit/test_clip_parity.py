"""At the published sizes, the features equal transformers with random weights. Needs torch and transformers."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from clustering_jax.nn.vit.clip import CONFIGS
from clustering_jax.nn.vit.clip_weights import load_clip
from tests.fixtures.make_clip_fixture import normalised


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT-B/32", "ViT-B/16"])
def test_features_equal_transformers(tmp_path, name):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config, draw = CONFIGS[name], np.random.RandomState(0)
    torch.manual_seed(0)
    vision = {"patch_size": config.patch_size}
    model = transformers.CLIPModel(
        transformers.CLIPConfig(vision_config=vision, text_config={"eos_token_id": 2})
    ).eval()
    for key, value in model.named_parameters():
        if value.ndim < 2 or "embedding" in key:
            value.data += 0.3 * torch.randn(value.shape)
    model.save_pretrained(tmp_path)
    clip = load_clip(tmp_path, texts=False)
    assert clip.config == config
    images, ids = draw.randint(0, 256, (3, 224, 224, 3)).astype(np.uint8), draw.randint(0, 49408, (4, 77))
    with torch.no_grad():
        pixels = normalised(images, config.mean, config.std)
        wanted = model.get_image_features(pixels), model.get_text_features(torch.from_numpy(ids))
    found = jax.jit(clip.image_features)(clip.params, images), jax.jit(clip.text_features)(clip.params, ids)
    for ours, theirs in zip(found, wanted, strict=True):
        theirs = getattr(theirs, "pooler_output", theirs).numpy()
        print(name, np.abs(ours - theirs).max(), np.abs(theirs).max())
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
