"""What augmentation does to images: settings, checked once, of `clustering_jax.augment.pipeline`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from clustering_jax.errors import UserError

JITTER_LIMITS = (np.inf, np.inf, np.inf, 0.5)
Range = tuple[float, float]


class Policy(NamedTuple):
    """What `augment` does, in this order; an operation of zero probability or strength costs nothing.

    size: side of the output, pixels.
    crop_scale, crop_ratio: area fraction and width / height of the random crop; both (1, 1): the whole image.
    degrees, translate, affine_scale, shear: as in `random_affine`.
    flip, gray_p: probabilities of a mirror image and of greyscale.
    jitter, jitter_p: strengths of brightness, contrast, saturation and hue (turns), and their probability.
    blur_p, blur_kernel, blur_sigma: probability, odd number of taps, range of the deviation in pixels.
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
    """Contrastive Clustering's augmentation (Li et al., AAAI 2021), SimCLR's at `strength`."""
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
    """For handwritten digits: small affine changes (`random_affine`) in place of crops and flips, which make another
    digit of one; brightness and contrast as in `cc_policy`, since pens differ.
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
    """`policy` itself; UserError naming the first setting out of range."""
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
