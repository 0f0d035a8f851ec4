"""The Runs view in a browser: what is chosen is drawn, by mouse and by keys, in both themes."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import serving

from charlm.api.loading import load
from charlm.api.plots import read_log
from charlm.server.service import Service
from charlm.units import bits

RUN = Path(__file__).parents[1] / "fixtures" / "format-1"


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """Open a page; a folder with two runs that have logs, and one that has none, is shown in it."""
    opened = chromium.new_page()
    yield opened
    opened.close()


NEXT_FRAME = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


@pytest.mark.browser
def test_chosen_runs_are_drawn(page, tmp_path: Path) -> None:
    """With their names, over what is asked for; keys move a cursor that reads out the logs."""
    for name in ("one", "two", "bare"):
        shutil.copytree(RUN, tmp_path / name)
    (tmp_path / "bare" / "metrics.jsonl").unlink()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    with serving(Service([load(RUN)], checkpoints=tmp_path)) as server:
        page.goto(f"{server.url}/#runs")
        page.wait_for_selector("#runs tbody tr")
        assert page.locator("#curves path").count() == 5  # tales and prose are listed, too
        assert page.locator("#curves path.level").count() == 3
        page.get_by_role("checkbox", name="bare").uncheck()
        page.get_by_role("checkbox", name="two").uncheck()
        assert page.locator("#curves path").count() == 3
        check_names(page, ["one", "prose", "tales"])
        page.get_by_role("radio", name="token", exact=True).check(force=True)
        page.get_by_role("radio", name="steps").check(force=True)
        assert page.locator("#curves-title").inner_text() == "Bits per token"
        check_cursor(page, tmp_path / "one")
        page.get_by_role("button", name="None").click()
        assert "Choose a run." in page.locator("#curves").text_content()
        page.get_by_role("button", name="All").click()
        check_names(page, ["one", "two", "bare", "prose", "tales"])
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            for width in (1280, 400):
                page.set_viewport_size({"width": width, "height": 900})
                page.evaluate(NEXT_FRAME)  # a resize is told with a frame
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                check_names(page, ["one", "two", "bare", "prose", "tales"])
        assert errors == []


def check_names(page, names: list[str]) -> None:
    """Check that each line has its name, that names are inside, and that none covers another."""
    labels = page.locator("#curves .name")
    assert sorted(labels.all_text_contents()) == sorted(names)
    outer = page.locator("#curves").bounding_box()
    boxes = sorted((label.bounding_box() for label in labels.all()), key=lambda box: box["y"])
    assert all(outer["x"] <= box["x"] for box in boxes)
    assert all(box["x"] + box["width"] <= outer["x"] + outer["width"] + 1 for box in boxes)
    for at, above in enumerate(boxes):
        for below in boxes[at + 1 :]:
            side = (
                above["x"] + above["width"] <= below["x"]
                or below["x"] + below["width"] <= above["x"]
            )
            assert side or below["y"] >= above["y"] + 13


def check_cursor(page, run: Path) -> None:
    """Check that the keys End and Home read out the last and the first loss of a log."""
    steps = [record for record in read_log(run).records if record["kind"] == "step"]
    page.locator("#curves").focus()
    for key, record in (("End", steps[-1]), ("Home", steps[0])):
        page.keyboard.press(key)
        shown = page.locator("#readout tr", has_text="one").locator("td").first.inner_text()
        assert float(shown) == pytest.approx(bits(record["nats_per_token"]), abs=6e-4)
    page.keyboard.press("Escape")
    assert page.locator("#readout").is_hidden()
    label = page.locator("#curves").get_attribute("aria-label")
    assert re.match(r"Bits per token over steps: one ends at \d", label)
