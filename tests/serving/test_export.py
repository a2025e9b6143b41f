"""Exported models equal `predict` in a new process, are complete or absent, and are refused if damaged."""

import json
import re
import subprocess
import sys
from functools import cache

import jax
import numpy as np
import pytest

from clustering_jax import cli
from clustering_jax.errors import UserError
from clustering_jax.export import main
from clustering_jax.inference.new_rows import examples
from clustering_jax.inference.predictor import Predictor
from clustering_jax.serving import export
from clustering_jax.serving.artefact import (
    ARTEFACT,
    FORMAT,
    MANIFEST,
    PARAMS,
    PREPROCESSING,
    SUMS,
    Model,
    read,
    sha256,
)
from tests.runs import CLUSTERS, CONFIGS, NAMES, config_of, rows, workdir_of
from tests.test_run import ROOT, environment

METHODS = tuple(CONFIGS)
SIZES = (1, 3, 64)
FRESH = """
import sys
import numpy as np
from clustering_jax.serving.artefact import Model

for method in sys.argv[2:]:
    model = Model.load(f"{sys.argv[1]}/{method}/model", max_batch=16)
    for n in (1, 3, 64):
        with np.load(f"{sys.argv[1]}/{method}_{n}.npz") as arrays:
            arrays = dict(arrays)
        np.save(f"{sys.argv[1]}/{method}_{n}.npy", model.predict_proba(arrays))
        np.save(f"{sys.argv[1]}/{method}_{n}_embedded.npy", model.embed(arrays))
assert not {"clustering_jax.methods", "orbax"}.intersection(sys.modules)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Has the workdir METHOD/run and the model METHOD/model of each method."""
    root = tmp_path_factory.mktemp("exported")
    for method in METHODS:
        export.write(export.of_run(workdir_of(method, root / method / "run")), root / method / "model")
    return root


restored = cache(Predictor.restore)


def predicted(workdir, path, views=(), what="predict_proba"):
    """The output of `predict`, or another one, for the rows of a file."""
    predictor = restored(workdir)
    compute = getattr(predictor, what)
    return np.concatenate([compute(features) for _, features in examples(predictor, path, 16, views)])


@pytest.mark.long
def test_outputs_equal_predict_in_a_fresh_process(root):
    for method in METHODS:
        for n in SIZES:
            np.savez(root / f"{method}_{n}.npz", **rows(method, n))
    subprocess.run([sys.executable, "-c", FRESH, root, *METHODS], cwd=ROOT, env=environment(), check=True)
    for method in METHODS:
        for n in SIZES:
            for end, what in (("_embedded", "embed"), ("", "predict_proba")):
                found = np.load(root / f"{method}_{n}{end}.npy")
                wanted = predicted(root / method / "run", root / f"{method}_{n}.npz", what=what)
                np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=1e-5, err_msg=f"{method} {n}{end}")
        assert np.ptp(wanted, axis=0).max() > 0.05


@pytest.mark.parametrize("method", ["cmmc", "dmim", "scmvc"])
@pytest.mark.parametrize("view", [0, 1])
@pytest.mark.long
def test_some_of_the_views_are_sufficient(root, tmp_path, method, view):
    some = {f"view{view}": rows(method, 6)[f"view{view}"]}
    np.savez(tmp_path / "some.npz", **some)
    wanted = predicted(root / method / "run", tmp_path / "some.npz", views=[view])
    found = Model.load(root / method / "model").predict_proba(some)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.long
def test_missing_rows_are_marked_by_nan_or_by_a_mask(root):
    model, arrays = Model.load(root / "cmmc" / "model"), rows("cmmc", 4)
    alone = model.predict_proba({"view1": arrays["view1"][2:3]})
    arrays["view0"][2] = np.nan
    np.testing.assert_allclose(model.predict_proba(arrays)[2:3], alone, atol=1e-6)
    arrays["view0"][2], mask = 5, np.array([[1, 1], [1, 1], [0, 1], [1, 1]])
    np.testing.assert_allclose(model.predict_proba({**arrays, "mask": mask})[2:3], alone, atol=1e-6)


def test_views_without_scaling_are_unchanged():
    description = export.preprocessing({"view0": (3,), "view1": (2,), "mask": (2,)}, None, {"source": "digits_views"})
    inputs, arrays = (
        export.Inputs.from_preprocessing(description),
        {"view0": np.ones((2, 3)), "view1": np.full((2, 2), 7)},
    )
    found = inputs.features(arrays, "x")
    assert {name: x.dtype for name, x in found.items()} == {"view0": np.float32, "view1": np.float32, "mask": bool}
    assert all((found[name] == rows).all() for name, rows in arrays.items()) and found["mask"].all()


