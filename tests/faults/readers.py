"""Every reader of files from others, with a small good file, the damages it is tried with, and what it must keep to.

As a program, ``python -m tests.faults.readers NAME FIRST COUNT`` tries seeds in a process of its own, with limits on
memory and time: damaged files have crashed readers and have claimed all memory.
"""

import contextlib
import functools
import io
import json
import resource
import shutil
import signal
import sys
import tempfile
import warnings
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.io
import scipy.sparse
from PIL import Image

from clustering_jax import data
from clustering_jax.data.embeddings import embeddings
from clustering_jax.data.images.folder import folder, iter_images
from clustering_jax.data.nouns import read_nouns
from clustering_jax.errors import UserError
from clustering_jax.serving.inputs import Inputs
from clustering_jax.serving.requests import Limits, RefusedRequest, decode_features
from tests.faults.mutations import damaged, flip, header, member, values
from tests.paths import FIXTURES

RNG = np.random.default_rng(0)
N = 12
A, B, C = (RNG.normal(size=(N, d)) for d in (3, 2, 4))
Y = np.arange(N) % 3
PICTURES = RNG.integers(0, 256, (N, 6, 5, 3), np.uint8)
# Beyond what the process has when it begins.
MEMORY, SECONDS = 3 * 2**30, 30


class Reader(NamedTuple):
    """A reader, and a good input of it.

    Attributes:
      write: writes the input into an empty directory.
      victim: the file in it that is damaged.
      read: reads the input; returns arrays or text, by name.
      damages: ``(content, generator) -> content``.
      checked: whether the format has checksums, so that one flipped bit gives the same values or an error.
      crashes: whether the library in use may crash, so that it is tried in a process of its own alone.
    """

    write: object
    victim: str
    read: object
    damages: tuple = (damaged,)
    checked: bool = False
    crashes: bool = False


