"""Checks the lines of the Dockerfiles, and runs their commands without Docker. No image is built here."""

import json
import re
import shutil
import socket
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from clustering_jax import serve
from tests.launch.shell import LAUNCH, ROOT, call, environment

FILES = ("Dockerfile", "serve.Dockerfile")
KNOWN = {"FROM", "ARG", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT"}


def instructions(name):
    """The instructions of a Dockerfile with their arguments, in order."""
    lines = [line for line in (LAUNCH / name).read_text().splitlines() if not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in "\n".join(lines).replace("\\\n", " ").splitlines()]


def last(name, instruction):
    return [argument for word, argument in instructions(name) if word == instruction][-1]


@pytest.mark.parametrize("name", FILES)
def test_every_line_is_an_instruction_and_every_copied_path_exists(name):
    found = instructions(name)
    assert found[0][0] == "FROM" and {word for word, _ in found} <= KNOWN
    for word, argument in found:
        if word == "COPY":
            assert all((ROOT / source).exists() for source in argument.split()[:-1]), argument


def test_the_server_is_not_root_and_its_ports_agree():
    words = [word for word, _ in instructions("serve.Dockerfile")]
    user, group = map(int, last("serve.Dockerfile", "USER").split(":"))
    assert user > 0 and group > 0 and words.index("RUN") < words.index("USER") < words.index("ENTRYPOINT")
    python, _, module, *flags = json.loads(last("serve.Dockerfile", "ENTRYPOINT"))
    arguments = serve._arguments([module, *flags])
    assert (python, module, arguments.model, arguments.host) == ("python", serve.__name__, "/model", "0.0.0.0")
    port = last("serve.Dockerfile", "EXPOSE")
    assert arguments.port == int(port) and f"127.0.0.1:{port}/health" in last("serve.Dockerfile", "HEALTHCHECK")


class Health(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(self.server.status if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *_):
        pass


def health_command(port):
    """The command of HEALTHCHECK for another port."""
    python, *rest = json.loads(last("serve.Dockerfile", "HEALTHCHECK").partition("CMD")[2])
    assert python == "python"
    return [sys.executable, *(text.replace(":8000/", f":{port}/") for text in rest)]


@pytest.mark.parametrize("status, healthy", [(200, True), (503, False)])
def test_the_health_check_fails_if_the_server_does(status, healthy):
    with HTTPServer(("127.0.0.1", 0), Health) as server:
        server.status = status
        Thread(target=server.serve_forever, daemon=True).start()
        assert (call(*health_command(server.server_port)).returncode == 0) == healthy
        server.shutdown()


def test_the_health_check_fails_without_a_server():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert call(*health_command(port)).returncode == 1


@pytest.mark.long
@pytest.mark.parametrize("name", FILES)
def test_the_copied_files_are_sufficient_to_install_the_package(name, tmp_path):
    """pip builds the package from what COPY takes; setup.py names the packages."""
    context, target = tmp_path / "context", tmp_path / "target"
    context.mkdir()
    for word, argument in instructions(name):
        if word == "COPY":
            *sources, destination = argument.split()
            for source in map(ROOT.joinpath, sources):
                copy = shutil.copytree if source.is_dir() else shutil.copy
                copy(source, context / (source.name if destination == "./" else destination))
    run = last(name, "RUN")
    assert re.fullmatch(r'pip install --no-cache-dir -c constraints.txt (-e )?"\.\[\$EXTRA\]"', run)
    install = ("install", "-q", "--no-deps", "--no-build-isolation", "--target", target, context)
    call_pip = subprocess.run(
        [sys.executable, "-m", "pip", *map(str, install)], capture_output=True, text=True, env=environment()
    )
    assert call_pip.returncode == 0, call_pip.stderr
    assert (target / "clustering_jax" / "serve.py").is_file()
    assert (target / "clustering_jax" / "configs" / "cc_digits.py").is_file()
