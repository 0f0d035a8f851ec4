"""`charlm score`: score sentences from arguments, a file or standard input."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from charlm import api
from charlm.cli import options
from charlm.cli.conditions import BY_CONDITION, check_by_condition, score_by_condition
from charlm.cli.output import on_terminal, render, say, terminal_width, write, write_text
from charlm.cli.regions import GroupBy, Order, check_regions, isolated_words, score_groups
from charlm.cli.stdin import STDIN, check_stdin, comes_from_stdin, is_file, stdin_blocks
from charlm.cli.toolkits import TOOLKITS, Closed, format_writer, scored_part
from charlm.errors import UsageError, check_choice
from charlm.phases import phase
from charlm.units import LOG_BASES

if TYPE_CHECKING:
    from charlm.api.model import Model
    from charlm.api.scoring import Batches
    from charlm.inference.scoring import Scorer
    from charlm.inference.words import WordRule
    from charlm.report.formats import Writer
    from charlm.report.scores import Rows
    from charlm.text.sources.rows import Record

FORMATS = ("auto", "table", "tsv", "csv", "jsonl", "scores", *TOOLKITS)


LogBase = Annotated[
    str | None,
    typer.Option("--log-base", help="Base of the logarithm: e, 2 or 10. (default: e)"),
]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Options of `charlm score`."""

    texts: Annotated[list[str] | None, typer.Argument(help="Sentences; - is stdin.")] = None
    file: Annotated[
        Path | None,
        typer.Option("--file", help="File with a sentence on each line, or a table with --column."),
    ] = None
    reading: options.Reading
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep",
            metavar="COLUMNS",
            help="Columns of a table to copy to the output, such as item,condition. "
            "(default: all in tsv, csv and jsonl)",
        ),
    ] = None
    group_by: GroupBy = None
    order: Order = None
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            metavar="PART",
            help="Score each text, or each word or token too, or each text under every condition "
            "of a run trained with --condition. (default: text)",
        ),
    ] = None
    tokens: Annotated[bool, typer.Option("--tokens", help="Alias of --by token.")] = False
    entropy: Annotated[
        bool,
        typer.Option(
            "--entropy",
            help="With --by word or token: show the entropy of the prediction beside the "
            "surprisal.",
        ),
    ] = False
    boundary: Annotated[
        str,
        typer.Option(
            "--boundary",
            help="Blank that belongs to a word: trailing (the word ends; the probabilities of all "
            "words sum to 1) or leading (the blank before it).",
        ),
    ] = "trailing"
    word_chars: Annotated[
        str,
        typer.Option(
            "--word-chars",
            help="Words: blank (what blanks separate) or text (punctuation apart, as --words "
            "text).",
        ),
    ] = "blank"
    context: Annotated[
        str | None,
        typer.Option(
            "--context", metavar="TEXT", help="Text before each sentence, which is read only."
        ),
    ] = None
    context_column: Annotated[
        str | None,
        typer.Option(
            "--context-column",
            metavar="NAME",
            help="Column of a table with the context of each text.",
        ),
    ] = None
    rank: Annotated[
        bool,
        typer.Option(
            "--rank", help="Rank the lines of a file or of stdin, as arguments always are."
        ),
    ] = False
    unk_penalty: options.UnkPenalty = None
    output: Annotated[
        str,
        typer.Option(
            "--format",
            help="auto, table, tsv, csv, jsonl, scores (only the penalized log-probability), or "
            "that of another program: srilm, kenlm, theanolm, lm-zoo.",
        ),
    ] = "auto"
    log_base: LogBase = None
    closed: Closed = False
    carry: Annotated[
        bool,
        typer.Option("--carry", help="Score the sentences as the lines of one continuous text."),
    ] = False
    condition: options.Condition = None
    with_: options.With = None
    engine: options.Engine = "auto"
    device: options.Device = "cpu"
    weights: options.Weights = "fp32"
    run: options.Run = None
    checkpoints: options.Checkpoints = None


