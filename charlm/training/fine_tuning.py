"""Fine-tuning: start a run with the weights of another one, its parent.

The vocabulary may grow. A new entry gets a fraction of the probability of UNK, which stood for it
so far, so that the probabilities of all others stay as they are. If UNK was never learned, as by
most models of characters, it gets its frequency in the new text.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.backends.weights import CONDITIONS
from charlm.config.settings import Settings
from charlm.errors import UsageError, named
from charlm.inference.adapt.calibration import sample_of
from charlm.inference.likelihood import evaluate
from charlm.nn.encoder import Encoder, saved_tensors
from charlm.nn.model import RecurrentLanguageModel
from charlm.nn.output import Softmax
from charlm.nn.torch_backend import TorchBackend
from charlm.phases import phase
from charlm.runs import layout
from charlm.runs.conditions import conditions_of
from charlm.runs.model_files import write_weights
from charlm.runs.parent import Parent
from charlm.runs.run import load_run
from charlm.runs.tensors import put_weights
from charlm.runs.weights import load_arrays
from charlm.text.boundaries import Boundaries
from charlm.text.dataset import Dataset
from charlm.text.direction import mirrored
from charlm.text.encoded import EncodedText, id_counts, read_encoded, write_encoded
from charlm.text.labels import Labelled
from charlm.text.tokenizers.tokenizer_json import EOS, UNK
from charlm.training.calibrating import BestWeights
from charlm.training.task_training import Tensors

if TYPE_CHECKING:
    from charlm.training.session import Session

MAX_OLD_TOKENS = 20_000
"""Tokens of the parent's validation text on which forgetting is measured."""
UNSEEN = 0.5
"""Occurrences that an entry counts as having at least, so that it keeps some probability."""
CONTEXTS, CONTEXT_STEPS = 4096, 128
"""Tokens of the new text from which the level of the logits is estimated, and length of the pieces.
The biases alone, ln(frequency), gave a new character of the built-in `prose` 1 / 1300 of its
frequency."""
FOREIGN = (
    "run {0} predicts the new text worse than the frequencies of its tokens do; training without "
    "it may be better"
)
"""Warning about a text that the parent knows nothing of."""


@torch.no_grad()
def starting_weights(parent: Parent, dataset: Dataset) -> Tensors:
    """Return the weights of a parent for the vocabulary and the documents of a new text, by name.

    The parent's calibration is folded in. A condition of the text begins like that of the parent
    with the same name, else like EOS. Raises RunError if its weights are damaged.
    """
    settings, size = parent.settings.model, int(parent.config["vocab_size"])
    names = conditions_of(parent.config)
    arrays = load_arrays(parent.path / layout.WEIGHTS, settings, size, None, len(names))
    model = RecurrentLanguageModel(settings, size, len(names))
    put_weights(model, {name: torch.from_numpy(array) for name, array in arrays.items()})
    fold_scale(model, parent.logit_scale)
    tensors = {name: tensor.detach().clone() for name, tensor in saved_tensors(model).items()}
    old = dict(zip(names, tensors.pop(CONDITIONS, torch.empty(0)), strict=True))
    vocabulary, before = dataset.vocabulary, parent.vocabulary
    counts = id_counts(dataset.train.ids, len(vocabulary)).astype(np.float64)
    new = list(range(size, len(vocabulary)))
    if new and parent.learned_unk:
        add_rows(tensors, len(new))
        share(tensors, UNK, new, counts)
    elif new:
        ids = np.asarray(dataset.train.ids[:CONTEXTS])
        ids = np.where(ids < size, ids, UNK)
        add_rows(tensors, len(new))
        set_frequencies(tensors, new, counts, context_vectors(model, ids))
    had_ends = Boundaries.from_config(parent.config, before).has_ends
    if dataset.boundaries.has_ends and not had_ends and vocabulary.line_end not in (None, EOS):
        share(tensors, vocabulary.line_end or 0, [EOS], counts)
    if isinstance(beside := dataset.labelled, Labelled):
        eos = tensors["embedding.weight"][EOS]
        tensors[CONDITIONS] = torch.stack([old.get(name, eos) for name in beside.labels.names])
    return tensors


@torch.no_grad()
def fold_scale(model: RecurrentLanguageModel, scale: float) -> None:
    """Multiply all logits of a model by a factor; a mixture or an adaptive softmax has no place
    for it and stays as it is.

    A tied output matrix is also the embedding, so the weights that read it are divided, and
    conditions are multiplied as the embedding is.
    """
    if scale == 1.0 or not isinstance(model.output, Softmax):
        return
    model.output.weight.mul_(scale)
    model.output.bias.mul_(scale)
    if not model.settings.tie_weights:
        return
    for weight in model.recurrent_layers()[0].input_weights():
        weight.div_(scale)
    if model.conditions is not None:
        model.conditions.weight.mul_(scale)
    for name, part in zip(model.recurrent_layers()[0].spec.state, model.first_state, strict=False):
        if name == "x":  # the previous input
            part.mul_(scale)


