"""Interprets the pickle inside a PyTorch checkpoint without executing it.

A pickle is a program. This module interprets its opcodes one by one. It supports the opcodes that `torch.save` writes,
and four functions that build plain data, by name. Everything else is refused, and the message names it. No module,
class or function that a file names is ever imported or called.
"""

from __future__ import annotations

import pickletools
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

import jax.numpy as jnp
import numpy as np

MAX_PICKLE_BYTES = 2**24
MAX_DIMENSIONS = 32

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


class Refused(Exception):
    """Raised if a file is not supported. The message continues a sentence that begins with the path of the file."""


@dataclass(frozen=True)
class Name:
    """The full name of a class or function in a pickle."""

    name: str


@dataclass(frozen=True)
class Storage:
    """The raw data of tensors: its key in the file, its dtype and its number of elements."""

    key: str
    dtype: np.dtype
    numel: int

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.numel * self.dtype.itemsize


@dataclass(frozen=True)
class Tensor:
    """A view of a storage. The offset and the strides are numbers of elements."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def describe(value: Any) -> str:
    """A short description of `value` for error messages."""
    return value.name if isinstance(value, Name) else f"a {type(value).__name__.strip('_')}"


class _Machine:
    """State of the interpreter: stack, marks and memo of one pickle, and its storages by key."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def pop(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise EOFError("pickle stack underflow")
        return [self.stack.pop() for _ in range(count)][::-1]

    def above_mark(self) -> list[Any]:
        return self.pop(max(len(self.stack) - self.marks.pop(), 0))

    def extend(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise Refused(f"appends to {describe(self.stack[-1])}, which is not tensor data")
        self.stack[-1].extend(values)

    def update(self, pairs: list[Any]) -> None:
        if type(self.stack[-1]) not in (dict, OrderedDict):
            raise Refused(f"sets items of {describe(self.stack[-1])}, which is not tensor data")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            # Tuples are refused, because hashing a nested tuple recurses in C without a limit.
            if type(key) not in _KEY_TYPES:
                raise Refused(f"has {describe(key)} as a key")
            self.stack[-1][key] = value

    def reduce(self) -> None:
        function, arguments = self.pop(2)
        if not isinstance(function, Name) or function.name not in _BUILDERS:
            raise Refused(f"calls {describe(function)}, which is not tensor data")
        self.stack.append(_BUILDERS[function.name](*arguments))

    def build(self) -> None:
        """Drops the attribute `_metadata`, which `state_dict()` sets on its OrderedDict. No attribute is ever set."""
        state = self.pop(1)[0]
        if type(self.stack[-1]) is not OrderedDict or type(state) is not dict:
            raise Refused(f"sets attributes of {describe(self.stack[-1])}")

    def persistent(self) -> None:
        # Only old files have the sixth item, a view of another storage.
        kind, storage_type, key, _location, numel, view = [*typed(self.pop(1)[0], tuple)[:6], None][:6]
        if typed(kind, str) != "storage" or view is not None:
            raise Refused(f"refers to {kind[:40]!a} data or to a view, not to a plain storage")
        dtype = np.dtype(_STORAGES[_storage_name(typed(storage_type, Name).name)])
        storage = Storage(typed(key, str), dtype, _natural(numel))
        if self.storages.setdefault(key, storage) != storage:
            raise Refused(f"uses storage {key!a} with two types or sizes")
        self.stack.append(storage)


def _storage_name(name: str) -> str:
    match = re.fullmatch(r"torch\.(?:cuda\.)?(\w+)Storage", name)
    return match[1] if match else ""


def typed(value: Any, kind: type) -> Any:
    """Returns `value` after checking that its type is exactly `kind`."""
    if type(value) is not kind:
        raise TypeError(f"{kind.__name__} expected, got {type(value).__name__}")
    return value


def _natural(value: Any) -> int:
    if typed(value, int) < 0:
        raise ValueError("negative size")
    return value


def _global(name: str) -> Any:
    if name in _DTYPES:
        return _DTYPES[name]
    if name in _BUILDERS or _storage_name(name) in _STORAGES:
        return Name(name)
    raise Refused(f"refers to {ascii(name)[1:-1][:100]}, which is not tensor data")


def _tensor(storage, offset, size, stride, _requires_grad, _hooks, _metadata=None) -> Tensor:
    # Checked before anything is copied, because many tensors can share one long tuple as their size.
    if len(typed(size, tuple)) > MAX_DIMENSIONS:
        raise ValueError(f"more than {MAX_DIMENSIONS} dimensions")
    # Computed with Python's integers. NumPy's own check overflows, and a huge stride could read any memory.
    steps = zip(map(_natural, size), map(_natural, typed(stride, tuple)), strict=True)
    last = _natural(offset) + sum((n - 1) * step for n, step in steps)
    if 0 not in size and last >= typed(storage, Storage).numel:
        raise Refused(f"has a tensor of shape {brief(size)} that reaches beyond its {storage.numel} stored elements")
    return Tensor(storage, offset, size, stride)


def brief(size: tuple[int, ...]) -> str:
    """A shape as text, cut off after 80 characters."""
    return str(list(size))[:80]


_BUILDERS: dict[str, Callable] = {
    "collections.OrderedDict": lambda: OrderedDict(),
    "torch.Size": lambda size: typed(size, tuple),
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda data, _requires_grad, _hooks: typed(data, Tensor),
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


def interpret(file: IO[bytes]) -> tuple[Any, dict[str, Storage]]:
    """Interprets one pickle from `file`.

    Returns:
      The object, with `Tensor`, `Storage` and `Name` in place of PyTorch's objects, and the storages by key.

    Raises:
      Refused: the pickle holds anything but plain tensor data, or too much of it.
    """
    machine, start = _Machine(), file.tell()
    for opcode, arg, _ in pickletools.genops(file):
        if file.tell() - start > MAX_PICKLE_BYTES:
            raise Refused(f"has more than {MAX_PICKLE_BYTES >> 20} MiB of structure around its tensors: refused")
        if opcode.name not in _OPS:
            argument = f" ({arg[:80]!a})" if isinstance(arg, str) else ""
            raise Refused(f"uses pickle opcode {opcode.name}{argument}, unlike torch.save")
        _OPS[opcode.name](machine, arg)
    return machine.pop(1)[0], machine.storages
