"""Every config can be loaded, has a complete docstring, and its smoke variant takes two steps."""

import json
import re
import warnings

import numpy as np
import pytest
from ml_collections import ConfigDict

from clustering_jax import run
from clustering_jax.cli import read_flags
from clustering_jax.data.images.folder import synthetic
from clustering_jax.errors import UserError
from clustering_jax.estimators import ContrastiveClustering
from clustering_jax.inference.predictor import Predictor
from clustering_jax.inference.results import score
from clustering_jax.settings.cc import Digits
from clustering_jax.weights.torch_file import read_torch
from tests.paths import CONFIGS, FIXTURES

FILES = sorted(CONFIGS.glob("*.py"))
PUBLISHED = {
    "cc_cifar10": (".705 / .790 / .637", 10, 0.5, False),
    "cc_cifar20": (".431 / .429 / .266", 20, 0.5, False),
    "cc_stl10": (".764 / .850 / .726", 10, 1.0, False),
    "cc_imagenet10": (".859 / .893 / .822", 10, 1.0, True),
    "cc_imagenet_dogs": (".445 / .429 / .274", 15, 1.0, True),
    "cc_tiny_imagenet": (".340 / .140 / .071", 200, 0.5, False),
}
PAPERS = {
    "cc": "https://arxiv.org/abs/2009.09687",
    "cmmc": "https://arxiv.org/abs/2106.11193",
    "dmim": "https://ojs.aaai.org/index.php/AAAI/article/view/17076",
    "dxmc": "https://arxiv.org/abs/2409.04561",
    "scmvc": "https://doi.org/10.1109/TMM.2024.3387298",
    "photos": "https://arxiv.org/abs/2406.07236",
    "temi": "https://arxiv.org/abs/2303.17896",
    "turtle": "https://arxiv.org/abs/2406.07236",
    "views": "https://arxiv.org/abs/2106.11193",
}
# Scores, clusters, epochs of contrast, views, scaling.
PUBLISHED_VIEWS = {
    "cmmc_bdgp": (".9908 / .9702", 5, 10, ("X1", "X2"), "none"),
    "cmmc_mnist_usps": (".9966 / .9901", 10, 50, ("X1", "X2"), "none"),
    "cmmc_fashion": (".9938 / .9837", 10, 100, ("X1", "X2", "X3"), "none"),
    "cmmc_ccv": (".3166 / .3124", 20, 50, ("STIP.npy", "SIFT.npy", "MFCC.npy"), ("minmax", "none", "none")),
    "cmmc_caltech:2v": (".6200 / .5430", 7, 50, ("X1", "X2"), "minmax"),
    "cmmc_caltech:3v": (".6679 / .5842", 7, 50, ("X1", "X2", "X5"), "minmax"),
    "cmmc_caltech:4v": (".7843 / .7106", 7, 50, ("X1", "X2", "X5", "X4"), "minmax"),
    "cmmc_caltech:5v": (".8621 / .7701", 7, 50, ("X1", "X2", "X5", "X4", "X3"), "minmax"),
}
# Scores, clusters, centres of the semantic space, the shorter side of the resized images, the scored split.
PUBLISHED_SPACES = {
    "dxmc_stl10": (".958 / .983 / .967", 10, 17, 224, "test"),
    "dxmc_cifar10": (".847 / .928 / .849", 10, 167, 224, "test"),
    "dxmc_cifar20": (".634 / .633 / .484", 20, 167, 224, "test"),
    "dxmc_imagenet10": (".982 / .994 / .986", 10, 43, 256, "val"),
    "dxmc_imagenet_dogs": (".791 / .861 / .750", 15, 65, 256, "val"),
    "dxmc_dtd": ("no figure", 47, 141, 224, "test"),
    "dxmc_ucf101": ("no figure", 101, 303, 224, "test"),
    "dxmc_imagenet1k": ("no figure", 1000, 4271, 256, "val"),
}
# The other configs differ from these only in numbers.
QUICK = ("cc_stl10", "cmmc_bdgp", "dmim_planted", "dxmc_embeddings", "temi_embeddings", "turtle_arrays")


def configs_of(method):
    """The configs of a method. Most of them are marked slow."""
    paths = [path for path in FILES if path.stem.startswith(f"{method}_")]
    return [pytest.param(p, id=p.stem, marks=[] if p.stem in QUICK else [pytest.mark.slow]) for p in paths]


