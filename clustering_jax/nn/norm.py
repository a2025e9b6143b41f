"""Batch normalisation as PyTorch computes it (Ioffe and Szegedy, "Batch Normalization", ICML 2015)."""

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

    Unlike `flax.linen.BatchNorm`, and like PyTorch, it normalises by the biased variance but averages the
    unbiased one, so that evaluation after training agrees with PyTorch's too. Statistics are float32 whatever
    the dtype of the images; the result has that of the images.

    Args:
      views: the batch holds this many views of each example, those of one example next to each other. Each view
        is normalised by its own statistics and the running averages take one step per view, in order, as in
        that many separate passes.
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
    """As `BatchNorm`, for rows [n, d] of which some may not count.

    Scale and shift are common to all rows that pass through the module.

    Args:
      averages: sets of running averages kept; each call reads or updates one of them.
    """

    averages: int = 1

    @nn.compact
    def __call__(
        self, x: Float[Array, "n d"], train: bool, *, where: Bool[Array, " n"] | None = None, average: int = 0
    ) -> Float[Array, "n d"]:
        """Rows outside of `where` [n] don't change the others nor the averages, which stay if no row counts."""
        width = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, width)
        bias = self.param("bias", nn.initializers.zeros, width)
        mean = self.variable("batch_stats", "mean", jnp.zeros, (self.averages, *width))
        var = self.variable("batch_stats", "var", jnp.ones, (self.averages, *width))
        if not train:
            return (x - mean.value[average]) * lax.rsqrt(var.value[average] + EPSILON) * scale + bias
        if where is None:
            y, *statistics = normalize(x[:, None, None, None], scale, bias)
            y, (batch_mean, batch_var) = y.reshape(x.shape), (statistic[0] for statistic in statistics)
        else:
            rows, number = where[:, None], jnp.maximum(jnp.sum(where), 1)
            batch_mean = jnp.sum(x, 0, where=rows) / number
            batch_var = jnp.sum(jnp.square(x - batch_mean), 0, where=rows) / number
            y = (x - batch_mean) * lax.rsqrt(batch_var + EPSILON) * scale + bias
        if not self.is_initializing():
            number = len(x) if where is None else jnp.sum(where)
            weight = jnp.where(number > 0, 1 - DECAY, 0.0)
            unbiased = batch_var * (number / jnp.maximum(number - 1, 1))
            mean.value = _moved(mean.value, average, batch_mean, weight)
            var.value = _moved(var.value, average, unbiased, weight)
        return y


def _moved(averages: Array, i: int, new: Array, weight: Array) -> Array:
    """[sets, d] with row `i` moved towards `new`."""
    return jnp.asarray(averages).at[i].add(weight * (new - averages[i]))


@jax.custom_vjp
def normalize(
    x: Float[Array, "n v h w c"], scale: Float[Array, " c"], bias: Float[Array, " c"]
) -> tuple[Float[Array, "n v h w c"], Float[Array, "v c"], Float[Array, "v c"]]:
    """`scale (x - mean) / sqrt(var + 1e-5) + bias` for each of v views; also mean and biased variance, [v, c].

    Both are float32 or wider. The gradient is the closed form, which reads the images half as often as the one JAX
    derives; the two statistics pass none on.
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
    """[v, c] against [n, v, h, w, c]."""
    return statistic[:, None, None]


normalize.defvjp(_normalize_fwd, _normalize_bwd)
