"""PyTorch checkpoints without PyTorch, and without running what they hold.

A checkpoint is a pickle, and a pickle is a program. Here its opcodes are interpreted one by one: those that
torch.save writes are known, four builders of plain data are known by name, and everything else is refused by
name. No module, class or function that a file names is ever imported or called.

Formats: the zip archive of torch >= 1.6 and the sequence of pickles and raw storages before it.
"""

from __future__ import annotations

import functools
import io
import itertools
import os
import pickletools
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from typing import IO, Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from clustering_jax.errors import UserError
from clustering_jax.nn.resnet import DEPTHS

MAX_PICKLE_BYTES = 2**24
MAX_ITEMS = 10**6
MAX_DEPTH = 64
MAX_DIMENSIONS = 32

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {
    **{
        "Float": np.float32,
        "Double": np.float64,
        "Half": np.float16,
        "BFloat16": jnp.bfloat16,
        "Bool": np.bool_,
    },
    **{"Long": np.int64, "Int": np.int32, "Short": np.int16, "Char": np.int8, "Byte": np.uint8},
}
_DTYPES = {f"torch.{np.dtype(d).name}": np.dtype(d) for d in _STORAGES.values()}
_KEY_TYPES = (str, int, float, bool, bytes, type(None))
# What reading a damaged file can raise, here and inside zipfile and pickletools.
_DAMAGE = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError),
    *(RuntimeError, TypeError, ValueError, struct.error, zipfile.BadZipFile),
)


class _Refused(Exception):
    """Why a file is not read; the message continues a sentence that starts with its name."""


@dataclass(frozen=True)
class _Global:
    name: str


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    numel: int

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read_torch(path: str | os.PathLike) -> dict[Any, Any]:
    """The dictionary that torch.save wrote to `path`; nothing in the file is executed.

    Returns:
      Nested dict, OrderedDict, list, tuple (also for torch.Size), scalars, np.dtype (for torch dtypes) and
      np.ndarray (for tensors and parameters: float64/32/16, bfloat16, int64/32/16/8, uint8, bool; read-only,
      with the strides of the file). Attributes of state dictionaries (``_metadata``) are dropped.

    Raises:
      UserError: the file can't be opened, is damaged or truncated, holds no dictionary, or asks for anything
        that is not plain tensor data (named in the message).
    """
    try:
        with open(path, "rb") as file:
            return _read(file)
    except _Refused as error:
        raise UserError(f"{path} {error}: refused; nothing was executed") from error
    except _DAMAGE as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        reason = ascii(f"{type(error).__name__}: {reason}"[:120])[1:-1]
        if isinstance(error, FileNotFoundError | IsADirectoryError | PermissionError):
            raise UserError(f"{path} can't be opened ({reason})") from error
        raise UserError(f"{path} is damaged, truncated or no PyTorch checkpoint ({reason})") from error


def _read(file: IO[bytes]) -> dict[Any, Any]:
    size = os.fstat(file.fileno()).st_size
    head = file.read(4)
    file.seek(0)
    if head == b"PK\x03\x04":
        tree, read = _read_zip(file, size)
    elif head[:1] == b"\x80":
        tree, read = _read_legacy(file, size)
    else:
        raise _Refused("is no PyTorch checkpoint: neither a zip archive nor a pickle")
    if not isinstance(tree, dict):
        raise _Refused(f"holds {_describe(tree)} where a dictionary of tensors is wanted")
    return _resolve(tree, read)


def _read_zip(file: IO[bytes], size: int) -> tuple[Any, Callable[[_Storage], bytes]]:
    archive = zipfile.ZipFile(file)
    _check_members(archive.infolist(), size)
    roots = [n[: -len("data.pkl")] for n in archive.namelist() if re.fullmatch(r"[^/]*/data\.pkl", n)]
    if len(roots) != 1:
        raise _Refused("is a zip archive without the one data.pkl that torch.save writes")
    root = roots[0]
    order = archive.read(f"{root}byteorder") if f"{root}byteorder" in archive.namelist() else b"little"
    if order not in (b"little", b"big"):
        raise _Refused(f"names an unknown byte order ({order[:20]!a})")
    tree, _ = _interpret(io.BytesIO(archive.read(f"{root}data.pkl")))

    @functools.cache
    def read(storage: _Storage) -> bytes:
        raw = archive.read(f"{root}data/{storage.key}")
        if len(raw) != storage.nbytes:
            raise _Refused(
                f"holds {len(raw)} bytes for storage {storage.key!a} of {storage.numel} {storage.dtype}"
            )
        return raw if order == b"little" else _swap(raw, storage.dtype.itemsize)

    return tree, read


