"""Files that name places outside of their directory, or claim what no model has; and a second damage of one step."""

import json
import shutil

import numpy as np
import pytest
import scipy.io

from clustering_jax.data.embeddings import embeddings
from clustering_jax.data.views.mat5 import check_mat5
from clustering_jax.data.views.readers import file_arrays
from clustering_jax.errors import UserError
from clustering_jax.files import read_json, write_json
from clustering_jax.nn.vit.clip_weights import load_clip, weights_files
from clustering_jax.training.checkpoint import Store
from tests.faults.readers import READERS
from tests.paths import FIXTURES


def changed(path, **values):
    """Changes values of a JSON file: those inside of objects too."""
    tree = json.loads(path.read_text())
    for name, value in values.items():
        *outer, last = name.split("__")
        place = tree
        for key in outer:
            place = place[key]
        place[last] = value
    path.write_text(json.dumps(tree))


@pytest.mark.parametrize("size", [10**5, 2**31, 2**70])
@pytest.mark.parametrize("name", ["image_size", "num_hidden_layers", "hidden_size"])
def test_a_model_that_claims_what_no_model_has(tmp_path, name, size):
    """Arrays of that size, or layers of that number, were made before anything was compared."""
    shutil.copytree(FIXTURES / "clip_hf", tmp_path / "clip")
    changed(tmp_path / "clip" / "config.json", **{f"vision_config__{name}": size})
    with pytest.raises(UserError, match=r"config\.json") as error:
        load_clip(tmp_path / "clip")
    assert len(str(error.value).splitlines()) == 1


def test_images_that_are_resized_to_what_no_memory_holds(tmp_path):
    shutil.copytree(FIXTURES / "clip_hf", tmp_path / "clip")
    changed(tmp_path / "clip" / "preprocessor_config.json", size={"shortest_edge": 10**6})
    with pytest.raises(UserError, match="is not supported"):
        load_clip(tmp_path / "clip")


@pytest.mark.parametrize("name", ["../../x.safetensors", "/etc/passwd", "a/b.safetensors", ".."])
def test_weights_lie_beside_their_index(tmp_path, name):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(UserError, match=r"another directory|is missing"):
        weights_files(tmp_path / "model.safetensors")


def test_a_manifest_names_files_of_its_directory(tmp_path):
    (tmp_path / "in").mkdir()
    READERS["embeddings, manifest.json"].write(tmp_path / "in")
    shutil.copy(tmp_path / "in" / "train.npy", tmp_path / "secret.npy")
    manifest = read_json(tmp_path / "in" / "manifest.json")
    train = manifest["splits"]["train"]
    write_json(tmp_path / "in" / "manifest.json", {**manifest, "splits": {"../secret": {"labels": False}}})
    with pytest.raises(UserError, match="no split"):
        embeddings(tmp_path / "in", split="../secret")
    train["files"]["../secret.npy"] = ""
    write_json(tmp_path / "in" / "manifest.json", {**manifest, "splits": {"train": train}})
    with pytest.raises(UserError, match="names a file in another directory"):
        embeddings(tmp_path / "in", split="train")


def test_every_damaged_checkpoint_is_kept(tmp_path, capsys):
    """The second damage of a step deleted the first one that was set aside."""
    state, store = {"w": np.arange(6, dtype=np.float32)}, Store(tmp_path / "checkpoints")
    store.save(1, state, {}, {})
    for _ in range(3):
        store.save(2, state, {}, {})
        (path,) = (tmp_path / "checkpoints" / "2" / "meta").glob("metadata")
        path.write_bytes(b"{}")
        assert store.restore(state)[0] == 1
    store.close()
    kept = sorted(path.name for path in (tmp_path / "damaged").iterdir() if path.is_dir())
    assert kept == ["checkpoints_2", "checkpoints_2_2", "checkpoints_2_3"]


@pytest.mark.parametrize("packed", [False, True])
def test_a_mat_file_whose_numbers_have_no_type(tmp_path, packed):
    """SciPy's reader looks the type up without a check, and crashes."""
    path = tmp_path / "a.mat"
    cells = np.empty((1, 2), object)
    cells[0, :] = [np.eye(3), "text"]
    scipy.io.savemat(path, {"X1": np.eye(9), "X2": cells, "s": {"a": np.eye(2) * 1j}}, do_compression=packed)
    check_mat5(path)
    assert set(file_arrays(path)) == {"X1", "X2{1}", "X2{2}", "s.a"}
    if not packed:
        content = path.read_bytes()
        at = content.index(np.eye(9).tobytes()) - 8
        for kind in (0, 8, 14, 99, 65535):
            path.write_bytes(content[:at] + kind.to_bytes(4, "little") + content[at + 4 :])
            with pytest.raises(UserError, match=r"a\.mat can't be read"):
                file_arrays(path)
