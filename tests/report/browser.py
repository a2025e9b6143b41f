"""Opens pages in a headless Chromium that is installed on this machine, and what the tests do with them."""

import json
import re
import shutil
from contextlib import contextmanager

import numpy as np
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


def data_of(text):
    """The data of a page, which its script reads."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def place(bench, data, row):
    """Where a row is on the page, as the script places it."""
    box = bench.locator("#pointer").bounding_box()
    x, y = (data["rows"][name][row] / 10_000 for name in "xy")
    return box["x"] + 14 + x * (box["width"] - 28), box["y"] + 14 + y * (box["height"] - 28)


def lasso(bench, data, rows, shift=False):
    """Draws a rectangle around rows."""
    bench.locator("#pointer").scroll_into_view_if_needed()
    at = np.array([place(bench, data, row) for row in rows])
    (left, top), (right, bottom) = at.min(0) - 5, at.max(0) + 5
    if shift:
        bench.keyboard.down("Shift")
    bench.mouse.move(left, top)
    bench.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom), (left, top + 1)):
        bench.mouse.move(x, y, steps=4)
    bench.mouse.up()
    if shift:
        bench.keyboard.up("Shift")


def downloaded(bench, button, directory):
    with bench.expect_download() as waiting:
        bench.click(button)
    waiting.value.save_as(directory / "file")
    return (directory / "file").read_text("utf-8")


def alone(data):
    """A row with no other row near it on the map, and inside of it."""
    at = np.stack([data["rows"]["x"], data["rows"]["y"]], 1).astype(float)
    apart = np.sqrt(((at[:, None] - at) ** 2).sum(2)) + 1e9 * np.eye(len(at))
    return int(np.where(((at > 500) & (at < 9500)).all(1), apart.min(1), 0).argmax())
