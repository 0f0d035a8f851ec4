"""The network of a run as a backend, from its file of weights, or as a model of torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from charlm.backends.interface import Backend
from charlm.backends.kernel_library import useful_threads
from charlm.backends.native import WEIGHTS_PER_THREAD
from charlm.backends.numpy_backend import NumpyBackend
from charlm.backends.weights import Weights, begun_with, weights_from
from charlm.config.model import ModelSettings
from charlm.runs.engines import chosen_engine, compiled_backend, device_of, unchanged, uses_torch
from charlm.runs.weights import load_arrays, old_logit_scale

if TYPE_CHECKING:
    from charlm.nn.model import RecurrentLanguageModel


def load_backend(
    path: Path,
    settings: ModelSettings,
    vocab_size: int,
    engine: str = "auto",
    *,
    weights: str = "fp32",
    threads: int | None = None,
    logit_scale: float | None = None,
    conditions: int = 0,
    first: int | None = None,
    arrays: Mapping[str, NDArray[np.float32]] | None = None,
) -> Backend:
    """Return a backend that computes with the weights in a file.

    `engine` is native (compiled kernels), numpy, torch or auto: the kernels if they are installed,
    else numpy, and torch for models that only torch computes; or torch on another device (see
    `engine_on`). `weights` is the type in which the kernels keep weights: fp32, bf16 or int8. All
    logits are multiplied by `logit_scale`, by default the factor that older runs keep in the file.
    `conditions` is the number of conditions in the file, and `first` the one with which texts
    begin, None for EOS. `arrays` are the weights in the file if they were read before. Raises
    UsageError for unknown names or a wrong combination, EnvironmentFailure if the kernels are
    missing, RunError for a damaged file.
    """
    engine = chosen_engine(settings, engine, weights)
    check = unchanged(path)
    stored = settings

    def read() -> tuple[ModelSettings, dict[str, NDArray[np.float32]]]:
        """Return the settings and weights of the model that begins texts with `first`."""
        return begun_with(stored, load_arrays(path, stored, vocab_size, None, conditions), first)

    if arrays is None:
        settings, arrays = read()
    else:
        settings, arrays = begun_with(stored, dict(arrays), first)
    scale = old_logit_scale(path) if logit_scale is None else logit_scale
    if uses_torch(engine):
        from charlm.nn.devices import choose_device
        from charlm.nn.torch_backend import TorchBackend

        device = choose_device(device_of(engine))
        network = torch_network(settings, vocab_size, arrays, threads)
        return TorchBackend(network.to(device), scale)
    plain = weights_from(settings, arrays, scale)
    if engine == "numpy":
        return NumpyBackend(plain)

    def reread() -> Weights:
        """Read the weights again. Raises RunError if the file is no longer the same."""
        check()
        return weights_from(*read(), scale)

    required = engine == "native" or weights != "fp32"
    return compiled_backend(plain, weights, threads, reread, required=required)


def torch_network(
    settings: ModelSettings,
    vocab_size: int,
    arrays: Mapping[str, NDArray[np.float32]],
    threads: int | None = None,
    conditions: int = 0,
) -> "RecurrentLanguageModel":
    """Return a model with these weights, and set the number of torch's threads."""
    import torch

    from charlm.nn.model import RecurrentLanguageModel
    from charlm.runs.tensors import put_weights

    model = RecurrentLanguageModel(settings, vocab_size, conditions)
    useful = useful_threads(model.parameter_count(), WEIGHTS_PER_THREAD)
    torch.set_num_threads(threads or useful)
    put_weights(model, {name: torch.from_numpy(array) for name, array in arrays.items()})
    return model.requires_grad_(False)
