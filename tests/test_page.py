"""The page: one file that loads nothing, whose data cannot become markup, in a browser."""

import base64
import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import Call, tiny_model

from charlm.api.plots import read_log
from charlm.config.cells import CELLS
from charlm.errors import UsageError
from charlm.report.curve_files import html_page
from charlm.report.curves import plot_of
from charlm.report.heat import SCALES
from charlm.report.page.data import fitting_signals, signal_data
from charlm.report.page.page import page_file, page_html

RUN = Path(__file__).parent / "fixtures" / "format-1"
DATA = re.compile('<script type="application/json" id="data">(.*?)</script>', re.DOTALL)


def parts(page: str, tag: str) -> list[str]:
    """Return the content of the elements of a page that its policy must allow."""
    return re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)


@pytest.mark.parametrize("text", ["</script><script>alert(1)</script>", "<!--", "a\u2028b\x00\x1b"])
def test_no_text_can_leave_its_element(text: str) -> None:
    page = page_html({"text": text})
    (data,) = DATA.findall(page)
    assert json.loads(data) == {"text": text}
    assert not set("<>&") & set(data)
    assert page.count("<script") == 2 and page.count("</script>") == 2


def test_the_policy_allows_the_style_and_the_script_alone() -> None:
    """By their hashes; nothing is loaded, and no attribute holds a style or a handler."""
    page = page_html({})
    policy = re.search('Content-Security-Policy" content="(.*?)">', page)
    assert policy and "unsafe" not in policy[1] and policy[1].startswith("default-src 'none'")
    for tag in ("style", "script"):
        (content,) = parts(page, tag)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]
    html = page_file("index.html")
    assert not re.search(r'(style=|\son\w+=|https?:|src="//|@import)', html)
    for name in ("page.css", "page.js"):
        assert not re.search(
            r"https?://(?!www\.w3\.org/)|@import|\beval\(|innerHTML", page_file(name)
        )


def test_the_style_has_every_level() -> None:
    style = page_file("page.css")
    for scale in SCALES.values():
        for level in scale.levels:
            assert f".{scale.css_class(level)}{{" in style or level == 0


def test_signals_keep_a_byte_for_each_value() -> None:
    """Values are within a 254th of the largest one of their unit; a constant zero stays zero."""
    values = np.random.default_rng(1).normal(size=(3, 50)).astype(np.float32) * [[1], [100], [0]]
    data = signal_data(values.astype(np.float32))
    levels = np.frombuffer(base64.b64decode(data["data"]), np.int8).reshape(3, 50)
    scales = np.array(data["scales"])[:, None]
    assert (np.abs(levels * scales / 127 - values) <= scales / 254 + 1e-4 * scales).all()
    json.dumps(data, allow_nan=False)
    assert signal_data(np.zeros((0, 0), np.float32)) == {"scales": [], "data": ""}


