"""The `Dataset` type, and the rows of each batch as pure functions of (seed, step)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from clustering_jax.errors import UserError


class Vocabulary(NamedTuple):
    """Words and their embeddings in the space of the images.

    Attributes:
      words: n words.
      embeddings: [n, d] floats, one row per word.
    """

    words: list[str]
    embeddings: np.ndarray


class Blocks(NamedTuple):
    """A shuffle in two levels that reads from few places at a time; see `epoch_permutation`.

    Attributes:
      rows: rows per block, at least 1. The rows of a block are adjacent in the input.
      window: number of blocks whose rows are mixed with each other, at least 1.
    """

    rows: int
    window: int


def blocks_of(rows: int, window: int) -> Blocks | None:
    """Returns the `Blocks` of two settings, or None (a full shuffle) if `rows` is 0.

    Args:
      rows: rows per block, at least 0.
      window: number of blocks that are mixed with each other, at least 1.

    Raises:
      UserError: `rows` or `window` is out of range.
    """
    if rows < 0 or window < 1:
        raise UserError(f"shuffle_block {rows}, shuffle_window {window}: give at least 0 rows and 1 block")
    return Blocks(rows, window) if rows else None


class Dataset(NamedTuple):
    """One split, or several joined splits. The rows keep their input order.

    Attributes:
      features: arrays [n, ...] by name, in memory, memory-mapped, or `LazyArray`. Images are
        ``{"image": uint8 [n, h, w, c]}`` with c = 1 or 3.
      ids: n strings: a file name, or the row number.
      labels: int [n], negative where a row has no label; None if there are no labels. They are used for scoring only.
        Training never sees them.
      name: name of the data set.
      split: name of the split.
      notes: messages for the user, one line each.
      scalings: the fitted scaling of each view, as plain JSON values, so that new rows can be scaled alike. See
        `clustering_jax.data.views.dataset.apply_scalings`. None for data that are not scaled views.
      vocabulary: words in the space of the features, if there are any.
      partners: by feature, int32 [n, m]: the rows from which `partner_rows` draws the partner of each row.
      blocks: how the epochs are shuffled. None is a full shuffle.
    """

    features: dict[str, Any]
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
        """Number of rows."""
        return len(self.ids)


def row_ids(n: int) -> list[str]:
    """Returns the ids "0", "1", ... for rows without names."""
    return [str(i) for i in range(n)]


def known_labels(labels: np.ndarray) -> np.ndarray | None:
    """Returns `labels`, or None if all of them are negative, as in an unlabelled split."""
    return labels if (labels >= 0).any() else None


# Ten seeds side by side, each at the border of two epochs.
@lru_cache(maxsize=32)
def epoch_permutation(seed: int, epoch: int, n: int, blocks: Blocks | None = None) -> np.ndarray:
    """Returns the order of the rows in one epoch. It is a pure function of its arguments.

    With `blocks`, the shuffle has two levels: the blocks come in random order, and the rows of each `window` of
    consecutive blocks are mixed. A window of all blocks is the full shuffle.

    The order comes from sorting raw generator output. NumPy keeps that output the same in all versions, unlike
    ``Generator.permutation``, so a run resumes with the same batches after an upgrade.

    Args:
      seed: at least 0.
      epoch: number of the epoch, from 0.
      n: number of rows.
      blocks: the block shuffle. None is a full shuffle.

    Returns:
      int32 [n], read-only.
    """
    words = np.random.Philox(np.random.SeedSequence((seed, epoch))).random_raw(n)
    if blocks:
        order = np.lexsort((words, _windows(seed, epoch, n, blocks))).astype(np.int32)
    else:
        order = np.argsort(words, kind="stable").astype(np.int32)
    order.flags.writeable = False
    return order


def _windows(seed: int, epoch: int, n: int, blocks: Blocks) -> np.ndarray:
    """Returns the window of each row in an epoch, int [n]."""
    # A stream of its own: the row order is seeded by two numbers, the partners by a third number that is not 0.
    words = np.random.Philox(np.random.SeedSequence((seed, epoch, 0, 1))).random_raw(-(-n // blocks.rows))
    positions = np.argsort(words, kind="stable")
    return (positions // blocks.window)[np.arange(n) // blocks.rows]


def batch_indices(seed: int, step: int, n: int, batch_size: int, blocks: Blocks | None = None) -> np.ndarray:
    """Returns the rows of one batch of a stream. It is a pure function of its arguments.

    An epoch has ``n // batch_size`` steps over a fresh permutation. The remaining rows are dropped.

    Args:
      seed: at least 0.
      step: step of the stream, from 0.
      n: number of rows.
      batch_size: between 1 and n.
      blocks: the block shuffle of `epoch_permutation`.

    Returns:
      int32 [batch_size].

    Raises:
      ValueError: `batch_size` is not between 1 and `n`.
    """
    if not 1 <= batch_size <= n:
        raise ValueError(f"batch_size {batch_size} is not between 1 and the number of rows {n}")
    epoch, position = divmod(step, n // batch_size)
    return epoch_permutation(seed, epoch, n, blocks)[position * batch_size : (position + 1) * batch_size]


def partner_rows(seed: int, step: int, index: np.ndarray, partners: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Draws a partner for each row of a batch and each feature. It is a pure function of its arguments.

    Args:
      seed: at least 0.
      step: step of the stream, from 0.
      index: rows of the batch, int32 [b].
      partners: by feature, int32 [n, m], the candidate rows.

    Returns:
      By feature, int32 [b].
    """
    drawn = {}
    for number, (name, candidates) in enumerate(sorted(partners.items())):
        words = np.random.Philox(np.random.SeedSequence((seed, step, number + 1))).random_raw(len(index))
        drawn[name] = candidates[index, words % np.uint64(candidates.shape[1])]
    return drawn
