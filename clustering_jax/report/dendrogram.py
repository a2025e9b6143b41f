"""The tree of the clusters, with the levels that cut it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.cluster import hierarchy

from clustering_jax.report.markup import Html, element
from clustering_jax.report.svg import LETTER, TOP, WIDTH, figure, line, number, text

LEAVES = 60  # largest number of leaves; the smallest parts of a larger tree are put together
ROW = 13.0  # height of a leaf
LETTERS = 16  # largest length of a label


def dendrogram(levels: Mapping[str, Any], names: Sequence[Sequence[str]]) -> Html | None:
    """Draws the tree of the clusters, from its leaves on the left to its root on the right.

    Args:
      levels: "levels" of result.json: the linkage, its clusters, and the groups of each level.
      names: words of each cluster; may be empty.

    Returns:
      The figure; None if there are fewer than two clusters.
    """
    links = np.array(levels["linkage"], float)
    if not len(links):
        return None
    labels = [_label(cluster, names) for cluster in levels["clusters"]]
    mode = {"truncate_mode": "lastp", "p": LEAVES} if len(labels) > LEAVES else {}
    tree = hierarchy.dendrogram(links, labels=labels, no_plot=True, **mode)
    leaves = [label if not label.startswith("(") else f"{label[1:-1]} clusters" for label in tree["ivl"]]
    left = 12 + LETTER * max(map(len, leaves))
    top, height, highest = TOP + 14, ROW * len(leaves), links[-1, 2] or 1.0

    def x(value: float) -> float:
        return left + value / highest * (WIDTH - 14 - left)

    def y(value: float) -> float:
        return top + value / 10 * ROW

    paths = "".join(
        f"M{number(x(d[0]))} {number(y(i[0]))}" + "".join(f"L{number(x(b))} {number(y(a))}" for a, b in pairs[1:])
        for i, d in zip(tree["icoord"], tree["dcoord"], strict=True)
        for pairs in [list(zip(i, d, strict=True))]
    )
    body = [text(left - 5, y(10 * i + 5) + 4, label, text_anchor="end") for i, label in enumerate(leaves)]
    body.append(element("path", d=paths, class_="line"))
    for count in sorted(map(int, levels["groups"])):
        at = x(_cut(links, count))
        body += [
            line(at, top, at, top + height, "mark"),
            text(at, top - 5, count, text_anchor="middle", class_="small"),
        ]
    note = "Ward's linkage of the clusters' centroids in the embedding. Dashed: the levels, by their number of groups."
    return figure(*body, title="Tree of the clusters", height=top + height + 6, note=note)


def _cut(links: np.ndarray, count: int) -> float:
    """A height at which the tree has `count` parts."""
    heights = np.append(links[:, 2], links[-1, 2])
    after = max(len(links) + 1 - count, 0)  # merges below the cut
    return float((heights[after - 1] if after else 0) + heights[min(after, len(links))]) / 2


def _label(cluster: int, names: Sequence[Sequence[str]]) -> str:
    words = names[cluster][:1] if cluster < len(names) else []
    whole = " ".join([str(cluster), *words])
    return whole if len(whole) <= LETTERS else f"{whole[: LETTERS - 1]}…"
