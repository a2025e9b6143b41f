"""Milliseconds of each convolution of a ResNet-18 on this CPU, for every lowering, and for PyTorch if it is installed.

    python -m benchmarks.convolution --pixels=32 --batch=128
    python -m benchmarks.convolution --pixels=96 --batch=64

The script prints one line per layer and pass (value, gradient of the input, gradient of the kernel), with the best of
repeated runs. `*` marks the form that `clustering_jax.nn.cpu.conv.plan` chooses. The thresholds of that function come
from this table: measure again on a new machine, with nothing else running. `--network` adds whole training steps (two
views) and evaluation.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from clustering_jax.nn.cpu.conv import FORWARD, conv, plan
from clustering_jax.nn.resnet import ResNet

PASSES = ("value", "d input", "d kernel")
SECONDS = 0.4  # of repetition per number


class Layer(NamedTuple):
    size: int
    cin: int
    cout: int
    kernel: int
    stride: int

    @property
    def padding(self) -> int:
        return (self.kernel - 1) // 2

    @property
    def out(self) -> int:
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1


def layers(pixels: int) -> Iterator[Layer]:
    """The distinct convolutions of a ResNet-18 with the 7x7 stem."""
    yield Layer(pixels, 3, 64, 7, 2)
    size = -(-pixels // 4)
    yield Layer(size, 64, 64, 3, 1)
    for width in (128, 256, 512):
        yield Layer(size, width // 2, width, 3, 2)
        yield Layer(size, width // 2, width, 1, 2)
        size = -(-size // 2)
        yield Layer(size, width, width, 3, 1)


def best(run: Callable[[], object]) -> float:
    """Milliseconds of the fastest of many runs."""
    run(), run()
    times, end = [], time.perf_counter() + SECONDS
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def ours(layer: Layer, batch: int, lowering: str) -> list[float]:
    x = jnp.ones((batch, layer.size, layer.size, layer.cin))
    kernel = jnp.ones((layer.kernel, layer.kernel, layer.cin, layer.cout))
    dy = jnp.ones((batch, layer.out, layer.out, layer.cout))
    form = functools.partial(conv, stride=layer.stride, padding=layer.padding, lowering=lowering)
    passes = (
        jax.jit(lambda x, k, dy: form(x, k)),
        jax.jit(lambda x, k, dy: jax.vjp(form, x, k)[1](dy)[0]),
        jax.jit(lambda x, k, dy: jax.vjp(form, x, k)[1](dy)[1]),
    )
    return [best(lambda f=f: jax.block_until_ready(f(x, kernel, dy))) for f in passes]


def torchs(layer: Layer, batch: int) -> list[float]:
    import torch

    x, kernel = (
        torch.ones(s)
        for s in (
            (batch, layer.cin, layer.size, layer.size),
            (layer.cout, layer.cin, layer.kernel, layer.kernel),
        )
    )
    step, pad = [layer.stride] * 2, [layer.padding] * 2
    dy = torch.ones(batch, layer.cout, layer.out, layer.out)

    def backward(*wanted: bool) -> object:
        return torch.ops.aten.convolution_backward(
            dy, x, kernel, None, step, pad, [1, 1], False, [0, 0], 1, [*wanted, False]
        )

    forward = functools.partial(torch.nn.functional.conv2d, x, kernel, None, step, pad)
    return [best(forward), best(lambda: backward(True, False)), best(lambda: backward(False, True))]


def table(pixels: int, batch: int, with_torch: bool) -> None:
    forms = sorted(FORWARD)
    print(f"{'layer':28}{'pass':10}" + "".join(f"{f:>10}" for f in [*forms, *["torch"] * with_torch]))
    for layer in layers(pixels):
        shape = (layer.kernel, layer.kernel, layer.cin, layer.cout)
        chosen = plan((batch, layer.size, layer.size, layer.cin), shape, layer.stride, layer.padding)
        # A large map as one dense matrix would fill the memory.
        columns = {f: ours(layer, batch, f) for f in forms if f != "dense" or layer.size <= 4}
        if with_torch:
            columns["torch"] = torchs(layer, batch)
        name = f"{layer.size}x{layer.size} {layer.cin}->{layer.cout} {layer.kernel}x{layer.kernel}/{layer.stride}"
        for i, (label, form) in enumerate(zip(PASSES, chosen, strict=True)):
            cells = [f"{columns[f][i]:.2f}{'*' * (f == form)}" if f in columns else "" for f in forms]
            cells += [f"{columns['torch'][i]:.2f}"] if with_torch else []
            print(f"{name:28}{label:10}" + "".join(f"{c:>10}" for c in cells), flush=True)


def network(pixels: int, batch: int) -> tuple[float, float]:
    """Milliseconds of the value and gradient for two views of a batch, and of one evaluation of a batch."""
    net = ResNet()
    x = jnp.asarray(np.random.default_rng(0).random((batch, 2, pixels, pixels, 3)), jnp.float32)
    variables = jax.jit(functools.partial(net.init, train=False))(jax.random.key(0), x)

    def loss(params, statistics, x):
        y, new = net.apply({"params": params, "batch_stats": statistics}, x, True, mutable=["batch_stats"])
        return jnp.mean(y**2), new

    step = jax.jit(jax.grad(loss, has_aux=True))
    evaluate = jax.jit(functools.partial(net.apply, train=False))
    one = x[:, 0]
    return (
        best(lambda: jax.block_until_ready(step(variables["params"], variables["batch_stats"], x))),
        best(lambda: jax.block_until_ready(evaluate(variables, one))),
    )


def torch_network(pixels: int, batch: int) -> tuple[float, float]:
    import torch
    import torchvision

    net = torchvision.models.resnet18()
    net.fc = torch.nn.Identity()
    views = [torch.rand(batch, 3, pixels, pixels) for _ in range(2)]

    def step() -> None:
        net.zero_grad()
        sum((net(x) ** 2).mean() for x in views).backward()

    def evaluate() -> None:
        with torch.no_grad():
            net(views[0])

    train = best(step)
    net.eval()
    return train, best(evaluate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pixels", type=int, default=32)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--network", action="store_true", help="whole networks instead of layers")
    options = parser.parse_args()
    with_torch = importlib.util.find_spec("torch") is not None
    if not options.network:
        table(options.pixels, options.batch, with_torch)
        return
    print("value and gradient of two views, evaluation of one [ms]")
    print("ours  {:8.1f} {:8.1f}".format(*network(options.pixels, options.batch)))
    if with_torch:
        print("torch {:8.1f} {:8.1f}".format(*torch_network(options.pixels, options.batch)))


if __name__ == "__main__":
    main()
