"""Opens pages in a headless Chromium that is installed on this machine."""

import shutil
from contextlib import contextmanager

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")


@contextmanager
def browser():
    """A browser of Playwright; the test is skipped without one."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if BROWSER is None:
        pytest.skip("there is no Chromium here")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield opened
        opened.close()


@contextmanager
def opened(browser, file, root=None, **options):
    """The page of a file, which must log nothing and ask for no other file, or only for files below `root`."""
    wrong = []
    page = browser.new_page(**{"viewport": {"width": 1200, "height": 900}, **options})
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: None if is_near(request.url, root or file) else wrong.append(request.url[:200]))
    page.goto(file.as_uri())
    page.wait_for_selector(".cluster")
    yield page
    page.close()
    assert not wrong, wrong


def is_near(address, place):
    return address.startswith(("data:", "blob:", place.as_uri()))
