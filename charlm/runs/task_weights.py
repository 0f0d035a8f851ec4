"""The weights of a run of a task, and what computes with them: backends, or a model of torch."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from charlm.backends.interface import Backend
from charlm.backends.kernel_library import useful_threads
from charlm.backends.native import WEIGHTS_PER_THREAD
from charlm.backends.numpy_backend import NumpyBackend
from charlm.backends.weights import BACKWARD, Weights, encoder_weights
from charlm.config.model import ModelSettings
from charlm.errors import check_count
from charlm.runs import layout
from charlm.runs.engines import chosen_engine, compiled_backend, device_of, unchanged
from charlm.runs.run import check_weights, checked_vocabulary, model_settings
from charlm.runs.weights import load_arrays
from charlm.text.tokenizers.vocabulary import Vocabulary

if TYPE_CHECKING:
    from charlm.nn.encoder import Encoder

Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class TaskWeights:
    """The weights of a run by name, with what is read beside them, and the engine for them."""

    config: dict[str, Any]
    settings: ModelSettings
    vocabulary: Vocabulary
    arrays: Arrays
    engine: str
    """Engine that was chosen, as in `runs.networks.load_backend`."""
    threads: int | None
    read_again: Callable[[], Arrays]
    """Function that reads the weights again, or raises RunError if their file has changed."""

    @classmethod
    def load(cls, path: Path, engine: str, threads: int | None) -> "TaskWeights":
        """Load the weights of the run in a folder.

        Raises RunError if files are missing, damaged or do not match, UsageError for a language
        model and for an engine that does not compute the model.
        """
        if threads is not None:
            check_count("threads", threads, 1)
        config = layout.read_config(path)
        if layout.TASK not in config:
            raise layout.no_labels(path)
        vocabulary = checked_vocabulary(path, config)
        settings = model_settings(config, path)
        check_weights(path)
        chosen, file = chosen_engine(settings, engine), path / layout.WEIGHTS
        check = unchanged(file)
        read = partial(load_arrays, file, settings, config["vocab_size"], config[layout.TASK])

        def read_again() -> Arrays:
            """Read the weights. Raises RunError if the file is no longer the same."""
            check()
            return read()

        return cls(
            config=config, settings=settings, vocabulary=vocabulary, arrays=read(),
            engine=chosen, threads=threads, read_again=read_again,
        )  # fmt: skip

    @property
    def task(self) -> dict[str, Any]:
        """The table `task` of config.json."""
        return dict(self.config[layout.TASK])

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Beginnings of the names of the tensors of each encoder of texts: forward, backward."""
        return ("", BACKWARD)[: 1 + self.task["both_ways"]]

    def backend(self, prefix: str, settings: ModelSettings | None = None) -> Backend:
        """Return the backend of the layers whose tensors have this prefix.

        `settings` are those of the layers, by default those of the run.
        """
        own, read_again = settings or self.settings, self.read_again  # self would keep the arrays
        plain = encoder_weights(own, self.arrays, prefix)
        if self.engine == "numpy":
            return NumpyBackend(plain)

        def reread() -> Weights:
            """Read the weights again. Raises RunError if the file is no longer the same."""
            return encoder_weights(own, read_again(), prefix)

        required = self.engine == "native"
        return compiled_backend(plain, "fp32", self.threads, reread, required=required)

    def torch_model(self, part: str = "layers") -> "Encoder":
        """Return the model in torch, and set the number of torch's threads.

        The weights of `part`, a submodule, decide how many threads are useful; "" is all of them.
        """
        import torch

        from charlm.nn.devices import choose_device
        from charlm.nn.task_models import build_model

        model = build_model(self.settings, self.config["vocab_size"], self.task)
        model.load_state_dict(
            {name: torch.from_numpy(array) for name, array in self.arrays.items()}
        )
        work = sum(tensor.numel() for tensor in model.get_submodule(part).parameters())
        torch.set_num_threads(self.threads or useful_threads(work, WEIGHTS_PER_THREAD))
        return model.to(choose_device(device_of(self.engine))).requires_grad_(False)
