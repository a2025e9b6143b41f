"""Tests the server: accepted and refused requests, many clients at the same time, limits, and the end."""

import asyncio
import hashlib
import http.client
import io
import json
import re
import signal
import socket
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import uvicorn
from PIL import Image

from clustering_jax import __version__, cli, serve
from clustering_jax.serving import export
from clustering_jax.serving.app import application
from clustering_jax.serving.artefact import MANIFEST, SUMS, Model
from clustering_jax.serving.batching import Batcher
from clustering_jax.serving.requests import Limits, RefusedRequest, decode_features
from tests.runs import CLUSTERS, NAMES, contents_of, rows
from tests.test_run import start

JSON, NPY, FORM = "application/json", "application/x-npy", "multipart/form-data"
LIMITS = Limits(max_bytes=100_000, max_rows=20, max_batch=16)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Directories of exported models."""
    root = tmp_path_factory.mktemp("served")
    for method in ("cc", "cmmc", "dxmc"):
        export.write(contents_of(method), root / method)
    return {method: root / method for method in ("cc", "cmmc", "dxmc")}


@pytest.fixture(scope="module")
def dxmc(models):
    """A loaded model."""
    model = Model.load(models["dxmc"], max_batch=16)
    model.compile()
    return model


@contextmanager
def running(model, limits=LIMITS):
    """The port of a server in a thread."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        config = uvicorn.Config(application(model, limits), log_config=None, access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def ports(models):
    """A server of each model."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(running(Model.load(path, max_batch=16))) for name, path in models.items()}


def ask(port, body=b"", media="", *, method="POST", path="/predict"):
    """Status and parsed JSON of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, {"Content-Type": media} if media else {})
        response = connection.getresponse()
        text = response.read()
        assert response.headers["content-type"] == JSON and b"\n" not in text and b"Traceback" not in text
        return response.status, json.loads(text)
    finally:
        connection.close()


def npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def npz(save=np.savez, **arrays):
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def picture(pixels, kind="png"):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def form(*files):
    """Body and media type; the files are called 0.png, 1.png, ..."""
    head = b'--edge\r\nContent-Disposition: form-data; name="f"; filename="%d.png"\r\n\r\n%b\r\n'
    parts = (head % named for named in enumerate(files))
    return b"".join(parts) + b"--edge--\r\n", f"{FORM}; boundary=edge"


def as_json(arrays):
    return json.dumps({name: array.tolist() for name, array in arrays.items()}).encode()


def test_health_describes_the_model(ports, models):
    assert ask(ports["cmmc"], method="GET", path="/health") == (
        200,
        {
            "status": "ok",
            "name": "cmmc",
            "digest": f"sha256:{hashlib.sha256((models['cmmc'] / SUMS).read_bytes()).hexdigest()}",
            "version": __version__,
            "exported_by": __version__,
            "method": "cmmc",
            "clusters": CLUSTERS,
            "input": {
                "view0": {"dtype": "number", "shape": ["n", 7]},
                "view1": {"dtype": "number", "shape": ["n", 9]},
            },
            "max_rows": 20,
            "max_bytes": 100_000,
        },
    )


IMAGES, VIEWS, EMBEDDINGS = (rows(method, 3) for method in ("cc", "cmmc", "dxmc"))
PIXELS = IMAGES["image"][..., 0]
GOOD = {
    "npy": ("cc", npy(IMAGES["image"]), NPY, IMAGES),
    "npy without channels": ("cc", npy(PIXELS), "application/octet-stream", IMAGES),
    "npy in Fortran's order": ("cc", npy(np.asfortranarray(PIXELS)), NPY, IMAGES),
    "npz of any name": ("cc", npz(pictures=PIXELS), "application/x-npz", IMAGES),
    "levels in JSON": ("cc", as_json(IMAGES), JSON, IMAGES),
    "floats in JSON": ("cc", as_json({"image": PIXELS / 255}), f"{JSON}; charset=utf-8", IMAGES),
    "an image": ("cc", picture(PIXELS[1]), "image/png", {"image": PIXELS[1:2]}),
    "images": ("cc", *form(*map(picture, PIXELS)), IMAGES),
    "views in JSON": ("cmmc", as_json(VIEWS), JSON, VIEWS),
    "views": ("cmmc", npz(np.savez_compressed, **VIEWS), NPY, VIEWS),
    "one view": ("cmmc", npz(view1=VIEWS["view1"]), NPY, {"view1": VIEWS["view1"]}),
    "embeddings": ("dxmc", npy(EMBEDDINGS["image"]), NPY, EMBEDDINGS),
    "whole embeddings in JSON": ("dxmc", as_json({"image": np.eye(2, 12, dtype=int)}), JSON, {"image": np.eye(2, 12)}),
}


