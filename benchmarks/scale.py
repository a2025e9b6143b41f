"""Weak scaling from compiled programs: what steps send and hold on simulated devices, and bounds for real machines.

    python -m benchmarks.scale [--output=docs/scale.json --only=WORDS]      (after `benchmarks.memory`)

Steps are compiled for up to 256 devices with the same number of rows on each, and for 8 devices with up to a million
rows in all. Nothing is run. The last table combines these bytes and FLOPs with the published peaks of two machines. It
shows bounds, not measurements.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from pathlib import Path
from typing import Any

import jax
from jax.stages import Lowered

from benchmarks import plans, steps
from benchmarks.memory import fitted, largest
from clustering_jax.files import read_json, write_json
from clustering_jax.parallel import data_mesh

DEVICES = (1, 2, 4, 8, 16, 64, 256)
# Program, rows on each device, numbers of devices.
SENT: dict[str, tuple[steps.Lower, int, tuple[int, ...]]] = {
    "DMIM": (steps.dmim, 512, DEVICES),
    "DXMC, consistent": (steps.dxmc(consistent=True), 512, DEVICES),
    "DXMC": (steps.dxmc(), 512, DEVICES),
    "CMMC, BDGP, contrast": (steps.cmmc("contrast"), 512, DEVICES),
    "CMMC, BDGP, contrast, 4 chunks": (steps.cmmc("contrast", chunk=1024), 512, (8,)),
    "NT-Xent, blockwise": (steps.contrast("blockwise"), 4096, DEVICES),
    "NT-Xent, ring": (steps.contrast("ring"), 4096, DEVICES),
    "CC, ResNet18, 32 px": (steps.cc("resnet18", 32), 32, DEVICES),
    "CC, ResNet50, 224 px": (steps.cc("resnet50", 224), 4, (8,)),
    "CLIP ViT-L/14, training": (steps.clip_tuning("ViT-L/14"), 4, (8,)),
}
SHOWN = ("2", "8", "64", "256")
PARTS = ("gradient", "statistics", "sums", "rows")
HELD: dict[str, steps.Lower] = {
    "NT-Xent, blockwise": steps.contrast("blockwise"),
    "NT-Xent, ring": steps.contrast("ring"),
    "DMIM": steps.dmim,
    "DXMC": steps.dxmc(),
    "CMMC, BDGP, contrast": steps.cmmc("contrast"),
    "CMMC, BDGP, contrast, chunks of 16,384": steps.cmmc("contrast", chunk=16384),
}
ROWS = (16384, 65536, 262144, 1048576)
# For each machine: chips; per chip bfloat16 FLOP/s, bytes and bytes/s of the memory, and bytes/s to other chips (for
# the H100: the network card).
MACHINES = {
    "TPU v5e-256": (256, 197e12, 16e9, 819e9, 200e9),
    "64 H100 SXM": (64, 989e12, 80e9, 3.35e12, 50e9),
}
# For some programs in `benchmarks.memory`: the program in `SENT` with the same gradient, the width of the contrasted
# rows, and the rows of a chunk on each device.
BOUNDED = {
    "CC, ResNet50, 224 px": ("CC, ResNet50, 224 px", 128, 0),
    "CC, ResNet50, 224 px, remat": ("CC, ResNet50, 224 px", 128, 0),
    "CLIP ViT-L/14, training, remat": ("CLIP ViT-L/14, training", 768, 0),
    "CLIP ViT-L/14, training, remat, chunks of 16": ("CLIP ViT-L/14, training", 768, 16),
}


def parts(lowered: Lowered, text: str) -> dict[str, int]:
    """Bytes of the results of the collectives on one device: gradients, statistics of norms, other sums, and rows."""
    state = lowered.args_info[0][0]
    params = state.variables["params"] if hasattr(state, "variables") else state
    shapes = {tuple(sorted(leaf.shape)) for leaf in jax.tree.leaves(params)}
    measurement: Counter[str] = Counter(dict.fromkeys(PARTS, 0))
    for each in plans.collectives(text):
        for kind, shape in each.results:
            summed = "gradient" if tuple(sorted(shape)) in shapes else "statistics" if "bn" in each.name else "sums"
            part = summed if each.kind == "all-reduce" else "rows"
            measurement[part] += each.times * plans.SIZES[kind] * math.prod(shape)
    return dict(measurement)


def sent(name: str) -> dict[str, Any]:
    """Computes `parts` for each number of devices."""
    lower, rows, devices = SENT[name]
    measurement: dict[str, Any] = {"rows on a device": rows}
    for count in devices:
        lowered = lower(rows * count, data_mesh(rows * count, jax.devices()[:count]))
        measurement[str(count)] = parts(lowered, lowered.compile(plans.OPTIONS).as_text())
    return measurement


def held(name: str) -> dict[str, int]:
    """Bytes on each of eight devices by the number of rows on all of them."""
    mesh = data_mesh(8, jax.devices()[:8])
    return {str(n): plans.memory(HELD[name](n, mesh).compile(plans.OPTIONS)) for n in ROWS}


def sent_table(results: dict[str, Any]) -> str:
    """Formats kB on one device by part for some numbers of devices, as Markdown."""
    lines = ["| step | rows on a device | devices | " + " | ".join(PARTS) + " |", "|---|---|---|" + "---|" * len(PARTS)]
    for name, measurement in results.items():
        for count in (n for n in SHOWN if n in measurement):
            sizes = " | ".join(f"{measurement[count][part] / 1e3:,.1f}" for part in PARTS)
            lines.append(f"| {name} | {measurement['rows on a device']:,} | {count} | {sizes} |")
    return "\n".join(lines)


def held_table(results: dict[str, Any]) -> str:
    """Formats MB on each device by the number of rows on all, as Markdown."""
    lines = ["| step on 8 devices | " + " | ".join(f"{n:,} rows" for n in ROWS) + " |", "|---|" + "---|" * len(ROWS)]
    for name, measurement in results.items():
        lines.append(f"| {name} | " + " | ".join(f"{measurement[str(n)] / 1e6:,.0f}" for n in ROWS) + " |")
    return "\n".join(lines)


def bounds(name: str, machine: str, results: dict[str, Any]) -> tuple[int, int, float, float, float]:
    """Rows on a chip, rows on all chips, and the smallest seconds of a step for arithmetic, memory and messages."""
    chips, flops, room, memory_speed, link = MACHINES[machine]
    gradient, width, chunk = BOUNDED[name]
    measurement = results["memory"][name]
    rows = largest(fitted(name, measurement), room / 1e9)
    (n, m), (a, b) = (measurement[key][:2] for key in ("rows", "flops"))
    # A loop's FLOPs are counted once, whatever its length.
    each = a / chunk if chunk else (b - a) / (m - n)
    both_views = 2 * rows * chips
    # Three products of all pairs of rows: similarities forward and backward, and the gradient.
    contrast = 3 * 2 * both_views**2 * width / chips
    gathered = 3 * 4 * both_views * width
    summed = results["sent"][gradient]["8"]["gradient"] * (math.ceil(rows / chunk) if chunk else 1)
    wire = (chips - 1) / chips * (2 * summed + gathered)
    return rows, rows * chips, (rows * each + contrast) / flops, room / memory_speed, wire / link


def bounds_table(results: dict[str, Any]) -> str:
    """Formats the bounds as Markdown."""
    lines = [
        "| step | machine | rows on a chip | rows in all | arithmetic, s | memory, s | messages, s | rows/s at most |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in BOUNDED:
        for machine in MACHINES:
            own, rows, *seconds = bounds(name, machine, results)
            cells = " | ".join(f"{x:.2g}" for x in seconds)
            lines.append(f"| {name} | {machine} | {own:,} | {rows:,} | {cells} | {rows / max(seconds):,.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Compiles the missing programs and prints the tables."""
    parser = argparse.ArgumentParser("python -m benchmarks.scale")
    parser.add_argument("--output", type=Path, default=Path("docs/scale.json"))
    parser.add_argument("--only", default="", help="cases whose name has these words")
    args = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", max(DEVICES))
    plans.native_convolutions()
    for kind, cases, measure in (("sent", SENT, sent), ("held", HELD, held)):
        for name in (name for name in cases if args.only in name):
            if name not in (read_json(args.output) or {}).get(kind, {}):
                measurement = measure(name)
                print(kind, name, measurement, flush=True)
                results = read_json(args.output) or {}
                merged = {**results.get(kind, {}), name: measurement}
                write_json(args.output, {**results, kind: {name: merged[name] for name in cases if name in merged}})
    results = read_json(args.output) or {}
    print(sent_table(results["sent"]), held_table(results["held"]), sep="\n\n")
    if all(name in results.get("memory", {}) for name in BOUNDED):
        print(f"\n{bounds_table(results)}")


if __name__ == "__main__":
    main()