def named(name):
    """The docstring and the config of "NAME" or "NAME:VARIANT"."""
    file, _, variant = name.partition(":")
    return load(CONFIGS / f"{file}.py", variant)


def load(path, variant=""):
    namespace = {}
    exec(compile(path.read_text(), path, "exec"), namespace)
    return namespace["__doc__"], namespace["get_config"](variant)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_docstring_has_paper_expectation_hours_and_command(path):
    doc, config = load(path)
    assert isinstance(config, ConfigDict)
    assert PAPERS[path.stem.split("_")[0]] in doc and re.search(r"Expected|Measured", doc)
    assert re.search(r"Hours|Minutes", doc) and f"--config=configs/{path.name}" in doc


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_settings(name):
    doc, config = named(name)
    scores, k, strength, blur = PUBLISHED[name]
    assert scores in doc and config.num_clusters == k
    assert (config.augment.strength, config.augment.blur) == (strength, blur)
    assert (config.batch_size, config.epochs, config.model.image_size) == (256, 1000, 224)
    assert (config.model.backbone, config.model.stem, config.optimizer.learning_rate) == (
        "resnet34",
        "imagenet",
        3e-4,
    )
    assert bool(config.unlabelled) == (name == "cc_stl10")


@pytest.mark.parametrize("name", PUBLISHED_VIEWS)
def test_the_published_settings_of_views(name):
    doc, config = named(name)
    scores, k, epochs, views, scaling = PUBLISHED_VIEWS[name]
    assert scores in doc and (config.num_clusters, config.epochs) == (k, epochs)
    assert (config.data.views, config.data.scaling) == (views, scaling)
    assert (config.batch_size, config.optimizer.learning_rate, config.optimizer.weight_decay) == (256, 3e-4, 0)
    expected = {
        "hidden": (500, 500, 2000),
        "latent_dim": 512,
        "feature_dim": 128,
        "feature_temperature": 0.5,
        "label_temperature": 1.0,
        "reconstruction_epochs": 200,
        "matching_steps": 50,
        "kmeans_restarts": 100,
        "pseudo_labels_of": "features",
        "double_softmax": True,
        "entropy_per_pair": True,
        "dtype": "float32",
    }
    assert expected.items() <= config.model.to_dict().items()


@pytest.mark.parametrize("name", [*PUBLISHED_SPACES, "dxmc_embeddings", "dxmc_folder"])
def test_the_published_settings_of_semantic_spaces(name):
    path = CONFIGS / f"{name}.py"
    doc, config = load(path)
    smoke = load(path, "smoke")[1]
    assert smoke.model.centers <= smoke.data.n and not smoke.scored
    large = name in ("dxmc_ucf101", "dxmc_imagenet1k")
    if name in PUBLISHED_SPACES:
        scores, k, centers, resize, scored = PUBLISHED_SPACES[name]
        assert scores in doc and (config.num_clusters, config.model.centers) == (k, centers)
        assert (config.embed.resize, config.data.split, config.scored.split) == (resize, "train", scored)
        assert set(config.embed.splits) == {"train", scored}
    assert (config.batch_size, config.epochs) == ((8192, 100) if large else (512, 20))
    temperatures = {"cluster_temperature": 5.0 if large else 0.5, "instance_temperature": 0.5 if large else 0.05}
    optimizer = config.optimizer
    assert (optimizer.learning_rate, optimizer.b1, optimizer.b2, optimizer.weight_decay) == (1e-3, 0.9, 0.99, 0)
    expected = {
        "nouns_per_center": 5,
        "center_restarts": 10,
        "retrieval_temperature": 0.005,
        "neighbours": 50,
        "hidden": 512,
        "instance_dim": 1024,
        "entropy_weight": 5.0,
        "normalized_instance": False,
        "consistent": False,
        **temperatures,
    }
    assert expected.items() <= config.model.to_dict().items()


