"""Mutual information of assignments, and divergences of codes from a prior.

All results are in nats. Each function returns the quantity of its name, so a quantity to maximise enters a loss with a
minus sign. Results are float32 (float64 if an input is float64). Functions with `axis_name` are computed over the
GLOBAL batch, whether they are called per device or not. `clustering_jax.losses.contrastive` describes their gradients.

References:
  Mao et al., Deep Mutual Information Maximin for Cross-Modal Clustering (DMIM), AAAI 2021.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from clustering_jax.losses.checks import checked, rescaled, shapes
from clustering_jax.parallel import pmean, psum
from clustering_jax.typing import Array, Bool, Float

# Smallest probability, as in the authors' code: the machine epsilon of float64, also for float32.
_FLOOR = 2.22e-16
# Smallest standard deviation. DMIM's encoder adds this value, and 1 / sigma^3 does not overflow float32.
_MIN_SIGMA = 1e-7


def mutual_information(
    p: Float[Array, "n k"],
    q: Float[Array, "n m"],
    *,
    symmetrize: bool = True,
    axis_name: str | None = None,
    where: Bool[Array, " n"] | None = None,
) -> Float[Array, ""]:
    """Mutual information of two soft assignments: ``sum_ij J_ij (log J_ij - log a_i - log b_j)``.

    J is the joint distribution, ``p^T q`` divided by its sum; a and b are its marginals. Entries of J, a and b below
    2.22e-16 count as 2.22e-16, so the value and the gradient are finite with empty clusters. Devices exchange only
    [k, m] sums and no rows.

    Args:
      p: [n, k] soft assignments of the first modality, >= 0; n, k >= 1.
      q: [n, m] soft assignments of the second modality. Row i belongs to the same example as row i of `p`.
      symmetrize: use (J + J^T) / 2 instead of J, as in DMIM; this needs m = k. The maximum is then reached if the
        labels of `q` equal those of `p` or swap them in pairs, but not for other permutations of the labels.
      axis_name: mapped axis over which the batch is split.
      where: bool [n] rows to use, for example those whose modalities are both present, or None for all. Other rows may
        have any values. If no row is used, the value and its gradient are 0.

    Returns:
      Scalar in [0, log min(k, m)] up to rounding, 1e-7 in float32. It is 0 if the assignments are independent (if
      symmetrised, with equal marginals too). It is log min(k, m) if the assignment with fewer clusters is a function of
      the other one and its clusters have equal weight.

    Raises:
      ValueError: unequal lengths, or unequal shapes with `symmetrize`; rank other than 2, an empty batch, not floating
        point, or a `where` that is not bool [n].

    References:
      - Mao et al., DMIM, AAAI 2021: L1 is the negative sum of this over the two heads.
      - Ji et al., Invariant Information Clustering for Unsupervised Image Classification and Segmentation, ICCV 2019,
        eqs. 2 and 3.

    Example:
      >>> import jax.numpy as jnp
      >>> from clustering_jax.losses import mutual_information
      >>> print(f"{mutual_information(jnp.eye(2), jnp.eye(2)):.3f}")  # log 2
      0.693
    """
    p, q = _checked_pair("mutual_information", symmetrize, p, q)
    if where is not None:
        p, q = _kept("mutual_information", where, p, q)
    joint = psum(jnp.matmul(p.T, q, precision="highest"), axis_name)
    joint = (joint + joint.T) / 2 if symmetrize else joint
    joint, nonzero = rescaled(joint, jnp.sum(joint))
    joint = joint / jnp.where(nonzero, jnp.sum(joint), 1)
    tables = joint, jnp.sum(joint, axis=1, keepdims=True), jnp.sum(joint, axis=0, keepdims=True)
    joint, a, b = (jnp.maximum(x, _FLOOR) for x in tables)
    # sum J log r, as sum a b (r log r - r + 1) for r = J / (a b): the sums of J and of a b are 1. No term is negative,
    # and near independence the error of r has no effect of first order.
    ratio = joint / a / b
    return jnp.sum(a * b * (ratio * jnp.log(ratio) - (ratio - 1)))


def prior_kl(z: Float[Array, "n d"], prior: Float[Array, "n d"], *, axis_name: str | None = None) -> Float[Array, ""]:
    """KL(s || softmax(z)) with s = softmax(prior), for each row and divided by d: ``mean(s (log s - log softmax(z)))``.

    The mean is over all n * d entries, not over the n rows.

    Args:
      z: [n, d] samples from the encoder; n, d >= 1.
      prior: [n, d] samples from the prior N(0, I).
      axis_name: mapped axis over which the batch is split.

    Returns:
      Scalar >= 0 up to rounding; 0 if `z` and `prior` differ only by a constant in each row.

    Raises:
      ValueError: unequal shapes, rank other than 2, empty, or not floating point.

    References:
      Mao et al., DMIM, AAAI 2021: L2 of one modality, as in the authors' code.

    Example:
      >>> import jax.numpy as jnp
      >>> from clustering_jax.losses import prior_kl
      >>> prior = jnp.array([[0.0, 1.0]])
      >>> print(f"{prior_kl(prior, prior):.3f}, {prior_kl(-prior, prior):.3f}")
      0.000, 0.231
    """
    z, prior = _checked_rows("prior_kl", z, prior)
    log_prior = jax.nn.log_softmax(prior)
    return pmean(jnp.mean(jnp.exp(log_prior) * (log_prior - jax.nn.log_softmax(z))), axis_name)


def gaussian_kl(
    mu: Float[Array, "n d"], sigma: Float[Array, "n d"], *, axis_name: str | None = None
) -> Float[Array, ""]:
    """KL(N(mu, sigma^2) || N(0, I)): the mean over the rows of ``sum_d (mu^2 + sigma^2 - 1) / 2 - log sigma``.

    Args:
      mu: [n, d] means; n, d >= 1.
      sigma: [n, d] standard deviations, > 0. A value below 1e-7 counts as 1e-7, with gradient 0.
      axis_name: mapped axis over which the batch is split.

    Returns:
      Scalar >= 0 up to rounding; 0 for mu = 0 and sigma = 1.

    Raises:
      ValueError: unequal shapes, rank other than 2, empty, or not floating point.

    References:
      Kingma and Welling, Auto-Encoding Variational Bayes, ICLR 2014, appendix B.

    Example:
      >>> import jax.numpy as jnp
      >>> from clustering_jax.losses import gaussian_kl
      >>> print(gaussian_kl(jnp.array([[0.0, 2.0]]), jnp.ones((1, 2))))
      2.0
    """
    mu, sigma = _checked_rows("gaussian_kl", mu, sigma)
    sigma = jnp.maximum(sigma, _MIN_SIGMA)
    return _row_mean((mu * mu + sigma * sigma - 1) / 2 - jnp.log(sigma), axis_name)


def posterior_skl(
    mu_a: Float[Array, "n d"],
    sigma_a: Float[Array, "n d"],
    mu_b: Float[Array, "n d"],
    sigma_b: Float[Array, "n d"],
    *,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Symmetric KL divergence ``(KL(A || B) + KL(B || A)) / 2`` of two posteriors of the same example.

    The posteriors are A = N(mu_a, sigma_a^2) and B = N(mu_b, sigma_b^2). The result is the sum over d and the mean over
    the rows. It is an upper bound of the mean of I(z_a; v_a | v_b) and I(z_b; v_b | v_a), the information that the code
    of one view has and the other view does not.

    Args:
      mu_a: [n, d] means of A; n, d >= 1.
      sigma_a: [n, d] standard deviations of A, > 0. A value below 1e-7 counts as 1e-7, with gradient 0.
      mu_b: [n, d] means of B.
      sigma_b: [n, d] standard deviations of B, like `sigma_a`.
      axis_name: mapped axis over which the batch is split.

    Returns:
      Scalar >= 0; 0 for equal posteriors.

    Raises:
      ValueError: unequal shapes, rank other than 2, empty, or not floating point.

    References:
      Federici et al., Learning Robust Representations via Multi-View Information Bottleneck, ICLR 2020.

    Example:
      >>> import jax.numpy as jnp
      >>> from clustering_jax.losses import posterior_skl
      >>> sigma = jnp.ones((1, 2))
      >>> print(posterior_skl(jnp.zeros((1, 2)), sigma, jnp.array([[0.0, 2.0]]), sigma))
      2.0
    """
    mu_a, sigma_a, mu_b, sigma_b = _checked_rows("posterior_skl", mu_a, sigma_a, mu_b, sigma_b)
    sigma_a, sigma_b = jnp.maximum(sigma_a, _MIN_SIGMA), jnp.maximum(sigma_b, _MIN_SIGMA)
    # The logarithms of both divergences cancel, and the variances reduce to this square.
    scale = sigma_a / sigma_b - sigma_b / sigma_a
    shift = ((mu_a - mu_b) / sigma_a) ** 2 + ((mu_a - mu_b) / sigma_b) ** 2
    return _row_mean((scale * scale + shift) / 4, axis_name)


