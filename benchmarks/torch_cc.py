"""CC in plain PyTorch, the baseline of `benchmarks/training.py`, written from the paper.

It is implemented as PyTorch users would: PIL augmentation in DataLoader workers, torchvision's ResNet18, Adam.
"""

from __future__ import annotations

import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import models, transforms


def pipeline(size: int, strength: float) -> transforms.Compose:
    """The augmentation of one view in the paper, on PIL images."""
    jitter = transforms.ColorJitter(*[0.8 * strength] * 3, 0.2 * strength)
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([jitter], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.ToTensor(),
        ]
    )


class Images(Dataset):
    """A data set of uint8 images that are converted to PIL. `transform` is applied `views` times."""

    def __init__(self, images: np.ndarray, transform, views: int):
        self.images, self.transform, self.views = images, transform, views

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int):
        image = transforms.functional.to_pil_image(self.images[i])
        return [self.transform(image) for _ in range(self.views)]


class Network(nn.Module):
    def __init__(self, k: int):
        super().__init__()
        self.encoder = models.resnet18()
        self.encoder.fc = nn.Identity()
        self.instance = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 128))
        self.cluster = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, k))

    def forward(self, x):
        h = self.encoder(x)
        return F.normalize(self.instance(h)), self.cluster(h).softmax(1)


def contrast(a, b, temperature: float):
    """NT-Xent over the rows of both views, which have length 1."""
    rows = torch.cat([a, b])
    n = len(rows)
    scores = (rows @ rows.T / temperature).masked_fill(torch.eye(n, dtype=torch.bool), float("-inf"))
    return F.cross_entropy(scores, torch.arange(n).roll(n // 2))


def imbalance(p):
    mean = p.mean(0)
    return np.log(p.shape[1]) + (mean * mean.log()).sum()


def loss(network, a, b):
    (z_a, c_a), (z_b, c_b) = network(a), network(b)
    clusters = contrast(F.normalize(c_a.T), F.normalize(c_b.T), 1.0)
    return contrast(z_a, z_b, 0.5) + clusters + imbalance(c_a) + imbalance(c_b)


def trainer(images: np.ndarray, size: int, batch: int, k: int = 10, workers: int = 2):
    """Returns ``run(steps) -> seconds`` of whole training steps, including data loading and augmentation."""
    network = Network(k).train()
    adam = torch.optim.Adam(network.parameters(), lr=3e-4)
    data = Images(images, pipeline(size, 0.5), 2)
    loader = DataLoader(data, batch, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=True)

    def batches():
        while True:
            yield from loader

    stream = batches()

    def run(steps: int) -> float:
        began = time.perf_counter()
        for _ in range(steps):
            a, b = next(stream)
            value = loss(network, a, b)
            adam.zero_grad()
            value.backward()
            adam.step()
        return time.perf_counter() - began

    return run


def predictor(images: np.ndarray, size: int, batch: int, k: int = 10, workers: int = 2):
    """Returns ``run() -> seconds``, which assigns all images."""
    network = Network(k).eval()
    transform = transforms.Compose([transforms.Resize((size, size)), transforms.ToTensor()])
    loader = DataLoader(Images(images, transform, 1), batch, num_workers=workers, persistent_workers=True)

    @torch.inference_mode()
    def run() -> float:
        began = time.perf_counter()
        for (x,) in loader:
            network(x)[1].argmax(1).numpy()
        return time.perf_counter() - began

    return run
