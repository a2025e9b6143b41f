"""CLIP's tokenizer: lower-cased byte-pair encoding, as the model directory's `tokenizer.json` describes it."""

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
    """``tokenize(texts) -> int32 [n, context_length]``, the ids of Hugging Face's CLIPTokenizer.

    Each row is the start token, the text, the end token and padding. A longer text is cut before the end token.
    Unlike open_clip's own tokenizer it does not clean texts by ftfy and `html.unescape` first.

    Raises:
      UserError: no `tokenizer.json` in `directory`, a damaged one, or one that is not for a model of `config`.
    """
    path = directory / "tokenizer.json"
    tokenizer = _read(path)
    _check(tokenizer, path, config)
    end = tokenizer.encode("").ids[-1]
    pad = _padding_token(directory)
    pad_id = end if pad is None else tokenizer.token_to_id(pad)
    if pad_id is None:
        raise UserError(f"{path} does not know the padding token '{pad}' that the files beside it name")
    tokenizer.enable_truncation(config.context_length)
    tokenizer.enable_padding(length=config.context_length, pad_id=pad_id)

    def tokenize(texts: Sequence[str]) -> np.ndarray:
        ids = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
        return np.array(ids, np.int32).reshape(-1, config.context_length)

    return tokenize


def _read(path: Path) -> Tokenizer:
    if not path.is_file():
        raise UserError(f"{path} is missing: texts need the tokenizer.json of the model, put it beside the weights")
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise UserError(f'{path} needs tokenizers to be read: pip install "clustering_jax[clip]"') from error
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        raise UserError(f"{path} is damaged or no tokenizer ({' '.join(str(error).split())[:120]})") from error


def _check(tokenizer: Tokenizer, path: Path, config: ClipConfig) -> None:
    """The pooling of texts finds the end token by its id, so the ids must be those that the model was made for."""
    tokenizer.no_padding()
    empty, largest = tokenizer.encode("").ids, max(tokenizer.get_vocab().values(), default=0)
    if len(empty) != 2:
        raise UserError(f"{path} is not CLIP's: it encodes the empty text as {empty}, not as a start and an end token")
    if largest >= config.vocab_size:
        raise UserError(f"{path} has token ids up to {largest}, the model's config a vocab_size of {config.vocab_size}")
    wanted = largest if config.eos_token_id == LARGEST_ID else config.eos_token_id
    if empty[1] != wanted:
        raise UserError(f"{path} ends texts with the token id {empty[1]}, the model's config wants {wanted}")


def _padding_token(directory: Path) -> str | None:
    """The one that Hugging Face's files beside `tokenizer.json` name, if any."""
    paths = [directory / name for name in ("tokenizer_config.json", "special_tokens_map.json")]
    found = [read_json(path).get("pad_token") for path in paths if path.is_file()]
    token = next((token for token in found if token is not None), None)
    return token["content"] if isinstance(token, dict) else token
