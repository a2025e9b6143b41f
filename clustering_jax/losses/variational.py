"""Variational bounds of the mutual information, from the scores of a critic.

All results are float32 (float64 if the scores are float64). Each function returns the quantity to maximise, so it
enters a loss with a minus sign.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from clustering_jax.losses.checks import checked
from clustering_jax.typing import Array, Float


def info_nce(scores: Float[Array, "n n"]) -> Float[Array, ""]:
    """InfoNCE lower bound of the mutual information: ``log n + mean_i log softmax(scores_i)_i``.

    Args:
      scores: [n, n] values of the critic f(x_i, y_j), with positive pairs on the diagonal; n >= 2.

    Returns:
      Scalar <= log n, however large the mutual information is; 0 for equal scores.

    Raises:
      ValueError: not square, n < 2, or not floating point.

    References:
      van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018, eq. 4.
      Poole et al., On Variational Bounds of Mutual Information, ICML 2019, I_NCE.

    Example:
      >>> import jax.numpy as jnp
      >>> from clustering_jax.losses import info_nce
      >>> print(f"{info_nce(100 * jnp.eye(4)):.3f}")  # log 4
      1.386
    """
    scores, pairs = _checked_scores("info_nce", scores)
    negatives = jax.nn.logsumexp(jnp.where(pairs, -jnp.inf, scores), axis=1)
    # Equal to log softmax, but its gradient does not suffer from cancellation if the score of the pair is far larger.
    return math.log(len(scores)) - jnp.mean(jax.nn.softplus(negatives - jnp.diagonal(scores)))


def nwj(scores: Float[Array, "n n"]) -> Float[Array, ""]:
    """NWJ lower bound of the mutual information: mean of f over the pairs - mean of exp(f - 1) over all other entries.

    It is unbiased and, unlike `info_nce`, has no upper limit, but its variance grows exponentially with the mutual
    information. It is tight if f is 1 + log(p(x, y) / (p(x) p(y))).

    Args:
      scores: [n, n] values of the critic f(x_i, y_j), with positive pairs on the diagonal; n >= 2. If a score off the
        diagonal exceeds about 89 + 2 log n, the result is -inf in float32, because exp overflows.

    Returns:
      Scalar; -1 / e for scores of 0, 0 for scores of 1.

    Raises:
      ValueError: not square, n < 2, or not floating point.

    References:
      - Nguyen, Wainwright and Jordan, Estimating Divergence Functionals and the Likelihood Ratio by Convex Risk
        Minimization, IEEE Transactions on Information Theory 2010.
      - Poole et al., On Variational Bounds of Mutual Information, ICML 2019, I_NWJ.

    Example:
      >>> import jax.numpy as jnp
      >>> from clustering_jax.losses import nwj
      >>> print(f"{nwj(jnp.zeros((3, 3))):.3f}")  # -1 / e
      -0.368
    """
    scores, pairs = _checked_scores("nwj", scores)
    n = len(scores)
    # The mean is taken in the exponent. The pairs are excluded before exp, which could overflow for them.
    exponent = jnp.where(pairs, -jnp.inf, scores - 1 - math.log(n * (n - 1)))
    return jnp.mean(jnp.diagonal(scores)) - jnp.sum(jnp.exp(exponent))


def jsd(scores: Float[Array, "n n"]) -> Float[Array, ""]:
    """Jensen-Shannon estimator: mean of -softplus(-f) over the pairs - mean of softplus(f) over all other entries.

    It is a lower bound of ``2 JSD - 2 log 2``. Here JSD is the Jensen-Shannon divergence between the joint distribution
    and the product of its marginals. JSD grows with the mutual information but never exceeds log 2. So this is not a
    bound of the mutual information. Because of its small variance it is a good objective to maximise, but do not report
    it as an estimate.

    Args:
      scores: [n, n] values of the critic f(x_i, y_j), with positive pairs on the diagonal; n >= 2.

    Returns:
      Scalar <= 0; -2 log 2 for scores of 0.

    Raises:
      ValueError: not square, n < 2, or not floating point.

    References:
      Nowozin et al., f-GAN, NeurIPS 2016, the GAN divergence.
      Hjelm et al., Learning Deep Representations by Mutual Information Estimation and Maximization, ICLR 2019, eq. 4.

    Example:
      >>> import jax.numpy as jnp
      >>> from clustering_jax.losses import jsd
      >>> print(f"{jsd(jnp.zeros((3, 3))):.3f}")  # -2 log 2
      -1.386
    """
    scores, pairs = _checked_scores("jsd", scores)
    on_pairs = jnp.mean(jax.nn.softplus(-jnp.diagonal(scores)))
    return -on_pairs - jnp.mean(jax.nn.softplus(scores), where=~pairs)


def _checked_scores(name: str, scores: Array) -> tuple[Array, Array]:
    """Checks that the scores are [n, n] with n >= 2. Returns them and the mask of the positive pairs, bool [n, n]."""
    (scores,) = checked(name, scores)
    n, m = scores.shape
    if n != m or n < 2:
        raise ValueError(f"{name}: needs [n, n] with n of 2 or more, got {scores.shape}")
    return scores, jnp.eye(n, dtype=bool)
