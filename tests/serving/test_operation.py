"""Tests what an operator and a client's programmer use: schema, docs, metrics, readiness, access log, options."""

import http.client
import json
import logging
import re
import shutil
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from clustering_jax import serve
from clustering_jax.serving import export
from clustering_jax.serving.answers import Health, Options, Prediction, prediction
from clustering_jax.serving.app import ENDPOINTS, Service, application
from clustering_jax.serving.artefact import Model, Outputs
from clustering_jax.serving.observed import ACCESS_LOG
from clustering_jax.serving.requests import Limits
from tests.runs import CLUSTERS, NAMES, contents_of, rows
from tests.serving.test_serve import JSON, LIMITS, NPY, Slow, as_json, ask, npy, running

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
EMBEDDINGS = rows("dxmc", 3)
BODY = npy(EMBEDDINGS["image"])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("served") / "nouns"
    export.write(contents_of("dxmc"), directory)
    return Model.load(directory, max_batch=16)


@pytest.fixture(scope="module")
def port(model):
    with running(model) as port:
        yield port


def get(port, path, method="GET"):
    """Status, content type and text of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.headers["content-type"], response.read().decode(errors="replace")
    finally:
        connection.close()


def samples(port):
    """The values of the metrics by name and labels."""
    status, media, text = get(port, "/metrics")
    assert status == 200 and media.startswith("text/plain")
    families = text_string_to_metric_families(text)
    return {(s.name, *sorted(s.labels.values())): s.value for family in families for s in family.samples}


def test_the_schema_describes_every_endpoint_and_every_key_of_an_answer(port):
    schema = json.loads(get(port, "/openapi.json")[2])
    assert set(schema["paths"]) == {"/predict", "/health", "/ready", "/metrics"} < set(ENDPOINTS)
    post = schema["paths"]["/predict"]["post"]
    assert {p["name"] for p in post["parameters"]} == {"top_k", "embeddings"}
    assert set(post["requestBody"]["content"]) == {JSON, NPY, "application/x-npz", "application/octet-stream"}
    assert post["requestBody"]["content"][JSON]["schema"]["properties"]["image"]["description"] == "float [n, 12]"
    assert set(post["responses"]) == {"200", "4XX", "5XX"}
    found = ask(port, BODY, NPY, path="/predict?top_k=2&embeddings=true")[1]
    assert Prediction.model_validate(found, strict=True) and set(found) < set(Prediction.model_fields)
    health = ask(port, method="GET", path="/health")[1]
    assert Health.model_validate(health, strict=True) and set(health) == set(Health.model_fields)


@pytest.mark.parametrize("method, wanted", [("cc", {"image/*", "multipart/form-data"}), ("cmmc", set())])
def test_the_schema_has_image_files_only_for_models_of_images(method, wanted):
    facts = {"versions": {"clustering_jax": "0"}, "method": method, "num_clusters": CLUSTERS}
    inputs = export.Inputs.from_preprocessing(contents_of(method).preprocessing)
    untrained = SimpleNamespace(manifest=facts, inputs=inputs, name="x", digest="sha256:0", run=None)
    paths = application(untrained, LIMITS).openapi()["paths"]
    media = set(paths["/predict"]["post"]["requestBody"]["content"])
    assert media & {"image/*", "multipart/form-data"} == wanted and {JSON, NPY} < media


def test_the_docs_load_nothing_from_other_hosts(port):
    _, media, page = get(port, "/docs")
    assert media.startswith("text/html") and not re.search(r"(src|href|url)\s*[=:]\s*[\"'](https?:)?//", page)
    assert '"validatorUrl": null' in page
    for link in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert get(port, link)[0] == 200, link


@pytest.mark.long
@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here")
def test_a_browser_without_a_network_shows_the_docs(port, tmp_path):
    flags = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--virtual-time-budget=9000")
    rules = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    command = [BROWSER, *flags, rules, "--dump-dom", f"http://127.0.0.1:{port}/docs"]
    page = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert all(f'data-path="{path}"' in page for path in ("/predict", "/health", "/ready", "/metrics"))
    assert not re.search(r'(src|href)="https?://(?!127\.0\.0\.1)', page)


def test_metrics_count_requests_rows_and_batches(model):
    with running(model) as port:
        for _ in range(3):
            ask(port, BODY, NPY)
        ask(port, BODY, "text/plain")
        for path in ("/x", "/y", "/predict/z"):
            ask(port, method="GET", path=path)
        found = samples(port)
    name = "clustering_jax_"
    assert found[f"{name}requests_total", "/predict", "200", "POST"] == 3
    assert found[f"{name}requests_total", "/predict", "415", "POST"] == 1
    assert found[f"{name}requests_total", "404", "GET", "other"] == 3
    assert found[f"{name}request_seconds_count", "/predict"] == 4 and found[f"{name}pending_requests",] == 0
    assert found[f"{name}rows_total",] == found[f"{name}batch_rows_sum",] == 9
    assert found[f"{name}batch_rows_count",] == found[f"{name}batch_seconds_count",] == 3
    info = next(key for key in found if key[0] == f"{name}model_info")
    assert {"nouns", model.digest, "dxmc"} < set(info)
    assert not any("/x" in key for key in found) and ("process_resident_memory_bytes",) in found


def test_a_full_queue_is_not_ready_and_counts_as_pending(model):
    slow = Slow(model)
    with running(slow, LIMITS._replace(max_queue=1)) as port, ThreadPoolExecutor(1) as pool:
        assert ask(port, method="GET", path="/ready") == (200, {"status": "ready"})
        answer = pool.submit(ask, port, BODY, NPY)
        assert slow.asked.wait(30)
        assert ask(port, method="GET", path="/ready") == (503, {"error": "1 requests are pending: try again"})
        assert ask(port, method="GET", path="/health")[0] == 200
        assert samples(port)["clustering_jax_pending_requests",] == 1
        slow.go.set()
        assert answer.result()[0] == 200
        assert ask(port, method="GET", path="/ready")[0] == 200


def test_a_server_that_computes_no_batches_is_not_ready(model, monkeypatch):
    async def fails(self):
        raise MemoryError

    monkeypatch.setattr("clustering_jax.serving.app.Batcher.serve", fails)
    with running(model) as port:
        status, found = ask(port, method="GET", path="/ready")
        assert status == 503 and "no batches are computed" in found["error"]


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
def test_probes_may_send_head(port, path):
    assert get(port, path, "HEAD")[::2] == (200, "")


@contextmanager
def logged(caplog):
    """The lines of the access log that are written in the block, and in the moment after an answer."""
    lines = []
    ACCESS_LOG.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO, ACCESS_LOG.name):
            yield lines
    finally:
        ACCESS_LOG.removeHandler(caplog.handler)
        lines += [record.getMessage() for record in caplog.records if record.name == ACCESS_LOG.name]


def test_the_access_log_has_a_line_of_json_for_each_request(model, caplog):
    with logged(caplog) as lines, running(model) as port:
        status, found = ask(port, BODY, NPY, path="/predict?top_k=2")
        ask(port, b"x", "text/plain")
        get(port, '/a%0A{"status":200}')
        get(port, f"/{'x' * 3000}?{'y' * 3000}")
    assert not any("\n" in line or len(line) > 1000 for line in lines)
    first, second, third, last = map(json.loads, dict.fromkeys(lines))
    assert (status, first["status"], first["rows"], first["query"]) == (200, 200, 3, "top_k=2")
    assert first["client"] == "127.0.0.1" and first["method"] == "POST" and first["ms"] > 0
    assert first["bytes"] == len(json.dumps(found, separators=(",", ":")))
    assert (second["status"], third["status"], third["path"]) == (415, 404, '/a\n{"status":200}')
    assert "rows" not in second and len(last["path"]) == 200


@pytest.mark.parametrize("flag, count", [("", 1), ("--no_access_log", 0)])
def test_the_command_starts_the_access_log_and_ends_it(model, tmp_path, monkeypatch, flag, count):
    """A program that runs the command in its own process and goes on has no handler of a closed stream left."""
    before, counts = len(ACCESS_LOG.handlers), []

    def listening(host, port):
        counts.append(len(ACCESS_LOG.handlers) - before)
        raise ValueError("no port")

    monkeypatch.setattr(serve, "_listening", listening)
    monkeypatch.setattr(serve.Model, "load", lambda *args, **kwargs: model)
    with pytest.raises(ValueError, match="no port"):
        serve.main(["serve", str(tmp_path), *filter(None, [flag])])
    assert counts == [count] and len(ACCESS_LOG.handlers) == before


def test_top_k_and_embeddings_are_those_of_the_model(port, model):
    outputs = model.run(model.inputs.features(EMBEDDINGS, "x"))
    found = ask(port, BODY, NPY, path="/predict?top_k=3&embeddings=true")[1]
    assert set(found) == {"clusters", "top", "embeddings", "names"}
    np.testing.assert_allclose(found["embeddings"], outputs.embeddings, atol=1e-5)
    for choices, row in zip(found["top"], outputs.probabilities, strict=True):
        best = sorted(range(CLUSTERS), key=lambda c, row=row: -row[c])[:3]
        assert [c["cluster"] for c in choices] == best and [c["names"] for c in choices] == [NAMES[c] for c in best]
        np.testing.assert_allclose([c["probability"] for c in choices], row[best], atol=1e-5)
    assert set(ask(port, BODY, NPY)[1]) == {"clusters", "probabilities", "names"}


def test_equal_probabilities_are_in_the_order_of_the_clusters():
    outputs = Outputs(np.array([[0.2, 0.4, 0.4]], np.float32), np.zeros((1, 2), np.float32))
    found = prediction(outputs, Options(top_k=2), [], ["a.png"])
    assert found["clusters"] == [1] and [c["cluster"] for c in found["top"][0]] == [1, 2]
    assert found["files"] == ["a.png"] and "names" not in found["top"][0][0]


@pytest.mark.parametrize(
    "path, words",
    [
        ("/predict?topk=3", "'topk' is unknown (did you mean 'top_k'?)"),
        ("/predict?top_k=3&verbose", "'verbose' is unknown"),
        ("/predict?top_k=6", "top_k is 6, the model has 5 clusters"),
        ("/predict?top_k=-1", "top_k is '-1': input should be greater than or equal to 0"),
        ("/predict?top_k=1.5", "top_k is '1.5'"),
        ("/predict?embeddings=perhaps", "embeddings is 'perhaps'"),
        (f"/predict?{'x' * 5000}=1", "xxx"),
        ("/health?top_k=1", "'top_k' is unknown: this path takes none"),
        ("/ready?x=1", "'x' is unknown"),
        ("/metrics?name=up", "'name' is unknown"),
    ],
)
def test_unknown_and_wrong_query_parameters_are_refused_in_one_line(port, path, words):
    posted = {"method": "POST", "body": BODY, "media": NPY} if path.startswith("/predict") else {"method": "GET"}
    status, found = ask(port, path=path, **posted)
    assert status == 400 and list(found) == ["error"] and words in found["error"] and len(found["error"]) < 300


def test_a_refused_query_lets_the_client_send_its_body_to_the_end(port):
    large = as_json({"image": np.ones((20_000, 12))})
    for _ in range(3):
        assert ask(port, large, JSON, path="/predict?verbose=1")[0] == 400
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(b"POST /predict?x=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab")
    assert ask(port, BODY, NPY)[0] == 200


def test_a_name_replaces_that_of_the_directory(model):
    assert Service(model, Limits()).facts.name == "nouns"
    assert Service(model, Limits(), "street").facts.name == "street"