def score(asked: Asked) -> None:
    """Score sentences: log-probability, perplexity, rank.

    Sentences are arguments, or lines of --file or stdin. Several arguments are ranked. Each
    unknown token (UNK) costs --unk-penalty in the penalized log-probability, which decides the
    ranks. A row without text has no figures (nan in the format scores).

    Perplexity per word (ppl/word) is exp(nats / number of words); words are separated by blanks.

    With --by condition, each text is scored under every condition of the run; the probability of
    a condition given the text follows by Bayes' rule.

    With --by word, the surprisal of a word is -ln P(its characters, and that it ends there); the
    rest of the blanks and of the sentence's end is its gap. --entropy adds how uncertain the model
    was before the word: the entropy of its prediction of the word's first token.

    With --group-by, rows of a table are words or regions of texts, as in a reading study.

    A text that begins with "-" comes after "--": charlm score -- "- who is there"

    Example:  charlm score "the apple and pear salad" "the apple and pair salad"
    """
    engine = options.on_device(asked.device, asked.engine)
    by, part = _checked_parts(asked)
    from_stdin = _check_source(asked)
    rule = _word_rule(asked, part)
    if by == BY_CONDITION:
        _score_by_condition(asked, engine, from_stdin=from_stdin)
        return
    model = options.open_model(
        asked.run, asked.checkpoints, engine, asked.weights, asked.with_, condition=asked.condition
    )
    if part == "word":
        say(rule.statement)
    batches = _sentences(model, asked, from_stdin=from_stdin)
    scorer = model.scorer(
        carry=asked.carry, lines=asked.carry, unk_penalty=asked.unk_penalty, word_rule=rule,
        entropy=asked.entropy,
    )  # fmt: skip
    if asked.group_by is not None:
        _score_groups(model, scorer, batches, asked)
        return
    if part == "word":
        batches = _warned(batches)
    contexts = _contexts(model, asked.context, asked.context_column)
    unknown: list[str] = []
    rows = _noted(api.scoring.score_rows(scorer, batches, by=part, contexts=contexts), unknown)
    counts = Counter[int]()
    known_end = asked.file or (from_stdin and is_file())  # another program may write line by line
    with phase("scoring", unit="tokens") if known_end else nullcontext():
        if asked.output == "table" or (asked.output == "auto" and _suits_table(asked, from_stdin)):
            ranked = _is_ranked(asked, from_stdin)
            _write_tables(rows, asked, model, part, rule, counts, ranked=ranked)
        else:
            lines = format_writer(
                asked.output, asked.log_base, by, model, scorer, asked.file, asked.closed
            )
            _write_lines(rows, lines, _column_names(asked.keep), counts)
    if asked.output not in TOOLKITS or not counts:
        _warn_of_unknown(model, counts, unknown, asked, by_word=part == "word")


def _score_by_condition(asked: Asked, engine: str, *, from_stdin: bool) -> None:
    """Score texts under every condition of a run. Raises UsageError for flags without effect."""
    typed = options.typed_values(
        asked, "--condition", "--context", "--context-column", "--carry", "--rank", "--with",
        "--keep", "--unk-penalty",
    )  # fmt: skip
    check_by_condition(typed, asked.output)
    path = options.locate(asked.run, asked.checkpoints)
    usual = api.conditions.usual_condition(path)
    model = options.open_model(str(path), asked.checkpoints, engine, asked.weights, condition=usual)
    batches = _sentences(model, asked, from_stdin=from_stdin)
    output, base = asked.output, asked.log_base or "e"
    if output == "auto":
        output = "table" if _suits_table(asked, from_stdin) else "tsv"
    score_by_condition(path, batches, output, base, engine=engine, weights=asked.weights)


def _check_groups(asked: Asked, by: str | None) -> str:
    """Return the part to score with --group-by. Raises UsageError for flags that do not fit."""
    typed = options.typed_values(asked, "--context-column", "--carry", "--rank")
    check_regions(typed, by, asked.output)
    if not asked.file and not options.reads_table(asked.reading):
        options.check_meant({"--group-by"}, "--file")
    return "word"


def _score_groups(model: "Model", scorer: "Scorer", batches: "Batches", asked: Asked) -> None:
    """Score the rows of a table as regions of texts. Raises UsageError for no column."""
    columns = _column_names(asked.group_by)
    if not columns:
        raise UsageError("--group-by names no column; expected some, such as item,condition")
    with phase("scoring", unit="tokens"):
        seen = score_groups(
            scorer, batches, columns, asked.order, asked.context or "", asked.output,
            asked.log_base or "e", _column_names(asked.keep),
        )  # fmt: skip
    counts = Counter(score.tally.oov for score in seen)
    unknown = [score.text for score in seen if score.tally.oov]
    _warn_of_unknown(model, counts, unknown, asked, by_word=True)


