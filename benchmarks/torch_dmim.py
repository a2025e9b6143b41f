"""DMIM in plain PyTorch for two modalities and full batches, written from the description of the method.

It cross-checks the scores of the published recipe on the planted pairs (HARD).

    python -m benchmarks.torch_dmim [--seeds=5 --epochs=300]
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

FLOOR = 2.22e-16


class Network(nn.Module):
    def __init__(self, d: int, k: int, over: int):
        super().__init__()
        layers = [nn.Linear(d, d), nn.BatchNorm1d(d), nn.ReLU(), nn.Linear(d, d), nn.BatchNorm1d(d), nn.ReLU()]
        self.trunk = nn.Sequential(*layers)
        self.cluster, self.over, self.gauss = nn.Linear(d, k), nn.Linear(d, over), nn.Linear(d, 2 * d)
        for module in self.trunk:
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x):
        h = self.trunk(x)
        mu, spread = self.gauss(h).chunk(2, 1)
        z = mu + (F.softplus(spread) + 1e-7) * torch.randn_like(mu)
        return self.cluster(h).softmax(1), self.over(h).softmax(1), z


def information(p, q):
    joint = p.T @ q
    joint = (joint + joint.T) / 2
    joint = joint / joint.sum()
    a, b = joint.sum(1, keepdim=True).clamp(min=FLOOR), joint.sum(0, keepdim=True).clamp(min=FLOOR)
    joint = joint.clamp(min=FLOOR)
    return (joint * (joint.log() - a.log() - b.log())).sum()


@torch.no_grad()
def balanced(p, power: float = 10.0):
    """Sinkhorn-Knopp to equal clusters, then the argmax."""
    table = (p.double() ** power).T
    k, n = table.shape
    c = torch.full((n, 1), 1 / n, dtype=table.dtype)
    for iteration in range(75):
        r = (1 / k) / (table @ c)
        new = (1 / n) / (r.T @ table).T
        done = iteration % 10 == 0 and (c / new - 1).abs().sum() <= 1e-2
        c = new
        if done:
            break
    return (table * c.T * r).argmax(0)


class Trainer:
    """`steps(count)` runs full-batch steps. `labels()` predicts the clusters from the first modality."""

    def __init__(self, views: list[np.ndarray], k: int, seed: int = 0):
        torch.manual_seed(seed)
        self.views = [torch.from_numpy(np.asarray(v, np.float32)) for v in views]
        self.network = Network(self.views[0].shape[1], k, 10 * k).train()
        self.adam = torch.optim.Adam(self.network.parameters(), lr=5e-4)
        self.epoch = 0

    def steps(self, count: int) -> None:
        for _ in range(count):
            if self.epoch % 5 == 0:
                self.y = balanced(self.network(self.views[0])[0])
            (c, o, z), (c_v, o_v, z_v) = (self.network(x) for x in self.views)
            prior = torch.randn_like(z).softmax(1)
            loss = -information(c, c_v) - information(o, o_v)
            loss = loss + sum((prior * (prior.log() - code.log_softmax(1))).mean() for code in (z, z_v))
            loss = loss + 0.5 * F.cross_entropy(c, self.y)
            self.adam.zero_grad()
            loss.backward()
            self.adam.step()
            self.epoch += 1

    @torch.inference_mode()
    def labels(self) -> np.ndarray:
        self.network.eval()
        clusters = self.network(self.views[0])[0].argmax(1).numpy()
        self.network.train()
        return clusters


def main() -> None:
    """Prints the ACC of each seed."""
    from clustering_jax.data.planted import planted
    from clustering_jax.metrics import scores

    parser = argparse.ArgumentParser("python -m benchmarks.torch_dmim")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=300)
    arguments = parser.parse_args()
    data, accuracies = planted(), []
    for seed in range(arguments.seeds):
        trainer = Trainer([data.features["view0"], data.features["view1"]], 8, seed)
        trainer.steps(arguments.epochs)
        accuracies.append(scores(data.labels, trainer.labels())["acc"])
        print(f"seed {seed}: ACC {accuracies[-1]:.3f}", flush=True)
    print(f"ACC {np.mean(accuracies):.3f} +- {np.std(accuracies):.3f}")


if __name__ == "__main__":
    main()
