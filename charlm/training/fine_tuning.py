"""Fine-tuning: start a run with the weights of another one, its parent.

The vocabulary may grow. A new entry gets a fraction of the probability of the entry that stood for
it so far, so that the probabilities of all others stay as they are.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.config.settings import Settings
from charlm.errors import UsageError, named
from charlm.inference.adapt.calibration import sample_of
from charlm.inference.likelihood import evaluate
from charlm.nn.model import RecurrentLanguageModel, saved_tensors
from charlm.nn.output import Softmax
from charlm.phases import phase
from charlm.runs import layout
from charlm.runs.parent import Parent
from charlm.runs.run import load_run, write_weights
from charlm.runs.tensors import put_weights
from charlm.runs.weights import load_arrays
from charlm.text.boundaries import Boundaries
from charlm.text.dataset import Dataset
from charlm.text.encoded import EncodedText, id_counts, read_encoded, write_encoded
from charlm.text.tokenizers.tokenizer_json import EOS, UNK
from charlm.training.calibrating import best_backend

if TYPE_CHECKING:
    from charlm.training.session import Session

MAX_OLD_TOKENS = 200_000
"""Tokens of the parent's validation text on which forgetting is measured."""
UNSEEN = 0.5
"""Occurrences that an entry counts as having at least, so that it keeps some probability."""
Tensors = dict[str, Tensor]


@torch.no_grad()
def starting_weights(parent: Parent, dataset: Dataset) -> Tensors:
    """Return the weights of a parent for the vocabulary and the documents of a new text, by name.

    The parent's calibration is folded in. Raises RunError if its weights are damaged.
    """
    settings, size = parent.settings.model, int(parent.config["vocab_size"])
    arrays = load_arrays(parent.path / layout.WEIGHTS, settings, size)
    model = RecurrentLanguageModel(settings, size)
    put_weights(model, {name: torch.from_numpy(array) for name, array in arrays.items()})
    fold_scale(model, parent.logit_scale)
    tensors = {name: tensor.detach().clone() for name, tensor in saved_tensors(model).items()}
    vocabulary, before = dataset.vocabulary, parent.vocabulary
    counts = id_counts(dataset.train.ids, len(vocabulary)).astype(np.float64)
    new = list(range(size, len(vocabulary)))
    if new:
        add_entries(tensors, new, counts, learned_unk=parent.learned_unk)
    had_ends = Boundaries.from_config(parent.config, before).has_ends
    if dataset.boundaries.has_ends and not had_ends and vocabulary.line_end not in (None, EOS):
        share(tensors, vocabulary.line_end or 0, [EOS], counts)
    return tensors


@torch.no_grad()
def fold_scale(model: RecurrentLanguageModel, scale: float) -> None:
    """Multiply all logits of a model by a factor; a mixture or an adaptive softmax has no place
    for it and stays as it is.

    A tied output matrix is also the embedding, so the weights that read it are divided.
    """
    if scale == 1.0 or not isinstance(model.output, Softmax):
        return
    model.output.weight.mul_(scale)
    model.output.bias.mul_(scale)
    if not model.settings.tie_weights:
        return
    for weight in model.recurrent_layers()[0].input_weights():
        weight.div_(scale)
    for name, part in zip(model.recurrent_layers()[0].spec.state, model.first_state, strict=False):
        if name == "x":  # the previous input
            part.mul_(scale)


def add_entries(
    tensors: Tensors, new: Sequence[int], counts: NDArray[np.float64], *, learned_unk: bool
) -> None:
    """Add rows for the new entries, which follow all others, to the weights of a model.

    They share the probability of UNK in proportion to their `counts` (V,) in the new text. If UNK
    was never learned, they are the mean of all known entries, with the logarithm of their frequency
    as bias.
    """
    known = new[0]
    matrices = [name for name in ("embedding.weight", "output.weight") if name in tensors]
    for name in matrices:
        rows = tensors[name]
        tensors[name] = torch.cat([rows, rows[EOS + 1 :].mean(0).expand(len(new), -1)])
    frequency = np.maximum(counts[known:], UNSEEN) / max(counts.sum(), 1.0)
    bias = torch.from_numpy(np.log(frequency)).to(tensors["output.bias"])
    tensors["output.bias"] = torch.cat([tensors["output.bias"], bias])
    if learned_unk:
        share(tensors, UNK, new, counts)


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


def freeze(model: RecurrentLanguageModel, layers: int, *, grown: bool) -> None:
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


def begin(session: "Session") -> None:
    """Save the starting weights of a session as its best so far and in a first checkpoint.

    Their figures on the new and on the old validation text go into the record.
    """
    trainer, about = session.trainer, session.record["from"]
    write_weights(session.path, trainer.model)
    backend = best_backend(session.path, trainer)
    figures: dict[str, Mapping[str, Any] | None] = {"valid": None, "old_valid": None}
    with phase("evaluating the weights to start from"):
        if (valid := session.dataset.valid) is not None:
            tally = evaluate(backend, valid)
            trainer.counters.take_as_best(tally)
            figures["valid"] = tally.summary()
        if (old := old_text(session.path)) is not None:
            figures["old_valid"] = evaluate(backend, old).summary()
    about |= figures
    session.save_start()
