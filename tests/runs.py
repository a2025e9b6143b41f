"""Workdirs without training: random weights of tiny networks, saved in the format of a run."""

import copy

import jax
import numpy as np

from clustering_jax.data.views.checked import Views
from clustering_jax.data.views.dataset import apply_scalings, fit_scalings
from clustering_jax.data.views.pca import fit_components, project
from clustering_jax.files import write_json
from clustering_jax.inference.results import versions
from clustering_jax.methods import from_config
from clustering_jax.serving.artefact import FORMAT, Contents
from clustering_jax.serving.inputs import preprocessing
from clustering_jax.training.checkpoint import Store
from clustering_jax.training.update import init_state
from tests.paths import ROOT
from tests.test_configs import load

CONFIGS = {
    "cc": "cc_digits",
    "cmmc": "cmmc_arrays",
    "dmim": "dmim_arrays",
    "dxmc": "dxmc_embeddings",
    "scmvc": "scmvc",
    "turtle": "turtle_arrays",
    "temi": "temi_embeddings",
}
CHANGES = {
    "cc": {"model": {"backbone": "resnet18", "width": 4, "image_size": 16, "average_decay": 0.9}},
    "cmmc": {"model": {"hidden": (16,), "latent_dim": 8, "feature_dim": 4}, "data": {"missing": "nan"}},
    "dmim": {"model": {"prediction": "aligned_mean"}},
    "dxmc": {"model": {"hidden": 16, "instance_dim": 8}},
    "scmvc": {"model": {"hidden": (16,), "latent_dim": 8, "feature_dim": 4}, "data": {"views": "", "missing": "nan"}},
    "turtle": {},
    "temi": {"model": {"heads": 2, "hidden": 16, "width": 8}},
}
CLUSTERS = 5
NAMES = [[f"noun {i}", "thing"] for i in range(CLUSTERS)]


def rows(method, n, seed=0):
    """New rows in the form in which a user has them."""
    rng = np.random.default_rng(seed)
    if method == "cc":
        return {"image": (rng.integers(0, 256, (n, 8, 8, 1)) * rng.random((n, 1, 1, 1))).astype(np.uint8)}
    if method in ("dxmc", "temi"):
        return {"image": rng.normal(size=(n, 12)).astype(np.float32)}
    return {"view0": rng.gamma(1.0, 3.0, (n, 7)), "view1": rng.normal(2, 5, (n, 9))}


def _trained_on(method):
    """The features and scalings of a training set."""
    arrays = rows(method, 40, seed=1)
    if method == "cc":
        return arrays, None
    if method in ("dxmc", "temi"):
        unit = arrays["image"] / np.linalg.norm(arrays["image"], axis=1, keepdims=True)
        return {"image": unit, **({"text": unit} if method == "dxmc" else {})}, None
    views = Views(list(arrays.values()), np.ones((40, 2), bool), ["a", "b"], None, "views", ())
    dataset = apply_scalings(views, fit_scalings(views, ("minmax", "standard")))
    if method == "dmim":
        dataset = project(dataset._replace(scalings=fit_components(dataset, 6)))
    return dataset.features, dataset.scalings


def config_of(method):
    config = load(ROOT / "configs" / f"{CONFIGS[method]}.py")[1].to_dict()
    config |= {"num_clusters": CLUSTERS, "batch_size": 16}
    for part, changes in copy.deepcopy(CHANGES[method]).items():
        config[part] |= changes
    return config


def _random(path, like, rng):
    """A weight or statistic of a size that keeps the assignments of different rows apart."""
    name, noise = path[-1].key, rng.normal(size=like.shape)
    if name in ("scale", "var", "spread"):
        return np.asarray(1 + abs(noise) / 3, like.dtype)
    spread = 0.1 if len(like.shape) < 2 else 1.2 / np.prod(like.shape[:-1]) ** 0.5
    return np.asarray(spread * noise, like.dtype)


def _model(method):
    """Config, features and scalings of the training, and the variables."""
    config, (features, scalings) = config_of(method), _trained_on(method)
    init = from_config(config, {"train": 2}).init
    like = jax.eval_shape(init, jax.random.key(0), {k: v[:2] for k, v in features.items()})
    rng = np.random.default_rng(2)
    return config, features, scalings, jax.tree_util.tree_map_with_path(lambda *leaf: _random(*leaf, rng), like)


def contents_of(method):
    """The contents of such a run that are exported."""
    config, features, scalings, variables = _model(method)
    facts = {"method": method, "num_clusters": CLUSTERS, "names": NAMES if method == "dxmc" else [], "config": config}
    inputs = preprocessing({k: v.shape[1:] for k, v in features.items()}, scalings, config["data"])
    return Contents({"format": FORMAT, **facts}, inputs, variables)


def workdir_of(method, directory):
    """Writes the workdir of such a run."""
    config, features, scalings, variables = _model(method)
    meta = {
        "config": config,
        "versions": versions(),
        "steps_per_epoch": {"train": 2},
        "features": {k: [list(v.shape[1:]), str(v.dtype)] for k, v in features.items()},
        "scalings": scalings,
    }
    store = Store(directory / "checkpoints")
    state = init_state(from_config(config, {"train": 2}), jax.device_put(variables), 1)
    store.save(3, state, {}, meta)
    store.close()
    if method == "dxmc":
        write_json(directory / "clusters.json", [{"cluster": i, "size": 8, "names": n} for i, n in enumerate(NAMES)])
    return directory
