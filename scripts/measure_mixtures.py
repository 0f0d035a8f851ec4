"""Measure mixtures of networks with n-grams of their training text.

    python scripts/measure_mixtures.py RUN [--order 8] [--pairs homophone_pairs.ptb_test.tsv]

Rows of the table: the network, the n-grams, their mixture as in `charlm eval --ngram N`, and two
other mixtures that no verb offers:

* one weight for all tokens, and the network as it is calibrated;
* n-grams that learn the text while it is read, with one weight: they are fitted again on the
  training text and the part that was read, before each twentieth of the text.

All mixtures are fitted on the validation text; if that is the only text, on its first half, and the
figures are those of the second half; the last column is of the whole text then, each half with the
mixture of the other. With `--pairs`, the table of minimal pairs follows: the fraction with a
likelier good sentence by ln P alone, and with the usual price for unknown tokens.
"""

import argparse
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from charlm.api.loading import load_model
from charlm.api.mixtures import middle, ngram_run, part
from charlm.api.model import Model
from charlm.api.pairs import pairs
from charlm.backends.mixed import mixed_nats
from charlm.backends.ngram_backend import NgramBackend
from charlm.inference.adapt.mixture import fitted_weights
from charlm.inference.likelihood import text_nats
from charlm.ngrams.kneser_ney import fit
from charlm.runs.mixtures import mix_runs
from charlm.runs.run import Run
from charlm.text.encoded import EncodedText

Nats = NDArray[np.float64]
PARTS = 20
"""Parts of a text, before each of which the learning n-grams are fitted again."""


@dataclass(frozen=True, kw_only=True)
class Fold:
    """A text on which mixtures are fitted, and the tokens of a text that are evaluated."""

    fitting: EncodedText
    text: EncodedText
    span: slice


def folds_of(run: Run) -> list[Fold]:
    """Return validation and test text, or each half of the validation text with the other."""
    valid, test = run.kept("valid"), run.kept("test")
    assert valid is not None, "the run keeps its validation text"
    if test is not None:
        return [Fold(fitting=valid, text=test, span=slice(None))]
    cut, end = middle("valid", valid), len(valid.ids)
    first, second = part(run, valid, 0, cut), part(run, valid, cut, end)
    return [
        Fold(fitting=first, text=valid, span=slice(cut, end)),
        Fold(fitting=second, text=valid, span=slice(0, cut)),
    ]


def learning_nats(run: Run, ids: NDArray[np.integer], order: int) -> Nats:
    """Return the losses of n-grams that are fitted again on what was read before each part."""
    kept = run.kept("train")
    assert kept is not None, "the run keeps its training text"
    train, nats = np.asarray(kept.ids), np.empty(len(ids))
    cuts = np.linspace(0, len(ids), PARTS + 1).astype(int)
    for begin, end in pairwise(cuts):
        model, _ = fit(np.concatenate([train, ids[:begin]]), len(run.vocabulary), order)
        first = max(begin - order, 0)
        nats[begin:end] = model.text_nats(ids[first:end])[begin - first :]
    return nats


def one_weight(run: Run, fold: Fold, fitting: Nats, ngrams: Nats) -> Nats:
    """Return the losses with one weight; the n-grams have these nats on the two texts."""
    weights = fitted_weights([text_nats(run.backend, fold.fitting), fitting])
    return mixed_nats([text_nats(run.backend, fold.text), ngrams], weights)


def fold_rows(run: Run, ngrams: Run, learning: Nats, fold: Fold) -> tuple[dict[str, Nats], str]:
    """Return the losses of each row on the evaluated tokens, and the mixture in words."""
    assert isinstance(ngrams.backend, NgramBackend)
    own, fitting = (ngrams.backend.model.text_nats(text.ids) for text in (fold.text, fold.fitting))
    mixture = mix_runs([run, ngrams], [None], fold.fitting)
    rows = {
        "network": text_nats(run.backend, fold.text),
        "n-grams": own,
        "mixture": text_nats(mixture.run.backend, fold.text),
        "mixture, one weight": one_weight(run, fold, fitting, own),
        "mixture, learning n-grams": one_weight(run, fold, fitting, learning),
    }
    return {name: nats[fold.span] for name, nats in rows.items()}, str(mixture)


def texts_table(model: Model, order: int) -> list[str]:
    """Return the rows about the held-out text."""
    run, folds = model.run, folds_of(model.run)
    ngrams, learning = ngram_run(run, order), learning_nats(run, folds[0].text.ids, order)
    (rows, words), *others = (fold_rows(run, ngrams, learning, fold) for fold in folds)
    lines = [f"| {model.path.name} | nats/token | perplexity | all |", "|---|---:|---:|---:|"]
    for name, nats in rows.items():
        both = np.concatenate([nats, *(other[name] for other, _ in others)])
        whole = f"{both.mean():.4f}" if others else ""
        lines.append(f"| {name} | {nats.mean():.4f} | {np.exp(nats.mean()):.2f} | {whole} |")
    return [*lines, "", f"{order}-grams; {words}"]


def pairs_table(model: Model, order: int, path: str) -> list[str]:
    """Return the rows about minimal pairs; the weight is fitted on the validation text."""
    other = ngram_run(model.run, order)
    mixture = mix_runs([model.run, other], [None])
    models = {
        "network": model,
        f"{order}-gram": Model(other),
        f"mixture (network {mixture.weights[0]:.3f})": Model(mixture.run),
    }
    lines = ["| pairs | correct | with a price for UNK | of |", "|---|---:|---:|---:|"]
    for name, each in models.items():
        plain, priced = pairs(each, path, unk_penalty=0.0).total, pairs(each, path).total
        lines.append(
            f"| {name} | {100 * plain.accuracy:.2f} % | {100 * priced.accuracy:.2f} % | "
            f"{plain.pairs:,} |"
        )
    return lines


def main() -> None:
    """Print the tables of a run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("--order", type=int, default=8)
    parser.add_argument("--pairs", help="file of minimal pairs")
    arguments = parser.parse_args()
    model = load_model(arguments.run)
    print("\n".join(texts_table(model, arguments.order)))
    if arguments.pairs:
        print("\n".join(["", *pairs_table(model, arguments.order, arguments.pairs)]))


if __name__ == "__main__":
    main()
