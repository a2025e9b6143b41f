"""Settings that the methods share, and how a config is made from them.

A config is a ConfigDict. Every key that it lists can be set on the command line, ``--config.batch_size=128``; an
unknown key is refused with the nearest known one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, NamedTuple

from ml_collections import ConfigDict

from clustering_jax.errors import UserError
from clustering_jax.settings.validate import NonNegativeFloat, NonNegativeInt, nearest_of

SMOKE = "smoke"


class Config(NamedTuple):
    """Keys of every config."""

    # Name of the method; the config file sets it.
    method: str
    # Seed of the weights, the batches, the augmentation and the noise.
    seed: int = 0
    # Number of runs with the seeds `seed`, `seed + 1`, ... that train side by side. One is kept, chosen without labels.
    num_seeds: int = 1
    # Number of clusters, 2 or more. For views and embeddings, 0 or "auto" chooses it in `cluster_range`.
    num_clusters: int = 10
    # Smallest and largest number of clusters to try when `num_clusters` is "auto".
    cluster_range: tuple[int, int] = (2, 30)
    # Rows of a step over all devices; 0 is all rows. A number above the number of rows is reduced, with a warning.
    batch_size: int = 256
    # Length of the training, in passes over the rows. 0 scores the weights of `init_from` without training.
    epochs: int = 1000
    # Path of the authors' released PyTorch checkpoint to start from, for CC and CMMC. It is read without PyTorch, and
    # no code in it is run.
    init_from: str = ""
    # For views: "auto" trains several candidates, k-means among them, and keeps one without labels; "published" trains
    # the method as the config says.
    recipe: str = "published"
    # Score k-means on the pixels, views or embeddings too, where there are labels.
    kmeans_baseline: bool = False
    # Rows that the model is not sure of get the cluster -1, so that this share of the others is expected to be right,
    # for example 0.9; 0 keeps every row in its cluster. No labels are used.
    reject: NonNegativeFloat = 0.0
    # Give the clusters of the scored rows exactly equal sizes, or those of `model.prior`, by Sinkhorn's algorithm. New
    # rows in `predict` get their most probable clusters.
    balanced: bool = False
    # Coarser levels: for each number here, the clusters are put into so many groups, in a column of assignments.csv.
    levels: tuple[int, ...] = ()
    # Data set to train on: `data.source` and the settings of this source. A config file replaces the group as a whole.
    data: dict[str, Any] = {}  # noqa: RUF012
    # Another data set to score and assign, with the keys of `data`; empty is the one trained on. Not for views.
    scored: dict[str, Any] = {}  # noqa: RUF012
    # CC only: a second data set, with the keys of `data`. Before each epoch it is passed over once with the instance
    # loss alone.
    unlabelled: dict[str, Any] = {}  # noqa: RUF012


class Optimizer(NamedTuple):
    """Keys of the group `optimizer`: Adam, with PyTorch's defaults except for the learning rate, or SGD."""

    # "adam", or "sgd" with momentum.
    kind: Annotated[str, nearest_of("adam", "sgd")] = "adam"
    # Peak learning rate.
    learning_rate: NonNegativeFloat = 3e-4
    # Schedule of the rate: "constant", or "cosine" down to 0 at the last step.
    schedule: str = "constant"
    # Steps in which the rate rises linearly from 0 to the peak.
    warmup_steps: NonNegativeInt = 0
    # Decay of the first moment of Adam, in [0, 1).
    b1: float = 0.9
    # Decay of the second moment of Adam, in [0, 1).
    b2: float = 0.999
    # Number added to the denominator of Adam.
    eps: NonNegativeFloat = 1e-8
    # Momentum of SGD, in [0, 1).
    momentum: float = 0.9
    # Nesterov's momentum in place of the plain one, for SGD.
    nesterov: bool = False
    # L2 added to the gradient, as in PyTorch's Adam and SGD (not the decoupled decay of AdamW).
    weight_decay: NonNegativeFloat = 0.0
    # Add the L2 only to parameters whose name ends in "kernel": neither to biases nor to the scales of norms.
    decay_kernels_only: bool = False
    # Weight decay of AdamW, of parameters whose name ends in "kernel". It is multiplied by the learning rate.
    decoupled_decay: NonNegativeFloat = 0.0
    # Largest global norm of the gradient; 0 does not clip.
    clip_norm: NonNegativeFloat = 0.0


class Run(NamedTuple):
    """Keys of the group `run`."""

    # Steps between two lines of metrics.jsonl.
    log_every: int = 64
    # Epochs between two evaluations of all rows; 0 evaluates only at the end.
    evaluate_every: int = 10
    # Epochs between two checkpoints; 0 saves only at the end and when interrupted.
    checkpoint_every: int = 10
    # Number of checkpoints kept.
    keep: int = 2
    # Data sets up to this size, in GiB, are kept in the memory of the devices. Larger ones stay on the host, and each
    # batch is copied.
    resident_gib: float = 4.0


class Streaming(NamedTuple):
    """Keys of the group `data` for image sets larger than the memory: docs/data.md."""

    # Read images when a batch needs them, for sets larger than the memory.
    streaming: bool = False
    # Rows read together when streaming; 0 is a full shuffle.
    shuffle_block: int = 0
    # Blocks that are mixed with each other.
    shuffle_window: int = 16


class Rows(NamedTuple):
    """Keys of the group `rows`: what a run says of each row besides its cluster."""

    # Rows that each row is compared with, for the outlier scores; 0 leaves out outliers, duplicates and typical rows.
    neighbours: int = 10
    # Two rows are near-duplicates if their distance in the embedding is at most this share of the distance of either of
    # them to its fifth nearest row, or if they are equal; 0 looks for none. See docs/edit.md.
    duplicates: float = 0.35
    # Sets of more rows are not compared, with a warning: the time grows with the square of the number of rows.
    limit: int = 50_000


