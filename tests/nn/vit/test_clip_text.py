"""Token ids equal those of Hugging Face's CLIPTokenizer with the published vocabulary."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from clustering_jax.errors import UserError
from clustering_jax.nn.vit.clip import CONFIGS
from clustering_jax.nn.vit.clip_text import load_tokenizer
from tests.paths import FIXTURES

GOLDEN = json.loads((FIXTURES / "clip_tokens.json").read_text())
SIZE = len(GOLDEN["vocabulary"])
START, END = SIZE - 2, SIZE - 1
CONFIG = CONFIGS["ViT-B/32"]._replace(vocab_size=SIZE)


@pytest.fixture
def directory(tmp_path):
    return Path(shutil.copytree(FIXTURES / "clip_hf", tmp_path / "model"))


def rewrite(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(("text", "ids"), [*zip(GOLDEN["strings"], GOLDEN["ids"], strict=True)])
def test_golden_ids(text, ids):
    found = load_tokenizer(FIXTURES / "clip_hf", CONFIG)([text])
    assert found.shape == (1, 77) and found.dtype == np.int32
    assert [GOLDEN["vocabulary"][i] for i in found[0]] == ids


def test_a_batch_equals_its_single_rows():
    tokenize = load_tokenizer(FIXTURES / "clip_hf", CONFIG)
    rows = np.concatenate([tokenize([text]) for text in GOLDEN["strings"]])
    np.testing.assert_array_equal(tokenize(GOLDEN["strings"]), rows)
    assert tokenize([]).shape == (0, 77)


@pytest.mark.parametrize("length", [2, 5, 12])
def test_a_long_text_keeps_its_end(length):
    tokenize = load_tokenizer(FIXTURES / "clip_hf", CONFIG._replace(context_length=length))
    (row,) = tokenize(["a photo of a cat. " * 9])
    assert len(row) == length and row[0] == START and row[-1] == END and END not in row[:-1]


@pytest.mark.parametrize(
    ("pad", "name"), [("!", "tokenizer_config.json"), ({"content": "!"}, "special_tokens_map.json")]
)
def test_padding_comes_from_the_directory(directory, pad, name):
    (directory / "tokenizer_config.json").unlink()
    assert load_tokenizer(directory, CONFIG)([""])[0].tolist() == [START] + [END] * 76
    (directory / name).write_text(json.dumps({"pad_token": pad}))
    assert load_tokenizer(directory, CONFIG)([""])[0].tolist() == [START, END] + [0] * 75


def test_padding_and_truncation_of_the_file_are_ignored(directory):
    padding = {"strategy": {"Fixed": 9}, "direction": "Left", "pad_to_multiple_of": None}
    padding |= {"pad_id": 3, "pad_type_id": 0, "pad_token": "x"}
    truncation = {"direction": "Left", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    plain = load_tokenizer(directory, CONFIG)(GOLDEN["strings"])
    rewrite(directory / "tokenizer.json", padding=padding, truncation=truncation)
    np.testing.assert_array_equal(load_tokenizer(directory, CONFIG)(GOLDEN["strings"]), plain)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "tokenizer.json").unlink(), r"tokenizer\.json is missing"),
        (lambda d: (d / "tokenizer.json").write_text("{"), r"tokenizer\.json is damaged or not a tokenizer"),
        (lambda d: rewrite(d / "tokenizer.json", post_processor=None), r"tokenizer\.json is not CLIP's: .* \[\]"),
        (lambda d: rewrite(d / "tokenizer_config.json", pad_token="<nil>"), "has no token '<nil>'"),
        (lambda d: (d / "tokenizer_config.json").write_text("[]"), r"tokenizer_config\.json is damaged"),
    ],
)
def test_damage_is_reported(directory, damage, message):
    damage(directory)
    with pytest.raises(UserError, match=message) as caught:
        load_tokenizer(directory, CONFIG)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"vocab_size": SIZE - 1},
            f"token ids up to {SIZE - 1}, but the vocab_size in the model's config is {SIZE - 1}",
        ),
        ({"eos_token_id": START}, f"ends texts with the token id {END}, but the model's config expects {START}"),
    ],
)
def test_another_models_tokenizer_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        load_tokenizer(FIXTURES / "clip_hf", CONFIG._replace(**changes))
