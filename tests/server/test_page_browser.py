"""The page of a server in a browser: writing, reading texts, the key, and what can fail."""

import math
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import Serving, serving

from charlm.api.loading import load
from charlm.report.page.page import FOLDER
from charlm.server.security import Access
from charlm.server.service import Service

SMALL_RUN = Path(__file__).parents[1] / "fixtures" / "format-1"
TEXT = 'The dog found the pie.\n"Where are <b>my</b> spoons?"'


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """Open a page that must not log an error, but for requests that fail."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    opened, errors = context.new_page(), []
    opened.on("console", lambda message: errors.append(message.text))
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    context.close()
    assert [each for each in errors if "Failed to load resource" not in each] == []


def write(page: Any, button: str = "Write", **fields: str) -> str:
    """Fill fields by their labels, write, and return the text with its prompt."""
    for label, value in fields.items():
        page.get_by_label(label.replace("_", " "), exact=True).fill(value)
    page.get_by_role("button", name=button, exact=True).click()
    return written(page)


def written(page: Any) -> str:
    """Return the text when it is complete."""
    page.wait_for_function("() => document.getElementById('stop').disabled && !writing.control")
    return str(page.locator("#written").text_content())


@pytest.mark.browser
def test_a_text_is_written_and_continued(page: Any, server: Serving) -> None:
    """As by `Model.sample`; an alternative keeps what is before it, More what is there."""
    page.goto(server.url)
    text = write(page, Begin_with="The dog", Tokens="30", Seed="3")
    assert text[7:] == load("tales").sample(30, prompt="The dog", temperature=0.8, seed=3)
    assert "30 tokens" in page.locator("#write-status").inner_text()
    page.locator("#written").focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    row = page.locator("#token li:not(.own)").first
    name, number = (
        row.locator("code").inner_text(),
        row.evaluate("e => [...e.parentElement.children].indexOf(e) + 1"),
    )
    page.keyboard.press(str(number))
    branched = written(page)
    assert branched[:12] == text[:12] and branched[12] == {"␣": " "}.get(name, name) != text[12]
    assert len(branched) == 7 + 6 + 30
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.closest('#token') !== null")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "written"
    longer = write(page, "More")
    assert longer.startswith(branched) and len(longer) == len(branched) + 30
    assert write(page, Stop_before=" ").startswith("The dog")
    assert "stopped before ␣" in page.locator("#write-status").inner_text()


@pytest.mark.browser
def test_a_stopped_text_is_what_was_seen(page: Any, server: Serving) -> None:
    """Tokens come faster than they are painted; More continues after the last one shown."""
    page.goto(server.url)
    page.get_by_label("Tokens", exact=True).fill("10000")
    page.get_by_role("button", name="Write", exact=True).click()
    page.wait_for_function("() => document.querySelectorAll('#written .t').length > 64")
    page.get_by_role("button", name="Stop").click()
    text = written(page)
    count = page.locator("#written .t").count()
    assert page.evaluate("writing.tokens.length") == count < 10_000
    assert page.locator("#write-status").inner_text().startswith(f"{count:,} tokens")
    assert write(page, "More", Tokens="5").startswith(text)


@pytest.mark.browser
def test_a_continued_text_is_one_text(page: Any, server: Serving) -> None:
    """Its tokens are sent as ids, with those of an alternative among them."""
    sent: list[dict[str, Any]] = []
    page.on("request", lambda r: sent.append(r.post_data_json) if "completions" in r.url else None)
    page.goto(server.url)
    text = write(page, Begin_with="The dog", Tokens="5")
    page.locator("#written .t").nth(2).click()
    page.locator("#token li:not(.own) button").first.click()
    branched = written(page)
    vocabulary = load("tales").vocabulary
    assert sent[0]["prompt"] == "The dog"
    assert vocabulary.decode(sent[1]["prompt"]) == branched[:10]
    assert branched[:9] == text[:9] and branched[9] != text[9]


@pytest.mark.browser
def test_a_text_is_read(page: Any, server: Serving) -> None:
    """Its figures are those of `Model.score`, in each view, and no markup comes of it."""
    page.goto(f"{server.url}#score")
    begun = page.locator("#prompt").input_value()
    page.get_by_label("Text", exact=True).fill(TEXT)
    page.keyboard.press("Control+Enter")
    page.wait_for_function("text => document.getElementById('text').textContent === text", arg=TEXT)
    own, other = (load(run).score([TEXT])[0] for run in ("tales", SMALL_RUN))
    assert f"{-own.tally.nats:.2f}" in page.locator("#totals").inner_text()
    page.get_by_role("tab", name="Compare").click()
    page.wait_for_function("() => document.querySelectorAll('#pairs tbody tr').length === 2")
    means = [each.tally.nats / math.log(2) / len(TEXT) for each in (own, other)]
    assert all(f"{mean:.3f}" in page.locator("#versus").inner_text() for mean in means)
    page.evaluate("page.view = 'inside'; point(3)")  # its text is not painted yet
    page.get_by_role("tab", name="Inside").click()
    page.get_by_label("that know where this matches").fill("[")
    page.get_by_role("button", name="Find", exact=True).click()
    page.wait_for_function("() => document.querySelector('#find-status.wrong')")
    page.get_by_label("that know where this matches").fill('"[^"]*"')
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#found [aria-selected=true]')")
    assert page.locator("#unit").input_value() == "2:8"
    page.select_option("#signal", "f")
    page.wait_for_function("() => document.getElementById('legend').textContent.includes('forget')")
    page.get_by_label("Model").select_option(SMALL_RUN.name)
    page.wait_for_function("() => page.inside?.units.length < 352")
    assert SMALL_RUN.name in page.title()
    assert page.get_by_label("Text", exact=True).input_value() == TEXT  # it was typed
    assert page.locator("#prompt").input_value() != begun  # it was suggested


@pytest.mark.browser
def test_small_parts_are_right(page: Any, server: Serving) -> None:
    """A rank beside the alternatives is a bound; long names have room; a beginning is short."""
    page.goto(server.url)
    page.wait_for_selector("body[data-ready=true]")
    top = [["a", 0.5], ["b", 0.2], ["c", 0.1], ["d", 0.05], ["e", 0.03], ["f", 0.001]]
    ranks = page.evaluate("top => top.map(([, chance]) => rankOf(top, chance))", top)
    assert ranks == [1, 2, 3, 4, 5, "> 5"]
    names = ["e", " the", "<0xE3>", " thoughtful"]
    classes = page.evaluate("names => names.map(name => codeOf(name).className)", names)
    assert classes == ["", "blank", "long", "blank long"]
    page.evaluate("suggest({ example: '\u5433'.repeat(300) })")
    assert page.locator("#prompt").input_value() == "\u5433" * 16
    page.locator("#prompt").fill("\u0628\u062f\u0623\u062a")
    assert page.locator("#prompt").get_attribute("dir") == "rtl"
    page.locator("#seed").fill("9007199254740993")  # not a number of JavaScript
    assert not page.evaluate("document.getElementById('seed').checkValidity()")
    page.get_by_role("tab", name="Score").click()
    page.get_by_label("Text", exact=True).fill("So the toad kissed Leo.\n\nLong ago by the sea")
    page.get_by_role("button", name="Read").click()
    page.wait_for_function("() => document.querySelectorAll('#lines tbody tr').length === 3")
    best = page.locator("#lines .best")  # the empty line is likelier than any other
    assert best.evaluate("cell => cell.parentElement.lastChild.textContent") != ""


@pytest.mark.browser
def test_the_way_back_is_the_view_before(page: Any, server: Serving) -> None:
    """The text that was written is still there; an empty text is not read."""
    page.goto(server.url)
    text = write(page, Tokens="5")
    page.get_by_role("tab", name="Score").click()
    page.locator("#lines tbody tr").first.wait_for()
    page.get_by_label("Text", exact=True).fill("")
    page.get_by_role("button", name="Read").click()
    assert page.locator("#read-status").inner_text() == "Enter a text, then press Read."
    page.go_back()
    assert page.get_by_role("tab", name="Write").get_attribute("aria-selected") == "true"
    assert written(page) == text
    page.go_forward()
    assert page.get_by_role("tab", name="Score").get_attribute("aria-selected") == "true"


@pytest.mark.browser
def test_a_text_is_not_called_empty_while_it_is_read(page: Any, server: Serving) -> None:
    """The story: on a slow machine, "The text is empty." stood below the text."""
    held: list[Any] = []
    page.route("**/api/score", lambda route: held.append(route))
    page.goto(server.url)
    page.get_by_role("tab", name="Score").click()
    page.get_by_text("Reading…").wait_for()
    shown = "() => getComputedStyle(document.getElementById('text'), '::before').content"
    assert page.evaluate(shown) in ('""', "none") and page.locator("#text").inner_text() == ""
    held[0].continue_()
    page.locator("#lines tbody tr").first.wait_for()


@pytest.mark.browser
def test_a_key_is_asked_for(page: Any) -> None:
    """Once for each tab; a wrong one is refused, and without one the page says so."""
    with serving(Service([load(SMALL_RUN)]), access=Access(key="sesame")) as server:
        page.goto(server.url)
        for key in ("wrong", "sesame"):
            page.get_by_label("Key", exact=True).fill(key)
            page.keyboard.press("Enter")
            page.wait_for_function("() => !document.getElementById('key').value")
        assert len(write(page, Tokens="5")) >= 5
        page.reload()
        assert len(write(page, Tokens="5")) >= 5
        page.evaluate("sessionStorage.clear()")
        page.reload()
        page.get_by_role("button", name="Cancel").click()
        assert "asks for a key" in page.get_by_role("alert").inner_text()


@pytest.mark.browser
def test_what_fails_is_said_in_words(page: Any) -> None:
    """A refused text, and a server that is gone; the text before stays."""
    with serving(Service([load(SMALL_RUN)])) as server:
        page.goto(server.url)
        text = write(page, Begin_with="a", Tokens="20")
        page.get_by_role("tab", name="Score").click()
        page.get_by_label("Text", exact=True).fill("a" * 20_001)
        page.get_by_role("button", name="Read").click()
        page.wait_for_function("() => document.querySelector('#read-status.wrong')")
        assert "20,000" in page.locator("#read-status").inner_text()
        page.get_by_role("tab", name="Inside").click()
        page.evaluate("step(1)")  # nothing is read
        page.get_by_label("Text", exact=True).fill("a cat")
        with page.expect_response("**/api/find"):  # by itself, when the units are there
            page.get_by_role("button", name="Read").click()
        page.wait_for_function(
            "() => document.querySelector('#find-status').textContent !== 'Searching…'"
        )
        page.get_by_role("tab", name="Write").click()
    page.get_by_role("tab", name="Inside").click()
    chosen = page.locator("#signal").input_value()
    page.select_option("#signal", "f")
    page.wait_for_function("() => document.querySelector('#unit-status.wrong')")
    assert page.locator("#signal").input_value() == chosen != "f"
    page.locator("#signals button[aria-pressed=false]").first.click()
    page.get_by_role("tab", name="Write").click()
    assert write(page, Begin_with="b") == text
    assert "does not answer" in page.locator("#write-status.wrong").inner_text()


def test_the_script_can_be_parsed() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("the program node is not installed")
    subprocess.run([node, "--check", str(FOLDER / "page.js")], check=True)
