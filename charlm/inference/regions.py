"""Regions: the surprisal of parts of a text that consist of whole words."""

from bisect import bisect_right
from collections.abc import Sequence

from charlm.inference.words import WordScore


def region_scores(
    text: str, words: Sequence[WordScore], starts: Sequence[int], *, follows: bool = False
) -> list[WordScore | None]:
    """Return the score of each region of a text; regions begin at the characters `starts`.

    A word belongs to the region in which it begins. The surprisal of a region is the sum of its
    words and of the gaps between them; its gap is that of its last word. If the text `follows` a
    context, the gap of the first word is the blank between both, and part of the gap of its region.
    So the sum of both over all regions is the sum over all words. The entropy of a region is that
    of its first word. A region in which no word begins is None.
    """
    own: list[list[WordScore]] = [[] for _ in starts]
    for word in words:
        own[bisect_right(starts, word.start) - 1].append(word)
    regions = [_sum(text, region) if region else None for region in own]
    if follows and words and len(own[0]) > 1 and (first := regions[0]):
        before = words[0].gap
        regions[0] = first._replace(nats=first.nats - before, gap=first.gap + before)
    return regions


def _sum(text: str, words: Sequence[WordScore]) -> WordScore:
    first, last = words[0], words[-1]
    return WordScore(
        word=text[first.start : last.end],
        nats=sum(word.nats for word in words) + sum(word.gap for word in words[:-1]),
        gap=last.gap,
        tokens=sum(word.tokens for word in words),
        oov=any(word.oov for word in words),
        start=first.start,
        end=last.end,
        entropy=first.entropy,
    )
