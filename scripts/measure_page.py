"""Measure how fast the page of a server reads and paints long texts, in Chromium.

    python scripts/measure_page.py [--browser chromium] [--rounds 7]

Needs playwright (`pip install --group slow`). Times are from the click on Read until the second
frame with all tokens in it, and of the request to the server alone.
"""

import argparse
import shutil
import statistics

from playwright.sync_api import Page, sync_playwright
from rich.console import Console

from charlm.report.tables import plain_table
from server_process import ROOT, Server

TEXT = (ROOT / "corpora" / "tales.txt").read_text()[-40_000:]
SIZES = (1000, 5000, 19_000)
READ = """async text => {
  const group = () => [...document.querySelectorAll('[role=group][aria-label^="Coloured text"]')]
    .find(each => each.offsetParent);
  const area = [...document.querySelectorAll('textarea')].find(each => each.offsetParent);
  const button = [...document.querySelectorAll('button')]
    .find(each => each.offsetParent && each.textContent.trim() === 'Read');
  const frame = () => new Promise(done => requestAnimationFrame(done));
  area.value = text;
  area.dispatchEvent(new Event('input', {bubbles: true}));
  await frame(); await frame();
  const begun = performance.now();
  button.click();
  while (group()?.textContent !== text) {
    await frame();
    const wrong = document.querySelector('.status.wrong')?.textContent;
    if (wrong) throw new Error(wrong);
  }
  await frame(); await frame();
  return performance.now() - begun;
}"""
ASK = """async ([path, body]) => {
  const begun = performance.now();
  const answer = await fetch(path, {method: 'POST', body: JSON.stringify(body),
    headers: {'Content-Type': 'application/json'}});
  await answer.arrayBuffer();
  return answer.ok ? performance.now() - begun : NaN;
}"""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--browser", default=shutil.which("chromium"), help="the executable")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    table = plain_table("<view", "tokens", "read and painted, ms", "of which the server, ms",
                        "its processor, ms")  # fmt: skip
    with Server("--run", "tales") as server, sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=options.browser, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(server.url)
        page.wait_for_selector("body[data-ready]")  # before it no tab can be chosen
        for view, path in (("Score", "/api/score"), ("Inside", "/api/inside")):
            page.get_by_role("tab", name=view, exact=True).click()
            page.wait_for_timeout(3000)  # until the text that it begins with is read
            for size in SIZES:
                table.add_row(
                    view, f"{size:,}", *measured(page, server, path, size, options.rounds)
                )
        browser.close()
    Console(width=100, highlight=False).print(table)


def measured(page: Page, server: Server, path: str, size: int, rounds: int) -> tuple[str, ...]:
    """Return the medians of the times; each round reads another text."""
    whole, alone, used = [], [], []
    for number in range(rounds):
        text = TEXT[number * 100 : number * 100 + size]
        whole.append(page.evaluate(READ, text))
        before = server.cpu()
        alone.append(page.evaluate(ASK, [path, {"text": text}]))
        used.append(1000 * (server.cpu() - before))
    return tuple(f"{statistics.median(times):.0f}" for times in (whole, alone, used))


if __name__ == "__main__":
    main()
