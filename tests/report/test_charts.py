"""Tests the charts of the report: correct markup, numbers, labels that are not clipped, axes that do not mislead."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.cluster.hierarchy import linkage

from clustering_jax.inference import levels
from clustering_jax.report import charts, svg
from clustering_jax.report.dendrogram import dendrogram
from clustering_jax.report.markup import Html, element, joined


def drawn(figure):
    """The SVG of a figure, parsed as XML, without its namespace."""
    return ElementTree.fromstring(
        re.search(r"<svg.*</svg>", figure)[0].replace(' xmlns="http://www.w3.org/2000/svg"', "")
    )


def texts(figure):
    return [node.text for node in drawn(figure).iter("text")]


# --- Markup and numbers


def test_text_is_escaped_but_markup_is_not():
    found = element("p", "a < b", element("b", '"'), title='"><script>', class_="x", aria_label=None)
    assert found == '<p title="&quot;&gt;&lt;script&gt;" class="x">a &lt; b<b>&quot;</b></p>'
    assert isinstance(joined("a", Html("<i>")), Html) and joined("&", Html("<i>")) == "&amp;<i>"
    assert element("div") == "<div></div>" and element("meta", http_equiv="x") == '<meta http-equiv="x">'


@pytest.mark.parametrize(
    "low, high", [(0, 1), (-0.037, 0.11), (3, 12345), (1e-7, 3e-7), (-5, -4.9), (0, 7), (1e6, 9e9)]
)
def test_ticks_are_few_round_numbers_inside_the_range(low, high):
    found = svg.ticks(low, high)
    steps = np.diff(found)
    assert 2 <= len(found) <= 6 and found[0] >= low - 1e-9 * abs(low) and found[-1] <= high + 1e-9 * abs(high)
    np.testing.assert_allclose(steps, steps[0])
    mantissa = steps[0] / 10 ** math.floor(math.log10(steps[0]) + 1e-9)
    assert min(abs(mantissa - m) for m in (1, 2, 5, 10)) < 1e-6


@pytest.mark.parametrize(
    "x, shown", [(0.25, "0.25"), (9000, "9000"), (12000, "12k"), (2.5e6, "2.5M"), (-3e9, "-3G"), (2e12, "2T")]
)
def test_numbers_of_axes(x, shown):
    assert svg.short(x) == shown


def test_35_clusters_have_different_colours_or_markers():
    looks = {(svg.colour(i), svg.marker(0, 0, i, 1)) for i in range(35)}
    assert len(looks) == 35


# --- Charts


def test_bar_heights_are_proportional_to_the_values():
    figure = drawn(charts.bars([10, 0, 40, -20], title="t", x_label="x", level=5))
    heights = [float(node.get("height")) for node in figure.iter("rect")]
    np.testing.assert_allclose(heights, np.array([10, 0, 40, 20]) * heights[0] / 10, atol=0.15)
    assert [node.text for node in figure.iter("title")] == ["0: 10", "1: 0", "2: 40", "3: -20"]


@pytest.mark.parametrize("k", [1, 2, 3, 12, 13, 60, 200, 1000])
def test_the_numbers_below_bars_do_not_overlap(k):
    below = [
        (float(node.get("x")), node.text)
        for node in drawn(charts.bars([1] * k, title="t", x_label="x")).iter("text")
        if node.get("text-anchor") == "middle" and node.get("class") is None
    ]
    assert {int(name) for _, name in below} <= set(range(k)) and len(below) >= min(k, 5)
    assert min(np.diff([x for x, _ in below]), default=99) > 7 * max(len(name) for _, name in below)


def test_a_value_that_is_not_finite_is_a_gap():
    figure = drawn(charts.lines({"a": ([1, 2, 3, 4, 5], [1, 2, math.nan, 4, 5])}, title="t"))
    path = next(node.get("d") for node in figure.iter("path") if "line" in node.get("class"))
    assert path.count("M") == 2 and path.count("L") == 2 and "nan" not in path


def test_long_lines_are_means_of_neighbours():
    x, y = charts.thinned(range(1000), np.arange(1000) ** 2, 10)
    np.testing.assert_allclose(x, np.arange(49.5, 1000, 100))
    np.testing.assert_allclose(y, [np.mean(np.arange(i, i + 100) ** 2) for i in range(0, 1000, 100)])
    assert [len(v) for v in charts.thinned([1, 2], [3, 4])] == [2, 2]


@pytest.mark.parametrize("values", [[0.5], [2, 2], [math.nan, math.nan], [0.0, 1e-12]])
def test_lines_of_few_points(values):
    assert "nan" not in charts.lines({"a": (range(len(values)), values)}, title="t")


def test_series_differ_in_colour_dash_and_marker():
    figure = drawn(charts.lines({str(i): ([0, 1], [i, i]) for i in range(4)}, title="t"))
    lines = [
        (node.get("class"), node.get("stroke-dasharray")) for node in figure.iter("path") if "line" in node.get("class")
    ]
    assert len(set(lines)) == 4 and len({dash for _, dash in lines}) == 4


def test_labels_of_marks_do_not_overlap():
    marks = [(0, "reconstruction"), (1, "contrast"), (90, "tuning")]
    found = texts(charts.lines({"a": (range(100), range(100))}, title="t", marks=marks))
    assert "reconstruction" in found and "tuning" in found and "contrast" not in found


def test_confusion_shows_counts_and_shares():
    table = np.array([[3, 1], [0, 8]])
    figure = charts.confusion(table, np.array([4, 16]), [4, 5], [1, 0], title="t")
    cells = [node for node in drawn(figure).iter("rect") if node.get("class") == "cell"]
    shades = np.array([float(cell.get("fill-opacity")) for cell in cells]) / charts.SHADE
    np.testing.assert_allclose(shades, [0.75, 0.25, 0, 0.5], atol=0.01)
    assert cells[0][0].text == "class 4, cluster 1: 3 (75% of the class)"
    assert [t for t in texts(figure) if t in ("3", "8")] == ["3", "8"]
    assert "3" not in texts(
        charts.confusion(np.full((20, 20), 3), np.full(20, 60), range(50, 70), range(50, 70), title="t")
    )


@pytest.mark.parametrize("values", [[10, 10, 10], [10, 10.001], [-3, -3], [1e-5, 1e-5], [1e6, 1e6 + 1]], ids=str)
def test_an_axis_does_not_enlarge_what_hardly_changes(values):
    low, high = svg.spread(values)
    assert low < min(values) and high > max(values) and high - low >= 0.19 * max(map(abs, values))


def test_an_axis_of_values_that_change_fits_them():
    low, high = svg.spread([1, 2, 3])
    assert 0.9 < low < 1 and 3 < high < 3.1


def clipped(figure):
    """The texts of a chart that begin or end outside of it, if a letter is at most 6.6 units wide."""
    ends, wrong = {"start": (0, 1), "middle": (0.5, 0.5), "end": (1, 0)}, []
    _, _, width, height = map(float, drawn(figure).get("viewBox").split())
    for node in drawn(figure).iter("text"):
        if node.get("transform"):
            continue
        size = (5.4 if "small" in (node.get("class") or "") else 6.6) * len(node.text)
        before, after = ends[node.get("text-anchor", "start")]
        x, y = float(node.get("x")), float(node.get("y"))
        if x - before * size < 0 or x + after * size > width or y < 8 or y > height:
            wrong.append(node.text)
    return wrong


SERIES = {
    "small": [1.25e-5, 3.1e-5],
    "negative": [-0.00125, 0.0004],
    "large": [1234567, 7654321],
    "constant": [10, 10],
    "huge": [1e12, 3e14],
    "tiny": [-3e-9, 5e-9],
}


@pytest.mark.parametrize("name", SERIES)
def test_no_label_of_a_line_chart_is_clipped(name):
    values = SERIES[name]
    x = [0, 123456]
    assert not clipped(charts.lines({"a": (x, values)}, title="t"))
    many = {f"{word} term": (x, values) for word in ("instance", "cluster", "entropy", "consistency", "agreement")}
    assert not clipped(charts.lines(many, title="t", marks=[(0, "first"), (123000, "self-labelling")]))


@pytest.mark.parametrize("values", [[1234567, 3], [0.12, -0.5], [1e-6, 2e-6], [1] * 1000], ids=["a", "b", "c", "d"])
def test_no_label_of_a_bar_chart_is_clipped(values):
    assert not clipped(charts.bars(values, title="t", x_label="cluster"))


# --- Levels


def tree_of(k, counts=(2, 3)):
    """ "levels" of result.json for k clusters at random places."""
    links = linkage(np.random.default_rng(0).normal(size=(k, 4)), "ward") if k > 1 else np.zeros((0, 4))
    groups = levels.groups(np.arange(k), links, k, counts)
    return {"groups": groups, "clusters": list(range(k)), "linkage": links.tolist()}


def test_each_level_cuts_the_tree_into_its_groups():
    figure = dendrogram(tree_of(9), [[f"word{i}"] for i in range(9)])
    (path,) = (node.get("d") for node in drawn(figure).iter("path"))
    marks = [(node.text, float(node.get("x"))) for node in drawn(figure).iter("text") if node.get("class") == "small"]
    links = [[tuple(map(float, p.split())) for p in part.split("L")] for part in path.split("M")[1:]]
    for count, x in marks:
        # Each link has two branches, from its children to its own height.
        branches = [pair for a, b, c, d in links for pair in ((a[0], b[0]), (d[0], c[0]))]
        assert sum(low < x <= high for low, high in branches) == int(count)
    assert {f"{i} word{i}" for i in range(9)} <= set(texts(figure)) and not clipped(figure)


def test_the_leaves_of_the_tree_are_in_the_order_of_its_links():
    figure = dendrogram(tree_of(5), [])
    y = {node.text: float(node.get("y")) for node in drawn(figure).iter("text") if not node.get("class")}
    first, second = map(int, tree_of(5)["linkage"][0][:2])
    assert abs(y[str(first)] - y[str(second)]) == 13  # the most similar clusters are neighbours


@pytest.mark.parametrize("k", [2, 61, 300])
def test_large_trees_are_bounded(k):
    figure = dendrogram(tree_of(k, (2,)), [["a very long name of a cluster"]] * k)
    assert len(texts(figure)) <= 61 + 1 and not clipped(figure)


def test_one_cluster_has_no_tree():
    assert dendrogram(tree_of(1), []) is None
