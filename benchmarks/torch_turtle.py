"""TURTLE in plain PyTorch for one feature space and batches of all rows, written from the description of the method."""

from __future__ import annotations

import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm


class Trainer:
    """Trains one seed on rows [n, d] as they are.

    Args:
      rows: float32 [n, d].
      k: number of clusters.
      inner: Adam steps of the inner classifier.
      rate: learning rate of both levels.
      gamma: weight of the balance.
    """

    def __init__(self, rows: np.ndarray, k: int, inner: int = 10, rate: float = 1e-3, gamma: float = 10.0):
        torch.manual_seed(0)
        self.x, self.k, self.inner, self.rate, self.gamma = torch.from_numpy(rows), k, inner, rate, gamma
        self.encoder = weight_norm(nn.Linear(rows.shape[1], k))
        self.adam = torch.optim.Adam(self.encoder.parameters(), rate)

    def steps(self, count: int) -> float:
        """Seconds of `count` outer steps."""
        began = time.perf_counter()
        for _ in range(count):
            self._step()
        return time.perf_counter() - began

    def _step(self) -> None:
        tau = self.encoder(self.x).softmax(1)
        classifier = nn.Linear(self.x.shape[1], self.k)
        adam = torch.optim.Adam(classifier.parameters(), self.rate)
        for _ in range(self.inner):
            adam.zero_grad()
            F.cross_entropy(classifier(self.x), tau.detach()).backward()
            adam.step()
        with torch.no_grad():
            logits = classifier(self.x)
        mean = tau.mean(0)
        loss = F.cross_entropy(logits, tau) + self.gamma * (mean * mean.log()).sum()
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