def test_a_page_keeps_the_signals_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers of 3 and 2 units: each signal takes 5 bytes a token. The first ones are c and h."""
    settings = tiny_model("lstm", last_hidden_size=2).settings
    run = SimpleNamespace(config={"model": asdict(settings)}, path=Path("x"))
    monkeypatch.setattr("charlm.report.page.data.MAX_SIGNAL_BYTES", 100)
    assert fitting_signals(run, 10) == ["c", "h"]
    assert set(fitting_signals(run, 0)) == set(CELLS["lstm"].signals)
    with pytest.raises(UsageError, match=r"has 21 tokens; expected at most 20 .* of 5 units"):
        fitting_signals(run, 21)


@pytest.mark.browser
def test_an_export_works_in_a_browser(chromium, call: Call, here: Path) -> None:
    """From a file, without an error, light and dark, narrow and wide."""
    text = 'She said "My <b>urns!</b>"\n猫 e\u0301 \u202eשלום\x1b[0m'
    more = ["--find", '"[^"]*"', "--with", "prose"]
    call("inside", "--run", "tales", text, "--html", "page.html", "--unit", "2:8", *more)
    page = chromium.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((here / "page.html").as_uri())
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        for width in (1280, 400):
            page.set_viewport_size({"width": width, "height": 900})
            for view in ("Score", "Compare", "Inside"):
                page.get_by_role("tab", name=view).click()
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                assert unreadable(page) == []
    assert page.locator("body").get_attribute("data-ready") == "true"
    check_views(page)
    assert errors == []
    page.close()


@pytest.mark.browser
def test_a_text_from_right_to_left_is_read_so(chromium, call: Call, here: Path) -> None:
    """By the left arrow too, and a long line ends in dots. The best unit is marked in its list."""
    text = 'אבג "דה" וז\nshe "cried" so'
    call(
        "inside", "--run", "tales", text, "--html", "a.html", "--find", '"[^"]*"', "--with", "prose"
    )
    page = chromium.new_page()
    page.goto((here / "a.html").as_uri())
    page.get_by_role("tab", name="Inside").click()
    assert page.locator("#found [aria-selected=true]").count() == 1
    page.locator("#text").focus()
    for letter in "אב":
        page.keyboard.press("ArrowLeft")
        assert page.locator("#token .which b").inner_text() == letter
    page.get_by_role("tab", name="Score").click()
    first, second = (page.locator(f"#text [data-i='{text.index(c)}']") for c in "אs")
    assert second.bounding_box()["x"] < 200 < first.bounding_box()["x"]  # each line from its side
    shown = page.locator("#lines .cut").first
    assert shown.evaluate("cell => getComputedStyle(cell).direction") == "rtl"
    page.close()


@pytest.mark.browser
def test_a_part_that_is_impossible_has_infinite_bits(chromium, call: Call, here: Path) -> None:
    """JSON has null for them, which JavaScript counts as 0."""
    call("inside", "--run", "tales", "The urn", "--with", "prose", "--html", "a.html")
    content, count = re.subn(r'"bits":[\d.]+,"other_bits"', '"bits":null,"other_bits"',
                             (here / "a.html").read_text(encoding="utf-8"), count=1)  # fmt: skip
    assert count == 1
    (here / "a.html").write_text(content, encoding="utf-8")
    page = chromium.new_page()
    page.goto((here / "a.html").as_uri())
    page.get_by_role("tab", name="Compare").click()
    assert "+Infinity" in page.locator("#versus").inner_text()
    page.locator("#text [data-i='0']").hover()
    assert "tales impossible, prose " in page.locator("#token").inner_text()
    assert "p5" in page.locator("#text [data-i='0']").get_attribute("class")
    page.close()


@pytest.mark.browser
def test_a_page_of_curves_works_in_a_browser(chromium, here: Path) -> None:
    """Its policy allows its own style; it fits a narrow window, light and dark."""
    (here / "page.html").write_text(html_page(plot_of([read_log(RUN)])), encoding="utf-8")
    page = chromium.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.goto((here / "page.html").as_uri())
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        for width in (1280, 400):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert unreadable(page) == []
    assert page.evaluate("getComputedStyle(document.querySelector('svg')).minWidth") == "640px"
    assert errors == []
    page.close()


def unreadable(page) -> list[str]:
    """Return the letters of a page whose contrast is below 4.5 to 1."""
    return page.evaluate(
        """() => {
      const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
      const light = (c) => c.slice(0, 3).map((v) => v / 255)
        .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
      const paper = (e) => { for (; e; e = e.parentElement) {
        const c = rgb(getComputedStyle(e).backgroundColor);
        if (c.length < 4 || c[3] === 1) return c; } return [255, 255, 255]; };
      return [...document.querySelectorAll('.t, .scale span, h2, p, td, th, dd, dt, label')]
        .filter((e) => e.textContent.trim() && e.offsetParent)
        .map((e) => [light(rgb(getComputedStyle(e).color)), light(paper(e)), e])
        .filter(([a, b]) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5)
        .map(([, , e]) => e.className + ': ' + e.textContent); }"""
    )


def check_views(page) -> None:
    """Use the page as a person does: keys, the chooser of units, the map, the found units."""
    shown = page.evaluate("document.getElementById('text').textContent")
    assert shown.startswith('She said "My <b>urns!</b>"\n猫 e\u0301')
    seen = page.evaluate("document.getElementById('main').textContent")
    assert not set(seen) & set("\x1b\u202e") and "\\u202e" in seen
    page.locator("#text").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert page.locator("#token .which b").inner_text() == "e"
    assert page.locator("#token .others li").count() == 5
    page.get_by_role("button", name="Next unit").click()
    assert page.locator("#unit").input_value() == "2:9"
    assert page.locator("#chart-title").inner_text() == "Unit 2:9 over the text"
    page.locator("#unit").fill("9:9")
    page.keyboard.press("Enter")
    assert "No unit 9:9" in page.locator("#unit-status").inner_text()
    page.locator("#map").click(position={"x": 20, "y": 1})
    assert page.locator("#unit").input_value() in ("1:0", "1:1")  # a unit is less than a pixel
    page.locator("#found button").first.click()
    assert page.locator("#found [aria-selected=true]").count() == 1
    page.select_option("#signal", "f")
    assert "open" in page.locator("#legend").inner_text()
    page.get_by_role("tab", name="Compare").click()
    page.locator("#text .t").nth(2).hover()
    assert "prose" in page.locator("#token").inner_text()
    assert "difference" in page.locator("#versus").inner_text()


def test_the_page_works_under_any_path() -> None:
    """The story: behind nginx at /charlm/ it asked /api/model of another program."""
    script = page_file("page.js")
    assert re.search(r'ask\("api/model"\)', script)
    assert not re.findall(r"""["'`]/(?:api|v1)/""", script)
