"""Log-sums of exponentials over pairs of rows, with all similarities in memory. This is fastest for few rows."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from clustering_jax.losses.blockwise import gradient_weights, similarities
from clustering_jax.parallel import gather
from clustering_jax.typing import Array, Float, Int


def dense_log_sums(
    a: Float[Array, "n d"],
    b: Float[Array, "n d"],
    examples: Int[Array, " n"],
    temperature: float | Float[Array, ""],
    *,
    axis_name: str | None = None,
    symmetric: bool = False,
) -> Float[Array, "2 n"]:
    """`log_sums` for two views of the same examples. Each row is compared with the rows of both views.

    The similarities within each view and between the views, [n, n over all devices] each, are kept for the backward
    pass.

    Args:
      a: [n, d] first view, finite, float32 or wider.
      b: [n, d] second view, with the same dtype as `a`.
      examples: int [n] number of each example, from 1. Rows with 0 are not compared.
      temperature: > 0.
      axis_name: mapped axis over which the rows are split.
      symmetric: compute the similarities between the views once instead of twice, which saves one of four products.
        Use it only if one device has all rows. With several devices each would need sums over the others' rows.

    Returns:
      [2, n], for `a` and for `b`; about -1e30 for rows that are not compared with any row.

    Raises:
      TypeError: raised by JAX if it is differentiated in forward mode.
    """
    # Under `shard_map` the arguments of a custom derivative must all vary over the same devices. Adding zeros that
    # depend on another argument makes them do so.
    a, b = (x + jnp.zeros_like(examples[0], x.dtype) for x in (a, b))
    temperature = jnp.asarray(temperature, a.dtype) + jnp.zeros_like(a[0, 0])
    return jnp.stack(_kept_log_sums(a, b, examples, temperature, axis_name, symmetric))


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _kept_log_sums(
    a: Array, b: Array, examples: Array, temperature: Array, axis_name: str | None, symmetric: bool
) -> tuple[Array, Array]:
    return _forward(a, b, examples, temperature, axis_name, symmetric)[0]


def _forward(
    a: Array, b: Array, examples: Array, temperature: Array, axis_name: str | None, symmetric: bool
) -> tuple[tuple[Array, Array], tuple]:
    numbers, all_a, all_b = (gather(x, axis_name) for x in (examples, a, b))

    def tile(rows: Array, columns: Array) -> Array:
        return similarities(rows, examples, columns, numbers, temperature)

    aa, ab, bb = tile(a, all_a), tile(a, all_b), tile(b, all_b)
    ba = ab.T if symmetric else tile(b, all_a)
    sums = _log_sum(aa, ab), _log_sum(ba, bb)
    return sums, (a, b, temperature, (aa, ab, ba, bb), sums)


def _log_sum(x: Array, y: Array) -> Array:
    """`logsumexp` over each row of `x` and the same row of `y` together, [n]."""
    highest = lax.stop_gradient(jnp.maximum(jnp.max(x, axis=1), jnp.max(y, axis=1)))
    x, y = (jnp.sum(jnp.exp(each - highest[:, None]), axis=1) for each in (x, y))
    return highest + jnp.log(x + y)


def _backward(axis_name: str | None, symmetric: bool, residuals: tuple, cotangents: tuple[Array, Array]) -> tuple:
    a, b, temperature, (aa, ab, ba, bb), sums = residuals
    of_a, of_b = zip(sums, cotangents, strict=True)
    of_all_a, of_all_b = (tuple(gather(x, axis_name) for x in each) for each in (of_a, of_b))
    all_a, all_b = gather(a, axis_name), gather(b, axis_name)
    across = gradient_weights(ab, *of_a, *of_all_b)
    back = across.T if symmetric else gradient_weights(ba, *of_b, *of_all_a)
    product = partial(jnp.matmul, precision="highest")
    a_gradient = product(gradient_weights(aa, *of_a, *of_all_a), all_a) + product(across, all_b)
    b_gradient = product(back, all_a) + product(gradient_weights(bb, *of_b, *of_all_b), all_b)
    # The sums depend only on rows / sqrt(temperature), so the temperature's gradient follows from that of the rows.
    slope = -(jnp.sum(a * a_gradient) + jnp.sum(b * b_gradient)) / (2 * temperature**2)
    return a_gradient / temperature, b_gradient / temperature, None, slope


_kept_log_sums.defvjp(_forward, _backward)
