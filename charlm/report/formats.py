"""Formats of scores for programs: one table of writers, each from a score to lines of text."""

import json
from collections.abc import Callable

from charlm.inference.scoring import Score
from charlm.units import LOG_BASES, finite

Writer = Callable[[int, Score, str, bool], str]
"""(number of the text from 1 on, score, log base, with tokens) -> lines, each ended."""


def tsv_header(log_base: str, tokens: bool) -> str:
    """The first line of the `tsv` format; the base of the logarithm is in a column's name."""
    if tokens:
        columns = ["sentence_id", "token_id", "token", f"surprisal_base_{log_base}", "rank", "oov"]
    else:
        columns = [
            "sentence_id", f"log_probability_base_{log_base}", "tokens", "oov",
            "bits_per_char", "text",
        ]  # fmt: skip
    return "\t".join(columns) + "\n"


def tsv(number: int, score: Score, log_base: str, tokens: bool) -> str:
    """Tab-separated, a line for each text or with `tokens` for each token."""
    unit = LOG_BASES[log_base]
    if not tokens:
        figures = (number, f"{_log(score, log_base):.6f}", score.tally.tokens,
                   score.tally.oov, f"{score.tally.bits_per_char:.6f}")  # fmt: skip
        return "\t".join(map(str, figures)) + "\t" + escaped(score.text) + "\n"
    lines = [
        f"{number}\t{at}\t{escaped(token.token)}\t{token.nats / unit:.6f}\t{token.rank}"
        f"\t{int(token.oov)}\n"
        for at, token in enumerate(score.tokens, start=1)
    ]
    return "".join(lines)


def jsonl(number: int, score: Score, log_base: str, tokens: bool) -> str:
    """One JSON object a text."""
    unit = LOG_BASES[log_base]
    content: dict[str, object] = {
        "schema_version": 1,
        "sentence_id": number,
        "text": score.text,
        "log_base": log_base,
        "log_probability": finite(_log(score, log_base)),
        **score.tally.summary(),
    }
    if tokens:
        content["token_scores"] = [
            {
                "token": token.token,
                "surprisal": finite(token.nats / unit),
                "rank": token.rank,
                "oov": token.oov,
            }
            for token in score.tokens
        ]
    return json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n"


def scores(number: int, score: Score, log_base: str, tokens: bool) -> str:
    """The log-probability alone, a line for each text."""
    del number, tokens
    return f"{_log(score, log_base):.6f}\n"


def _log(score: Score, log_base: str) -> float:
    """The logarithm of P(text) to this base; 0 and not -0 for an empty text."""
    return score.log_probability / LOG_BASES[log_base] + 0.0


FORMATS: dict[str, Writer] = {"tsv": tsv, "jsonl": jsonl, "scores": scores}


CONTROLS = {
    code: chr(code).encode("unicode_escape").decode("ascii")
    for code in (*range(0x20), *range(0x7F, 0xA0))
}


def escaped(text: str) -> str:
    """Backslashes, tabs, line ends and other control characters as escapes such as \\t and \\x1b.

    So a field stays in its cell, and moves no cursor.
    """
    return text.replace("\\", "\\\\").translate(CONTROLS)
