"""Colours of values on a text: surprisal in one hue, signed values in blue and orange.

Both scales are one table, from which terminals, SVG pictures and pages take their colours.
Lightness (L* of CIELAB) changes steadily with the level, so that a scale also reads in print and
with any colour vision; equal levels of both signs stay apart under protanopia, deuteranopia and
tritanopia, and negative ones are underlined.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.style import Style

THEMES = ("light", "dark")
PAPER = {"light": "#ffffff", "dark": "#16181d"}
"""Backgrounds of pictures without colour."""
INKS = {"light": ("#1d2026", "#ffffff"), "dark": ("#e9e7e2", "#12100c")}
"""Colours of letters: on little colour, and on much of it."""
SOFT = {"light": "#5d626c", "dark": "#a3a8b3"}
"""Colours of what is beside the text: legends and notes."""
FRACTIONS = (0.04, 0.12, 0.25, 0.45, 0.7, 1.0, 1.5)
"""Lower bounds of the levels of surprisal, as fractions of a blind guess among the vocabulary."""
FEW_COLORS = ("standard", "windows")
"""Colour systems of `rich` that have 16 colours only."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Colours by level, from the level `lowest` on; "" is no colour, as at level 0."""

    name: str
    lowest: int
    light: tuple[str, ...]
    """Backgrounds on light paper."""
    dark: tuple[str, ...]
    """Backgrounds on dark paper."""
    light_256: tuple[int, ...]
    """Backgrounds of a light terminal with 256 colours, by their numbers; 0 is no colour."""
    dark_256: tuple[int, ...]
    """Backgrounds of a dark terminal with 256 colours."""
    light_16: tuple[str, ...]
    """Styles of a light terminal with 16 colours, whose shades are unknown."""
    dark_16: tuple[str, ...]
    """Styles of a dark terminal with 16 colours."""

    @property
    def levels(self) -> range:
        """Every level, in order."""
        return range(self.lowest, self.lowest + len(self.light))

    def background(self, level: int, theme: str) -> str:
        """Return the background of a level as `#rrggbb`, or "" for no colour."""
        backgrounds = self.light if theme == "light" else self.dark
        return backgrounds[level - self.lowest]

    def letter(self, level: int, theme: str) -> str:
        """Return the colour of letters on a level: the ink with the greater contrast."""
        background = self.background(level, theme) or PAPER[theme]
        return max(INKS[theme], key=lambda ink: contrast(ink, background))

    def css_class(self, level: int) -> str:
        """Return the class of a level in `css_rules`, such as s3, n2 or p2; "" for level 0."""
        if level == 0:
            return ""
        kind = "s" if self.lowest == 0 else "n" if level < 0 else "p"
        return f"{kind}{abs(level)}"


SURPRISAL = Scale(
    name="surprisal",
    lowest=0,
    light=("", "#fff3d2", "#ffe3a0", "#fdca67", "#f7a931", "#e78100", "#ae5402", "#70330b"),
    dark=("", "#2c251a", "#43351f", "#5f4724", "#825c27", "#b77d29", "#e8a73d", "#ffdf93"),
    light_256=(0, 230, 222, 215, 208, 172, 130, 88),
    dark_256=(0, 235, 237, 94, 130, 172, 214, 222),
    light_16=("", "", *["black on bright_yellow"] * 2, *["black on yellow"] * 2,
              *["bright_white on red"] * 2),
    dark_16=("", "", *["yellow"] * 2, *["black on yellow"] * 2, *["black on bright_yellow"] * 2),
)  # fmt: skip
SIGNED = Scale(
    name="signed",
    lowest=-5,
    light=("#1a5c97", "#4990d0", "#85b8e6", "#b9d8f3", "#e3effb", "",
           "#fbebdd", "#f9d0a8", "#f8a660", "#e27a2c", "#964818"),
    dark=("#68b2ee", "#2968a4", "#204b75", "#1d3650", "#1a252f", "",
          "#2f231a", "#4d341e", "#70431e", "#945721", "#f29d4b"),
    light_256=(25, 68, 110, 153, 195, 0, 230, 223, 215, 172, 130),
    dark_256=(75, 32, 24, 18, 17, 0, 235, 52, 94, 130, 215),
    light_16=(*["bright_white on blue"] * 2, *["black on bright_cyan"] * 2, "", "", "",
              *["black on bright_yellow"] * 2, *["black on yellow"] * 2),
    dark_16=(*["black on bright_cyan"] * 2, *["bright_white on blue"] * 2, "", "", "",
             *["black on yellow"] * 2, *["black on bright_yellow"] * 2),
)  # fmt: skip
SCALES = {scale.name: scale for scale in (SURPRISAL, SIGNED)}


