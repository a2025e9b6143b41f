"""Photos by one command: embedded once, clustered, shown in the report, and predicted from new files."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image

from clustering_jax import run
from clustering_jax.errors import UserError
from clustering_jax.inference.image_model import image_model
from clustering_jax.inference.new_rows import lines
from clustering_jax.inference.predictor import Predictor
from clustering_jax.report.pictures import SIDE, Thumbnails, pictures_of
from clustering_jax.settings import photos
from tests.paths import FIXTURES

ENCODER = str(FIXTURES / "encoders" / "dinov2")
COLORS = ((220, 30, 30), (30, 40, 220), (240, 240, 60))


def write_photos(folder, count=8):
    """Photos of three plain colours with some noise, 40 x 30 pixels, one subfolder for each colour."""
    rng = np.random.default_rng(0)
    for number, color in enumerate(COLORS):
        (folder / f"kind{number}").mkdir(parents=True)
        for i in range(count):
            pixels = np.clip(np.array(color) + rng.normal(0, 12, (30, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"kind{number}" / f"{i}.png")


def config_of(folder, **changes):
    config = photos(
        num_clusters=3,
        data={"source": "photos", "path": str(folder), "labels_from_folders": True, "on_error": "skip"},
        embed={"encoder": ENCODER, "batch_size": 8},
        model={"num_steps": 60},
    ).to_dict()
    return {**config, **changes}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder / "all")
    (folder / "all" / "kind0" / "broken.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="unreadable|batch size"):
        result = run.train(config_of(folder / "all"), folder / "run", quiet=True)
    return folder, result


def test_photos_are_embedded_and_clustered(finished):
    folder, result = finished
    with (folder / "run" / "assignments.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24 and rows[0]["id"].endswith(".png")
    assert result["scores"]["acc"] > 0.6 and (folder / "run" / "embeddings" / "train.npy").is_file()


def test_the_report_shows_the_photos(finished):
    page = (finished[0] / "run" / "report.html").read_text()
    assert page.count("data:image/jpeg") >= 1


def test_new_photos_are_assigned_by_the_encoder_of_the_run(finished):
    folder = finished[0]
    predictor = Predictor.restore(folder / "run")
    rows = list(csv.DictReader("".join(lines(predictor, folder / "all" / "kind1", 8)).splitlines()))
    with (folder / "run" / "assignments.csv").open() as file:
        trained = {row["id"]: row["cluster"] for row in csv.DictReader(file)}
    assert [row["cluster"] for row in rows] == [trained[f"kind1/{row['id']}"] for row in rows]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", "", 0, False), "name one model"),
        (("clip", "lite0", 0, False), "name one model"),
        (("", ENCODER, 0, True), "embed.nouns need embed.clip"),
        (("", ENCODER, 300, False), "embed.resize"),
    ],
)
def test_only_one_model_can_embed(arguments, message):
    with pytest.raises(UserError, match=message):
        image_model(*arguments[:3], texts=arguments[3])


def test_a_missing_folder_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"--config\.data\.path=FOLDER"):
        run.train(config_of(""), tmp_path / "run", quiet=True)


def test_thumbnails_of_missing_files_are_grey(tmp_path):
    write_photos(tmp_path / "all", 1)
    path = tmp_path / "all" / "kind0" / "0.png"
    pictures = Thumbnails([path, tmp_path / "lost.png"])
    assert pictures[0].shape == (SIDE, SIDE, 3) and abs(pictures[0][..., 0].mean() - 220) < 15
    assert (pictures[1] == 136).all()


def test_embeddings_without_a_folder_have_no_pictures(finished):
    folder = finished[0]
    moved = folder / "moved"
    shutil.copytree(folder / "all", moved)
    predictor = Predictor.restore(folder / "run")
    dataset = run.data.load(**predictor.config["data"])
    assert pictures_of(predictor.config, dataset).shape == (24, SIDE, SIDE, 3)
    lost = {**predictor.config, "embed": {**predictor.config["embed"], "splits": {}}}
    assert pictures_of(lost, dataset) is None and pictures_of(lost, None) is None
