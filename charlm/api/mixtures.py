"""Evaluation of a run beside others, and of the mixture of all, on the same texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from charlm.backends.interface import Nats
from charlm.backends.ngram_backend import NgramBackend
from charlm.errors import UsageError
from charlm.inference.likelihood import tally, text_nats
from charlm.ngrams.kneser_ney import fit
from charlm.phases import phase
from charlm.runs.layout import COMPANION, read_config
from charlm.runs.locate import is_run
from charlm.runs.mixtures import complete_weights, mix_runs
from charlm.runs.run import Run, load_run
from charlm.text.encoded import EncodedText, count_text
from charlm.units import Tally

VALID = "valid"


@dataclass(frozen=True, kw_only=True)
class MixedTallies:
    """Tallies of texts with other runs and with the mixture, by "text, method".

    If the weights were fitted on the first half of the only text, `plain` has the tally of the run
    on the second half, and the other tallies are those of the second half too.
    """

    plain: dict[str, Tally]
    adapted: dict[str, Tally]
    note: str


def evaluate_mixture(
    names: Sequence[str],
    runs: Sequence[Run],
    given: Sequence[float | None],
    texts: Mapping[str, EncodedText],
    nats: Mapping[str, Nats],
    reset_every: int | None = None,
) -> MixedTallies:
    """Return the tallies of texts under the other runs and under the mixture of all.

    The evaluated run is the first, and `nats` are its losses by text. `given` has a weight or None
    for each of the others. Missing weights are fitted on the validation text; if that is the only
    text, or missing too, on the first half of the only text. `reset_every` is as in `text_nats`.
    Raises UsageError if the only text is too short.
    """
    fitting, where, cut = None, "the validation text", 0
    if complete_weights(given) is None:
        if VALID not in texts:
            fitting = runs[0].kept(VALID)
        elif len(texts) > 1:
            fitting = texts[VALID]
        if fitting is None:
            ((only, text),) = texts.items()
            cut, where = middle(only, text), f"the first half of {only}"
            fitting = part(runs[0], text, 0, cut)
    mixture = mix_runs(runs, given, fitting, f"fitted on {where}")
    others = [*zip(names[1:], runs[1:], strict=True), ("mixture", mixture.run)]
    plain: dict[str, Tally] = {}
    adapted: dict[str, Tally] = {}
    for name, text in texts.items():
        shown, rest = name, text
        if cut:
            shown, rest = f"2nd half of {name}", part(runs[0], text, cut, len(text.ids))
            plain[shown] = tally(rest, nats[name][cut:])
        with phase(f"evaluating: {name}, other runs", total=len(others) * len(text.ids)):
            for other, run in others:
                losses = text_nats(run.backend, text, reset_every=reset_every)
                adapted[f"{shown}, {other}"] = tally(rest, losses[cut:])
    return MixedTallies(plain=plain, adapted=adapted, note=mixture.described(names))


def ngram_run(run: Run, order: int) -> Run:
    """Return n-grams of the training text of a run: its companion, if that has this order.

    Otherwise they are fitted. Raises RunError or CorpusError if the training text is gone.
    """
    companion = run.path / COMPANION
    if is_run(companion) and read_config(companion)["model"].get("order") == order:
        return load_run(companion)
    text = run.kept("train") or run.as_read(run.dataset.train)
    with phase("fitting n-grams"):
        model, _ = fit(np.asarray(text.ids), len(run.vocabulary), order)
    return replace(run, backend=NgramBackend(model))


def middle(name: str, text: EncodedText) -> int:
    """Return the end of the document nearest to the middle, or of half of a stream.

    Raises UsageError if a half would be empty.
    """
    half = len(text.ids) // 2
    if not half:
        raise UsageError(
            f"{name} has one token; expected two or more, the first half to fit the weights of "
            "--with on. Give the weights: --with RUN=0.5"
        )
    if text.documents < 2:
        return half
    ends = text.ends[:-1]
    return int(ends[np.abs(ends - half).argmin()])


def part(run: Run, text: EncodedText, begin: int, end: int) -> EncodedText:
    """Return a part of a text, with the counts of its decoded ids."""
    ids = np.asarray(text.ids[begin:end])
    counts, _ = count_text(run.vocabulary.decode(ids, "<unk>"))
    ends = text.ends[(text.ends > begin) & (text.ends < end)]
    return replace(text, ids=ids, ends=np.append(ends, end) - begin, counts=counts)
