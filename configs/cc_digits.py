"""CC on scikit-learn's 1,797 handwritten digits (8x8 pixels, nothing to download).

Paper: https://arxiv.org/abs/2009.09687
Command: python -m clustering_jax.main --config=configs/cc_digits.py --workdir=runs/digits
Trained and scored on the same images; labels are for scoring alone.
"""

from clustering_jax.defaults import cc


def get_config(variant: str = ""):
    """`variant`: "" or "smoke" (two steps on generated images)."""
    return cc(
        variant,
        num_clusters=10,
        batch_size=256,
        epochs=60,
        kmeans_baseline=True,
        data={"source": "digits"},
        model={"backbone": "resnet18", "stem": "small", "width": 16, "image_size": 16},
        augment={
            "kind": "digits",
            "degrees": 15.0,
            "translate": 0.1,
            "affine_scale": (0.8, 1.2),
            "shear": 10.0,
        },
        optimizer={"learning_rate": 1e-3},
        run={"log_every": 7, "evaluate_every": 10, "checkpoint_every": 10},
    )
