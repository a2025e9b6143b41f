"""CMMC on Caltech-4V: 1,400 pictures in 4 descriptors (40, 254, 928, 512 wide), min-max scaled; 7 clusters.

Paper: https://arxiv.org/abs/2106.11193
Expected (published, ACC / NMI): .7843 / .7106, one chosen seed of the released models.
Minutes: about one for every two views on 2 CPU cores, by its operations.
Command: python -m clustering_jax.main --config=configs/cmmc_caltech_4v.py --workdir=runs/caltech_4v \
  --config.data.path=Caltech-5V.mat
The path is MFLVC's own .mat, whose views are taken in the order of the published runs.
Trained and scored on all objects; labels are for scoring alone, `--config.data.label_key=` reads none.
"""

from clustering_jax.settings import cmmc


def get_config(variant: str = ""):
    """`variant`: "" or "smoke" (two steps of each stage on generated views)."""
    return cmmc(
        variant,
        num_clusters=7,
        epochs=50,
        data={
            "source": "multiview",
            "path": "",
            "views": ("X1", "X2", "X5", "X4"),
            "label_key": "Y",
            "scaling": "minmax",
        },
    )
