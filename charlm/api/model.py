"""The trained model of a run. Nothing is printed."""

import contextlib
import inspect
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from charlm.api.copies import load_again
from charlm.api.regions import Regions, table_regions
from charlm.api.results import History, Neighbours, NextTokens
from charlm.api.scoring import score_texts
from charlm.api.surprisals import PARTS, Surprisals, token_surprisals, word_surprisals
from charlm.commands import command
from charlm.config.cells import CELLS
from charlm.errors import (
    CorpusError,
    RunError,
    UsageError,
    check_choice,
    check_count,
    named,
    near_name,
)
from charlm.inference.generation import (
    NextToken,
    Piece,
    gathered,
    generate,
    next_tokens,
    prompt_ids,
)
from charlm.inference.infill import fill
from charlm.inference.items import Items, Rules
from charlm.inference.likelihood import evaluate
from charlm.inference.samplers import Sampling, fresh_seed
from charlm.inference.scores import Scores, Words
from charlm.inference.scoring import Scorer
from charlm.inference.states import ModelState, state_after
from charlm.inference.words import WordRule
from charlm.runs.card import model_shape
from charlm.runs.conditions import conditions_of
from charlm.runs.layout import TOKENIZER, WEIGHTS
from charlm.runs.locate import is_run
from charlm.runs.mixtures import Mixture
from charlm.runs.pair import backward_half, is_pair
from charlm.runs.run import Run, load_run, read_embedding, run_stamp
from charlm.text.documents import check_text
from charlm.text.tokenizers.tokenizer_json import EOS
from charlm.text.vectors import nearest, vector_lines
from charlm.units import Tally

if TYPE_CHECKING:
    from charlm.inspect.find_units import UnitMatches
    from charlm.inspect.hidden import Hidden

GIVEN = {"self", "backend", "vocabulary", "sampling", "boundaries", "start", "options"}
"""Arguments of the functions that generate text which are no options of the user."""


