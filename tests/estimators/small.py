"""The estimators that take one array [n, d], small enough for scikit-learn's checks to fit each some eighty times."""

from clustering_jax.estimators import CrossModalClustering, MultiViewClustering, SemanticClustering

# As long as its three blobs need. Batches of a prime number of rows stay on one device, which compiles sooner.
COMMON = {"epochs": 60, "batch_size": 19, "random_state": 0}
VIEWS = {
    "model.hidden": (32,),
    "model.latent_dim": 16,
    "model.feature_dim": 8,
    "model.matching_steps": 0,
    "run.evaluate_every": 0,
}
WORDS = {
    "model.hidden": 64,
    "model.instance_dim": 16,
    "model.neighbours": 10,
    "model.center_restarts": 2,
    "run.evaluate_every": 0,
}
MULTIVIEW = MultiViewClustering(2, reconstruction_epochs=0, learning_rate=0.01, settings=VIEWS, **COMMON)
CROSSMODAL = CrossModalClustering(2, learning_rate=0.01, settings={"run.evaluate_every": 0}, **COMMON)
SEMANTIC = SemanticClustering(2, settings=WORDS, **COMMON)
