"""What a model begins with: word vectors that were trained elsewhere, the tokens' frequencies."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from charlm.config.settings import Settings
from charlm.errors import CorpusError, RunError, UsageError, named
from charlm.files.atomic import write_file
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
    """The vectors of a vocabulary's entries, or of their lower-case forms, in a file.

    Raises CorpusError when the file holds none of them.
    """
    names = [_names(vocabulary.token_text(index)) for index in range(len(vocabulary))]
    read = read_vectors(path, {name for some in names for name in some})
    known = read.by_word
    pairs = {
        index: known[name]
        for index, some in enumerate(names)
        for name in reversed(some)  # the first one counts
        if name in known
    }
    if not pairs:
        raise CorpusError(
            f"{path}: holds none of the {len(vocabulary):,} entries of the vocabulary; expected "
            "vectors of the same units. Try --unit word"
        )
    ids = np.array(list(pairs), np.int64)
    return Pretrained(ids=ids, vectors=np.stack(list(pairs.values())), warnings=read.warnings)


def _names(token: str) -> list[str]:
    """What a token may be called in a file of vectors, the best name first."""
    bare = token.strip()
    return [name for name in (written_name(token), bare, bare.lower()) if name]


def with_width(settings: Settings, found: Pretrained) -> Settings:
    """The settings, the embedding as wide as the vectors. Raises UsageError if it is not to be."""
    width = found.vectors.shape[1]
    model = settings.model
    if model.one_hot or model.embedding_size not in (None, width):
        given = "one-hot" if model.one_hot else model.embedding_size
        raise UsageError(
            f"{named('embedding_size')} is {given}, but the vectors have {width} numbers; leave "
            "one of them out"
        )
    return replace(settings, model=replace(model, embedding_size=width))


def keep_vectors(path: Path, found: Pretrained) -> None:
    """Write the vectors into a run's folder, so that a half or a resumed run can begin anew."""
    from safetensors.numpy import save

    (path / KEPT_VECTORS).parent.mkdir(parents=True, exist_ok=True)
    write_file(path / KEPT_VECTORS, bytes(save({"ids": found.ids, "vectors": found.vectors})))


def kept_vectors(path: Path) -> Pretrained | None:
    """What `keep_vectors` wrote, if anything. Raises RunError when it is damaged."""
    if not (path / KEPT_VECTORS).exists():
        return None
    tensors = tensors_from_file(path / KEPT_VECTORS)
    ids, vectors = tensors.get("ids"), tensors.get("vectors")
    whole = (
        ids is not None and vectors is not None and ids.dtype == torch.int64
        and vectors.dtype == torch.float32 and ids.dim() == 1 and vectors.dim() == 2
        and len(ids) == len(vectors) > 0 and bool((ids >= 0).all())
        and bool(vectors.isfinite().all())
    )  # fmt: skip
    if not whole or ids is None or vectors is None:
        raise RunError(f"{path / KEPT_VECTORS}: not the vectors that charlm train kept; restore it")
    return Pretrained(ids=ids.numpy(), vectors=vectors.numpy())


@torch.no_grad()
def begin_with(model: RecurrentLanguageModel, found: Pretrained) -> None:
    """Put the vectors into the embedding; the entries without get numbers of the same spread."""
    weight = model.embedding.weight
    if found.vectors.shape[1] != weight.shape[1] or int(found.ids.max()) >= len(weight):
        raise RunError(
            f"the kept vectors are {found.vectors.shape[1]} wide, of entries up to "
            f"{found.ids.max()}; expected {weight.shape[1]}, below {len(weight)}. Restore the run"
        )
    weight *= float(found.vectors.std()) / weight.std().clamp_min(1e-12)
    weight[torch.from_numpy(found.ids)] = torch.from_numpy(found.vectors)


def coverage(found: Pretrained, dataset: Dataset) -> str:
    """A sentence on how much of the vocabulary and of the training text the vectors know."""
    counts = id_counts(dataset.train.ids, len(dataset.vocabulary))
    share = counts[found.ids].sum() / max(counts.sum(), 1)
    entries = len(dataset.vocabulary)
    return (
        f"vectors: {len(found.ids):,} of {entries:,} entries "
        f"({100 * len(found.ids) / entries:.1f} %), {100 * share:.1f} % of the training tokens"
    )


@torch.no_grad()
def begin_with_frequencies(model: RecurrentLanguageModel, text: EncodedText) -> None:
    """Set the output's bias to the logarithms of the tokens' frequencies, where it has one.

    What it would have to learn first is there from the start: one minute of training on a Japanese
    novel of 3,883 characters came to 3.58 nats per character with it, to 4.71 without.
    """
    bias = getattr(model.output, "bias", None)
    if bias is None:
        return
    counts = id_counts(text.ids, model.vocab_size) + 0.5
    bias.copy_(torch.from_numpy(np.log(counts / counts.sum())))
