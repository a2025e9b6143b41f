"""CMMC on CCV: 6,773 videos by their STIP, SIFT and MFCC words (5,000, 5,000, 4,000); 20 clusters.

Paper: https://arxiv.org/abs/2106.11193
Expected (published, ACC / NMI): .3166 / .3124, one chosen seed of the released models.
Minutes: about an hour on 2 CPU cores by its operations; a GPU's minute or two.
Command: python -m clustering_jax.main --config=configs/cmmc_ccv.py --workdir=runs/ccv \
  --config.data.path=CCV/
Its three arrays and its labels are files of a folder, as MFLVC's.
Trained and scored on all objects; labels are for scoring alone, `--config.data.label_key=` reads none.
"""

from clustering_jax.settings import cmmc


def get_config(variant: str = ""):
    """`variant`: "" or "smoke" (two steps of each stage on generated views)."""
    return cmmc(
        variant,
        num_clusters=20,
        epochs=50,
        data={
            "source": "multiview",
            "path": "",
            "views": ("STIP.npy", "SIFT.npy", "MFCC.npy"),
            "label_key": "label.npy",
            "scaling": ("minmax", "none", "none"),
        },
    )
