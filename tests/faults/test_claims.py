"""What files and requests say of themselves is compared with what is there, before memory or time is spent on it."""

import asyncio
import io
import threading
import time
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from PIL import Image

from clustering_jax import data
from clustering_jax.data.images.folder import folder, iter_images
from clustering_jax.data.views.readers import file_arrays
from clustering_jax.errors import UserError
from clustering_jax.serving.app import Service
from clustering_jax.serving.inputs import Inputs
from clustering_jax.serving.requests import MAX_PIXELS, Limits, RefusedRequest, decode_features

VIEW = np.random.default_rng(0).normal(size=(40, 6))
POINTERS = np.r_[0, 1, 2, np.full(38, 3)]


def sparse(kind, **changes):
    """The arrays of a sparse `.npz`, as SciPy writes them."""
    shape = np.array([40, 10])
    if kind == "coo":
        arrays = {"row": np.array([0, 1, 2]), "col": np.array([0, 1, 2]), "data": np.ones(3)}
    else:
        arrays = {"indices": np.array([0, 1, 2]), "indptr": POINTERS, "data": np.ones(3)}
    return {"format": np.array(kind.encode()), "shape": shape, **arrays, **changes}


# Sparse arrays that SciPy loads, and in which it then reads and writes outside of its memory, or takes all of it.
EVIL = {
    "an index far above": sparse("csr", indices=np.array([0, 1, 99_999_999])),
    "an index below 0": sparse("csr", indices=np.array([0, 1, -3000])),
    "rows of another array": sparse("csc", indices=np.array([0, 1, 41]), indptr=POINTERS[:11]),
    "pointers that fall": sparse("csr", indptr=np.r_[0, 3, 1, np.full(38, 3)]),
    "pointers beyond the end": sparse("csr", indptr=np.r_[0, 1, 2, np.full(38, 99_999)]),
    "coordinates above": sparse("coo", col=np.array([0, 1, 10])),
    "coordinates below": sparse("coo", row=np.array([0, 1, -1])),
    "blocks": sparse("bsr", data=np.ones((3, 2, 2)), indices=np.array([0, 1, 999_999])),
    "diagonals": {**sparse("dia"), "offsets": np.array([999_999])},
    "640 GB": sparse("coo", shape=np.array([10**9, 80])),
    "more than can be counted": sparse("coo", shape=np.array([2**62, 2**62])),
    "text as its format": sparse("x" * 1000),
}


