"""The tagger of a run: tags of words. Nothing is printed."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from charlm.api.task_api import TaskApi, TaskModel, in_groups, several
from charlm.backends.interface import Array
from charlm.errors import UsageError
from charlm.inference.tag_counts import TagCounts
from charlm.inference.tagging import PlacedWords, Tags, tags_of
from charlm.runs.layout import TASK
from charlm.runs.tag_run import TagRun
from charlm.text.documents import check_text
from charlm.text.labels import few_names
from charlm.text.sentences import is_word, split_words
from charlm.text.sources.text_lines import FileRules
from charlm.text.spans import as_iob2

Text = str | Sequence[str]
"""A sentence: a text, whose words are cut at blanks, or a list of its words."""


class TagModel(TaskModel):
    """Trained tagger, made by `charlm.load`.

    The tags of a sentence do not depend on other sentences.
    """

    run: TagRun

    def predict_each(self, texts: str | Iterable[Text]) -> Iterator[Tags]:
        """Yield the tags of each sentence, in order; sentences may arrive one by one.

        A sentence is a str, whose words are cut at blanks, or a list of words. Raises UsageError
        for anything else.
        """
        waiting = (placed_words(text) for text in checked_sentences(texts))
        for group in in_groups(waiting):
            sentences = self.run.encode(text.words for text in group)
            yield from tags_of(self.run.answers(sentences), sentences.ends, self.labels, group)

    def evaluate(
        self,
        texts: Iterable[Text] | None = None,
        tags: Iterable[Sequence[str]] | None = None,
    ) -> TagCounts:
        """Return the counts of right and wrong tags for sentences with these gold tags.

        Without arguments, the validation sentences of the run are evaluated. Spans may be in any
        scheme. Tags that the model does not have are counted as `unseen`. Raises UsageError unless
        there is one tag for each word and one of them is known, and CorpusError if the run keeps no
        validation sentences.
        """
        if texts is None and tags is None:
            return self.run.counts(*self.kept_validation())[0]
        chosen = [placed_words(text).words for text in checked_sentences(texts)]
        gold = list(checked_tags(tags))
        if list(map(len, chosen)) != list(map(len, gold)):
            raise UsageError(
                f"{sum(map(len, gold))} tags for {sum(map(len, chosen))} words; expected one for "
                "each word of each sentence"
            )
        if self.config[TASK]["spans"]:
            gold = list(map(as_iob2, gold))
        every = [tag for own in gold for tag in own]
        if every and set(every).isdisjoint(self.labels):
            few = few_names(list(dict.fromkeys(every)))
            raise UsageError(
                f"none of the tags ({few}) is one of run {self.name} ({few_names(self.labels)}); "
                "expected such tags"
            )
        return self.run.counts(self.run.encode(chosen), self.run.labels.ids(every))[0]

    def features(self, texts: str | Iterable[Text]) -> Array:
        """Return the features that tags are read from, shape (W, P), word after word."""
        words = (placed_words(text).words for text in checked_sentences(texts))
        return self.run.reader.features(self.run.encode(words))

    def as_read(self, text: Text) -> list[tuple[str, dict[str, float]]]:
        """Return each word with the probabilities of all tags, by name."""
        words = placed_words(text).words
        answers = self.run.answers(self.run.encode([words]))
        shares = ({n: float(p) for n, p in zip(self.labels, row, strict=True)}
                  for row in np.exp(answers.log_probabilities))  # fmt: skip
        return list(zip(words, shares, strict=True))

    def unknown(self, text: Text) -> list[str]:
        """Return the pieces of a sentence that the vocabulary does not know."""
        return list(self.vocabulary.unknown(" ".join(placed_words(text).words)))


def placed_words(text: Text) -> PlacedWords:
    """Return the words of a sentence; a text of several lines is one sentence."""
    if isinstance(text, str):
        check_text(text)
        words = split_words(text)
        return PlacedWords(text, tuple(w for w, _ in words), tuple(at for _, at in words))
    starts, at = [], 0
    for word in text:
        starts.append(at)
        at += len(word) + 1
    return PlacedWords(" ".join(text), tuple(text), tuple(starts))


def checked_sentences(texts: str | Iterable[Text] | None) -> Iterator[Text]:
    """Yield sentences, or one text alone. Raises UsageError for anything else."""
    for number, text in enumerate(several(texts, "texts", "a str or several sentences")):
        if isinstance(text, str):
            yield text
            continue
        if not isinstance(text, list | tuple) or not all(isinstance(word, str) for word in text):
            raise UsageError(f"texts[{number}] is {text!r:.80}; expected a str, or a list of words")
        bad = next((word for word in text if not is_word(word)), None)
        if bad is not None:
            raise UsageError(f"texts[{number}] has the word {bad!r:.80}; expected no empty word")
        yield text


def checked_tags(tags: Iterable[Sequence[str]] | None) -> Iterator[list[str]]:
    """Yield the tags of each sentence. Raises UsageError for anything but names in lists."""
    expected = "a list of tags for each sentence"
    for number, own in enumerate(several(tags, "tags", expected)):
        names = own if isinstance(own, str) or not isinstance(own, Iterable) else list(own)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UsageError(f"tags[{number}] is {names!r:.80}; expected a list of names of tags")
        yield names


class TagApi(TaskApi):
    """Functions for runs that give tags; see `TaskApi`. A line of CoNLL is one word, no text."""

    model = TagModel
    evaluation_flags = frozenset({"--target", "--worst"})
    evaluation = "charlm.api.tag_evaluation:evaluate_tags"
    comparison = "charlm.api.tag_evaluation:compare_tags"

    def texts(self, files: Sequence[str], rules: FileRules) -> Iterator[list[str]]:
        """Yield the words of each sentence; lines of a file that is no CoNLL are sentences."""
        from charlm.text.tagged_files import read_sentences

        return (list(each.words) for each in read_sentences(files, rules))


TAG_API = TagApi()