def add_rows(tensors: Tensors, number: int) -> None:
    """Add rows for entries that follow all others, each the mean of the known ones."""
    for name in ("embedding.weight", "output.weight", "output.bias"):
        if name in tensors:
            rows = tensors[name]
            more = rows[EOS + 1 :].mean(0, keepdim=True)
            tensors[name] = torch.cat([rows, more.repeat(number, *[1] * (rows.dim() - 1))])


def context_vectors(model: RecurrentLanguageModel, ids: NDArray[np.integer[Any]]) -> Tensor:
    """Return hidden vectors (N, H) of a model that reads the beginning of a text."""
    steps = min(CONTEXT_STEPS, len(ids))
    rows = ids[: len(ids) // steps * steps].astype(np.int64).reshape(-1, steps)
    hidden, _, _ = model.read(torch.from_numpy(rows.T.copy()))
    return hidden.flatten(0, 1)


def set_frequencies(
    tensors: Tensors, entries: Sequence[int], counts: NDArray[np.float64], hidden: Tensor
) -> None:
    """Set the biases of new entries so that their mean probability is their frequency.

    For a row w, the bias is ln(frequency) - ln(mean of exp(w h - ln Z(h))) over the contexts
    `hidden` (N, H), with Z(h) the sum of the exponentials of the known logits.
    """
    weight, bias = tensors.get("output.weight", tensors["embedding.weight"]), tensors["output.bias"]
    known = entries[0]
    level = (hidden @ weight[:known].T + bias[:known]).logsumexp(-1)
    offset = (hidden @ weight[known] - level).logsumexp(0) - math.log(len(hidden))
    frequency = np.maximum(counts[list(entries)], UNSEEN) / max(counts.sum(), 1.0)
    bias[list(entries)] = torch.from_numpy(np.log(frequency)).to(bias) - offset


def share(
    tensors: Tensors, source: int, entries: Sequence[int], counts: NDArray[np.float64]
) -> None:
    """Divide the probability of a source entry among itself and others by their counts (V,).

    The others get its rows w and the bias b + ln(fraction), so that the sum of their probabilities
    is that of the source before, and no other probability changes.
    """
    everyone = [source, *entries]
    fractions = np.maximum(counts[everyone], UNSEEN)
    logs = torch.from_numpy(np.log(fractions / fractions.sum())).to(tensors["output.bias"])
    for name in ("embedding.weight", "output.weight"):
        if name in tensors:
            tensors[name][list(entries)] = tensors[name][source].clone()
    tensors["output.bias"][everyone] = tensors["output.bias"][source] + logs


def check_frozen_layers(settings: Settings) -> None:
    """Raise UsageError if more layers are to be frozen than the model has."""
    frozen, layers = settings.training.freeze_layers, settings.model.num_layers or 0
    if frozen > layers:
        raise UsageError(
            f"{named('freeze_layers')} is {frozen}; expected at most {layers}, the layers of the "
            "model. The output layer is always trained"
        )


def freeze(model: Encoder, layers: int, *, grown: bool) -> None:
    """Do not train the first layers, nor the embedding if it is neither tied nor has new rows."""
    if layers and not (model.settings.tie_weights or grown):
        model.embedding.requires_grad_(False)
    for layer in model.recurrent_layers()[:layers]:
        layer.requires_grad_(False)


def keep_old_text(path: Path, parent: Parent) -> None:
    """Keep a part of the parent's validation text with a run, if the parent still has it."""
    text = load_run(parent.path).kept("valid")
    if text is not None:
        write_encoded(path / layout.OLD_TEXT, sample_of(text, MAX_OLD_TOKENS))


def old_text(path: Path) -> EncodedText | None:
    """Return the part of the parent's validation text that was kept with a run, if any."""
    folder = path / layout.OLD_TEXT
    return read_encoded(folder) if (folder / "counts.json").exists() else None


def is_foreign(parent: Parent, weights: Tensors, dataset: Dataset) -> bool:
    """Return whether weights to start from predict a text worse than its token frequencies do."""
    size, conditions = len(dataset.vocabulary), len(weights.get(CONDITIONS, ()))
    model = RecurrentLanguageModel(parent.settings.model, size, conditions)
    put_weights(model, weights)
    counts = id_counts(dataset.train.ids, size)
    frequencies = counts[counts > 0] / counts.sum()
    entropy = -float(np.sum(frequencies * np.log(frequencies)))
    text = sample_of(dataset.train, CONTEXTS)
    text = mirrored(text) if parent.settings.model.direction == "backward" else text
    return evaluate(TorchBackend(model), text).nats_per_token > entropy


def begin(session: "Session") -> None:
    """Save the starting weights of a session as its best so far and in a first checkpoint.

    Their figures on the new and on the old validation text go into the record.
    """
    trainer, about = session.trainer, session.record["from"]
    write_weights(session.path, trainer.model)
    backend = BestWeights(session.path, trainer).backend()
    figures: dict[str, Mapping[str, Any] | None] = {"valid": None, "old_valid": None}
    with phase("evaluating the weights to start from"):
        if (valid := session.dataset.valid) is not None:
            tally = evaluate(backend, valid)
            trainer.counters.take_as_best(tally)
            figures["valid"] = tally.summary()
        if (old := old_text(session.path)) is not None:
            figures["old_valid"] = evaluate(backend, old).summary()
    about |= figures
    session.save()
