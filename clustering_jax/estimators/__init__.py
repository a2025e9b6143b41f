"""The methods as scikit-learn estimators. They take arrays, lists of views or a path, and never need labels.

Each trains what ``python -m clustering_jax.main`` trains. See docs/estimators.md.
"""

from clustering_jax.estimators.contrastive import ContrastiveClustering
from clustering_jax.estimators.cross_modal import CrossModalClustering
from clustering_jax.estimators.features import FeatureClustering
from clustering_jax.estimators.multi_view import MultiViewClustering
from clustering_jax.estimators.semantic import SemanticClustering

__all__ = [
    "ContrastiveClustering",
    "CrossModalClustering",
    "FeatureClustering",
    "MultiViewClustering",
    "SemanticClustering",
]
