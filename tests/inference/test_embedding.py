"""Tests embedding by CLIP: written files, resumption, and a run from image files to clusters with names."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from clustering_jax import run
from clustering_jax.data.embeddings import embeddings
from clustering_jax.data.images.folder import synthetic
from clustering_jax.data.images.for_clip import clip_image
from clustering_jax.data.images.for_embedding import ImageRows
from clustering_jax.errors import UserError
from clustering_jax.inference import embedding as module
from clustering_jax.inference.embedding import PROMPTS, embed
from clustering_jax.inference.new_rows import lines
from clustering_jax.inference.predictor import Predictor
from clustering_jax.nn.vit.clip_weights import load_clip
from clustering_jax.settings import EMBEDDINGS, dxmc
from tests.test_run import ROOT

MODEL = ROOT / "tests" / "fixtures" / "clip_hf"
NOUNS = ["cat", "dog", "house", "sea", "horse", "painting", "photo"]
N = 40


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two class folders of images of odd sizes."""
    root = tmp_path_factory.mktemp("photos")
    found = synthetic(n=N, size=41, num_clusters=2)
    for i, image in enumerate(found.features["image"]):
        path = root / "in" / f"class {found.labels[i]}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[:, : 30 + i % 5]).save(path)
    (root / "nouns.txt").write_text("\n".join(NOUNS))
    return root


def settings(photos, **changes):
    splits = {"train": {"source": "folder", "path": str(photos / "in"), "labels_from_folders": True}}
    return {"clip": str(MODEL), "splits": splits, "nouns": str(photos / "nouns.txt"), "batch_size": 8, **changes}


@pytest.fixture(scope="module")
def written(photos, tmp_path_factory):
    return embed(tmp_path_factory.mktemp("out") / "embeddings", **settings(photos))


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.long
def test_rows_are_the_features_of_the_model_in_order(photos, written):
    model = load_clip(MODEL)
    dataset = embeddings(written, split="train")
    assert dataset.ids == [
        f"class {c}/{i}.png" for c in (0, 1) for i in range(N) if (photos / f"in/class {c}/{i}.png").exists()
    ]
    images = np.stack([clip_image(Image.open(photos / "in" / name), model.config.image_size) for name in dataset.ids])
    expected = unit(np.asarray(model.image_features(model.params, images)))
    np.testing.assert_allclose(dataset.features["image"], expected, atol=1e-5)
    assert dataset.labels.tolist() == [int(name[6]) for name in dataset.ids]


@pytest.mark.long
def test_a_noun_embedding_is_the_mean_over_the_prompts(written):
    model, vocabulary = load_clip(MODEL), embeddings(written, split="train").vocabulary
    assert vocabulary.words == NOUNS
    for word, row in zip(NOUNS, vocabulary.embeddings, strict=True):
        found = np.asarray(model.text_features(model.params, model.tokenize([p.format(word) for p in PROMPTS])))
        np.testing.assert_allclose(row, unit(found.mean(0, keepdims=True))[0], atol=1e-5)


def test_the_manifest_has_checksums_and_a_second_call_computes_nothing(photos, written, monkeypatch):
    manifest = json.loads((written / "manifest.json").read_text())
    assert manifest["checksum"] == load_clip(MODEL).checksum and manifest["splits"]["train"]["rows"] == N
    assert manifest["splits"]["train"]["sha256"] == module.sha256(written / "train.npy")
    monkeypatch.setattr(module, "_stream", lambda *_: pytest.fail("embedded again"))
    assert embed(written, **settings(photos)) == written


def test_a_flipped_bit_is_noticed(written, tmp_path):
    damaged = shutil.copytree(written, tmp_path / "damaged")
    content = bytearray((damaged / "train.npy").read_bytes())
    content[-3] ^= 1
    (damaged / "train.npy").write_bytes(content)
    with pytest.raises(UserError, match=r"train\.npy is not what manifest\.json says"):
        embeddings(damaged, split="train")


@pytest.mark.parametrize("change, message", [({"resize": 30}, "resize"), ({"batch_size": 0}, "batch_size")])
def test_other_settings_are_refused(photos, written, change, message):
    with pytest.raises(UserError, match=message):
        embed(written, **settings(photos, **change))


def test_nouns_come_from_the_cache(photos, tmp_path, monkeypatch):
    some = settings(photos, cache=str(tmp_path / "cache"), splits={})
    first = embed(tmp_path / "a", **some)
    monkeypatch.setattr(module, "_stream", lambda *_: pytest.fail("embedded again"))
    second = embed(tmp_path / "b", **some)
    np.testing.assert_array_equal(np.load(first / "nouns.npy"), np.load(second / "nouns.npy"))


def test_embedding_resumes_where_it_was_interrupted(photos, written, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 1)
    read, plain = [], ImageRows.batch

    def batch(self, start, stop, fit):
        read.append(start)
        if start == 24 and len(read) < 6:
            raise KeyboardInterrupt
        return plain(self, start, stop, fit)

    monkeypatch.setattr(ImageRows, "batch", batch)
    with pytest.raises(KeyboardInterrupt):
        embed(tmp_path / "out", **settings(photos))
    assert not (tmp_path / "out" / "manifest.json").exists() and not (tmp_path / "out" / "train.npy").exists()
    read += [None] * 2
    embed(tmp_path / "out", **settings(photos))
    assert read == [0, 8, 16, 24, None, None, *read[6:]] and read[6:] in ([16, 24, 32], [24, 32])
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "train.npy"), np.load(written / "train.npy"))


