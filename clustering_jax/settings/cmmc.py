"""Settings of CMMC, `clustering_jax.methods.cmmc`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from ml_collections import ConfigDict

from clustering_jax.settings.base import Run, is_smoke, new_config, split_variant
from clustering_jax.settings.sources import Multiview
from clustering_jax.settings.validate import (
    Dtype,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Width,
    Widths,
    one_of,
)


class CMMC(NamedTuple):
    """Keys of the group `model` for CMMC. The defaults are those of the authors' code unless a comment says other."""

    # Autoencoder of each view: "mlp", or "conv" for views that are the pixels of square grey images, as in BDCL.
    body: Annotated[str, one_of("mlp", "conv")] = "mlp"
    # Widths of the hidden layers of each encoder of the body "mlp", 1 or more. The decoders mirror them.
    hidden: Widths = (500, 500, 2000)
    # Width of z, the low-level features.
    latent_dim: Width = 512
    # Width of h, the high-level features.
    feature_dim: Width = 128
    # Temperature of the contrast of features, above 0.
    feature_temperature: PositiveFloat = 0.5
    # Temperature of the contrast of clusters, above 0.
    label_temperature: PositiveFloat = 1.0
    # Losses of the second stage: "mflvc" as published, or "bdcl" (Dong et al., IJCNN 2025): contrast of features,
    # agreement of the views' assignments, decorrelation of columns, and balance. BDCL has no third stage.
    objective: Annotated[str, one_of("mflvc", "bdcl")] = "mflvc"
    # Weight of contrast and agreement in BDCL, 0 or more.
    pair_weight: NonNegativeFloat = 1.0
    # Weight of the decorrelation of low-level features and of clusters in BDCL, 0 or more.
    decorrelation_weight: NonNegativeFloat = 1.0
    # Expected shares of the clusters: "uniform" is the published entropy term; "learnt" shares follow the assignments;
    # or one positive number for each cluster, as text with commas, "5,3,2". Only "uniform" is in the paper.
    prior: str | Sequence[float] = "uniform"
    # Length of the first stage, in passes over the rows; 0 leaves the stage out.
    reconstruction_epochs: NonNegativeInt = 200
    # Least number of steps of each of the first two stages: they pass more often over few rows. Not in the paper.
    minimum_steps: NonNegativeInt = 0
    # Length of the third stage, in steps on all rows; 0 leaves the stage out.
    matching_steps: NonNegativeInt = 50
    # Match the pseudo-labels with the clusters once, before the third stage, and in all views alike. As published, each
    # step matches them anew, in each view by itself: with many clusters the names then change while they are learnt,
    # and clusters empty.
    match_once: bool = False
    # End the third stage before, when the prediction has settled: when at most one row in a thousand has changed its
    # cluster within 50 steps. Not in the paper.
    until_settled: bool = False
    # Weights of the views in the contrast and in the prediction: "equal" as published, or "agreement", by how well each
    # view predicts clusters of all views side by side, for views of unequal quality.
    view_weights: Annotated[str, one_of("equal", "agreement")] = "equal"
    # Restarts of the k-means that makes the pseudo-labels, 1 or more.
    kmeans_restarts: PositiveInt = 100
    # Source of the pseudo-labels. "features": k-means on the high-level features of each view, as published. "views":
    # one k-means on all views side by side, each scaled to variance 1, for views that complement each other.
    # "held_out": the prediction, but a row gets another cluster where classifiers that were trained on other rows are
    # sure of it (confident learning). Set `double_softmax=False` with "views" and "held_out".
    pseudo_labels_of: Annotated[str, one_of("features", "views", "held_out")] = "features"
    # Rows that pass through the network at a time within a step: the same gradient in less memory. 0 is all at once.
    chunk: NonNegativeInt = 0
    # Apply softmax to q once more in the cross-entropy, as in the authors' code; the paper does not. It hardly changes
    # a network that is already certain of its assignments.
    double_softmax: bool = True
    # Add the balance term once for each pair of views, as in the authors' code; False adds it once for each view, as
    # in the paper.
    entropy_per_pair: bool = True
    # Arithmetic of the autoencoders: "float32", or "bfloat16" for factors in bfloat16 with sums in float32. Heads and
    # losses stay in float32. Not in the authors' code.
    dtype: Dtype = "float32"


RUN = Run(evaluate_every=0, checkpoint_every=50)

# CMMC for few rows and for views of unequal quality: a narrow network, enough steps in each stage, and weighted views.
SETTLED = {
    "hidden": (128, 128),
    "latent_dim": 32,
    "feature_dim": 32,
    "minimum_steps": 1000,
    "matching_steps": 1000,
    "match_once": True,
    "until_settled": True,
    "double_softmax": False,
    "view_weights": "agreement",
    "kmeans_restarts": 10,
}


def cmmc(variant: str = "", **changes: Any) -> ConfigDict:
    """CMMC as in the authors' code, for `configs/cmmc_*.py`. `epochs` is the length of the contrastive stage.

    Args:
      variant: "", or "smoke" for two steps of each stage on small generated views.
      changes: keys that differ from the defaults, see `new_config`.

    Returns:
      The config.

    Raises:
      UserError: an unknown variant.
    """
    config = new_config("cmmc", changes, epochs=50, model=CMMC(), run=RUN)
    if is_smoke(variant):
        make_small(config, matching_steps=2)
    return config


def make_small(config: ConfigDict, **model: int) -> None:
    """Makes a config of views a smoke run: two steps of each stage on generated pairs.

    Args:
      config: the config, which is changed.
      model: keys of the group `model` that are changed beside those of the first stage and of k-means.
    """
    config.batch_size, config.epochs = max(8, config.num_clusters), 1
    config.model.update({"reconstruction_epochs": 1, "kmeans_restarts": 2, **model})
    config.run.log_every = 1
    config.data = ConfigDict({"source": "planted", "n": 2 * config.batch_size})


def mflvc_or_bdcl(variant: str, bdcl: Mapping[str, Any], **changes: Any) -> ConfigDict:
    """CMMC of a published set by its own losses, or by BDCL's.

    Args:
      variant: "" or "mflvc", "bdcl", or "smoke"; "bdcl,smoke" is the smoke run of the second.
      bdcl: keys of the group `model` that BDCL has for this set.
      changes: keys that differ from the defaults, see `new_config`.

    Returns:
      The config.

    Raises:
      UserError: an unknown variant.
    """
    name, smoke = split_variant(variant, ("mflvc", "bdcl"))
    model = {"objective": "bdcl", "matching_steps": 0, **bdcl} if name == "bdcl" else {}
    config = cmmc(smoke, model=model, **changes)
    if smoke and name == "bdcl":
        # The generated views are no images.
        config.model.update({"body": "mlp", "matching_steps": 0})
    return config


def views(variant: str = "", **changes: Any) -> ConfigDict:
    """CMMC by the recipe "auto" on your own views, for `configs/views.py` and `configs/cmmc_arrays.py`.

    Args:
      variant: as for `cmmc`; the smoke run trains CMMC alone.
      changes: keys that differ from the defaults, see `new_config`.

    Returns:
      The config.

    Raises:
      UserError: an unknown variant.
    """
    # Names of views are given as text on the command line.
    data = {"source": "multiview", **Multiview("", views="", scaling="minmax")._asdict()}
    return cmmc(variant, **{"recipe": "published" if variant else "auto", "data": data, **changes})
