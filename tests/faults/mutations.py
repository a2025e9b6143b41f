"""Damages the content of files, by a seed: random bytes, the members of an archive, the values of JSON."""

import copy
import io
import json
import struct
import zipfile

import numpy as np

# Numbers at the borders of what fields of 1 to 8 bytes hold.
BORDERS = (0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
VALUES = (
    None,
    True,
    -1,
    0,
    2**31,
    2**70,
    0.5,
    -1e308,
    float("nan"),
    "",
    "x",
    "\ud800",
    "a\nb",
    "9" * 300,
    [],
    {},
    [[]],
)


def flipped(content, bit):
    """`content` with one bit changed."""
    result = bytearray(content)
    result[bit // 8] ^= 1 << bit % 8
    return bytes(result)


def flip(content, rng):
    return flipped(content, int(rng.integers(8 * len(content))))


def cut(content, rng):
    return content[: rng.integers(len(content))]


def extended(content, rng):
    return content + rng.bytes(int(rng.integers(1, 40)))


def inserted(content, rng):
    at = int(rng.integers(len(content)))
    return content[:at] + rng.bytes(int(rng.integers(1, 9))) + content[at:]


def removed(content, rng):
    at = int(rng.integers(len(content)))
    return content[:at] + content[at + int(rng.integers(1, 9)) :]


def repeated(content, rng):
    start, stop = np.sort(rng.integers(len(content), size=2))
    return content[:stop] + content[start:]


def zeroed(content, rng):
    start, stop = np.sort(rng.integers(len(content), size=2))
    return content[:start] + bytes(stop - start) + content[stop:]


def field(content, rng):
    """A number of 1 to 8 bytes, in either order, becomes one at a border."""
    size = int(rng.choice([1, 2, 4, 8]))
    at, value = int(rng.integers(max(len(content) - size, 1))), BORDERS[rng.integers(len(BORDERS))] % 2 ** (8 * size)
    return content[:at] + value.to_bytes(size, ("little", "big")[rng.integers(2)]) + content[at + size :]


def digit(content, rng):
    """A digit of a text becomes another character, as in a header that says its shape in words."""
    places = [i for i, byte in enumerate(content[:4096]) if 48 <= byte < 58]
    if not places:
        return flip(content, rng)
    at = places[rng.integers(len(places))]
    return content[:at] + bytes([rng.choice(list(b"0123456789-.,e x"))]) + content[at + 1 :]


BYTES = (flip, cut, extended, inserted, removed, repeated, zeroed, field, field, digit)


def damaged(content, rng):
    """`content` after one or two changes of its bytes."""
    for _ in range(rng.integers(1, 3)):
        content = BYTES[rng.integers(len(BYTES))](content, rng) or b"\0"
    return content


def member(content, rng):
    """An archive, one member of which is damaged under a checksum that is right."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
        kind = archive.infolist()[0].compress_type
    chosen, file = rng.integers(len(members)), io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as archive:
        for i, (name, inner) in enumerate(members):
            archive.writestr(name, damaged(inner or b"\0", rng) if i == chosen else inner)
    return file.getvalue()


def values(content, rng):
    """JSON, one or two values of which are others, or gone."""
    tree = json.loads(content)
    for _ in range(rng.integers(1, 3)):
        places = list(_places(tree))
        if not places:
            return json.dumps(VALUES[rng.integers(len(VALUES))]).encode()
        holder, key = places[rng.integers(len(places))]
        if rng.random() < 0.2:
            del holder[key]
        else:
            holder[key] = copy.deepcopy(VALUES[rng.integers(len(VALUES))])
    return json.dumps(tree).encode()


def header(content, rng):
    """A safetensors file whose JSON header has other values, of the length that is written before it."""
    (size,) = struct.unpack("<Q", content[:8])
    changed = values(content[8 : 8 + size], rng)
    return struct.pack("<Q", len(changed)) + changed + content[8 + size :]


def _places(tree):
    for key, value in list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)