def _row_mean(x: Array, axis_name: str | None) -> Array:
    return pmean(jnp.mean(jnp.sum(x, axis=1)), axis_name)


def _kept(name: str, where: Array, *arrays: Array) -> list[Array]:
    """Sets the rows outside of `where` to zero, so that their values and gradients have no effect."""
    if jnp.shape(where) != (len(arrays[0]),) or not jnp.issubdtype(jnp.result_type(where), jnp.bool_):
        got = f"{jnp.result_type(where)} {jnp.shape(where)}"
        raise ValueError(f"{name}: needs `where` bool [n], got {got} for {shapes(arrays)}")
    return [jnp.where(jnp.asarray(where)[:, None], x, 0) for x in arrays]


def _checked_pair(name: str, equal: bool, p: Array, q: Array) -> list[Array]:
    """`checked`, and requires that neither array is empty. The numbers of columns may differ unless `equal`."""
    if jnp.ndim(p) != 2 or jnp.ndim(q) != 2 or len(p) != len(q):
        raise ValueError(f"{name}: needs rank 2 and equal lengths, got {shapes((p, q))}")
    if not jnp.size(p) * jnp.size(q):
        raise ValueError(f"{name}: needs one row and column or more, got {shapes((p, q))}")
    return checked(name, p, q) if equal else [*checked(name, p), *checked(name, q)]


def _checked_rows(name: str, *arrays: Array) -> list[Array]:
    """`checked`, and requires that the arrays are not empty, because the mean of an empty array is NaN."""
    rows = checked(name, *arrays)
    if not rows[0].size:
        raise ValueError(f"{name}: needs one row and column or more, got {shapes(arrays)}")
    return rows
