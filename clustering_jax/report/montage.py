"""Selects the most and the least confident members of a cluster, and draws them as one image."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

COLUMNS = 8
LEAST, MOST = 32, 64  # smallest and largest side of a tile in pixels
GAP, BETWEEN, GREY = 2, 8, 136  # pixels between columns, pixels between lines, and the grey value of both


def members(clusters: np.ndarray, confidence: np.ndarray, cluster: int) -> tuple[np.ndarray, np.ndarray]:
    """Selects the most and the least confident members of a cluster.

    Args:
      clusters: cluster of each row [n].
      confidence: confidence of each row [n].
      cluster: the cluster.

    Returns:
      ``(most, least)``: up to COLUMNS row indices each, in descending order of confidence. No row is in both.
    """
    own = np.flatnonzero(clusters == cluster)
    own = own[np.argsort(-confidence[own], kind="stable")]
    most = own[: min(COLUMNS, (len(own) + 1) // 2)]
    return most, own[len(most) :][-COLUMNS:]


def sprite(images: np.ndarray, most: np.ndarray, least: np.ndarray) -> str:
    """Draws members of a cluster as one image, one line for the most and one for the least confident members.

    Small images are enlarged without smoothing and stored as PNG. Other images are reduced and stored as JPEG.

    Args:
      images: all images, uint8 [n, h, w, c].
      most: row indices of the upper line.
      least: row indices of the lower line.

    Returns:
      The image as a data URI.
    """
    height, width = images.shape[1:3]
    factor = max(1, -(-LEAST // max(height, width)))
    size = (width * factor, height * factor) if factor > 1 else _within(width, height)
    lines = [rows for rows in (most, least) if len(rows)]
    shape = (len(lines) * (size[1] + BETWEEN) - BETWEEN, COLUMNS * (size[0] + GAP) - GAP, images.shape[3])
    canvas = np.full(shape, GREY, np.uint8)
    for line, rows in enumerate(lines):
        for column, row in enumerate(rows):
            y, x = line * (size[1] + BETWEEN), column * (size[0] + GAP)
            canvas[y : y + size[1], x : x + size[0]] = _resized(images[row], size, factor > 1)
    return _encoded(Image.fromarray(canvas.squeeze(2) if shape[2] == 1 else canvas), "PNG" if factor > 1 else "JPEG")


def _within(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, MOST / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _resized(image: np.ndarray, size: tuple[int, int], enlarged: bool) -> np.ndarray:
    picture = Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image)
    how = Image.Resampling.NEAREST if enlarged else Image.Resampling.BILINEAR
    return np.asarray(picture.resize(size, how)).reshape(size[1], size[0], -1)


def _encoded(picture: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **({} if kind == "PNG" else {"quality": 82}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
