"""Keys of the group `data` for each data source. The functions behind the sources have the same arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Folder(NamedTuple):
    """Image files below a folder, decoded once into memory."""

    # The folder, flat or nested.
    path: str
    # Side of the decoded images, in pixels.
    size: int
    # Use the names of the topmost folders as labels, for scoring only.
    labels_from_folders: bool = False
    # "error" stops at an unreadable image, "skip" leaves it out with a warning.
    on_error: str = "error"
    # Only these class folders: a list, or "imagenet10", "imagenet_dogs" or "tiny_imagenet".
    classes: str | Sequence[str] = ()
    # Number of images that there must be; 0 is any.
    expected_count: int = 0
    # 3 for RGB, 1 for grey.
    channels: int = 3
    # Read images when a batch needs them, for sets larger than the memory.
    streaming: bool = False
    # Rows read together when streaming; 0 is a full shuffle.
    shuffle_block: int = 0
    # Blocks that are mixed with each other when streaming.
    shuffle_window: int = 16


class Arrays(NamedTuple):
    """An array of images in a file."""

    # A .npy or .npz file of images [n, h, w] or [n, h, w, c], uint8, or float in [0, 1].
    path: str
    # Array of a .npz with the images; empty finds "image", "images", "x", "arr_0", or the only array.
    image_key: str = ""
    # Array with the labels, for scoring only; empty reads none.
    label_key: str = ""


class Tfds(NamedTuple):
    """A data set of TensorFlow Datasets, prepared by `python -m clustering_jax.data.images.prepare NAME`."""

    # Name in TFDS, optionally with a version: cifar10:3.0.2.
    name: str
    # Splits joined by "+", in this order; slices are allowed: test[:1000].
    splits: str = "train"
    # Directory of the prepared data sets; empty is ~/tensorflow_datasets.
    tfds_dir: str = ""
    # Feature with the images.
    image_key: str = "image"
    # Feature with the labels, for scoring only; empty reads none.
    label_key: str = "label"
    # Side to resize to, in pixels, for sets of mixed sizes; 0 keeps the images as they are.
    size: int = 0
    # Read images when a batch needs them, for sets larger than the memory.
    streaming: bool = False
    # Rows read together when streaming; 0 is a full shuffle. No effect when images are embedded.
    shuffle_block: int = 0
    # Blocks that are mixed with each other when streaming. No effect when images are embedded.
    shuffle_window: int = 16


class Synthetic(NamedTuple):
    """Generated images of stripes, for tests and ":smoke"."""

    # Number of images.
    n: int = 256
    # Side, in pixels.
    size: int = 32
    # 1 or 3.
    channels: int = 3
    # Number of classes.
    num_clusters: int = 10
    # Seed of the images.
    seed: int = 0


class Multiview(NamedTuple):
    """Views of the same objects in files."""

    # A .npz or .mat file with a key for each view, or a folder or list of files with one view each.
    path: str
    # Keys or file names of the views, in order. Empty finds them: all files, or view0, view1, ..., or X1, X2, ...
    # "img.mat:img" is one array of a file in a folder.
    views: str | Sequence[str] = ()
    # Key or file of the labels, for scoring only; empty reads none.
    label_key: str = ""
    # Key or file of the mask, [n, views], 1 where an object has the view; empty reads none.
    mask_key: str = ""
    # "none", "pixels" (divide by 255), "minmax", "standard", "l2" or "tfidf": one for all views, or one for each. New
    # rows are scaled by the numbers of the training data.
    scaling: str | Sequence[str] = "none"
    # "error", or "nan": a view is missing in the rows where all its entries are NaN.
    missing: str = "error"
    # Objects are the columns of the arrays in the files.
    transpose: bool = False


class MultiviewPca(NamedTuple):
    """Views of files, each projected to its principal components: centred, not whitened, one scale for each view."""

    # A .npz or .mat file with a key for each view, or a folder or list of files with one view each.
    path: str
    # Principal components of each view; fewer where a view has fewer columns or rows.
    width: int = 100
    # Keys or file names of the views, in order. Empty finds them: all files, or view0, view1, ..., or X1, X2, ...
    # "img.mat:img" is one array of a file in a folder.
    views: str | Sequence[str] = ()
    # Key or file of the labels, for scoring only; empty reads none.
    label_key: str = ""
    # Key or file of the mask, [n, views], 1 where an object has the view; empty reads none.
    mask_key: str = ""
    # "none", "pixels" (divide by 255), "minmax", "standard", "l2" or "tfidf": one for all views, or one for each. New
    # rows are scaled by the numbers of the training data.
    scaling: str | Sequence[str] = "none"
    # "error", or "nan": a view is missing in the rows where all its entries are NaN.
    missing: str = "error"
    # Objects are the columns of the arrays in the files.
    transpose: bool = False


class Planted(NamedTuple):
    """Generated modalities with shared classes under stronger private ones."""

    # Number of rows.
    n: int = 2000
    # Strength of the directions of the shared classes.
    shared: float = 0.7
    # Strength of the directions of the private classes of each modality.
    private: float = 1.0
    # Number of shared classes, and of private classes of each modality.
    num_clusters: int = 8
    # Columns of each modality.
    width: int = 100
    # Number of modalities.
    views: int = 2
    # Seed of the data.
    seed: int = 0


class PlantedEmbeddings(NamedTuple):
    """Generated embeddings of images and nouns, for tests and ":smoke"."""

    # Number of images.
    n: int = 1000
    # Number of directions, one for each class.
    num_clusters: int = 10
    # Columns.
    width: int = 32
    # Number of nouns.
    num_nouns: int = 200
    # Standard deviation of the noise, relative to the length of a direction.
    noise: float = 0.5
    # Seed of the data.
    seed: int = 0
