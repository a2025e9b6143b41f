"""Decodes the body of a request: JSON, NumPy files or images.

A request may come from anyone, so nothing is unpickled, and the size of everything is checked before it is used.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from clustering_jax.data.claims import npy_header
from clustering_jax.data.images.decode import PICTURE_FORMATS
from clustering_jax.errors import UserError
from clustering_jax.serving.inputs import Inputs

ORIGIN = "the request"
JSON = "application/json"
NUMPY = ("application/octet-stream", "application/x-npy", "application/x-npz")
FORM = "multipart/form-data"
# Most pixels of all images of a request together: a PNG of some kilobytes may hold a hundred million.
MAX_PIXELS = 2**27
# Most arrays of a `.npz` beside those that the model takes.
SPARE_MEMBERS = 8


class Limits(NamedTuple):
    """The limits of one server.

    Attributes:
      max_bytes: largest size of the body of a request, both as sent and after unpacking.
      max_rows: largest number of rows in a request.
      max_queue: largest number of requests that are pending at the same time.
      max_batch: largest number of rows that are computed together.
      max_wait_ms: milliseconds that a batch waits for more rows.
      timeout: seconds in which a request must arrive, and seconds in which it must be answered.
    """

    max_bytes: int = 16 * 2**20
    max_rows: int = 256
    max_queue: int = 128
    max_batch: int = 64
    max_wait_ms: float = 2.0
    timeout: float = 30.0


class RefusedRequest(Exception):
    """A request that the server does not answer.

    Args:
      status: the HTTP status of the response.
      reason: one line that explains why.
    """

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


def decode_features(
    media: str,
    parts: Sequence[bytes],
    inputs: Inputs,
    limits: Limits,
    cancelled: Callable[[], bool] = bool,
    names: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """Decodes the features of a request.

    Args:
      media: content type of the request.
      parts: the body, or the files of a form.
      inputs: the inputs of the model.
      limits: the limits of the server.
      cancelled: whether nobody waits for the answer any more. It is asked between images.
      names: the name of each file of a form, for errors; or none.

    Returns:
      The features as in `Inputs.signature`.

    Raises:
      RefusedRequest: the body can't be read or is too large, or nobody waits for the answer.
      UserError: the model does not take these arrays.
    """
    if media == JSON or media in NUMPY:
        arrays = _decode_json(parts[0], inputs) if media == JSON else _decode_numpy(parts[0], inputs, limits.max_bytes)
        _check_rows(max((len(array) for array in arrays.values() if array.ndim), default=0), limits)
        return inputs.features(arrays, ORIGIN)
    if inputs.kind != "images":
        accepted = f"{' and '.join(inputs.shapes)} as {JSON}, .npy or .npz"
        raise RefusedRequest(415, f"this model takes {accepted}, not image files")
    _check_rows(len(parts), limits)
    pixels, images = 0, []
    for part, name in zip_longest(parts, names):
        origin = quoted(name) if name else ORIGIN
        if cancelled():
            raise RefusedRequest(503, "nobody waits for the answer")
        pixels += _pixels(part)
        if pixels > MAX_PIXELS:
            raise RefusedRequest(
                413, f"the images up to {origin} have more than {MAX_PIXELS} pixels: send several requests"
            )
        images.append(decode_image(part, inputs.image, origin))
    return {"image": np.stack(images)}


def _pixels(data: bytes) -> int:
    """The number of pixels that an image file claims; 0 if it is no image or too large, which `decode_image` says."""
    try:
        with Image.open(io.BytesIO(data), formats=PICTURE_FORMATS) as image:
            return image.width * image.height
    except Exception:
        return 0


def _check_rows(rows: int, limits: Limits) -> None:
    if rows > limits.max_rows:
        raise RefusedRequest(
            413, f"{ORIGIN} has {rows} rows, at most {limits.max_rows} are accepted: send several requests"
        )


def quoted(name: str) -> str:
    """The name of a file in an error: short, so that it hides nothing of what follows it."""
    return repr(name if len(name) <= 80 else f"...{name[-77:]}")


def decode_image(data: bytes, fit: Callable[[Image.Image], np.ndarray], origin: str = ORIGIN) -> np.ndarray:
    """Decodes an image file, turns it upright and brings it to the size of the model.

    Args:
      data: the content of the file.
      fit: see `Inputs.image`.
      origin: how errors call the file.

    Returns:
      The image, uint8 [h, w, c].

    Raises:
      RefusedRequest: the file is not an image, is damaged, or has more pixels than Pillow considers safe.
    """
    try:
        with Image.open(io.BytesIO(data), formats=PICTURE_FORMATS) as image:
            # Pillow itself only warns above this size.
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
            ImageOps.exif_transpose(image, in_place=True)
            return fit(image)
    except UnidentifiedImageError as error:
        raise RefusedRequest(400, f"{origin} is not an image ({', '.join(PICTURE_FORMATS)})") from error
    except Image.DecompressionBombError as error:
        raise RefusedRequest(413, f"{origin} is too large for an image: {_one_line(error)}") from error
    except Exception as error:  # The decoders raise nearly any exception for a damaged file.
        raise RefusedRequest(400, f"{origin} can't be read as an image ({_one_line(error)})") from error


def _decode_json(body: bytes, inputs: Inputs) -> dict[str, np.ndarray]:
    try:
        lists = json.loads(body, parse_constant=_refuse_constant)
        arrays = {str(name): np.asarray(value) for name, value in lists.items()}
    except Exception as error:  # Bad JSON or encoding, or lists that are too deep, uneven or not of numbers.
        wanted = ", ".join(f'"{name}": [[...], ...]' for name in inputs.shapes)
        raise RefusedRequest(400, f"{ORIGIN} is not JSON of arrays, {{{wanted}}} ({_one_line(error)})") from error
    return {name: _with_dtype(array, inputs.kind) for name, array in arrays.items()}


def _refuse_constant(word: str) -> None:
    """Refuses NaN and Infinity, which Python's JSON parser accepts."""
    raise ValueError(f"{word} is not a number")


