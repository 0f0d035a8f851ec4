"""Colours of the heat maps: steady lightness, legible letters, signs apart for any eyes."""

import math
from itertools import combinations

import numpy as np
import pytest
from rich.style import Style

from charlm.report.curves import RUN_COLOURS
from charlm.report.heat import (
    FEW_COLORS,
    PAPER,
    SCALES,
    SIGNED,
    SURPRISAL,
    THEMES,
    Scale,
    color_of,
    contrast,
    css_rules,
    default_theme,
    rich_style,
    signed_level,
    surprisal_bounds,
    surprisal_level,
)

XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
     [0.0193339, 0.1191920, 0.9503041]]
)  # fmt: skip
VISIONS = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
         [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
         [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
         [0.004733, 0.691367, 0.303900]]
    ),
}  # fmt: skip
"""Matrices on linear RGB (Machado, Oliveira and Fernandes 2009, severity 1)."""
every_theme = pytest.mark.parametrize("theme", THEMES)
every_scale = pytest.mark.parametrize("scale", SCALES.values(), ids=list(SCALES))


def lab(color: str, vision: str = "usual") -> np.ndarray:
    """Return CIELAB of a colour `#rrggbb`, as it is seen."""
    channels = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    ratios = XYZ @ np.clip(VISIONS[vision] @ linear, 0, 1) / XYZ.sum(axis=1)
    roots = np.where(ratios > 0.008856, np.cbrt(ratios), 7.787 * ratios + 16 / 116)
    return np.array(
        [116 * roots[1] - 16, *(500 * -np.diff(roots[:2])), *(200 * -np.diff(roots[1:]))]
    )


def colors(scale: Scale, theme: str, sign: int) -> list[str]:
    """Return the backgrounds of one sign, from level 0 on."""
    levels = sorted((level for level in scale.levels if level * sign >= 0), key=abs)
    return [scale.background(level, theme) or PAPER[theme] for level in levels]


@every_theme
@every_scale
def test_lightness_is_steady_from_paper_to_the_last_level(scale: Scale, theme: str) -> None:
    """Darker with each level on light paper, lighter on dark paper."""
    down = 1 if theme == "dark" else -1
    for sign in {level // abs(level) for level in scale.levels if level}:
        lightness = np.array([lab(color)[0] for color in colors(scale, theme, sign)])
        assert (down * np.diff(lightness) >= 3.5).all()


@every_theme
@every_scale
def test_256_colours_keep_the_order_and_the_contrast(scale: Scale, theme: str) -> None:
    """Numbers of rich's palette are the colours that `color_of` names."""
    down = 1 if theme == "dark" else -1
    numbers = scale.light_256 if theme == "light" else scale.dark_256
    for sign in {level // abs(level) for level in scale.levels if level}:
        levels = sorted((level for level in scale.levels if level * sign > 0), key=abs)
        lightness = [lab(color_of(numbers[level - scale.lowest]))[0] for level in levels]
        assert (down * np.diff(lightness) > 0).all()
    for level in scale.levels:
        style = rich_style(level, theme, scale, system="256")
        if style.color and style.bgcolor:
            letter, paper = (c.get_truecolor().hex for c in (style.color, style.bgcolor))
            assert contrast(letter, paper) >= 4.5
            assert paper == color_of(numbers[level - scale.lowest])


@every_theme
@every_scale
def test_letters_are_legible_on_every_level(scale: Scale, theme: str) -> None:
    for level in scale.levels:
        paper = scale.background(level, theme) or PAPER[theme]
        assert contrast(scale.letter(level, theme), paper) >= 4.5


def test_contrast_is_that_of_the_standard() -> None:
    """Black on white is 21; #777777 on white is the well-known near miss."""
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@every_theme
@pytest.mark.parametrize("vision", VISIONS)
def test_equal_levels_of_both_signs_differ_for_every_vision(vision: str, theme: str) -> None:
    numbers = SIGNED.light_256 if theme == "light" else SIGNED.dark_256
    for level in range(2, 6):
        for colors in (
            [SIGNED.background(sign * level, theme) for sign in (-1, 1)],
            [color_of(numbers[5 + sign * level]) for sign in (-1, 1)],
        ):
            below, above = (lab(color, vision) for color in colors)
            assert np.linalg.norm(below - above) >= 34.0


@pytest.mark.parametrize("vision", VISIONS)
def test_the_colours_of_runs_differ_for_every_vision(vision: str) -> None:
    """Each pair by 17 in CIELAB, about seven times what can just be seen."""
    places = [lab(color, vision) for color in RUN_COLOURS]
    distances = [np.linalg.norm(one - other) for one, other in combinations(places, 2)]
    assert min(distances) >= 17


def test_surprisal_is_measured_by_a_blind_guess() -> None:
    """64 entries: a blind guess takes 6 bits. Bounds belong to the level above them."""
    assert [surprisal_level(bits, 64) for bits in (0.0, 0.3, 5.9, 6.0, 9.0, math.inf)] == [
        0, 1, 5, 6, 7, 7
    ]  # fmt: skip
    assert surprisal_level(math.nan, 64) == 0
    for size in (1, 2, 51, 50_000):
        bounds = surprisal_bounds(size)
        assert [surprisal_level(bits, size) for bits in bounds] == list(SURPRISAL.levels)


def test_signed_levels_are_symmetric_and_limited() -> None:
    assert [signed_level(value) for value in (-9.0, -1.0, 0.0, 0.09, 0.5, 1.0, math.inf)] == [
        -5, -5, 0, 0, 2, 5, 5
    ]  # fmt: skip
    assert signed_level(math.nan) == 0
    assert all(signed_level(-x / 7) == -signed_level(x / 7) for x in range(8))


@every_theme
@every_scale
@pytest.mark.parametrize("system", ["truecolor", "256", *FEW_COLORS])
def test_every_level_has_a_style(scale: Scale, theme: str, system: str) -> None:
    """None at level 0; what is far below zero is underlined in every terminal."""
    styles = {level: rich_style(level, theme, scale, system=system) for level in scale.levels}
    assert styles[0] == Style.null()
    assert all(bool(style.underline) == (level <= -2) for level, style in styles.items())
    assert len({str(styles[level]) for level in scale.levels}) >= 4
    for sign in (-1, 1):
        ends = [str(styles[level]) for level in scale.levels if level * sign >= 3]
        assert all("on" in style for style in ends[-1:])


def test_rules_have_the_colours_of_both_themes() -> None:
    rules = css_rules(".x ").splitlines()
    assert len(rules) == 7 + 10
    assert (
        ".x .s1{background:light-dark(#fff3d2,#2c251a);color:light-dark(#1d2026,#e9e7e2)}" in rules
    )
    names = [scale.css_class(level) for scale in SCALES.values() for level in scale.levels]
    assert [name for name in names if name] == [rule[4 : rule.index("{")] for rule in rules]


@pytest.mark.parametrize(
    ("value", "theme"),
    [(None, "dark"), ("15;0", "dark"), ("0;15", "light"), ("0;default;7", "light"),
     ("12;8", "dark"), ("default;default", "dark"), ("", "dark")],
)  # fmt: skip
def test_the_theme_follows_the_terminal(value: str | None, theme: str) -> None:
    assert default_theme({} if value is None else {"COLORFGBG": value}) == theme
