"""Encodes small pictures for the page, the most interesting ones first, until the page is large enough."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, features

from clustering_jax.report.pictures import SIDE

TINY, SMALL = 16, 48  # pictures up to these sides are stored without loss, and enlarged without smoothing
BUDGET = 24_000_000  # characters of all pictures of a page
CHUNK = 256


class Encoded(NamedTuple):
    """The pictures of some rows.

    Attributes:
      start: first part of each address, such as "data:image/webp;base64,".
      rest: the rest of the address by row; a row beyond the budget has none.
      sharp: whether the pictures are so small that they should be enlarged without smoothing.
    """

    start: str
    rest: dict[int, str]
    sharp: bool


def encoded(pictures: Any, rows: Iterable[int], budget: int = BUDGET) -> Encoded:
    """Encodes pictures.

    Args:
      pictures: uint8 [n, h, w, c]; an array, or an object that is indexed by one row at a time.
      rows: row indices, the most important ones first.
      budget: largest number of characters.
    """
    side, rows = max(pictures.shape[1:3]), list(rows)
    kind = "png" if side <= TINY else "webp" if features.check("webp") else "jpeg"
    texts: dict[int, str] = {}
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            texts |= zip(part, pool.map(lambda row: _text(pictures[row], kind), part), strict=True)
            budget -= sum(len(texts[row]) for row in part)
            if budget < 0:
                break
    return Encoded(f"data:image/{kind};base64,", texts, side <= SMALL)


def _text(image: np.ndarray, kind: str) -> str:
    picture, buffer = Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image), io.BytesIO()
    picture.thumbnail((SIDE, SIDE))  # larger ones only
    picture.save(buffer, kind, quality=75, method=0)  # PNG ignores both, JPEG the second
    return base64.b64encode(buffer.getvalue()).decode()
