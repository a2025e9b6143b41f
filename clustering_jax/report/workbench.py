"""The workbench of the report: the clusters, the map and the corrections, which the page's script fills in."""

from __future__ import annotations

import json
import shlex

from clustering_jax.report.assigned import Assigned
from clustering_jax.report.clusters import Facts
from clustering_jax.report.content import Content
from clustering_jax.report.layout import MAPS, Points, points_of
from clustering_jax.report.markup import Html, element
from clustering_jax.report.rows import NUMBERED, of_content

SORTS = {"number": "number", "size": "size", "sure": "least sure first"}


def workbench(content: Content, assigned: Assigned, facts: Facts, kind: str) -> list[Html]:
    """The sections of the workbench.

    Args:
      content: the content of the report.
      assigned: its assignments.
      facts: what is known of the clusters.
      kind: kind of the map, see `layout.MAPS`.
    """
    points = points_of(content, kind)
    values = of_content(content, assigned, points, facts.lines)
    parts = [*_clusters(content, assigned, len(values["rows"]["id"]))]
    parts += _map(points, kind, len(assigned.ids), len(values["clusters"])) if points else []
    parts += _corrections(content) if content.finished else []
    text = json.dumps(values, separators=(",", ":")).replace("<", "\\u003c")
    return [*parts, _bar(content), _large(content), element("script", Html(text), type="application/json", id="data")]


def _clusters(content: Content, assigned: Assigned, shown: int) -> list[Html]:
    n = len(assigned.ids)
    note = "A click enlarges a row; Ctrl-click, or S on the keyboard, selects it. The number is the probability."
    note += " Drag a row, or the selected ones, onto another cluster to move it there." if content.finished else ""
    part = (
        f" This page has {shown:,} of the {n:,} rows: the most typical, least sure and odd ones, and others at random."
    )
    options = [element("option", text, value=name) for name, text in SORTS.items()]
    return [
        element("h2", "Clusters"),
        element("noscript", element("p", "The clusters and the map need JavaScript.", class_="warning")),
        element("p", note + (part if shown < n else ""), class_="note help"),
        element("p", element("label", "Order: ", element("select", *options, id="sort")), class_="controls"),
        element("div", id="clusters"),
        element("p", element("button", "More", type="button", id="further"), class_="controls"),
    ]


def _map(points: Points, kind: str, n: int, k: int) -> list[Html]:
    m = len(points.rows)
    whole = f"all {n:,} rows" if m == n else f"{m:,} rows, drawn at random"
    note = f"{MAPS[kind]} of the embedding of {whole}. Each number is at the median of its cluster."
    note += f" Only the {NUMBERED} largest clusters have a number." if k > NUMBERED else ""
    buttons = {"lasso": "Lasso", "closer": "+", "farther": "-", "whole": "Whole map"}
    names = {"closer": "Zoom in", "farther": "Zoom out"}
    label = "Map of the embedding. Arrow keys go from row to row, Enter enlarges, S selects, + and - zoom, 0 shows all."
    return [
        element("h2", "Map of the embedding"),
        element("p", note, class_="note"),
        element(
            "p",
            *(element("button", text, type="button", id=i, aria_label=names.get(i)) for i, text in buttons.items()),
            element(
                "span", "Drag to select; Shift adds. Ctrl and the wheel zoom; without the lasso, drag moves the map."
            ),
            class_="controls",
        ),
        element(
            "div",
            element("canvas", id="points", aria_hidden="true"),
            element("canvas", id="pointer", tabindex="0", role="application", aria_label=label),
            element("div", id="tip", hidden=""),
            id="field",
        ),
    ]


def _corrections(content: Content) -> list[Html]:
    name = shlex.quote(content.name)
    command = f"clustering-jax edit --workdir={name} --output={name}-corrected --json corrections.json"
    hint = "Rename, merge, split, lock or move above. The corrections are collected here."
    return [
        element("h2", "Corrections", class_="correct", id="correct"),
        element("p", hint, id="no-corrections", class_="note correct"),
        element(
            "div",
            element("ol", id="corrections"),
            element("p", element("button", "Download corrections.json", type="button", id="download", class_="strong")),
            element("p", "Then, in the directory above the workdir:", class_="note"),
            element("pre", command),
            id="correcting",
            class_="correct",
            hidden="",
        ),
    ]


def _button(text: str, name: str, class_: str | None = None) -> Html:
    return element("button", text, type="button", id=name, class_=class_)


def _target(name: str, text: str) -> list[Html]:
    """A list of the clusters, and a button that moves rows there."""
    return [element("label", "to ", element("select", id=f"{name}target")), _button(text, f"{name}move", "strong")]


def _bar(content: Content) -> Html:
    selection = [element("b", id="selected"), *(_target("", "Move") if content.finished else [])]
    selection += [_button("Ids as a file", "ids"), _button("Clear", "clear")]
    merging = element("span", _button("Merge", "merge", "strong"), id="merging", class_="controls")
    return element(
        "aside",
        element("span", *selection, id="selection", class_="controls"),
        merging,
        *([_button("", "count")] if content.finished else []),
        id="bar",
        hidden="",
        aria_label="Selection",
    )


def _large(content: Content) -> Html:
    before, after = _button("Previous", "large-before"), _button("Next", "large-after")
    select = [_button("Select", "large-select"), *(_target("large-", "Move") if content.finished else [])]
    return element(
        "dialog",
        element("img", id="large-picture", alt=""),
        element("h3", id="large-title"),
        element("dl", id="large-facts"),
        element(
            "p",
            before,
            after,
            element("span", id="large-place"),
            *select,
            _button("Close", "large-close"),
            class_="controls",
        ),
        id="large",
        aria_labelledby="large-title",
    )
