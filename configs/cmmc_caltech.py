"""CMMC on Caltech-2V to Caltech-5V: 1,400 pictures with 2 to 5 descriptors, min-max scaled; 7 clusters.

Paper: https://arxiv.org/abs/2106.11193
Expected (published, ACC / NMI, one chosen seed of the released models): 2v .6200 / .5430, 3v .6679 / .5842,
  4v .7843 / .7106, 5v .8621 / .7701.
Minutes: about one for every two views on 2 CPU cores, estimated from the number of operations.
Command: python -m clustering_jax.main --config=configs/cmmc_caltech.py:5v --workdir=runs/caltech_5v \
  --config.data.path=Caltech-5V.mat
The variant is the number of views: 2v (the default), 3v, 4v or 5v. With ",smoke", as in 5v,smoke, it is the smoke run.
The path is the .mat file of MFLVC. The views have the order of the published runs, with widths of 40, 254, 928, 512 and
1,984. The run trains on and scores all objects. Labels are used for scoring only, and
`--config.data.label_key=` reads none.
"""

from clustering_jax.settings import cmmc, split_variant

ORDER = ("X1", "X2", "X5", "X4", "X3")
VIEWS = {f"{count}v": ORDER[:count] for count in (2, 3, 4, 5)}


def get_config(variant: str = ""):
    """`variant`: 2v, 3v, 4v or 5v; "smoke" or "5v,smoke" is two steps of each stage on generated views."""
    name, smoke = split_variant(variant, VIEWS)
    return cmmc(
        smoke,
        num_clusters=7,
        epochs=50,
        data={
            "source": "multiview",
            "path": "",
            "views": VIEWS[name],
            "label_key": "Y",
            "scaling": "minmax",
        },
    )
