"""In a browser the report logs nothing, requests nothing and shows pictures. Skipped without a browser."""

import json
import re
import shutil
import subprocess
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from clustering_jax.report.page import page
from tests.report import report_content as made

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--v=0",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


def opened(directory, text, size, *flags):
    """``(picture, lines of the console, addresses the page asked for)``."""
    file, log, picture = (directory / name for name in ("page.html", "net.json", "page.png"))
    file.write_text(text, encoding="utf-8")
    own = (f"--user-data-dir={directory / 'user'}", f"--log-net-log={log}", f"--screenshot={picture}")
    command = [BROWSER, *FLAGS, *own, f"--window-size={size[0]},{size[1]}", *flags, file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    events = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    # Requests that the browser makes by itself have no origin.
    asked = [e["url"] for e in events if "url" in e and e.get("initiator", "not an origin") != "not an origin"]
    console = re.findall(r"CONSOLE:\d+\] (.*)", done.stderr)
    return np.asarray(Image.open(picture).convert("RGB")), console, asked


@pytest.fixture(scope="module")
def whole():
    return page(made.content("colour"), "pca")


@pytest.mark.long
@pytest.mark.parametrize(
    "size, dark",
    [
        pytest.param((500, 6000), False, id="narrow"),
        pytest.param((1280, 3000), False, id="wide"),
        pytest.param((1280, 3000), True, id="dark"),
    ],
)
def test_a_report_logs_nothing_and_is_not_empty(tmp_path, whole, size, dark):
    flags = ["--blink-settings=preferredColorScheme=0"] if dark else []
    picture, console, asked = opened(tmp_path, whole, size, *flags)
    assert picture.shape == (size[1], size[0], 3) and console == [] and asked == []
    colours = Counter(map(tuple, picture.reshape(-1, 3)[::7].tolist()))
    background = colours.most_common(1)[0][0]
    assert max(background) < 60 if dark else min(background) > 240
    assert len(colours) > 2000  # the colours of the members' pictures
    # Every band of the page shows something: no chart is blank, no section is missing.
    drawn = (picture != np.array(background)).any(2).any(1)
    ends = np.flatnonzero(drawn)[[0, -1]]
    bands = np.array_split(drawn[ends[0] : ends[1]], 20)
    assert all(band.any() for band in bands) and ends[1] > 1500


def test_nothing_is_wider_than_a_phone(tmp_path, whole):
    """In a frame of 390 pixels, the page does not scroll horizontally."""
    (tmp_path / "report.html").write_text(whole, encoding="utf-8")
    script = "document.title=f.contentDocument.documentElement.scrollWidth;console.log('width '+document.title)"
    frame = f'<iframe id="f" src="report.html" width="390" height="844" style="border:0" onload="{script}"></iframe>'
    _, console, _ = opened(tmp_path, frame, (500, 900), "--allow-file-access-from-files")
    assert any("width 390" in line for line in console), console


def test_the_checks_detect_errors_and_requests(tmp_path):
    text = '<img src="http://example.com/x.png"><script>console.error("boo")</script>'
    picture, console, asked = opened(tmp_path, text, (500, 400))
    assert any("boo" in line for line in console) and set(asked) == {"http://example.com/x.png"}
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) < 2000
