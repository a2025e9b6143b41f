"""Configs are read as the libraries read them, or are refused with the name of the unsupported entry."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from clustering_jax.errors import UserError
from clustering_jax.nn.vit.clip import CONFIGS
from clustering_jax.nn.vit.clip_config import hf_config, open_clip_config
from tests.paths import FIXTURES

READ = {"config.json": hf_config, "open_clip_config.json": open_clip_config}
OWN_TEXT = {"hidden_size": 64, "num_attention_heads": 4, "eos_token_id": 2, "hidden_act": "gelu"}


def write(directory: Path, name: str, tree) -> Path:
    path = directory / name
    path.write_text(tree if isinstance(tree, str) else json.dumps(tree))
    return path


def test_defaults_of_hugging_face(tmp_path):
    config = hf_config(write(tmp_path, "config.json", {"model_type": "clip"}))
    assert config == CONFIGS["ViT-B/32"]._replace(eos_token_id=49407)


def test_defaults_of_open_clip(tmp_path):
    tree = {"model_cfg": {"embed_dim": 512, "quick_gelu": True}}
    assert open_clip_config(write(tmp_path, "open_clip_config.json", tree)) == CONFIGS["ViT-B/16"]
    config = open_clip_config(write(tmp_path, "open_clip_config.json", {"model_cfg": {"embed_dim": 512}}))
    assert (config.vision.activation, config.text.activation) == ("gelu", "gelu")


@pytest.mark.parametrize(
    ("again", "width", "eos", "activation"),
    [(None, 64, 2, "gelu"), ({"hidden_size": 32, "num_attention_heads": 2}, 32, 49407, "quick_gelu")],
)
def test_only_the_second_section_counts(tmp_path, again, width, eos, activation):
    """transformers 5.23 reads such files in this way."""
    tree = {"model_type": "clip", "text_config": OWN_TEXT, "text_config_dict": again}
    config = hf_config(write(tmp_path, "config.json", tree))
    assert (config.text.width, config.eos_token_id, config.text.activation) == (width, eos, activation)


def test_the_widths_of_the_largest_open_clip(tmp_path):
    """The ratio 4.9231 of ViT-bigG-14 means a width of 8,192."""
    vision = {"width": 1664, "head_width": 104, "mlp_ratio": 4.9231, "layers": 48, "patch_size": 14}
    tree = {"model_cfg": {"embed_dim": 1280, "vision_cfg": vision}}
    config = open_clip_config(write(tmp_path, "open_clip_config.json", tree))
    assert (config.vision.hidden, config.vision.heads) == (8192, 16)


IMAGES = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}


@pytest.mark.parametrize(
    ("size", "crop"), [(256, 224), ({"shortest_edge": 256}, {"height": 224, "width": 224}), (256, None)]
)
@pytest.mark.parametrize("nested", [False, True])
def test_the_image_processor_is_read(tmp_path, size, crop, nested):
    images = {**IMAGES, "size": size, **({"crop_size": crop} if crop else {})}
    name = "processor_config.json" if nested else "preprocessor_config.json"
    write(tmp_path, name, {"image_processor": images} if nested else images)
    config = hf_config(write(tmp_path, "config.json", {"model_type": "clip"}))
    assert (config.resize, config.mean, config.std) == (256, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def hf(**changes):
    return "config.json", {"model_type": "clip", **changes}


def model(**changes):
    return "open_clip_config.json", {"model_cfg": changes}


def images(**changes):
    return "open_clip_config.json", {"preprocess_cfg": changes}


WRONG = [
    (("config.json", "{"), r"config\.json is damaged: it is not JSON"),
    (("config.json", "[]"), r"config\.json is damaged: it holds no JSON object"),
    (hf(model_type="siglip"), "of type 'siglip', not of type 'clip'"),
    (hf(text_config=3), "3 is not a JSON object"),
    (hf(vision_config={"hidden_size": "768"}), "hidden_size is '768', expected a value like 768"),
    (hf(vision_config={"patch_size": 0}), "patch_size is 0, expected a value like 32"),
    (hf(vision_config={"patch_size": 30}), "224 pixels can't be cut into patches of 30"),
    (hf(vision_config={"num_channels": 4}), "num_channels 4 is not supported, only 3"),
    (hf(text_config={"num_attention_heads": 7}), "a width of 512 can't be split into 7 heads"),
    (hf(text_config={"hidden_act": "quickgelu"}), r"unknown activation 'quickgelu' \(did you mean 'quick_gelu'\?\)"),
    (hf(projection_dim=None), "projection_dim is None"),
    (model(vision_cfg={"timm_model_name": "convnext"}), "timm_model_name 'convnext' is not supported"),
    (model(vision_cfg={"ls_init_value": 0.1}), r"ls_init_value 0\.1 is not supported"),
    (model(vision_cfg={"image_size": [224, 256]}), r"image_size is \[224, 256\], expected a value like 224"),
    (model(vision_cfg={"head_width": 1000}), "can't be split into 0 heads"),
    (model(text_cfg={"pool_type": "last"}), "pool_type 'last' is not supported, only 'tok'"),
    (model(text_cfg={"hf_model_name": "roberta"}), "hf_model_name 'roberta' is not supported"),
    (model(text_cfg={"no_causal_mask": True}), "no_causal_mask True is not supported"),
    (model(multimodal_cfg={"layers": 12}), "multimodal_cfg .* is not supported"),
    (images(resize_mode="squash"), "resize_mode 'squash' is not supported, only 'shortest'"),
    (images(interpolation="bilinear"), "interpolation 'bilinear' is not supported, only 'bicubic'"),
    (images(size=256), "size 256 is not supported, only 224"),
    (images(mean=[0.5]), r"mean \[0\.5\] is not supported"),
    (images(std=[0.5, 0, 0.5]), r"std \[0\.5, 0, 0\.5\] is not supported"),
]


@pytest.mark.parametrize(("file", "message"), WRONG)
def test_other_configs_are_refused(tmp_path, file, message):
    name, tree = file
    with pytest.raises(UserError, match=message) as caught:
        READ[name](write(tmp_path, name, tree))
    assert "\n" not in str(caught.value) and str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop_size": 256}, "crop_size 256 is not supported, only 224"),
        ({"resample": 2}, "resample 2 is not supported, only 3"),
        ({"do_center_crop": False}, "do_center_crop False is not supported, only True"),
        ({"size": {"height": 224, "width": 224}}, "size .* is not supported, only {'shortest_edge': 224 or more}"),
        ({"size": 200}, "size 200 is not supported"),
        ({"image_mean": 0.5}, r"image_mean is 0\.5"),
    ],
)
def test_other_preprocessing_is_refused(tmp_path, changes, message):
    shutil.copy(FIXTURES / "clip_hf" / "config.json", tmp_path)
    write(tmp_path, "preprocessor_config.json", changes)
    with pytest.raises(UserError, match=message):
        hf_config(write(tmp_path, "config.json", {"model_type": "clip"}))