def test_unreadable_images(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 1)
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(20):
        Image.new("RGB", (30, 30), (i, 100, 10 * i)).save(folder / f"{i}.png")
    for bad in (0, 13):
        (folder / f"{bad}.png").write_bytes(b"no image")
    source = {"source": "folder", "path": str(folder)}
    with pytest.raises(UserError, match=r"0\.png is not an image; remove it"):
        embed(tmp_path / "a", **settings(photos, splits={"train": source}, nouns=""))
    with pytest.warns(UserWarning, match="skipped 2 unreadable of 20"):
        found = embed(tmp_path / "b", **settings(photos, splits={"train": {**source, "on_error": "skip"}}, nouns=""))
    dataset = embeddings(found, split="train")
    assert dataset.ids == [f"{i}.png" for i in range(20) if i not in (0, 13)]
    for path in folder.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match="none of the 20 images"):
        embed(tmp_path / "c", **settings(photos, splits={"train": {**source, "on_error": "skip"}}, nouns=""))


def config(photos, **changes):
    model = {"hidden": 8, "instance_dim": 8, "neighbours": 5, "centers": 3, "center_restarts": 2}
    given = {"num_clusters": 2, "batch_size": 16, "epochs": 2, "embed": settings(photos), "model": model, **changes}
    return dxmc(**given)


@pytest.fixture(scope="module")
def finished(photos, tmp_path_factory):
    directory = tmp_path_factory.mktemp("run") / "run"
    return directory, run.train(config(photos).to_dict(), directory)


@pytest.mark.long
def test_from_image_files_to_named_clusters(photos, finished):
    directory, result = finished
    assert set(result["scores"]) >= {"acc", "occupied"} and len(result["baselines"]) == 2
    clusters = json.loads((directory / "clusters.json").read_text())
    assert sum(c["size"] for c in clusters) == N and {w for c in clusters for w in c["names"]} <= set(NOUNS)
    rows = list(csv.DictReader((directory / "assignments.csv").open()))
    assert all(r["names"] == "; ".join(clusters[int(r["cluster"])]["names"]) for r in rows)
    predictor = Predictor.restore(directory)
    found = list(csv.DictReader("".join(lines(predictor, photos / "in", 16)).splitlines()))
    assert found == [{name: row[name] for name in found[0]} for row in rows]
    made = "".join(lines(predictor, directory / "embeddings", 16))
    assert list(csv.DictReader(made.splitlines())) == found


@pytest.mark.long
def test_new_embeddings_of_another_width_are_refused(finished, tmp_path):
    np.save(tmp_path / "other.npy", np.eye(5, dtype=np.float32))
    with pytest.raises(UserError, match="5 columns, the run was trained on 10"):
        list(lines(Predictor.restore(finished[0]), tmp_path / "other.npy", 16))


@pytest.mark.parametrize(("waited", "seconds", "warns"), [(50, 90, True), (30, 90, False), (20, 30, False)])
def test_a_model_that_waits_for_images_says_so(recwarn, waited, seconds, warns):
    module._warn_if_reading_is_slow(waited, seconds)
    assert [str(w.message)[:41] for w in recwarn] == [f"the model waited {waited} of {seconds} s for images to"] * warns


def test_a_config_without_images_or_embeddings_is_refused(tmp_path):
    with pytest.raises(UserError, match=re.escape("--config.data.path")):
        run.train(dxmc(num_clusters=2).to_dict(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "stage", ["train.npy.part", "nouns.npy", "nouns-*.npz", "image_neighbours*.npz", "checkpoints/*"]
)
@pytest.mark.slow
def test_a_run_killed_in_any_stage_resumes_to_the_same_result(photos, finished, tmp_path, stage):
    workdir = tmp_path / "run"
    (tmp_path / "config.py").write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\nfrom tests.inference.test_embedding import config\n"
        f"def get_config():\n    return config(Path({str(photos)!r}), run={{'checkpoint_every': 1}})\n"
    )
    command = [
        sys.executable,
        "-m",
        "clustering_jax.main",
        f"--config={tmp_path / 'config.py'}",
        f"--workdir={workdir}",
    ]
    first = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    while first.poll() is None and not list(workdir.rglob(stage)):
        time.sleep(0.005)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    subprocess.run(command, cwd=ROOT, check=True)
    assert (workdir / "assignments.csv").read_text() == (finished[0] / "assignments.csv").read_text()


@pytest.mark.slow
def test_the_command_line(photos, tmp_path):
    command = [sys.executable, "-m", "clustering_jax.embed", "--config=configs/dxmc_folder.py"]
    command += [f"--output={tmp_path / 'out'}", f"--config.embed.splits.train.path={photos / 'in'}"]
    broken = subprocess.run([*command, "--config.embed.clip=nowhere"], cwd=ROOT, capture_output=True, text=True)
    assert broken.returncode == 2 and re.fullmatch(r"error: 'nowhere' .*\n", broken.stderr)
    done = subprocess.run([*command, f"--config.embed.clip={MODEL}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert embeddings(tmp_path / "out", split="train").vocabulary is None
    assert EMBEDDINGS["split"] == "train"
