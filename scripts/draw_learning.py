"""Draw the picture of the README: a model's loss, and its samples, as it reads more text.

    python scripts/draw_learning.py        trains for some minutes, writes experiments/learning.svg

Each point is a model of its own, trained on the built-in text for that many steps.
"""

import argparse
import json
import math
import tempfile
from html import escape
from pathlib import Path

import charlm

OUT = Path(__file__).parent / "experiments" / "learning.svg"
STEPS = (1, 3, 10, 30, 100, 300, 1000, 3000)
SHOWN = (3, 30, 100, 3000)
"""Points whose sample is shown."""
BATCH, BPTT = 16, 64
WIDTH, HEIGHT = 720, 386
LEFT, RIGHT, TOP, BOTTOM = 64, 692, 52, 214
COLORS = ("#f47067", "#f69d50", "#dcbdfb", "#8ddb8c")


def measure(steps: int, folder: str) -> tuple[int, float, str]:
    """Train a model; return the characters that it read, its bits per character and a sample."""
    lm = charlm.fit(
        steps=steps, layers=1, hidden=256, batch=BATCH, bptt=BPTT, learning_rate=0.008, dropout=0.0,
        schedule="constant", warmup=0.0, evals=1, average=0.0, seed=1, threads=1, progress=False,
        name=f"steps-{steps}", checkpoints=folder,
    )  # fmt: skip
    assert isinstance(lm, charlm.Model)
    bits = float(lm.history[-1]["valid_bits_per_char"])
    sample = lm.sample(60, prompt="The ", seed=2)
    return steps * BATCH * BPTT, bits, "The " + " ".join(sample.split())[:56]


def picture(points: list[tuple[int, float, str]], entropy: float) -> str:
    """Return the SVG text."""
    sizes = [math.log10(size) for size, _, _ in points]
    highest = math.ceil(max(bits for _, bits, _ in points))

    def place(size: float, bits: float) -> tuple[float, float]:
        """Return the place of a point in the picture."""
        across = (math.log10(size) - sizes[0]) / (sizes[-1] - sizes[0])
        return LEFT + across * (RIGHT - LEFT - 20), BOTTOM - bits / highest * (BOTTOM - TOP)

    places = [place(size, bits) for size, bits, _ in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    floor = place(1, entropy)[1]
    elements = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<style>text{font-family:system-ui,'Segoe UI',Helvetica,Arial,'DejaVu Sans',sans-serif;"
        "font-size:13px;fill:#adbac7}.sample{font-family:ui-monospace,Menlo,Consolas,"
        "'DejaVu Sans Mono',monospace;font-size:12.5px;fill:#e6edf3}.dim{fill:#768390}</style>",
        f'<rect x="1" y="1" width="{WIDTH - 2}" height="{HEIGHT - 2}" rx="10" fill="#1c2128" '
        'stroke="#444c56" stroke-width="1.5"/>',
        '<text x="20" y="30">bits that the model needs for each character of new text</text>',
    ]
    for mark in range(0, highest + 1, 2):
        y = place(1, mark)[1]
        elements.append(
            f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#373e47"/>'
        )
        elements.append(f'<text x="{LEFT - 12}" y="{y + 4:.1f}" text-anchor="end">{mark}</text>')
    elements.append(
        f'<line x1="{LEFT}" x2="{RIGHT}" y1="{floor:.1f}" y2="{floor:.1f}" stroke="#6cb6ff" '
        'stroke-dasharray="5 4"/>'
        f'<text x="{LEFT + 6}" y="{floor + 16:.1f}" style="fill:#6cb6ff">'
        f"{entropy:.2f}, the limit: no model can do better on this text</text>"
    )
    elements.append(f'<polyline points="{line}" fill="none" stroke="#adbac7" stroke-width="2"/>')
    shown = [point for point in points if point[0] // (BATCH * BPTT) in SHOWN]
    for number, ((size, bits, sample), color) in enumerate(zip(shown, COLORS, strict=True)):
        x, y = place(size, bits)
        row = 262 + 32 * number
        elements += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{color}"/>',
            f'<circle cx="28" cy="{row - 4}" r="6" fill="{color}"/>',
            f'<text x="{LEFT + 66}" y="{row}" text-anchor="end">{size:,}</text>',
            f'<text class="sample" x="{LEFT + 86}" y="{row}" xml:space="preserve">'
            f"{escape(sample)}</text>",
        ]
    elements.append(
        f'<text x="{LEFT}" y="236" class="dim">'
        "characters read, and what the model writes then:</text>"
    )
    return "\n".join([*elements, "</svg>\n"])


def main() -> None:
    """Train, and write the picture."""
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        points = [measure(steps, folder) for steps in STEPS]
    facts = json.loads((OUT.parents[2] / "corpora" / "tales.json").read_text(encoding="utf-8"))
    entropy = facts["log_loss_bits_per_char_last_tenth"]
    OUT.write_text(picture(points, entropy), encoding="utf-8")


if __name__ == "__main__":
    main()
