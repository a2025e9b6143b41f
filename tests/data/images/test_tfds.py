"""TFDS sets are read without TensorFlow: small generated sets, and the real CIFAR-10 if it is available."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from clustering_jax import data
from clustering_jax.data.images import prepare
from clustering_jax.data.images.tfds import tfds
from clustering_jax.errors import UserError
from tests.paths import SHARED

SHARED = SHARED / "tfds"


CLASSES = {
    "text": "text_feature.Text",
    "image": "image_feature.Image",
    "classLabel": "class_label_feature.ClassLabel",
}


def feature(kind, **content):
    return {"pythonClassName": f"tensorflow_datasets.core.features.{CLASSES[kind]}", kind: content}


def image_feature(shape, dtype="uint8"):
    return feature("image", shape={"dimensions": [str(side) for side in shape]}, dtype=dtype)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(buffer, format="PNG")
    return buffer.getvalue()


def write_set(parent, splits, *, name="tiny", version="1.0.0", shape=(6, 5, 3), file_format="array_record", **more):
    """Writes a prepared set of ``{split: (images, labels)}`` in the layout of TFDS, and returns its directory."""
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2

    root = parent / name / version
    root.mkdir(parents=True)
    features = {
        "image": image_feature(shape),
        "label": feature("classLabel", numClasses="9"),
        "id": feature("text"),
    }
    features |= {"coarse_label": feature("classLabel", numClasses="3"), **more}
    top = "tensorflow_datasets.core.features.features_dict.FeaturesDict"
    (root / "features.json").write_text(json.dumps({"pythonClassName": top, "featuresDict": {"features": features}}))
    infos = []
    for split, (images, labels) in splits.items():
        writer = ArrayRecordWriter(str(root / f"{name}-{split}.{file_format}-00000-of-00001"), "group_size:1")
        for row, (image, label) in enumerate(zip(images, labels, strict=True)):
            example = tf_example_pb2.Example()
            example.features.feature["image"].bytes_list.value.append(png(image))
            example.features.feature["id"].bytes_list.value.append(f"{split}_{row}".encode())
            example.features.feature["label"].int64_list.value.append(int(label))
            example.features.feature["coarse_label"].int64_list.value.append(int(label) // 3)
            writer.write(example.SerializeToString())
        writer.close()
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        lengths = [str(len(images))]
        infos.append({"name": split, "numBytes": "1", "shardLengths": lengths, "filepathTemplate": template})
    info = {"name": name, "version": version, "fileFormat": file_format, "splits": infos}
    (root / "dataset_info.json").write_text(json.dumps(info))
    return root


def pixels(seed, n=4, shape=(6, 5, 3)):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), np.uint8)


@pytest.fixture
def tiny(tmp_path):
    """A set with 4 training rows, 3 test rows, and 2 rows without labels."""
    splits = {
        "train": (pixels(0), [0, 3, 6, 8]),
        "test": (pixels(1, 3), [5, 4, 3]),
        "unlabelled": (pixels(2, 2), [-1] * 2),
    }
    write_set(tmp_path, splits)
    return tmp_path


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_rows_in_order(tiny, monkeypatch, chunk):
    monkeypatch.setattr("clustering_jax.data.images.tfds.CHUNK", chunk)
    found = data.load("tfds", name="tiny", splits="train", tfds_dir=str(tiny))
    assert (found.features["image"] == pixels(0)).all()
    assert found.labels.tolist() == [0, 3, 6, 8]
    assert (found.ids, found.name, found.split) == (["0", "1", "2", "3"], "tiny", "train")


@pytest.mark.parametrize(
    "splits, expected",
    [
        ("train+test", [(0, range(4)), (1, range(3))]),
        ("test + train", [(1, range(3)), (0, range(4))]),
        ("train[1:3]", [(0, range(1, 3))]),
        ("test[:1]+train[-1:]", [(1, range(1)), (0, range(3, 4))]),
    ],
)
def test_splits_are_joined(tiny, splits, expected):
    found = tfds("tiny", splits, tfds_dir=str(tiny))
    rows = [pixels(seed, 4 - seed)[i] for seed, chosen in expected for i in chosen]
    assert (found.features["image"] == np.stack(rows)).all()
    assert found.ids == [str(i) for i in range(len(rows))]
    assert len(found.labels) == len(rows)


def test_coarse_labels(tiny):
    assert tfds("tiny", "train+test", tfds_dir=str(tiny), label_key="coarse_label").labels.tolist() == [
        0,
        1,
        2,
        2,
        1,
        1,
        1,
    ]


def test_labels_may_be_absent(tiny):
    assert tfds("tiny", "unlabelled", tfds_dir=str(tiny)).labels is None
    assert tfds("tiny", "train", tfds_dir=str(tiny), label_key="").labels is None
    assert tfds("tiny", "test+unlabelled", tfds_dir=str(tiny)).labels.tolist() == [5, 4, 3, -1, -1]


def test_newest_version_by_number(tmp_path):
    for seed, version in enumerate(("2.0.0", "10.0.0", "9.9.9")):
        write_set(tmp_path, {"train": (pixels(seed), [0] * 4)}, version=version)
    for name, seed in (("tiny", 1), ("tiny:9.9.9", 2)):
        assert (tfds(name, tfds_dir=str(tmp_path)).features["image"] == pixels(seed)).all()


def test_grey(tmp_path):
    images = pixels(0, shape=(6, 5, 1))
    write_set(tmp_path, {"train": (images, [0] * 4)}, shape=(6, 5, 1))
    assert (tfds("tiny", tfds_dir=str(tmp_path)).features["image"] == images).all()


def test_mixed_sizes_need_a_size(tmp_path):
    images = [pixels(0, 1)[0], pixels(1, 1, (8, 9, 3))[0]]
    write_set(tmp_path, {"train": (images, [0, 1])}, shape=(-1, -1, 3))
    with pytest.raises(UserError, match=r"several sizes.*set size"):
        tfds("tiny", tfds_dir=str(tmp_path))
    found = tfds("tiny", tfds_dir=str(tmp_path), size=4).features["image"]
    resized = Image.fromarray(images[1]).resize((4, 4), Image.Resampling.BILINEAR)
    assert found.shape == (2, 4, 4, 3)
    assert (found[1] == np.asarray(resized)).all()


def damage(root, pattern, keep):
    (file,) = root.glob(pattern)
    file.write_bytes(file.read_bytes()[:keep])


BAD_SETS = {
    "another set": ({"name": "cifar100"}, None, "cifar100 is not prepared in"),
    "another version": ({"name": "tiny:2.0.0"}, None, "tiny:2.0.0 is not prepared"),
    "split": ({"splits": "train+validation"}, None, "no split 'validation' (known: train)"),
    "empty split": ({"splits": ""}, None, "no split ''"),
    "no rows": ({"splits": "train[:0]"}, None, "no split 'train[:0]'"),
    "image key": ({"image_key": "imagee"}, None, "did you mean 'image'"),
    "image key of another type": ({"image_key": "id"}, None, "'id' is not an 8-bit image"),
    "deep images": ({"image_key": "deep"}, None, "'deep' is not an 8-bit image"),
    "label key": ({"label_key": "coarse"}, None, "did you mean 'coarse_label'"),
    "label key of another type": ({"label_key": "id"}, None, "'id' is not a class number"),
    "records cut": ({}, lambda r: damage(r, "*.array_record*", 200), "rows 0 to 3 can't be read"),
    "records gone": ({}, lambda r: next(r.glob("*.array_record*")).unlink(), "can't be read"),
    "info damaged": ({}, lambda r: damage(r, "dataset_info.json", 20), "dataset_info.json can't be read"),
    "features damaged": ({}, lambda r: damage(r, "features.json", 20), "can't be read, it is damaged"),
}


@pytest.mark.parametrize("case", BAD_SETS)
def test_bad_sets(tmp_path, case):
    options, spoil, expected = BAD_SETS[case]
    more = {"deep": image_feature((6, 5, 3), "uint16")} if "deep" in case else {}
    root = write_set(tmp_path, {"train": (pixels(0), [0] * 4)}, **more)
    if spoil:
        spoil(root)
    files = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as error:
        tfds(**{"name": "tiny", "tfds_dir": str(tmp_path), **options})
    assert expected in str(error.value)
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == files


def test_an_unprepared_set_names_the_command(tmp_path):
    with pytest.raises(UserError) as error:
        tfds("cifar10", tfds_dir=str(tmp_path / "sets"))
    command = f"python -m clustering_jax.data.images.prepare cifar10 --tfds_dir={tmp_path / 'sets'}"
    assert str(error.value).endswith(f'pip install "clustering_jax[prepare]" && {command}')


def test_tfrecord_is_refused_with_the_command(tmp_path):
    write_set(tmp_path, {"train": (pixels(0), [0] * 4)}, file_format="tfrecord")
    with pytest.raises(UserError, match=r"prepared as tfrecord.*delete it first.*data\.images\.prepare tiny"):
        tfds("tiny", tfds_dir=str(tmp_path))


def test_reading_imports_no_tensorflow(tiny):
    code = (
        "import sys; from clustering_jax import data;"
        "assert 'tensorflow_datasets' not in sys.modules;"
        f"data.load('tfds', name='tiny', splits='train', tfds_dir={str(tiny)!r});"
        "print([m for m in ('tensorflow', 'jax') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_prepare_calls_tfds(monkeypatch, capsys, tmp_path):
    import tensorflow_datasets

    calls = []

    class Builder:
        data_dir = "somewhere"

        def __init__(self, *args, **options):
            calls.append((args, options))

        def download_and_prepare(self):
            calls.append("prepared")

    monkeypatch.setattr(tensorflow_datasets, "builder", Builder)
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda name: object())
    prepare.main(["cifar10", f"--tfds_dir={tmp_path}"])
    assert calls == [(("cifar10",), {"data_dir": tmp_path, "file_format": "array_record"}), "prepared"]
    assert "cifar10 is prepared in somewhere" in capsys.readouterr().out


def test_prepare_without_tensorflow(monkeypatch):
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r'^error: .*pip install "clustering_jax\[prepare\]"$'):
        prepare.main(["cifar10"])


def test_real_cifar10():
    if not SHARED.is_dir():
        pytest.skip("../shared is absent: no prepared CIFAR-10")
    found = tfds("cifar10", "test[:2000]", tfds_dir=str(SHARED))
    assert found.features["image"].shape == (2000, 32, 32, 3)
    assert found.labels.min() == 0
    assert np.bincount(found.labels, minlength=10).min() > 150
    assert 100 < found.features["image"].mean() < 140
