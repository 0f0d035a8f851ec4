"""A language model as one .onnx file, which holds its vocabulary and its rules too."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm.commands import command, run_word
from charlm.config.tasks import TASKS
from charlm.errors import UsageError
from charlm.files.atomic import replaced
from charlm.runs import layout
from charlm.runs.conditions import conditions_of
from charlm.runs.run import Run, load_run, stored_model
from charlm.runs.weights import old_logit_scale
from charlm.text.tokenizers.tokenizer_json import EOS, UNK

if TYPE_CHECKING:
    from charlm.nn.model import RecurrentLanguageModel

ENDING = ".onnx"
ABOUT = "charlm"
"""Name of the entry of the metadata with the rules, in JSON."""


def write_onnx(path: Path, file: Path) -> int:
    """Write a step of a network, calibrated, as an .onnx file; return the number of bytes.

    Its metadata have the vocabulary as `tokenizer.json` and, as `charlm`, the facts of
    `model_rules`. Raises UsageError for n-grams and other tasks, EnvironmentFailure without the
    packages.
    """
    check_language_model(path, file)
    run = load_run(path)
    from charlm.nn.onnx_model import onnx_bytes

    model = stored_model(path)
    scale = run.config.get(layout.LOGIT_SCALE) or old_logit_scale(path / layout.WEIGHTS)
    rules = json.dumps(model_rules(run, model), ensure_ascii=False, sort_keys=True)
    tokenizer = (layout.home(path) / layout.TOKENIZER).read_text(encoding="utf-8")
    content = onnx_bytes(model, scale, {ABOUT: rules, layout.TOKENIZER: tokenizer})
    with replaced(file) as target:
        target.write(content)
    return len(content)


def check_language_model(path: Path, file: Path) -> None:
    """Raise UsageError for a run of n-grams or of another task, with the command for an archive."""
    if layout.is_label_run(path):
        problem = f"gives {TASKS[layout.run_task(path)].gives}, not text"
    elif layout.kind_of(layout.read_config(path)) == layout.NGRAM:
        problem = "has n-grams and no network"
    else:
        return
    archive = command("runs", "export", run_word(path), file.with_suffix(".zip"))
    raise UsageError(
        f"run {path.name} {problem}; expected a network that gives text for {file.name}. To export "
        f"the whole run for charlm: {archive}"
    )


def model_rules(run: Run, model: "RecurrentLanguageModel") -> dict[str, Any]:
    """Return what a program needs to know beside the graph and the vocabulary.

    `begin` is the token with which a text begins, unless it is one of `conditions`; `unknown` is
    the token that is never sampled. After `end`, if it is not None, a text ends. The state at the
    beginning is zero unless `first_state` has numbers.
    """
    from charlm.nn.onnx_model import state_names

    first = [tensor[0].tolist() for layer in model.initial_state(1) for tensor in layer]
    names, learned = conditions_of(run.config), model.settings.learned_state
    return {
        "run": run.path.name,
        "unit": run.vocabulary.unit,
        "direction": "backward" if run.backward else "forward",
        "begin": EOS,
        "end": EOS if run.boundaries.has_ends else None,
        "unknown": None if run.vocabulary.spec.byte_level else UNK,
        "conditions": {name: len(run.vocabulary) + row for row, name in enumerate(names)},
        "first_state": dict(zip(state_names(model), first, strict=True)) if learned else {},
    }
