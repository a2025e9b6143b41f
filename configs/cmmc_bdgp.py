"""CMMC on BDGP: 2,500 drosophila embryos with 1,750 visual and 79 textual features; 5 clusters.

Paper: https://arxiv.org/abs/2106.11193
Expected (published, ACC / NMI): .9908 / .9702, one chosen seed of the released models.
Minutes: two to three on 2 CPU cores.
Command: python -m clustering_jax.main --config=configs/cmmc_bdgp.py --workdir=runs/bdgp \
  --config.data.path=BDGP.mat
The path is the .mat file of MFLVC (keys X1, X2, ..., Y), or any file whose keys `--config.data.views` and
`--config.data.label_key` name.
The run trains on and scores all objects. Labels are used for scoring only; `--config.data.label_key=` reads none.
cmmc_bdgp:bdcl trains by the losses of BDCL (IJCNN 2025; published .9936 / .9799, one chosen seed).
"""

from clustering_jax.settings import mflvc_or_bdcl


def get_config(variant: str = ""):
    """`variant`: "", "bdcl", or with "smoke" two steps of each stage on generated views: "smoke", "bdcl,smoke"."""
    return mflvc_or_bdcl(
        variant,
        bdcl={},
        num_clusters=5,
        epochs=10,
        data={
            "source": "multiview",
            "path": "",
            "views": ("X1", "X2"),
            "label_key": "Y",
            "scaling": "none",
        },
    )