@pytest.mark.parametrize("path", configs_of("cmmc"))
@pytest.mark.long
def test_smoke_takes_two_steps_of_each_stage(path, tmp_path):
    config = load(path, "smoke")[1].to_dict()
    config["model"] |= {"hidden": (8,), "latent_dim": 6, "feature_dim": 5}
    result = run.train(config, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [line["phase"] for line in lines if "loss" in line]
    assert steps == ["reconstruct"] * 2 + ["contrast"] * 2 + ["match"] * 2
    assert result["scores"]["occupied"] >= 1


# Scores, clusters, epochs of contrast, number of views, scaling.
FUSED = {
    "bdgp": (".992 / .975", 5, 10, 2, "none"),
    "mnist_usps": (".997 / .990", 10, 50, 2, "none"),
    "ccv": (".400 / .336", 20, 50, 3, ("minmax", "none", "none")),
    "fashion": (".995 / .986", 10, 50, 3, "none"),
    "caltech_5v": (".919 / .867", 7, 100, 5, "minmax"),
}


@pytest.mark.parametrize("name", FUSED)
def test_the_settings_of_fused_views(name):
    doc, config = named(f"scmvc:{name}")
    scores, k, epochs, views, scaling = FUSED[name]
    assert f"{name} {scores}" in re.sub(r"\s+", " ", doc) and (config.num_clusters, config.epochs) == (k, epochs)
    assert (len(config.data.views), config.data.scaling) == (views, scaling)
    assert (config.batch_size, config.optimizer.learning_rate, config.optimizer.weight_decay) == (256, 3e-4, 0)
    expected = {"hidden": (500, 500, 2000), "latent_dim": 64, "feature_dim": 20, "fusion_dim": 256, "temperature": 1.0}
    expected |= {"reconstruction_epochs": 200, "kmeans_restarts": 100}
    assert config.model.to_dict() == expected


@pytest.mark.long
def test_smoke_takes_two_steps_and_keeps_centres(tmp_path):
    config = named("scmvc:smoke")[1].to_dict()
    config["model"] |= {"hidden": (8,), "latent_dim": 6, "feature_dim": 5}
    result = run.train(config, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [line["phase"] for line in lines if "loss" in line]
    assert steps == ["reconstruct"] * 2 + ["contrast"] * 2 + ["k-means"] and result["scores"]["occupied"] >= 1


@pytest.mark.parametrize("path", configs_of("cc"))
@pytest.mark.long
def test_smoke_takes_two_steps(path, tmp_path, monkeypatch):
    config = load(path, "smoke")[1].to_dict()
    config["model"] |= {"backbone": "resnet18", "width": 4}  # the encoder is not tested here
    result = run.train(config, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    streams = 2 if config["unlabelled"] else 1
    assert len(steps) == 2 * streams and result["scores"]["occupied"] >= 1
    assert [line["phase"] for line in steps] == ["instance"] * (2 * streams - 2) + ["contrast"] * 2


@pytest.mark.parametrize("path", configs_of("dmim"))
@pytest.mark.long
def test_smoke_takes_two_steps_on_all_rows(path, tmp_path):
    config = load(path, "smoke")[1].to_dict()
    result = run.train(config, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len([line for line in lines if "loss" in line]) == 2 and result["scores"]["occupied"] >= 1


@pytest.mark.parametrize("path", configs_of("dxmc"))
@pytest.mark.long
def test_smoke_takes_two_steps_on_embeddings(path, tmp_path):
    config = load(path, "smoke")[1].to_dict()
    config["model"] |= {"hidden": 16, "instance_dim": 8, "center_restarts": 1}
    result = run.train(config, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len([line for line in lines if "loss" in line]) == 2 and result["scores"]["occupied"] >= 1
    assert len(result["names"]) == config["num_clusters"] == len(json.loads((tmp_path / "clusters.json").read_text()))


@pytest.mark.parametrize("path", [*configs_of("temi"), *configs_of("turtle")])
@pytest.mark.long
def test_smoke_takes_two_steps_on_features(path, tmp_path):
    config = load(path, "smoke")[1].to_dict()
    config["model"] |= {"heads": 2, "hidden": 16, "width": 8} if config["method"] == "temi" else {}
    result = run.train(config, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len([line for line in lines if "loss" in line]) == 2 and result["scores"]["occupied"] >= 1


def test_the_published_settings_of_heads():
    turtle, temi = (named(f"{name}_embeddings")[1] for name in ("turtle", "temi"))
    expected = {"num_steps": 6000, "gamma": 10, "inner_steps": 10, "inner_learning_rate": 1e-3, "warm_start": False}
    assert expected.items() <= turtle.model.to_dict().items()
    assert (turtle.batch_size, turtle.optimizer.learning_rate, turtle.optimizer.b2) == (10000, 1e-3, 0.999)
    expected = {"heads": 16, "hidden": 512, "width": 256, "neighbours": 50, "beta": 0.6, "teacher_decay": 0.996}
    expected |= {"student_temperature": 0.1, "teacher_temperature": 0.1, "warmup_epochs": 20}
    assert expected.items() <= temi.model.to_dict().items()
    assert (temi.batch_size, temi.epochs, temi.optimizer.learning_rate) == (1024, 100, 4e-4)
    assert (temi.optimizer.weight_decay, temi.optimizer.decoupled_decay) == (0, 1e-4)


@pytest.mark.long
def test_epochs_0_scores_the_released_weights(tmp_path):
    """There is no epoch, and the released weights are scored."""
    config = named("cc_cifar10:smoke")[1].to_dict()
    fixture = FIXTURES / "cc_resnet18.tar"
    config |= {
        "init_from": str(fixture),
        "epochs": 0,
        "model": {**config["model"], "backbone": "resnet18", "width": 2, "instance_dim": 8},
    }
    run.train(config, tmp_path)
    expected = read_torch(fixture)["net"]["resnet.bn1.running_var"]
    np.testing.assert_array_equal(
        Predictor.restore(tmp_path).variables["batch_stats"]["encoder"]["bn1"]["var"], expected
    )


def test_a_collapse_is_reported():
    dataset = synthetic(n=8)
    with pytest.warns(UserWarning, match="some of the 4 clusters are empty: try fewer"):
        score(np.eye(4)[[0] * 8], dataset)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score(np.eye(4)[[0, 1] * 4], dataset)


# Clusters, views, key of the labels, learning rate.
PAIRS = {
    "dmim_pairs:nuswide": (8, ("img.mat", "txt.mat"), "L.mat", 5e-4),
    "dmim_pairs:esp": (7, ("img_1.mat", "img_2.mat", "txt_1.mat"), "L.mat", 1e-3),
    "dmim_pairs:mirflickr": (6, ("img.mat", "txt.mat"), "L.mat", 5e-4),
    "dmim_pairs:iapr": (6, ("img.mat", "txt.mat"), "L.mat", 5e-4),
    "dmim_pairs:wiki": (10, ("view1", "view0"), "y", 5e-4),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_settings_of_pairs(name):
    doc, config = named(name)
    views = config.num_clusters, config.data.views, config.data.label_key, config.optimizer.learning_rate
    assert views == PAIRS[name] and f"  {name.partition(':')[2]}" in doc
    assert (config.batch_size, config.epochs, config.data.width, config.model.full_batch) == (0, 500, 100, True)


def test_a_config_of_several_sets_has_a_default_and_smoke_runs_of_all():
    assert named("cmmc_caltech")[1] == named("cmmc_caltech:2v")[1] != named("cmmc_caltech:5v")[1]
    assert named("scmvc")[1] == named("scmvc:bdgp")[1] != named("scmvc:ccv")[1]
    assert named("dmim_pairs")[1] == named("dmim_pairs:nuswide")[1]
    for name in ("cmmc_caltech:smoke", "cmmc_caltech:5v,smoke", "dmim_pairs:wiki,smoke", "scmvc:ccv,smoke"):
        assert named(name)[1].data.source == "planted"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cc_digits:smok", "unknown variant ':smok': only ':smoke'"),
        ("cmmc_caltech:6v", "unknown variant ':6v': choose 2v, 3v, 4v, 5v; add ',smoke'"),
        ("cmmc_caltech:5v,smok", "unknown variant"),
        ("dmim_pairs:smoke,wiki", "unknown variant"),
    ],
)
def test_an_unknown_variant_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        named(name)


@pytest.mark.parametrize("config", ["cc_arrays", "cc_folder"])
def test_the_kind_of_augmentation_is_chosen_by_a_flag(config):
    argv = ["train", f"--config={config}", "--workdir=w", "--config.augment.kind=digits"]
    found, _ = read_flags([*argv, "--config.augment.strength=0.3"], "workdir", "")
    assert found["augment"] == {**Digits()._asdict(), "strength": 0.3}
    with pytest.raises(UserError, match=r"augment\.blur is no key of the kind 'digits'"):
        read_flags([*argv, "--config.augment.blur=True"], "workdir", "")


def test_the_kind_of_augmentation_is_chosen_by_an_estimator():
    settings = {"augment.kind": "digits", "augment.strength": 0.3}
    assert ContrastiveClustering(3, settings=settings)._config()["augment"] == {**Digits()._asdict(), "strength": 0.3}
    with pytest.raises(UserError, match=r"augment\.blur"):
        ContrastiveClustering(3, settings={"augment.kind": "digits", "augment.blur": True})._config()
