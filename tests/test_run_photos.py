"""Photos by one command: embedded once, clustered, shown in the report, and predicted from new files."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from clustering_jax import choose_k, data, run
from clustering_jax.compare import main
from clustering_jax.errors import UserError
from clustering_jax.inference.image_model import image_model, image_model_of
from clustering_jax.inference.new_rows import lines
from clustering_jax.inference.predictor import Predictor
from clustering_jax.report.pictures import SIDE, Thumbnails, pictures_of
from clustering_jax.serving import export
from clustering_jax.serving.artefact import Model, read
from clustering_jax.serving.requests import Limits, decode_features
from clustering_jax.settings import photos
from tests.paths import CONFIGS, FIXTURES

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


@pytest.mark.long
def test_photos_are_embedded_and_clustered(finished):
    folder, result = finished
    with (folder / "run" / "assignments.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24 and rows[0]["id"].endswith(".png")
    assert result["scores"]["acc"] > 0.6 and (folder / "run" / "embeddings" / "train.npy").is_file()


@pytest.mark.long
def test_the_report_shows_the_photos(finished):
    page = (finished[0] / "run" / "report.html").read_text()
    assert '"data:image/webp;base64,' in page or '"data:image/jpeg;base64,' in page


@pytest.mark.long
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
    assert max(pictures[0].shape[:2]) <= SIDE and abs(pictures[0][..., 0].mean() - 220) < 15
    assert (pictures[1] == 136).all()


def test_embeddings_without_a_folder_have_no_pictures(finished):
    folder = finished[0]
    moved = folder / "moved"
    shutil.copytree(folder / "all", moved)
    predictor = Predictor.restore(folder / "run")
    dataset = data.load(**predictor.config["data"])
    assert pictures_of(predictor.config, dataset).shape == (24, SIDE, SIDE, 3)
    lost = {**predictor.config, "embed": {**predictor.config["embed"], "splits": {}}}
    assert pictures_of(lost, dataset) is None and pictures_of(lost, None) is None


@pytest.fixture(scope="module")
def exported(finished):
    output = finished[0] / "model"
    export.write(export.of_run(finished[0] / "run"), output)
    return output


@pytest.mark.long
def test_the_exported_model_takes_photos_as_predict_does(finished, exported):
    files = sorted((finished[0] / "all" / "kind2").glob("*.png"))
    expected = list(
        csv.DictReader("".join(lines(Predictor.restore(finished[0] / "run"), files[0].parent, 8)).splitlines())
    )
    model = Model.load(exported, max_batch=4)
    sent = decode_features("multipart/form-data", [path.read_bytes() for path in files], model.inputs, Limits())
    found = model.run(sent).probabilities
    assert [str(cluster) for cluster in found.argmax(1)] == [row["cluster"] for row in expected]
    np.testing.assert_allclose(found.max(1), [float(row["probability"]) for row in expected], atol=1e-4)
    # The same pixels as an array.
    pixels = np.stack([np.asarray(Image.open(path)) for path in files])
    np.testing.assert_array_equal(model.predict_proba({"image": pixels}), found)


@pytest.mark.long
def test_an_exported_model_of_photos_is_exported_again(exported, tmp_path):
    contents, _ = read(exported)
    assert contents.preprocessing["fit"]["kind"] == "encoder"
    export.write(contents, tmp_path / "again")
    pixels = {"image": np.random.default_rng(0).integers(0, 255, (3, 30, 40, 3), np.uint8)}
    one, two = (Model.load(path, max_batch=4).predict_proba(pixels) for path in (exported, tmp_path / "again"))
    np.testing.assert_array_equal(one, two)
    other = contents._replace(manifest={**contents.manifest, "encoder": {"checksum": "another"}})
    with pytest.raises(UserError, match="the encoder differs"):
        export.artefact(other)


def test_the_head_alone_takes_embeddings(finished):
    contents = export.of_run(finished[0] / "run", photos=False)
    assert "fit" not in contents.preprocessing and len(contents.preprocessing["shapes"]["image"]) == 1


@pytest.mark.long
def test_compare_ranks_encoders_and_numbers_of_clusters(finished, tmp_path, capsys):
    photos = str(finished[0] / "all")
    given = [f"--config.data.path={photos}", "--config.model.num_steps=20", "--config.embed.batch_size=8"]
    given += ["--config.data.labels_from_folders=True", f"--workdir={tmp_path}", "--clusters=3,4"]
    encoders = [ENCODER, str(FIXTURES / "encoders" / "dinov3")]
    main(["compare", f"--config={CONFIGS / 'photos.py'}", f"--encoders={','.join(encoders)}", *given])
    rows = json.loads((tmp_path / "compare.json").read_text())
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True) and all(0 <= score <= 1 for score in scores)
    assert {(row["encoder"], row["num_clusters"]) for row in rows} == {(e, k) for e in encoders for k in (3, 4)}
    lines = capsys.readouterr().out.splitlines()[-5:]
    assert "acc" in lines[0] and lines[1].endswith(rows[0]["encoder"])
    # Each encoder embeds once.
    assert sorted(path.parent.name for path in tmp_path.glob("*/embeddings")) == ["1_dinov2_3", "2_dinov3_3"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config=cc_digits"], "compare ranks encoders of photos .* --config=photos"),
        (["--config=photos", "--clusters=3,x"], "--clusters=3,x: give numbers"),
    ],
)
def test_compare_refuses(flags, message, tmp_path):
    with pytest.raises(UserError, match=message):
        main(["compare", *flags, f"--workdir={tmp_path / 'none'}"])
    assert not (tmp_path / "none").exists()


@pytest.mark.long
def test_choose_k_embeds_photos_and_ranks_by_the_score(finished, tmp_path, capsys):
    """The run that follows in the same directory takes the embeddings."""
    folder, workdir = finished[0] / "all", tmp_path / "run"
    flags = [f"--config={CONFIGS / 'photos.py'}", f"--config.data.path={folder}", f"--config.embed.encoder={ENCODER}"]
    flags += ["--config.data.labels_from_folders=True", "--config.embed.batch_size=8", "--config.model.num_steps=20"]
    flags += ["--range=3:4", f"--output={tmp_path}"]
    with pytest.raises(UserError, match="give --workdir=DIR"):
        choose_k.main(["choose_k", *flags])
    with pytest.raises(UserError, match="photos need no --train"):
        choose_k.main(["choose_k", *flags, f"--workdir={workdir}", "--train"])
    assert not workdir.exists()
    choose_k.main(["choose_k", *flags, f"--workdir={workdir}", "--samples=2", "--generalization"])
    lines = capsys.readouterr().out.splitlines()
    header = next(line.split() for line in lines if line.split()[:1] == ["k"])
    assert header[-1] == "generalization" and "24 rows" in lines[-2] and "the photos' embeddings" in lines[-2]
    curve = json.loads((tmp_path / "choose_k.json").read_text())["curve"]
    assert [point["k"] for point in curve] == [3, 4] and all(0 <= point["generalization"] <= 1 for point in curve)
    written = (workdir / "embeddings" / "train.npy").stat().st_mtime_ns
    config = config_of(folder)
    config["model"]["num_steps"] = 1
    run.train(config, workdir, quiet=True, reported=False)
    assert (workdir / "embeddings" / "train.npy").stat().st_mtime_ns == written


def test_the_score_needs_turtle_and_a_directory():
    with pytest.raises(UserError, match="--generalization needs a config of TURTLE"):
        choose_k.main(["choose_k", "--config=cc_digits", "--generalization", "--workdir=none"])


def test_an_encoder_of_other_weights_is_refused(finished, tmp_path):
    """Neither `predict` nor `export` mixes the embeddings of two encoders."""
    shutil.copytree(finished[0] / "run", tmp_path / "run")
    predictor = Predictor.restore(tmp_path / "run")
    other = {**predictor.config["embed"], "encoder": str(FIXTURES / "encoders" / "dinov3")}
    config = {**predictor.config, "embed": other}
    with pytest.raises(UserError, match="dinov3 has other weights than the model that embedded"):
        image_model_of(config)
    assert image_model_of(predictor.config).settings["model"] == "dinov2"
    assert image_model_of({"embed": {"clip": "", "encoder": ""}, "data": {}}) is None
