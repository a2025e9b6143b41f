"""Information of codes and assignments: mutual information, divergences from a prior, variational bounds.

Everything is in nats and returned as it is named: what is to be maximised enters a loss with a minus sign.
Results are float32 (float64 if an input is). Functions that take `axis_name` are those of the GLOBAL batch,
called per device or not, with the gradients that the docstring of `clustering_jax.losses.contrastive` describes.

Reference: Mao et al., Deep Mutual Information Maximin for Cross-Modal Clustering (DMIM), AAAI 2021.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from clustering_jax.losses.contrastive import _checked, _rescaled, _shapes
from clustering_jax.parallel import pmean, psum
from clustering_jax.typing import Array, Bool, Float

# As in the authors' code: the spacing of float64 at 1, in float32 too.
_FLOOR = 2.22e-16
# Standard deviations below this count as this: DMIM's encoder adds it, and 1 / sigma^3 stays in float32.
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

    J is the joint ``p^T q`` divided by its sum, a and b its marginals; all three are then floored at 2.22e-16,
    so that value and gradient are finite with empty clusters. Devices exchange [k, m] sums only, never rows.

    Args:
      p: [n, k] soft assignments of the first modality, >= 0; n, k >= 1.
      q: [n, m] soft assignments of the second one, row i of the same example as row i of `p`.
      symmetrize: J becomes (J + J^T) / 2, as DMIM has it; needs m = k. The value is then largest for any swap
        of labels in pairs, not for other relabellings of one side.
      axis_name: mapped axis over which the batch is split.
      where: [n] the rows that count, as where a modality is missing; the others may hold anything. With
        no such row the value and its gradient are 0.

    Returns:
      Scalar from 0 (independent; symmetrised, with equal marginals as well) to log min(k, m) (the smaller side a
      function of the other, its clusters of equal weight), up to rounding, 1e-7 in float32.

    Raises:
      ValueError: unequal lengths or, to symmetrise, shapes; rank other than 2, an empty batch, not floating
        point, or a `where` that is not [n] bool.

    References:
      DMIM's L1 is the sum of this, negated, over its two heads. Ji et al., Invariant Information Clustering for
      Unsupervised Image Classification and Segmentation, ICCV 2019, eqs. 2 and 3.
    """
    p, q = _checked_pair("mutual_information", symmetrize, p, q)
    if where is not None:
        p, q = _kept("mutual_information", where, p, q)
    joint = psum(jnp.matmul(p.T, q, precision="highest"), axis_name)
    joint = (joint + joint.T) / 2 if symmetrize else joint
    joint, nonzero = _rescaled(joint, jnp.sum(joint))
    joint = joint / jnp.where(nonzero, jnp.sum(joint), 1)
    tables = joint, jnp.sum(joint, axis=1, keepdims=True), jnp.sum(joint, axis=0, keepdims=True)
    joint, a, b = (jnp.maximum(x, _FLOOR) for x in tables)
    return jnp.sum(joint * (jnp.log(joint) - jnp.log(a) - jnp.log(b)))


def prior_kl(z: Float[Array, "n d"], prior: Float[Array, "n d"], *, axis_name: str | None = None) -> Float[Array, ""]:
    """KL divergence of softmax(z) from softmax(prior), row by row, divided by d: ``mean s (log s - log softmax(z))``.

    With s = softmax(prior), the mean is over all n * d entries, not the n rows.

    Args:
      z: [n, d] samples of the encoder; n, d >= 1.
      prior: [n, d] samples of the prior, N(0, I).
      axis_name: mapped axis over which the batch is split.

    Returns:
      Scalar >= 0, up to rounding; 0 where both are equal but for a constant per row.

    Raises:
      ValueError: unequal shapes, rank other than 2, empty, or not floating point.

    References:
      DMIM's L2 of one modality, in the form of the authors' code.
    """
    z, prior = _checked_rows("prior_kl", z, prior)
    log_prior = jax.nn.log_softmax(prior)
    return pmean(jnp.mean(jnp.exp(log_prior) * (log_prior - jax.nn.log_softmax(z))), axis_name)


