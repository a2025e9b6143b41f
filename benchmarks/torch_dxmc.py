"""DXMC after embedding in plain PyTorch and faiss: the baseline of `benchmarks.semantic_speed`."""

from __future__ import annotations

import time

import faiss
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.torch_cc import contrast

TEMPERATURE, ENTROPY, PER_CENTER, NEIGHBOURS = 0.005, 5.0, 5, 50


def kept_nouns(image: np.ndarray, nouns: np.ndarray, centers: int, restarts: int) -> np.ndarray:
    """Row numbers of the selected nouns, by spherical k-means with 300 iterations."""
    settings = {"niter": 300, "nredo": restarts, "spherical": True, "max_points_per_centroid": len(image)}
    search = faiss.Kmeans(image.shape[1], centers, **settings)
    search.train(image)
    own = torch.from_numpy(search.index.search(image, 1)[1][:, 0])
    means = F.normalize(torch.zeros(centers, image.shape[1]).index_add_(0, own, torch.from_numpy(image)))
    chance = (means @ torch.from_numpy(nouns).T).softmax(0)
    certainty, center = chance.max(0)
    kept = []
    for number in range(centers):
        inside = torch.nonzero(center == number)[:, 0]
        kept.append(inside[certainty[inside].argsort(descending=True)[:PER_CENTER]])
    return torch.cat(kept).numpy()


def retrieve(image: np.ndarray, nouns: np.ndarray) -> np.ndarray:
    """Computes the text counterparts."""
    words = torch.from_numpy(nouns)
    parts = [(rows @ words.T / TEMPERATURE).softmax(1) @ words for rows in torch.from_numpy(image).split(2048)]
    return F.normalize(torch.cat(parts)).numpy()


def neighbours(rows: np.ndarray) -> np.ndarray:
    """Row numbers of the neighbours [n, 50]."""
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    return index.search(rows, NEIGHBOURS + 1)[1][:, 1:]


def cluster_head(width: int, k: int) -> nn.Sequential:
    """A cluster head with the published initialisation."""
    head = nn.Sequential(nn.Linear(width, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, k), nn.Softmax(1))
    for layer in (head[0], head[3]):
        nn.init.trunc_normal_(layer.weight, std=0.02)
    return head


class Trainer:
    """Training steps on prepared rows."""

    def __init__(self, image: np.ndarray, text: np.ndarray, partners: dict[str, np.ndarray], batch: int, k: int):
        self.rows = {"image": torch.from_numpy(image), "text": torch.from_numpy(text)}
        self.partners = {name: torch.from_numpy(rows) for name, rows in partners.items()}
        self.batch = batch
        width = image.shape[1]
        self.cluster = nn.ModuleDict({name: cluster_head(width, k) for name in self.rows})
        layers = {name: nn.Sequential(nn.Linear(width, 512), nn.ReLU(), nn.Linear(512, 1024)) for name in self.rows}
        self.instance = nn.ModuleDict(layers)
        parameters = [*self.cluster.parameters(), *self.instance.parameters()]
        self.adam = torch.optim.Adam(parameters, 1e-3, betas=(0.9, 0.99))
        self.order = torch.randperm(len(image))

    def steps(self, count: int) -> float:
        """Seconds of `count` steps."""
        began = time.perf_counter()
        for step in range(count):
            index = self.order[(step * self.batch) % (len(self.order) - self.batch) :][: self.batch]
            value = self._loss(index)
            self.adam.zero_grad()
            value.backward()
            self.adam.step()
        return time.perf_counter() - began

    def _loss(self, index: torch.Tensor) -> torch.Tensor:
        x = {name: rows[index] for name, rows in self.rows.items()}
        c = {name: self.cluster[name](rows) for name, rows in x.items()}
        column = torch.randint(NEIGHBOURS, (2, len(index)))
        draws = zip(self.rows, column, strict=True)
        near = {name: self.cluster[name](self.rows[name][self.partners[name][index, i]]) for name, i in draws}
        pairs = (c["image"], near["text"]), (c["text"], near["image"])
        crossed = sum(contrast(F.normalize(p.T), F.normalize(q.T), 0.5) for p, q in pairs)
        g = [self.instance[name](x[name]) for name in ("text", "image")]
        balance = sum((p.mean(0).clamp(min=1e-9) * p.mean(0).clamp(min=1e-9).log()).sum() for p in c.values())
        return crossed + contrast(*g, 0.05) + ENTROPY * balance
