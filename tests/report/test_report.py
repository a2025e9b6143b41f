"""Tests the parts of the report: the map, the content, and whole pages."""

import re
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from sklearn.metrics import silhouette_samples

from clustering_jax.errors import UserError
from clustering_jax.inference.results import write_assignments
from clustering_jax.report import content, layout, static
from clustering_jax.report.assigned import read_assignments
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
    found = read_assignments(tmp_path / "a.csv", 4)
    assert found.clusters.tolist() == p.argmax(1).tolist() and found.k == 4 and found.ids == ['x,"y\n'] * 30
    np.testing.assert_allclose(found.confidence, p.max(1), atol=1e-6)
    assert read_assignments(tmp_path / "b.csv", 4) is None


def test_further_columns_are_read_as_numbers(tmp_path):
    (tmp_path / "a.csv").write_text("id,cluster,probability,names,outlier,typical\na,0,.5,w,.25,\nb,1,.5,w,1.0,2\n")
    columns = read_assignments(tmp_path / "a.csv", 2).columns
    np.testing.assert_array_equal(columns["outlier"], [0.25, 1])
    np.testing.assert_array_equal(columns["typical"], [np.nan, 2])
    assert list(columns) == ["outlier", "typical"]


@pytest.mark.parametrize(
    "text", ["", "id,cluster\na,0\n", "id,cluster,probability\na,0\n", "id,cluster,probability\na,x,1\n"]
)
def test_damaged_assignments_are_refused(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError, match="damaged"):
        read_assignments(tmp_path / "a.csv", 2)


@pytest.mark.parametrize("n", [3, 2000, 100_000])
def test_the_sample_is_bounded_and_always_the_same(n):
    rows = content.sample(n)
    assert len(np.unique(rows)) == len(rows) == min(n, content.POINTS) and rows.tolist() == content.sample(n).tolist()


@pytest.mark.parametrize(
    "points, copied, rows", [(400, 1, 400), (100, 24 * 1000, 100), (100, 24 * 10, 10), (100, 1, 1)]
)
def test_a_sample_of_wide_rows_fits_into_memory(monkeypatch, points, copied, rows):
    monkeypatch.setattr(content, "POINTS", points)
    monkeypatch.setattr(content, "COPIED", copied)
    dataset = made.datasets("embeddings")  # 24 bytes a row
    seen = []
    content.embedded(lambda features: seen.append(features["image"]), dataset)
    assert len(content.sampled(dataset)) == rows
    np.testing.assert_array_equal(seen[0], dataset.features["image"][content.sampled(dataset)])


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
    assert not tags.open and not {"link", "iframe", "object", "a", "b.png"}.intersection(tags.seen)
    scripts = re.findall(r"<script(.*?)>(.*?)</script>", text, re.DOTALL)
    assert all(code == static.script() for kind, code in scripts if "json" not in kind)
    assert f"script-src {static.digest(static.script())}".replace("'", "&#x27;") in text
    outside = [v for k, v in tags.attributes if k in ("src", "href", "srcset") and not v.startswith("data:image/")]
    assert not outside and "url(" not in text and "@import" not in text
    assert not [k for k, _ in tags.attributes if k.startswith("on")]
    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(drawing)
    assert not re.search(
        r"\bnan\b", re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL).split("<h2>Config")[0], re.I
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
    "words": ["\\u003cb>bold", "fox"],
    "views": ["Map of the embedding"],
    "seeds": ["mean ± std of 3 seeds", "0.900 ± 0.900", "The seed with the smallest criterion is selected"],
    "no labels": ["Silhouette, mean", "Cluster sizes"],
    "data gone": ["Left out: 'x' is gone", "Cluster sizes"],
    "nothing yet": ["This run has not finished", "Config"],
    "many clusters": ["Only the 40 largest clusters have a number."],
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


def test_clusters_come_before_numbers_and_settings_last():
    headings = re.findall("<h2.*?>(.*?)</h2>", page(VARIANTS["digits"], "pca"))
    assert headings[:5] == ["Clusters", "Map of the embedding", "Corrections", "Scores", "Clusters in numbers"]
    assert headings[-3:] == ["Timing", "Versions", "Config"]


def test_levels_and_reliability_are_shown_if_the_run_has_them():
    whole = made.content()
    groups = [{"rows": 40, "confidence": 0.1 * i, "agreement": 0.09 * i} for i in range(1, 11)]
    rejection = {"threshold": 0.5, "expected": 0.95, "assigned": 300, "calibrated_by": "x", "reliability": groups}
    tree = {"groups": {"2": [0, 0, 1]}, "clusters": [0, 1, 2], "linkage": [[0, 1, 1, 2], [2, 3, 2, 3]]}
    result = {**whole.result, "levels": tree, "rejection": {**rejection, "scores": {"acc": 0.91}}}
    text = page(whole._replace(result=result), "pca")
    assert "Tree of the clusters" in text and "300 of 400 rows keep theirs" in text and "95% of these" in text
    assert "By the labels, 91% are." in text
    assert "Reliability" not in page(whole, "pca") and "Tree of" not in page(whole, "pca")


@pytest.mark.parametrize("verdict", ["", "k-means does as well"])
def test_the_candidates_of_a_recipe_are_shown_with_the_one_that_was_kept(verdict):
    whole = made.content("views")
    names = ("k-means, minmax", "TURTLE")
    rows = [{"name": name, "agreement": 0.5125, "occupied": 9, "acc": 0.25} for name in names]
    result = {**whole.result, "candidates": rows, "kept": names[verdict == ""], "verdict": verdict}
    text = page(whole._replace(result=result), "pca")
    assert text.count("<td>0.512</td><td>9</td><td>0.250</td>") == 2 and text.count("<td>kept</td>") == 1
    assert f"clusters by {result['kept']}</h1>" in text
    assert ("k-means does as well." in text) == bool(verdict) and "Candidates" not in page(whole, "pca")


def test_clusters_that_corrections_removed_are_not_counted():
    whole = made.content()
    merged = np.where(whole.assigned.clusters == 3, 0, whole.assigned.clusters)
    result = {**whole.result, "clusters": [0, 1, 2, 4, 5, 6, 7, 8]}
    text = page(whole._replace(assigned=whole.assigned._replace(clusters=merged), result=result), "pca")
    assert "8 of 8 clusters are occupied" in text and "the mean size, 50." in text and "of 8 clusters have a" in text


def test_corrections_need_a_finished_run():
    text = page(VARIANTS["digits"]._replace(finished=False), "pca")
    assert 'id="correct"' not in text and 'id="move"' not in text and '"editable":false' in text
    assert 'id="correct"' in page(VARIANTS["digits"], "pca")


@pytest.mark.parametrize("names", [(), ("knn_consistency",), ("knn_accuracy", "knn_consistency")], ids=str)
def test_the_scores_of_the_features_are_shown_if_there_are_any(names):
    whole = made.content()
    scores = {**whole.result["scores"], **dict.fromkeys(names, 0.625)}
    protocol = {**whole.result["protocol"], "neighbours": "20 nearest of 40 of 60 rows"}
    text = page(whole._replace(result={**whole.result, "scores": scores, "protocol": protocol}), "pca")
    assert text.count("<b>0.625</b>") == len(names) == text.count("20 nearest of 40 of 60 rows")
    assert ("accuracy of a vote" in text) == ("knn_accuracy" in names)
