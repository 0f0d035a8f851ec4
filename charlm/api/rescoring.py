"""Rescoring of n-best lists: the log-probability of each hypothesis, weights, error rates.

lists = charlm.rescore(charlm.load(), "dev.nbest")
weights = charlm.tune_weights(lists, "dev.refs")
texts = [best.text for best in lists.best(weights)]
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from charlm.api.model import Model
from charlm.commands import command
from charlm.config.corpus import ReadSettings
from charlm.errors import UsageError, check_choice
from charlm.inference.nbest import hypothesis_errors, tune
from charlm.inference.word_errors import ErrorChange, ErrorRate, error_change, error_rate
from charlm.phases import phase
from charlm.report.scores import unknown_warning
from charlm.text.nbest import LM, WORDS, NBestLists
from charlm.text.nbest_files import NBestFiles, check_same, references
from charlm.text.nbest_formats import FORMATS, log_base_of, read_nbest
from charlm.text.nbest_formats import nbest_lines as nbest_lines
from charlm.text.rewritings import rewriting_note
from charlm.text.sources.rows import Warn
from charlm.units import LOG_BASES

LN_10, BASE_RANGE = LOG_BASES["10"], 1.2
"""Ratio of scores in base e and base 10, and the factor within which scores have this ratio."""
References = str | Path | Mapping[str, str]
"""File of references, or the reference of each utterance by its name."""


def read_lists(
    path: str | Path,
    *,
    format: str = "auto",
    acoustic: str | Path | None = None,
    graph: str | Path | None = None,
    beam: int | None = None,
    encoding: str = "utf-8",
    errors: str = "strict",
    warn: Warn = lambda _: None,
) -> NBestLists:
    """Read n-best lists in the format srilm, kaldi, nemo, tsv or jsonl.

    `auto` recognises the format only if it is certain. `acoustic` and `graph` are files with a cost
    for each hypothesis (kaldi); `beam` is the number of hypotheses of each utterance (nemo). `warn`
    takes warnings. Raises CorpusError for a file that is not in the format.
    """
    check_choice("format", format, ("auto", *FORMATS))
    if str(path) == "-":
        raise UsageError(
            "lists on standard input, which can be read only once; expected a file. Save them"
        )
    reported = set[str]()

    def warn_once(text: str) -> None:
        """Pass on a warning, but not again when a recognised file is read."""
        if text not in reported:
            reported.add(text)
            warn(text)

    files = NBestFiles(
        path=Path(path),
        acoustic=None if acoustic is None else Path(acoustic),
        graph=None if graph is None else Path(graph),
        beam=beam,
        reading=ReadSettings(encoding=encoding, errors=errors),
        warn=warn_once,
    )
    return read_nbest(files, format)


def rescore(
    model: Model,
    lists: NBestLists | str | Path,
    *,
    unk_penalty: float | None = None,
    warn: Warn = lambda _: None,
    **reading: Any,
) -> NBestLists:
    """Return n-best lists with the feature `charlm`: the log-probability of each hypothesis.

    Its base is that of the format: 10 for srilm, else e. Each unknown token costs `unk_penalty`
    nats, by default `model.run.unk_penalty`. Texts of the same tokens are scored once. A path is
    read as by `read_lists`, with the options `reading`. `warn` takes warnings about unknown tokens.
    """
    if not isinstance(lists, NBestLists):
        lists = read_lists(lists, warn=warn, **reading)
    scorer = model.scorer(unk_penalty=unk_penalty)
    with phase("scoring", unit="tokens"):
        scores = scorer.score_distinct(each.text for one in lists for each in one.hypotheses)
    values = {  # 0 and not -0 of an empty text
        text: (score.penalized_log_probability + 0.0) / LOG_BASES[lists.log_base]
        for text, score in scores.items()
    }
    counts = Counter(score.tally.oov for score in scores.values())
    words = sum(score.tally.words for score in scores.values())
    if warning := unknown_warning(model.run, counts, unk_penalty):
        warn(warning)
    unknown = sum(oov * count for oov, count in counts.items())
    if unknown > words / 2:
        warn(
            f"{unknown:,} tokens of {words:,} words are unknown to the run; expected hypotheses "
            "written as its training text is. Convert their case or alphabet"
        )
    texts = [text for text, score in scores.items() if score.tally.oov]
    if warning := rewriting_note(model.vocabulary, texts):
        warn(warning)
    return lists.with_utterances(
        replace(
            utterance,
            hypotheses=tuple(
                replace(each, features={**each.features, LM: values[each.text]})
                for each in utterance.hypotheses
            ),
        )
        for utterance in lists
    )


def default_weights(lists: NBestLists) -> dict[str, float]:
    """Return 1 for each feature, 0 for the number of words and for SRILM's lscore.

    The score of the language model takes the place of lscore.
    """
    unused = (WORDS, "lscore") if lists.format_name == "srilm" else (WORDS,)
    return {name: float(name not in unused) for name in lists.features}


def read_weights(path: Path, lists: NBestLists, warn: Warn = lambda _: None) -> dict[str, float]:
    """Return the weights in a file that `charlm rescore --tune` wrote.

    `warn` takes a warning if the scores of these lists look as if they had another base than those
    of the lists that were tuned on. Raises UsageError unless there is a number for each feature of
    the lists, and for no other, and for weights of lists whose format has another base.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        values = {str(name): float(value) for name, value in record["weights"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or 'no JSON with "weights"'
        raise UsageError(
            f"{path}: {reason}; expected a file with weights. Write one with: "
            + command("rescore", "LISTS", "--refs", "FILE", "--tune", "--out", "weights.json")
        ) from error
    if differing := sorted(values.keys() ^ set(lists.features)):
        verb = "has no weight" if differing[0] in lists.features else "has a weight"
        raise UsageError(
            f"{path} {verb} for {differing[0]!r}; expected one for each feature of the lists: "
            f"{', '.join(lists.features)}. Correct the file; 0 leaves a feature out"
        )
    _check_base(path, record, lists)
    if warning := _other_base(path, record.get("per_word"), lists):
        warn(warning)
    return {name: values[name] for name in lists.features}


def _check_base(path: Path, record: Mapping[str, Any], lists: NBestLists) -> None:
    """Raise UsageError if weights were tuned on scores of another base than that of the lists.

    A file without a base has that of the format that it names; one without a format is not checked.
    """
    tuned_on = record.get("format")
    usual = None if tuned_on is None else log_base_of(str(tuned_on))
    base = str(record.get("log_base", usual))
    if base not in ("None", lists.log_base):
        source = f" (tuned on lists in the format {tuned_on})" if tuned_on else ""
        raise UsageError(
            f"{path} has weights for scores of base {base}{source}, and charlm scores the format "
            f"{lists.format_name} with base "
            f"{lists.log_base}; expected the same base, on which weights depend. Tune weights on "
            "lists of this format, or give them as flags"
        )


def _other_base(path: Path, known: Any, lists: NBestLists) -> str:
    """Return a warning if features per word differ from the `known` ones as ln and log10 do."""
    if not isinstance(known, Mapping):
        return ""
    for name, value in scores_per_word(lists).items():
        before = known.get(name)
        if not isinstance(before, int | float) or not (before > 0.0 and value > 0.0):
            continue
        ratio = max(value / before, before / value)
        if LN_10 / BASE_RANGE < ratio < LN_10 * BASE_RANGE:
            return (
                f"{name} is {value:.4g} per word in these lists and {before:.4g} in those that "
                f"{path} was tuned on: their ratio {ratio:.2f} is near {LN_10:.2f}, that of ln and "
                f"log10. If the bases differ, convert the scores, or tune weights on such lists"
            )
    return ""


def scores_per_word(lists: NBestLists) -> dict[str, float]:
    """Return the mean magnitude of each score of the recogniser, per word of the hypotheses."""
    hypotheses = [each for one in lists for each in one.hypotheses]
    words = sum(each.words for each in hypotheses) or 1
    names = [name for name in lists.features if name not in (LM, WORDS)]
    return {name: sum(abs(each.features[name]) for each in hypotheses) / words for name in names}


def read_references(
    lists: NBestLists,
    path: str | Path,
    *,
    encoding: str = "utf-8",
    errors: str = "strict",
    warn: Warn = lambda _: None,
) -> dict[str, str]:
    """Return the reference of each utterance of the lists: a line `utt w1 w2 ...` of a file.

    Lines may also be JSON with "text" and "id", by default the number of the line. `warn` takes
    warnings. Raises CorpusError unless lists and references have the same utterances.
    """
    reading = ReadSettings(encoding=encoding, errors=errors)
    return references(lists, NBestFiles(path=Path(path), reading=reading, warn=warn))


def _texts(lists: NBestLists, refs: References) -> list[str]:
    """Return the references in the order of the lists."""
    texts = refs if isinstance(refs, Mapping) else read_references(lists, refs)
    check_same(texts, lists, "the references")
    return [texts[utterance.name] for utterance in lists]


def tune_weights(
    lists: NBestLists,
    refs: References,
    *,
    start: Mapping[str, float] | None = None,
    chars: bool = False,
    seed: int = 0,
) -> dict[str, float]:
    """Return the weights with the fewest word errors on rescored lists (Och 2003, MERT).

    `refs` are the references by utterance, or a file with them. The search begins at the weights
    `start`, by default those of `default_weights`, at single features, and at random weights that
    depend on `seed`. With `chars` character errors are counted. Raises CorpusError if the
    utterances differ, or if no weights make a difference.
    """
    texts = _texts(lists, refs)
    errors = [
        hypothesis_errors(utterance, reference, chars=chars)
        for utterance, reference in zip(lists, texts, strict=True)
    ]
    return tune(lists, errors, start or default_weights(lists), seed=seed)


def error_rates(
    lists: NBestLists,
    refs: References,
    weights: Mapping[str, float],
    *,
    chars: bool = False,
    seed: int = 0,
) -> dict[str, ErrorRate]:
    """Return the error rates of the first hypotheses, of the best ones, and of the oracle.

    The oracle chooses the hypothesis with the fewest errors. Raises CorpusError if the utterances
    differ, or if the references have no words.
    """
    texts = _texts(lists, refs)
    oracle = [
        utterance.hypotheses[int(hypothesis_errors(utterance, reference, chars=chars).argmin())]
        for utterance, reference in zip(lists, texts, strict=True)
    ]
    chosen = {
        "as given": [utterance.hypotheses[0] for utterance in lists],
        "rescored": lists.best(weights),
        "oracle": oracle,
    }
    return {
        name: error_rate(texts, [each.text for each in best], chars=chars, seed=seed)
        for name, best in chosen.items()
    }


def rate_change(
    lists: NBestLists,
    refs: References,
    weights: Mapping[str, float],
    *,
    chars: bool = False,
    seed: int = 0,
) -> ErrorChange:
    """Return the change of the error rate from the first hypotheses to the best ones.

    Both are compared on the same bootstrap samples of utterances. Raises the errors of
    `error_rates`.
    """
    first = [utterance.hypotheses[0].text for utterance in lists]
    best = [each.text for each in lists.best(weights)]
    return error_change(_texts(lists, refs), first, best, chars=chars, seed=seed)
