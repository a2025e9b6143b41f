"""Cached results are computed once, and again if an input differs or the file is damaged; no file is half-written."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clustering_jax.errors import UserError
from clustering_jax.methods.cache import ArrayCache

KEY, ROWS = jax.random.key(0), np.arange(6, dtype=np.float32).reshape(3, 2)
RESULT = np.arange(10, dtype=np.int32).reshape(5, 2) * 7


class Counted:
    """A computation that counts its calls."""

    def __init__(self, result=RESULT):
        self.calls, self.result = 0, result

    def __call__(self):
        self.calls += 1
        return self.result


def test_computed_once(tmp_path):
    compute = Counted(jnp.asarray(RESULT))
    for _ in range(3):
        found = ArrayCache(tmp_path / "not" / "there", KEY, ROWS)("nouns", (3, 0.5), compute)
        assert isinstance(found, np.ndarray) and found.dtype == np.int32
        np.testing.assert_array_equal(found, RESULT)
    assert compute.calls == 1
    assert [path.suffix for path in (tmp_path / "not" / "there").iterdir()] == [".npz"]


CHANGED = ROWS.copy()
CHANGED[2, 1] += 1e-6
OTHERS = {
    "key": (jax.random.key(1), (ROWS,), "nouns", (3, 0.5)),
    "array": (KEY, (CHANGED,), "nouns", (3, 0.5)),
    "shape": (KEY, (ROWS.reshape(2, 3),), "nouns", (3, 0.5)),
    "type": (KEY, (ROWS.view(np.int32),), "nouns", (3, 0.5)),
    "another array": (KEY, (ROWS, ROWS), "nouns", (3, 0.5)),
    "name": (KEY, (ROWS,), "neighbours", (3, 0.5)),
    "setting": (KEY, (ROWS,), "nouns", (4, 0.5)),
    "close setting": (KEY, (ROWS,), "nouns", (3, 0.5 + 1e-12)),
    "one setting less": (KEY, (ROWS,), "nouns", (3,)),
}


@pytest.mark.parametrize("other", OTHERS)
def test_other_inputs_are_computed_again_and_stored_separately(tmp_path, other):
    key, arrays, name, settings = OTHERS[other]
    ArrayCache(tmp_path, KEY, ROWS)("nouns", (3, 0.5), Counted())
    changed, again = Counted(RESULT + 1), Counted()
    np.testing.assert_array_equal(ArrayCache(tmp_path, key, *arrays)(name, settings, changed), RESULT + 1)
    np.testing.assert_array_equal(ArrayCache(tmp_path, KEY, ROWS)("nouns", (3, 0.5), again), RESULT)
    assert (changed.calls, again.calls) == (1, 0)


def test_the_memory_order_of_the_rows_does_not_matter(tmp_path):
    ArrayCache(tmp_path, KEY, ROWS)("nouns", (), Counted())
    again = Counted()
    ArrayCache(tmp_path, KEY, np.asfortranarray(ROWS))("nouns", (), again)
    assert again.calls == 0


def kept(directory):
    ArrayCache(directory, KEY, ROWS)("nouns", (), Counted())
    (path,) = directory.iterdir()
    return path, path.read_bytes()


def assert_right(directory):
    compute = Counted()
    np.testing.assert_array_equal(ArrayCache(directory, KEY, ROWS)("nouns", (), compute), RESULT)
    return compute.calls


def test_a_truncated_file_is_computed_again(tmp_path):
    path, whole = kept(tmp_path)
    for size in (0, 1, 60, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert assert_right(tmp_path) == 1
        assert assert_right(tmp_path) == 0


@pytest.mark.parametrize("bit", [0, 5])
def test_a_flipped_bit_anywhere_changes_no_result(tmp_path, bit):
    """A flipped bit in the data is detected. In the dates of the archive and similar fields it may have no effect."""
    path, whole = kept(tmp_path)
    data = whole.index(RESULT.tobytes())
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :])
        calls = assert_right(tmp_path)
        assert calls or not data <= at < data + RESULT.nbytes
        path.write_bytes(whole)


def test_another_file_in_its_place_is_computed_again(tmp_path):
    path, _ = kept(tmp_path)
    np.savez(path, other=RESULT)
    assert assert_right(tmp_path) == 1
    np.savez(path, array=np.array([None, "object"]))
    assert assert_right(tmp_path) == 1


def test_a_failed_computation_leaves_no_file(tmp_path):
    def broken():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ArrayCache(tmp_path, KEY, ROWS)("nouns", (), broken)
    assert not list(tmp_path.iterdir())
    assert assert_right(tmp_path) == 1


def test_a_file_half_written_by_a_killed_run_is_overwritten(tmp_path):
    path, whole = kept(tmp_path)
    path.unlink()
    path.with_suffix(".part").write_bytes(whole[:50])
    assert assert_right(tmp_path) == 1
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/prepared can't be written") as error:
        ArrayCache(tmp_path / "file" / "prepared", KEY, ROWS)("nouns", (), Counted())
    assert "\n" not in str(error.value)