class Model:
    """Trained model, made by `charlm.load`. All methods are deterministic for a given seed.

    A model can be pickled and copied, for example for a process pool. The copy is loaded from the
    folder of the run with the same options; it warns if the weights there have changed.
    """

    def __init__(self, run: Run, mixture: Mixture | None = None, **options: Any) -> None:
        self.run, self._options = run, options  # options of `load_run`
        self.path, self.vocabulary, self.config = run.path, run.vocabulary, run.config
        self.condition, self.conditions = run.condition, conditions_of(run.config)
        self.mixture = mixture
        paths = mixture.paths if mixture else [run.path]
        self.stamp = tuple(number for path in paths for number in run_stamp(path))

    def __repr__(self) -> str:
        unit, shape = self.vocabulary.unit, model_shape(self.config["model"])
        others = f", {self.mixture}" if self.mixture else ""
        return (
            f"Model({str(self.path)!r}, {shape}, {len(self.vocabulary):,} {unit} entries{others})"
        )

    def _repr_html_(self) -> str | None:
        """Return facts about the run and its results for notebooks, if its record is readable."""
        from charlm.report.notebook import model_html

        with contextlib.suppress(RunError, KeyError, TypeError):
            return model_html(self.path, self.mixture)
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        others: list[str] = []
        if self.mixture:
            pairs = zip(self.mixture.paths[1:], self.mixture.weights[1:], strict=True)
            varies = bool(self.mixture.mixing.by_length)  # then they are read or fitted again
            others = [
                f"{path.resolve()}" + ("" if varies else f"={weight!r}") for path, weight in pairs
            ]
        return load_again, (str(self.path.resolve()), others, self._options, self.stamp)

    @property
    def weights(self) -> str:
        """Format in which the kernels keep the weights: fp32, bf16 or int8."""
        return str(self._options.get("weights", "fp32"))

    @property
    def history(self) -> History:
        """Records of the training; empty for a run without a log, such as a built-in one."""
        return History.of_run(self.path)

    def score(
        self,
        texts: str | Sequence[str],
        *,
        by: str = "text",
        tokens: bool = False,
        carry: bool = False,
        context: str | Sequence[str] = "",
        unk_penalty: float | None = None,
        entropy: bool = False,
    ) -> Scores:
        """Return the log-probability of each text, and of each word or token with `by`.

        `by` is "text", "word" or "token"; `tokens=True` is an alias of by="token". Texts are
        independent, or with `carry` one continuous text. `context` is a text that precedes each
        text, or a list with one for each: it is read but not scored. The end of a text is scored if
        the model was trained on documents. `unk_penalty` is the cost of an unknown token in nats in
        `penalized_log_probability`, by default `run.unk_penalty`. With `entropy`, words and tokens
        also have the entropy of the prediction (see `words`). Raises UsageError for it by text.
        """
        by = "token" if tokens else by
        if entropy and by == "text":
            raise UsageError(
                "entropy with by='text'; expected by='word' or by='token': a prediction is of one "
                "word or token"
            )
        scorer = self.scorer(carry=carry, unk_penalty=unk_penalty, entropy=entropy)
        return score_texts(scorer, texts, by, context)

    def words(
        self,
        texts: str | Sequence[str],
        *,
        boundary: str = "trailing",
        word_chars: str = "blank",
        context: str | Sequence[str] = "",
        entropy: bool = False,
    ) -> Words:
        """Return the surprisal of each word of texts, from tokens of any unit.

        With `boundary` "trailing" it includes that the word ends, with "leading" the blank before
        the word. `word_chars` is "blank", for what blanks separate, or "text", for words without
        punctuation. `context` is as in `score`. With `entropy`, each word also has the entropy of
        the prediction of its first token, in nats. Raises UsageError for a model that reads
        backward.
        """
        rule = WordRule(boundary=boundary, chars=word_chars)
        scorer = self.scorer(word_rule=rule, entropy=entropy)
        return Words(score_texts(scorer, texts, "word", context))

    def regions(
        self,
        table: Any,
        *,
        column: str,
        group_by: str | Sequence[str],
        order: str | None = None,
        boundary: str = "trailing",
        word_chars: str = "blank",
        context: str = "",
        entropy: bool = False,
    ) -> Regions:
        """Return the surprisal of each row of a table whose rows are words or regions of texts.

        `table` is a pandas.DataFrame, or a list with a dictionary for each row, as of a reading
        study. `column` has the words. Rows with equal cells in the columns `group_by` are a text,
        in their order, or in that of the numbers in the column `order`. `context` is read before
        each text; other options are as in `words`. Raises UsageError for a column that is missing,
        CorpusError for rows that are no single text.
        """
        rule = WordRule(boundary=boundary, chars=word_chars)
        scorer = self.scorer(word_rule=rule, entropy=entropy)
        return table_regions(scorer, table, column, group_by, order=order, context=context)

    def scorer(
        self,
        *,
        carry: bool = False,
        lines: bool = False,
        unk_penalty: float | None = None,
        word_rule: WordRule | None = None,
        entropy: bool = False,
    ) -> Scorer:
        """Return a scorer with the rules of the training text, for texts that arrive one by one.

        `carry` and `unk_penalty` are as in `score`; `lines`, `word_rule` and `entropy` are as in
        `Scorer`.
        """
        return Scorer(
            self.run.backend,
            self.vocabulary,
            self.run.boundaries,
            carry=carry,
            lines=lines,
            unk_penalty=self.run.unk_penalty if unk_penalty is None else unk_penalty,
            word_rule=word_rule,
            entropy=entropy,
        )

    def evaluate(self, text: str | None = None, *, reset_every: int | None = None) -> Tally:
        """Return the tally of a text, which is cut into documents as in training.

        The default is the validation text of the run. Raises CorpusError if the run keeps none.
        """
        encoded = self.run.kept("valid") if text is None else self.run.encode_text(text)
        if encoded is None:
            raise CorpusError(f"{self!r} keeps no validation text; expected a text to evaluate")
        return evaluate(self.run.backend, encoded, reset_every=reset_every)

    def sample(self, length: int = 500, *, seed: int | None = None, **options: Any) -> str:
        """Return one sample as a string; options as in `generate`.

        Raises UsageError for more than one sample; use `samples`.
        """
        count = max(options.get("n", 1), options.get("samples", 1))
        if count > 1:
            raise UsageError(f"n is {count}; sample returns one text. Use model.samples({count})")
        return "".join(self.stream(length, seed=seed, **options))

    def stream(
        self, length: int = 500, *, seed: int | None = None, **options: Any
    ) -> Iterator[str]:
        """Return the pieces of one sample as they are generated; options as in `generate`."""
        return (piece.text for piece in self.generate(length, seed=seed, **options))

    def samples(
        self, n: int, length: int = 500, *, seed: int | None = None, **options: Any
    ) -> list[str]:
        """Return `n` samples, generated side by side; options as in `generate`."""
        pieces = self.generate(length, seed=seed, samples=n, **options)
        return [sample.text for sample in gathered(pieces, n)]

    def generate(
        self,
        length: int = 500,
        *,
        prompt: str = "",
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        seed: int | None = None,
        **options: Any,
    ) -> Iterator[Piece]:
        """Generate samples and return their pieces, with their nats, as they arrive.

        More options: samples, until_eos, stop, allow_unk, unk_text (see
        `inference.generation.generate`). `len`, `prime` and `n`, the flags of `charlm sample`, are
        aliases of length, prompt and samples. The default seed is random. Paragraphs are separated
        by a blank line, as in the training text.
        """
        length, prompt = options.pop("len", length), options.pop("prime", prompt)
        if "n" in options:
            options["samples"] = options.pop("n")
        _check_options(options)
        sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
        chosen = fresh_seed() if seed is None else seed
        return generate(
            self.run.backend,
            self.vocabulary,
            length=length,
            prompt=self.context(prompt),
            sampling=sampling,
            seed=chosen,
            boundaries=self.run.boundaries,
            **options,
        )

    def items(
        self,
        count: int = 1,
        *,
        length: int = 500,
        unique: bool = False,
        new: bool = False,
        match: str = "",
        min_len: int = 0,
        max_len: int | None = None,
        attempts: int | None = None,
        prompt: str = "",
        seed: int | None = None,
        **options: Any,
    ) -> Items:
        """Return an iterable of whole documents, such as lines, generated during iteration.

        See `inference.items.Rules` for the rules; `new` skips documents of the training text. More
        options as in `generate`. Raises UsageError for a model of continuous text, and during
        iteration RunError if `attempts` do not suffice.
        """
        count, length = options.pop("n", count), options.pop("len", length)
        prompt = options.pop("prime", prompt)
        _check_options(options)
        check_count("count", count, 1)
        if attempts is not None:
            check_count("attempts", attempts, 1)
        if not self.run.boundaries.has_ends:
            raise UsageError(
                "this model was trained on continuous text, which has no items; expected a model "
                f"trained with: {command('train', 'TEXT', '--document', 'line')}"
            )
        known = None
        if new:
            from charlm.runs.known import known_documents

            known = known_documents(self.run)
        chosen = fresh_seed() if seed is None else seed
        chosen_options = {**options, "length": length, "prompt": prompt, "until_eos": True}

        def generate_from(first: int, samples: int) -> Iterator[Piece]:
            """Generate attempts, starting with number `first`."""
            return self.generate(seed=chosen, first=first, samples=samples, **chosen_options)

        return Items(
            generate=generate_from,
            count=count,
            length=length,
            rules=Rules(
                unique=unique, is_known=known, match=match, min_len=min_len, max_len=max_len
            ),
            limit=attempts,
            prompt=self._begun_item(prompt),
            backward=self.run.backward,
        )

    def _begun_item(self, prompt: str) -> str:
        """Return the part of a prompt that belongs to its unfinished item."""
        text = self.context(prompt)
        if not self.vocabulary.line_ends_are_eos:
            return text
        return text.partition("\n")[0] if self.run.backward else text.rpartition("\n")[2]

    def next(self, prompt: str = "", *, top: int = 10) -> NextTokens:
        """Return the likeliest tokens after a prompt, with their probabilities."""
        text, rules = self.context(prompt), self.run.boundaries
        return NextTokens(next_tokens(self.run.backend, self.vocabulary, text, top, rules))

    def context(self, prompt: str) -> str:
        """Return the part of a prompt that the model reads: its unfinished document.

        For a model of lines that is the last line, for one of paragraphs the last paragraph.
        """
        return self.run.boundaries.open_document(prompt, backward=self.run.backward)

    def fill(self, text: str, *, top: int = 5) -> tuple[list[list[NextToken]], str]:
        """Return the likeliest tokens for each gap `___` of a text, and the text with the best.

        Raises RunError unless the run was trained with direction `both`.
        """
        if self.run.boundaries.text_document == "line":
            text = text.removesuffix("\n")
        if self.run.boundaries.text_document == "line" and "\n" in text:
            raise UsageError(
                f"{text!r} has several lines, but this model reads lines independently; expected "
                "one line. Fill them one by one"
            )
        return fill(
            self.run.backend, self._backward_half.backend, self.vocabulary, text, top,
            end=self.run.boundaries.has_ends,
        )  # fmt: skip

    @cached_property
    def _backward_half(self) -> Run:
        self.run.check_network("filling gaps")
        path = backward_half(self.path)
        if is_run(path) and (path / WEIGHTS).exists():
            return load_run(path, **self._options)
        if is_pair(self.config["model"]):
            raise RunError(
                f"{self.path} has no backward half yet; resume with: "
                + command("train", "--resume", run=self.path)
            )
        raise RunError(
            f"{self.path} reads {'backward' if self.run.backward else 'forward'} only; gaps need a "
            f"run that was trained with: {command('train', 'TEXT', '--direction', 'both')}"
        )

    @property
    def embedding(self) -> NDArray[np.float32]:
        """Learned embedding, shape (V, E), with a row for each entry of the vocabulary.

        Raises UsageError for a model that has none.
        """
        model = self.config["model"]
        self.run.check_network("an embedding")
        if model.get("one_hot") or not CELLS[model["cell"]].learns_input:
            raise UsageError(
                f"this model has no learned embedding (one-hot input, or cell {model['cell']})"
            )
        return read_embedding(self.path)

    def vector_lines(self) -> Iterator[str]:
        """Return the embedding as lines in word2vec's text format."""
        names = [self.vocabulary.token_text(index) for index in range(len(self.vocabulary))]
        return vector_lines(names, self.embedding)

    def nearest(self, token: str, *, top: int = 10) -> Neighbours:
        """Return the entries with the most similar embeddings, by cosine.

        Raises UsageError unless `token` is one token of the vocabulary.
        """
        ids = self.vocabulary.encode(token)
        if len(ids) != 1 or ids[0] == self.vocabulary.unk:
            raise UsageError(
                f"{token!r} is not an entry of the vocabulary; expected one token of its "
                f"{len(self.vocabulary):,}. They are in {self.path / TOKENIZER}"
            )
        pairs = nearest(self.embedding, int(ids[0]), top)
        return Neighbours((self.vocabulary.token_text(index), cosine) for index, cosine in pairs)

    def state(self, text: str = "") -> ModelState:
        """Return the state after a text that starts a document."""
        ids = prompt_ids(self.vocabulary, self.context(text), self.run.boundaries)
        return state_after(self.run.backend, ids)

    def step(self, state: ModelState, text: str) -> tuple[float, ModelState]:
        """Return ln P(text | state) in nats, and the state after the text.

        `state` itself does not change. The end of a document has no text: its ln P is
        `state.log_probabilities[model.vocabulary.eos]`. The next document starts from `state()`.
        """
        check_text(text)
        total, marked = 0.0, self.run.boundaries.mark(text)
        for index in self.vocabulary.encode_marked(marked)[0].astype(np.int64):
            total += float(state.log_probabilities[index])
            if index == EOS and self.run.boundaries.resets:
                state = self.state()
                continue
            state = state_after(self.run.backend, np.array([index]), state.hidden)
        return total, state

    def hidden(
        self,
        text: str,
        *,
        signals: str | Sequence[str] | None = None,
        state: ModelState | None = None,
    ) -> "Hidden":
        """Return the values of all units after each token of a text.

        `signals` are among h, c and the gates that the cell has (see `config.cells.SIGNALS`); by
        default h, and c if there is one. The text starts a document, or follows `state`, such as
        the `after` of the text before. A mixture has the units of its first network, a pair of
        both directions those of its forward half. Raises UsageError for an n-gram model and for
        more than 1 GB of values.
        """
        from charlm.inspect.hidden import read_hidden

        return read_hidden(
            self.run, text, [signals] if isinstance(signals, str) else signals, state
        )

    def states(self, texts: str | Sequence[str]) -> list[NDArray[np.float32]]:
        """Return the last layer's hidden vectors (T, H) of each text, the start symbol's first."""
        from charlm.inference.labelling import hidden_vectors

        items, rules = [texts] if isinstance(texts, str) else texts, self.run.boundaries
        ids = [np.append(EOS, prompt_ids(self.vocabulary, text, rules)) for text in items]
        return [hidden_vectors(self.run.backend, each[:, np.newaxis])[:, 0] for each in ids]

    def find_units(
        self,
        pattern: str,
        text: str | None = None,
        *,
        top: int = 10,
        signals: str | Sequence[str] | None = None,
    ) -> "UnitMatches":
        """Return the units that follow a pattern of a text, the strongest first.

        The pattern is a regular expression, or "column" for the place in the line. Units are ranked
        by their correlation on the first half of the text, by default the beginning of the run's
        validation text. `signals` are as in `hidden`. Raises UsageError for a pattern that is
        wrong, too slow, or has no matches, CorpusError if no text is kept.
        """
        from charlm.inspect.find_units import check_pattern, find_units, search_text

        check_pattern(pattern)
        text = search_text(self.run) if text is None else text
        return find_units(self.hidden(text, signals=signals), pattern, top)

    def surprisal(self, text: str, *, by: str = "token") -> Surprisals:
        """Return the surprisal of each token or word of a text, in bits, with the slice of text.

        `by` is "token" or "word"; a word has the blank before it, as in
        `words(boundary="leading")`. The sum over the tokens is -log2 P of `score`, so EOS is the
        last token if the model was trained on documents.
        """
        check_choice(named("by"), by, PARTS)
        if by == "token":
            from charlm.inspect.text_view import view_text

            return token_surprisals(view_text(self.run, self.scorer(), text))
        return word_surprisals(self.words(text, boundary="leading").scores[0])


def _check_options(options: Iterable[str]) -> None:
    """Raise UsageError, with the nearest name, for an option that generating text does not have."""
    functions = (Model.generate, generate)
    known = {name for each in functions for name in inspect.signature(each).parameters} - GIVEN
    for name in set(options) - known:
        near = near_name(name, known)
        hint = f"did you mean {near!r}?" if near else f"expected one of {', '.join(sorted(known))}"
        raise UsageError(f"option {name!r} is not known; {hint}")