def gaussian_kl(
    mu: Float[Array, "n d"], sigma: Float[Array, "n d"], *, axis_name: str | None = None
) -> Float[Array, ""]:
    """KL(N(mu, sigma^2) || N(0, I)): ``sum_d (mu^2 + sigma^2 - 1) / 2 - log sigma``, the mean over rows.

    Args:
      mu: [n, d] means; n, d >= 1.
      sigma: [n, d] standard deviations, > 0; below 1e-7 they count as 1e-7, with gradient 0.
      axis_name: mapped axis over which the batch is split.

    Returns:
      Scalar >= 0, up to rounding; 0 for mu = 0, sigma = 1.

    Raises:
      ValueError: unequal shapes, rank other than 2, empty, or not floating point.

    References:
      Kingma and Welling, Auto-Encoding Variational Bayes, ICLR 2014, appendix B.
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
    """(KL(A || B) + KL(B || A)) / 2 of the posteriors A = N(mu_a, sigma_a^2), B = N(mu_b, sigma_b^2) of one example.

    The sum over d, the mean over rows. It bounds from above what the code of one view holds that the other
    view does not: I(z_a; v_a | v_b) and I(z_b; v_b | v_a), in the mean.

    Args:
      mu_a, mu_b: [n, d] means; n, d >= 1.
      sigma_a, sigma_b: [n, d] standard deviations, > 0; below 1e-7 they count as 1e-7, with gradient 0.
      axis_name: mapped axis over which the batch is split.

    Returns:
      Scalar >= 0; 0 for equal posteriors.

    Raises:
      ValueError: unequal shapes, rank other than 2, empty, or not floating point.

    References:
      Federici et al., Learning Robust Representations via Multi-View Information Bottleneck, ICLR 2020.
    """
    mu_a, sigma_a, mu_b, sigma_b = _checked_rows("posterior_skl", mu_a, sigma_a, mu_b, sigma_b)
    sigma_a, sigma_b = jnp.maximum(sigma_a, _MIN_SIGMA), jnp.maximum(sigma_b, _MIN_SIGMA)
    # Both logarithms cancel; what is left of the variances is this square.
    scale = sigma_a / sigma_b - sigma_b / sigma_a
    shift = ((mu_a - mu_b) / sigma_a) ** 2 + ((mu_a - mu_b) / sigma_b) ** 2
    return _row_mean((scale * scale + shift) / 4, axis_name)


def info_nce(scores: Float[Array, "n n"]) -> Float[Array, ""]:
    """Lower bound of the mutual information: ``log n + mean_i log softmax(scores_i)_i``.

    Args:
      scores: [n, n] critic f(x_i, y_j), x in rows, y in columns, pairs on the diagonal; n >= 2.

    Returns:
      Scalar <= log n, however large the mutual information is; 0 for equal scores.

    Raises:
      ValueError: not square, n < 2, or not floating point.

    References:
      van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018, eq. 4.
      Poole et al., On Variational Bounds of Mutual Information, ICML 2019, I_NCE.
    """
    scores, pairs = _checked_scores("info_nce", scores)
    negatives = jax.nn.logsumexp(jnp.where(pairs, -jnp.inf, scores), axis=1)
    # log softmax without the cancellation that takes the gradient's digits where the pair wins by far.
    return math.log(len(scores)) - jnp.mean(jax.nn.softplus(negatives - jnp.diagonal(scores)))


def nwj(scores: Float[Array, "n n"]) -> Float[Array, ""]:
    """Lower bound of the mutual information: ``mean of f on pairs - mean of exp(f - 1) off them``.

    Unbiased and, unlike `info_nce`, without a ceiling, at the price of a variance that grows exponentially.
    It is tight where f is 1 + log p(x, y) / (p(x) p(y)).

    Args:
      scores: [n, n] critic f(x_i, y_j), x in rows, y in columns, pairs on the diagonal; n >= 2. A score off
        the diagonal above about 89 + 2 log n takes the value to -inf in float32, as the formula has it.

    Returns:
      Scalar; -1 / e for scores of 0, 0 for scores of 1.

    Raises:
      ValueError: not square, n < 2, or not floating point.

    References:
      Nguyen, Wainwright, Jordan, Estimating Divergence Functionals and the Likelihood Ratio by Convex Risk
      Minimization, IEEE Trans. Inf. Theory 2010. Poole et al., ICML 2019, I_NWJ.
    """
    scores, pairs = _checked_scores("nwj", scores)
    n = len(scores)
    # The mean is taken in the exponent; the pairs leave before exp, which may overflow for them.
    exponent = jnp.where(pairs, -jnp.inf, scores - 1 - math.log(n * (n - 1)))
    return jnp.mean(jnp.diagonal(scores)) - jnp.sum(jnp.exp(exponent))


def jsd(scores: Float[Array, "n n"]) -> Float[Array, ""]:
    """Jensen-Shannon estimator: ``mean of -softplus(-f) on pairs - mean of softplus(f) off them``.

    Not a bound of the mutual information in nats: it bounds ``2 JSD - 2 log 2`` from below, JSD being the
    Jensen-Shannon divergence of the joint from the product of its marginals, which grows with the mutual
    information but never exceeds log 2. A quantity to maximise, of small variance, not one to report.

    Args:
      scores: [n, n] critic f(x_i, y_j), x in rows, y in columns, pairs on the diagonal; n >= 2.

    Returns:
      Scalar <= 0; -2 log 2 for scores of 0.

    Raises:
      ValueError: not square, n < 2, or not floating point.

    References:
      Nowozin et al., f-GAN, NeurIPS 2016, the GAN divergence.
      Hjelm et al., Learning Deep Representations by Mutual Information Estimation and Maximization, ICLR 2019, eq. 4.
    """
    scores, pairs = _checked_scores("jsd", scores)
    on_pairs = jnp.mean(jax.nn.softplus(-jnp.diagonal(scores)))
    return -on_pairs - jnp.mean(jax.nn.softplus(scores), where=~pairs)


def _row_mean(x: Array, axis_name: str | None) -> Array:
    return pmean(jnp.mean(jnp.sum(x, axis=1)), axis_name)


def _kept(name: str, where: Array, *arrays: Array) -> list[Array]:
    """`arrays` with zeros, no NaN nor gradient, in the rows that do not count."""
    if jnp.shape(where) != (len(arrays[0]),) or not jnp.issubdtype(jnp.result_type(where), jnp.bool_):
        got = f"{jnp.result_type(where)} {jnp.shape(where)}"
        raise ValueError(f"{name}: needs `where` bool [n], got {got} for {_shapes(arrays)}")
    return [jnp.where(jnp.asarray(where)[:, None], x, 0) for x in arrays]


def _checked_pair(name: str, equal: bool, p: Array, q: Array) -> list[Array]:
    """`_checked`, not empty; columns may differ in number unless `equal`."""
    if jnp.ndim(p) != 2 or jnp.ndim(q) != 2 or len(p) != len(q):
        raise ValueError(f"{name}: needs rank 2 and equal lengths, got {_shapes((p, q))}")
    if not jnp.size(p) * jnp.size(q):
        raise ValueError(f"{name}: needs one row and column or more, got {_shapes((p, q))}")
    return _checked(name, p, q) if equal else [*_checked(name, p), *_checked(name, q)]


def _checked_rows(name: str, *arrays: Array) -> list[Array]:
    """`_checked`, not empty: the mean of nothing is NaN."""
    checked = _checked(name, *arrays)
    if not checked[0].size:
        raise ValueError(f"{name}: needs one row and column or more, got {_shapes(arrays)}")
    return checked


def _checked_scores(name: str, scores: Array) -> tuple[Array, Array]:
    """`_checked` scores, square and 2 or more, and where the pairs are."""
    (checked,) = _checked(name, scores)
    n, m = checked.shape
    if n != m or n < 2:
        raise ValueError(f"{name}: needs [n, n] with n of 2 or more, got {checked.shape}")
    return checked, jnp.eye(n, dtype=bool)