@pytest.mark.long
def test_each_platform_has_its_own_convolutions(root):
    """CUDA and TPU have native convolutions and matrix products only in heads. The CPU lowers some convolutions.

    The text has the features twice, for the prediction and for the embedding; the compiler joins them, see below.
    """
    found, _ = read(root / "cc" / "model")
    text = {p: export.artefact(found, (p,)).mlir_module() for p in export.PLATFORMS}
    convolutions = {p: module.count("stablehlo.convolution") for p, module in text.items()}
    products = {p: module.count("stablehlo.dot_general") for p, module in text.items()}
    # ResNet18 has 20.
    assert convolutions["cuda"] == convolutions["tpu"] == 2 * 20 > convolutions["cpu"]
    assert products["cuda"] == products["tpu"] == products["cpu"] - (2 * 20 - convolutions["cpu"])


@pytest.mark.parametrize("name", ["ten_crop", "bfloat16"])
@pytest.mark.long
def test_settings_of_the_prediction_are_exported(root, name):
    found, _ = read(root / "cc" / "model")
    changes = {"ten_crop": True} if name == "ten_crop" else {"dtype": "bfloat16"}
    found.manifest["config"]["model"] |= changes
    plain, changed = (export.artefact(c, ("cpu",)).mlir_module() for c in (read(root / "cc" / "model")[0], found))
    assert ("bf16" in changed) == (name == "bfloat16") and plain != changed


@pytest.mark.long
def test_the_artefact_is_for_three_platforms_and_uses_the_cpu_form_here(root):
    model = Model.load(root / "cc" / "model")
    exported = jax.export.deserialize(bytearray((root / "cc" / "model" / ARTEFACT).read_bytes()))
    assert exported.platforms == export.PLATFORMS
    both, predicted_only = (
        jax.jit(function).lower(model._variables, model.inputs.signature(8)).compile()
        for function in (exported.call, lambda *inputs: exported.call(*inputs)[0])
    )
    native = len(re.findall(r" convolution\(", both.as_text()))
    cpu = export.artefact(read(root / "cc" / "model")[0], ("cpu",)).mlir_module()
    assert native == cpu.count("stablehlo.convolution") / 2
    assert both.cost_analysis()["flops"] == predicted_only.cost_analysis()["flops"]  # embeddings cost nothing more


@pytest.mark.long
def test_the_directory_describes_the_model(root):
    found = json.loads((root / "dxmc" / "model" / MANIFEST).read_text())
    assert (found["format"], found["method"], found["num_clusters"], found["names"]) == (
        FORMAT,
        "dxmc",
        CLUSTERS,
        NAMES,
    )
    assert found["config"]["model"] == json.loads(json.dumps(config_of("dxmc")["model"]))
    assert found["platforms"] == list(export.PLATFORMS) and found["versions"]["jax"] == jax.__version__
    assert sorted(p.name for p in (root / "dxmc" / "model").iterdir()) == sorted(
        [ARTEFACT, PARAMS, PREPROCESSING, MANIFEST, SUMS]
    )


def run_main(monkeypatch, capsys, *flags):
    """Exit code and both outputs of the command."""
    with pytest.raises(SystemExit) as caught:
        cli.run(lambda: main(["export", *map(str, flags)]))
    return caught.value.code or 0, *capsys.readouterr()


@pytest.mark.long
def test_a_model_is_exported_again_from_its_directory(root, tmp_path, monkeypatch, capsys):
    flags = f"--model={root / 'dmim' / 'model'}", f"--output={tmp_path / 'deep' / 'newer'}"
    code, out, _ = run_main(monkeypatch, capsys, *flags)
    assert code == 0 and out == f"{tmp_path / 'deep' / 'newer'} written\n"
    old, new = (Model.load(path) for path in (root / "dmim" / "model", tmp_path / "deep" / "newer"))
    np.testing.assert_array_equal(*(model.predict_proba(rows("dmim", 5)) for model in (old, new)))
    assert old.manifest == new.manifest


@pytest.mark.long
def test_the_command_exports_a_run(root, tmp_path, monkeypatch, capsys):
    code, _, _ = run_main(monkeypatch, capsys, f"--workdir={root / 'dxmc' / 'run'}", f"--output={tmp_path / 'model'}")
    assert code == 0
    a, b = (Model.load(path).predict_proba(rows("dxmc", 5)) for path in (root / "dxmc" / "model", tmp_path / "model"))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "flags, words",
    [
        ("--workdir={tmp}/none --output={tmp}/model", "holds no checkpoints"),
        ("--model={tmp} --output={tmp}/model", "is no exported model"),
        ("--model={root}/dxmc/model --output={root}/dxmc", "exists and is not an empty directory"),
        ("--model={root}/dxmc/model --output={root}/dxmc/model/model.json", "exists and is not an empty directory"),
        ("--model={root}/dxmc/model --output={root}/dxmc/model/model.json/x", "can't be written"),
    ],
)
@pytest.mark.long
def test_refusals_are_one_line(root, tmp_path, monkeypatch, capsys, flags, words):
    before = sorted(root.rglob("*"))
    code, out, err = run_main(monkeypatch, capsys, *flags.format(tmp=tmp_path, root=root).split())
    assert code == 2 and not out and words in err and err.count("\n") == 1
    assert sorted(root.rglob("*")) == before and not list(tmp_path.iterdir())


