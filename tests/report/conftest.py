"""A browser, a finished run with its report in it, and a report with pictures."""

import pytest

from clustering_jax import report
from clustering_jax.report.page import page
from tests.editing import small
from tests.report import report_content as made
from tests.report.browser import browser, data_of, opened


@pytest.fixture(scope="module")
def chromium():
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The workdir of a run with its report, the data of the page, and the parts of the rows."""
    workdir, part = small.trained(tmp_path_factory.mktemp("workbench"))
    report.write(workdir)
    return workdir, data_of((workdir / "report.html").read_text()), part


@pytest.fixture
def bench(chromium, finished):
    with opened(chromium, finished[0] / "report.html") as bench:
        yield bench


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    file = tmp_path_factory.mktemp("digits") / "report.html"
    file.write_text(page(made.content(), "pca"), encoding="utf-8")
    return file
