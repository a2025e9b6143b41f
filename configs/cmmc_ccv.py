"""CMMC on CCV: 6,773 videos, described by STIP, SIFT and MFCC words (5,000, 5,000, 4,000); 20 clusters.

Paper: https://arxiv.org/abs/2106.11193
Expected (published, ACC / NMI): .3166 / .3124, one chosen seed of the released models.
Minutes: about an hour on 2 CPU cores, or one to two minutes on a GPU, both estimated from the number of operations.
Command: python -m clustering_jax.main --config=configs/cmmc_ccv.py --workdir=runs/ccv \
  --config.data.path=CCV/
The path is a folder with the three arrays and the labels as files, as in MFLVC.
The run trains on and scores all objects. Labels are used for scoring only; `--config.data.label_key=` reads none.
cmmc_ccv:bdcl trains by the losses of BDCL (IJCNN 2025; published .3297 / .3234, one chosen seed).
"""

from clustering_jax.settings import mflvc_or_bdcl


def get_config(variant: str = ""):
    """`variant`: "", "bdcl", or with "smoke" two steps of each stage on generated views: "smoke", "bdcl,smoke"."""
    return mflvc_or_bdcl(
        variant,
        bdcl={},
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
