"""A run takes the numbers of an older one."""

import shutil

import numpy as np
import pytest

from clustering_jax import edit as command
from clustering_jax.editing import Request, edit
from clustering_jax.editing import state as states
from clustering_jax.editing.match import Old, new_numbers, renumbered
from clustering_jax.errors import UserError
from clustering_jax.files import read_json
from tests.editing import small
from tests.editing.test_edit import column

OLD = Old({"a": 4, "b": 4, "c": 2, "d": 2, "e": -1, "f": 9}, {4: ["bus"], 2: ["tram"]}, 12)


def test_most_shared_rows_decide_one_to_one():
    ids, clusters = ["a", "b", "c", "d", "e", "x"], np.array([0, 0, 0, 1, 2, 2])
    assert new_numbers([0, 1, 2], ids, clusters, OLD) == ({0: 4, 1: 2, 2: 12}, 13)
    with pytest.raises(UserError, match="no row in common"):
        new_numbers([0], ["x", "e"], np.array([0, 0]), OLD)


def test_everything_in_the_state_takes_the_new_numbers():
    state = states.start(3, {1: ["train"]}, None)._replace(moved={"a": 1, "b": -1}, locked=frozenset([2]))
    found = renumbered(state, {0: 4, 1: 2, 2: 12}, 13, OLD.names, "old")
    assert found.outputs == ((4,), (2,), (12,)) and found.moved == {"a": 2, "b": -1}
    assert found.names == {4: ["bus"], 2: ["train"]} and found.locked == {12} and found.free == 13
    assert found.history == [{"match": "old"}]


def test_the_command(tmp_path):
    workdir, part = small.trained(tmp_path)
    edit(workdir, tmp_path / "old", Request(merge=[[3, 0]], rename={1: "one"}))
    command.main(["edit", f"--workdir={workdir}", f"--output={tmp_path}/new", f"--match={tmp_path}/old"])
    clusters = column(tmp_path / "new")
    assert (clusters[part == 1] == 1).all() and (clusters[(part == 2) | (part == 4)] == 2).all()
    assert {*clusters[part == 0].tolist(), *clusters[part == 3].tolist()} == {3, 4}
    (one, *_) = read_json(tmp_path / "new" / "clusters.json")
    assert one == {"cluster": 1, "size": 16, "names": ["one"], "locked": False}
    with pytest.raises(UserError, match="in two steps"):
        command.main(["edit", f"--workdir={workdir}", f"--output={tmp_path}/x", f"--match={workdir}", "--lock=1"])
    shutil.rmtree(tmp_path / "old")
    with pytest.raises(UserError, match="no finished run"):
        command.main(["edit", f"--workdir={workdir}", f"--output={tmp_path}/x", f"--match={tmp_path}/old"])