def _noted(batches: "Iterable[Rows]", unknown: list[str]) -> "Iterator[Rows]":
    """Yield rows with scores, and add the first texts with unknown tokens to a list."""
    from charlm.text.rewritings import SAMPLE

    for batch in batches:
        if len(unknown) < SAMPLE:
            unknown += [score.text for _, score in batch if score and score.tally.oov]
        yield batch


def _warned(batches: "Batches") -> "Batches":
    """Yield batches, after a warning if the first one shows that rows are single words."""
    for number, batch in enumerate(batches):
        if number == 0 and (warning := isolated_words(batch)):
            say(warning)
        yield batch


def _is_ranked(asked: Asked, from_stdin: bool) -> bool:
    """Return whether ranks are shown: if asked for, or of arguments, which are alternatives."""
    return asked.rank or (len(asked.texts or ()) > 1 and not from_stdin and not asked.carry)


def _suits_table(asked: Asked, from_stdin: bool) -> bool:
    """Return whether the format auto is a table, not lines: for a ranking, or for a reader."""
    return asked.rank or (on_terminal() and not from_stdin)


def _typed_part(by: str | None, tokens: bool) -> str | None:
    """Return the part that was asked for. Raises UsageError for two of them."""
    from charlm.inference.scoring import PARTS

    if by is not None:
        check_choice("--by", by, (*PARTS, BY_CONDITION))
    if tokens and by in ("word", BY_CONDITION):
        raise UsageError(f"--tokens with --by {by}; expected one of them. Leave out --tokens")
    return "token" if tokens else by


def _word_rule(asked: Asked, by: str) -> "WordRule":
    """Return the rule of the words. Raises UsageError for flags that have no effect."""
    from charlm.inference.words import WordRule

    rule = WordRule(boundary=asked.boundary, chars=asked.word_chars)
    if by != "word":
        typed = options.typed_values(asked, "--boundary", "--word-chars")
        options.check_meant(typed, "--by word")
    return rule


def _sentences(model: "Model", asked: Asked, *, from_stdin: bool) -> "Batches":
    """Return the sentences in batches; warn of what is not scored, and of slips in arguments."""
    if not model.run.boundaries.has_ends:
        say("This model was trained on continuous text, so the end of a sentence is not scored")
    rules = {"keep_cr": model.run.boundaries.crlf, **asked.reading}
    if from_stdin and not options.reads_table(asked.reading):
        return api.scoring.stream_sentences(stdin_blocks(), rules, say)
    if from_stdin or asked.file:
        return api.scoring.file_sentences(asked.file or Path("-"), rules, say, model.path)
    texts = asked.texts or []
    options.name_unknown(model, texts, "sentences")
    options.warn_of_slips("score", texts, "score", "scored")
    return api.scoring.numbered([texts])


def _contexts(
    model: "Model", context: str | None, column: str | None
) -> "Callable[[list[Record]], list[str]] | None":
    """Return the function that finds the contexts of rows. Raises UsageError for two sources.

    It warns once if a context has more documents than the last one, which alone is read.
    """
    if context is not None and column is not None:
        raise UsageError("--context and --context-column were both given; expected one of them")
    if context is None and column is None:
        return None
    reported: list[str] = []

    def contexts(rows: "list[Record]") -> list[str]:
        """Return the context of each row."""
        found = api.scoring.row_contexts(rows, column, context or "")
        cut = [text for text in found if len(model.context(text)) < len(text)]
        if cut and not reported:
            reported.append(cut[0])
            kept = model.context(cut[0])
            say(
                "a context is read from the last document end on, so "
                + (f"only {kept!r:.60} of {cut[0]!r:.60}" if kept else f"not {cut[0]!r:.60}")
            )
        return found

    return contexts


def _check_output(asked: Asked, by: str | None) -> None:
    """Raise UsageError for options of the output that are invalid, alone or together."""
    output, rank = asked.output, asked.rank
    check_choice("--format", output, FORMATS)
    check_choice("--log-base", asked.log_base or "e", LOG_BASES)
    has_parts = by not in (None, "text")
    if output == "scores" and (has_parts or asked.keep):
        flag = "--tokens" if asked.tokens else f"--by {by}" if has_parts else "--keep"
        raise UsageError(f"{flag} with --format scores, which has none; expected another format")
    if asked.entropy and output not in TOOLKITS and by not in ("word", "token"):
        options.check_meant({"--entropy"}, "--by word or --by token")
    if rank and output not in ("auto", "table"):
        raise UsageError(f"--rank with --format {output}; only the format table shows ranks")
    if rank and asked.carry:
        raise UsageError(
            "--rank with --carry: lines of one text are no alternatives; leave one out"
        )


