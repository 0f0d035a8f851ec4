"""Model card: the README.md of a run, for people and model hubs."""

from collections.abc import Mapping
from typing import Any

from charlm.commands import command
from charlm.config.training import counted_length, length_of

NAMES = {
    "tokens": "tokens",
    "nats_per_token": "nats per token",
    "bits_per_char": "bits per character",
    "bits_per_byte": "bits per byte",
    "perplexity": "perplexity",
}


def model_card(name: str, record: Mapping[str, Any]) -> str:
    """Return the card in Markdown from the content of run.json."""
    settings, corpus = record["settings"], record["corpus"]
    model, training = settings["model"], settings["training"]
    unit = settings["vocabulary"]["unit"]
    length = counted_length(*length_of(training))
    lines = [
        "---",
        "library_name: charlm",
        "tags: [language-model, recurrent, charlm]",
        "---",
        f"# {name}",
        "",
        f"A recurrent language model over {unit} units, trained with charlm on `{corpus['name']}`.",
        "",
        "| | |",
        "|---|---|",
        f"| model | {model['num_layers']} x {model['hidden_size']} {model['cell'].upper()}, "
        f"embedding {model['embedding_size']}, {record['parameters']:,} weights |",
        f"| vocabulary | {corpus['vocabulary']:,} {unit} entries |",
        f"| documents | {corpus['document']} |",
        f"| training text | {corpus['parts']['train']['tokens']:,} tokens |",
        f"| length | {length}, {record['results']['seconds'] / 60:.1f} minutes, "
        f"{record['results']['step']:,} steps |",
        f"| machine | {record['machine']['device_name']}, {record['precision']['name']} |",
        f"| seed | {training['seed']} |",
        "",
    ]
    lines += _results(record["results"])
    lines += [
        "## Use",
        "",
        "```",
        command("sample", "--run", name),
        command("score", "--run", name, "some text"),
        "```",
        "",
    ]
    if record.get("command"):
        lines += ["Made by:", "", "```", record["command"], "```", ""]
    lines += [
        "## Limits",
        "",
        "The model knows its training text and nothing else; it repeats the mistakes and "
        "prejudices in it. The licence of the training text applies.",
        "",
    ]
    return "\n".join(lines)


def _results(results: Mapping[str, Any]) -> list[str]:
    figures = {name: results[name] for name in ("valid", "test") if results.get(name)}
    if not figures:
        return ["No text was held out, so the quality was not measured.", ""]
    lines = [
        "## Results",
        "",
        "One full pass over the text, state carried, end symbols counted.",
        "",
        "| | " + " | ".join(figures) + " |",
        "|---|" + "---:|" * len(figures),
    ]
    for key, label in NAMES.items():
        values = [each[key] for each in figures.values()]
        shown = [
            "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
            for value in values
        ]
        lines.append(f"| {label} | " + " | ".join(shown) + " |")
    before = results.get("valid_uncalibrated")
    if before:
        lines += [
            "",
            f"All logits are multiplied by {results['logit_scale']:.3f}, a factor fitted on the "
            f"validation text; without it, {before['nats_per_token']:.4f} nats per token there.",
        ]
    return [*lines, ""]
