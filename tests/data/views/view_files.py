"""Three small views, and functions that write them in every format."""

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from clustering_jax.data.views.dataset import multiview
from clustering_jax.errors import UserError

N = 6
RNG = np.random.default_rng(0)
# The values are multiples of 1/8, which a text file represents exactly.
A, B, C = (RNG.integers(0, 40, (N, d)) / 8 for d in (3, 2, 4))
Y = np.array([2, 0, 1, 1, 0, 2])


def cells(*arrays):
    found = np.empty((1, len(arrays)), object)
    found[0, :] = arrays
    return found


def text(array, header="", index=False):
    lines = [",".join([str(i)] * index + [str(x) for x in row]) for i, row in enumerate(array)]
    return "\n".join([header] * bool(header) + lines) + "\n"


def save(path, array):
    """Writes `array` (or a dictionary of arrays, or text) in the format of the file name."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".mat":
        scipy.io.savemat(path, array if isinstance(array, dict) else {"only": array})
    elif isinstance(array, str):
        path.write_text(array, encoding="utf-8")
    elif path.suffix == ".csv":
        path.write_text(text(array))
    elif path.suffix == ".parquet":
        pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        array = array if isinstance(array, dict) else {f"c{i}": column for i, column in enumerate(np.asarray(array).T)}
        parquet.write_table(pa.table(array), path)
    elif scipy.sparse.issparse(array):
        scipy.sparse.save_npz(path, array)
    else:
        np.savez(path, **(array if isinstance(array, dict) else {"only": array}))
    return path


def assert_views(found, *expected):
    views = {k: v for k, v in found.features.items() if k != "mask"}
    assert list(views) == [f"view{i}" for i in range(len(expected))]
    for view, array in zip(views.values(), expected, strict=True):
        assert view.dtype == np.float32
        np.testing.assert_array_equal(view, np.asarray(array, np.float32))


def refuses(expected, *args, **options):
    with pytest.raises(UserError, match=expected) as error:
        multiview(*args, **options)
    assert "\n" not in str(error.value)
