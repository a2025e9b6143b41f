"""Tests the parts of the report: correct markup, numbers in charts, order of members, whole pages."""

import base64
import io
import math
import re
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import silhouette_samples

from clustering_jax.errors import UserError
from clustering_jax.inference.results import write_assignments
from clustering_jax.report import charts, content, layout, montage, svg
from clustering_jax.report.markup import Html, element, joined
from clustering_jax.report.page import page
from tests.report import report_content as made

VOID = {"meta", "img"}


class Tags(HTMLParser):
    """Collects the tags and the visible text, and checks that all tags are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.seen, self.open, self.text, self.attributes = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


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


@pytest.mark.parametrize("x, shown", [(0.25, "0.25"), (9000, "9000"), (12000, "12k"), (2.5e6, "2.5M"), (-3e9, "-3G")])
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


def test_the_map_has_every_point_and_a_number_for_each_cluster():
    rng = np.random.default_rng(0)
    figure = charts.scatter(rng.normal(size=(50, 2)), np.arange(50) % 12, title="t")
    paths = list(drawn(figure).iter("path"))
    assert len(paths) == 12 and sum(path.get("d").count("Z") for path in paths) == 50
    assert texts(figure) == [str(i) for i in range(12)]
    assert len(texts(charts.scatter(rng.normal(size=(200, 2)), np.arange(200) % 70, title="t"))) == charts.NUMBERED
    at = np.array([[float(node.get(axis)) for axis in "xy"] for node in drawn(figure).iter("text")])
    apart = np.sqrt(((at[:, None] - at) ** 2).sum(2)) + 1e3 * np.eye(12)
    assert apart.min() > 12
    assert "nan" not in charts.scatter(np.zeros((5, 2)), np.arange(5), title="t")


# --- Members


def test_members_are_the_most_and_the_least_confident():
    clusters, confidence = np.array([0, 1] * 50), np.random.default_rng(0).random(100)
    most, least = montage.members(clusters, confidence, 1)
    order = sorted(range(1, 100, 2), key=lambda i: -confidence[i])
    assert most.tolist() == order[:8] and least.tolist() == order[-8:]


@pytest.mark.parametrize("size", range(6))
def test_no_member_of_a_small_cluster_is_shown_twice(size):
    most, least = montage.members(np.zeros(size, int), np.ones(size), 0)
    assert sorted([*most, *least]) == list(range(size))


@pytest.mark.parametrize("shape, tile", [((8, 8, 1), (32, 32)), ((96, 48, 3), (64, 32)), ((64, 64, 3), (64, 64))])
def test_a_sprite_shows_the_pictures_in_order(shape, tile):
    images = np.stack([np.full(shape, 20 * i, np.uint8) for i in range(12)])
    uri = montage.sprite(images, np.array([3, 1, 5]), np.array([11]))
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("L"))
    height, width = tile
    across, down = width + montage.GAP, height + montage.BETWEEN
    found = [picture[y + height // 2, x + width // 2] for y, x in [(0, 0), (0, across), (0, 2 * across), (down, 0)]]
    np.testing.assert_allclose(found, [60, 20, 100, 220], atol=3)
    assert picture.shape == (2 * height + montage.BETWEEN, 8 * across - montage.GAP)


# --- Map


def test_pca_equals_the_singular_value_decomposition():
    rows = np.random.default_rng(0).normal(size=(30, 5)) * np.arange(1, 6)
    u, s, _ = np.linalg.svd(rows - rows.mean(0))
    np.testing.assert_allclose(np.abs(layout.flat(rows, "pca")), np.abs(u[:, :2] * s[:2]), atol=1e-9)


def test_narrow_embeddings_are_their_own_map():
    assert layout.flat(np.arange(5.0)[:, None], "pca").tolist() == [[i, 0] for i in range(5)]


@pytest.mark.slow
def test_tsne_keeps_clusters_apart():
    labels = np.arange(24) % 2
    points = layout.flat(np.random.default_rng(0).normal(size=(24, 5)) + 20 * labels[:, None], "tsne")
    assert silhouette_samples(points, labels).min() > 0


@pytest.mark.slow
def test_umap_keeps_clusters_apart():
    pytest.importorskip("umap", reason="umap-learn is not installed")
    labels = np.arange(60) % 2
    points = layout.flat(np.random.default_rng(0).normal(size=(60, 5)) + 20 * labels[:, None], "umap")
    assert silhouette_samples(points, labels).mean() > 0.5


def test_unknown_and_absent_maps_are_refused_in_a_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(UserError, match=r"needs umap-learn: pip install 'clustering_jax\[umap\]'"):
        layout.check("umap")
    with pytest.raises(UserError, match=r"--map=tsn is unknown .*'tsne'"):
        layout.check("tsn")


# --- Content


def test_assignments_are_read_back(tmp_path):
    p = np.random.default_rng(0).dirichlet(np.ones(4), 30)
    names = [["a, b"], ['"'], ["\n"], [""]]
    write_assignments(tmp_path / "a.csv", ['x,"y\n'] * 30, p, names)
    found = content.read_assignments(tmp_path / "a.csv", 4)
    assert found.clusters.tolist() == p.argmax(1).tolist() and found.k == 4
    np.testing.assert_allclose(found.confidence, p.max(1), atol=1e-6)
    assert content.read_assignments(tmp_path / "b.csv", 4) is None


@pytest.mark.parametrize("n", [3, 2000, 100_000])
def test_the_sample_is_bounded_and_always_the_same(n):
    rows = content.sample(n)
    assert len(np.unique(rows)) == len(rows) == min(n, content.POINTS) and rows.tolist() == content.sample(n).tolist()


# --- Whole pages


def variants():
    """Contents by their special property."""
    whole = made.content()
    several = {"mean": whole.result["scores"], "std": whole.result["scores"]}
    several["each"] = [{"seed": i, "criterion": -0.5, **whole.result["scores"]} for i in range(3)]
    label_free = {**whole.result, "scores": made.PLAIN, "baselines": []}
    unscored = [{k: v for k, v in row.items() if k[5:] not in made.SCORES} for row in whole.log]
    words = [["<b>bold</b>", "fox"]] + [[]] * 9
    many = made.content("embeddings", k=120)
    many = many._replace(assigned=many.assigned._replace(clusters=np.arange(400) % 119))
    return {
        "digits": whole,
        "colour": made.content("colour"),
        "large": made.content("large"),
        "words": made.content("embeddings", names=words),
        "views": made.content("views"),
        "seeds": whole._replace(result={**whole.result, "seeds": several}),
        "no labels": whole._replace(dataset=whole.dataset._replace(labels=None), result=label_free, log=unscored),
        "data gone": whole._replace(dataset=None, rows=None, embedding=None, notes=["'x' is gone"]),
        "nothing yet": whole._replace(
            dataset=None, rows=None, embedding=None, assigned=None, result=None, finished=False, log=[]
        ),
        "many clusters": many,
        "one cluster": whole._replace(assigned=whole.assigned._replace(clusters=0 * whole.assigned.clusters)),
        "chosen number": whole._replace(curve={"criterion": "silhouette", "curve": [[2, 0.1], [3, 0.3], [4, 0.2]]}),
    }


VARIANTS = variants()


@pytest.mark.parametrize("name", VARIANTS)
def test_pages_are_well_formed_and_run_or_fetch_nothing(name):
    text = page(VARIANTS[name], "pca")
    tags = Tags(text)
    assert not tags.open and not {"script", "link", "iframe", "object", "a", "b.png"}.intersection(tags.seen)
    outside = [v for k, v in tags.attributes if k in ("src", "href", "srcset") and not v.startswith("data:image/")]
    assert not outside and "url(" not in text and "@import" not in text
    assert not [k for k, _ in tags.attributes if k.startswith("on")]
    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(drawing)
    assert (
        "nan"
        not in re.sub(r"base64,[^\"]*", "", text).replace("NaN", "nan").split("<h2>Config")[0].lower().split("data:")[0]
    )
    assert made.EVIL in "".join(tags.text)
    assert len(text) < 1_500_000


def shown(name):
    return " ".join("".join(Tags(page(VARIANTS[name], "pca")).text).split())


WORDS = {
    "digits": [
        "Labels: for scoring alone",
        "9 of 10 clusters are occupied",
        "PCA of the embedding",
        "k-means on pixels",
    ],
    "words": ["<b>bold</b>", "fox", f"Most confident: {made.EVIL} (1.00)"],
    "views": [f"Most confident: {made.EVIL} (1.00)"],
    "seeds": ["mean ± std of 3 seeds", "0.900 ± 0.900", "The seed with the smallest criterion is selected"],
    "no labels": ["Silhouette, mean", "Cluster sizes"],
    "data gone": ["Left out: 'x' is gone", "Cluster sizes", "The data is not available"],
    "nothing yet": ["This run has not finished", "Config"],
    "many clusters": ["The 100 largest of 120 clusters are shown", "Only the 40 largest clusters have a number."],
    "one cluster": ["1 of 10 clusters are occupied"],
    "chosen number": ["Number of clusters, chosen by silhouette"],
}


@pytest.mark.parametrize("name", WORDS)
def test_pages_contain_the_expected_text(name):
    found = shown(name)
    assert not [words for words in WORDS[name] if words not in found]


def test_without_labels_nothing_is_matched():
    found = shown("no labels")
    assert "ACC" not in found and "after matching" not in found and "matches class" not in found


def test_the_confusion_matrix_is_bounded():
    dataset = made.datasets("embeddings")
    many = made.content("embeddings", k=101, dataset=dataset._replace(labels=np.arange(400) % 50))
    text = page(many, "pca")
    cells = re.findall(r"class (\d+), cluster \d+: (\d+) \((\d+)% of the class\)", text)
    # There are eight rows of each class. Not all of them are in the shown clusters.
    assert all(int(percent) == int(f"{int(count) / 8:.0%}"[:-1]) for _, count, percent in cells)
    assert len({name for name, _, _ in cells}) == 30
    assert text.count('class="cell"') == 900 and re.search(r"30 of 50 classes and 30 of \d+ clusters are shown", text)


def test_there_is_a_picture_for_every_cluster_that_is_not_empty():
    tags = Tags(page(VARIANTS["digits"], "pca"))
    pictures = [v for k, v in tags.attributes if k == "src"]
    assert len(pictures) == 9 == len(set(pictures))
    assert any(v.startswith(made.EVIL) for k, v in tags.attributes if k == "alt")