class Embeddings(NamedTuple):
    """Keys of the group `data` for embeddings."""

    # "embeddings": a file, or a directory that `clustering_jax.embed` wrote.
    source: str = "embeddings"
    # Path of the embeddings. Where it is empty, the group `embed` says how to make them.
    path: str = ""
    # Rows to take: "all"; a split of an embedded directory; or "train" and "test" by `train_key`.
    split: str = "train"
    # Array of the embeddings of the images, float [n, d].
    image_key: str = "image"
    # Array of the labels, int [n], for scoring only; empty reads none.
    label_key: str = ""
    # Array of 0 and 1, [n], with 1 for the rows of the split "train".
    train_key: str = ""
    # Another file with the nouns; empty is `data.path`.
    nouns: str = ""
    # Array of the embeddings of the nouns, float [m, d].
    noun_key: str = "nouns"
    # Array of the nouns, text [m].
    word_key: str = "noun_words"


class Embed(NamedTuple):
    """Keys of the group `embed`: embeddings to make where `data.path` is empty."""

    # Image encoder: "lite0" (EfficientNet-Lite0, from the extra "photos"), or the directory or file of a DINOv2,
    # DINOv3, SigLIP, CLIP or ResNet model. With the extra "torch" also "timm:NAME" and "hf:DIR", any other model of
    # timm or transformers, by PyTorch. Methods that need nouns take `clip` instead.
    encoder: str = ""
    # Directory of a CLIP model with model.safetensors, config.json and tokenizer.json, or with the files of open_clip.
    clip: str = ""
    # Images to embed: for each split, by its name, a `source` and the settings of this source.
    splits: dict[str, Any] = {}  # noqa: RUF012
    # Directory of WordNet, its index.noun, or a text file with one noun on each line.
    nouns: str = ""
    # Length of the shorter side before the centre is cropped, in pixels; 0 is the model's own.
    resize: int = 0
    # Images embedded at a time.
    batch_size: int = 64
    # Directory that keeps embedded nouns for other runs; empty keeps none.
    cache: str = ""


class Photos(NamedTuple):
    """Keys of the group `data` for photos that a pretrained encoder embeds first."""

    # "photos": the image files below a folder.
    source: str = "photos"
    # Path of the folder.
    path: str = ""
    # Take the names of the subfolders as labels, for scoring only.
    labels_from_folders: bool = False
    # What to do with an unreadable file: "skip", with a warning, or "error".
    on_error: str = "skip"


ADAM, RUN = Optimizer()._asdict(), Run()._asdict()
STREAMING, EMBEDDINGS, PHOTOS = Streaming()._asdict(), Embeddings()._asdict(), Photos()._asdict()

MERGED = ("model", "optimizer", "run", "embed", "rows")


def new_config(method: str, changes: Mapping[str, Any], **defaults: Any) -> ConfigDict:
    """The config of a method.

    Args:
      method: name of the method.
      changes: keys that a config file sets. The groups in `MERGED` are merged into the defaults; the other groups
        replace them.
      defaults: the defaults of the method, where they differ from `Config`: values, and settings tuples for groups.

    Returns:
      The config.
    """
    groups = {"model": {}, "optimizer": Optimizer(), "run": Run(), "rows": Rows(), **defaults}
    plain = {name: value._asdict() if hasattr(value, "_asdict") else value for name, value in groups.items()}
    config = ConfigDict({**Config(method)._asdict(), **plain})
    for name, value in changes.items():
        if name in MERGED:
            config[name].update(value)
        else:
            config[name] = ConfigDict(value) if isinstance(value, dict) else value
    return config


def whole_data_config(method: str, variant: str, model: NamedTuple, changes: Mapping[str, Any]) -> ConfigDict:
    """The config of a method that takes all rows of views or embeddings in one step.

    Args:
      method: name of the method.
      variant: "", or "smoke" for generated views.
      model: defaults of the group `model`.
      changes: keys that differ from the defaults, see `new_config`.

    Returns:
      The config.

    Raises:
      UserError: an unknown variant.
    """
    run = Run(evaluate_every=0, checkpoint_every=0)
    # A batch size of 0 is the number of rows.
    config = new_config(method, changes, epochs=1, batch_size=0, model=model, run=run)
    if is_smoke(variant):
        config.data = ConfigDict({"source": "planted", "n": 64})
    return config


def is_smoke(variant: str) -> bool:
    """Whether a variant is the smoke run.

    Raises:
      UserError: the variant is neither "" nor "smoke".
    """
    if variant not in ("", SMOKE):
        raise UserError(f"unknown variant ':{variant}': only ':{SMOKE}'")
    return variant == SMOKE


def split_variant(variant: str, names: Collection[str]) -> tuple[str, str]:
    """Splits the variant of a config with several data sets: ``NAME``, ``smoke``, or ``NAME,smoke``.

    Args:
      variant: text after the colon of ``--config=FILE:VARIANT``.
      names: names of the config's data sets; the first one is the default.

    Returns:
      The name, and "smoke" or "".

    Raises:
      UserError: an unknown name.
    """
    name, comma, smoke = variant.rpartition(",")
    if not comma:
        name, smoke = (next(iter(names)), variant) if variant in ("", SMOKE) else (variant, "")
    if name not in names or smoke not in ("", SMOKE):
        raise UserError(f"unknown variant ':{variant}': choose {', '.join(names)}; add ',{SMOKE}' for the smoke run")
    return name, smoke
