"""Small estimators, which scikit-learn's checks fit about eighty times each, and data for other tests."""

import numpy as np
from sklearn.base import clone

from clustering_jax.data.images.folder import synthetic
from clustering_jax.data.planted import planted, planted_embeddings
from clustering_jax.estimators import (
    ContrastiveClustering,
    CrossModalClustering,
    FeatureClustering,
    MultiViewClustering,
    SemanticClustering,
)

# The three blobs need this number of epochs. A batch of a prime number of rows uses one device and compiles faster.
COMMON = {"epochs": 60, "batch_size": 19, "random_state": 0}
VIEW_SETTINGS = {
    "model.hidden": (32,),
    "model.latent_dim": 16,
    "model.feature_dim": 8,
    "model.matching_steps": 0,
    "run.evaluate_every": 0,
}
WORD_SETTINGS = {
    "model.hidden": 64,
    "model.instance_dim": 16,
    "model.neighbours": 10,
    "model.center_restarts": 2,
    "run.evaluate_every": 0,
}
MULTIVIEW = MultiViewClustering(2, reconstruction_epochs=0, learning_rate=0.01, settings=VIEW_SETTINGS, **COMMON)
CROSSMODAL = CrossModalClustering(2, learning_rate=0.01, settings={"run.evaluate_every": 0}, **COMMON)
SEMANTIC = SemanticClustering(2, settings=WORD_SETTINGS, **COMMON)
HEAD_SETTINGS = {"model.inner_learning_rate": 0.1}
TEMI_SETTINGS = {
    "model.heads": 2,
    "model.hidden": 64,
    "model.width": 32,
    "model.neighbours": 10,
    "model.teacher_decay": 0.9,
    "model.warmup_epochs": 0,
    "run.evaluate_every": 0,
}
TURTLE = FeatureClustering(2, learning_rate=0.01, settings=HEAD_SETTINGS, **COMMON)
TEMI = FeatureClustering(2, head="temi", learning_rate=0.003, settings=TEMI_SETTINGS, **COMMON)

# All rows are one batch with a prime number of rows, see above.
N, K = 47, 3
PAIRS = planted(N, num_clusters=K, width=6, private=0.0)
VIEWS = [PAIRS.features["view0"], PAIRS.features["view1"]]
BOTH = np.concatenate(VIEWS, axis=1)
FOUND = planted_embeddings(N, num_clusters=K, width=8, num_nouns=12)
ROWS, WORDS_OF = FOUND.features["image"], FOUND.vocabulary
IMAGES = synthetic(n=31, size=8, num_clusters=2)
CC = ContrastiveClustering(
    2, image_size=8, epochs=1, random_state=0, settings={"model.width": 4, "run.evaluate_every": 0}
)


def three(estimator, **params):
    """Returns a copy of the estimator with three clusters and all rows in one batch."""
    return clone(estimator).set_params(n_clusters=K, batch_size=None, **params)
