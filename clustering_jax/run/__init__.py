"""One run: from a config to a finished workdir."""

from clustering_jax.run.streams import CHOSEN, chosen_clusters, load_streams, with_embeddings
from clustering_jax.run.training import train

__all__ = ["CHOSEN", "chosen_clusters", "load_streams", "train", "with_embeddings"]
