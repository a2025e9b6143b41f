"""What a data set is to the rest of the package, and which of its rows make up which batch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from clustering_jax.errors import UserError


class Vocabulary(NamedTuple):
    """Words and their embeddings [n, d] in the space of the images."""

    words: list[str]
    embeddings: np.ndarray


class Blocks(NamedTuple):
    """A shuffle that reads from few places at a time, see `epoch_permutation`.

    rows: of a block, which lie side by side in the input. window: blocks that are mixed with each other.
    """

    rows: int
    window: int


def blocks_of(rows: int, window: int) -> Blocks | None:
    """The `Blocks` that settings ask for, None for blocks of 0 rows: a full shuffle.

    Raises:
      UserError: a negative number of rows, or a window of less than one block.
    """
    if rows < 0 or window < 1:
        raise UserError(f"shuffle_block {rows}, shuffle_window {window}: give at least 0 rows and 1 block")
    return Blocks(rows, window) if rows else None


class Dataset(NamedTuple):
    """One split, or several joined, in memory (or memory-mapped, or `Lazy`), rows in input order.

    features: arrays with the example first; images are ``{"image": uint8 [n, h, w, c]}``, c 1 or 3.
    ids: n strings, a file name or the row's number.
    labels: int [n], negative where a row has none, or None: for scoring only, training never sees them.
    notes: what the user should be told, one line each.
    scalings: how multi-view features were scaled, as JSON keeps it, so that new rows can be: see `multiview.scaled`.
    vocabulary: words in the space of the features, where there are any.
    partners: by feature, int32 [n, m], the rows among which each row's partner in a batch is drawn, see `partner_rows`.
    blocks: how epochs are shuffled, None is fully.
    """

    features: dict[str, np.ndarray]
    ids: list[str]
    labels: np.ndarray | None
    name: str
    split: str
    notes: tuple[str, ...] = ()
    scalings: dict[str, Any] | None = None
    vocabulary: Vocabulary | None = None
    partners: Mapping[str, np.ndarray] = MappingProxyType({})
    blocks: Blocks | None = None

    @property
    def num_examples(self) -> int:
        """Rows."""
        return len(self.ids)


def row_ids(n: int) -> list[str]:
    """The ids of rows that have no name of their own: "0", "1", ..."""
    return [str(i) for i in range(n)]


def known_labels(labels: np.ndarray) -> np.ndarray | None:
    """`labels`, or None where every one is negative, as in an unlabelled split."""
    return labels if (labels >= 0).any() else None


# Ten seeds side by side, each at the border of two epochs.
@lru_cache(maxsize=32)
def epoch_permutation(seed: int, epoch: int, n: int, blocks: Blocks | None = None) -> np.ndarray:
    """The order of the rows in an epoch, int32 [n], read-only; a pure function of its arguments.

    With `blocks` it has two levels: the blocks come in random order, and `window` of them at a time have their rows
    mixed. A window of all blocks is the full shuffle.

    It sorts raw generator output, which NumPy keeps the same from version to version, unlike
    ``Generator.permutation``: a run resumes into the same batches after an upgrade.
    """
    words = np.random.Philox(np.random.SeedSequence((seed, epoch))).random_raw(n)
    if blocks:
        order = np.lexsort((words, _windows(seed, epoch, n, blocks))).astype(np.int32)
    else:
        order = np.argsort(words, kind="stable").astype(np.int32)
    order.flags.writeable = False
    return order


def _windows(seed: int, epoch: int, n: int, blocks: Blocks) -> np.ndarray:
    """The window of each row in an epoch, int [n]."""
    # Of its own: the orders of rows end after two numbers, those of partners after a third that is not 0.
    words = np.random.Philox(np.random.SeedSequence((seed, epoch, 0, 1))).random_raw(-(-n // blocks.rows))
    places = np.argsort(words, kind="stable")
    return (places // blocks.window)[np.arange(n) // blocks.rows]


def batch_indices(seed: int, step: int, n: int, batch_size: int, blocks: Blocks | None = None) -> np.ndarray:
    """The rows of a stream's batch number `step`, int32 [batch_size]: a pure function of its arguments.

    An epoch is ``n // batch_size`` steps over a fresh permutation; the rows left over are dropped.

    Args:
      seed: at least 0. step: of the stream, from 0. n: rows. batch_size: between 1 and n.
      blocks: of the permutation.

    Raises:
      ValueError: `batch_size` is not between 1 and `n`.
    """
    if not 1 <= batch_size <= n:
        raise ValueError(f"batch_size {batch_size} is not between 1 and the number of rows {n}")
    epoch, position = divmod(step, n // batch_size)
    return epoch_permutation(seed, epoch, n, blocks)[position * batch_size : (position + 1) * batch_size]


def partner_rows(seed: int, step: int, index: np.ndarray, partners: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A partner for each row of a batch and each feature, int32 [b]: a pure function of its arguments.

    Args:
      seed: at least 0. step: of the stream. index: rows of the batch, int32 [b].
      partners: by feature, int32 [n, m], the rows to choose from.
    """
    drawn = {}
    for number, (name, rows) in enumerate(sorted(partners.items())):
        words = np.random.Philox(np.random.SeedSequence((seed, step, number + 1))).random_raw(len(index))
        drawn[name] = rows[index, words % np.uint64(rows.shape[1])]
    return drawn
