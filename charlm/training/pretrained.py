"""Initial values of a model: word vectors trained elsewhere, and the frequencies of tokens."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.backends.weights import FRESH
from charlm.config.settings import Settings
from charlm.errors import CorpusError, RunError, UsageError, named
from charlm.files.atomic import write_file
from charlm.nn.encoder import Encoder
from charlm.nn.model import RecurrentLanguageModel
from charlm.runs.layout import KEPT_VECTORS
from charlm.runs.tensors import tensors_from_file
from charlm.text.dataset import Dataset
from charlm.text.encoded import EncodedText, id_counts
from charlm.text.tokenizers.vocabulary import Vocabulary
from charlm.text.vectors import read_vectors, written_name


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """Vectors (n, width) of the entries `ids` (n,) of a vocabulary."""

    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    warnings: tuple[str, ...] = ()


def find_vectors(path: Path, vocabulary: Vocabulary) -> Pretrained:
    """Read the vectors of a vocabulary's entries, or of their lower-case forms, from a file.

    Raises CorpusError if the file has none of them.
    """
    names = [_names(vocabulary.token_text(index)) for index in range(len(vocabulary))]
    file = read_vectors(path, {name for candidates in names for name in candidates})
    by_name = file.by_word
    pairs = {
        index: by_name[name]
        for index, candidates in enumerate(names)
        for name in reversed(candidates)  # the first one wins
        if name in by_name
    }
    if not pairs:
        raise CorpusError(
            f"{path}: holds none of the {len(vocabulary):,} entries of the vocabulary; expected "
            "vectors of the same units. Try --unit word"
        )
    ids = np.array(list(pairs), np.int64)
    return Pretrained(ids=ids, vectors=np.stack(list(pairs.values())), warnings=file.warnings)


def _names(token: str) -> list[str]:
    """Return the names that a token may have in a file of vectors, the best first."""
    bare = token.strip()
    return [name for name in (written_name(token), bare, bare.lower()) if name]


def with_width(settings: Settings, pretrained: Pretrained) -> Settings:
    """Make the embedding as wide as the vectors. Raises UsageError if another width is set."""
    width = pretrained.vectors.shape[1]
    model = settings.model
    if model.one_hot or model.embedding_size not in (None, width):
        given = "one-hot" if model.one_hot else model.embedding_size
        raise UsageError(
            f"{named('embedding_size')} is {given}, but the vectors have {width} numbers; leave "
            "one of them out"
        )
    return replace(settings, model=replace(model, embedding_size=width))


def keep_vectors(path: Path, pretrained: Pretrained) -> None:
    """Write the vectors into a run's folder, from which a resumed run can start again."""
    from safetensors.numpy import save

    (path / KEPT_VECTORS).parent.mkdir(parents=True, exist_ok=True)
    write_file(
        path / KEPT_VECTORS, bytes(save({"ids": pretrained.ids, "vectors": pretrained.vectors}))
    )


def kept_vectors(path: Path) -> Pretrained | None:
    """Read the vectors kept with a run, if any. Raises RunError if they are damaged."""
    if not (path / KEPT_VECTORS).exists():
        return None
    tensors = tensors_from_file(path / KEPT_VECTORS)
    ids, vectors = tensors.get("ids"), tensors.get("vectors")
    valid = (
        ids is not None and vectors is not None and ids.dtype == torch.int64
        and vectors.dtype == torch.float32 and ids.dim() == 1 and vectors.dim() == 2
        and len(ids) == len(vectors) > 0 and bool((ids >= 0).all())
        and bool(vectors.isfinite().all())
    )  # fmt: skip
    if not valid or ids is None or vectors is None:
        raise RunError(f"{path / KEPT_VECTORS}: not the vectors that charlm train kept; restore it")
    return Pretrained(ids=ids.numpy(), vectors=vectors.numpy())


@torch.no_grad()
def set_vectors(model: Encoder, pretrained: Pretrained) -> None:
    """Put the vectors into each embedding; scale the other entries to the same spread."""
    vectors, ids = pretrained.vectors, pretrained.ids
    for weight in embeddings(model):
        if vectors.shape[1] != weight.shape[1] or int(ids.max()) >= len(weight):
            raise RunError(
                f"the kept vectors are {vectors.shape[1]} wide, of entries up to "
                f"{ids.max()}; expected {weight.shape[1]}, below {len(weight)}. Restore the run"
            )
        weight *= float(vectors.std()) / weight.std().clamp_min(1e-12)
        weight[torch.from_numpy(ids)] = torch.from_numpy(vectors)


def embeddings(model: Encoder) -> list[Tensor]:
    """Return the embedding, and that of a second half which reads backward."""
    return [
        weight
        for name, weight in model.named_parameters()
        if name.endswith("embedding.weight") and not name.startswith(FRESH)
    ]


def coverage(pretrained: Pretrained, dataset: Dataset) -> str:
    """Return a sentence on how much of vocabulary and training text the vectors cover."""
    counts = id_counts(dataset.train.ids, len(dataset.vocabulary))
    fraction = counts[pretrained.ids].sum() / max(counts.sum(), 1)
    known, entries = len(pretrained.ids), len(dataset.vocabulary)
    return (
        f"vectors: {known:,} of {entries:,} entries ({100 * known / entries:.1f} %), "
        f"{100 * fraction:.1f} % of the training tokens"
    )


@torch.no_grad()
def set_output_bias(model: RecurrentLanguageModel, text: EncodedText) -> None:
    """Set the output's bias, if it has one, to the logarithms of the tokens' frequencies.

    After one minute of training on a Japanese novel of 3,883 distinct characters, a model reached
    3.58 nats per character with them, and 4.71 without.
    """
    bias = getattr(model.output, "bias", None)
    if bias is None:
        return
    counts = id_counts(text.ids, model.vocab_size) + 0.5
    bias.copy_(torch.from_numpy(np.log(counts / counts.sum())))
