"""The report as one self-contained HTML file: no external address, pictures and scripts embedded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flax.traverse_util import flatten_dict

from clustering_jax.report.charts import lines
from clustering_jax.report.clusters import facts_of, reliability
from clustering_jax.report.content import Content, clusters_of
from clustering_jax.report.dendrogram import dendrogram
from clustering_jax.report.markup import Html, element, joined
from clustering_jax.report.static import digest, script, style
from clustering_jax.report.workbench import workbench

# The browser blocks anything else that the page might load. Pictures may be files beside the page.
POLICY = "default-src 'none'; img-src data: file: 'self'; style-src 'unsafe-inline'; script-src "
SHOWN = ("acc", "nmi", "ari", "purity", "ami", "fmi")
NEIGHBOURS = {"knn_accuracy": "accuracy of a vote of the", "knn_consistency": "share in the row's own cluster of the"}
LABEL_FREE = ("occupied", "confidence", "entropy")
# Keys of a line of metrics.jsonl that are not terms of the loss.
OTHERS = ("step", "phase", "images_per_second", "occupied", "entropy", "grad_norm")


def page(content: Content, kind: str) -> str:
    """Builds the report.

    Args:
      content: the content of the report.
      kind: kind of the map, see `layout.MAPS`.

    Returns:
      The HTML file as text.
    """
    method = (content.result or {}).get("kept") or content.config["method"].upper()
    title = f"{content.name}: clusters by {method}"
    head = (
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY + digest(script())),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", style()),
    )
    parts = (_opening(content, title), *_clusters(content, kind), *_progress(content), *_settings(content))
    end = [element("script", script())] if content.assigned else []
    body = element("body", *parts, element("p", id="status", class_="quiet", aria_live="polite"), *end)
    return f"<!DOCTYPE html>\n{element('html', element('head', *head), body, lang='en')}\n"


def _clusters(content: Content, kind: str) -> list[Html]:
    """The workbench, the scores, and the charts of the clusters."""
    if content.assigned is None:
        return _scores(content)
    facts, result = facts_of(content, content.assigned), content.result or {}
    more = dendrogram(result["levels"], content.names) if "levels" in result else None
    charts = [*facts.charts, *([more] if more else []), *reliability(result, len(content.assigned.ids))]
    grid = element("div", *charts, class_="charts")
    numbers = [*_scores(content), element("h2", "Clusters in numbers"), grid]
    return [*workbench(content, content.assigned, facts, kind), *numbers]


def table(heads: Sequence[object], rows: Iterable[Sequence[object]], class_: str | None = None) -> Html:
    """A table. It scrolls horizontally if it is wider than the page."""
    first = [element("thead", element("tr", *(element("th", h) for h in heads)))] if heads else []
    body = element("tbody", *(element("tr", *(element("td", cell) for cell in row)) for row in rows))
    return element("div", element("table", *first, body, class_=class_), class_="scroll")


def decimal(value: Any) -> str:
    """Formats a float with three decimal places and an integer with thousands separators."""
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}"


def _opening(content: Content, title: str) -> Html:
    parts = [element("h1", title)]
    if not content.finished:
        parts.append(
            element("p", "This run has not finished. The figures are for its newest checkpoint.", class_="warning")
        )
    if content.result:
        protocol = content.result["protocol"]
        seed = f"seed {content.result['seed']}"
        parts.append(
            element(
                "p",
                f"Trained on {protocol['trained_on']}. Scored on {protocol['scored_on']}, {protocol['scored_at']}, "
                f"{seed}. Labels: {protocol['labels']}.",
            )
        )
    parts += [element("p", f"Left out: {note}", class_="warning") for note in content.notes]
    return element("header", *parts)


def _scores(content: Content) -> list[Html]:
    if not content.result:
        return []
    scores, several = content.result["scores"], content.result.get("seeds")
    names = [name for name in SHOWN if name in scores]
    cards = [_card(name.upper(), decimal(scores[name]), _best_baseline(content.result, name)) for name in names[:4]]
    cards += [_card(name.capitalize(), decimal(scores[name]), _explanation(name, content)) for name in LABEL_FREE]
    compared = content.result["protocol"].get("neighbours", "")
    notes = {name: f"{start} {compared}" for name, start in NEIGHBOURS.items() if name in scores}
    cards += [_card(name.replace("knn_", "Neighbour "), decimal(scores[name]), note) for name, note in notes.items()]
    parts = [element("h2", "Scores"), element("div", *cards, class_="cards")]
    if names:
        parts.append(table(["", *map(str.upper, names)], _rows(content.result, names)))
    parts += _candidates(content.result, names)
    if several:
        heads = ["seed", "criterion", *(name.upper() for name in names), "occupied"]
        keys = ["criterion", *names, "occupied"]
        each = [[row["seed"], *(decimal(row[key]) for key in keys)] for row in several["each"]]
        note = "The seed with the smallest criterion is selected. The criterion uses no labels."
        parts += [element("h3", "Each seed"), table(heads, each), element("p", note, class_="note")]
    return parts


def _candidates(result: Mapping[str, Any], names: Sequence[str]) -> list[Html]:
    """The candidates of the recipe "auto" with the agreement that decides between them."""
    rows = result.get("candidates", [])
    if not rows:
        return []
    keys = ["agreement", "occupied", *(name for name in names if name in rows[0])]
    each = [
        [row["name"], *(decimal(row[key]) for key in keys), "kept" * (row["name"] == result["kept"])] for row in rows
    ]
    note = "The agreement is how well each view predicts the clusters. It uses no labels. "
    note += "Plain k-means is kept unless another candidate leads clearly."
    heads = ["candidate", *keys[:2], *map(str.upper, keys[2:]), ""]
    verdict = [element("p", f"{result['verdict']}.")] if result.get("verdict") else []
    return [element("h3", "Candidates"), table(heads, each), *verdict, element("p", note, class_="note")]


def _card(name: str, value: str, note: str) -> Html:
    return element("div", name, element("b", value), element("span", note, class_="note"), class_="card")


def _best_baseline(result: Mapping[str, Any], name: str) -> str:
    """The name and the score of the best baseline."""
    best = max(result["baselines"], key=lambda row: row[name], default=None)
    return f"{best['name']}: {best[name]:.3f}" if best else ""


def _explanation(name: str, content: Content) -> str:
    """Explains a score that needs no labels."""
    k = len(clusters_of(content))
    return {
        "occupied": f"of {k} clusters have a member",
        "confidence": "mean probability of the assigned cluster",
        "entropy": f"entropy of the mean assignment in nats, at most {math.log(max(k, 1)):.3f}",
    }[name]


def _rows(result: Mapping[str, Any], names: Sequence[str]) -> list[list[object]]:
    """The rows of the table of scores: the run, the mean over seeds, the best seed, the baselines."""
    rows = [[result["method"], *(decimal(result["scores"][name]) for name in names)]]
    if several := result.get("seeds"):
        mean, std = several["mean"], several["std"]
        spread = [joined(decimal(mean[name]), element("small", f" ± {std[name]:.3f}")) for name in names]
        best = max(several["each"], key=lambda scores: scores[names[0]])
        rows.append([f"mean ± std of {len(several['each'])} seeds", *spread])
        rows.append(["best seed by label", *(decimal(best[name]) for name in names)])
    return rows + [[row["name"], *(decimal(row[name]) for name in names)] for row in result["baselines"]]


def _progress(content: Content) -> list[Html]:
    """Charts of the scores and the loss terms over the steps. Each term has its own chart because the scales differ."""
    steps = [row for row in content.log if "phase" in row]
    evaluated = _evaluated(content)
    marks = [
        (row["step"], row["phase"]) for i, row in enumerate(steps) if i == 0 or steps[i - 1]["phase"] != row["phase"]
    ]
    marks = marks if len(marks) > 1 else []
    scores = {name.upper(): _series(evaluated, name) for name in SHOWN[:4] if any(name in row for row in evaluated)}
    several = len(evaluated) > 1
    charts = [lines(scores, title="Scores at evaluations", limits=_limits(scores))] if scores and several else []
    terms = sorted({name for row in steps for name in row}.difference(OTHERS), key=lambda name: (name != "loss", name))
    charts += [lines({name: _series(steps, name)}, title=_term(name), marks=marks) for name in terms]
    for rows, name, title in (
        (evaluated, "occupied", "Occupied clusters"),
        (evaluated, "confidence", "Mean confidence"),
        (steps, "images_per_second", "Examples per second"),
    ):
        points = _series(rows, name)
        charts += [lines({name: points}, title=title, limits=_from_zero(name, points[1]))] if len(rows) > 1 else []
    if content.curve and "curve" in content.curve:
        k, value = zip(*content.curve["curve"], strict=True)
        title = f"Number of clusters, chosen by {content.curve['criterion']}"
        charts.append(lines({"silhouette": (k, value)}, title=title, x_label="clusters"))
    note = (
        "" if several else "The run was scored once, at its end. The setting run.evaluate_every scores it more often."
    )
    grid = element("div", *charts, class_="grid")
    return [element("h2", "Over time"), element("p", note, class_="note"), grid] if charts else []


def _evaluated(content: Content) -> list[dict[str, Any]]:
    """The scores of each evaluation, and the final scores if the last step was not evaluated."""
    rows = [{k.removeprefix("eval/"): v for k, v in row.items()} for row in content.log if "eval/occupied" in row]
    last = max((row["step"] for row in content.log), default=0)
    if content.finished and content.result and not (rows and rows[-1]["step"] == last):
        means = content.result.get("seeds", {}).get("mean", content.result["scores"])
        rows.append({"step": last, **means})
    return rows


def _term(name: str) -> str:
    return "Loss" if name == "loss" else f"Loss term: {name}"


def _limits(scores: Mapping[str, tuple[list, list]]) -> tuple[float, float]:
    """The range from 0, or from the smallest score if it is negative, to 1."""
    return min(0.0, *(v for _, values in scores.values() for v in values)), 1.0


def _from_zero(name: str, values: Sequence[float]) -> tuple[float, float]:
    """The range from 0 to a little above the largest finite value; to 1 for a probability."""
    largest = max((v for v in values if math.isfinite(v)), default=1.0)
    return 0.0, 1.0 if name == "confidence" else 1.08 * largest or 1.0


def _series(rows: Iterable[Mapping[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """Steps and values of the lines that have the key `name`. Null (a value that is not finite) becomes NaN."""
    points = [(row["step"], math.nan if row[name] is None else row[name]) for row in rows if name in row]
    return [step for step, _ in points], [value for _, value in points]


def _settings(content: Content) -> list[Html]:
    result = content.result or {}
    rates = [row["images_per_second"] for row in content.log if row.get("images_per_second")]
    timing = [("steps logged", f"{max((row['step'] for row in content.log), default=0):,}")]
    if content.finished:
        timing.append(("wall time", _duration(result["wall_time_seconds"])))
    if rates:
        timing.append(("examples per second, median", f"{sorted(rates)[len(rates) // 2]:,.0f}"))
    config = flatten_dict(dict(content.config), sep=".", keep_empty_nodes=False)
    parts = (
        element("h2", "Timing"),
        table([], timing, "long"),
        element("h2", "Versions"),
        table([], result.get("versions", {}).items(), "long"),
        element("h2", "Config"),
        element("div", table([], config.items(), "long"), class_="columns"),
    )
    return [joined(*parts)]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
