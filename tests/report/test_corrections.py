"""Tests corrections in a browser: what the page offers, and `edit` with the file that it writes."""

import json

import numpy as np
import pytest

from clustering_jax import report
from clustering_jax.editing import Request, edit
from clustering_jax.editing.request import from_file
from clustering_jax.report.page import page
from tests.report import report_content as made
from tests.report.browser import alone, data_of, downloaded, lasso, opened

pytestmark = pytest.mark.long


def corrected(bench, data, rows):
    """Merges 1 and 3, splits 2, renames 0, and moves rows to 0."""
    bench.check("[aria-label='Merge cluster 3']")
    bench.check("[aria-label='Merge cluster 1']")
    bench.click("#merge")
    bench.click("#cluster-2 >> text=Split")
    bench.fill("[aria-label='Name of cluster 0']", ' "street" signs, <b>')
    bench.locator("[aria-label='Name of cluster 0']").blur()
    bench.locator("#cluster-0 label", has_text="lock").click()
    lasso(bench, data, rows)
    bench.select_option("#target", "0")
    bench.click("#move")


def test_edit_takes_the_corrections(bench, finished, tmp_path):
    workdir, data, part = finished
    row = alone(data)
    corrected(bench, data, [row])
    assert bench.locator("#corrections li").count() == 5 - (data["rows"]["cluster"][row] == 0)
    text = downloaded(bench, "#download", tmp_path)
    found = json.loads(text)
    moved = {str(data["rows"]["id"][row]): 0} if data["rows"]["cluster"][row] else {}
    assert found == {
        "merge": [[1, 3]],
        "split": {"2": 2},
        "rename": {"0": '"street" signs, <b>'},
        **({"move": moved} if moved else {}),
        "lock": [0],
    }
    result = edit(workdir, tmp_path / "new", from_file(tmp_path / "file"))
    assert result["clusters"] == [0, 1, 2, 4]
    after = data_of(report.write(tmp_path / "new").read_text())
    assert [(c["number"], c["words"], c["locked"]) for c in after["clusters"]] == [
        (0, ['"street" signs, <b>'], True),
        (1, [], False),
        (2, [], False),
        (4, [], False),
    ]
    assert after["rows"]["cluster"][row] == 0
    own = np.array(after["rows"]["cluster"])
    assert set(np.delete(own, row)[np.delete(np.isin(part, (1, 3)), row)].tolist()) == {1}


def test_corrections_that_contradict_each_other_are_not_offered(bench):
    bench.fill("[aria-label='Name of cluster 3']", "gone")
    bench.locator("[aria-label='Name of cluster 3']").blur()
    for number in (3, 1):
        bench.check(f"[aria-label='Merge cluster {number}']")
    bench.click("#merge")
    bench.wait_for_selector("#corrections >> text=Merge 1, 3")
    assert bench.inner_text("#cluster-3 .state") == "Becomes part of cluster 1."
    assert "gone" not in bench.inner_text("#corrections")
    assert bench.is_disabled("[aria-label='Merge cluster 3']") and bench.is_disabled("#cluster-1 >> text=Split")
    assert not bench.is_editable("[aria-label='Name of cluster 3']")
    bench.click("#cluster-2 >> text=Split")
    bench.wait_for_selector("[aria-label='Merge cluster 2']:disabled")
    for _ in range(2):
        bench.locator("#corrections button").first.click()
    bench.wait_for_selector("#no-corrections")
    assert not bench.is_disabled("[aria-label='Merge cluster 3']")


def test_a_cluster_that_is_locked_stays_as_it_is(chromium, finished, tmp_path):
    edit(finished[0], tmp_path / "locked", Request(lock=[1], rename={1: "safe"}))
    with opened(chromium, report.write(tmp_path / "locked")) as bench:
        assert bench.is_disabled("[aria-label='Merge cluster 1']") and bench.is_disabled("#cluster-1 >> text=Split")
        assert bench.inner_text("#cluster-1 .state") == "Locked."
        bench.click("#cluster-1 >> text=Select these")
        bench.wait_for_selector("#bar:not([hidden])")
        assert "1 safe" not in bench.locator("#target option").all_inner_texts()
        bench.click("#move")
        assert bench.text_content("#status") == "12 rows of locked clusters stay; 0 rows moved."
        bench.locator("#cluster-1 label", has_text="lock").click()
        bench.click("#cluster-1 >> text=Split")
        assert json.loads(downloaded(bench, "#download", tmp_path)) == {"split": {"1": 2}, "unlock": [1]}
        bench.locator("#cluster-1 label", has_text="lock").click()
        bench.wait_for_selector("#no-corrections")


