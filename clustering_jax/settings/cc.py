"""Settings of CC, `clustering_jax.methods.cc`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from clustering_jax.errors import UserError, nearest
from clustering_jax.settings.base import is_smoke, new_config
from clustering_jax.settings.validate import Dtype, NonNegativeFloat, PositiveFloat, PositiveInt, Width


class CC(NamedTuple):
    """Keys of the group `model` for CC. The defaults are those of the paper unless a comment says other."""

    # Encoder: "resnet18", "resnet34" or "resnet50".
    backbone: str = "resnet34"
    # First layers of the encoder: "imagenet" (7x7 of stride 2 and a max-pool) or "small" (3x3), for images of 32
    # pixels and less.
    stem: str = "imagenet"
    # Channels of the first stage of the encoder; 64 is the published network.
    width: Width = 64
    # Side of the augmented views and of the images at prediction, in pixels.
    image_size: Width = 224
    # Width of the output of the instance head.
    instance_dim: Width = 128
    # Temperature of the contrast of instances.
    instance_temperature: float = 0.5
    # Temperature of the contrast of clusters.
    cluster_temperature: float = 1.0
    # Expected shares of the clusters: "uniform" is the published entropy term; "learnt" shares follow the assignments;
    # or one positive number for each cluster, as text with commas, "5,3,2". Only "uniform" is in the paper.
    prior: str | Sequence[float] = "uniform"
    # Arithmetic of the encoder: "float32" or "bfloat16". Statistics, heads and losses stay in float32.
    dtype: Dtype = "float32"
    # Compute the blocks of the encoder again in the backward pass: the same gradient in less memory, in a third more
    # time. Not in the paper.
    remat: bool = False
    # Above 0, prediction uses an exponential moving average of the weights and running statistics with this decay per
    # step. Training is the same; at a constant rate the average is steadier than the last step. Not in the paper.
    average_decay: float = 0.0
    # Predict the mean over ten crops of an image, for ten times the work. Not in the paper.
    ten_crop: bool = False
    # Phases after CC: "none", or names with commas in the order of their training, such as "scan,selflabel" or "boost".
    # "scan" and "selflabel" are SCAN's (Van Gansbeke et al., 2020), "boost" is TCL's (Li et al., 2022). The settings
    # below belong to them; their defaults are those of the papers on CIFAR-10.
    refine: str = "none"
    # Length of the phase "scan", in passes over the images.
    scan_epochs: PositiveInt = 50
    # Nearest neighbours of each image in the phase "scan", by the cosine of the encoder's features.
    scan_neighbours: PositiveInt = 20
    # Weight of the entropy of the mean assignment in the phase "scan", above 0.
    scan_entropy_weight: PositiveFloat = 5.0
    # Length of the phase "selflabel", in passes over the images.
    selflabel_epochs: PositiveInt = 200
    # Confidence above which an image gets a label in the phase "selflabel", in [0, 1).
    selflabel_threshold: float = 0.99
    # Length of the phase "boost", in passes over the images.
    boost_epochs: PositiveInt = 200
    # Part of an evenly sized cluster that may get labels before each epoch of the phase "boost", in (0, 1].
    boost_share: PositiveFloat = 0.5
    # Confidence below which an image has no label in the phase "boost", in [0, 1).
    boost_threshold: float = 0.99
    # Part of an evenly sized cluster whose most confident images have a label in the phases "selflabel" and "boost",
    # from 0 to 1, even below the threshold. A cluster without confident images then does not vanish. Not in the papers.
    refine_share: NonNegativeFloat = 0.0
    # Predict with the batch statistics of plain images alone in the phases after CC. As published, strongly augmented
    # images move these statistics too, and a small network then predicts worse.
    refine_plain_statistics: bool = False
    # End a phase after CC when a cluster has lost all its images. Otherwise the run only warns of it.
    refine_stop: bool = False
    # Constant rate of Adam in the phases after CC.
    refine_learning_rate: float = 1e-4
    # L2 added to the gradient in the phases after CC, as in PyTorch's Adam.
    refine_weight_decay: float = 1e-4


class Natural(NamedTuple):
    """Keys of the group `augment` for photos."""

    # "natural" (crop, flip, colour, grey, blur), or "digits" with its own keys.
    kind: str = "natural"
    # Strength of the colour jitter, 0 or more; 1 for ImageNet's subsets and STL-10.
    strength: float = 0.5
    # Gaussian blur with probability .5.
    blur: bool = False
    # Smallest and largest part of the area that a crop keeps.
    crop_scale: tuple[float, float] = (0.08, 1.0)


class Digits(NamedTuple):
    """Keys of the group `augment` for handwritten digits. Not in the paper."""

    # Small affine changes, brightness and contrast: neither crops nor flips.
    kind: str = "digits"
    # Strength of the changes of brightness and contrast, 0 or more.
    strength: float = 0.5
    # Largest rotation either way, in degrees.
    degrees: float = 20.0
    # Largest shift, as a fraction of the side.
    translate: float = 0.12
    # Smallest and largest zoom.
    affine_scale: tuple[float, float] = (0.75, 1.25)
    # Largest shear either way, in degrees.
    shear: float = 15.0


AUGMENTATIONS: dict[str, type[Natural] | type[Digits]] = {"natural": Natural, "digits": Digits}


def of_kind(augment: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
    """The group `augment` with the keys of its kind: without keys of another kind, and with defaults for missing ones.

    Args:
      augment: the group after a change of its kind.
      given: keys that the user set.

    Raises:
      UserError: the user set a key that this kind does not have.
    """
    kind = AUGMENTATIONS.get(augment["kind"])
    if kind is None:
        return dict(augment)  # which the method refuses
    wrong = next((name for name in given if name not in kind._fields), None)
    if wrong:
        raise UserError(f"augment.{wrong} is no key of the kind '{augment['kind']}'{nearest(wrong, kind._fields)}")
    return {name: augment.get(name, default) for name, default in kind()._asdict().items()}


def cc(variant: str = "", **changes: Any) -> ConfigDict:
    """CC as published, for `configs/cc_*.py`.

    Args:
      variant: "", or "smoke" for two steps on small generated images.
      changes: keys that differ from the defaults, see `new_config`.

    Returns:
      The config.

    Raises:
      UserError: an unknown variant.
    """
    config = new_config("cc", changes, model=CC(), augment=Natural())
    return _smoke(config) if is_smoke(variant) else config


def _smoke(config: ConfigDict) -> ConfigDict:
    config.batch_size, config.epochs = max(8, config.num_clusters), 1
    config.model.update({"image_size": min(32, config.model.image_size), "refine": "none"})
    config.run.log_every = 1
    generated = {"source": "synthetic", "size": 32, "num_clusters": config.num_clusters}
    config.data = ConfigDict({**generated, "n": 2 * config.batch_size})
    if config.unlabelled:
        config.unlabelled = ConfigDict({**generated, "n": 2 * config.batch_size, "seed": 1})
    return config
