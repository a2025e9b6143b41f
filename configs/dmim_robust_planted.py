"""DMIM with a recipe that depends less on the seed, on the planted pairs of dmim_planted.

Paper: https://ojs.aaai.org/index.php/AAAI/article/view/17076
Measured: ACC .95 +- .05 over seeds 0 to 9 (minimum .87). The published recipe has .66 +- .26.
Minutes: under one on 2 CPU cores.
Command: python -m clustering_jax.main --config=configs/dmim_robust_planted.py --workdir=runs/robust
There are three changes to the published recipe. First, the pseudo-labels are computed from the mean assignment of the
modalities, and train it. In this mean only shared classes are certain, while the assignment of the first modality is
most certain about its private classes. Second, the loss is the plain cross-entropy: with softmax applied twice it never
favours certain assignments. Third, this cross-entropy has a fifth of its weight, so that the mutual information has the
largest influence.
"""

from clustering_jax.settings import dmim


def get_config(variant: str = ""):
    """`variant`: "" or "smoke" (two steps on generated views)."""
    return dmim(
        variant,
        num_clusters=8,
        batch_size=0,
        epochs=300,
        kmeans_baseline=True,
        data={"source": "planted", "n": 2000, "shared": 0.7, "private": 1.0, "num_clusters": 8, "seed": 0},
        model={"balanced": "mean", "double_softmax": False, "balance_weight": 0.1},
    )
