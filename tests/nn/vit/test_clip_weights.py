"""Every valid layout of a model directory gives the same model, and every error gives one line."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from clustering_jax.errors import UserError
from clustering_jax.nn.vit.clip_weights import load_clip, weights_checksum
from tests.paths import FIXTURES

HF, OPEN = "clip_hf", "clip_open"
WEIGHTS = {HF: "model.safetensors", OPEN: "open_clip_model.safetensors"}
CONFIG = {HF: "config.json", OPEN: "open_clip_config.json"}
load = functools.cache(lambda name: load_clip(FIXTURES / name))


@pytest.fixture
def copied(tmp_path):
    """``copied(name)`` returns a copy of a model directory that can be changed."""
    return lambda name: Path(shutil.copytree(FIXTURES / name, tmp_path / name))


def same_params(found, wanted, tolerance=0.0):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=tolerance, atol=1e-4 * tolerance), found, wanted)


def change(directory: Path, tensors) -> None:
    """Replaces the weights by the result of ``tensors(dict) -> dict``."""
    path = directory / WEIGHTS[directory.name]
    save_file({k: np.ascontiguousarray(v) for k, v in tensors(load_file(path)).items()}, path)


@pytest.mark.parametrize("name", [HF, OPEN])
def test_a_file_and_its_directory_give_the_same_model(name):
    clip = load_clip(FIXTURES / name / WEIGHTS[name])
    same_params(clip.params, load(name).params)
    assert clip.config == load(name).config and clip.name == name


@pytest.mark.parametrize("name", [HF, OPEN])
def test_the_checksum_is_the_sha256_of_the_file(name):
    wanted = hashlib.sha256((FIXTURES / name / WEIGHTS[name]).read_bytes()).hexdigest()
    assert load(name).checksum == weights_checksum(FIXTURES / name) == wanted


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float16, 1e-3), (jnp.bfloat16, 1e-2), (np.float64, 0.0)])
def test_other_floats_become_float32(copied, dtype, tolerance):
    directory = copied(HF)
    change(directory, lambda tensors: {k: v.astype(dtype) for k, v in tensors.items()})
    same_params(load_clip(directory).params, load(HF).params, tolerance)


def split(directory: Path) -> list[Path]:
    """Splits the weights into two parts with an index, as Hugging Face saves large models."""
    whole = directory / WEIGHTS[directory.name]
    tensors, parts = load_file(whole), [whole.with_name(f"model-0000{i}-of-00002.safetensors") for i in (1, 2)]
    whole.unlink()
    names = [sorted(tensors)[i::2] for i in (0, 1)]
    for part, keys in zip(parts, names, strict=True):
        save_file({k: tensors[k] for k in keys}, part)
    index = {"weight_map": {k: part.name for part, keys in zip(parts, names, strict=True) for k in keys}}
    whole.with_name(f"{whole.name}.index.json").write_text(json.dumps(index))
    return parts


def test_several_parts_give_one_model(copied):
    parts = split(copied(HF))
    clip = load_clip(parts[0].parent)
    same_params(clip.params, load(HF).params)
    assert clip.checksum == hashlib.sha256(b"".join(p.read_bytes() for p in parts)).hexdigest()


def test_the_layout_with_weights_is_used(copied):
    directory = copied(HF)
    (directory / WEIGHTS[HF]).unlink()
    shutil.copytree(FIXTURES / OPEN, directory, dirs_exist_ok=True)
    same_params(load_clip(directory).params, load(OPEN).params)


def test_buffers_of_old_files_are_ignored(copied):
    directory = copied(HF)
    buffers = {f"{t}_model.embeddings.position_ids": np.arange(9)[None] for t in ("text", "vision")}
    change(directory, lambda tensors: tensors | buffers)
    same_params(load_clip(directory).params, load(HF).params)


def test_without_texts_no_tokenizer_is_needed(copied):
    directory = copied(HF)
    (directory / "tokenizer.json").unlink()
    assert load_clip(directory, texts=False).tokenize is None
    with pytest.raises(UserError, match=r"tokenizer\.json is missing"):
        load_clip(directory)


def without(name):
    return lambda tensors: {k: v for k, v in tensors.items() if k != name}


def renamed(old, new):
    return lambda tensors: {new if k == old else k: v for k, v in tensors.items()}


def replaced(name, function):
    return lambda tensors: {**tensors, name: function(tensors[name])}


PATCHES, FC1 = "vision_model.embeddings.patch_embedding.weight", "text_model.encoder.layers.1.mlp.fc1.weight"
TENSORS = [
    (HF, without(FC1), rf"clip_hf/model\.safetensors does not match .* lacks 1 tensors \({FC1}, \.\.\.\)"),
    (HF, renamed(FC1, "extra.gamma"), r"lacks 1 tensors .* and also has 1 tensors \(extra\.gamma, \.\.\.\)"),
    (
        HF,
        lambda tensors: {"fc.weight": np.ones((3, 3))},
        r"lacks \d+ tensors .* and also has 1 tensors \(fc\.weight",
    ),
    (HF, replaced(FC1, lambda x: x.T), rf"{FC1} is \[8, 20\], but the config expects \[20, 8\]"),
    (HF, replaced(PATCHES, lambda x: x[:, :1]), rf"{PATCHES} is \[24, 1, 8, 8\], .* expects \[24, 3, 8, 8\]"),
    (HF, replaced(FC1, lambda x: x.astype(np.int8)), rf"{FC1} is of type I8, only F64, F32, F16, BF16"),
    (HF, replaced(FC1, lambda x: x * np.float32(np.inf)), rf"model\.safetensors is damaged: {FC1} is not finite"),
    (
        OPEN,
        without("visual.proj"),
        r"open_clip_model\.safetensors does not match .* lacks 1 tensors \(visual\.proj, \.\.\.\)",
    ),
    (OPEN, replaced("text_projection", lambda x: x.T), r"text_projection is \[10, 8\], .* expects \[8, 10\]"),
]


@pytest.mark.parametrize(("name", "tensors", "message"), TENSORS)
def test_wrong_tensors_are_named(copied, name, tensors, message):
    directory = copied(name)
    change(directory, tensors)
    refused(directory, message)


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


DAMAGE = [
    (HF, lambda d: (d / WEIGHTS[HF]).unlink(), r"has config\.json but no model\.safetensors"),
    (OPEN, lambda d: (d / WEIGHTS[OPEN]).unlink(), r"has open_clip_config\.json but no open_clip_model\.safetensors"),
    (
        HF,
        lambda d: (d / CONFIG[HF]).unlink(),
        r"clip_hf is not a CLIP model: it has neither config\.json nor open_clip_config",
    ),
    (HF, lambda d: cut(d / WEIGHTS[HF], 90_000), r"model\.safetensors is damaged, truncated or not a safetensors file"),
    (HF, lambda d: cut(d / WEIGHTS[HF], 0), r"model\.safetensors is damaged, truncated or not a safetensors file"),
    (HF, lambda d: (d / WEIGHTS[HF]).write_text("<html>" * 99), r"is damaged, truncated or not a safetensors file"),
    (HF, lambda d: split(d)[1].unlink(), r"model-00002-of-00002\.safetensors is missing: model.* lists it"),
    (HF, lambda d: split(d) and (d / "model.safetensors.index.json").write_text("{}"), r"index\.json is damaged"),
    (HF, shutil.rmtree, "clip_hf' does not exist: give the directory of a CLIP model"),
]


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGE)
def test_damage_is_reported(copied, name, damage, message):
    directory = copied(name)
    damage(directory)
    refused(directory, message)


def test_a_file_without_its_config_is_refused(copied):
    directory = copied(OPEN)
    (directory / CONFIG[OPEN]).unlink()
    refused(directory / WEIGHTS[OPEN], r"open_clip_config\.json can't be read")
    refused(directory / "tokenizer.json", r"tokenizer\.json is damaged, truncated or not a safetensors file")


@pytest.mark.parametrize("package", ["safetensors", "tokenizers"])
def test_a_missing_package_is_named(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    refused(FIXTURES / HF, rf'needs the package {package}: pip install "clustering_jax\[clip\]"')


def refused(path: Path, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_clip(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
