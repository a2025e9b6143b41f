"""Training on corrections: its terms against loops, what is known of the rows, and small whole runs."""

import csv
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clustering_jax import edit as command
from clustering_jax.editing import Request, Training, edit
from clustering_jax.editing import state as states
from clustering_jax.editing.known import known
from clustering_jax.editing.spread import nearest_rows, spread
from clustering_jax.editing.training import cross_entropy, encoder_mask, pair_loss, transplanted, with_students
from clustering_jax.errors import UserError
from clustering_jax.files import read_json
from clustering_jax.inference.predictor import Predictor
from clustering_jax.inference.rows import unit
from tests.editing import small
from tests.editing.test_edit import column, contents

IDS = list("abcdef")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return small.trained(tmp_path_factory.mktemp("train"))


@pytest.mark.parametrize("sources", [[0, 2, 2, 1], [0, 0, 2], [1, 2]])
def test_outputs_are_transplanted_along_their_axes(sources):
    m = len(sources)
    old = {"kernel": jnp.arange(6.0).reshape(2, 3), "square": jnp.arange(9.0).reshape(3, 3), "other": jnp.ones(3)}
    new = {"kernel": jnp.zeros((2, m)), "square": jnp.zeros((m, m)), "other": jnp.zeros(3)}
    wider = {"kernel": jnp.zeros((2, m + 1)), "square": jnp.zeros((m + 1, m + 1)), "other": jnp.zeros(3)}
    found = transplanted(old, new, wider, np.array(sources))
    np.testing.assert_array_equal(found["kernel"], np.arange(6.0).reshape(2, 3)[:, sources])
    np.testing.assert_array_equal(found["square"], np.arange(9.0).reshape(3, 3)[sources][:, sources])
    np.testing.assert_array_equal(found["other"], np.ones(3))


def test_the_terms_are_those_of_a_loop():
    p = np.random.default_rng(0).dirichlet(np.ones(3), 5).astype(np.float32)
    q, targets, links = p[::-1].copy(), np.array([0, -1, 2, 1, -1]), np.array([1, 0, 0, 1, 1])
    expected = -np.mean([np.log(p[i, t]) for i, t in enumerate(targets) if t >= 0])
    assert cross_entropy(jnp.asarray(p), jnp.asarray(targets)) == pytest.approx(expected, rel=1e-4)
    same = [sum(a * b for a, b in zip(*rows, strict=True)) for rows in zip(p, q, strict=True)]
    expected = -np.mean([np.log(s if link else 1 - s) for s, link in zip(same, links, strict=True)])
    assert pair_loss(jnp.asarray(p), jnp.asarray(q), jnp.asarray(links)) == pytest.approx(expected, rel=1e-4)
    assert cross_entropy(jnp.asarray(p), jnp.full(5, -1)) == 0


def test_the_encoder_is_what_the_embedding_depends_on():
    def embed(variables, batch):
        return batch["x"] @ variables["average"]["encoder"]

    params = {"encoder": jnp.ones((2, 3)), "head": jnp.ones(3)}
    variables = {"params": params, "average": jax.tree.map(jnp.zeros_like, params), "count": jnp.zeros(())}
    mask = encoder_mask(SimpleNamespace(embed=embed), variables, {"x": jnp.ones((4, 2))})
    assert mask == {"encoder": True, "head": False}
    assert with_students(variables)["average"] is params and with_students(variables)["count"] is variables["count"]


def facts(labels, locked=(), moved=None, k=3):
    """What is known where every row gets the target 2, or the target of its label, by spreading."""

    def spread(targets, rows, known_targets):
        result = np.full(len(targets), 2)
        result[rows] = known_targets
        return result

    state = states.start(k, {}, None)._replace(locked=frozenset(locked), moved=moved or {})
    return known(state, IDS, np.array([0, 0, 1, 1, 2, -1]), labels, [("a", "b", 1)], spread)


def test_classes_are_matched_and_labels_spread_except_to_locked_clusters():
    found, classes = facts({"a": "bus", "c": "bus", "d": "bus", "e": "tram"}, moved={"b": 2, "f": -1})
    assert classes == {"bus": 1, "tram": 2}
    assert found.pseudo.tolist() == [1, 2, 1, 1, 2, -1]
    assert dict(zip(found.rows.tolist(), found.targets.tolist(), strict=True)) == {0: 1, 1: 2, 2: 1, 3: 1, 4: 2}
    assert found.pairs.tolist() == [[0, 1]] and found.links.tolist() == [1]
    assert facts({"a": "bus", "c": "bus", "d": "bus"}, locked=[0])[0].pseudo.tolist() == [0, 0, 1, 1, 2, -1]
    assert facts({})[0].pseudo.tolist() == [0, 0, 1, 1, 2, -1]


def test_labels_move_a_cluster_when_they_outnumber_its_own():
    """A cluster counts as four rows, but not where its target went to another class."""
    p = np.repeat(np.eye(3), 8, 0)[:16] * 0.9 + 0.03
    clusters, alone, ones = p.argmax(1), nearest_rows(unit(np.ones((16, 2))), 0), np.ones(5, int)
    assert spread(p, clusters, np.arange(3), ones[:3], alone).tolist() == [1] * 3 + [0] * 5 + [1] * 8
    assert spread(p, clusters, np.arange(5), ones, alone).tolist() == [1] * 16
    assert spread(p, np.full(16, -1), np.arange(5), ones, alone).tolist() == [1] * 5 + [0] * 3 + [1] * 8
    rows, targets = np.array([0, 8]), np.array([1, 0])
    assert spread(p, clusters, rows, targets, alone).tolist() == [1] * 8 + [0] * 8


