"""CLIP's tokenizer: lower-cased byte-pair encoding, read from `tokenizer.json` in the model's directory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clustering_jax.errors import UserError
from clustering_jax.nn.vit.clip import LARGEST_ID, ClipConfig
from clustering_jax.nn.vit.clip_config import read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def load_tokenizer(directory: Path, config: ClipConfig) -> Callable[[Sequence[str]], np.ndarray]:
    """Loads the tokenizer of a model.

    Args:
      directory: directory of the model.
      config: config of the model.

    Returns:
      ``tokenize(texts) -> int32 [n, context_length]``, with the same ids as Hugging Face's CLIPTokenizer. Each row is
      the start token, the text, the end token and padding. A text that is too long is cut before the end token. Unlike
      open_clip's own tokenizer, it does not clean the texts with ftfy and `html.unescape`.

    Raises:
      UserError: `tokenizer.json` is missing, damaged, or does not match `config`.
    """
    path = directory / "tokenizer.json"
    tokenizer = _read(path)
    _check(tokenizer, path, config)
    end = tokenizer.encode("").ids[-1]
    pad = _padding_token(directory)
    pad_id = end if pad is None else tokenizer.token_to_id(pad)
    if pad_id is None:
        raise UserError(f"{path} has no token '{pad}', which the files in its directory name as the padding token")
    tokenizer.enable_truncation(config.context_length)
    tokenizer.enable_padding(length=config.context_length, pad_id=pad_id)

    def tokenize(texts: Sequence[str]) -> np.ndarray:
        ids = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
        return np.array(ids, np.int32).reshape(-1, config.context_length)

    return tokenize


def _read(path: Path) -> Tokenizer:
    if not path.is_file():
        raise UserError(
            f"{path} is missing: texts need the model's tokenizer.json, put it into the directory of the weights"
        )
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise UserError(f'{path} needs the package tokenizers: pip install "clustering_jax[clip]"') from error
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises no more specific error
        raise UserError(f"{path} is damaged or not a tokenizer ({' '.join(str(error).split())[:120]})") from error


def _check(tokenizer: Tokenizer, path: Path, config: ClipConfig) -> None:
    """Checks that the tokenizer belongs to the model. The text features depend on the id of the end token."""
    tokenizer.no_padding()
    empty, largest = tokenizer.encode("").ids, max(tokenizer.get_vocab().values(), default=0)
    if len(empty) != 2:
        raise UserError(f"{path} is not CLIP's: it encodes the empty text as {empty}, not as a start and an end token")
    if largest >= config.vocab_size:
        raise UserError(
            f"{path} has token ids up to {largest}, but the vocab_size in the model's config is {config.vocab_size}"
        )
    expected = largest if config.eos_token_id == LARGEST_ID else config.eos_token_id
    if empty[1] != expected:
        raise UserError(f"{path} ends texts with the token id {empty[1]}, but the model's config expects {expected}")


def _padding_token(directory: Path) -> str | None:
    """The padding token that Hugging Face's files in `directory` name, if any."""
    paths = [directory / name for name in ("tokenizer_config.json", "special_tokens_map.json")]
    tokens = [read_json(path).get("pad_token") for path in paths if path.is_file()]
    token = next((token for token in tokens if token is not None), None)
    return token["content"] if isinstance(token, dict) else token
