"""CC in PyTorch on the same device, for comparison.

`loader` is the published pipeline: Pillow augmentation in one worker for each core, float32, plain modules. `best` is
the fastest form that we know: data and augmentation on the GPU, channels_last, bfloat16 autocast, torch.compile, fused
Adam. Both compute batch statistics as CC does, with one forward pass for each view.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from benchmarks.accelerator.parts import Context

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Network, stem, pixels, batch, number of timed steps.
CASES = {"r18": ("resnet18", "small", 32, 512, 200), "r34": ("resnet34", "imagenet", 224, 256, 60)}


class Network(nn.Module):
    """Encoder, instance head and cluster head."""

    def __init__(self, name: str, stem: str, k: int = 10):
        super().__init__()
        from torchvision import models

        self.encoder = getattr(models, name)()
        if stem == "small":
            self.encoder.conv1, self.encoder.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
        self.encoder.fc = nn.Identity()
        self.instance = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 128))
        self.cluster = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, k))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = self.encoder(x).float()
        return F.normalize(self.instance(h)), self.cluster(h).softmax(1)


def contrast(a: torch.Tensor, b: torch.Tensor, temperature: float) -> torch.Tensor:
    """NT-Xent of two arrays [n, d]."""
    rows = torch.cat([a, b])
    n = len(rows)
    similarity = (rows @ rows.T / temperature).masked_fill(
        torch.eye(n, dtype=torch.bool, device=rows.device), -torch.inf
    )
    return F.cross_entropy(similarity, torch.arange(n, device=rows.device).roll(n // 2))


def imbalance(p: torch.Tensor) -> torch.Tensor:
    """log k minus the entropy of the mean assignment."""
    mean = p.mean(0)
    return np.log(p.shape[1]) + (mean * mean.log()).sum()


def total(network: nn.Module, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The loss of CC for two views."""
    (za, ca), (zb, cb) = network(a), network(b)
    za, zb, ca, cb = (x.float() for x in (za, zb, ca, cb))
    clusters = contrast(F.normalize(ca.T), F.normalize(cb.T), 1.0)
    return contrast(za, zb, 0.5) + clusters + imbalance(ca) + imbalance(cb)


