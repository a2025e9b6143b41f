"""CMMC on MNIST-USPS: 5,000 objects with pictures of one digit from MNIST and USPS, 784 pixels each; 10 clusters.

Paper: https://arxiv.org/abs/2106.11193
Expected (published, ACC / NMI): .9966 / .9901, one chosen seed of the released models.
Minutes: about six on 2 CPU cores, estimated from the number of operations.
Command: python -m clustering_jax.main --config=configs/cmmc_mnist_usps.py --workdir=runs/mnist_usps \
  --config.data.path=MNIST_USPS.mat
The path is the .mat file of MFLVC (keys X1, X2, ..., Y), or any file whose keys `--config.data.views` and
`--config.data.label_key` name.
The run trains on and scores all objects. Labels are used for scoring only; `--config.data.label_key=` reads none.
cmmc_mnist_usps:bdcl trains by the losses of BDCL (IJCNN 2025; published .9976 / .9926, one chosen seed).
"""

from clustering_jax.settings import mflvc_or_bdcl


def get_config(variant: str = ""):
    """`variant`: "", "bdcl", or with "smoke" two steps of each stage on generated views: "smoke", "bdcl,smoke"."""
    return mflvc_or_bdcl(
        variant,
        bdcl={"body": "conv", "reconstruction_epochs": 0, "decorrelation_weight": 10.0},
        num_clusters=10,
        epochs=50,
        data={
            "source": "multiview",
            "path": "",
            "views": ("X1", "X2"),
            "label_key": "Y",
            "scaling": "none",
        },
    )
