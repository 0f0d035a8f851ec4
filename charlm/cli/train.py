"""`charlm train`: fit a model to a text, or go on with a run."""

from pathlib import Path
from typing import Annotated, Any

import typer

from charlm.cli.options import (
    NO_FLAGS,
    CheckpointsOption,
    JsonOption,
    ReadingFlags,
    RunOption,
    check_meant,
)

TEXT, VOCABULARY, MODEL, FIT, RUNNING = (
    "Text",
    "Vocabulary",
    "Model",
    "Optimisation",
    "Run",
)
"""Headings of the help."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("train")(train)


def _flag(flag: str, panel: str, text: str, **options: Any) -> Any:
    return typer.Option(flag, rich_help_panel=panel, help=text, show_default=False, **options)


def train(
    sources: Annotated[
        list[str] | None,
        typer.Argument(help="Files, folders, globs, - or hf:name; none: the built-in text."),
    ] = None,
    # Text
    document: Annotated[
        str | None, _flag("--document", TEXT, "Documents: stream, line, paragraph or file.")
    ] = None,
    reading: ReadingFlags = NO_FLAGS,
    valid: Annotated[list[str] | None, _flag("--valid", TEXT, "Validation text.")] = None,
    test: Annotated[list[str] | None, _flag("--test", TEXT, "Test text, read once.")] = None,
    valid_frac: Annotated[
        float | None, _flag("--valid-frac", TEXT, "Share held out (0.1); 0 = none.")
    ] = None,
    hold_out: Annotated[
        str | None, _flag("--hold-out", TEXT, "The end, or random documents (end).")
    ] = None,
    # Vocabulary
    unit: Annotated[
        str | None, _flag("--unit", VOCABULARY, "char, byte, word or bpe (char).")
    ] = None,
    words: Annotated[
        str | None, _flag("--words", VOCABULARY, "Cut words by: text or whitespace (text).")
    ] = None,
    min_count: Annotated[
        int | None, _flag("--min-count", VOCABULARY, "Rarer tokens become UNK.")
    ] = None,
    max_size: Annotated[
        int | None, _flag("--max-size", VOCABULARY, "Most entries, UNK and EOS included.")
    ] = None,
    lowercase: Annotated[
        bool | None, _flag("--lowercase", VOCABULARY, "Lower-case the text first.")
    ] = None,
    normalize: Annotated[
        str | None, _flag("--normalize", VOCABULARY, "none, nfc or nfkc (none).")
    ] = None,
    vocab: Annotated[
        Path | None, _flag("--vocab", VOCABULARY, "Use this tokenizer.json as it is.")
    ] = None,
    # Model
    cell: Annotated[
        str | None, _flag("--cell", MODEL, "rnn, lstm, gru, or one of nine others (lstm).")
    ] = None,
    layers: Annotated[int | None, _flag("--layers", MODEL, "Stacked layers (by rule).")] = None,
    hidden: Annotated[int | None, _flag("--hidden", MODEL, "Units in a layer (by rule).")] = None,
    embedding: Annotated[
        str | None, _flag("--embedding", MODEL, "Width of the embedding, or one-hot (by rule).")
    ] = None,
    vectors: Annotated[
        Path | None, _flag("--vectors", MODEL, "Begin with vectors: GloVe, word2vec, fastText.")
    ] = None,
    params: Annotated[
        str | None, _flag("--params", MODEL, "Weights in all, such as 2M: sets --hidden.")
    ] = None,
    skip: Annotated[
        bool | None, _flag("--skip", MODEL, "Add each layer's input to its output (residual).")
    ] = None,
    init: Annotated[
        str | None,
        _flag("--init", MODEL, "Recurrent weights: orthogonal, xavier, he, identity, uniform:R."),
    ] = None,
    learned_state: Annotated[
        bool | None, _flag("--learned-state", MODEL, "Learn the state that documents begin with.")
    ] = None,
    mos: Annotated[int | None, _flag("--mos", MODEL, "Number of softmaxes to mix (1).")] = None,
    direction: Annotated[
        str | None,
        _flag("--direction", MODEL, "Read the text forward, backward or both (forward)."),
    ] = None,
    dropout: Annotated[
        float | None, _flag("--dropout", MODEL, "Dropped between layers and, unless set, around.")
    ] = None,
    input_dropout: Annotated[
        float | None, _flag("--input-dropout", MODEL, "Dropped after the embedding (half).")
    ] = None,
    output_dropout: Annotated[
        float | None, _flag("--output-dropout", MODEL, "Dropped before the output (the same).")
    ] = None,
    embedding_dropout: Annotated[
        float | None,
        _flag("--embedding-dropout", MODEL, "Whole entries dropped from the embedding (0)."),
    ] = None,
    weight_drop: Annotated[
        float | None, _flag("--weight-drop", MODEL, "Recurrent weights dropped (0).")
    ] = None,
    variational: Annotated[
        bool | None, _flag("--variational", MODEL, "One dropout mask for all steps of a window.")
    ] = None,
    tie: Annotated[
        bool | None,
        _flag("--tie/--no-tie", MODEL, "Output matrix = embedding (for words and bpe)."),
    ] = None,
    # Optimisation
    epochs: Annotated[
        float | None, _flag("--epochs", FIT, "Passes over the text (by rule).")
    ] = None,
    steps: Annotated[int | None, _flag("--steps", FIT, "Optimiser steps instead.")] = None,
    minutes: Annotated[
        float | None, _flag("--minutes", FIT, "Minutes instead; sizes follow from them.")
    ] = None,
    more_minutes: Annotated[
        float | None, _flag("--more-minutes", FIT, "With --resume: train N minutes longer.")
    ] = None,
    more_epochs: Annotated[
        float | None, _flag("--more-epochs", FIT, "With --resume: train N passes longer.")
    ] = None,
    more_steps: Annotated[
        int | None, _flag("--more-steps", FIT, "With --resume: train N steps longer.")
    ] = None,
    batch: Annotated[int | None, _flag("--batch", FIT, "Rows side by side (by rule).")] = None,
    bptt: Annotated[
        int | None, _flag("--bptt", FIT, "Tokens in a window of back-propagation (by rule).")
    ] = None,
    stateless: Annotated[
        bool | None, _flag("--stateless", FIT, "Shuffled windows, no state carried over.")
    ] = None,
    optimizer: Annotated[
        str | None, _flag("--optimizer", FIT, "adamw, adam, sgd, nt-asgd, rmsprop (adamw).")
    ] = None,
    learning_rate: Annotated[
        float | None, _flag("--learning-rate", FIT, "Highest learning rate (by rule).")
    ] = None,
    schedule: Annotated[
        str | None, _flag("--schedule", FIT, "cosine, linear, constant, step, plateau, decay.")
    ] = None,
    warmup: Annotated[float | None, _flag("--warmup", FIT, "Share of warm-up (0.02).")] = None,
    weight_decay: Annotated[
        float | None, _flag("--weight-decay", FIT, "Weight decay (by rule).")
    ] = None,
    momentum: Annotated[float | None, _flag("--momentum", FIT, "Of sgd, rmsprop (0).")] = None,
    clip_norm: Annotated[
        float | None, _flag("--clip-norm", FIT, "Largest gradient norm (1); 0 = any.")
    ] = None,
    on_nonfinite: Annotated[
        str | None, _flag("--on-nonfinite", FIT, "NaN or infinity: stop, skip or rewind (stop).")
    ] = None,
    label_smoothing: Annotated[
        float | None,
        _flag("--label-smoothing", FIT, "Share of targets spread over all entries (0)."),
    ] = None,
    activation_penalty: Annotated[
        float | None, _flag("--activation-penalty", FIT, "AR: keeps the output small (0).")
    ] = None,
    slowness_penalty: Annotated[
        float | None, _flag("--slowness-penalty", FIT, "TAR: keeps its changes small (0).")
    ] = None,
    average: Annotated[
        float | None,
        _flag("--average", FIT, "Decay of an average of weights that is kept; 0 = none (by rule)."),
    ] = None,
    calibrate: Annotated[
        bool | None,
        _flag("--calibrate/--no-calibrate", FIT, "Fit one factor on all logits at the end (yes)."),
    ] = None,
    evals: Annotated[int | None, _flag("--evals", FIT, "Validations in the run (8).")] = None,
    patience: Annotated[
        int | None, _flag("--patience", FIT, "Stop after N validations without a gain (never).")
    ] = None,
    # Run
    name: Annotated[str | None, _flag("--name", RUNNING, "Name of the run.")] = None,
    resume: Annotated[
        bool, _flag("--resume", RUNNING, "Resume the newest run, or the one of --run.")
    ] = False,
    go_on: Annotated[
        bool,
        _flag("--continue", RUNNING, "Start the run --name, resume it, or leave it if complete."),
    ] = False,
    overwrite: Annotated[
        bool, _flag("--overwrite", RUNNING, "Replace the run --name if there is one.")
    ] = False,
    run: RunOption = None,
    checkpoints: CheckpointsOption = None,
    as_json: JsonOption = False,
    plan: Annotated[
        bool, _flag("--plan", RUNNING, "Say what would be trained, and why, and stop.")
    ] = False,
    preset: Annotated[
        str | None, _flag("--preset", RUNNING, "A published recipe, such as awd-ptb (see README).")
    ] = None,
    config: Annotated[
        Path | None, _flag("--config", RUNNING, "Settings from a TOML file; flags win.")
    ] = None,
    more: Annotated[
        list[str] | None, _flag("--set", RUNNING, "Any other setting: NAME=VALUE (see README).")
    ] = None,
    seed: Annotated[int | None, _flag("--seed", RUNNING, "Random seed (a new one).")] = None,
    device: Annotated[
        str | None, _flag("--device", RUNNING, "auto, cpu, cuda or mps (auto).")
    ] = None,
    precision: Annotated[
        str | None, _flag("--precision", RUNNING, "auto, fp32 or bf16 (auto).")
    ] = None,
    threads: Annotated[int | None, _flag("--threads", RUNNING, "CPU threads.")] = None,
    save_minutes: Annotated[
        float | None, _flag("--save-minutes", RUNNING, "Minutes between checkpoints (2).")
    ] = None,
) -> None:
    """Train a model on a text. Without options: a good model of 1 MB in under 10 minutes.

    Example:  charlm train corpus.txt --minutes 5
    """
    from charlm.config.flags import by_section, with_pairs
    from charlm.errors import UsageError

    if resume and sources and len(sources) == 1 and not run and not name:
        run, sources = sources[0], None
    typed = by_section({
        "sources": sources, "document": document, **reading,
        "valid": valid, "test": test, "valid_frac": valid_frac, "hold_out": hold_out,
        "unit": unit, "words": words, "min_count": min_count, "max_size": max_size,
        "lowercase": lowercase, "normalize": normalize,
        "cell": cell, "layers": layers, "hidden": hidden, "embedding": embedding,
        "params": params, "skip": skip, "init": init, "learned_state": learned_state,
        "mos": mos, "direction": direction,
        "dropout": dropout, "input_dropout": input_dropout, "output_dropout": output_dropout,
        "embedding_dropout": embedding_dropout, "weight_drop": weight_drop,
        "variational": variational, "tie": tie,
        "epochs": epochs, "steps": steps, "minutes": minutes, "batch": batch, "bptt": bptt,
        "stateless": stateless, "optimizer": optimizer, "learning_rate": learning_rate,
        "schedule": schedule, "warmup": warmup, "weight_decay": weight_decay,
        "momentum": momentum, "clip_norm": clip_norm, "on_nonfinite": on_nonfinite,
        "label_smoothing": label_smoothing, "activation_penalty": activation_penalty,
        "slowness_penalty": slowness_penalty, "average": average, "calibrate": calibrate,
        "evals": evals, "patience": patience, "seed": seed, "device": device,
        "precision": precision, "threads": threads, "save_minutes": save_minutes,
        "vectors": vectors,
    })  # fmt: skip
    flags = with_pairs(typed, more or [])
    if vocab and flags.get("vocabulary"):
        known = ", ".join(flags["vocabulary"])
        raise UsageError(f"{known} with --vocab, whose file decides that; give one of them")
    lengths = {"minutes": more_minutes, "epochs": more_epochs, "steps": more_steps}
    longer = {unit: value for unit, value in lengths.items() if value is not None}
    ways = {"--resume": resume, "--continue": go_on, "--overwrite": overwrite, "--plan": plan}
    chosen = [flag for flag, given in ways.items() if given]
    if len(chosen) > 1:
        raise UsageError(f"{chosen[0]} with {chosen[1]}; give one of them")
    check_meant({f"--more-{unit}" for unit in longer} if not resume else set(), "--resume")
    check_meant(set(chosen) & {"--continue", "--overwrite"} if not name else set(), "--name")
    from charlm import api
    from charlm.cli import beginning
    from charlm.cli.progress import follow_all, write_result

    request = api.Request(
        flags=flags, config=config, preset=preset, vocab=vocab, name=name, run=run,
        checkpoints=checkpoints, more=longer,
    )  # fmt: skip
    if plan:
        beginning.show_plan(request, as_json=as_json)
        return
    if resume:
        session = beginning.resume(request)
    elif go_on:
        session = beginning.start_or_continue(request)
    else:
        session = beginning.start(request, overwrite=overwrite)
    status = follow_all(session)
    write_result(session, as_json=as_json)
    if status:
        raise typer.Exit(status)
