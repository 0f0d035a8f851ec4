"""The weight average: its formula, and its place in evaluation and in checkpoints."""

import pytest
import torch
from helpers import tiny_model

from charlm.training.averaging import WeightAverage


def moved(model, amount: float) -> None:
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(amount)


def weights(model) -> torch.Tensor:
    return torch.cat([weight.detach().reshape(-1) for weight in model.parameters()])


def test_the_average_follows_its_formula() -> None:
    """d a + (1 - d) w with d = (1 + n) / (10 + n), up to the decay."""
    model = tiny_model().double()
    average = WeightAverage(model, 0.5)
    expected = weights(model)
    for step in range(1, 30):
        moved(model, 0.1 * step)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weights(model)
    with average.applied():
        torch.testing.assert_close(weights(model), expected)


def test_the_model_gets_its_own_weights_back() -> None:
    """To the bit, even after an error."""
    model = tiny_model()
    average = WeightAverage(model, 0.9)
    moved(model, 1.0)
    own = weights(model)
    with average.applied():
        inside = weights(model)
        assert not torch.equal(inside, own)
    assert torch.equal(weights(model), own)
    with pytest.raises(ZeroDivisionError), average.applied():
        raise ZeroDivisionError
    assert torch.equal(weights(model), own)
    with average.applied():
        assert torch.equal(weights(model), inside)


def test_a_saved_average_is_restored() -> None:
    """Tensors that do not fit are an error."""
    model, other = tiny_model(seed=1), tiny_model(seed=2)
    average, fresh = WeightAverage(model, 0.9), WeightAverage(other, 0.9)
    fresh.restore(average.tensors)
    for name, tensor in average.tensors.items():
        assert torch.equal(fresh.tensors[name], tensor)
        assert fresh.tensors[name] is not tensor
    with pytest.raises(KeyError):
        fresh.restore({})
