"""What a user wants to correct: from flags, from a JSON file, or from Python."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from clustering_jax.data.labels import UNKNOWN
from clustering_jax.errors import UserError, nearest

AS_JSON = '{"merge": [[3, 7]], "split": {"5": 3}, "rename": {"2": "street signs"}, "move": {"a.jpg": 4}, "lock": [4]}'
AS_FLAGS = '--merge 3,7 --split 5:3 --rename "2=street signs" --lock 4'


class Request(NamedTuple):
    """Corrections. All cluster numbers are those before the corrections.

    Attributes:
      merge: groups of clusters; each group becomes its first cluster.
      split: number of parts of each cluster to split. The largest part keeps the number.
      rename: name of each cluster to rename.
      move: cluster of each row to move, by the id of the row; -1 is no cluster.
      lock: clusters that later corrections must not change, and that retraining keeps.
      unlock: clusters that may be changed again.
    """

    merge: Sequence[Sequence[int]] = ()
    split: Mapping[int, int] = {}
    rename: Mapping[int, str] = {}
    move: Mapping[str, int] = {}
    lock: Sequence[int] = ()
    unlock: Sequence[int] = ()

    def to_json(self) -> dict[str, Any]:
        """The corrections that are not empty, as JSON values."""
        values = {**self._asdict(), "merge": [list(group) for group in self.merge]}
        values |= {name: {str(k): v for k, v in values[name].items()} for name in ("split", "rename", "move")}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items() if v}


def from_json(value: Any, where: str, example: str = AS_JSON) -> Request:
    """Reads corrections from parsed JSON, which is also what Python callers give.

    Args:
      value: a dictionary with the attributes of `Request`.
      where: where it comes from, for messages.
      example: what would be right there, for messages.

    Raises:
      UserError: an unknown key, or a value of another kind.
    """
    if not isinstance(value, Mapping):
        raise UserError(f"{where} must be an object with keys such as merge and rename")
    for name in value:
        if name not in Request._fields:
            raise UserError(f"{where} has no key '{name}'{nearest(str(name), Request._fields)}")
    try:
        return Request(
            [[_whole(c) for c in group] for group in value.get("merge", ())],
            {_whole(c): _whole(parts) for c, parts in value.get("split", {}).items()},
            {_whole(c): _text(name) for c, name in value.get("rename", {}).items()},
            {str(row): _whole(c) for row, c in value.get("move", {}).items()},
            [_whole(c) for c in value.get("lock", ())],
            [_whole(c) for c in value.get("unlock", ())],
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{where} can't be read ({error}): give for example {example}") from error


def _whole(value: Any) -> int:
    try:
        if not isinstance(value, bool) and int(value) == float(value):
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{value!r} is no whole number")


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{value!r} is no name")
    return value.strip()


def from_file(path: Path) -> Request:
    """Reads corrections from a JSON file.

    Args:
      path: the file.

    Raises:
      UserError: the file can't be read.
    """
    try:
        return from_json(json.loads(path.read_text("utf-8")), str(path))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read as JSON ({' '.join(str(error).split())})") from error


def from_flags(merge: Sequence[str], split: Sequence[str], rename: Sequence[str], lock: str, unlock: str) -> Request:
    """Reads corrections from flags.

    Args:
      merge: texts such as "3,7".
      split: texts such as "5:3".
      rename: texts such as "2=street signs".
      lock: text such as "4,6"; "" is none.
      unlock: the same.

    Raises:
      UserError: a text can't be read.
    """
    splits = dict(_pair(text, ":", "--split", "5:3") for text in split)
    names = dict(_pair(text, "=", "--rename", "2=street signs") for text in rename)
    values: dict[str, Any] = {"merge": [_listed(text) for text in merge], "split": splits, "rename": names}
    return from_json({**values, "lock": _listed(lock), "unlock": _listed(unlock)}, "a flag", AS_FLAGS)


def _listed(text: str) -> list[str]:
    return [part for part in text.split(",") if part.strip()]


def _pair(text: str, between: str, flag: str, example: str) -> list[str]:
    parts = text.split(between, 1)
    if len(parts) != 2:
        raise UserError(f"{flag}={text}: give it as {flag} {example!r}")
    return parts


def combined(requests: Sequence[Request]) -> Request:
    """All corrections of several requests as one; the later one wins where two name or move the same thing."""
    first, *others = requests
    for each in others:
        first = Request(
            [*first.merge, *each.merge],
            {**first.split, **each.split},
            {**first.rename, **each.rename},
            {**first.move, **each.move},
            [*first.lock, *each.lock],
            [*first.unlock, *each.unlock],
        )
    return first


def read_columns(path: Path, columns: tuple[str, ...]) -> list[Any]:
    """Reads columns of a CSV file by their names.

    Args:
      path: the file; its first line names the columns.
      columns: the names.

    Returns:
      One tuple of texts for each line.

    Raises:
      UserError: the file can't be read, or lacks a column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise UserError(f"{path} has no column '{missing[0]}': its first line must be {','.join(columns)}")
            return [tuple(row[name] or "" for name in columns) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} can't be read ({error})") from error


def checked_pairs(pairs: Sequence[Sequence[Any]], where: str) -> list[tuple[str, str, int]]:
    """Pairs of rows with a link of 1 (the same cluster) or 0 (different clusters).

    Args:
      pairs: id, id and link of each.
      where: where they come from, for messages.

    Raises:
      UserError: a link is neither, or a row is paired with itself.
    """
    for a, b, link in pairs:
        if str(int(link) if isinstance(link, bool) else link) not in ("0", "1") or str(a) == str(b):
            raise UserError(f"{where}: the pair {a}, {b} has link {link!r}; give two rows, and 1 (same) or 0 (not)")
    return [(str(a), str(b), int(link)) for a, b, link in pairs]


def from_moves(path: Path) -> Request:
    """Reads rows to move from a CSV file with the columns id and cluster.

    Args:
      path: the file.

    Raises:
      UserError: the file can't be read, or a cluster is no whole number.
    """
    rows = read_columns(path, ("id", "cluster"))
    return from_json({"move": _one_each(rows, path)}, str(path), "the line a.jpg,4")


def read_labels(path: Path) -> dict[str, str]:
    """Reads the classes of a few rows, by their ids, from a CSV file with the columns id and label.

    Args:
      path: the file. A row whose label is empty, NA or the like has none.

    Raises:
      UserError: the file can't be read, or a row has two labels.
    """
    labels = _one_each(read_columns(path, ("id", "label")), path)
    return {row: label.strip() for row, label in labels.items() if label.strip().lower() not in UNKNOWN}


def _one_each(rows: Sequence[tuple[str, str]], path: Path) -> dict[str, str]:
    """The values by their rows; UserError if a row has two of them."""
    values = dict(rows)
    twice = [(row, value) for row, value in rows if values[row] != value]
    if twice:
        row, value = twice[0]
        raise UserError(f"{path} says {value!r} and {values[row]!r} of the row '{row}': keep one of the lines")
    return values
