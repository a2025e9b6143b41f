"""k-means on the device, nearest neighbours, and criteria for the number of clusters."""

from clustering_jax.kmeans.lloyd import KMeans, assign, kmeans

__all__ = ["KMeans", "assign", "kmeans"]