def blind_guess(vocab_size: int) -> float:
    """Return the bits of a token if all entries of the vocabulary are equally likely."""
    return math.log2(max(vocab_size, 2))


def surprisal_level(bits: float, vocab_size: int) -> int:
    """Return the level of a surprisal in SURPRISAL, 0 to 7.

    It is found from the fraction of a blind guess, so models of different vocabularies compare; a
    level of 6 or 7 is a token that was expected less than by guessing.
    """
    return bisect_right(surprisal_bounds(vocab_size), bits) - 1 if bits >= 0.0 else 0


@cache
def surprisal_bounds(vocab_size: int) -> tuple[float, ...]:
    """Return the lower bound of each level of surprisal, in bits."""
    return tuple(fraction * blind_guess(vocab_size) for fraction in (0.0, *FRACTIONS))


def signed_level(value: float) -> int:
    """Return the level of a value in SIGNED, -5 to 5; -1 and 1 have full colour, 0 has none."""
    return round(5.0 * min(max(value, -1.0), 1.0)) if value == value else 0


def rich_style(
    level: int, theme: str = "dark", scale: Scale = SURPRISAL, *, system: str | None = "truecolor"
) -> "Style":
    """Return the style of a level in a terminal; `system` is the `color_system` of its console.

    Terminals with few colours have scales of their own, since the nearest colours would neither
    keep the hue nor the order of lightness. Negative levels are underlined from -2 on.
    """
    from rich.style import Style

    if not scale.background(level, theme):
        return Style.null()
    under = " underline" if level <= -2 else ""
    if system in FEW_COLORS:
        styles = scale.light_16 if theme == "light" else scale.dark_16
        return Style.parse(f"{styles[level - scale.lowest]}{under}".strip() or "none")
    if system == "256":
        numbers = scale.light_256 if theme == "light" else scale.dark_256
        number = numbers[level - scale.lowest]
        letter = max((16, 231), key=lambda ink: contrast(color_of(ink), color_of(number)))
        return Style.parse(f"color({letter}) on color({number}){under}")
    ink, paper = scale.letter(level, theme), scale.background(level, theme)
    return Style.parse(f"{ink} on {paper}{under}")


def color_of(number: int) -> str:
    """Return one of the 256 colours of terminals, from 16 on, as `#rrggbb`."""
    if number >= 232:
        channels = [8 + 10 * (number - 232)] * 3
    else:
        steps = (0, 95, 135, 175, 215, 255)
        channels = [steps[(number - 16) // size % 6] for size in (36, 6, 1)]
    return "#" + "".join(f"{channel:02x}" for channel in channels)


def css_rules(scope: str = "") -> str:
    """Return a rule for the class of each level, in colours of light and dark pages.

    `scope` is a selector that precedes each class, such as ".charlm ". A page chooses with the
    property `color-scheme`.
    """
    return "\n".join(_css_rules(scope)) + "\n"


def _css_rules(scope: str) -> Iterator[str]:
    for scale in SCALES.values():
        for level in scale.levels:
            if level == 0:
                continue
            pairs = [
                (scale.background(level, theme), scale.letter(level, theme)) for theme in THEMES
            ]
            (paper, ink), (dark_paper, dark_ink) = pairs
            under = ";box-shadow:inset 0 -2px 0 currentColor" if level <= -2 else ""
            yield (
                f"{scope}.{scale.css_class(level)}{{background:light-dark({paper},{dark_paper});"
                f"color:light-dark({ink},{dark_ink}){under}}}"
            )


def default_theme(environment: Mapping[str, str]) -> str:
    """Return the theme of a terminal by the variable COLORFGBG; dark if it is not set.

    The variable ends in the number of the background among 16 colours.
    """
    background = environment.get("COLORFGBG", "").rpartition(";")[2]
    return "light" if background in ("7", *map(str, range(9, 16))) else "dark"


def contrast(color: str, other: str) -> float:
    """Return the contrast ratio of two colours, 1 to 21, as WCAG 2.2 defines it."""
    darker, lighter = sorted((_luminance(color), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(color: str) -> float:
    """Return the relative luminance of a colour `#rrggbb`, 0 to 1."""
    channels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
