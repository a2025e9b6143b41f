"""Reads lists of nouns: the index of WordNet, or a text file with one noun per line."""

from __future__ import annotations

import re
from pathlib import Path

from clustering_jax.errors import UserError

# A line of WordNet's index files: lemma, part of speech, number of senses, ...
_INDEXED = re.compile(r"(\S+) n \d+ ")
INDEX = "index.noun"


def read_nouns(path: str | Path) -> list[str]:
    """Reads the nouns of a file, in its order, each once.

    Args:
      path: `index.noun` of WordNet 3.0 or 3.1, in which underscores become blanks; a directory that holds it, or holds
        `dict/index.noun`; or a UTF-8 text file with one noun per line. Surrounding blanks and empty lines are ignored.

    Raises:
      UserError: the file is missing, is not text, or holds no noun.
    """
    file = _file(path)
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} can't be read as UTF-8 text ({error}): give one noun a line") from error
    # The files of WordNet begin with their licence, indented by two blanks.
    entries = [line for line in lines if line and not line.startswith("  ")]
    matches = [_INDEXED.match(line) for line in entries]
    if entries and all(matches):
        words = [match[1].replace("_", " ") for match in matches if match]
    else:
        words = [line.strip() for line in lines]
    nouns = list(dict.fromkeys(filter(None, words)))
    if not nouns:
        raise UserError(f"{file} holds no noun: give WordNet's {INDEX}, or a text file with one noun a line")
    return nouns


def _file(path: str | Path) -> Path:
    given = Path(path).expanduser()
    if not str(path) or not given.exists():
        raise UserError(f"'{path}' does not exist: give WordNet's {INDEX}, or a text file with one noun a line")
    if not given.is_dir():
        return given
    candidates = [given / INDEX, given / "dict" / INDEX]
    index = next((file for file in candidates if file.is_file()), None)
    if index is None:
        raise UserError(f"{path} holds no {INDEX}: give WordNet's directory, or a text file with one noun a line")
    return index
