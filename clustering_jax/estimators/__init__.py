"""The methods as scikit-learn estimators: arrays, lists of views or a path in, clusters out; labels never needed.

Each calls what ``python -m clustering_jax.main`` calls. See docs/estimators.md.
"""

from clustering_jax.estimators.contrastive import ContrastiveClustering
from clustering_jax.estimators.features import FeatureClustering
from clustering_jax.estimators.semantic import SemanticClustering
from clustering_jax.estimators.views import CrossModalClustering, MultiViewClustering

__all__ = [
    "ContrastiveClustering",
    "CrossModalClustering",
    "FeatureClustering",
    "MultiViewClustering",
    "SemanticClustering",
]
