"""Checkpoints are restored as they were written, and any damage is detected."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clustering_jax.errors import UserError
from clustering_jax.parallel import data_mesh, replicate
from clustering_jax.training.checkpoint import Store, checksums


def tree(step):
    rng = np.random.default_rng(step)
    return {
        "step": jnp.asarray(step, jnp.int32),
        "w": jnp.asarray(rng.normal(size=(64, 32)), jnp.float32),
        "empty": (),
        "half": jnp.asarray(rng.normal(size=7), jnp.bfloat16),
    }


ABSTRACT = jax.eval_shape(lambda: tree(0))
TARGETS = {"label": np.arange(9, dtype=np.int32)}


@pytest.fixture
def saved(tmp_path):
    store = Store(tmp_path / "checkpoints")
    for step in (3, 7):
        store.save(step, tree(step), TARGETS, {"seconds": float(step)})
    store.close()
    return tmp_path / "checkpoints"


def restore(directory):
    store = Store(directory)
    try:
        return store.restore(ABSTRACT)
    finally:
        store.close()


def parts(directory, step):
    """Files that are not empty, the largest first: array chunks come before their metadata."""
    found = [p for p in (directory / str(step)).rglob("*") if p.is_file() and p.stat().st_size]
    return sorted(found, key=lambda p: -p.stat().st_size)


@pytest.mark.long
def test_round_trip(saved):
    step, state, targets, meta = restore(saved)
    assert step == 7 and meta["seconds"] == 7.0
    assert checksums(state) == checksums(tree(7))
    np.testing.assert_array_equal(targets["label"], TARGETS["label"])


def test_writing_a_checkpoint_compiles_nothing(tmp_path, caplog):
    """This includes arrays on all devices, for which Orbax would compile a program per device and array."""
    state = replicate(tree(3), data_mesh(8))
    store = Store(tmp_path / "checkpoints")
    with jax.log_compiles():
        store.save(3, state, TARGETS, {})
    store.close()
    assert "Compiling" not in caplog.text
    assert checksums(restore(tmp_path / "checkpoints")[1]) == checksums(tree(3))


def test_two_checkpoints_are_kept_and_a_new_directory_has_none(saved, tmp_path):
    store = Store(saved)
    store.save(9, tree(9), {}, {})
    assert sorted(int(p.name) for p in saved.iterdir() if p.name.isdigit()) == [7, 9]
    store.close()
    assert restore(tmp_path / "new") is None


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(bytes(content))


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [flip, truncate, lambda path: path.unlink()], ids=["flip", "truncate", "delete"])
@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_damaged_checkpoint_is_replaced_by_the_previous_one(saved, capsys, damage, part):
    damage(parts(saved, 7)[part])
    found = restore(saved)
    if found[0] == 7:  # the part had no data that is read
        assert checksums(found[1]) == checksums(tree(7))
        return
    assert found[0] == 3 and checksums(found[1]) == checksums(tree(3))
    assert "checkpoint 7" in capsys.readouterr().err
    assert (saved.parent / "damaged" / "checkpoints_7").is_dir(), "set aside, not deleted"
    store = Store(saved)
    store.save(7, tree(8), {}, {})
    store.close()
    assert int(restore(saved)[1]["step"]) == 8


@pytest.mark.parametrize("name", ["state", "meta", "targets"])
def test_a_missing_item_is_detected(saved, name):
    shutil.rmtree(saved / "7" / name)
    assert restore(saved)[0] == 3


def test_a_flipped_byte_in_the_arrays_is_always_detected(saved):
    """The largest file has the array data. Without checksums, Orbax restores a wrong value without an error."""
    original = parts(saved, 7)[0].read_bytes()
    name = parts(saved, 7)[0]
    store = Store(saved, read_only=True)
    for place in np.random.default_rng(0).integers(0, len(original), 12):
        content = bytearray(original)
        content[place] ^= 1 << int(place % 8)
        name.write_bytes(bytes(content))
        step, state, *_ = store.restore(ABSTRACT)
        assert step == 3 or checksums(state) == checksums(tree(7))
    store.close()
    assert (saved / "7").is_dir(), "read-only leaves everything in place"


def test_only_damaged_checkpoints_are_an_error_and_nothing_is_moved(saved):
    for step in (3, 7):
        truncate(parts(saved, step)[0])
    with pytest.raises(UserError, match="every checkpoint"):
        restore(saved)
    assert (saved / "3").is_dir() and (saved / "7").is_dir()


def test_checksums_depend_on_type_shape_and_value():
    x = np.arange(6, dtype=np.float32)
    variants = [
        x,
        x.reshape(2, 3),
        x.astype(np.float64),
        x.view(np.int32),
        -x,
        np.arange(7, dtype=np.float32),
    ]
    assert len({checksums([v])["[0]"] for v in variants}) == len(variants)


def test_a_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "checkpoints").write_text("a file in its place")
    with pytest.raises(UserError, match="checkpoints"):
        Store(tmp_path / "checkpoints")
