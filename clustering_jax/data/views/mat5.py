"""Checks MATLAB files of the versions 5 to 7: SciPy's reader trusts the types of their elements, and crashes on others.

The format is MathWorks' "MAT-File Format", chapter 1: a header of 128 bytes, then elements of a type, a size and bytes.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any, NamedTuple

HEADER = 128
# Types of elements.
INT32, UINT32, MATRIX, COMPRESSED = 5, 6, 14, 15
TEXT, NUMBERS = (1, 2, 16), frozenset({1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 16, 17, 18})
# Classes of arrays. Between CHAR and FUNCTION they hold numbers.
CELL, STRUCT, OBJECT, CHAR, SPARSE, FUNCTION, OPAQUE = 1, 2, 3, 4, 5, 16, 17
COMPLEX = 1 << 11
MAX_DEPTH, MAX_DIMENSIONS, CHUNK = 64, 32, 1 << 20


def check_mat5(path: Path) -> None:
    """Raises ValueError if an element of a `.mat` file has a type or a size that its place does not allow."""
    with path.open("rb") as file:
        order = "<" if file.read(HEADER)[126:128] == b"IM" else ">"
        while tag := file.read(8):
            kind, size = struct.unpack(f"{order}II", tag.ljust(8, b"\0"))
            after = file.tell() + size
            if kind == COMPRESSED:
                _Elements(io.BufferedReader(_Inflated(file, size), CHUNK), order).array(0)
            else:
                file.seek(-len(tag), io.SEEK_CUR)
                _Elements(file, order).array(0)
            file.seek(after)


class _Inflated(io.RawIOBase):
    """The bytes of a compressed element."""

    def __init__(self, file: IO[bytes], size: int):
        self._file, self._left, self._inflate = file, size, zlib.decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = packed = b" "
        while packed and not self._inflate.eof:
            packed = self._inflate.unconsumed_tail
            if not packed:
                packed = self._file.read(min(self._left, CHUNK))
                self._left -= len(packed)
            data = self._inflate.decompress(packed, len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)
        return 0


class _Elements(NamedTuple):
    """Walks over the elements of a file in the order in which SciPy reads them."""

    file: IO[bytes]
    order: str

    def array(self, depth: int) -> None:
        """Checks an array, and the arrays in it."""
        kind, size = struct.unpack(f"{self.order}II", self._bytes(8))
        if kind != MATRIX or depth > MAX_DEPTH:
            raise ValueError(f"an element of the type {kind} at the depth {depth}, where an array must be")
        if not size:
            return
        flags = self._numbers(UINT32)[0]
        what = flags & 0xFF
        if what == OPAQUE:
            arrays = 1
            for _ in range(3):
                self._element(TEXT)
        else:
            shape = self._numbers(INT32)
            if len(shape) > MAX_DIMENSIONS or min(shape, default=0) < 0:
                raise ValueError(f"an array of shape {shape[:MAX_DIMENSIONS]}")
            self._element(TEXT)
            arrays = self._inside(what, math.prod(shape))
        for _ in range(arrays):
            self.array(depth + 1)
        for _ in range(_parts(what, bool(flags & COMPLEX))):
            self._element(NUMBERS)

    def _inside(self, what: int, count: int) -> int:
        """The number of arrays inside an array of a class and of `count` entries."""
        if what == OBJECT:
            self._element(TEXT)
        if what in (STRUCT, OBJECT):
            (length, *_) = self._numbers(INT32)
            if length < 1:
                raise ValueError(f"names of {length} bytes")
            return count * (self._element(TEXT)[1] // length)
        return count if what == CELL else int(what == FUNCTION)

    def _numbers(self, kind: int) -> list[int]:
        content, size = self._element((kind,), keep=1024)
        if size % 4 or not size or len(content) < size:
            raise ValueError(f"{size} bytes of numbers")
        return list(struct.unpack(f"{self.order}{size // 4}{'i' if kind == INT32 else 'I'}", content))

    def _element(self, kinds: Collection[int], keep: int = 0) -> tuple[bytes, int]:
        """Reads an element of one of `kinds`. Returns its bytes, if they are at most `keep`, and their number."""
        word, size = struct.unpack(f"{self.order}II", head := self._bytes(8))
        kind, short = word & 0xFFFF, word >> 16
        if kind not in kinds or short > 4:
            raise ValueError(f"an element of the type {kind}, where one of {sorted(kinds)} must be")
        if short:  # the bytes are in the place of the size
            return head[4 : 4 + short], short
        content = self._bytes(size) if size <= keep else b""
        self._skip(size - len(content) + -size % 8)
        return content, size

    def _bytes(self, size: int) -> bytes:
        data = self.file.read(size)
        if len(data) < size:
            raise ValueError("it ends early")
        return data

    def _skip(self, size: int) -> None:
        while size:
            size -= len(self._bytes(min(size, CHUNK)))


def _parts(what: int, is_complex: bool) -> int:
    """The number of elements with the numbers or the text of an array of a class."""
    if what in (CELL, STRUCT, OBJECT, FUNCTION, OPAQUE):
        return 0
    if not CELL <= what < FUNCTION:
        raise ValueError(f"an array of the class {what}")
    return {SPARSE: 3, CHAR: 1}.get(what, 1) + (is_complex and what != CHAR)
