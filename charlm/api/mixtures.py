"""Evaluation of a run beside others, and of the mixture of all, on the same texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from charlm.backends.interface import Nats
from charlm.backends.mixed import mixed_nats
from charlm.backends.ngram_backend import NgramBackend
from charlm.errors import UsageError
from charlm.inference.adapt.mixture import fitted_weights
from charlm.inference.likelihood import tally, text_nats
from charlm.ngrams.kneser_ney import fit
from charlm.phases import phase
from charlm.runs.layout import COMPANION, read_config
from charlm.runs.locate import is_run
from charlm.runs.mixtures import complete_weights
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


@dataclass(frozen=True, kw_only=True)
class _Losses:
    """A text with the nats of each run on it."""

    text: EncodedText
    nats: list[Nats]


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
    losses = {
        name: _Losses(text=text, nats=[nats[name], *_nats_of(runs[1:], name, text, reset_every)])
        for name, text in texts.items()
    }
    plain: dict[str, Tally] = {}
    weights, origin = complete_weights(given), "given"
    if weights is None:
        fitting, where = _fitting(runs, losses, reset_every)
        if fitting is None:
            ((name, only),) = losses.items()
            cut = _middle(name, only.text)
            fitting, where = [own[:cut] for own in only.nats], f"the first half of {name}"
            rest = _Losses(
                text=_rest(runs[0], only.text, cut), nats=[own[cut:] for own in only.nats]
            )
            losses = {f"2nd half of {name}": rest}
            plain = {key: tally(each.text, each.nats[0]) for key, each in losses.items()}
        weights = tuple(fitted_weights(fitting, [None, *given]))
        origin = f"fitted on {where}"
    adapted = {}
    for text_name, each in losses.items():
        for name, own in zip(names[1:], each.nats[1:], strict=True):
            adapted[f"{text_name}, {name}"] = tally(each.text, own)
        adapted[f"{text_name}, mixture"] = tally(each.text, mixed_nats(each.nats, weights))
    parts = " + ".join(f"{weight:.3f} {name}" for weight, name in zip(weights, names, strict=True))
    return MixedTallies(plain=plain, adapted=adapted, note=f"mixture: {parts} (weights {origin})")


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


def _nats_of(
    runs: Sequence[Run], name: str, text: EncodedText, reset_every: int | None
) -> list[Nats]:
    with phase(f"evaluating: {name}, other runs", total=len(runs) * len(text.ids)):
        return [text_nats(run.backend, text, reset_every=reset_every) for run in runs]


def _fitting(
    runs: Sequence[Run], losses: Mapping[str, _Losses], reset_every: int | None
) -> tuple[list[Nats] | None, str]:
    """Return the losses on the validation text, or None if there is no other text to evaluate."""
    if len(losses) > 1 and VALID in losses:
        return losses[VALID].nats, "the validation text"
    text = None if VALID in losses else runs[0].kept(VALID)
    if text is None:
        return None, ""
    return _nats_of(runs, VALID, text, reset_every), "the validation text"


def _middle(name: str, text: EncodedText) -> int:
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


def _rest(run: Run, text: EncodedText, cut: int) -> EncodedText:
    """Return a text from a token on, with the counts of its decoded ids."""
    ids = np.asarray(text.ids[cut:])
    counts, _ = count_text(run.vocabulary.decode(ids, "<unk>"))
    return replace(text, ids=ids, ends=text.ends[text.ends > cut] - cut, counts=counts)
