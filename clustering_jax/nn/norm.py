"""Batch normalisation with the same results as PyTorch.

References:
  Ioffe and Szegedy, Batch Normalization, ICML 2015.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from clustering_jax.typing import Array, Bool, Float

EPSILON = 1e-5
DECAY = 0.9  # PyTorch's momentum 0.1 is the weight of the new value
AXES = (0, 2, 3)


class BatchNorm(nn.Module):
    """Normalises each channel of [n, h, w, c] by its mean and variance over the other axes, then scales and shifts.

    Like PyTorch and unlike `flax.linen.BatchNorm`, it normalises by the biased variance and keeps a running average of
    the unbiased variance. So evaluation after training agrees with PyTorch too. The statistics are float32 for any
    dtype of the images. The result has the dtype of the images.

    Args:
      views: number of views of each example in the batch. The views of one example are consecutive rows. Each view is
        normalised by its own statistics, and the running averages are updated once for each view, in order, as in
        separate passes.
    """

    views: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h w c"]:
        channels = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        var = self.variable("batch_stats", "var", jnp.ones, channels)
        if not train:
            factor = scale * lax.rsqrt(var.value + EPSILON)
            return (x.astype(jnp.float32) * factor + (bias - mean.value * factor)).astype(x.dtype)
        groups = x.reshape(-1, self.views, *x.shape[1:])
        y, batch_mean, batch_var = normalize(groups, scale, bias)
        if not self.is_initializing():
            count = groups.size // batch_mean.size
            unbiased = batch_var * (count / max(count - 1, 1))
            for view in range(self.views):
                mean.value = DECAY * mean.value + (1 - DECAY) * batch_mean[view]
                var.value = DECAY * var.value + (1 - DECAY) * unbiased[view]
        return y.reshape(x.shape)


class RowNorm(nn.Module):
    """`BatchNorm` for rows [n, d], some of which can be left out."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "n d"], train: bool, *, where: Bool[Array, " n"] | None = None
    ) -> Float[Array, "n d"]:
        """Normalises the rows.

        Args:
          x: [n, d].
          train: use the statistics of the batch, and update the running averages.
          where: bool [n] rows to use, or None for all. Other rows have no effect on the result of these rows or on the
            running averages. If no row is used, the averages do not change.
        """
        width = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, width)
        bias = self.param("bias", nn.initializers.zeros, width)
        mean = self.variable("batch_stats", "mean", jnp.zeros, width)
        var = self.variable("batch_stats", "var", jnp.ones, width)
        if not train:
            return (x - mean.value) * lax.rsqrt(var.value + EPSILON) * scale + bias
        if where is None:
            y, *statistics = normalize(x[:, None, None, None], scale, bias)
            y, (batch_mean, batch_var) = y.reshape(x.shape), (statistic[0] for statistic in statistics)
        else:
            rows, number = where[:, None], jnp.maximum(jnp.sum(where), 1)
            batch_mean = jnp.sum(x, 0, where=rows) / number
            batch_var = jnp.sum(jnp.square(x - batch_mean), 0, where=rows) / number
            y = (x - batch_mean) * lax.rsqrt(batch_var + EPSILON) * scale + bias
        if not self.is_initializing():
            count = len(x) if where is None else jnp.sum(where)
            weight = jnp.where(count > 0, 1 - DECAY, 0.0)
            unbiased = batch_var * (count / jnp.maximum(count - 1, 1))
            mean.value = _moved(mean.value, batch_mean, weight)
            var.value = _moved(var.value, unbiased, weight)
        return y


def _moved(average: Array, new: Array, weight: Array) -> Array:
    """A running average [d], moved towards `new` [d] by the fraction `weight`."""
    return average + weight * (new - average)


@jax.custom_vjp
def normalize(
    x: Float[Array, "n v h w c"], scale: Float[Array, " c"], bias: Float[Array, " c"]
) -> tuple[Float[Array, "n v h w c"], Float[Array, "v c"], Float[Array, "v c"]]:
    """``scale (x - mean) / sqrt(var + 1e-5) + bias``, for each of v views.

    The gradient is computed in closed form, which reads the images half as often as the gradient that JAX derives. No
    gradient flows through the returned mean and variance.

    Args:
      x: [n, v, h, w, c].
      scale: [c].
      bias: [c].

    Returns:
      ``(y, mean, variance)``: y [n, v, h, w, c] in the dtype of `x`; the mean and the biased variance, [v, c], are
      float32 or wider.
    """
    return _normalize_fwd(x, scale, bias)[0]


def _normalize_fwd(x: Array, scale: Array, bias: Array) -> tuple[tuple, tuple]:
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = jnp.mean(wide, AXES)
    centred = wide - _rows(mean)
    var = jnp.mean(jnp.square(centred), AXES)
    inverse = lax.rsqrt(var + EPSILON)
    y = centred * _rows(scale * inverse) + bias
    return (y.astype(x.dtype), mean, var), (x, mean, inverse, scale)


def _normalize_bwd(saved: tuple, cotangents: tuple) -> tuple[Array, Array, Array]:
    x, mean, inverse, scale = saved
    dy = cotangents[0].astype(mean.dtype)
    unit = (x.astype(mean.dtype) - _rows(mean)) * _rows(inverse)
    dbias, dscale = jnp.sum(dy, AXES), jnp.sum(dy * unit, AXES)
    count = x.size // mean.size
    dx = _rows(scale * inverse) * (dy - _rows(dbias / count) - unit * _rows(dscale / count))
    return dx.astype(x.dtype), dscale.sum(0), dbias.sum(0)


def _rows(statistic: Array) -> Array:
    """Reshapes statistics [v, c] so that they broadcast with [n, v, h, w, c]."""
    return statistic[:, None, None]


normalize.defvjp(_normalize_fwd, _normalize_bwd)