def _checked_parts(asked: Asked) -> tuple[str | None, str]:
    """Return the part that was asked for, and the part that is scored for the output.

    Raises UsageError for options of the output that do not fit.
    """
    by = _typed_part(asked.by, asked.tokens)
    if asked.group_by is not None:
        by = _check_groups(asked, by)
    elif asked.order is not None:
        options.check_meant({"--order"}, "--group-by")
    _check_output(asked, by)
    typed = options.typed_values(
        asked, "--log-base", "--keep", "--context", "--context-column", "--carry", "--entropy"
    )
    return by, scored_part(asked.output, by, asked.closed, typed)


def _check_source(asked: Asked) -> bool:
    """Return whether sentences come from stdin. Raises UsageError for flags that do not fit."""
    texts, files = asked.texts or [], [str(asked.file)] if asked.file else []
    from_stdin = comes_from_stdin("sentences", texts, files, asked.reading)
    if not files and not (from_stdin and options.reads_table(asked.reading)):
        typed = options.typed_values(asked, "--keep", "--context-column")
        options.check_meant(typed, "--file")
    if from_stdin:
        check_stdin("sentences", asked.reading)
    return from_stdin


def _column_names(keep: list[str] | None) -> list[str] | None:
    """Return the names of columns in the values of --keep, which are lines of CSV, or None."""
    import csv

    if keep is None:
        return None
    return list(dict.fromkeys(name for row in csv.reader(keep) for name in row if name))


def _write_lines(
    batches: "Iterable[Rows]", writer: "Writer", columns: list[str] | None, counts: Counter[int]
) -> None:
    """Write lines for each text as soon as it is scored, and count its unknown tokens."""
    from charlm.report.scores import score_lines

    for lines in score_lines(batches, writer, columns, counts, say):
        write_text(lines, flush=True)


def _warn_of_unknown(
    model: "Model", counts: Counter[int], unknown: list[str], asked: Asked, *, by_word: bool
) -> None:
    """Report unknown tokens, their cost, and how to have fewer, or that there was no text.

    `unknown` are texts with such tokens.
    """
    from charlm.report.scores import unknown_warning
    from charlm.text.rewritings import frequent_note, rewriting_note

    if not counts:
        say("no text was found, so nothing was scored")
        return
    notes = [unknown_warning(model.run, counts, asked.unk_penalty, by_word=by_word)]
    if not asked.texts or asked.texts == STDIN:  # those of arguments were named before
        notes.append(frequent_note(model.vocabulary, unknown))
    notes.append(rewriting_note(model.vocabulary, unknown))
    for note in filter(None, notes):
        say(note)


def _write_tables(
    batches: "Iterable[Rows]",
    asked: Asked,
    model: "Model",
    by: str,
    rule: "WordRule",
    counts: Counter[int],
    *,
    ranked: bool,
) -> None:
    """Write a table of all texts, then those of their parts."""
    from charlm.report.scores import kept_columns, score_table

    rows = list(chain.from_iterable(batches))
    records, scores = [row for row, _ in rows], [score for _, score in rows]
    names = kept_columns(columns, records) if (columns := _column_names(asked.keep)) else []
    kept = {name: [row.cells.get(name, "") for row in records] for name in names}
    base, words = asked.log_base or "e", model.vocabulary.spec.whole_words
    render(score_table(scores, base, terminal_width(), rank=ranked, words=words, kept=kept))
    _write_parts(rows, base, by, rule, counts)


def _write_parts(
    rows: "Rows", log_base: str, by: str, rule: "WordRule", counts: Counter[int]
) -> None:
    """Write a table of the words or tokens of each text; count the unknown tokens of each."""
    from charlm.report.scores import token_table, word_table

    counts.update(score.tally.oov for _, score in rows if score)
    for _, score in rows if by != "text" else ():
        if score and (score.words or score.tokens):
            write("\n")
            words = by == "word"
            render(word_table(score, log_base, rule) if words else token_table(score, log_base))
