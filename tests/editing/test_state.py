"""Corrections without files and without a model."""

import json

import numpy as np
import pytest

from clustering_jax.editing import state as states
from clustering_jax.editing.request import (
    Request,
    combined,
    from_file,
    from_flags,
    from_json,
    from_moves,
    read_columns,
    read_labels,
)
from clustering_jax.errors import UserError
from clustering_jax.inference.rule import Rule

TWO = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])


def members(cluster):
    return ["a", "b", "c"], TWO


def changed(state, **request):
    request = from_json(request, "test")
    states.check(state, request)
    return states.applied(state, request, members)


def start(k=4, names=None):
    return states.start(k, names or {}, None)


def test_a_merge_keeps_the_first_number_and_the_names():
    state = changed(start(names={3: ["cat"], 1: ["dog", "cat"]}), merge=[[3, 1]])
    assert state.outputs == ((0,), (3,), (2,), (3,)) and state.names == {3: ["cat", "dog"]}
    assert state.clusters == {0, 2, 3} and state.free == 4


def test_a_split_takes_new_numbers_and_the_largest_part_keeps_its_own():
    state = changed(start(), split={2: 2}, move={"b": 2, "c": 2})
    assert state.outputs == ((0,), (1,), (2, 4), (3,)) and state.free == 5
    np.testing.assert_allclose(state.centroids[2], [[0.95, 0.05], [0, 1]])
    # A row that was moved into the cluster goes to its nearest part.
    assert state.moved == {"b": 2, "c": 4}


def test_numbers_are_never_used_again():
    state = changed(changed(start(), merge=[[0, 3]]), split={1: 3})
    assert state.clusters == {0, 1, 2, 4, 5}


def test_a_part_can_be_split_and_merged_again():
    state = changed(start(), split={2: 3})
    again = changed(state, split={4: 2})
    assert again.outputs[2] == (2, 5, 4, 6) and len(again.centroids[2]) == 4
    np.testing.assert_array_equal(again.centroids[2][:2], state.centroids[2][[0, 2]])
    merged = changed(again, merge=[[0, 6]])
    assert merged.outputs == ((0,), (1,), (2, 5, 4, 0), (3,))
    whole = changed(merged, merge=[[2, 5, 4, 0]])
    assert whole.outputs == ((2,), (1,), (2,), (3,)) and whole.centroids == {}


def test_both_outputs_of_a_merged_cluster_are_split():
    state = changed(changed(start(), merge=[[0, 1]]), split={0: 2})
    assert state.outputs == ((0, 4), (0, 4), (2,), (3,)) and set(state.centroids) == {0, 1}


def test_moved_rows_follow_a_merge():
    state = changed(start(), move={"a": 1, "b": -1}, merge=[[0, 1]])
    assert state.moved == {"a": 0, "b": -1}


def test_the_state_survives_its_file():
    state = changed(start(names={0: ["x"]}), split={2: 3}, merge=[[0, 1]], move={"a": 3}, lock=[3], rename={2: "y"})
    read = states.start(4, state.names, json.loads(json.dumps(state.to_json())))
    np.testing.assert_allclose(read.centroids.pop(2), state.centroids.pop(2), atol=1e-6)
    assert read == state and state.names == {0: ["x"], 2: ["y"]} and len(state.history) == 1


@pytest.mark.parametrize(
    "request_, words",
    [
        ({"merge": [[0, 9]]}, "no cluster 9: the clusters are 0, 1, 2, 3"),
        ({"rename": {"5": "x"}}, "no cluster 5"),
        ({"move": {"a": 7}}, "no cluster 7"),
        ({"merge": [[0, 1], [1, 2]]}, "cluster 1 is merged or split twice"),
        ({"merge": [[0, 1]], "split": {"1": 2}}, "cluster 1 is merged or split twice"),
        ({"merge": [[0]]}, "two clusters or more"),
        ({"split": {"0": 1}}, "two parts or more"),
        ({"split": {"0": 4}}, "too few different rows"),
        ({"merge": [[0, 1]], "rename": {"1": "x"}}, "becomes part of 0"),
        ({"merge": [[0, 3]]}, "cluster 3 is locked"),
        ({"split": {"3": 2}}, "cluster 3 is locked"),
        ({"move": {"a": 3}}, "cluster 3 is locked"),
    ],
)
def test_what_can_not_be_done(request_, words):
    locked = changed(start(), lock=[3])
    with pytest.raises(UserError, match=words):
        changed(locked, **request_)
    if "locked" in words:
        assert changed(locked, **request_, unlock=[3]).locked == frozenset()


