"""Settings of DMIM, `clustering_jax.methods.dmim`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

from ml_collections import ConfigDict

from clustering_jax.settings.base import Optimizer, Run, is_smoke, new_config
from clustering_jax.settings.validate import NonNegativeFloat, PositiveFloat, PositiveInt, nearest_of


class DMIM(NamedTuple):
    """Keys of the group `model` for DMIM. The defaults are those of the first author's demonstration on NUS-WIDE."""

    # Width of the second clustering head, in multiples of the number of clusters, 1 or more.
    over_clusters: PositiveInt = 10
    # Weight of `cluster`, the mutual information of the assignments to clusters (L1).
    cluster_weight: float = 1.0
    # Weight of `over`, the mutual information of the assignments to over-clusters (L1).
    over_weight: float = 1.0
    # Weight of `superfluous`, the divergence from the prior (L2); 0 leaves the term out.
    superfluous_weight: float = 1.0
    # Weight of `balance`, the cross-entropy with balanced labels (L3); 0 leaves the term and its labels out.
    balance_weight: float = 0.5
    # Assignments that L3 balances: those of the "first" modality, or the "mean" over the modalities that a row has.
    balanced: Annotated[str, nearest_of("first", "mean")] = "first"
    # Expected shares of the clusters, which the labels of L3 have: "uniform", as published; "learnt" shares follow the
    # assignments; or one positive number for each cluster, as text with commas, "5,3,2". L1 stays as it is.
    prior: str | Sequence[float] = "uniform"
    # Apply softmax to the assignments once more in the cross-entropy of L3.
    double_softmax: bool = True
    # Exponent of the assignments when labels are drawn, above 0. With a larger one the labels stay closer to the
    # certain assignments.
    power: PositiveFloat = 10.0
    # Epochs between two draws of the labels, 1 or more.
    refresh_epochs: PositiveInt = 5
    # Standard deviation of the initial weights of the three heads, with biases 0. At 0 both are uniform, as PyTorch
    # draws them. The authors' paper has 0.02, see the manual.
    head_std: NonNegativeFloat = 0.0
    # Assignments that are predicted: those of the "first" modality, with 1/k for rows without it, or "aligned_mean",
    # the mean over the modalities that a row has, with clusters renamed to those of the first modality.
    prediction: Annotated[str, nearest_of("first", "aligned_mean")] = "first"
    # Each step takes all rows; False takes batches of `batch_size` rows, which should be many more than
    # `over_clusters * num_clusters`.
    full_batch: bool = True


OPTIMIZER = Optimizer(learning_rate=5e-4)
RUN = Run(evaluate_every=50, checkpoint_every=100)


def dmim(variant: str = "", **changes: Any) -> ConfigDict:
    """DMIM as in the authors' demonstration, for `configs/dmim_*.py`: each epoch is one step on all rows.

    Args:
      variant: "", or "smoke" for two steps on small generated views.
      changes: keys that differ from the defaults, see `new_config`.

    Returns:
      The config.

    Raises:
      UserError: an unknown variant.
    """
    config = new_config("dmim", changes, epochs=500, model=DMIM(), optimizer=OPTIMIZER, run=RUN)
    if is_smoke(variant):
        n = 2 * max(8, config.num_clusters)
        config.batch_size, config.epochs = (n, 2) if config.model.full_batch else (n // 2, 1)
        config.run.log_every = 1
        config.data = ConfigDict({"source": "planted", "n": n})
    return config