def _check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    """torch.save never compresses: whatever unpacks to more than the file is a bomb, or overlaps."""
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise _Refused(f"has the compressed or encrypted member {member.filename!a}, unlike torch.save's")
    if sum(max(m.file_size, m.compress_size) for m in members) > size:
        raise _Refused(f"claims members larger than the file itself ({size} bytes): damaged or a zip bomb")


def _swap(raw: bytes, itemsize: int) -> bytes:
    return np.frombuffer(raw, f"u{itemsize}").byteswap().tobytes()


def _read_legacy(file: IO[bytes], size: int) -> tuple[Any, Callable[[_Storage], bytes]]:
    if (magic := _interpret(file)[0]) != _LEGACY_MAGIC:
        raise _Refused(f"is a pickle, but not one of torch.save (it starts with {_describe(magic)})")
    _protocol, _system = _interpret(file), _interpret(file)
    tree, storages = _interpret(file)
    raw = {}
    for key in _interpret(file)[0]:
        storage = storages[_typed(key, str)]
        (numel,) = struct.unpack("<q", file.read(8))
        if numel != storage.numel or storage.nbytes > size - file.tell():
            raise _Refused(f"has a storage {key!a} of {numel} elements, not {storage.numel}, or is truncated")
        raw[storage] = file.read(storage.nbytes)
    return tree, raw.__getitem__


def _describe(value: Any) -> str:
    return value.name if isinstance(value, _Global) else f"a {type(value).__name__.strip('_')}"


