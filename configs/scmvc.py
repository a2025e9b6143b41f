"""SCMVC on BDGP, MNIST-USPS, CCV, Fashion and Caltech-5V: features of all views, fused by contrast, then k-means.

Paper: https://doi.org/10.1109/TMM.2024.3387298
Expected (published, ACC / NMI): bdgp .992 / .975, mnist_usps .997 / .990, ccv .400 / .336, fashion .995 / .986,
  caltech_5v .919 / .867. These are the best epochs of one seed for each set, chosen by the labels. Here the last step
  is scored.
Minutes: four on bdgp on 2 CPU cores; beside other jobs, 25 on mnist_usps and 70 on fashion.
Command: python -m clustering_jax.main --config=configs/scmvc.py:bdgp --workdir=runs/scmvc_bdgp \
  --config.data.path=BDGP.mat
The variant is the data set: bdgp (the default), mnist_usps, ccv, fashion or caltech_5v. With ",smoke", as in ccv,smoke,
it is the smoke run. The path is the .mat file of MFLVC (keys X1, X2, ..., Y) or, for ccv, its folder of arrays. Any
other file works, if `--config.data.views` and `--config.data.label_key` name its keys.
The run trains on and scores all objects. Labels are used for scoring only; `--config.data.label_key=` reads none.
"""

from clustering_jax.settings import scmvc, split_variant

TWO, THREE = ("X1", "X2"), ("X1", "X2", "X3")
# Clusters, epochs of the contrastive stage, views, scaling.
SETS = {
    "bdgp": (5, 10, TWO, "none"),
    "mnist_usps": (10, 50, TWO, "none"),
    "ccv": (20, 50, ("STIP.npy", "SIFT.npy", "MFCC.npy"), ("minmax", "none", "none")),
    "fashion": (10, 50, THREE, "none"),
    "caltech_5v": (7, 100, ("X1", "X2", "X5", "X4", "X3"), "minmax"),
}


def get_config(variant: str = ""):
    """`variant`: a key of `SETS`; "smoke" or "ccv,smoke" is two steps of each stage on generated views."""
    name, smoke = split_variant(variant, SETS)
    num_clusters, epochs, views, scaling = SETS[name]
    label_key = "label.npy" if name == "ccv" else "Y"
    data = {"source": "multiview", "path": "", "views": views, "label_key": label_key, "scaling": scaling}
    return scmvc(smoke, num_clusters=num_clusters, epochs=epochs, data=data)
