"""Runs commands while their system calls fail: ``python -m tests.faults.campaign DIR`` with calls.c in LD_PRELOAD.

Reads one job a line from its input, as JSON: the operation, its directory, the number of the call, and what happens
there. Each job is a fork of this process, which has imported everything. Answers a line of JSON: how the job ended.
"""

import ctypes
import json
import os
import sys
import traceback
from pathlib import Path

import numpy as np
from PIL import Image

from clustering_jax import choose_k, cli, edit, embed, export, main, predict
from clustering_jax.estimators import MultiViewClustering
from tests.paths import FIXTURES, ROOT

COUNT, KILL, TORN = 0, -1, -2
VIEWS = [
    f"--config={ROOT}/configs/cmmc_arrays.py",
    "--config.recipe=published",
    "--config.num_clusters=3",
    "--config.batch_size=15",
    "--config.epochs=2",
    "--config.model.hidden=(8,)",
    "--config.model.latent_dim=4",
    "--config.model.feature_dim=4",
    "--config.model.reconstruction_epochs=1",
    "--config.model.matching_steps=2",
    "--config.run.log_every=1",
    "--config.run.checkpoint_every=2",
]
NOUNS = ("cat", "dog", "house", "sea", "horse", "painting", "photo", "tree")


def prepare(base):
    """Writes the inputs of the operations."""
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    views = {f"view{v}": rng.normal(size=(30, d)) + 3 * np.eye(3, d)[labels] for v, d in enumerate((5, 7))}
    np.savez(base / "views.npz", **views)
    (base / "photos").mkdir()
    for i, pixels in enumerate(rng.integers(0, 256, (24, 20, 20, 3), np.uint8)):
        Image.fromarray(pixels).save(base / "photos" / f"{i}.png")
    (base / "nouns.txt").write_text("\n".join(NOUNS))


def _data(base):
    return [*VIEWS, f"--config.data.path={base / 'views.npz'}"]


def _embedding(base):
    photos = [f"--config.embed.clip={FIXTURES / 'clip_hf'}", f"--config.embed.nouns={base / 'nouns.txt'}"]
    photos += [f"--config.embed.splits.train.path={base / 'photos'}", "--config.embed.batch_size=8"]
    return [f"--config={ROOT}/configs/dxmc_folder.py", *photos]


def _dxmc(base):
    tiny = ["num_clusters=3", "batch_size=8", "epochs=2", "model.hidden=8", "model.instance_dim=4", "model.centers=2"]
    return [*_embedding(base), *(f"--config.{change}" for change in tiny)]


def _save(base, root):
    MultiViewClustering.load(base / "run").save(root / "saved")


# What is written to the directory `root`, from the inputs in `base`.
OPERATIONS = {
    "train": lambda base, root: main.main(["train", *_data(base), f"--workdir={root / 'run'}"]),
    "dxmc": lambda base, root: main.main(["train", *_dxmc(base), f"--workdir={root / 'run'}"]),
    "embed": lambda base, root: embed.main(["embed", *_embedding(base), f"--output={root / 'embedded'}"]),
    "predict": lambda base, root: predict.main(
        ["predict", f"--workdir={base / 'run'}", f"--input={base / 'views.npz'}", f"--output={root / 'out.csv'}"]
    ),
    "choose-k": lambda base, root: choose_k.main(["choose-k", *_data(base), "--range=2:4", f"--output={root / 'k'}"]),
    "export": lambda base, root: export.main(["export", f"--workdir={base / 'run'}", f"--output={root / 'model'}"]),
    "edit": lambda base, root: edit.main(
        ["edit", f"--workdir={base / 'run'}", f"--output={root / 'edited'}", "--merge=0,1", "--rename=2=bikes"]
    ),
    "save": _save,
}


def job(base, operation, root, call, action, lasting, files):
    """Does the operation in this process, which ends here."""
    for number, path in enumerate(files[:2], start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    library, code = ctypes.CDLL(None), 1
    library.calls_seen.restype = ctypes.c_long
    library.calls_arm(os.fsencode(root), ctypes.c_long(call), action, int(lasting))
    try:
        cli.run(lambda: OPERATIONS[operation](base, Path(root)))
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
    files[2].write_text(str(library.calls_seen()))
    os._exit(code)


def serve(base):
    files = [base / name for name in ("out.txt", "err.txt", "calls.txt")]
    for line in sys.stdin:
        request = json.loads(line)
        files[2].write_text("0")
        if not (child := os.fork()):
            job(base, **request, files=files)
        _, status = os.waitpid(child, 0)
        out, err, calls = (file.read_text(errors="replace") for file in files)
        answer = {"code": os.waitstatus_to_exitcode(status), "out": out, "err": err, "calls": int(calls)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    directory = Path(sys.argv[1])
    prepare(directory)
    print("ready", flush=True)
    serve(directory)