def one_line(read):
    """What `read` returns, or None if it refuses in one line of a length that can be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return read()
        except (UserError, RefusedRequest) as error:
            text = str(error)
            assert text and len(text.splitlines()) == 1 and len(text) < 2000, text[:3000]
            return None


def _views(directory, **options):
    found = data.load("multiview", path=str(directory), **options)
    assert all(np.isfinite(rows).all() and len(rows) == found.num_examples for rows in found.features.values())
    return {**found.features, "labels": found.labels}


def _image_views(found):
    images = np.asarray(found.features["image"])
    assert images.dtype == np.uint8 and len(images) == found.num_examples
    return {"image": images, "labels": found.labels}


def _two_files(write, name):
    def both(directory):
        write(directory / f"a{name}", A)
        write(directory / f"b{name}", B)

    return both


def _csv(path, array, head=""):
    path.write_text(head + "".join(",".join(map(str, row)) + "\n" for row in array))


def _parquet(path, array):
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({f"c{i}": column for i, column in enumerate(array.T)}), path)


def _mat73(directory):
    import h5py

    with h5py.File(directory / "a.mat", "w", userblock_size=512) as file:
        file["X1"], file["X2"] = A.T, B.T
        cells = file.create_dataset("cells", (1, 2), h5py.ref_dtype)
        cells[0, 0], cells[0, 1] = file["X1"].ref, file["X2"].ref
        group = file.create_group("S")
        group.attrs["MATLAB_sparse"] = np.uint64(N)
        group["data"], group["ir"], group["jc"] = np.ones(2), np.array([0, 3], "u8"), np.array([0, 1, 2], "u8")
    content = (directory / "a.mat").read_bytes()
    (directory / "a.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + content[128:])


def _mat5(directory, **options):
    scipy.io.savemat(directory / "a.mat", {"X1": A, "X2": scipy.sparse.csc_array(B), "names": ["a", "bc"]}, **options)


def _pictures(directory, kind, **options):
    for i, pixels in enumerate(PICTURES[:3]):
        Image.fromarray(pixels).save(directory / f"{i}.{kind}", **options)


def _read_pictures(directory):
    return {"image": folder(directory, size=4).features["image"]}


def _embedded(directory):
    """A directory as `clustering_jax.embed` writes it."""
    from clustering_jax.files import write_json
    from clustering_jax.inference.embedding_files import save, sha256

    save(directory / "train.npy", A.astype(np.float32))
    save(directory / "train.labels.npy", Y)
    write_json(directory / "train.ids.json", [f"{i}.png" for i in range(N)])
    save(directory / "nouns.npy", np.eye(4, 3, dtype=np.float32) + 1)
    (directory / "nouns.txt").write_text("cat\ndog\nsea\nbird\n")
    sums = {name: sha256(directory / name) for name in ("train.npy", "train.labels.npy", "train.ids.json")}
    beside = {name: sums[name] for name in ("train.labels.npy", "train.ids.json")}
    train = {"mark": "m", "rows": N, "labels": True, "sha256": sums["train.npy"], "files": beside}
    nouns = {
        "rows": 4,
        "sha256": sha256(directory / "nouns.npy"),
        "files": {"nouns.txt": sha256(directory / "nouns.txt")},
    }
    write_json(directory / "manifest.json", {"model": "x", "splits": {"train": train}, "nouns": nouns})


def _read_embedded(directory):
    found = embeddings(directory, split="train")
    words = "\n".join(found.vocabulary.words) if found.vocabulary else ""
    return {**found.features, "labels": found.labels, "ids": "\n".join(found.ids), "words": words}


def _copied(name):
    return lambda directory: [shutil.copy(file, directory) for file in (FIXTURES / name).iterdir()]


def _clip(directory):
    from clustering_jax.nn.vit.clip_weights import load_clip

    model = load_clip(directory)
    return {"ids": model.tokenize(["a dog"]), **_leaves(model.params)}


def _encoder(directory):
    from clustering_jax.encoders import load_encoder

    return _leaves(load_encoder(directory).params)


def _leaves(tree):
    from flax.traverse_util import flatten_dict

    return {name: np.asarray(leaf) for name, leaf in flatten_dict(tree, sep="/").items()}


def _torch(directory):
    from clustering_jax.weights.torch_file import read_torch

    (path,) = directory.iterdir()
    return {"text": repr(read_torch(path))}


def _exported(directory):
    from clustering_jax.serving.export import write
    from tests.runs import contents_of

    shutil.copytree(_model(write, contents_of), directory, dirs_exist_ok=True)


@functools.cache
def _model(write, contents_of):
    path = Path(tempfile.mkdtemp(prefix="model")) / "model"
    write(contents_of("temi"), str(path))
    return path


def _read_exported(directory):
    from clustering_jax.serving.artefact import read

    contents, artefact = read(directory)
    text = json.dumps([contents.manifest, contents.preprocessing], sort_keys=True)
    return {"text": text, "artefact": f"{zlib.crc32(artefact)}", **_leaves(contents.variables)}


TWO = Inputs(
    {"view0": (3,), "view1": (2,)},
    {"view0": {"kind": "none", "columns": 3}, "view1": {"kind": "none", "columns": 2}},
    "nan",
)
IMAGES = Inputs({"image": (4, 4, 3)}, {}, "error")


def _body(write):
    return lambda directory: (directory / "body").write_bytes(write())


def _request(media, inputs):
    limits = Limits(max_bytes=2**20)
    return lambda directory: decode_features(media, [(directory / "body").read_bytes()], inputs, limits)


def _bytes(write):
    file = io.BytesIO()
    write(file)
    return file.getvalue()


NPZ = {"view0": A, "view1": B, "view2": C, "y": Y}
READERS = {
    "npy": Reader(_two_files(np.save, ".npy"), "a.npy", _views),
    "npz": Reader(
        lambda d: np.savez(d / "a.npz", **NPZ),
        "a.npz",
        lambda d: _views(d / "a.npz", label_key="y"),
        (damaged, member),
        checked=True,
    ),
    "npz, packed": Reader(
        lambda d: np.savez_compressed(d / "a.npz", **NPZ),
        "a.npz",
        lambda d: _views(d / "a.npz", label_key="y"),
        (damaged, member),
        checked=True,
    ),
    "sparse npz": Reader(
        lambda d: (scipy.sparse.save_npz(d / "a.npz", scipy.sparse.csr_array(A)), np.save(d / "b.npy", B)),
        "a.npz",
        _views,
        (damaged, member),
        checked=True,
    ),
    "csv": Reader(_two_files(_csv, ".csv"), "a.csv", _views),
    "csv of labels": Reader(
        lambda d: (_two_files(np.save, ".npy")(d), _csv(d / "labels.csv", enumerate("xyzxyzxyzxyz"), "id,label\n")),
        "labels.csv",
        lambda d: _views(d, label_key="labels.csv"),
    ),
    "parquet": Reader(_two_files(_parquet, ".parquet"), "a.parquet", _views),
    "mat 7.3": Reader(_mat73, "a.mat", lambda d: _views(d / "a.mat"), crashes=True),
    "mat 5": Reader(_mat5, "a.mat", lambda d: _views(d / "a.mat"), crashes=True),
    "mat 5, packed": Reader(
        functools.partial(_mat5, do_compression=True), "a.mat", lambda d: _views(d / "a.mat"), crashes=True
    ),
    "images npy": Reader(
        lambda d: np.save(d / "a.npy", PICTURES),
        "a.npy",
        lambda d: _image_views(data.load("arrays", path=str(d / "a.npy"))),
    ),
    "images npz": Reader(
        lambda d: np.savez(d / "a.npz", image=PICTURES, y=Y),
        "a.npz",
        lambda d: _image_views(data.load("arrays", path=str(d / "a.npz"), label_key="y")),
        (damaged, member),
        checked=True,
    ),
    "images npz, streamed": Reader(
        lambda d: np.savez_compressed(d / "a.npz", image=PICTURES),
        "a.npz",
        lambda d: {"image": np.concatenate([rows for _, rows in iter_images(d / "a.npz", (4, 4, 3), 5)])},
        (damaged, member),
        checked=True,
    ),
    "embeddings npz": Reader(
        lambda d: np.savez(d / "a.npz", image=A, nouns=A[:4], noun_words=np.array(list("abcd")), y=Y),
        "a.npz",
        lambda d: data.load("embeddings", path=str(d / "a.npz"), label_key="y").features,
        (damaged, member),
        checked=True,
    ),
    **{
        f"embeddings, {name}": Reader(_embedded, name, _read_embedded, damages, checked=True)
        for name, damages in {
            "manifest.json": (damaged, values),
            "train.npy": (damaged,),
            "train.labels.npy": (damaged,),
            "train.ids.json": (damaged, values),
            "nouns.txt": (damaged,),
        }.items()
    },
    **{
        f"a picture, {kind}": Reader(functools.partial(_pictures, kind=kind), f"1.{kind}", _read_pictures)
        for kind in ("png", "jpg", "gif", "bmp", "tiff", "webp", "ppm")
    },
    "nouns": Reader(
        lambda d: (d / "nouns.txt").write_text("cat\nhot dog\nsea\n"),
        "nouns.txt",
        lambda d: {"words": "\n".join(read_nouns(d / "nouns.txt"))},
    ),
    **{
        f"clip, {name}": Reader(_copied("clip_hf"), name, _clip, damages)
        for name, damages in {
            "config.json": (damaged, values),
            "preprocessor_config.json": (damaged, values),
            "tokenizer.json": (damaged, values),
            "tokenizer_config.json": (damaged, values),
            "model.safetensors": (damaged, header),
        }.items()
    },
    "open_clip, config": Reader(_copied("clip_open"), "open_clip_config.json", _clip, (damaged, values)),
    **{
        f"{kind}, {name}": Reader(_copied(f"encoders/{kind}"), name, _encoder, damages)
        for kind in ("dinov2", "dinov3", "siglip")
        for name, damages in {"config.json": (damaged, values), "model.safetensors": (damaged, header)}.items()
    },
    **{
        name: Reader(functools.partial(shutil.copy, FIXTURES / name), name, _torch, damages)
        for name, damages in {
            "torch_zip.pt": (damaged, member),
            "torch_legacy.pt": (damaged,),
            "torch_protocol4.pt": (damaged, member),
        }.items()
    },
    **{
        f"a model, {name}": Reader(_exported, name, _read_exported, damages, checked=True)
        for name, damages in {
            "SHA256SUMS": (damaged,),
            "model.json": (damaged, values),
            "preprocessing.json": (damaged, values),
            "params.npz": (damaged, member),
            "predict.jax_export": (damaged,),
        }.items()
    },
    "a request, JSON": Reader(
        _body(lambda: json.dumps({"view0": A.tolist(), "view1": B.tolist()}).encode()),
        "body",
        _request("application/json", TWO),
        (damaged, values),
    ),
    "a request, npz": Reader(
        _body(lambda: _bytes(lambda file: np.savez(file, view0=A, view1=B))),
        "body",
        _request("application/x-npz", TWO),
        (damaged, member),
        checked=True,
    ),
    "a request, npy": Reader(
        _body(lambda: _bytes(lambda file: np.save(file, PICTURES))), "body", _request("application/x-npy", IMAGES)
    ),
    "a request, png": Reader(
        _body(lambda: _bytes(lambda file: Image.fromarray(PICTURES[0]).save(file, "PNG"))),
        "body",
        _request("image/png", IMAGES),
    ),
}


def assert_equal(found, expected, where):
    assert found.keys() == expected.keys(), where
    for name, value in expected.items():
        same = found[name] == value if value is None or isinstance(value, str) else np.array_equal(found[name], value)
        assert same, f"{where}: {name} is another one"


def attempt(reader, directory, good, seed):
    """Tries one damage. AssertionError and any error but one line are faults of the program."""
    rng, victim = np.random.default_rng(seed), directory / reader.victim
    single = reader.checked and rng.random() < 0.5
    content = flip(good, rng) if single else reader.damages[rng.integers(len(reader.damages))](good, rng)
    expected = None
    if single:
        victim.write_bytes(good)
        expected = reader.read(directory)
    victim.write_bytes(content)
    found = one_line(lambda: reader.read(directory))
    if found is not None and expected is not None:
        assert_equal(found, expected, f"seed {seed}")


def faults_of(name, seeds, directory, limited=contextlib.nullcontext):
    """Tries all seeds. Returns one line for each fault."""
    reader, faults = READERS[name], []
    reader.write(directory)
    good = (directory / reader.victim).read_bytes()
    assert one_line(lambda: reader.read(directory)) is not None, f"{name}: the good file is refused"
    for seed in seeds:
        with limited(seed):
            try:
                attempt(reader, directory, good, seed)
            except Exception as error:
                faults.append(f"{name}, seed {seed}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
    return faults


@contextlib.contextmanager
def _timed(seed):
    print(f"seed {seed}", flush=True)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)


def main(name, first, count):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, -1))
    with tempfile.TemporaryDirectory() as directory:
        for line in faults_of(name, range(int(first), int(first) + int(count)), Path(directory), _timed):
            print(f"fault: {line}", flush=True)
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
