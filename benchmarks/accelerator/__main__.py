"""Correctness and speed on an accelerator, compared with PyTorch, and a real run on CIFAR-10.

    python -m benchmarks.accelerator --output=DIR [--cifar=cifar10.npz --parts=correctness,cc_r18_bf16 --seconds=540]
    python -m benchmarks.accelerator --output=DIR --toy        (a minute or two on a CPU, to see that everything runs)

Each part is a process of its own with a time limit. Its results are written to DIR/results.jsonl as soon as they are
measured, so a part that is stopped keeps the results that it has. The same command then runs the missing parts. The
table at the end is also in DIR/table.md. Compiled programs are kept in DIR/cache, so a second run does not compile.

`--cifar` is a `.npz` file with "image" uint8 [n, 32, 32, 3] and "label" int [n]. Without it the images are random.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

# Time limit of each part in seconds, in the order in which the parts are run.
LIMITS = {
    "device": 30,
    "correctness": 120,
    "cc_r18_bf16": 90,
    "cc_r18_bf16_deterministic": 90,
    "torch_r18_best": 90,
    "torch_r18_loader": 40,
    "cc_r18_f32": 60,
    "cc_r34_bf16": 90,
    "torch_r34_best": 90,
    "seeds_cmmc": 60,
    "seeds_dmim": 45,
    "turtle": 60,
    "kmeans": 60,
    "neighbours": 45,
    "dxmc": 60,
    "cifar10": 400,
}
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


def environment(part: str, output: Path) -> dict[str, str]:
    """The environment of the process of a part."""
    flags = os.environ.get("XLA_FLAGS", "")
    return {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(output / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "XLA_FLAGS": f"{flags} {DETERMINISTIC}".strip() if part.endswith("_deterministic") else flags,
    }


def finished(output: Path) -> set[str]:
    """The parts whose last line is in the results."""
    path = output / "results.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {line["part"] for line in lines if line.get("end")}


def run_part(part: str, arguments: argparse.Namespace, limit: float) -> None:
    """Runs one part. If it fails or is stopped, reports how it ended."""
    command = [sys.executable, "-m", "benchmarks.accelerator.parts", part, f"--output={arguments.output}"]
    command += [f"--cifar={arguments.cifar}"] * bool(arguments.cifar) + ["--toy"] * arguments.toy
    try:
        code = subprocess.run(command, env=environment(part, arguments.output), timeout=limit).returncode
    except subprocess.TimeoutExpired:
        code = f"stopped after {limit:.0f} s"
    if code:
        print(f"{part}: {code if isinstance(code, str) else f'exit code {code}'}", flush=True)


def table(output: Path) -> str:
    """Markdown table of all numbers."""
    rows = ["| part | measured |", "|---|---|"]
    for line in (output / "results.jsonl").read_text().splitlines():
        values = {k: v for k, v in json.loads(line).items() if k not in ("part", "end")}
        shown = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())
        rows += [f"| {json.loads(line)['part']} | {shown} |"] if values else []
    return "\n".join(rows)


def main() -> None:
    """Runs the missing parts and prints the table."""
    parser = argparse.ArgumentParser("python -m benchmarks.accelerator", description=__doc__.partition("\n")[2])
    parser.add_argument("--output", type=Path, required=True, help="directory for results, made where it is missing")
    parser.add_argument("--cifar", default="", help="CIFAR-10 as .npz with image and label")
    parser.add_argument("--parts", default=",".join(LIMITS), help="parts with commas (default: all)")
    parser.add_argument("--seconds", type=float, default=540, help="for all parts together (default: %(default)s)")
    parser.add_argument("--toy", action="store_true", help="sizes for a CPU")
    arguments = parser.parse_args()
    parts = arguments.parts.split(",")
    if unknown := [part for part in parts if part not in LIMITS]:
        parser.error(f"there is no part '{unknown[0]}': choose of {', '.join(LIMITS)}")
    arguments.output.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + arguments.seconds
    for part in [part for part in parts if part not in finished(arguments.output)]:
        left = end - time.monotonic()
        if left < 10:
            print(f"{part}: no time left; the same command goes on here")
            break
        run_part(part, arguments, min(LIMITS[part], left))
    text = table(arguments.output)
    (arguments.output / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
