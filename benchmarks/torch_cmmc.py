"""CMMC in plain PyTorch, the baseline of `benchmarks/multiview_speed.py`, written from the paper.

It is implemented as PyTorch users would: Adam, scikit-learn's k-means, SciPy's matching. Batches are rows of tensors in
memory, without a DataLoader.
"""

from __future__ import annotations

import time
from itertools import chain, combinations, pairwise

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.preprocessing import minmax_scale
from torch import nn

from benchmarks.torch_cc import contrast, imbalance

HIDDEN, LATENT, FEATURES = (500, 500, 2000), 512, 128


def layers(*widths: int) -> nn.Sequential:
    """Linear layers with ReLUs between them."""
    parts = [[nn.Linear(i, o), nn.ReLU()] for i, o in pairwise(widths)]
    return nn.Sequential(*list(chain(*parts))[:-1])


class Network(nn.Module):
    def __init__(self, widths: list[int], k: int):
        super().__init__()
        self.encoders = nn.ModuleList(layers(d, *HIDDEN, LATENT) for d in widths)
        self.decoders = nn.ModuleList(layers(LATENT, *HIDDEN[::-1], d) for d in widths)
        self.feature, self.label = nn.Linear(LATENT, FEATURES), nn.Linear(LATENT, k)

    def encode(self, views):
        return [encoder(x) for encoder, x in zip(self.encoders, views, strict=True)]

    def heads(self, z):
        return [F.normalize(self.feature(each)) for each in z], [self.label(each).softmax(1) for each in z]

    def reconstruction(self, views, z):
        triples = zip(self.decoders, views, z, strict=True)
        return sum(F.mse_loss(decoder(each), x) for decoder, x, each in triples)


def matched(q, pseudo: np.ndarray, k: int):
    """Renames the pseudo-labels to agree best with the argmax of q."""
    table = np.zeros((k, k))
    np.add.at(table, (pseudo, q.detach().argmax(1).numpy()), 1)
    return torch.from_numpy(linear_sum_assignment(table, maximize=True)[1][pseudo])


class Trainer:
    """The three stages. `steps` runs steps of a stage, `targets` computes the pseudo-labels. Both return seconds."""

    def __init__(self, views: list[np.ndarray], batch: int, k: int, restarts: int = 100):
        self.views, self.batch, self.k, self.restarts = [torch.from_numpy(x) for x in views], batch, k, restarts
        self.network = Network([x.shape[1] for x in views], k)
        self.adam = torch.optim.Adam(self.network.parameters(), lr=3e-4)
        self.order = self._batches()

    def steps(self, name: str, count: int) -> float:
        """Runs steps of "reconstruct", "contrast" or, after `targets`, "match"."""
        loss = {"reconstruct": self._reconstruction, "contrast": self._contrast, "match": self._matching}[name]
        began = time.perf_counter()
        for _ in range(count):
            self.adam.zero_grad()
            loss().backward()
            self.adam.step()
        return time.perf_counter() - began

    @torch.no_grad()
    def targets(self) -> float:
        began = time.perf_counter()
        h, _ = self.network.heads(self.network.encode(self.views))
        self.pseudo = [KMeans(self.k, n_init=self.restarts).fit_predict(minmax_scale(x.numpy())) for x in h]
        return time.perf_counter() - began

    def _reconstruction(self):
        views = self._rows()
        return self.network.reconstruction(views, self.network.encode(views))

    def _contrast(self):
        views = self._rows()
        z = self.network.encode(views)
        h, q = self.network.heads(z)
        total = self.network.reconstruction(views, z)
        for v, w in combinations(range(len(views)), 2):
            total = total + contrast(h[v], h[w], 0.5) + imbalance(q[v]) + imbalance(q[w])
            total = total + contrast(F.normalize(q[v].T), F.normalize(q[w].T), 1.0)
        return total

    def _matching(self):
        _, q = self.network.heads(self.network.encode(self.views))
        pairs = zip(q, self.pseudo, strict=True)
        return sum(F.cross_entropy(each, matched(each, pseudo, self.k)) for each, pseudo in pairs)

    def _rows(self):
        index = next(self.order)
        return [x[index] for x in self.views]

    def _batches(self):
        n = len(self.views[0])
        while True:
            order = torch.randperm(n)
            yield from order[: n // self.batch * self.batch].view(-1, self.batch)