@pytest.mark.parametrize("case", EVIL)
def test_a_sparse_file_writes_nowhere_else(tmp_path, case):
    np.savez(tmp_path / "evil.npz", **EVIL[case])
    np.save(tmp_path / "good.npy", VIEW)
    with pytest.raises(UserError, match=r"evil\.npz") as error:
        data.load("multiview", path=str(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
def test_sparse_files_are_read(tmp_path, kind):
    dense = np.where(VIEW > 0.5, VIEW, 0)
    scipy.sparse.save_npz(tmp_path / "a.npz", scipy.sparse.csr_array(dense).asformat(kind))
    np.save(tmp_path / "good.npy", VIEW)
    found = data.load("multiview", path=str(tmp_path)).features
    np.testing.assert_array_equal(found["view0"], dense.astype(np.float32))


def test_sparse_arrays_of_a_user_are_checked():
    evil = scipy.sparse.csr_array(np.eye(40, 10))
    evil.indices[3] = 99_999_999
    with pytest.raises(UserError, match="damaged sparse"):
        data.load("multiview", path={"view0": evil, "view1": VIEW})


def npy(shape, dtype="|u1", payload=b"\0" * 48):
    """A `.npy` file whose header claims a shape."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": dtype})
    return file.getvalue() + payload


SHAPES = [(10**9, 10, 10, 1), (-1, 4, 4), (2**70, 4, 4), (7, 4, 4), (10**9, 10), (-1, 6)]


def write_npy(path, content):
    path.write_bytes(content)
    return path


def write_npz(path, content):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.npy", content)
    return path


READERS = {
    "images": lambda path: data.load("arrays", path=str(path)),
    "a stream of images": lambda path: list(iter_images(path, (4, 4, 1), 8)),
    "embeddings": lambda path: data.load("embeddings", path=str(path)),
    "views": lambda path: data.load("multiview", path=str(path), views=["image"] if path.suffix == ".npz" else ()),
    "any array": lambda path: next(iter(file_arrays(path).values()))(),
}


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_header_that_claims_more_than_is_there(tmp_path, shape, reader, name):
    content = npy(shape, "<f4" if len(shape) == 2 else "|u1")
    path = (write_npy if name == "a.npy" else write_npz)(tmp_path / name, content)
    with pytest.raises(UserError, match=r"a\.np") as error:
        READERS[reader](path)
    assert "\n" not in str(error.value)


def test_an_archive_of_many_arrays(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for i in range(10_001):
            archive.writestr(f"view{i}.npy", b"")
    with pytest.raises(UserError, match="10001 arrays"):
        data.load("multiview", path=str(tmp_path / "a.npz"))


class TestMatlab73:
    """A MATLAB 7.3 file is HDF5, which can name numbers in any other file of the user."""

    @pytest.fixture
    def h5py(self):
        return pytest.importorskip("h5py")

    def write(self, h5py, path, make):
        with h5py.File(path, "w", userblock_size=512) as file:
            make(file)
        with path.open("r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
        return path

    def refused(self, path, words):
        with pytest.raises(UserError, match=words) as error:
            data.load("multiview", path=str(path))
        assert "\n" not in str(error.value)

    def test_storage_in_another_file(self, h5py, tmp_path):
        secret = tmp_path / "secret"
        secret.write_bytes(b"k" * 800)
        made = self.write(
            h5py,
            tmp_path / "a.mat",
            lambda f: f.create_dataset("X1", (40, 2), "f8", external=[(str(secret), 0, 640)]) and None,
        )
        self.refused(made, "lies in other files")

    def test_links_to_another_file(self, h5py, tmp_path):
        with h5py.File(tmp_path / "other.h5", "w") as other:
            other["secret"] = VIEW
        made = self.write(
            h5py,
            tmp_path / "a.mat",
            lambda f: f.__setitem__("X1", h5py.ExternalLink(str(tmp_path / "other.h5"), "secret")),
        )
        self.refused(made, "is a link")

    def test_virtual_data(self, h5py, tmp_path):
        with h5py.File(tmp_path / "other.h5", "w") as other:
            other["secret"] = VIEW

        def make(file):
            layout = h5py.VirtualLayout(VIEW.shape, "f8")
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "secret", VIEW.shape)
            file.create_virtual_dataset("X1", layout)

        self.refused(self.write(h5py, tmp_path / "a.mat", make), "lies in other files")

    def test_a_sparse_array_with_an_index_far_above(self, h5py, tmp_path):
        def make(file):
            group = file.create_group("X1")
            group.attrs["MATLAB_sparse"] = np.uint64(40)
            group["data"], group["ir"] = np.ones(2), np.array([0, 99_999_999], np.uint64)
            group["jc"] = np.array([0, 1, 2], np.uint64)

        self.refused(self.write(h5py, tmp_path / "a.mat", make), "damaged sparse")


def test_a_sparse_array_of_matlab(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"X1": scipy.sparse.csc_array(np.eye(40, 5)), "X2": VIEW})
    assert data.load("multiview", path=str(tmp_path / "a.mat")).features["view0"].sum() == 5


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"


def test_a_picture_that_is_another_format_inside_starts_no_program(tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("a program was started"))
    (tmp_path / "a.png").write_bytes(EPS)
    with pytest.raises(UserError, match=r"a\.png is not an image"):
        folder(tmp_path, size=8)


IMAGES = Inputs({"image": (8, 8, 1)}, {}, "error")
TWO = Inputs({"view0": (3,), "view1": (2,)}, {}, "error")


def png(side):
    file = io.BytesIO()
    Image.new("1", (side, side)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("side, count", [(9_400, 256), (1_000, 200)])
def test_a_request_has_so_many_pixels(side, count, monkeypatch):
    """Two such requests, of 2.8 MB each, stopped the server for minutes."""
    decoded = []
    monkeypatch.setattr(
        "clustering_jax.serving.requests.decode_image", lambda *_: decoded.append(1) or np.zeros((8, 8, 1), np.uint8)
    )
    with pytest.raises(RefusedRequest, match="pixels") as error:
        decode_features("multipart/form-data", [png(side)] * count, IMAGES, Limits())
    assert error.value.status == 413 and len(decoded) * side**2 <= MAX_PIXELS


def test_decoding_ends_when_nobody_waits(monkeypatch):
    decoded = []
    monkeypatch.setattr(
        "clustering_jax.serving.requests.decode_image", lambda *_: decoded.append(1) or np.zeros((8, 8, 1), np.uint8)
    )
    with pytest.raises(RefusedRequest, match="nobody waits") as error:
        decode_features("multipart/form-data", [png(9)] * 50, IMAGES, Limits(), lambda: len(decoded) == 3)
    assert error.value.status == 503 and len(decoded) == 3


def test_a_request_of_many_arrays_is_refused_at_once():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for i in range(20_000):
            archive.writestr(f"{i}.npy", b"")
    start = time.monotonic()
    with pytest.raises(RefusedRequest, match="20000 arrays") as error:
        decode_features("application/x-npz", [file.getvalue()], TWO, Limits())
    assert error.value.status == 413 and time.monotonic() - start < 3


@pytest.mark.parametrize("shape", [(10**9, 3), (-1, 3), (2**70, 3)], ids=str)
def test_a_request_that_claims_more_than_it_sends(shape):
    with pytest.raises(RefusedRequest, match="damaged") as error:
        decode_features("application/x-npy", [npy(shape, "<f4")], Inputs({"image": (3,)}, {}, "error"), Limits())
    assert error.value.status == 400


def test_the_end_of_a_server_ends_its_decoding():
    """The process waited for threads that decoded for minutes."""
    service = Service(SimpleNamespace(run=None), Limits())
    given_up = service._given_up(threading.Event())
    assert not given_up()

    async def run():
        async with service.running(None):
            assert not given_up()

    asyncio.run(run())
    assert given_up()
    with pytest.raises(RuntimeError):
        service._decoders.submit(int)
