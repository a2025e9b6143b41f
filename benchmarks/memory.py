"""The largest batch that fits: bytes of training steps from compiled programs, which are never run.

    python -m benchmarks.memory [--output=docs/scale.json --only=WORD]      (half an hour on two cores)

Each step is compiled for two or three batch sizes. A line through them (a parabola for the dense contrast) gives the
bytes per row and a constant: parameters, optimiser and everything else that does not grow. Results that are already in
OUTPUT are not computed again.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import plans, steps
from clustering_jax.files import read_json, write_json
from clustering_jax.parallel import data_mesh

GB = (16, 80)
# Program, rows on the device, devices. The last size of three only tests the line through the others.
CASES: dict[str, tuple[steps.Lower, tuple[int, ...], int]] = {
    "CC, ResNet18, 32 px": (steps.cc("resnet18", 32), (128, 256, 512), 1),
    "CC, ResNet18, 32 px, remat": (steps.cc("resnet18", 32, remat=True), (128, 256, 512), 1),
    "CC, ResNet34, 224 px": (steps.cc("resnet34", 224), (8, 16), 1),
    "CC, ResNet34, 224 px, remat": (steps.cc("resnet34", 224, remat=True), (8, 16), 1),
    "CC, ResNet50, 224 px": (steps.cc("resnet50", 224), (8, 16, 32), 1),
    "CC, ResNet50, 224 px, remat": (steps.cc("resnet50", 224, remat=True), (8, 16, 32), 1),
    "CLIP ViT-B/32, image features": (steps.clip_images("ViT-B/32"), (64, 128), 1),
    "CLIP ViT-L/14, image features": (steps.clip_images("ViT-L/14"), (16, 32), 1),
    "CLIP ViT-B/32, training": (steps.clip_tuning("ViT-B/32"), (64, 128), 1),
    "CLIP ViT-B/32, training, remat": (steps.clip_tuning("ViT-B/32", remat=True), (64, 128), 1),
    "CLIP ViT-B/32, training, chunks of 64": (steps.clip_tuning("ViT-B/32", chunk=64), (512, 1024), 1),
    "CLIP ViT-L/14, training": (steps.clip_tuning("ViT-L/14"), (16, 32), 1),
    "CLIP ViT-L/14, training, remat": (steps.clip_tuning("ViT-L/14", remat=True), (16, 32), 1),
    "CLIP ViT-L/14, training, chunks of 16": (steps.clip_tuning("ViT-L/14", chunk=16), (512, 1024), 1),
    "CLIP ViT-L/14, training, remat, chunks of 16": (
        steps.clip_tuning("ViT-L/14", remat=True, chunk=16),
        (512, 1024),
        1,
    ),
    "CMMC, BDGP, contrast": (steps.cmmc("contrast"), (4096, 8192, 16384), 1),
    "CMMC, BDGP, contrast, chunks of 1,024": (steps.cmmc("contrast", chunk=1024), (4096, 8192, 16384), 1),
    "DXMC": (steps.dxmc(), (4096, 8192, 16384), 1),
    "DMIM": (steps.dmim, (4096, 8192, 16384), 1),
    "NT-Xent, dense": (steps.contrast("dense"), (4096, 8192, 16384), 1),
    "NT-Xent, blockwise": (steps.contrast("blockwise"), (16384, 32768, 65536), 1),
    "NT-Xent, ring of 8, rows on one": (steps.contrast("ring"), (16384, 32768, 65536), 8),
}
PARABOLAS = ("NT-Xent, dense",)


def measured(name: str) -> dict[str, Any]:
    """Rows, bytes and FLOPs on a device by size, and the bytes of parameters and optimiser, which a step replaces."""
    lower, sizes, devices = CASES[name]
    measurement: dict[str, Any] = {"rows": list(sizes), "bytes": [], "flops": []}
    for n in sizes:
        mesh = data_mesh(n * devices, jax.devices()[:devices])
        lowered = lower(n * devices, mesh)
        measurement["state"] = sum(
            leaf.dtype.itemsize * math.prod(leaf.shape) for leaf in jax.tree.leaves(lowered.args_info) if leaf.donated
        )
        measurement["bytes"].append(plans.memory(lowered.compile(plans.OPTIONS)))
        measurement["flops"].append(lowered.cost_analysis()["flops"] / devices)
    return measurement


def fitted(name: str, measurement: dict[str, Any]) -> np.ndarray:
    """Fits the bytes as a polynomial of the rows through the first points; the constant comes first."""
    degree = 2 if name in PARABOLAS else 1
    rows, sizes = (np.array(measurement[key][: degree + 1], float) for key in ("rows", "bytes"))
    return np.polynomial.polynomial.polyfit(rows / rows[0], sizes, degree) / rows[0] ** np.arange(degree + 1)


def largest(line: np.ndarray, gigabytes: float) -> int:
    """The number of rows that fit; 0 if none does."""
    room = np.polynomial.polynomial.polyroots([line[0] - 1e9 * gigabytes, *line[1:]])
    return max(0, int(max(root.real for root in room)))


def table(results: dict[str, dict[str, Any]]) -> str:
    """Formats the results as Markdown."""
    lines = ["| step | state, MB | constant, MB | a row, kB | 16 GB | 80 GB |", "|---|---|---|---|---|---|"]
    for name, measurement in results.items():
        line = fitted(name, measurement)
        grows = f"{line[1] / 1e3:,.1f}" if len(line) == 2 else f"{line[2]:.1f} bytes x rows"
        sizes = " | ".join(f"{largest(line, gb):,}" for gb in GB)
        lines.append(f"| {name} | {measurement['state'] / 1e6:,.0f} | {line[0] / 1e6:,.0f} | {grows} | {sizes} |")
    return "\n".join(lines)


def error(results: dict[str, dict[str, Any]]) -> float:
    """The largest relative distance of a third point from the line through the others."""
    third = [(n, f) for n, f in results.items() if len(f["rows"]) == 3 and n not in PARABOLAS]
    return max(abs(fitted(n, f) @ [1, f["rows"][2]] / f["bytes"][2] - 1) for n, f in third)


def main() -> None:
    """Compiles the missing programs and prints the table."""
    parser = argparse.ArgumentParser("python -m benchmarks.memory")
    parser.add_argument("--output", type=Path, default=Path("docs/scale.json"))
    parser.add_argument("--only", default="", help="cases whose name has these words")
    args = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", 8)
    plans.native_convolutions()
    for name in (name for name in CASES if args.only in name):
        results = read_json(args.output) or {}
        if name not in results.get("memory", {}):
            measurement = measured(name)
            print(name, measurement, flush=True)
            merged = {**results.get("memory", {}), name: measurement}
            ordered = {name: merged[name] for name in CASES if name in merged}
            write_json(args.output, {**results, "memory": ordered})
    results = (read_json(args.output) or {})["memory"]
    print(table(results))
    print(f"largest distance of a third size from its line: {error(results):.1%}")


if __name__ == "__main__":
    main()