class _Machine:
    """Stack, marks and memo of one pickle, and the storages it refers to by key."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, _Storage] = {}

    def pop(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise EOFError("pickle stack underflow")
        return [self.stack.pop() for _ in range(count)][::-1]

    def above_mark(self) -> list[Any]:
        return self.pop(max(len(self.stack) - self.marks.pop(), 0))

    def extend(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise _Refused(f"appends to {_describe(self.stack[-1])}, which is not tensor data")
        self.stack[-1].extend(values)

    def update(self, pairs: list[Any]) -> None:
        if type(self.stack[-1]) not in (dict, OrderedDict):
            raise _Refused(f"sets items of {_describe(self.stack[-1])}, which is not tensor data")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            # Hashing a tuple recurses in C without a limit.
            if type(key) not in _KEY_TYPES:
                raise _Refused(f"has {_describe(key)} as a key")
            self.stack[-1][key] = value

    def reduce(self) -> None:
        function, arguments = self.pop(2)
        if not isinstance(function, _Global) or function.name not in _BUILDERS:
            raise _Refused(f"calls {_describe(function)}, which is not tensor data")
        self.stack.append(_BUILDERS[function.name](*arguments))

    def build(self) -> None:
        """state_dict() hangs `_metadata` on its OrderedDict; it is dropped, and no attribute is ever set."""
        state = self.pop(1)[0]
        if type(self.stack[-1]) is not OrderedDict or type(state) is not dict:
            raise _Refused(f"sets attributes of {_describe(self.stack[-1])}")

    def persistent(self) -> None:
        # The sixth, of old files alone, is a view of another storage.
        kind, storage_type, key, _location, numel, view = [*_typed(self.pop(1)[0], tuple)[:6], None][:6]
        if _typed(kind, str) != "storage" or view is not None:
            raise _Refused(f"refers to {kind[:40]!a} data or to a view, not to a plain storage")
        dtype = np.dtype(_STORAGES[_storage_name(_typed(storage_type, _Global).name)])
        storage = _Storage(_typed(key, str), dtype, _natural(numel))
        if self.storages.setdefault(key, storage) != storage:
            raise _Refused(f"uses storage {key!a} with two types or sizes")
        self.stack.append(storage)


def _storage_name(name: str) -> str:
    match = re.fullmatch(r"torch\.(?:cuda\.)?(\w+)Storage", name)
    return match[1] if match else ""


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{kind.__name__} expected, found {type(value).__name__}")
    return value


def _natural(value: Any) -> int:
    if _typed(value, int) < 0:
        raise ValueError("negative size")
    return value


def _global(name: str) -> Any:
    if name in _DTYPES:
        return _DTYPES[name]
    if name in _BUILDERS or _storage_name(name) in _STORAGES:
        return _Global(name)
    raise _Refused(f"asks for {ascii(name)[1:-1][:100]}, which is not tensor data")


def _tensor(storage, offset, size, stride, _requires_grad, _hooks, _metadata=None) -> _Tensor:
    # Before anything is copied: one long tuple can be the size of many tensors.
    if len(_typed(size, tuple)) > MAX_DIMENSIONS:
        raise ValueError(f"more than {MAX_DIMENSIONS} dimensions")
    # In Python's integers: NumPy's own check overflows and would let a huge stride read anywhere.
    steps = zip(map(_natural, size), map(_natural, _typed(stride, tuple)), strict=True)
    last = _natural(offset) + sum((n - 1) * step for n, step in steps)
    if 0 not in size and last >= _typed(storage, _Storage).numel:
        raise _Refused(
            f"has a tensor of shape {_brief(size)} that reaches beyond its {storage.numel} stored elements"
        )
    return _Tensor(storage, offset, size, stride)


def _brief(size: tuple[int, ...]) -> str:
    return str(list(size))[:80]


_BUILDERS: dict[str, Callable] = {
    "collections.OrderedDict": lambda: OrderedDict(),
    "torch.Size": lambda size: _typed(size, tuple),
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda data, _requires_grad, _hooks: _typed(data, _Tensor),
}

_LITERALS = (
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES"),
)
_OPS: dict[str, Callable[[_Machine, Any], Any]] = {
    **{name: lambda m, arg: m.stack.append(arg) for name in _LITERALS},
    **{name: lambda m, arg: None for name in ("PROTO", "FRAME", "STOP")},
    "NONE": lambda m, _: m.stack.append(None),
    "NEWTRUE": lambda m, _: m.stack.append(True),
    "NEWFALSE": lambda m, _: m.stack.append(False),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.above_mark())),
    "TUPLE1": lambda m, _: m.stack.append(tuple(m.pop(1))),
    "TUPLE2": lambda m, _: m.stack.append(tuple(m.pop(2))),
    "TUPLE3": lambda m, _: m.stack.append(tuple(m.pop(3))),
    "APPEND": lambda m, _: m.extend(m.pop(1)),
    "APPENDS": lambda m, _: m.extend(m.above_mark()),
    "SETITEM": lambda m, _: m.update(m.pop(2)),
    "SETITEMS": lambda m, _: m.update(m.above_mark()),
    "BINPUT": lambda m, arg: m.memo.__setitem__(arg, m.stack[-1]),
    "LONG_BINPUT": lambda m, arg: m.memo.__setitem__(arg, m.stack[-1]),
    "MEMOIZE": lambda m, _: m.memo.__setitem__(len(m.memo), m.stack[-1]),
    "BINGET": lambda m, arg: m.stack.append(m.memo[arg]),
    "LONG_BINGET": lambda m, arg: m.stack.append(m.memo[arg]),
    "GLOBAL": lambda m, arg: m.stack.append(_global(arg.replace(" ", "."))),
    "STACK_GLOBAL": lambda m, _: m.stack.append(_global(".".join(m.pop(2)))),
    "REDUCE": lambda m, _: m.reduce(),
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": lambda m, _: m.persistent(),
}


def _interpret(file: IO[bytes]) -> tuple[Any, dict[str, _Storage]]:
    machine, start = _Machine(), file.tell()
    for opcode, arg, _ in pickletools.genops(file):
        if file.tell() - start > MAX_PICKLE_BYTES:
            raise _Refused(
                f"has more than {MAX_PICKLE_BYTES >> 20} MiB of structure around its tensors: refused"
            )
        if opcode.name not in _OPS:
            asked = f" ({arg[:80]!a})" if isinstance(arg, str) else ""
            raise _Refused(f"uses pickle opcode {opcode.name}{asked}, unlike torch.save")
        _OPS[opcode.name](machine, arg)
    return machine.pop(1)[0], machine.storages


def _resolve(tree: Any, read: Callable[[_Storage], bytes]) -> Any:
    """Copies the tree with arrays for tensors.

    Shared containers are copied too, hence the limits: they can form cycles or exponentially many items.
    """
    items = itertools.count()

    def walk(value: Any, depth: int) -> Any:
        if depth > MAX_DEPTH or next(items) > MAX_ITEMS:
            raise _Refused(
                f"nests deeper than {MAX_DEPTH} levels or holds more than {MAX_ITEMS} items: refused"
            )
        if isinstance(value, dict):
            return type(value)((k, walk(v, depth + 1)) for k, v in value.items())
        if isinstance(value, list | tuple):
            return type(value)(walk(v, depth + 1) for v in value)
        if isinstance(value, _Global | _Storage):
            raise _Refused(f"holds {_describe(value)} where a tensor, a number or a name is wanted")
        return _array(value, read) if isinstance(value, _Tensor) else value

    return walk(tree, 0)


def _array(tensor: _Tensor, read: Callable[[_Storage], bytes]) -> np.ndarray:
    dtype = tensor.storage.dtype
    if 0 in tensor.size:
        return np.empty(tensor.size, dtype)
    strides = [step * dtype.itemsize for step in tensor.stride]
    return np.ndarray(tensor.size, dtype, read(tensor.storage), tensor.offset * dtype.itemsize, strides)


_LEAVES = {
    **{"kernel": "weight", "scale": "weight", "bias": "bias"},
    **{"mean": "running_mean", "var": "running_var"},
}
_HEADS = {"instance_head": "instance_projector", "cluster_head": "cluster_projector"}
# From torch's [out, in, rows, columns] and [out, in] to Flax's [rows, columns, in, out] and [in, out].
_AXES = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}
_BACKBONES = {layout: name for name, layout in DEPTHS.items()}


def torch_name(path: tuple[str, ...]) -> str:
    """The authors' name of the variable at `path` (collection first) of CC's network.

    ``("params", "encoder", "layer1_0", "conv1", "kernel")`` -> ``"resnet.layer1.0.conv1.weight"``.
    """
    _collection, part, *modules, leaf = path
    if part in _HEADS:
        # A ReLU stands between the two linear layers of their nn.Sequential.
        (linear,) = modules
        return f"{_HEADS[part]}.{2 * int(re.sub(r'[^0-9]', '', linear))}.{_LEAVES[leaf]}"
    return f"resnet.{'.'.join(modules).replace('_', '.')}.{_LEAVES[leaf]}"


def load_cc(path: str | os.PathLike, variables: Mapping[str, Any]) -> dict[str, Any]:
    """CC's `variables` with every value taken from the authors' checkpoint.

    Args:
      path: of a file with ``{"net": state_dict, ...}``, as the authors', or with a state_dict; its names may
        start with ``module.``.
      variables: ``{"params": ..., "batch_stats": ...}``, for its structure, shapes and types.

    Returns:
      The same tree, with the file's running statistics.

    Raises:
      UserError: see `read_torch`; also another backbone, number of clusters or shape, a variable without a
        tensor or a tensor without a variable.
    """
    theirs, ours = _state_dict(path), flatten_dict(variables)
    names = {torch_name(p): p for p in ours}
    _check_names(path, names.keys(), theirs.keys())
    _check_shapes(path, {name: _torch_shape(ours[p].shape) for name, p in names.items()}, theirs)
    filled = {p: theirs[name].transpose(_AXES[theirs[name].ndim]) for name, p in names.items()}
    # Copies: training donates its buffers, and these views are of the file's bytes.
    return unflatten_dict({p: jnp.array(value, ours[p].dtype) for p, value in filled.items()})


def _state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
    tree = read_torch(path)
    state = tree.get("net", tree)
    if not isinstance(state, dict) or not all(isinstance(v, np.ndarray) for v in state.values()):
        raise UserError(f"{path} holds neither {{'net': state_dict}} nor a state_dict of tensors")
    if all(str(k).startswith("module.") for k in state):
        state = {k.removeprefix("module."): v for k, v in state.items()}
    return {str(k): v for k, v in state.items() if not str(k).endswith("num_batches_tracked")}


def _backbone(names: Iterable[str]) -> str:
    blocks = {m.groups() for m in (re.match(r"resnet\.layer(\d)\.(\d+)\.", n) for n in names) if m}
    counts = tuple(sum(layer == i for layer, _ in blocks) for i in "1234")
    bottleneck = any(".conv3." in n for n in names)
    return _BACKBONES.get((counts, bottleneck), f"network of {list(counts)} residual blocks")


def _check_names(path: str | os.PathLike, wanted: Set[str], found: Set[str]) -> None:
    if (theirs := _backbone(found)) != (ours := _backbone(wanted)):
        raise UserError(f"{path} looks like a {theirs}, the config wants a {ours}: change one of them")
    parts = [("missing", sorted(wanted - found)), ("left over", sorted(found - wanted))]
    if any(names for _, names in parts):
        texts = [f"{len(names)} tensors {what} ({_first(names)})" for what, names in parts if names]
        raise UserError(f"{path} does not fit the network: {', '.join(texts)}")


def _first(texts: list[str]) -> str:
    return ", ".join(ascii(t)[1:-1][:100] for t in texts[:3]) + (", ..." if len(texts) > 3 else "")


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[i] for i in np.argsort(_AXES[len(shape)]))


def _check_shapes(path: str | os.PathLike, wanted: Mapping[str, tuple], theirs: Mapping[str, Any]) -> None:
    wrong = {n: _brief(theirs[n].shape) for n, shape in wanted.items() if theirs[n].shape != shape}
    if not wrong:
        return
    texts = [f"{name} is {found}, the network wants {_brief(wanted[name])}" for name, found in wrong.items()]
    reason = f"{len(wrong)} tensors differ in shape: {_first(texts)}"
    last = "cluster_projector.2.weight"
    if wrong.keys() <= {last, "cluster_projector.2.bias"}:
        reason = f"{last} is {_brief(theirs[last].shape)}, the config wants {wanted[last][0]} clusters"
    raise UserError(f"{path} does not fit the network: {reason}")