def _with_dtype(array: np.ndarray, kind: str) -> np.ndarray:
    """JSON has one type of number: integers are pixel values for images, and floats for embeddings."""
    if array.dtype.kind not in "iu" or kind == "views":
        return array
    if kind == "embeddings":
        return array.astype(np.float64)
    if array.size and not 0 <= array.min() <= array.max() <= 255:
        raise UserError(f"{ORIGIN} has pixels from {array.min()} to {array.max()}: send 0 to 255, or 0.0 to 1.0")
    return array.astype(np.uint8)


def _decode_numpy(body: bytes, inputs: Inputs, max_bytes: int) -> dict[str, np.ndarray]:
    """The arrays of a `.npz` or the single array of a `.npy`. A model with one input accepts any name."""
    try:
        arrays = (
            _read_npz(body, max_bytes, len(inputs.shapes) + SPARE_MEMBERS)
            if body.startswith(b"PK")
            else {"": _read_npy(body)}
        )
    except RefusedRequest:
        raise
    except Exception as error:  # Bad headers, bad zip files, bad compression.
        raise RefusedRequest(400, f"{ORIGIN} is no .npy or .npz file, or damaged ({_one_line(error)})") from error
    if len(arrays) == len(inputs.shapes) == 1:
        return dict(zip(inputs.shapes, arrays.values(), strict=True))
    if "" in arrays:
        raise RefusedRequest(400, f"a .npy has one array, the model takes {' and '.join(inputs.shapes)}: send a .npz")
    return arrays


def _read_npz(body: bytes, max_bytes: int, max_members: int) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        files = archive.infolist()
        if len(files) > max_members:
            raise RefusedRequest(413, f"{ORIGIN} has {len(files)} arrays, at most {max_members} are accepted")
        if sum(file.file_size for file in files) > max_bytes:
            raise RefusedRequest(413, f"{ORIGIN} is more than {max_bytes} bytes when unpacked")
        # Reads no more bytes than the header announces, even if the compressed data holds more.
        contents = {f.filename.removesuffix(".npy"): archive.open(f).read(f.file_size) for f in files}
    return {name: _read_npy(data) for name, data in contents.items()}


def _read_npy(data: bytes) -> np.ndarray:
    """The array of a `.npy`, as a view of `data`, so that a header can't request more memory than was sent."""
    file = io.BytesIO(data)
    shape, dtype, fortran = npy_header(file, len(data))
    if dtype.hasobject:
        raise ValueError("Python objects, which are not loaded")
    size = math.prod(shape) * dtype.itemsize
    if len(data) - file.tell() != size:
        raise ValueError(f"{len(data) - file.tell()} bytes where its header says {size}")
    return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape, order="F" if fortran else "C")


def _one_line(error: Any) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
