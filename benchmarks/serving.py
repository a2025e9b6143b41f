"""Latency and throughput of `clustering_jax.serve`, with clients and server on one machine.

    make bench                      (installs the extra [bench])
    python -m benchmarks.serving [--model=DIR]

The default model is the digits' CC model with initial weights, which is as fast as a trained one. Every client is a
thread with its own connection, which sends a new request as soon as it has the answer. Every answer is compared with
the result of the model itself.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import runpy
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np

from clustering_jax.data.images.folder import digits
from clustering_jax.methods import from_config
from clustering_jax.serving import export
from clustering_jax.serving.artefact import FORMAT, Contents, Model
from clustering_jax.serving.inputs import preprocessing

# Clients, images in a request, requests of each client.
LOADS = ((1, 1, 300), (50, 1, 100), (50, 16, 40))


def untrained() -> Contents:
    """The digits' model with its initial weights."""
    config = runpy.run_path("configs/cc_digits.py")["get_config"]().to_dict()
    images = digits().features["image"]
    variables = jax.jit(from_config(config, {"train": 14}).init)(jax.random.key(0), {"image": images[:2]})
    summary = {"method": "cc", "num_clusters": config["num_clusters"], "names": [], "config": config}
    inputs = preprocessing({"image": images.shape[1:]}, None, config["data"])
    return Contents({"format": FORMAT, **summary}, inputs, jax.device_get(variables))


def body(images: np.ndarray) -> bytes:
    """The request as a `.npy` file."""
    file = io.BytesIO()
    np.save(file, images)
    return file.getvalue()


def load(port: int, images: np.ndarray, wanted: np.ndarray, clients: int, size: int, each: int) -> None:
    """Runs one load and prints a line of the table."""
    rows = np.random.default_rng(0).integers(0, len(images), (clients, each, size))
    together = threading.Barrier(clients + 1)

    def client(number: int) -> list[float]:
        connection, seconds = http.client.HTTPConnection("127.0.0.1", port), []
        bodies = [body(images[index]) for index in rows[number]]
        together.wait()
        for index, data in zip(rows[number], bodies, strict=True):
            began = time.perf_counter()
            connection.request("POST", "/predict", data, {"Content-Type": "application/x-npy"})
            response = connection.getresponse()
            answer = json.loads(response.read())
            seconds.append(time.perf_counter() - began)
            np.testing.assert_allclose(answer["probabilities"], wanted[index], atol=1e-5)
        return seconds

    with ThreadPoolExecutor(clients) as pool:
        answers = [pool.submit(client, number) for number in range(clients)]
        together.wait()
        began = time.perf_counter()
        latencies = [second for answer in answers for second in answer.result()]
        rate = len(latencies) / (time.perf_counter() - began)
    p50, p95, p99 = 1000 * np.percentile(latencies, (50, 95, 99))
    print(f"{clients:8}{size:8}{len(latencies):10}{p50:10.1f}{p95:10.1f}{p99:10.1f}{rate:12.0f}{rate * size:12.0f}")


def main() -> None:
    """Prints latencies in milliseconds, requests/s and images/s."""
    parser = argparse.ArgumentParser("python -m benchmarks.serving")
    parser.add_argument("--model", help="an exported model of digits")
    given = parser.parse_args().model
    with tempfile.TemporaryDirectory() as directory:
        path = Path(given or f"{directory}/model")
        if not given:
            export.write(untrained(), path)
        images = digits().features["image"]
        wanted = Model.load(path).predict_proba({"image": images})
        command = [sys.executable, "-m", "clustering_jax.serve", str(path), "--port=0"]
        began = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            port = int(server.stdout.readline().rpartition(":")[2])
            print(f"ready after {time.perf_counter() - began:.1f} s, start and compilation")
            names = ("clients", "images", "answers", "p50 ms", "p95 ms", "p99 ms", "requests/s", "images/s")
            print(
                "".join(f"{name:>{width}}" for name, width in zip(names, (8, 8, 10, 10, 10, 10, 12, 12), strict=True))
            )
            for numbers in LOADS:
                load(port, images, wanted, *numbers)
            server.terminate()


if __name__ == "__main__":
    main()