def test_the_page_of_an_unfinished_run_only_shows(chromium, tmp_path):
    text = page(made.content()._replace(finished=False), "pca")
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    with opened(chromium, tmp_path / "report.html") as bench:
        bench.locator(".tile").first.click(modifiers=["Control"])
        bench.wait_for_selector("#bar:not([hidden])")
        assert not bench.is_editable("[aria-label='Name of cluster 1']")
        assert not bench.locator("[aria-label='Merge cluster 1'], #move, #download").count()


def drag(bench, start, end, steps=8):
    """Drags from the middle of one element to the middle of another; both must be on the screen."""
    places = [bench.locator(name).first.bounding_box() for name in (start, end)]
    (x, y), (right, below) = [(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2) for box in places]
    bench.mouse.move(x, y)
    bench.mouse.down()
    bench.mouse.move(right, below, steps=steps)


def moved(bench, directory):
    return json.loads(downloaded(bench, "#download", directory)).get("move", {})


def test_rows_are_dragged_onto_a_card(chromium, digits, tmp_path):
    """A row alone, the whole selection by one of its rows, and the selection by its number."""
    ids, own = (data_of(digits.read_text())["rows"][name] for name in ("id", "cluster"))
    with opened(chromium, digits, viewport={"width": 1600, "height": 2400}) as bench:
        shown = {
            c: [int(t.get_attribute("data-row")) for t in bench.locator(f"#cluster-{c} .tile").all()] for c in (0, 1)
        }
        assert all(own[row] == c for c in shown for row in shown[c])
        first, second, third = shown[0][:3]
        drag(bench, f".tile[data-row='{first}']", "#cluster-1 h3")
        assert bench.inner_text("#ghost").startswith("1 row → cluster 1")
        bench.mouse.up()
        assert not bench.locator("#ghost, #large[open], .target").count()
        assert bench.text_content("#status") == "1 row moved."
        assert moved(bench, tmp_path) == {str(ids[first]): 1}
        for row in (second, third):
            bench.locator(f".tile[data-row='{row}']").first.click(modifiers=["Control"])
        drag(bench, f".tile[data-row='{second}']", "#cluster-1 h3")
        bench.mouse.up()
        assert moved(bench, tmp_path) == {str(ids[row]): 1 for row in (first, second, third)}
        assert bench.is_hidden("#selection")
        bench.locator(f".tile[data-row='{shown[1][0]}']").first.click(modifiers=["Control"])
        bench.wait_for_selector("#selected:visible")
        drag(bench, "#selected", "#cluster-0 h3")
        bench.mouse.up()
        assert moved(bench, tmp_path)[str(ids[shown[1][0]])] == 0


def test_a_drag_that_ends_elsewhere_moves_nothing(chromium, finished, tmp_path):
    edit(finished[0], tmp_path / "locked", Request(lock=[1]))
    with opened(chromium, report.write(tmp_path / "locked"), viewport={"width": 1600, "height": 2400}) as bench:
        drag(bench, "#cluster-0 .tile", "#cluster-1 h3")
        assert bench.inner_text("#ghost") == "1 row"
        bench.mouse.up()
        drag(bench, "#cluster-0 .tile", "#cluster-2 h3")
        bench.keyboard.press("Escape")
        bench.mouse.up()
        drag(bench, "#cluster-0 .tile", "#cluster-0 .tile", steps=1)
        bench.mouse.up()  # a press without a drag is a click
        bench.wait_for_selector("#large[open]")
        assert bench.locator("#corrections li").count() == 0