@pytest.mark.long
def test_a_failed_export_leaves_nothing(root, tmp_path, monkeypatch):
    found, _ = read(root / "dxmc" / "model")
    real = export.Path.write_bytes

    def fails(path, data):
        if path.name == PREPROCESSING:
            raise OSError(28, "No space left on device")
        return real(path, data)

    monkeypatch.setattr(export.Path, "write_bytes", fails)
    with pytest.raises(UserError, match="No space left"):
        export.write(found, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def damaged(root, tmp_path, name, change, *, sums=False):
    """Returns a copy of a model with one changed file and correct checksums."""
    for path in (root / "dxmc" / "model").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / name
    path.unlink() if change is None else path.write_bytes(change(path.read_bytes()))
    if sums:
        names = [line.split()[1] for line in (tmp_path / SUMS).read_text().splitlines()]
        (tmp_path / SUMS).write_text("".join(f"{sha256((tmp_path / n).read_bytes())}  {n}\n" for n in names))
    return tmp_path


@pytest.mark.parametrize("name", [ARTEFACT, PARAMS, PREPROCESSING, MANIFEST, SUMS])
@pytest.mark.parametrize("damage", ["deleted", "cut", "flipped"])
@pytest.mark.long
def test_damage_is_detected(root, tmp_path, name, damage):
    def change(data):
        return data[: len(data) // 2] if damage == "cut" else bytes([data[0] ^ 1]) + data[1:]

    with pytest.raises(UserError, match=r"damaged|can't be read|no exported model") as caught:
        Model.load(damaged(root, tmp_path, name, None if damage == "deleted" else change))
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


@pytest.mark.long
def test_another_version_of_the_layout_is_refused(root, tmp_path):
    newer = damaged(root, tmp_path, MANIFEST, lambda data: data.replace(b'"format": 2', b'"format": 3'), sums=True)
    with pytest.raises(UserError, match="has format 3, this clustering_jax reads format 2"):
        Model.load(newer)


@pytest.mark.long
def test_devices_that_the_artefact_is_not_for_are_refused(root, monkeypatch):
    monkeypatch.setattr(jax.export, "default_export_platform", lambda: "rocm")
    with pytest.raises(UserError, match="is for cpu, cuda, tpu, not rocm: set JAX_PLATFORMS=cpu"):
        Model.load(root / "dxmc" / "model")


@pytest.mark.long
def test_an_artefact_that_jax_cannot_read_can_be_exported_again(root, tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    damaged(root, old, ARTEFACT, lambda data: b"an artefact of a past version", sums=True)
    with pytest.raises(UserError, match=re.escape(f"python -m clustering_jax.export --model={old} --output=NEW")):
        Model.load(old)
    export.write(read(old)[0], tmp_path / "new")
    assert Model.load(tmp_path / "new").predict_proba(rows("dxmc", 2)).shape == (2, CLUSTERS)


@pytest.mark.parametrize(
    "method, arrays, words",
    [
        ("cc", {"image": np.zeros((2, 8, 8, 1), np.int64)}, "must be uint8, or float"),
        ("cc", {"image": np.full((2, 8, 8), np.nan)}, "NaN or infinite"),
        ("cc", {"image": np.zeros((0, 8, 8), np.uint8)}, "holds no images"),
        ("cc", {"image": np.zeros((2, 1, 8, 8), np.uint8)}, "channels come last"),
        ("cc", {"images": np.zeros((2, 8, 8), np.uint8)}, "did you mean 'image'?"),
        ("dxmc", {"image": np.ones((2, 11), np.float32)}, "has 11 columns, the model takes 12"),
        ("dxmc", {"image": np.zeros((2, 12), np.float32)}, "row 0 is all zeros"),
        ("dxmc", {"image": np.ones(12, np.float32)}, "must be floating point [n, d]"),
        ("cmmc", {}, "send view0, view1"),
        ("cmmc", {"mask": np.ones((2, 2))}, "send view0, view1"),
        ("cmmc", {"view0": np.ones((2, 6))}, "has 6 columns, the training data had 7"),
        ("cmmc", {"view0": np.ones((2, 7)), "view1": np.ones((3, 9))}, "has 2 rows"),
        ("cmmc", {"view2": np.ones((2, 7))}, "'view2'"),
        ("cmmc", {"view0": np.array([["a"] * 7])}, "not numbers"),
        ("dmim", {"view0": np.full((1, 7), np.inf)}, "not finite in float32"),
    ],
    ids=lambda value: str(value)[:30].replace("\n", " ") if isinstance(value, str) else "",
)
@pytest.mark.long
def test_arrays_that_do_not_fit_are_refused_in_one_line(root, method, arrays, words):
    with pytest.raises(UserError) as caught:
        Model.load(root / method / "model").predict_proba(arrays)
    assert words in str(caught.value) and "\n" not in str(caught.value)
