"""Settings of the augmentation in `clustering_jax.augment.pipeline`, and their checks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from clustering_jax.errors import UserError

JITTER_LIMITS = (np.inf, np.inf, np.inf, 0.5)
Range = tuple[float, float]


class Policy(NamedTuple):
    """Settings of `augment`. It applies the operations in this order and skips those of zero probability or strength.

    Args:
      size: side of the output in pixels.
      crop_scale: range of the area of the random crop, as a fraction of the image. If this and `crop_ratio` are (1, 1),
        the whole image is taken.
      crop_ratio: range of width / height of the random crop.
      degrees: largest rotation in degrees.
      translate: largest shift as a fraction of the side.
      affine_scale: range of the zoom factor.
      shear: largest shear along x in degrees.
      flip: probability of mirroring left to right.
      jitter: strengths of brightness, contrast, saturation and hue (in turns, at most 1/2).
      jitter_p: probability of the colour adjustments.
      gray_p: probability of the conversion to grey.
      blur_p: probability of the Gaussian blur.
      blur_kernel: number of taps of the blur, odd.
      blur_sigma: range of the blur's standard deviation in pixels.
    """

    size: int
    crop_scale: Range = (1.0, 1.0)
    crop_ratio: Range = (1.0, 1.0)
    degrees: float = 0.0
    translate: float = 0.0
    affine_scale: Range = (1.0, 1.0)
    shear: float = 0.0
    flip: float = 0.0
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jitter_p: float = 0.0
    gray_p: float = 0.0
    blur_p: float = 0.0
    blur_kernel: int = 23
    blur_sigma: Range = (0.1, 2.0)


def cc_policy(size: int, strength: float = 0.5, blur: bool = False, crop_scale: Range = (0.08, 1.0)) -> Policy:
    """Augmentation of Contrastive Clustering (Li et al., AAAI 2021): SimCLR's, with its colour jitter at `strength`.

    Args:
      size: side of the output in pixels.
      strength: factor of the strengths of the colour jitter.
      blur: whether to blur with probability 0.5.
      crop_scale: range of the area of the random crop, as a fraction of the image.
    """
    return Policy(
        size=size,
        crop_scale=(crop_scale[0], crop_scale[1]),
        crop_ratio=(3 / 4, 4 / 3),
        flip=0.5,
        jitter=(0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength),
        jitter_p=0.8,
        gray_p=0.2,
        blur_p=0.5 if blur else 0.0,
    )


def digits_policy(
    size: int,
    strength: float = 0.5,
    degrees: float = 20.0,
    translate: float = 0.12,
    affine_scale: Range = (0.75, 1.25),
    shear: float = 15.0,
) -> Policy:
    """Augmentation for handwritten digits: small affine changes, and changes of brightness and contrast.

    Crops and flips are left out, because they can turn a digit into another one. The arguments are those of `Policy`;
    `strength` is the factor of the colour jitter, as in `cc_policy`.
    """
    return Policy(
        size=size,
        degrees=degrees,
        translate=translate,
        affine_scale=(affine_scale[0], affine_scale[1]),
        shear=shear,
        jitter=(0.8 * strength, 0.8 * strength, 0.0, 0.0),
        jitter_p=0.8,
    )


def check_policy(policy: Policy) -> Policy:
    """Returns `policy` after checking it.

    Raises:
      UserError: a setting is out of range. The message names the first one.
    """
    chances = {f: getattr(policy, f) for f in ("flip", "jitter_p", "gray_p", "blur_p")}
    ranges = {f: getattr(policy, f) for f in ("crop_scale", "crop_ratio", "affine_scale", "blur_sigma")}
    wrong = [f"{f}={p} is not a probability" for f, p in chances.items() if not 0 <= p <= 1]
    wrong += [f"{f}={r} is not 0 < low <= high" for f, r in ranges.items() if not 0 < r[0] <= r[1]]
    limits = {
        f"size={policy.size} is not >= 1": policy.size >= 1,
        f"blur_kernel={policy.blur_kernel} is not odd": policy.blur_kernel % 2 == 1,
        f"crop_scale={policy.crop_scale} ends above 1": policy.crop_scale[1] <= 1,
        f"jitter={policy.jitter} is not four numbers": len(policy.jitter) == 4,
        f"jitter={policy.jitter} is negative or its hue above 0.5": all(
            0 <= strength <= limit for strength, limit in zip(policy.jitter, JITTER_LIMITS, strict=False)
        ),
    }
    wrong += [message for message, holds in limits.items() if not holds]
    if wrong:
        raise UserError(f"augmentation: {wrong[0]}; correct the method's augmentation settings")
    return policy
