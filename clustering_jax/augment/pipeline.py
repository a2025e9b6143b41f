"""Random image augmentation on the device: images [b, h, w, c], uint8 or float, to float32 in [0, 1].

Every random function takes its uniform numbers in [0, 1) as the argument `u`, one row for each example. `augment` draws
them from the key, the example's index and the view only. So the augmented image depends neither on the rest of its
batch nor on the number of devices. The operations are defined as torchvision defines them for float images. All shapes
are static and all data stay on the device, so call these functions under `jax.jit`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from clustering_jax.augment.color import adjust_colors, grayscale
from clustering_jax.augment.policies import Policy, Range, check_policy
from clustering_jax.augment.resample import affine, blur, crop_resize, resize, to_unit
from clustering_jax.typing import Array, Float, Int

TRIES = 10
# Number of uniform numbers that each operation takes. A flip and a greyscale conversion take one.
CROP_DRAWS, AFFINE_DRAWS, JITTER_DRAWS, BLUR_DRAWS = 2 * TRIES + 2, 5, 9, 2


def two_views(key: Array, images: Array, index: Array, policy: Policy) -> tuple[Array, Array]:
    """Views 0 and 1 of `augment`, each [b, size, size, c]."""
    # A separate axis for the views: concatenating them along b would move examples between devices.
    views = jax.vmap(lambda view: augment(key, images, index, view, policy))(jnp.arange(2))
    return views[0], views[1]


def augment(
    key: Array, images: Array, index: Array, view: Array | int, policy: Policy
) -> Float[Array, "b size size c"]:
    """Randomly augmented images.

    Args:
      key: random key; use a different key for each seed and epoch.
      images: [b, h, w, c] uint8, or float in [0, 1]. Hue, saturation and greyscale apply only if c = 3.
      index: int [b] row number of each example in the data set.
      view: number of the view.
      policy: settings. They are Python numbers, fixed at compile time.

    Returns:
      float32 [b, size, size, c] in [0, 1].

    Raises:
      UserError: a setting of `policy` is out of range.
      ValueError: a wrong shape or dtype.
    """
    check_policy(policy)
    if index.shape != images.shape[:1]:
        raise ValueError(f"index must be [b]: {index.shape} for images {images.shape}")
    crop, warp, flip, jitter, gray, blurring = _draws(key, index, view)
    if {*policy.crop_scale, *policy.crop_ratio} == {1}:
        x = resize(images, policy.size)
    else:
        x = random_resized_crop(crop, images, policy.size, scale=policy.crop_scale, ratio=policy.crop_ratio)
    x = random_affine(warp, x, policy.degrees, policy.translate, policy.affine_scale, policy.shear)
    x = horizontal_flip(flip, x, policy.flip)
    x = color_jitter(jitter, x, *policy.jitter, p=policy.jitter_p)
    x = random_grayscale(gray, x, policy.gray_p)
    return gaussian_blur(blurring, x, policy.blur_p, policy.blur_kernel, policy.blur_sigma)


def uniforms(key: Array, index: Array, view: Array | int, count: int) -> Float[Array, "b count"]:
    """`count` uniform numbers in [0, 1) for each example. They depend only on the key, the index and the view."""

    def draw(i):
        return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, i), view), (count,))

    return jax.vmap(draw)(index)


def _draws(key: Array, index: Array, view: Array | int) -> list[Array]:
    """The uniform numbers of all operations, from a single draw, because each draw is slow to compile."""
    counts = (CROP_DRAWS, AFFINE_DRAWS, 1, JITTER_DRAWS, 1, BLUR_DRAWS)
    return jnp.split(uniforms(key, index, view, sum(counts)), np.cumsum(counts)[:-1], axis=1)


def ten_crops(images: Array, size: int) -> Float[Array, "b 10 size size c"]:
    """Ten crops of each image: the four corners, the centre, and their mirror images.

    The mean prediction over the crops has less variance than the prediction from one image. The sides of a crop are 7/8
    of the sides of the image.

    Args:
      images: [b, h, w, c].
      size: side of the resized crops, in pixels.

    References:
      - Krizhevsky, Sutskever and Hinton, ImageNet classification with deep convolutional neural networks, NeurIPS 2012,
        section 4.1 (crops of 224 of 256 pixels).
    """
    height, width = images.shape[1:3]
    h, w = (max(1, round(side * 7 / 8)) for side in (height, width))
    corners = [(top, left) for top in (0, height - h) for left in (0, width - w)]
    corners.append(((height - h) // 2, (width - w) // 2))
    boxes = jnp.array([(*corner, h, w) for corner in corners], jnp.float32)
    crops = jnp.stack([crop_resize(images, jnp.tile(box, (images.shape[0], 1)), size) for box in boxes], axis=1)
    return jnp.concatenate([crops, crops[..., ::-1, :]], axis=1)


def crop_boxes(
    u: Float[Array, "b 22"],
    height: int,
    width: int,
    scale: Range = (0.08, 1.0),
    ratio: Range = (3 / 4, 4 / 3),
) -> Float[Array, "b 4"]:
    """Random boxes inside the image: (top, left, height, width) in whole pixels.

    The first of ten random sizes that fits into the image is placed uniformly. If none fits, the result is the largest
    central box whose aspect ratio is in `ratio`.

    Args:
      u: [b, 22] uniform numbers.
      height: height of the images in pixels.
      width: width of the images in pixels.
      scale: range of the area as a fraction of the image; the area is uniform.
      ratio: range of width / height; its logarithm is uniform.
    """
    area, shape, place = jnp.split(u, [TRIES, 2 * TRIES], axis=1)
    area = height * width * _within(area, scale)
    shape = jnp.exp(_within(shape, (np.log(ratio[0]), np.log(ratio[1]))))
    tries = jnp.round(jnp.sqrt(jnp.stack([area / shape, area * shape])))
    fits = (tries >= 1).all(0) & (tries[0] <= height) & (tries[1] <= width)
    chosen = jnp.take_along_axis(tries, jnp.argmax(fits, axis=1)[None, :, None], axis=2)[..., 0].T
    whole = jnp.array([height, width])
    largest = jnp.array([min(height, round(width / ratio[0])), min(width, round(height * ratio[1]))])
    any_fits = fits.any(axis=1, keepdims=True)
    sides = jnp.where(any_fits, chosen, largest)
    corner = jnp.where(any_fits, jnp.floor(place * (whole - sides + 1)), (whole - sides) // 2)
    return jnp.concatenate([corner, sides], axis=1)


def random_resized_crop(
    u: Float[Array, "b 22"],
    images: Array,
    size: int,
    *,
    scale: Range = (0.08, 1.0),
    ratio: Range = (3 / 4, 4 / 3),
) -> Float[Array, "b size size c"]:
    """A random box from `crop_boxes`, resized to `size` x `size` pixels, with antialiasing if it shrinks."""
    height, width = to_unit(images).shape[1:3]
    return crop_resize(images, crop_boxes(u, height, width, scale, ratio), size)


def random_affine(
    u: Float[Array, "b 5"],
    images: Array,
    degrees: float = 0.0,
    translate: float = 0.0,
    scale: Range = (1.0, 1.0),
    shear: float = 0.0,
) -> Float[Array, "b h w c"]:
    """Random rotation, shear, shift and zoom about the image's centre, bilinear, with zeros outside of the image.

    All parameters are uniform and independent.

    Args:
      u: [b, 5] uniform numbers.
      images: [b, h, w, c].
      degrees: largest rotation in degrees, in both directions.
      translate: largest shift in both directions, as a fraction of the side.
      scale: range of the zoom factor.
      shear: largest shear along x in degrees, in both directions.
    """
    x = to_unit(images)
    if not any((degrees, translate, shear)) and set(scale) == {1}:
        return x
    spread = jnp.array([np.deg2rad(degrees), np.deg2rad(shear), translate * x.shape[2], translate * x.shape[1]])
    angle, slant, right, down = (spread * (2 * u[:, :4] - 1)).T
    return affine(x, affine_matrices(angle, _within(u[:, 4], scale), slant, right, down))


def affine_matrices(angle: Array, zoom: Array, slant: Array, right: Array, down: Array) -> Float[Array, "b 2 3"]:
    """Matrices for `affine`: shear by `slant`, then clockwise rotation by `angle` (radians), zoom, shift (pixels)."""
    cos, sin, tan = jnp.cos(angle), jnp.sin(angle), jnp.tan(slant)
    inverse = jnp.stack([cos - sin * tan, sin + cos * tan, -sin, cos], axis=-1).reshape(-1, 2, 2)
    inverse = inverse / zoom[:, None, None]
    shift = -(inverse * jnp.stack([right, down], axis=-1)[:, None, :]).sum(-1, keepdims=True)
    return jnp.concatenate([inverse, shift], axis=-1)


def horizontal_flip(u: Float[Array, "b 1"], images: Array, p: float = 0.5) -> Float[Array, "b h w c"]:
    """Mirrors the image left to right with probability `p`."""
    x = to_unit(images)
    return x if p == 0 else jnp.where((u < p)[..., None, None], x[:, :, ::-1], x)


def random_grayscale(u: Float[Array, "b 1"], images: Array, p: float = 0.2) -> Float[Array, "b h w c"]:
    """Converts to grey with probability `p`. Images that do not have three channels are returned unchanged."""
    x = to_unit(images)
    return x if p == 0 or x.shape[-1] != 3 else jnp.where((u < p)[..., None, None], grayscale(x), x)


def gaussian_blur(
    u: Float[Array, "b 2"], images: Array, p: float = 0.5, kernel: int = 23, sigma: Range = (0.1, 2.0)
) -> Float[Array, "b h w c"]:
    """Applies `blur` with probability `p` and with a standard deviation that is uniform in `sigma`, in pixels."""
    x = to_unit(images)
    if p == 0:
        return x
    return jnp.where((u[:, :1] < p)[..., None, None], blur(x, _within(u[:, 1], sigma), kernel), x)


def color_jitter(
    u: Float[Array, "b 9"],
    images: Array,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
    p: float = 1.0,
) -> Float[Array, "b h w c"]:
    """With probability `p`, adjusts the colours in a random order, which is different for each example.

    The factors are uniform in ``[max(0, 1 - strength), 1 + strength]``. Images that do not have three channels take
    brightness and contrast only.

    Args:
      u: [b, 9] uniform numbers.
      images: [b, h, w, c].
      brightness: strength, at least 0.
      contrast: strength, at least 0.
      saturation: strength, at least 0.
      hue: largest rotation of the hue in both directions, in turns, at most 1/2.
      p: probability of the adjustments.
    """
    x = to_unit(images)
    if x.shape[-1] != 3:
        saturation = hue = 0.0
    strengths = np.array([brightness, contrast, saturation])
    if p == 0 or (hue == 0 and not strengths.any()):
        return x
    active = u[:, :1] < p
    factors = jnp.where(active, _within(u[:, 1:4], (np.maximum(0, 1 - strengths), 1 + strengths)), 1)
    shift = jnp.where(active[:, 0], _within(u[:, 4], (-hue, hue)), 0)
    return adjust_colors(x, factors, shift, ranks(u[:, 5:] if hue else u[:, 5:8]))


def ranks(u: Float[Array, "b n"]) -> Int[Array, "b n"]:
    """Rank of each number in its row, from 0; ties are ordered by position. It turns `u` into random permutations."""
    earlier = jnp.tri(u.shape[1], k=-1, dtype=bool)
    first, second = u[:, :, None], u[:, None, :]
    return ((second < first) | ((second == first) & earlier)).sum(-1)


def _within(u: Array, bounds: tuple) -> Array:
    low, high = (jnp.asarray(b, jnp.float32) for b in bounds)
    return low + (high - low) * u
