"""Curves as SVG, without matplotlib: in a file, in a page of HTML, or in a notebook.

Text and lines of the axes have the colour of the text around the picture, and the colours of the
runs can be seen on light and dark ground, so one picture fits both.
"""

from html import escape

from charlm.files.escapes import escape_unprintable
from charlm.report.axes import X_AXES
from charlm.report.curves import Curve, Plot
from charlm.report.scale import Point, lines, pieces, thinned

WIDTH, HEIGHT = 860, 440
LEFT, TOP, BOTTOM = 64, 40, 52
"""Margins in pixels; that on the right depends on the names."""
LETTER, LINE = 8.0, 16
"""Width and height of a letter in pixels, approximately."""
MAX_NAME = 28
"""Letters of a name; longer ones are cut."""
STYLE = """
svg { color: #1d2026; background: #fff; }
.end { paint-order: stroke; stroke: #fff; stroke-width: 4px; stroke-linejoin: round; }
@media (prefers-color-scheme: dark) {
  svg { color: #e9e7e2; background: #14161a; }
  .end { stroke: #14161a; }
}
"""
"""Colours of a picture in a file or a page; the names at the ends of curves cover the lines."""


def svg(plot: Plot, style: str = "") -> str:
    """Return a picture of the curves: lines are training, lines with dots validation.

    Pointing at a dot shows its figures. `style` is CSS for a picture that is a file of its own.
    """
    names = [_cut(curve.name) for curve in plot.curves]
    shown = names if len(names) > 1 else []
    right = max((LETTER * len(name) + 24 for name in shown), default=16.0)
    box = _Box(plot, WIDTH - LEFT - right, HEIGHT - TOP - BOTTOM)
    title = plot.figure.label if shown else f"{names[0]}: {plot.figure.label}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'width="{WIDTH}" height="{HEIGHT}" font-family="system-ui, sans-serif" font-size="13" '
        f'aria-label="{escape(title)} over {X_AXES[plot.x].label}">',
        f"<style>{style}</style>" if style else "",
        _text(LEFT, 22, title, facts=' font-weight="bold"'),
        _key(plot),
        *_axes(plot, box),
    ]
    for curve, colour in zip(plot.curves, plot.colours, strict=True):
        parts += _curve(plot, curve, colour, box)
    parts += _end_names(plot, box) if shown else []
    return "\n".join([*filter(None, parts), "</svg>\n"])


class _Box:
    """Rectangle of the curves in pixels."""

    def __init__(self, plot: Plot, width: float, height: float) -> None:
        self.across, self.up = plot.across, plot.up
        self.width, self.height = width, height

    def x(self, fraction: float) -> float:
        """Return the pixel of a fraction of the axis across."""
        return round(LEFT + fraction * self.width, 1)

    def y(self, fraction: float) -> float:
        """Return the pixel of a fraction of the axis upward."""
        return round(TOP + (1.0 - fraction) * self.height, 1)

    def place(self, point: Point) -> Point:
        """Return the pixels of a point of a curve."""
        return self.x(self.across.fraction(point[0])), self.y(self.up.fraction(point[1]))


def _cut(name: str) -> str:
    shown = escape_unprintable(name)
    return shown if len(shown) <= MAX_NAME else f"{shown[: MAX_NAME - 1]}…"


def _text(x: float, y: float, text: str, anchor: str = "start", facts: str = "") -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="currentColor"{facts}>'
        f"{escape(text)}</text>"
    )


def _path(places: list[Point], colour: str, width: float, opacity: float = 1.0) -> str:
    data = "M" + "L".join(f"{x:g} {y:g}" for x, y in places)
    return (
        f'<path d="{data}" fill="none" stroke="{colour}" stroke-width="{width:g}" '
        f'stroke-linejoin="round" stroke-linecap="round" opacity="{opacity:g}"/>'
    )


def _key(plot: Plot) -> str:
    """Return the key in the upper right corner: the line of training, the dots of validation."""
    if not plot.figure.valid:
        return ""
    right = WIDTH - 16
    return "".join(
        [
            _path([(right - 190, 18), (right - 166, 18)], "currentColor", 1, 0.8),
            _text(right - 160, 22, "training"),
            _path([(right - 96, 18), (right - 72, 18)], "currentColor", 2),
            f'<circle cx="{right - 84}" cy="18" r="3.5" fill="currentColor"/>',
            _text(right - 66, 22, "validation"),
        ]
    )


def _axes(plot: Plot, box: _Box) -> list[str]:
    """Return the lines and labels of the ticks, and the name of the axis across."""
    parts = []
    for tick, label in box.up.labels(8).items():
        y = box.y(box.up.fraction(tick))
        parts.append(_path([(LEFT, y), (box.x(1.0), y)], "currentColor", 1, 0.15))
        parts.append(_text(LEFT - 8, y + 4, label, anchor="end"))
    floor = box.y(0.0) + 6
    parts.append(_path([(LEFT, floor), (box.x(1.0), floor)], "currentColor", 1, 0.5))
    for tick, label in box.across.labels(8).items():
        x = box.x(box.across.fraction(tick))
        parts.append(_path([(x, floor), (x, floor + 4)], "currentColor", 1, 0.5))
        parts.append(_text(x, floor + 18, label, anchor="middle"))
    parts.append(_text(box.x(0.5), HEIGHT - 10, X_AXES[plot.x].label, anchor="middle"))
    return parts


def _curve(plot: Plot, curve: Curve, colour: str, box: _Box) -> list[str]:
    """Return the lines of a run, and a dot with its figures for each validation."""
    columns = round(box.width)
    parts = []
    for line in lines(curve.training, box.across, box.up, columns):
        places = [(box.x(x), box.y(y)) for x, y in line]
        parts.append(_path(places * 2 if len(places) == 1 else places, colour, 1.2, 0.75))
    for piece in pieces(curve.validation):
        kept = thinned(piece, box.across, columns // 4)
        parts.append(_path([box.place(point) for point in kept], colour, 2))
        for point in kept:
            x, y = box.place(point)
            figure = f"{point[1]:{plot.figure.digits}} {plot.figure.label}"
            where = f"{box.across.label(point[0])} {plot.x}"
            title = escape(f"{escape_unprintable(curve.name)}: {figure} at {where}")
            parts.append(
                f'<circle cx="{x:g}" cy="{y:g}" r="3.5" fill="{colour}"><title>{title}</title>'
                "</circle>"
            )
    return parts


def _end_names(plot: Plot, box: _Box) -> list[str]:
    """Return the name of each run at the end of its curve, moved down where names would touch.

    A bar before it has the colour of the run; a dot could be taken for a validation.
    """
    parts: list[str] = []
    taken: list[tuple[float, float, float]] = []
    ends = [
        (box.place(curve.end), _cut(curve.name), colour)
        for curve, colour in zip(plot.curves, plot.colours, strict=True)
        if curve.end
    ]
    for (x, y), name, colour in sorted(ends, key=lambda end: end[0][1]):
        first, last = x + 10, x + 20 + LETTER * len(name)
        for low, high, place in taken:
            if low < last and first < high and y < place + LINE:
                y = place + LINE
        taken.append((first, last, y))
        parts.append(_path([(first, y - 5), (first, y + 5)], colour, 4))
        parts.append(_text(first + 7, y + 4, name, facts=' font-weight="bold" class="end"'))
    return parts