def test_labels_reach_the_rows_nearby():
    """An unsure row follows a label beside it, and its neighbours follow by the graph."""
    angles = np.concatenate([np.linspace(0, 0.1, 6), np.linspace(1.2, 1.5, 6)])
    embedding = np.stack([np.cos(angles), np.sin(angles)], 1)
    p = np.tile([0.5001, 0.4999], (12, 1))
    graph = nearest_rows(embedding, 2)
    assert abs(graph - graph.T).max() < 1e-12
    found = spread(p, np.full(12, -1), np.array([8]), np.array([1]), graph)
    assert found.tolist() == [0] * 6 + [1] * 6


def test_targets_are_positions_among_the_clusters_that_are_left():
    state = states.start(4, {}, None)._replace(outputs=((1,), (1,), (2, 7), (5,)))
    found, _ = known(state, IDS, np.array([1, 2, 7, 5, 5, 1]), {}, [])
    assert found.clusters == [1, 2, 5, 7] and found.sources.tolist() == [0, 2, 3, 2]
    assert found.pseudo.tolist() == [0, 1, 3, 2, 2, 0] and found.pairs.shape == (0, 2)


def test_labels_that_can_not_be_used():
    with pytest.raises(UserError, match="no row 'z'"):
        facts({"z": "bus"})
    with pytest.raises(UserError, match="4 classes, but there are 3 clusters"):
        facts(dict(zip("abcd", "wxyz", strict=True)))


@pytest.mark.long
def test_the_model_learns_the_corrections(finished, tmp_path):
    workdir, part = finished
    before, row = contents(workdir), str(np.flatnonzero(part == 3)[0])
    request = Request(merge=[[0, 1]], split={2: 2}, lock=[3], rename={3: "kept"}, move={row: -1})
    result = edit(workdir, tmp_path / "new", request, training=Training(60, learning_rate=0.1), quiet=True)
    assert contents(workdir) == before and result["clusters"] == [0, 2, 3, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new"]
    state = read_json(tmp_path / "new" / "edits.json")
    assert state["outputs"] == [[0], [2], [3], [4]] and not state["centroids"] and state["parent"] == str(workdir)
    assert [next(iter(step)) for step in state["history"]] == ["merge", "retrain"]
    clusters = column(tmp_path / "new")
    assert clusters[int(row)] == -1 and (np.delete(clusters, int(row))[np.delete(part, int(row)) == 3] == 3).all()
    image, new = small.rows(50, seed=2)
    predictor = Predictor.restore(tmp_path / "new")
    assert predictor.config["num_clusters"] == 4 and predictor.names[2] == ["kept"]
    found = predictor.predict({"image": image / np.linalg.norm(image, axis=1, keepdims=True)})
    numbers = [set(found[new == p].tolist()) for p in range(5)]
    assert numbers[0] == numbers[1] == {0} and numbers[3] == {3} and {*numbers[2], *numbers[4]} == {2, 4}
    # The corrected run can be corrected again.
    edit(tmp_path / "new", tmp_path / "more", Request(merge=[[0, 4]]))
    assert set(column(tmp_path / "more").tolist()) == {-1, 0, 2, 3}


@pytest.mark.long
def test_fifteen_labels_divide_a_cluster(finished, tmp_path):
    """Two classes lie in one cluster, and one class in two: the labels say so."""
    workdir, part = finished
    classes = np.array(["a", "a", "x", "z", "y"])[part]
    with (tmp_path / "few.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "label"])
        writer.writerows((i, classes[i]) for i in range(15))
    labels = {str(i): str(classes[i]) for i in range(15)}
    edit(workdir, tmp_path / "new", Request(), training=Training(100, learning_rate=0.1), labels=labels, quiet=True)
    clusters = column(tmp_path / "new")
    agree = [max(np.mean(clusters[classes == c] == k) for k in range(4)) for c in "axyz"]
    assert min(agree) > 0.85 and len({*clusters.tolist()}) == 4
    names = {c["cluster"]: c["names"] for c in read_json(tmp_path / "new" / "clusters.json")}
    assert sorted(names.values()) == [["a"], ["x"], ["y"], ["z"]] and names[3] == ["z"]
    flags = ["--retrain", f"--labels={tmp_path}/few.csv", "--steps=2"]
    command.main(["edit", f"--workdir={workdir}", f"--output={tmp_path}/short", *flags])
    assert (column(tmp_path / "short")[:15] == clusters[:15]).all()


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--labels=few.csv"], "add --retrain"),
        (["--retrain", "--steps=0"], "choose 1 or more"),
        (["--retrain", "--pairs=pairs.csv"], "has link '2'"),
    ],
)
def test_flags_that_do_not_fit(finished, tmp_path, monkeypatch, flags, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.csv").write_text("a,b,link\n0,1,2\n")
    with pytest.raises(UserError, match=words):
        command.main(["edit", f"--workdir={finished[0]}", "--output=new", *flags])
