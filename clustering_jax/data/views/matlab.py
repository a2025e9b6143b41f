"""Reads arrays of MATLAB files by name. The cells of cell arrays and the fields of structs are single arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import scipy.sparse

from clustering_jax.data.views.mat5 import check_mat5
from clustering_jax.errors import UserError

# How an HDF5 file begins. MATLAB puts a header of its own before it.
HDF5 = b"\x89HDF\r\n\x1a\n"


def read_mat(path: Path) -> dict[str, Any]:
    """Reads all arrays of a `.mat` file.

    SciPy reads versions up to 7, and h5py reads version 7.3. A cell array of text is one array of strings.

    Args:
      path: the file.

    Returns:
      Dense and sparse arrays by their names in MATLAB: ``"X1"``, ``"X{2}"`` in a cell array, ``"s.X"`` in a struct.

    Raises:
      UserError: the version is 7.3, and h5py is not installed. For broken files, the libraries raise nearly anything.
    """
    with path.open("rb") as file:
        if file.read(len(HDF5)) == HDF5:
            raise UserError(f"{path} was written by h5py, not by MATLAB, whose dimensions are reversed: save a .npz")
    version, _ = scipy.io.matlab.matfile_version(path, appendmat=False)
    if version == 2:
        return _read_hdf5(path)
    if version == 1:
        check_mat5(path)
    variables = scipy.io.loadmat(path, appendmat=False)
    arrays: dict[str, Any] = {}
    for name, value in variables.items():
        if not name.startswith("__"):
            arrays |= _leaves(name, value)
    return arrays


def _leaves(name: str, value: Any) -> dict[str, Any]:
    """Returns `value` itself, or the arrays in its cells and fields, by name."""
    if scipy.sparse.issparse(value) or (value.dtype.names is None and value.dtype != object):
        return {name: value}
    cells = value.ravel(order="F")
    if value.dtype.names is not None:
        numbered = [(f"{name}({i})" if value.size > 1 else name, cell) for i, cell in enumerate(cells, 1)]
        parts = [(f"{each}.{field}", cell[field]) for each, cell in numbered for field in value.dtype.names]
    elif cells.size and all(getattr(cell, "dtype", np.dtype("V")).kind == "U" for cell in cells):
        return {name: np.array(["".join(cell) for cell in cells])}
    else:
        parts = [(f"{name}{{{i}}}", cell) for i, cell in enumerate(cells, 1)]
    return {key: leaf for part, cell in parts for key, leaf in _leaves(part, np.asanyarray(cell)).items()}


def _read_hdf5(path: Path) -> dict[str, Any]:
    try:
        import h5py
    except ImportError as error:
        hint = 'pip install "clustering_jax[mat73]", or save it in MATLAB with -v7'
        raise UserError(f"{path} is a MATLAB 7.3 file, which needs h5py to be read: {hint}") from error
    arrays: dict[str, Any] = {}
    with h5py.File(path) as file:
        for name in file:
            if not name.startswith("#"):
                arrays |= _nodes(name, _own(file, name), file)
    return arrays


def _own(group: Any, name: str) -> Any:
    """A member of a group. A file may also name parts of other files, which its user may not mean to read.

    Raises:
      UserError: the member is a link, or its numbers lie in other files.
    """
    if type(group.get(name, getlink=True)).__name__ != "HardLink":
        raise UserError(f"{group.file.filename} ['{name}'] is a link to another place: save its numbers in the file")
    return _stored_here(group[name], name)


def _stored_here(node: Any, name: str) -> Any:
    if hasattr(node, "dtype") and (node.external or node.is_virtual):
        raise UserError(f"{node.file.filename} ['{name}'] lies in other files: save its numbers in the file")
    return node


def _nodes(name: str, node: Any, file: Any) -> dict[str, Any]:
    """Does what `_leaves` does, for HDF5: dimensions are reversed, cells are references, and structs are groups."""
    if "MATLAB_sparse" in node.attrs:
        shape = (int(node.attrs["MATLAB_sparse"]), len(node["jc"]) - 1)
        # MATLAB leaves both out if the matrix has no entries.
        data, rows = (_own(node, key)[()] if key in node else np.empty(0) for key in ("data", "ir"))
        columns = _own(node, "jc")[()].astype(np.int64)
        return {name: scipy.sparse.csc_array((data, rows.astype(np.int64), columns), shape)}
    if not hasattr(node, "dtype"):
        parts = [(f"{name}.{field}", _own(node, field)) for field in node]
    elif node.dtype == object:
        parts = [(f"{name}{{{i}}}", _stored_here(file[ref], name)) for i, ref in enumerate(node[()].ravel(), 1)]
        if parts and all(_is_text(cell) for _, cell in parts):
            return {name: np.array(["".join(map(chr, cell[()].ravel())) for _, cell in parts])}
    else:
        return {name: node[()].T}
    return {key: leaf for part, child in parts for key, leaf in _nodes(part, child, file).items()}


def _is_text(node: Any) -> bool:
    return node.attrs.get("MATLAB_class", b"") == b"char"