def gray(x: torch.Tensor) -> torch.Tensor:
    return (x * x.new_tensor([0.2989, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)


def turned(x: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Rotates the hue by `shift`, one number for each image."""
    r, g, b = x.unbind(1)
    value, low = x.amax(1), x.amin(1)
    chroma = value - low
    per = 1 / torch.where(chroma > 0, chroma, torch.ones_like(chroma))
    hue = torch.where(value == g, 2 + (b - r) * per, 4 + (r - g) * per)
    hue = torch.where(value == r, (g - b) * per, hue) + 6 * shift[:, None, None]
    sixths = [torch.remainder(hue + n, 6) for n in (5, 3, 1)]
    return torch.stack([value - chroma * torch.minimum(k, 4 - k).clamp(0, 1) for k in sixths], 1).clamp(0, 1)


def cropped(x: torch.Tensor, size: int) -> torch.Tensor:
    """Applies a random resized crop and a random flip."""
    b, d = len(x), x.device
    area = torch.empty(b, device=d).uniform_(0.08, 1).sqrt()
    ratio = torch.exp(torch.empty(b, device=d).uniform_(-0.2877, 0.2877) / 2)
    sx, sy = (area * ratio).clamp(max=1), (area / ratio).clamp(max=1)
    cx, cy = ((2 * torch.rand(b, device=d) - 1) * (1 - side) for side in (sx, sy))
    flip, zero = torch.where(torch.rand(b, device=d) < 0.5, -1.0, 1.0), torch.zeros_like(sx)
    theta = torch.stack([torch.stack([sx * flip, zero, cx], 1), torch.stack([zero, sy, cy], 1)], 1)
    grid = F.affine_grid(theta, (b, 3, size, size), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False, padding_mode="reflection")


def augment(x: torch.Tensor, size: int, strength: float = 0.5) -> torch.Tensor:
    """Augments uint8 [b, 3, h, w] to float [b, 3, size, size]: crop, flip, colour jitter in random order, greyscale."""
    b, d = len(x), x.device
    x = cropped(x.float() / 255, size)
    on = torch.rand(b, device=d) < 0.8
    factors = 1 + 0.8 * strength * (2 * torch.rand(b, 3, device=d) - 1)
    factors = torch.where(on[:, None], factors, torch.ones_like(factors))
    order = torch.rand(b, 3, device=d).argsort(1)
    for slot in range(3):
        which = order[:, slot][:, None, None, None]
        factor, luma = factors.gather(1, order[:, slot : slot + 1])[..., None, None], gray(x)
        reference = torch.where(which == 2, luma, torch.zeros_like(luma))
        reference = torch.where(which == 1, luma.mean((1, 2, 3), keepdim=True), reference)
        x = (factor * x + (1 - factor) * reference).clamp(0, 1)
    shift = torch.where(on, 0.2 * strength * (2 * torch.rand(b, device=d) - 1), torch.zeros(b, device=d))
    x = turned(x, shift)
    return torch.where((torch.rand(b, device=d) < 0.2)[:, None, None, None], gray(x).expand_as(x), x)


def synchronize() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def timed(step, count: int) -> float:
    """Seconds of `count` steps."""
    synchronize()
    began = time.perf_counter()
    for _ in range(count):
        step()
    synchronize()
    return time.perf_counter() - began


def best(context: Context, case: str) -> None:
    """Returns a step with data, augmentation and training on the GPU, compiled."""
    name, stem, size, batch, steps = CASES[case]
    size, batch, steps = (32, 16, 2) if context.toy else (size, batch, steps)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    images = torch.from_numpy(context.images).permute(0, 3, 1, 2).contiguous().to(DEVICE)
    network = Network(name, stem).to(DEVICE, memory_format=torch.channels_last).train()
    adam = torch.optim.Adam(network.parameters(), lr=3e-4, fused=DEVICE == "cuda")

    def loss(x):
        with torch.autocast(DEVICE, torch.bfloat16):
            views = (augment(x, size).contiguous(memory_format=torch.channels_last) for _ in range(2))
            return total(network, *views)

    function = loss if context.toy else torch.compile(loss)

    def step():
        value = function(images[torch.randint(len(images), (batch,), device=DEVICE)])
        adam.zero_grad(set_to_none=True)
        value.backward()
        adam.step()

    first = timed(step, 3)
    rate = max(batch * steps / timed(step, steps) for _ in range(3))
    memory = torch.cuda.max_memory_allocated() / 2**30 if DEVICE == "cuda" else 0.0
    context.write(images_per_second=rate, first_three_steps_s=first, peak_gib=memory)


class Pairs(torch.utils.data.Dataset):
    """A data set of two augmented views of each image, made with Pillow."""

    def __init__(self, images: np.ndarray, size: int):
        from torchvision import transforms

        jitter = transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8)
        parts = [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip(), jitter]
        self._pipeline = transforms.Compose([*parts, transforms.RandomGrayscale(p=0.2), transforms.ToTensor()])
        self._images, self._picture = images, transforms.functional.to_pil_image

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = self._picture(self._images[i])
        return self._pipeline(image), self._pipeline(image)


def loader(context: Context, case: str) -> None:
    """The published pipeline."""
    name, stem, size, batch, steps = CASES[case]
    size, batch, steps = (32, 16, 2) if context.toy else (size, batch, min(steps, 60))
    torch.set_num_threads(1)
    workers = 2 if context.toy else (os.cpu_count() or 1)
    options = {"num_workers": workers, "pin_memory": DEVICE == "cuda", "prefetch_factor": 4, "drop_last": True}
    data = iter(torch.utils.data.DataLoader(Pairs(context.images, size), batch, shuffle=True, **options))
    network = Network(name, stem).to(DEVICE).train()
    adam = torch.optim.Adam(network.parameters(), lr=3e-4)

    def step():
        value = total(network, *(x.to(DEVICE, non_blocking=True) for x in next(data)))
        adam.zero_grad()
        value.backward()
        adam.step()

    # Skip the batches that the workers queued before the first step.
    timed(step, 2 if context.toy else 16)
    context.write(images_per_second=batch * steps / timed(step, steps), workers=workers)
