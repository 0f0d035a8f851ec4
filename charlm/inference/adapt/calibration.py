"""Calibration: one factor on all logits, fitted on held-out text (Guo et al. 2017).

A model that has read a small text many times is too sure of itself on new text. Dividing its logits
by a temperature mends that without changing any ranking; one number fitted on thousands of tokens
cannot overfit.
"""

import math
from collections.abc import Callable

import numpy as np

from charlm.text.encoded import EncodedText, TextCounts

FIRST_STEP = math.log(1.15)
WIDEST = math.log(4.0)
"""The factor stays between a quarter and four."""
MAX_TOKENS = 40_000
"""The factor is fitted on at most about so many tokens."""


def fit_scale(nats: Callable[[float], float], tolerance: float = 0.01) -> float:
    """The factor s > 0 at which nats(s) is least, to about `tolerance` of itself.

    nats(s) is convex in s: a step downhill from s = 1 until it is bracketed, in ln s, then
    parabolas through the three best points (successive parabolic interpolation).
    """
    points = {0.0: nats(1.0)}

    def at(x: float) -> float:
        """Nats at ln s = x, computed once."""
        if x not in points:
            points[x] = nats(math.exp(x))
        return points[x]

    step = FIRST_STEP if at(FIRST_STEP) < at(-FIRST_STEP) else -FIRST_STEP
    x = 0.0
    while abs(x + step) <= WIDEST and at(x + step) < at(x):
        x += step
    left, right = x - abs(step), x + abs(step)
    for _ in range(3):
        found = _vertex([(left, at(left)), (x, at(x)), (right, at(right))])
        if abs(found - x) < tolerance or not left < found < right:
            break
        left, right = (left, x) if found < x else (x, right)
        x = found
    best = min((place for place in points if abs(place) <= WIDEST), key=lambda x: points[x])
    return math.exp(best)


def _vertex(points: list[tuple[float, float]]) -> float:
    """Where the parabola through three points is least; the middle one where it has no bottom."""
    (a, fa), (b, fb), (c, fc) = points
    top = (b - a) ** 2 * (fb - fc) - (b - c) ** 2 * (fb - fa)
    bottom = (b - a) * (fb - fc) - (b - c) * (fb - fa)
    return b if bottom == 0.0 else b - 0.5 * top / bottom


def sample_of(text: EncodedText, most: int = MAX_TOKENS) -> EncodedText:
    """About `most` tokens of a text: documents from all over it, or a stream's beginning."""
    if len(text.ids) <= most:
        return text
    if text.is_stream:
        ids = np.asarray(text.ids[:most])
        return EncodedText(
            ids=ids, ends=np.array([len(ids)], np.int64), counts=TextCounts(), is_stream=True
        )
    documents = len(text.ends)
    wanted = max(1, round(documents * most / len(text.ids)))
    longest = max(1, 2 * most // wanted)  # of very long documents, the beginning
    chosen = []
    for number in np.linspace(0, documents - 1, wanted).astype(int):
        begin = int(text.ends[number - 1]) if number else 0
        chosen.append(np.asarray(text.ids[begin : min(int(text.ends[number]), begin + longest)]))
    return EncodedText(
        ids=np.concatenate(chosen),
        ends=np.cumsum([len(piece) for piece in chosen], dtype=np.int64),
        counts=TextCounts(),
        is_stream=False,
    )
