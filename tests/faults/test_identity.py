"""What a workdir, embeddings and a fitted estimator belong to is compared before anything goes on."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from clustering_jax import parallel, run, settings
from clustering_jax.data import identity as module
from clustering_jax.data.embeddings import embeddings
from clustering_jax.data.identity import changes, identity
from clustering_jax.data.images.folder import folder
from clustering_jax.errors import UserError
from clustering_jax.estimators import MultiViewClustering
from clustering_jax.inference import embedding, embedding_files
from clustering_jax.inference.embedding import embed
from clustering_jax.training import workdir as workdir_module
from clustering_jax.training.checkpoint import Store
from clustering_jax.training.signals import Interrupted, Signals
from clustering_jax.training.workdir import check_agreement, write_result
from tests.inference.test_embedding import MODEL
from tests.toy import dataset

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(30, 5)), RNG.normal(size=(30, 7))


def views(case=""):
    """The arrays of a file, changed in one way."""
    arrays = {"view0": A.copy(), "view1": B.copy(), "y": np.arange(30) % 3}
    if case == "rows":
        arrays = {name: np.resize(np.flip(array, 0), (80, *array.shape[1:])) for name, array in arrays.items()}
    elif case == "one value":
        arrays["view1"][29, 6] += 1e-3
    elif case == "width":
        arrays["view0"] = arrays["view0"][:, :4]
    elif case == "labels":
        arrays["y"][0] = 2
    elif case == "order":
        arrays["view0"] = arrays["view0"][::-1]
    return arrays


def config(path, **more):
    model = {"hidden": (8,), "latent_dim": 4, "feature_dim": 4, "matching_steps": 2, "reconstruction_epochs": 1}
    data = {"source": "multiview", "path": str(path), "label_key": "y", "scaling": "standard"}
    return settings.cmmc(num_clusters=3, batch_size=8, epochs=2, data=data, model=model, **more).to_dict()


def stopped(path, workdir, **more):
    """A run that a signal stopped before its first step."""
    signals = Signals()
    signals.caught = True
    with pytest.raises(Interrupted):
        run.train(config(path, **more), workdir, signals, quiet=True)


def snapshot(directory):
    return {p: p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file() and p.name != ".lock"}


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    root = tmp_path_factory.mktemp("interrupted")
    np.savez(root / "views.npz", **views())
    stopped(root / "views.npz", root / "run")
    return root


@pytest.fixture
def begun(interrupted, tmp_path):
    return shutil.copytree(interrupted / "run", tmp_path / "run")


# What is changed, and how the message names it.
OTHER_DATA = {
    "rows": r"rows \(30, now 80\), view0, view1, labels, scaling",
    "one value": "view1, scaling",
    "width": "view0, scaling",
    "labels": "in labels:",
    "order": "in view0",
}


@pytest.mark.parametrize("case", OTHER_DATA)
def test_a_run_does_not_resume_on_other_data(interrupted, begun, case):
    before = snapshot(begun)
    path, original = interrupted / "views.npz", (interrupted / "views.npz").read_bytes()
    try:
        np.savez(path, **views(case))
        with pytest.raises(UserError, match=f"other data.*{OTHER_DATA[case]}"):
            run.train(config(path), begun, quiet=True)
    finally:
        path.write_bytes(original)
    assert snapshot(begun) == before


@pytest.mark.filterwarnings("ignore:.*is damaged")
def test_a_cut_config_lets_no_other_config_in(interrupted, begun):
    for content in (b"", b'{"seed": 0', b"[1]", b"\xff\xfe"):
        (begun / "config.json").write_bytes(content)
        before = snapshot(begun)
        with pytest.raises(UserError, match=r"another config: seed \(0 there, 1 now\)"):
            run.train(config(interrupted / "views.npz", seed=1), begun, quiet=True)
        assert snapshot(begun) == before


def test_a_moved_workdir_goes_on(interrupted, begun):
    stopped(interrupted / "views.npz", begun)


def test_a_bit_of_a_checkpoints_description_is_damage(interrupted, begun, capsys):
    """It is not taken for another config."""
    (path,) = (begun / "checkpoints").glob("*/meta/metadata")
    path.write_bytes(path.read_bytes().replace(b'"seed":0', b'"seed":1').replace(b'"seed": 0', b'"seed": 1'))
    assert b'"seed":1' in path.read_bytes().replace(b" ", b"")
    with pytest.raises(UserError, match="every checkpoint"):
        run.train(config(interrupted / "views.npz"), begun, quiet=True)


def test_other_shapes_are_not_damage(tmp_path):
    store = Store(tmp_path)
    store.save(1, {"w": np.zeros((2, 3), np.float32)}, {}, {})
    with pytest.raises(UserError, match=r"another model: 1 arrays differ, first .*w.*\[2, 3\].*\[2, 4\]"):
        store.restore({"w": np.zeros((2, 4), np.float32)})
    store.close()
    assert (tmp_path / "1").is_dir()


@pytest.mark.parametrize("case", ["scaled", "labels", "one value", "order"])
def test_an_estimators_workdir_holds_one_data_set(tmp_path, case):
    """Data in other units have the same scaled features."""
    options = {
        "n_clusters": 3,
        "batch_size": 8,
        "workdir": tmp_path / "run",
        "scaling": "standard",
        "epochs": 1,
        "random_state": 0,
    }
    options["settings"] = {"model.hidden": (8,), "model.latent_dim": 4, "model.feature_dim": 4}
    first, other = views(), views(case)
    if case == "scaled":
        other["view0"] = 4 * other["view0"] + 8
    if case == "labels":
        other = {**first, "y": other["y"]}
    pair = [[arrays["view0"], arrays["view1"]] for arrays in (first, other)]
    signals = pytest.MonkeyPatch()
    signals.setattr(
        "clustering_jax.run.training._run", lambda config, workdir, *_: workdir_module.create_workdir(workdir, config)
    )
    signals.setattr(MultiViewClustering, "_read", lambda self, workdir: None)
    try:
        MultiViewClustering(**options).fit(pair[0], first["y"])
        with pytest.raises(UserError, match="other data"):
            MultiViewClustering(**options).fit(pair[1], other["y"])
        MultiViewClustering(**options).fit(pair[0], first["y"])
    finally:
        signals.undo()


def test_the_parts_that_differ_are_named():
    one, other = dataset(9), dataset(9, seed=1)
    assert changes(identity(one), identity(one)) == ""
    assert changes(identity(one), identity(other)) == "x"
    assert changes(identity(one), identity(other._replace(labels=None))) == "x, labels"


def test_large_arrays_are_digested_in_blocks(monkeypatch):
    monkeypatch.setattr(module, "WHOLE", 100)
    monkeypatch.setattr(module, "BLOCKS", 4)
    monkeypatch.setattr(module, "BLOCK", 64)
    array = np.zeros((100, 8), np.float32)
    digests = {module._digest(array), module._digest(array[:99])}
    array[-1, -1] = 1
    assert len({*digests, module._digest(array)}) == 3


def pictures(path, shade=0, n=12):
    path.mkdir(exist_ok=True)
    for i in range(n):
        Image.new("RGB", (30, 30), (shade, 20 * i, 100)).save(path / f"{i}.png")
    return path


def test_a_streamed_folder_is_recognised(tmp_path):
    first = identity(folder(pictures(tmp_path / "a"), size=8, streaming=True))
    assert changes(first, identity(folder(pictures(tmp_path / "b"), size=8, streaming=True))) == ""
    assert changes(first, identity(folder(pictures(tmp_path / "b", shade=9), size=8, streaming=True))) == "image"


def embedded(output, path, **options):
    splits = {"train": {"source": "folder", "path": str(path), **options}}
    return embed(output, clip=str(MODEL), splits=splits, batch_size=8)


def test_pictures_that_change_under_their_names_are_embedded_again(tmp_path):
    output = embedded(tmp_path / "out", pictures(tmp_path / "in"))
    old = np.load(output / "train.npy")
    embedded(output, pictures(tmp_path / "in", shade=200))
    new = np.load(output / "train.npy")
    assert not np.array_equal(old, new)
    np.testing.assert_array_equal(new, np.load(embedded(tmp_path / "other", tmp_path / "in") / "train.npy"))


def test_labels_that_are_switched_on_later_are_written(tmp_path):
    for name in "ab":
        pictures(tmp_path / name)
    output = embedded(tmp_path / "out", tmp_path)
    assert embeddings(output, split="train").labels is None
    shutil.rmtree(output)
    output = embedded(tmp_path.parent / f"{tmp_path.name}-out", tmp_path)
    embedded(output, tmp_path, labels_from_folders=True)
    assert embeddings(output, split="train").labels.tolist() == [0] * 12 + [1] * 12


def flip(path, at=-3):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def raise_rows(output):
    path = output / "train.progress.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "rows": record["rows"] + 8}))


PART = "train.npy.part"
# Damage of an interrupted embedding, of 16 finished rows of 24 and 10 columns.
DAMAGES = {
    "a flipped bit": lambda out: flip(out / PART, 128 + 40),
    "a cut file": lambda out: os.truncate(out / PART, 300),
    "raised rows": raise_rows,
    "rows that are text": lambda out: (out / "train.progress.json").write_text('{"rows": "9"}'),
    "no JSON": lambda out: (out / "train.progress.json").write_bytes(b"\xff{"),
    "another header": lambda out: np.save(out / "x.npy", np.zeros((24, 3))) or (out / "x.npy").replace(out / PART),
}


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """An interrupted embedding, and the whole one."""
    root, patch = tmp_path_factory.mktemp("half"), pytest.MonkeyPatch()
    pictures(root / "in", n=24)
    patch.setattr(embedding, "CHUNK", 1)
    whole = np.load(embedded(root / "whole", root / "in") / "train.npy")

    def record(path, value):
        embedding_files.write_json(path, value)
        if value.get("rows") == 16:
            raise KeyboardInterrupt

    patch.setattr(embedding, "write_json", record)
    with pytest.raises(KeyboardInterrupt):
        embedded(root / "half", root / "in")
    patch.undo()
    return root, whole


@pytest.mark.filterwarnings("ignore:.*is damaged")
@pytest.mark.parametrize("case", ["", *DAMAGES])
@pytest.mark.long
def test_resumed_embeddings_are_checked(half, tmp_path, case):
    root, whole = half
    output = shutil.copytree(root / "half", tmp_path / "out")
    if case:
        DAMAGES[case](output)
    embedded(output, root / "in")
    np.testing.assert_array_equal(np.load(output / "train.npy"), whole)


@pytest.mark.parametrize("name", ["train.ids.json", "train.labels.npy", "train.npy"])
def test_a_flipped_bit_beside_the_embeddings_is_seen(tmp_path, name):
    (tmp_path / "in").mkdir()
    for each in "ab":
        pictures(tmp_path / "in" / each)
    output = embedded(tmp_path / "out", tmp_path / "in", labels_from_folders=True)
    flip(output / name)
    with pytest.raises(UserError, match="is not what"):
        embeddings(output, split="train")
    embedded(output, tmp_path / "in", labels_from_folders=True)
    assert embeddings(output, split="train").num_examples == 24


def test_processes_that_disagree_are_refused(monkeypatch):
    ours = {"epochs": 3, "optimizer": {"learning_rate": 0.1}, "data of": {"train": {"view0": "ab"}}}
    first = {"epochs": 3, "optimizer": {"learning_rate": 0.2}, "data of": {"train": {"view0": "cd"}}}
    check_agreement(ours)
    monkeypatch.setattr(workdir_module, "text_of_first", lambda _: json.dumps(first))
    with pytest.raises(
        UserError, match=r"data of\.train\.view0 .*optimizer\.learning_rate \(0\.2 in process 0, 0\.1 here"
    ):
        check_agreement(ours)
    assert parallel.text_of_first("é") == "é"


@pytest.mark.filterwarnings("ignore:only")
def test_a_finished_run_says_that_its_data_have_changed(interrupted, begun, capsys, recwarn):
    """The data are read only if their files differ."""
    path = interrupted / "views.npz"
    original, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    (begun / "assignments.csv").write_text("id,cluster,probability\n")
    protocol = {"scores": {}, "protocol": {}, "baselines": [], "seed": 0, "wall_time_seconds": 1.0}
    write_result(begun, protocol, str(path))
    (begun / "report.html").write_text("")

    def said():
        recwarn.clear()
        run.train(config(path), begun)
        assert "is finished" in capsys.readouterr().out
        return " ".join(str(warning.message) for warning in recwarn)

    try:
        assert "changed" not in said()
        os.utime(path, ns=(times[0], times[1] + 10**9))
        assert "changed" not in said()
        np.savez(path, **views("one value"))
        assert "its data have changed since: they differ in view1" in said()
        path.write_bytes(b"no arrays")
        assert "they differ in their files" in said()
        path.unlink()
        assert "changed" not in said()
    finally:
        path.write_bytes(original)
        os.utime(path, ns=times)
