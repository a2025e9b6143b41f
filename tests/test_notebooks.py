"""The notebooks are executed, have their outputs, and run again without errors."""

import json
import os
import re
from pathlib import Path

import pytest

from tests.paths import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def code_cells(path):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def test_the_notebooks_exist():
    names = [path.stem for path in NOTEBOOKS]
    assert names == ["correct_clusters", "image_text", "multi_view", "own_images", "quickstart"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_was_executed_in_order_without_an_error(path):
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert outputs and not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    # The pictures have a minimal size, and the outputs have no paths of the machine that made them.
    assert max(len(o.get("data", {}).get("image/png", "")) for o in outputs) > 10_000
    assert not re.search(r'"[^"]*/(home|root|tmp|work)/', path.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs_again(path, tmp_path, monkeypatch):
    client = pytest.importorskip("nbclient", reason="needs the extra [notebooks]")
    nbformat = pytest.importorskip("nbformat", reason="needs the extra [notebooks]")
    if "TINY_IMAGENET" in path.read_text() and not Path(os.environ.get("TINY_IMAGENET", "none")).is_dir():
        pytest.skip("needs the photos of Tiny ImageNet: set TINY_IMAGENET to their directory")
    monkeypatch.setenv("XLA_FLAGS", "")
    notebook = nbformat.read(path, 4)
    resources = {"metadata": {"path": str(tmp_path)}}
    client.NotebookClient(notebook, timeout=3600, resources=resources).execute()
