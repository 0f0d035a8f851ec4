"""Lines of the files of a split, for texts that have labels, tags, translations or numbers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from charlm.config.corpus import ReadSettings
from charlm.errors import CorpusError
from charlm.text.documents import lines
from charlm.text.sources.decoding import AUTO, codec_name, decode
from charlm.text.sources.encodings import invalid, own_encoding
from charlm.text.sources.files import Spool, TextFile, blocks
from charlm.text.sources.kinds import advice_for
from charlm.text.sources.line_ends import LineEnds
from charlm.text.sources.names import Source
from charlm.text.sources.rows import Warn


class LineReader:
    """Reader of lines, which decodes each file and unifies its line ends."""

    def __init__(self, reading: ReadSettings, warn: Warn) -> None:
        if reading.encoding != AUTO:
            reading = replace(reading, encoding=codec_name(reading.encoding))
        self.reading, self.warn = reading, warn
        self._ends = LineEnds("line", keep=None)

    def lines(self, source: TextFile | Spool) -> Iterator[str]:
        """Yield the lines of a file. Raises CorpusError if it cannot be decoded."""
        encoding, errors = self.reading.encoding, self.reading.errors
        if encoding == AUTO:
            encoding = own_encoding(source, self.warn)
        pieces = decode(blocks(source), source.label, self.warn, encoding=encoding, errors=errors)
        return lines(self._ends.read(pieces, source.label))

    def advise(self, head: Sequence[str], label: str) -> None:
        """Warn if the first lines of a text look like rows of a table, or like JSON."""
        if self.reading.input_format != "auto":
            return
        if advice := advice_for("\n".join([*head, ""])):
            self.warn(f"{label} {advice}")

    @contextmanager
    def opened(self, sources: Sequence[Source]) -> Iterator[None]:
        """Name all files of the wrong encoding in an error; report the line ends at the end."""
        try:
            yield
        except CorpusError as error:
            if not error.place or self.reading.encoding == AUTO:
                raise
            raise invalid(sources, self.reading.encoding, error) from error
        self._ends.report(self.warn)
