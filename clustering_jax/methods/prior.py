"""The setting `model.prior`: which shares of the rows the clusters are expected to have.

The published methods pull the mean assignment towards equal shares. Other shares replace the uniform distribution in
the same term. "learnt" shares follow the assignments: they are a running mean of the mean assignments, mixed with a
little of the uniform distribution. The pull towards equal shares is then strong at the start and fades, and a cluster
can be small but is pulled back from being empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from clustering_jax.errors import UserError
from clustering_jax.typing import Array

# Of the running mean of the mean assignments, per step: it covers about the last hundred steps.
DECAY = 0.99
# Part of the uniform distribution in learnt shares: an empty cluster is expected to have a tenth of an equal share.
SMOOTHING = 0.1


class Prior(NamedTuple):
    """The expected shares of the clusters.

    Attributes:
      kind: "uniform", "shares", "learnt" or "none".
      log_shares: logarithms of the given shares [k]; None for the other kinds.
    """

    kind: str
    log_shares: np.ndarray | None = None

    def initial(self, *shape: int) -> dict[str, Any]:
        """The collection that a method adds to its variables.

        Args:
          shape: [..., k]; leading dimensions are several priors side by side.

        Returns:
          ``{"prior": {"mean": [..., k]}}`` with equal shares for learnt shares, otherwise nothing.
        """
        return {"prior": {"mean": jnp.full(shape, 1 / shape[-1])}} if self.kind == "learnt" else {}

    def log(self, variables: Mapping[str, Any]) -> Any:
        """Logarithms of the expected shares [..., k]; None for equal shares, and for the kind "none".

        Args:
          variables: the variables of the method.
        """
        if self.kind != "learnt":
            return self.log_shares
        mean = lax.stop_gradient(variables["prior"]["mean"])
        return jnp.log((1 - SMOOTHING) * mean + SMOOTHING / mean.shape[-1])

    def updated(self, variables: Mapping[str, Any], mean: Array) -> dict[str, Any]:
        """The collection after a step.

        Args:
          variables: the variables before the step.
          mean: mean assignment of the batch, [..., k].

        Returns:
          As `initial`.
        """
        if self.kind != "learnt":
            return {}
        moved = DECAY * variables["prior"]["mean"] + (1 - DECAY) * lax.stop_gradient(mean)
        return {"prior": {"mean": moved / moved.sum(-1, keepdims=True)}}


UNIFORM = Prior("uniform")


def prior_of(setting: str | Sequence[float], k: int, *, none: bool = False) -> Prior:
    """Reads the setting `model.prior`.

    Args:
      setting: "uniform", "learnt", or k numbers above 0, as a sequence or as text with commas.
      k: number of clusters.
      none: whether "none" is allowed too.

    Raises:
      UserError: another value.
    """
    kinds = ["uniform", "learnt", *(["none"] if none else [])]
    if setting in kinds:
        return Prior(str(setting))
    try:
        shares = np.array(setting.split(",") if isinstance(setting, str) else setting, np.float64)
    except ValueError:
        shares = np.zeros(0)
    if shares.shape != (k,) or not (np.isfinite(shares) & (shares > 0)).all():
        choices = f"{', '.join(kinds)}, or {k} numbers above 0, one for each cluster"
        raise UserError(f"model.prior is {setting!r}: choose {choices}")
    return Prior("shares", np.log(shares / shares.sum()).astype(np.float32))