@pytest.mark.parametrize("name", GOOD)
def test_every_form_of_a_body_gives_the_result_of_predict(ports, models, name):
    method, body, media, arrays = GOOD[name]
    status, found = ask(ports[method], body, media)
    assert status == 200, found
    wanted = Model.load(models[method]).predict_proba(arrays)
    np.testing.assert_allclose(found["probabilities"], wanted, atol=1e-5)
    assert found["clusters"] == wanted.argmax(1).tolist()
    assert found.get("files") == ([f"{i}.png" for i in range(3)] if media.startswith(FORM) else None)
    assert found.get("names") == ([NAMES[c] for c in found["clusters"]] if method == "dxmc" else None)


def truncated(data):
    return data[: len(data) // 2]


def bomb():
    """A compressed array whose header gives a wrong, small size."""
    data = bytearray(npz(np.savez_compressed, view0=np.zeros((10**6, 7))))
    size = (10**6 * 7 * 8 + 128).to_bytes(4, "little")
    assert size in data
    return bytes(data.replace(size, (1000).to_bytes(4, "little")))


HUGE, LARGE = b"P6 20000 20000 255 ", b"P6 10000 10000 255 "
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
PPM = "image/x-portable-pixmap"
NO_DATA = npy(PIXELS[:1]).replace(b"(1, 8, 8)", b"(9, 8, 8)")
FIELD = b'--edge\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--edge--\r\n', f"{FORM}; boundary=edge"
BAD = {
    "truncated npy": ("cc", truncated(npy(IMAGES["image"])), NPY, 400, "damaged"),
    "truncated npz": ("cmmc", truncated(npz(**VIEWS)), NPY, 400, "damaged"),
    "pickled npy": ("cc", npy(np.array([{}], object), allow_pickle=True), NPY, 400, "Python objects"),
    "pickled npz": ("cmmc", npz(view0=np.array([[None]])), NPY, 400, "Python objects"),
    "header without data": ("cc", NO_DATA, NPY, 400, "64 bytes where its header says 576"),
    "wrong shape": ("cc", npy(np.zeros((2, 8), np.uint8)), NPY, 400, "images must be [n, h, w]"),
    "no rows at all": ("cc", npy(np.uint8(3)), NPY, 400, "images must be [n, h, w]"),
    "wrong dtype": ("cc", npy(np.zeros((1, 8, 8), complex)), NPY, 400, "must be uint8"),
    "wrong width": ("cmmc", npz(view0=np.ones((2, 6))), NPY, 400, "6 columns"),
    "NaN": ("cc", npy(np.full((1, 8, 8), np.nan)), NPY, 400, "NaN"),
    "NaN in JSON": ("cmmc", b'{"view0": [[NaN, 1, 1, 1, 1, 1, 1]]}', JSON, 400, "NaN is not a number"),
    "infinite in JSON": ("cmmc", b'{"view0": [[1e999, 1, 1, 1, 1, 1, 1]]}', JSON, 400, "not finite in float32"),
    "level 256": ("cc", b'{"image": [[[256]]]}', JSON, 400, "from 256 to 256"),
    "empty body": ("cc", b"", NPY, 400, "empty"),
    "empty array": ("cc", npy(np.zeros((0, 8, 8), np.uint8)), NPY, 400, "no images"),
    "empty list": ("cmmc", b'{"view0": []}', JSON, 400, "view0"),
    "no JSON": ("cc", b"{", JSON, 400, "not JSON"),
    "a list": ("cc", b"[1]", JSON, 400, "not JSON of arrays"),
    "uneven lists": ("cc", b'{"image": [[[1, 2], [3]]]}', JSON, 400, "not JSON of arrays"),
    "words": ("cmmc", b'{"view0": [["a"]]}', JSON, 400, "not numbers"),
    "objects": ("cmmc", b'{"view0": {"a": 1}}', JSON, 400, "not numbers"),
    "nested too deep": ("cc", b'{"image": ' + b"[" * 40_000, JSON, 400, "not JSON"),
    "not UTF-8": ("cc", b'{"image\xff": []}', JSON, 400, "not JSON"),
    "unknown name": ("cc", b'{"picture": [[[1]]]}', JSON, 400, "'picture'"),
    "a name without end": ("cc", json.dumps({"x" * 9000: [1]}).encode(), JSON, 400, "xxx"),
    "missing view": ("cmmc", b"{}", JSON, 400, "send view0, view1"),
    "unknown view": ("cmmc", npz(view2=np.ones((1, 7))), NPY, 400, "'view2'"),
    "views of uneven length": ("cmmc", npz(view0=np.ones((2, 7)), view1=np.ones((3, 9))), NPY, 400, "2 rows"),
    "npy for views": ("cmmc", npy(np.ones((2, 7))), NPY, 400, "send a .npz"),
    "too many rows": ("cc", npy(np.zeros((21, 8, 8), np.uint8)), NPY, 413, "21 rows, at most 20"),
    "too many files": ("cc", *form(*[picture(PIXELS[0])] * 21), 413, "21 rows, at most 20"),
    "oversize body": ("cc", bytes(100_001), NPY, 413, "100001 bytes, at most 100000"),
    "oversize when unpacked": ("cmmc", npz(np.savez_compressed, view0=np.zeros((2000, 7))), NPY, 413, "unpacked"),
    "not an image": ("cc", b"GIF no more", "image/gif", 400, "not an image"),
    "no format of ours": ("cc", EPS, "image/eps", 400, "not an image"),
    "truncated image": ("cc", truncated(picture(rows("cc", 1)["image"][0, ..., 0])), "image/png", 400, "can't be read"),
    "too many pixels": ("cc", HUGE, PPM, 413, "too large"),
    "too many pixels for a warning": ("cc", LARGE, PPM, 413, "10000 x 10000"),
    "image for views": ("cmmc", picture(PIXELS[0]), "image/png", 415, "not image files"),
    "image for embeddings": ("dxmc", *form(picture(PIXELS[0])), 415, "not image files"),
    "form without a file": ("cc", *FIELD, 400, "no file"),
    "form without a boundary": ("cc", b"x", FORM, 400, "boundary"),
    "form with an empty file": ("cc", *form(picture(PIXELS[0]), b""), 400, "'1.png' is empty"),
    "form with a damaged file": ("cc", *form(picture(PIXELS[0]), b"GIF"), 400, "'1.png' is not an image"),
    "form with a huge file": ("cc", *form(picture(PIXELS[0]), HUGE), 413, "'1.png' is too large"),
    "unknown type": ("cc", b"x", "text/plain", 415, "'text/plain' is unknown"),
    "no type": ("cc", b"x", "", 415, "'' is unknown"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize("name", BAD)
def test_invalid_requests_are_refused_in_one_line(ports, name):
    method, body, media, status, words = BAD[name]
    found = ask(ports[method], body, media)
    assert found[0] == status and list(found[1]) == ["error"], found
    assert words in found[1]["error"] and len(found[1]["error"]) <= 400
    assert ask(ports[method], method="GET", path="/health")[0] == 200


def test_a_wrong_uncompressed_size_takes_no_memory(models):
    data, inputs = bomb(), Model.load(models["cmmc"]).inputs
    tracemalloc.start()
    try:
        with pytest.raises(RefusedRequest, match="damaged"):
            decode_features(NPY, [data], inputs, LIMITS)
        assert tracemalloc.get_traced_memory()[1] < 2 * len(data)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "method, path, status",
    [("GET", "/predict", 405), ("POST", "/health", 405), ("GET", "/", 404), ("POST", "/predict/x", 404)],
)
def test_other_paths_and_methods_are_refused(ports, method, path, status):
    found = ask(ports["cc"], method=method, path=path)
    assert found[0] == status and f"{method} {path}" in found[1]["error"]


def facts_of(model):
    """What the server reads of a model beside its outputs."""
    return {name: getattr(model, name) for name in ("manifest", "inputs", "names", "name", "digest")}


def counted(model, calls):
    """Wraps `model`. Each call appends its number of rows to `calls`."""

    class Counted(SimpleNamespace):
        def run(self, features):
            calls.append(len(next(iter(features.values()))))
            return model.run(features)

    return Counted(**facts_of(model))


def test_fifty_parallel_clients_get_their_own_answers(dxmc):
    """Each client sends requests of one to three rows over one connection. Every answer belongs to the sent rows."""
    calls, clients, each = [], 50, 6
    data = rows("dxmc", clients * each * 3)["image"].reshape(clients, each, 3, -1)
    wanted = dxmc.predict_proba({"image": data.reshape(-1, data.shape[-1])}).reshape(clients, each, 3, -1)
    together = threading.Barrier(clients)

    def client(number):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        together.wait()
        for i in range(each):
            size = 1 + (number + i) % 3
            connection.request("POST", "/predict", npy(data[number, i, :size]), {"Content-Type": NPY})
            response = connection.getresponse()
            found = json.loads(response.read())
            assert response.status == 200, found
            np.testing.assert_allclose(found["probabilities"], wanted[number, i, :size], atol=1e-5)
        connection.close()
        return each

    with running(counted(dxmc, calls), LIMITS._replace(max_wait_ms=5)) as port, ThreadPoolExecutor(clients) as pool:
        assert sum(pool.map(client, range(clients))) == clients * each
    assert len(np.unique(wanted.round(4).reshape(-1, CLUSTERS), axis=0)) > 800
    assert sum(calls) == sum(1 + (number + i) % 3 for number in range(clients) for i in range(each))
    assert max(calls) <= 16 and len(calls) < clients * each / 2


class Slow:
    """A model that waits until it is released."""

    def __init__(self, model):
        self.__dict__.update(facts_of(model))
        self._model = model
        self.go, self.asked = threading.Event(), threading.Event()

    def run(self, features):
        self.asked.set()
        assert self.go.wait(30)
        return self._model.run(features)


def test_a_full_queue_refuses_requests_and_answers_the_queued_ones(dxmc):
    slow, body = Slow(dxmc), npy(EMBEDDINGS["image"])
    with running(slow, LIMITS._replace(max_queue=2)) as port, ThreadPoolExecutor(3) as pool:
        answers = as_completed([pool.submit(ask, port, body, NPY) for _ in range(3)])
        assert next(answers).result() == (503, {"error": "2 requests are pending: try again"})
        slow.go.set()
        assert [answer.result()[0] for answer in answers] == [200, 200]
        assert ask(port, body, NPY)[0] == 200


def test_an_answer_that_takes_too_long_times_out(dxmc):
    slow = Slow(dxmc)
    with running(slow, LIMITS._replace(timeout=1)) as port:
        found = ask(port, npy(EMBEDDINGS["image"]), NPY)
        assert found == (503, {"error": "there was no answer within 1 s: try again"})
        slow.go.set()
        assert ask(port, npy(EMBEDDINGS["image"]), NPY)[0] == 200


def test_a_body_that_does_not_arrive_times_out(dxmc):
    with running(dxmc, LIMITS._replace(timeout=1)) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            client.sendall(
                b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-npy\r\nContent-Length: 9\r\n\r\nab"
            )
            assert b" 408 " in client.recv(4096)
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            client.sendall(
                b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-npy\r\nContent-Length: 9\r\n\r\nab"
            )
        assert ask(port, npy(EMBEDDINGS["image"]), NPY)[0] == 200


def test_an_error_of_the_model_is_one_line_for_client_and_log(dxmc, capfd):
    class Broken(Slow):
        def run(self, features):
            raise RuntimeError("out of\nmemory")

    with running(Broken(dxmc)) as port:
        status, found = ask(port, npy(EMBEDDINGS["image"]), NPY)
        assert status == 500 and "the model failed" in found["error"]
        assert ask(port, npy(EMBEDDINGS["image"]), NPY)[0] == 500
    assert capfd.readouterr().err == "error: RuntimeError: out of memory\n" * 2


def batched(requests, *, max_batch=4, give_up=()):
    """Returns the batches and the answers for requests that are queued before the loop takes the first one."""
    batches = []

    def run(features):
        batches.append(features["x"].tolist())
        if -1 in features["x"]:
            raise ValueError("minus one")
        return features["x"] * 10

    async def all_of_them():
        batcher = Batcher(run, max_batch=max_batch, max_wait=0.01)
        tasks = [asyncio.create_task(batcher({"x": np.array(x)})) for x in requests]
        await asyncio.sleep(0)
        for i in give_up:
            tasks[i].cancel()
        await asyncio.sleep(0)
        loop = asyncio.create_task(batcher.serve())
        found = await asyncio.gather(*tasks, return_exceptions=True)
        loop.cancel()
        return [x.tolist() if isinstance(x, np.ndarray) else type(x).__name__ for x in found]

    return batches, asyncio.run(all_of_them())


@pytest.mark.parametrize(
    "requests, give_up, batches, answers",
    [
        ([[1], [2, 3], [4]], (), [[1, 2, 3, 4]], [[10], [20, 30], [40]]),
        ([[1, 2, 3], [4, 5], [6]], (), [[1, 2, 3], [4, 5, 6]], [[10, 20, 30], [40, 50], [60]]),
        ([[1, 2, 3, 4, 5, 6], [7]], (), [[1, 2, 3, 4, 5, 6], [7]], [[10, 20, 30, 40, 50, 60], [70]]),
        ([[1], [2], [3]], (1,), [[1, 3]], [[10], "CancelledError", [30]]),
        ([[1], [-1], [2, 3, 4]], (), [[1, -1], [2, 3, 4]], ["ValueError", "ValueError", [20, 30, 40]]),
        ([[1]], (0,), [], ["CancelledError"]),
    ],
)
def test_batches_have_a_maximal_size_and_requests_get_their_own_rows(requests, give_up, batches, answers):
    assert batched(requests, give_up=give_up) == (batches, answers)


@pytest.mark.long
def test_a_signal_ends_the_server_after_the_pending_requests(models):
    process = start("serve", models["dxmc"], "--port=0", "--max_wait_ms=2000", "--max_batch=4")
    try:
        line = process.stdout.readline()
        port = int(re.fullmatch(r"serving dxmc, 5 clusters on http://127.0.0.1:(\d+)\n", line)[1])
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(ask, port, npy(EMBEDDINGS["image"]), NPY)
            time.sleep(0.7)  # the batch waits for two seconds
            process.send_signal(signal.SIGTERM)
            status, found = answer.result()
        out, err = process.communicate(timeout=60)
        logged = json.loads(err)
        assert (status, process.returncode, out, logged["path"], logged["status"]) == (200, 0, "", "/predict", 200)
        np.testing.assert_allclose(
            found["probabilities"], Model.load(models["dxmc"]).predict_proba(EMBEDDINGS), atol=1e-5
        )
    finally:
        process.kill()


@pytest.mark.parametrize(
    "flags, words",
    [
        ("{tmp}", "is no exported model"),
        ("{model} --port=99999", "can't listen on --host=127.0.0.1 --port=99999"),
        ("{model} --port={taken}", "can't listen on"),
        ("{model} --host=no.such.host.invalid", "can't listen on"),
        ("{model} --max_rows=0", "--max_rows=0: choose a number above 0"),
        ("{model} --max_wait_ms=-1", "--max_wait_ms=-1.0"),
        ("{damaged}", "is damaged"),
    ],
)
def test_refusals_of_the_command_are_one_line(models, tmp_path, monkeypatch, capsys, flags, words):
    (tmp_path / "damaged").mkdir()
    for path in models["dxmc"].iterdir():
        (tmp_path / "damaged" / path.name).write_bytes(path.read_bytes()[path.name == MANIFEST :])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        known = {"tmp": tmp_path, "model": models["dxmc"], "damaged": tmp_path / "damaged"}
        given = flags.format(**known, taken=taken.getsockname()[1]).split()
        with pytest.raises(SystemExit) as caught:
            cli.run(lambda: serve.main(["serve", *given]))
    out, err = capsys.readouterr()
    assert caught.value.code == 2 and not out and words in err and err.count("\n") == 1
