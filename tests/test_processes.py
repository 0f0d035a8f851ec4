"""More than one process: random numbers, ownership, sums, and real processes that train one run."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from charlm.config.model import ModelSettings
from charlm.nn.dropout import Draws
from charlm.nn.model import RecurrentLanguageModel

TINY = ModelSettings(cell="lstm", hidden_size=5, embedding_size=4, num_layers=2, tie_weights=False)
RANDOM = {
    "dropout": {"dropout": 0.5, "input_dropout": 0.3, "output_dropout": 0.4},
    "variational": {"dropout": 0.5, "output_dropout": 0.4, "variational": True},
    "recurrent": {"weight_drop": 0.3, "embedding_dropout": 0.3, "dropout": 0.2},
    "state dropout": {"state_dropout": 0.4, "dropout": 0.2},
    "zoneout": {"zoneout": 0.3, "zoneout_cell": 0.2, "output_dropout": 0.2},
}
"""Settings with every kind of random number in the network."""


def model_of(**settings) -> RecurrentLanguageModel:
    model = RecurrentLanguageModel(replace(TINY, **settings), 7)
    model.reset_parameters(torch.Generator().manual_seed(1))
    return model


@pytest.mark.parametrize("kind", RANDOM)
def test_some_sequences_get_the_random_numbers_that_they_get_among_all(kind: str) -> None:
    """Each process reads some sequences; together they see the masks of one process."""
    model = model_of(**RANDOM[kind])
    ids = torch.from_numpy(np.random.default_rng(1).integers(0, 7, (6, 5)))

    def read(*columns: int) -> torch.Tensor:
        generator = Draws()
        generator.manual_seed(3)
        if columns:
            generator.rows, generator.of = torch.tensor(columns), 5
        with torch.no_grad():
            model.read(ids[:, columns] if columns else ids, None, generator)  # moves it on
            return model.read(ids[:, columns] if columns else ids, None, generator)[1]

    whole = read()
    assert not torch.allclose(whole, model.read(ids)[1], atol=1e-2)
    for columns in ((0, 1), (2, 3, 4), (4,)):
        assert torch.allclose(read(*columns), whole[:, columns], atol=1e-6)
