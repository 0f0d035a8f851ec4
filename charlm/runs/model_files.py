"""Write the model files of a run: config.json, vocabularies, weights, and the manifest."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from charlm import __version__
from charlm.config.model import ModelSettings
from charlm.errors import RunError
from charlm.files.atomic import (
    MANIFEST,
    Content,
    file_fingerprint,
    fingerprint,
    json_bytes,
    write_file,
    write_json,
)
from charlm.runs import layout
from charlm.runs.shapes import Each, check_shape
from charlm.runs.weights import OLD_SCALE, has_old_scale
from charlm.text.boundaries import Boundaries
from charlm.text.tokenizers.vocabulary import Vocabulary

if TYPE_CHECKING:
    from charlm.nn.encoder import Encoder

MAYBE_ENTRY = (dict, type(None))


def model_config(
    model: ModelSettings | Mapping[str, Any],
    vocabulary: Vocabulary,
    boundaries: Boundaries,
    unk_types: float | None = None,
) -> dict[str, Any]:
    """Return the content of config.json for a network, or for an n-gram model (a mapping).

    The other arguments are as in `Dataset`.
    """
    about: dict[str, Any] = {"model": model}
    if isinstance(model, ModelSettings):
        import torch

        about = {"model": asdict(model), "torch": torch.__version__}
    return {
        "format": layout.FORMAT,
        "charlm": __version__,
        **about,
        "vocab_size": len(vocabulary),
        "vocabulary": asdict(vocabulary.settings),
        **boundaries.to_config(),
        **({} if unk_types is None else {"unk_types": unk_types}),
    }


def write_model_files(
    path: Path,
    config: dict[str, Any],
    vocabulary: Vocabulary,
    ngrams: Content | None = None,
    *,
    more: Mapping[str, Vocabulary] = {},
) -> None:
    """Write config.json, tokenizer.json and the n-grams, if any, of a new run, and the manifest.

    `more` are further vocabularies by the names of their files. The manifest also covers the
    encoded text in `data/`, which must exist already. Raises EnvironmentFailure.
    """
    files: dict[str, Content] = {
        layout.CONFIG: json_bytes(config),
        layout.TOKENIZER: vocabulary_bytes(vocabulary),
        **{name: vocabulary_bytes(other) for name, other in more.items()},
    }
    if ngrams is not None:
        files[layout.NGRAMS] = ngrams
    for name, data in files.items():
        write_file(path / name, data)
    entries = {name: fingerprint(data) for name, data in files.items()}
    for file in sorted(path.glob("data/*/*")):
        entries[file.relative_to(path).as_posix()] = file_fingerprint(file)
    write_json(path / MANIFEST, {"format": layout.FORMAT, "files": entries})


def vocabulary_bytes(vocabulary: Vocabulary) -> bytes:
    """Return the content of tokenizer.json."""
    text = json.dumps(vocabulary.to_json(), ensure_ascii=False, indent=1)
    return (text + "\n").encode("utf-8")


def write_weights(path: Path, model: "Encoder") -> None:
    """Replace the best weights by the weights of a model."""
    from charlm.nn.encoder import saved_tensors
    from charlm.runs.tensors import tensor_pieces

    replace_file(path, layout.WEIGHTS, tensor_pieces(saved_tensors(model)))


def write_logit_scale(path: Path, scale: float | None, bag: int | None = None) -> None:
    """Record the calibration factor in config.json; None removes it, also from older weights.

    So for the number of features of the bag of words that is mixed in.
    """
    config = {
        name: value
        for name, value in layout.read_config(path).items()
        if name not in (layout.LOGIT_SCALE, layout.BAG_FEATURES)
    }
    if bag is not None:
        config[layout.BAG_FEATURES] = bag
    if scale is not None:
        config[layout.LOGIT_SCALE] = float(np.float32(scale))  # the precision that all backends use
    replace_file(path, layout.CONFIG, json_bytes(config))
    if scale is None and (path / layout.WEIGHTS).exists() and has_old_scale(path / layout.WEIGHTS):
        from charlm.runs.tensors import tensors_from_file, tensors_to_bytes

        tensors = tensors_from_file(path / layout.WEIGHTS)
        del tensors[OLD_SCALE]
        replace_file(path, layout.WEIGHTS, tensors_to_bytes(tensors))


def replace_file(path: Path, name: str, data: Content) -> None:
    """Replace a file of a run, such as config.json or the weights, and its entry in the manifest.

    The manifest first allows the old and the new content, then the new one only, so that it is
    right whenever the process dies. Raises RunError if the folder is gone.
    """
    if not path.is_dir():
        raise RunError(
            f"{path} was removed or renamed while the run was using it; expected that folder until "
            "the end. Move it back and resume the run, or train it again"
        )
    manifest = layout.read_manifest(path)
    check_shape(manifest, {"files": Each((dict, Each(MAYBE_ENTRY, list)))}, str(path / MANIFEST))
    entries = dict(manifest["files"])
    before = entries.get(name)  # weights may be missing until the first ones are written
    after = fingerprint(data)
    if before == after and (path / name).exists():
        return
    old = before if isinstance(before, list) else [before]
    entries[name] = [*old, after]
    write_json(path / MANIFEST, manifest | {"files": entries})
    write_file(path / name, data)
    entries[name] = after
    write_json(path / MANIFEST, manifest | {"files": entries})
