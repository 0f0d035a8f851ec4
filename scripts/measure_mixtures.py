"""Measure mixtures of networks with n-grams of their training text.

    python scripts/measure_mixtures.py RUN [--order 8] [--pairs homophone_pairs.ptb_test.tsv]

Rows of the table: the network, the n-grams, their mixture (the figures of `charlm eval --ngram N`),
and two experiments that no verb offers:

* a weight for each length of the longest known context, which depends on the history only;
* n-grams that learn the text while it is read: they are fitted again on the training text and the
  part that was read, before each twentieth of the text.

All weights are fitted by EM on the validation text; if that is the only text, on its first half,
and the figures are those of the second half; the last column is of the whole text then, each half
with the weights of the other. With `--pairs`, the table of minimal pairs follows:
the fraction with a likelier good sentence by ln P alone, and with the usual price for unknown
tokens.
"""

import argparse
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from charlm.api.loading import load
from charlm.api.mixtures import ngram_run
from charlm.api.model import Model
from charlm.api.pairs import pairs
from charlm.backends.mixed import mixed_nats
from charlm.backends.ngram_backend import NgramBackend
from charlm.inference.adapt.mixture import fitted_weights
from charlm.inference.likelihood import text_nats
from charlm.ngrams.kneser_ney import fit
from charlm.ngrams.model import NgramModel
from charlm.runs.mixtures import mix_runs
from charlm.runs.run import Run
from charlm.text.tokenizers.tokenizer_json import EOS

Nats = NDArray[np.float64]
PARTS = 20
"""Parts of a text, before each of which the learning n-grams are fitted again."""
MIN_TOKENS = 50
"""Fewest tokens of a length of context on which its own weight is fitted."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """Losses (N,) of the network and ids of the text that is evaluated, and of what is before it.

    The weights are fitted on the first `fitted` tokens; the others are evaluated.
    """

    ids: NDArray[np.int64]
    network: Nats
    fitted: int

    def fitting(self, nats: Nats) -> Nats:
        """Return the losses on the tokens for the weights."""
        return nats[: self.fitted]

    def mean(self, nats: Nats) -> float:
        """Return the nats per token of the evaluated part."""
        return float(nats[self.fitted :].mean())


def read_text(run: Run) -> Text:
    """Return the validation text and the test text, or the halves of the validation text."""
    texts = [text for name in ("valid", "test") if (text := run.kept(name)) is not None]
    nats = [text_nats(run.backend, text) for text in texts]
    fitted = len(nats[0]) if len(texts) > 1 else len(nats[0]) // 2
    ids = np.concatenate([np.asarray(text.ids, np.int64) for text in texts])
    return Text(ids=ids, network=np.concatenate(nats), fitted=fitted)


def mixed(text: Text, ngrams: Nats) -> tuple[Nats, float]:
    """Return the losses of the mixture, and the weight of the network."""
    weights = fitted_weights([text.fitting(text.network), text.fitting(ngrams)])
    return mixed_nats([text.network, ngrams], weights), weights[0]


def context_lengths(model: NgramModel, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the length of the longest known context of each token."""
    contexts = model.contexts(np.concatenate([[EOS], ids[:-1]]))
    return np.asarray(((contexts >= 0) * np.arange(1, model.order)[:, None]).max(axis=0))


def mixed_by_length(text: Text, lengths: NDArray[np.int64], ngrams: Nats) -> Nats:
    """Return the losses of a mixture with a weight for each length of known context."""
    nats, _ = mixed(text, ngrams)
    for length in np.unique(lengths):
        chosen = lengths == length
        fitting = chosen & (np.arange(len(chosen)) < text.fitted)
        if fitting.sum() >= MIN_TOKENS:
            weights = fitted_weights([text.network[fitting], ngrams[fitting]])
            nats[chosen] = mixed_nats([text.network[chosen], ngrams[chosen]], weights)
    return nats


def learning_nats(run: Run, text: Text, order: int) -> Nats:
    """Return the losses of n-grams that are fitted again on what was read before each part."""
    kept = run.kept("train")
    assert kept is not None, "the run keeps its training text"
    train, nats = np.asarray(kept.ids, np.int64), np.empty(len(text.ids))
    cuts = np.linspace(0, len(text.ids), PARTS + 1).astype(int)
    for begin, end in pairwise(cuts):
        model, _ = fit(np.concatenate([train, text.ids[:begin]]), len(run.vocabulary), order)
        first = max(begin - order, 0)
        nats[begin:end] = model.text_nats(text.ids[first:end])[begin - first :]
    return nats


def texts_table(model: Model, order: int) -> list[str]:
    """Return the rows about the held-out text."""
    run, text = model.run, read_text(model.run)
    backend = ngram_run(run, order).backend
    assert isinstance(backend, NgramBackend)
    ngrams, learning = backend.model.text_nats(text.ids), learning_nats(run, text, order)
    lengths = context_lengths(backend.model, text.ids)
    rows = _rows(text, lengths, ngrams, learning)
    other = np.roll(np.arange(len(text.ids)), -text.fitted)  # its halves are exchanged
    swapped = Text(
        ids=text.ids[other], network=text.network[other], fitted=len(other) - text.fitted
    )
    crossed = _rows(swapped, lengths[other], ngrams[other], learning[other])
    is_halved = run.kept("test") is None
    lines = [f"| {model.path.name} | nats/token | perplexity | all |", "|---|---:|---:|---:|"]
    for (name, nats), swapped_nats in zip(rows.items(), crossed.values(), strict=True):
        evaluated = nats[text.fitted :].sum() + swapped_nats[swapped.fitted :].sum()
        whole = f"{evaluated / len(nats):.4f}" if is_halved else ""
        lines.append(
            f"| {name} | {text.mean(nats):.4f} | {np.exp(text.mean(nats)):.2f} | {whole} |"
        )
    _, weight = mixed(text, ngrams)
    return [*lines, "", f"weight of the network {weight:.3f}, beside {order}-grams"]


def _rows(text: Text, lengths: NDArray[np.int64], ngrams: Nats, learning: Nats) -> dict[str, Nats]:
    """Return the losses of each row of the table."""
    return {
        "network": text.network,
        "n-grams": ngrams,
        "mixture": mixed(text, ngrams)[0],
        "mixture, weight by length of context": mixed_by_length(text, lengths, ngrams),
        "mixture, learning n-grams": mixed(text, learning)[0],
    }


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
    model = load(arguments.run)
    print("\n".join(texts_table(model, arguments.order)))
    if arguments.pairs:
        print("\n".join(["", *pairs_table(model, arguments.order, arguments.pairs)]))


if __name__ == "__main__":
    main()
