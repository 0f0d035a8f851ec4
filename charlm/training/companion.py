"""The n-gram companion of a run: fitted on its training text after the network is trained.

A mixture of both predicts better than either; see `charlm.backends.mixed`. The companion is an
n-gram run in the folder `ngram` of its run, with its weight in the mixture. The run itself, and
every figure that is called its own, stays the network's.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from charlm.backends.interface import Backend
from charlm.files.atomic import Content, commit_folder, json_bytes, remove_folder
from charlm.inference.adapt.calibration import TargetLogits
from charlm.inference.adapt.mixture import Mixing, fit_to_ngrams
from charlm.ngrams.kneser_ney import fit
from charlm.phases import phase
from charlm.runs.layout import (
    COMPANION,
    CONFIG,
    FORMAT,
    LOGIT_SCALE,
    NGRAM,
    NGRAMS,
    read_config,
)
from charlm.runs.mixtures import mixing_config
from charlm.runs.ngrams import ngram_pieces
from charlm.text.dataset import Dataset
from charlm.training.records import Companion

MAX_NGRAMS = 8_000_000
"""Number of n-grams that a companion may have: 60 to 80 MB. A million words have 2.3 million up to
order 5, 12 million characters have 5.4 million up to order 8."""


def fit_companion(
    path: Path,
    order: int,
    dataset: Dataset,
    scaled: Callable[[float], Backend],
    sample: TargetLogits,
    *,
    nats_per_token: float,
) -> Companion:
    """Fit the companion of the run in `path` and write its folder; return its figures.

    `scaled(factor)` computes with the best weights and all logits multiplied by a factor. The
    mixture is fitted on the validation text, on which the network has `nats_per_token`; the factor
    on the logits of `scaled(1.0)` for a sample of it. Orders with which there would be more than
    MAX_NGRAMS n-grams are left out. Raises EnvironmentFailure if the folder cannot be written.
    """
    valid = dataset.valid
    assert valid is not None, "there is a text to fit the weight on"
    with phase("fitting n-grams"):
        model, _ = fit(np.asarray(dataset.train.ids), len(dataset.vocabulary), order, MAX_NGRAMS)
    with phase("fitting the mixture", total=len(valid.ids)):
        mixing, nats, own_nats = fit_to_ngrams(scaled, model, valid, sample)
    content = ngram_pieces(model)
    companion = Companion(
        order=model.order,
        weight=mixing.weights[1],
        network_nats_per_token=nats_per_token,
        ngram_nats_per_token=float(own_nats.mean()),
        mixture_nats_per_token=float(nats.mean()),
        bytes=sum(map(len, content)),
    )
    with phase("saving n-grams"):
        files: dict[str, Content] = {
            CONFIG: json_bytes(_config(path, model.order, mixing)),
            NGRAMS: content,
        }
        remove_folder(path / COMPANION)  # left by a process that died before the run was complete
        commit_folder(path / COMPANION, files, {"format": FORMAT})
    return companion


def _config(path: Path, order: int, mixing: Mixing) -> dict[str, Any]:
    """Return the content of the companion's config.json: that of the run, with another model."""
    config = read_config(path)
    direction = "backward" if config["model"].get("direction") == "backward" else "forward"
    model = {"kind": NGRAM, "order": order, "direction": direction}
    of_network = ("torch", LOGIT_SCALE)
    kept = {name: value for name, value in config.items() if name not in of_network}
    return kept | {"model": model} | mixing_config(mixing)