def test_the_flags_and_the_file_say_the_same(tmp_path):
    flags = from_flags(["3,7", "1,2"], ["5:3"], ["2=street = signs"], "4,6", "")
    assert flags == Request([[3, 7], [1, 2]], {5: 3}, {2: "street = signs"}, {}, [4, 6], [])
    (tmp_path / "a.json").write_text(json.dumps(flags.to_json()))
    assert from_file(tmp_path / "a.json") == flags
    both = combined([flags, from_json({"merge": [[8, 9]], "move": {"a": 1}}, "x")])
    assert both.merge == [[3, 7], [1, 2], [8, 9]] and both.move == {"a": 1} and both.split == {5: 3}


@pytest.mark.parametrize(
    "value, words",
    [
        ([], "must be an object"),
        ({"mrege": []}, "did you mean 'merge'"),
        ({"merge": [[1.5, 2]]}, "can't be read"),
        ({"merge": [3, 7]}, "can't be read"),
        ({"split": [5, 3]}, "can't be read"),
        ({"rename": {"2": " "}}, "can't be read"),
        ({"move": {"a": "cat"}}, "can't be read"),
    ],
)
def test_a_request_that_can_not_be_read(value, words):
    with pytest.raises(UserError, match=words):
        from_json(value, "edits.json")


def test_files_that_can_not_be_read(tmp_path):
    for path, words in ((tmp_path / "absent", "can't be read"), (tmp_path / "a.csv", "no column 'cluster'")):
        (tmp_path / "a.csv").write_text("id,label\na,1\n")
        with pytest.raises(UserError, match=words):
            read_columns(path, ("id", "cluster"))
    with pytest.raises(UserError, match="can't be read as JSON"):
        from_file(tmp_path / "a.csv")
    with pytest.raises(UserError, match="--split=5"):
        from_flags([], ["5"], [], "", "")


def test_moves_and_labels_of_a_file(tmp_path):
    (tmp_path / "a.csv").write_text("id,cluster,label\na,1,bus\nb,-1,\nc,2,NA\nd,2, tram\na,1,bus\n")
    assert from_moves(tmp_path / "a.csv").move == {"a": 1, "b": -1, "c": 2, "d": 2}
    assert read_labels(tmp_path / "a.csv") == {"a": "bus", "d": "tram"}
    (tmp_path / "b.csv").write_text("id,cluster,label\na,one,bus\na,one,tram\n")
    with pytest.raises(UserError, match=r"'one' is no whole number.*: give for example the line a.jpg,4"):
        from_moves(tmp_path / "b.csv")
    with pytest.raises(UserError, match="says 'bus' and 'tram' of the row 'a'"):
        read_labels(tmp_path / "b.csv")
    with pytest.raises(UserError, match=r"'x' is no whole number.*--merge 3,7"):
        from_flags(["3,x"], [], [], "", "")


def test_the_rule_of_corrections():
    """Outputs 0 and 1 are one cluster, output 2 has two parts."""
    edits = {"outputs": [[0], [0], [2, 5]], "centroids": {"2": [[1, 0], [0, 1]]}}
    rule = Rule.of_run({"levels": {"groups": {"2": [0, -1, 1, -1, -1, 1]}}}, edits)
    p = np.array([[0.3, 0.3, 0.4], [0.1, 0.1, 0.8], [0.1, 0.1, 0.8]])
    mapped = rule.mapped(p, lambda: np.array([[9, 1], [2, 1], [1, 3]]))
    np.testing.assert_allclose(mapped, [[0.6, 0.4, 0], [0.2, 0.8, 0], [0.2, 0, 0.8]])
    assert rule.clusters(mapped).tolist() == [0, 2, 5]
    assert rule.columns(mapped)["second"] == ["2", "0", "0"]
    assert rule.columns(mapped)["level_2"] == ["0", "1", "1"]
