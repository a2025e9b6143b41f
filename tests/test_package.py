"""Tests the installed package: the distributions, the console script, configs and methods by name."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

import clustering_jax
from clustering_jax import __main__, cli, data, main
from clustering_jax.errors import UserError
from clustering_jax.settings import config_files
from tests.paths import ROOT
from tests.test_run import environment

# The files that the build reads. A build writes into its directory, so it gets a copy.
SOURCES = ("clustering_jax", "configs", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "Makefile")
KEYS = cli.documented
PACKAGE = ROOT / "clustering_jax"
NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))


def build(kind, source, output):
    """Builds a distribution with the project's build backend and without build isolation, so nothing is downloaded."""
    program = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(output)!r}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return output / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """The source distribution, and the wheel that is built from it."""
    if int(version("setuptools").split(".")[0]) < 77:
        pytest.skip("setuptools is older than the build needs: install the extra 'test'")
    tree, built = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for path in map(ROOT.joinpath, SOURCES):
        shutil.copytree(path, tree / path.name) if path.is_dir() else shutil.copy(path, tree)
    sdist = build("sdist", tree, built)
    with tarfile.open(sdist) as archive:
        archive.extractall(tree / "unpacked", filter="data")
    return sdist, build("wheel", *(tree / "unpacked").iterdir(), built)


@pytest.mark.long
def test_the_wheel_holds_the_package_and_the_configs(distributions):
    with zipfile.ZipFile(distributions[1]) as wheel:
        files = set(wheel.namelist())
        (metadata,) = (wheel.read(name).decode() for name in files if name.endswith("/METADATA"))
    expected = {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py")}
    expected |= {f"clustering_jax/report/assets/{path.name}" for path in (PACKAGE / "report" / "assets").iterdir()}
    expected |= {"clustering_jax/py.typed", *(f"clustering_jax/configs/{name}.py" for name in NAMES)}
    assert {name for name in files if ".dist-info/" not in name} == expected
    assert f"Version: {clustering_jax.__version__}\n" in metadata
    needed = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert not any(name in line for line in needed for name in ("tensorflow", "array-record", "pyarrow"))


@pytest.mark.long
def test_the_source_distribution_can_be_built_again(distributions):
    with tarfile.open(distributions[0]) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "setup.py", "Makefile", "LICENSE", *(f"configs/{name}.py" for name in NAMES)} <= files


@pytest.fixture(scope="module")
def installed(distributions, tmp_path_factory):
    """Installs the wheel in a new environment that sees the other packages of the tests; returns its bin directory."""
    directory = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
    pip = [sys.executable, "-m", "pip", "--python", directory / "bin" / "python", "install", "-q"]
    subprocess.run([*pip, "--no-deps", "--no-index", distributions[1]], check=True, env=outside())
    # This comes last, so that pip does not find the installation of the package for the tests.
    (packages,) = directory.glob("lib/python*/site-packages")
    (packages / "tests.pth").write_text(f"{Path(find_spec('jax').origin).parents[1]}\n")
    return directory / "bin"


def outside():
    """The environment of a program that does not see the source tree."""
    return {name: value for name, value in environment().items() if name != "PYTHONPATH"}


