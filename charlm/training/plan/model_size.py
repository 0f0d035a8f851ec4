"""Layers and hidden size of a planned model: as many weights as the time and the text allow."""

from dataclasses import replace

from charlm.config.cells import CELLS
from charlm.config.model import ModelSettings
from charlm.config.training import TrainingSettings
from charlm.errors import UsageError, named
from charlm.nn.model import count_parameters, multiplied_weights
from charlm.nn.output import MIN_HIDDEN
from charlm.training.plan import constants
from charlm.training.plan.basis import Basis
from charlm.training.plan.speed import OPERATIONS_PER_WEIGHT_AND_TOKEN
from charlm.training.plan.usual import hidden_of_parameters


def plan_model(basis: Basis, training: TrainingSettings) -> ModelSettings:
    """Return the user's model with all sizes decided."""
    model = basis.settings.model
    model = replace(model, num_layers=model.num_layers or _layers(basis, training))
    hidden = model.hidden_size
    can_tie = model.last_hidden_size is None and model.mixture == 1
    if hidden is None and can_tie and model.tie_weights and model.embedding_size:
        hidden = int(basis.choose("model.hidden_size", model.embedding_size, "tied weights"))
        _check_parameters(basis, model, hidden)
    if hidden is None and model.parameters:
        hidden = _hidden_of_parameters(basis, model, model.parameters)
        basis.reasons["model.hidden_size"] = f"at most {model.parameters:,} weights"
    hidden = hidden or _hidden_of_time(basis, training, model.num_layers or 1)
    if model.embedding_size is None:
        basis.reasons["model.embedding_size"] = "for these units"
    if model.tie_weights is None:
        basis.reasons["model.tie_weights"] = f"for {basis.dataset.vocabulary.unit} units"
    return replace(basis.completed(model, hidden), parameters=None)


def _layers(basis: Basis, training: TrainingSettings) -> int:
    """Return one layer while it is not too wide; two for a long time, or if none is given."""
    model = basis.settings.model
    number = 2
    if basis.budget_seconds(training) is None:
        reason = "the length is given, not the time"
    elif not CELLS[model.cell].best_with_one_layer or basis.is_small_corpus_of_documents:
        reason = "two layers do well"
    elif (
        model.hidden_size or _fitting_hidden(basis, training, 1)
    ) <= constants.MAX_HIDDEN_OF_ONE_LAYER:
        number, reason = 1, "one learns more in this time than two"
    else:
        reason = "one would have to be too wide"
    return int(basis.choose("model.num_layers", number, reason))


def _hidden_of_time(basis: Basis, training: TrainingSettings, layers: int) -> int:
    """Return the hidden size that suits the time and the text."""
    seconds, largest = basis.budget_seconds(training), basis.max_hidden
    tokens = f"{basis.tokens:,} training tokens"
    if seconds is None:
        hidden = min(largest, constants.MAX_HIDDEN_WITHOUT_TIME)
        return int(basis.choose("model.hidden_size", hidden, tokens))
    hidden = _fitting_hidden(basis, training, layers)
    if hidden < largest:
        limit = "the time"
    else:
        limit = "the text" if largest < constants.MAX_HIDDEN else "the largest"
    reason = (
        f"{tokens}, {seconds / 60:.1f} minutes at {basis.speed() / 1e9:.0f} billion operations a "
        f"second ({'measured' if training.minutes else 'assumed'}); {limit} sets the size"
    )
    return int(basis.choose("model.hidden_size", hidden, reason))


def _fitting_hidden(basis: Basis, training: TrainingSettings, layers: int) -> int:
    """Return the largest hidden size that the time and the text allow.

    The products of `tokens_per_weight` tokens for each weight take no longer than the time. Weights
    of rare entries are not counted, for few tokens teach them anything.
    """
    seconds = basis.budget_seconds(training)
    assert seconds is not None, "only asked if the time is known"
    possible = basis.speed() * seconds
    frequent = min(basis.vocab_size, constants.FREQUENT_ENTRIES)

    def operations(hidden: int) -> float:
        """Return the operations of training a model of this size on the usual number of tokens."""
        model = basis.sized(hidden, layers)
        tokens = basis.unit.tokens_per_weight * multiplied_weights(model, frequent)
        each = OPERATIONS_PER_WEIGHT_AND_TOKEN * multiplied_weights(model, basis.vocab_size)
        return tokens * each

    sizes = [size for size in constants.HIDDEN_SIZES if size <= basis.max_hidden]
    return max((size for size in sizes if operations(size) <= possible), default=sizes[0])


def _hidden_of_parameters(basis: Basis, model: ModelSettings, most: int) -> int:
    """Return the largest hidden size with at most `most` weights. Raises UsageError."""

    def weights(hidden: int) -> int:
        """Return the number of weights with this hidden size."""
        return count_parameters(basis.completed(model, hidden), basis.vocab_size)

    return hidden_of_parameters(weights, most, MIN_HIDDEN if model.adaptive_softmax else 1)


def _check_parameters(basis: Basis, model: ModelSettings, hidden: int) -> None:
    """Raise UsageError if a size that follows from others makes too many weights."""
    number = count_parameters(basis.completed(model, hidden), basis.vocab_size)
    if model.parameters and number > model.parameters:
        raise UsageError(
            f"{named('parameters')} is {model.parameters:,}, but tied weights with "
            f"{named('embedding_size')} {hidden} make {number:,}; expected one of them, or --no-tie"
        )
