"""What a request's body holds: JSON, NumPy's files or images, from anyone: nothing is unpickled or left unmeasured."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from clustering_jax.data.images.folder import fit_image
from clustering_jax.errors import UserError
from clustering_jax.serving.inputs import Inputs

ORIGIN = "the request"
JSON = "application/json"
NUMPY = ("application/octet-stream", "application/x-npy", "application/x-npz")
FORM = "multipart/form-data"
# Those of `listing.EXTENSIONS`: Pillow knows more, and for some it starts other programs.
IMAGE_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


class Limits(NamedTuple):
    """What one server does at most.

    max_bytes: of a body, unpacked too. max_rows: of a request. max_queue: requests under way. max_batch: rows computed
    together. max_wait_ms: that a batch waits for more. timeout: seconds for a request to come, and to be answered.
    """

    max_bytes: int = 16 * 2**20
    max_rows: int = 256
    max_queue: int = 128
    max_batch: int = 64
    max_wait_ms: float = 2.0
    timeout: float = 30.0


class Refused(Exception):
    """A request that is not answered: an HTTP status, and one line that says why."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


def features(media: str, parts: Sequence[bytes], inputs: Inputs, limits: Limits) -> dict[str, np.ndarray]:
    """The features of a request, see `Inputs.signature`.

    Args:
      media: type of the content. parts: the body, or the files of a form.

    Raises:
      Refused: a body that can't be read, or is too much. UserError: arrays that the model does not take.
    """
    if media == JSON or media in NUMPY:
        arrays = _of_json(parts[0], inputs) if media == JSON else _of_numpy(parts[0], inputs, limits.max_bytes)
        _check_rows(max((len(array) for array in arrays.values() if array.ndim), default=0), limits)
        return inputs.features(arrays, ORIGIN)
    if inputs.kind != "images":
        raise Refused(415, f"this model takes {' and '.join(inputs.shapes)} as {JSON}, .npy or .npz, not image files")
    _check_rows(len(parts), limits)
    images = np.stack([picture(part, inputs.shapes["image"]) for part in parts])
    return inputs.features({"image": images}, ORIGIN)


def _check_rows(rows: int, limits: Limits) -> None:
    if rows > limits.max_rows:
        raise Refused(413, f"{ORIGIN} has {rows} rows, at most {limits.max_rows} are answered at once: send several")


def picture(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """An image file, upright, as uint8 of `shape` (h, w, c); Refused if it is none, broken, or too large for Pillow."""
    try:
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
            # Above this Pillow only warns.
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
            ImageOps.exif_transpose(image, in_place=True)
            return fit_image(image, shape)
    except UnidentifiedImageError as error:
        raise Refused(400, f"{ORIGIN} is not an image ({', '.join(IMAGE_FORMATS)})") from error
    except Image.DecompressionBombError as error:
        raise Refused(413, f"the image is too large: {_line(error)}") from error
    except Exception as error:  # decoders of broken files raise nearly anything
        raise Refused(400, f"the image can't be read ({_line(error)})") from error


def _of_json(body: bytes, inputs: Inputs) -> dict[str, np.ndarray]:
    try:
        found = json.loads(body, parse_constant=_no_number)
        arrays = {str(name): np.asarray(value) for name, value in found.items()}
    except Exception as error:  # of JSON, of its encoding, of lists that are nested too deep, uneven or no numbers
        wanted = ", ".join(f'"{name}": [[...], ...]' for name in inputs.shapes)
        raise Refused(400, f"{ORIGIN} is not JSON of arrays, {{{wanted}}} ({_line(error)})") from error
    return {name: _typed(array, inputs.kind) for name, array in arrays.items()}


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number")


def _typed(array: np.ndarray, kind: str) -> np.ndarray:
    """JSON's whole numbers are the levels of pixels, if they can be, and embeddings like others."""
    if array.dtype.kind not in "iu" or kind == "views":
        return array
    if kind == "embeddings":
        return array.astype(np.float64)
    if array.size and not 0 <= array.min() <= array.max() <= 255:
        raise UserError(f"{ORIGIN} has pixels from {array.min()} to {array.max()}: send 0 to 255, or 0.0 to 1.0")
    return array.astype(np.uint8)


def _of_numpy(body: bytes, inputs: Inputs, max_bytes: int) -> dict[str, np.ndarray]:
    """The arrays of a `.npz`, or the one of a `.npy`; of a model with one input the name may be any."""
    try:
        arrays = _members(body, max_bytes) if body.startswith(b"PK") else {"": _array(body)}
    except Refused:
        raise
    except Exception as error:  # of headers, zip files and their compression
        raise Refused(400, f"{ORIGIN} is no .npy or .npz file, or damaged ({_line(error)})") from error
    if len(arrays) == len(inputs.shapes) == 1:
        return dict(zip(inputs.shapes, arrays.values(), strict=True))
    if "" in arrays:
        raise Refused(400, f"a .npy has one array, the model takes {' and '.join(inputs.shapes)}: send a .npz")
    return arrays


def _members(body: bytes, max_bytes: int) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > max_bytes:
            raise Refused(413, f"{ORIGIN} is more than {max_bytes} bytes when unpacked")
        # Not one byte more than announced, whatever comes out of the compression.
        read = {m.filename.removesuffix(".npy"): archive.open(m).read(m.file_size) for m in members}
    return {name: _array(data) for name, data in read.items()}


def _array(data: bytes) -> np.ndarray:
    """The array of a `.npy`: a view of `data`, so that no header can ask for more memory than was sent."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version > (2, 0):
        raise ValueError("a structured array")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("Python objects, which are not loaded")
    size = math.prod(shape) * dtype.itemsize
    if len(data) - file.tell() != size:
        raise ValueError(f"{len(data) - file.tell()} bytes where its header says {size}")
    return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape, order="F" if fortran else "C")


def _line(error: Any) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