def call(program, *arguments, cwd):
    """Exit code and both outputs of an installed program."""
    done = subprocess.run([program, *arguments], cwd=cwd, env=outside(), capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.long
def test_the_installed_command_trains_a_config_by_name(installed, tmp_path):
    program = installed / "clustering-jax"
    flags = ("--config=cc_digits:smoke", "--workdir=run", "--config.model.width=4", "--config.kmeans_baseline=False")
    code, out, err = call(program, "train", *flags, cwd=tmp_path)
    assert code == 0 and "acc" in out.lower(), err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["versions"]["clustering_jax"] == clustering_jax.__version__
    code, out, err = call(installed / "python", "-c", "import clustering_jax as c; print(c.__file__)", cwd=tmp_path)
    assert code == 0 and Path(out.strip()).is_relative_to(installed.parent), err


@pytest.mark.long
def test_the_installed_command_prints_its_version(installed, tmp_path):
    program = installed / "clustering-jax"
    code, out, _ = call(program, "--version", cwd=tmp_path)
    assert code == 0 and out.startswith(f"clustering_jax {clustering_jax.__version__} (jax ")
    code, out, err = call(program, "train", "--workdir=run", cwd=tmp_path)
    assert (code, out) == (2, "") and err.startswith("error: --config is missing: clustering-jax train --config=NAME")


# --- The commands


def test_without_arguments_every_command_is_listed(capsys):
    __main__.main(["/somewhere/clustering-jax"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("usage: clustering-jax ")
    assert [line.split()[0] for line in lines[3:]] == list(__main__.COMMANDS)
    __main__.main(["/somewhere/clustering_jax/__main__.py"])
    assert capsys.readouterr().out.startswith("usage: python -m clustering_jax ")


def test_an_unknown_command_is_refused_with_the_nearest(capsys):
    with pytest.raises(SystemExit) as ended:
        __main__.main(["clustering-jax", "choose_k"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: there is no command 'choose_k' (did you mean 'choose-k'?)\n"


@pytest.mark.parametrize("name", __main__.COMMANDS)
def test_help_shows_the_command_as_it_was_called(name, monkeypatch, capsys):
    monkeypatch.setattr("clustering_jax.cli.use_huge_pages", lambda: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("warnings.formatwarning", None)
    monkeypatch.setattr("jax.config.update", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        __main__.main(["clustering-jax", name, "--help"])
    out = capsys.readouterr().out
    assert not ended.value.code and f"clustering-jax {name} " in out.splitlines()[0] and "python -m" not in out


# --- Configs


def flags(*arguments):
    return main.read_flags(["clustering-jax train", *arguments], "workdir", main.__doc__)


def test_the_published_configs_have_names():
    assert config_files.names() == NAMES and config_files.directory() == ROOT / "configs"


@pytest.mark.parametrize("given", [("--config=cc_digits:smoke",), ("--config", "cc_digits:smoke")])
def test_a_name_and_a_path_are_the_same_config(given):
    path = f"--config={ROOT / 'configs' / 'cc_digits.py'}:smoke"
    assert flags(*given, "--config.seed=4", "--workdir=x") == flags(path, "--config.seed=4", "--workdir=x")


def test_a_file_of_the_user_comes_before_a_published_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "configs" / "cc_digits.py").read_text()
    (tmp_path / "mine.py").write_text(text.replace("num_clusters=10", "num_clusters=7"))
    assert flags("--config=mine.py", "--workdir=x")[0]["num_clusters"] == 7


@pytest.mark.parametrize(
    "given, words",
    [
        ("--config=cc_digit", ["did you mean 'cc_digits'", "cmmc_bdgp"]),
        ("--config=zzz:smoke", ["zzz", "(known: cc_arrays, "]),
        ("--config=configs/zzz.py", ["no file configs/zzz.py"]),
    ],
)
def test_an_unknown_config_is_refused(given, words):
    with pytest.raises(UserError) as refused:
        flags(given, "--workdir=x")
    assert all(word in str(refused.value) for word in words) and str(refused.value).count("known:") <= 1


def test_print_shows_the_resolved_config_without_jax(tmp_path):
    program = (
        "import sys; from clustering_jax.__main__ import main\ntry: main()\nfinally: assert 'jax' not in sys.modules"
    )
    arguments = ("train", "--config=cc_digits:smoke", "--config.seed=5", "--print")
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "GLIBC_TUNABLES": ""}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=tmp_path, env=variables, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    config = json.loads(done.stdout)
    assert (config["seed"], config["method"], config["data"]["source"]) == (5, "cc", "synthetic")


@pytest.mark.parametrize("ends", [False, True], ids=["returns", "sys.exit"])
def test_a_reader_that_ends_early_is_no_error(monkeypatch, capfd, ends):
    """As `clustering-jax train --print | head` does."""
    reader, writer = os.pipe()
    os.close(reader)

    def prints():
        print("a line\n" * 10)
        if ends:
            sys.exit(0)

    with os.fdopen(writer, "w") as closed, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", closed)
        with pytest.raises(SystemExit) as ended:
            cli.run(prints)
    assert not ended.value.code and capfd.readouterr() == ("", "")


def test_another_broken_pipe_is_an_error():
    def breaks():
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        cli.run(breaks)


def test_help_lists_the_keys_of_the_config_with_their_comments(capsys, monkeypatch):
    monkeypatch.setattr(cli, "documented", lambda config: [k._replace(comment=f"About {k.name}") for k in KEYS(config)])
    with pytest.raises(SystemExit) as ended:
        flags("--config=cc_digits", "--help", "--config.model.width=4")
    out = capsys.readouterr().out
    assert (
        not ended.value.code
        and "model.width = 4" in out
        and "optimizer.learning_rate = 0.001\n        About optimizer.learning_rate\n" in out
    )


# --- Extras


def test_a_prepared_set_without_its_library_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "cifar10" / "3.0.2").mkdir(parents=True)
    (tmp_path / "cifar10" / "3.0.2" / "dataset_info.json").write_text('{"fileFormat": "array_record"}')
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match=r"clustering_jax\[tfds\]"):
        data.load("tfds", name="cifar10", tfds_dir=str(tmp_path))
