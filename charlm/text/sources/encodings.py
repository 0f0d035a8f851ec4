"""Encodings of files, recognised by a byte-order mark or by the content."""

import codecs
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from charlm.config.corpus import ReadSettings
from charlm.errors import CorpusError
from charlm.text.sources.decoding import AUTO, SNIFF_BYTES, decode
from charlm.text.sources.files import Spool, TextFile, blocks
from charlm.text.sources.rows import Rows, Warn
from charlm.text.sources.signatures import (
    CONVERT,
    LOOKS_LIKE,
    refuse_other_than_text,
    wide_encoding,
)

COMMON = (
    *("cp1252", "cp1251", "cp932", "gb18030", "euc_jp", "cp949", "big5", "cp1250", "iso8859_2"),
    *("cp1253", "cp1254", "cp1255", "cp1256", "koi8_r", "cp874", "iso2022_jp", "cp866"),
    *("mac_roman", "iso8859_5"),
)
"""Encodings that are tried, the most frequent first. Rarer ones would fit too many texts."""
SAMPLE_BYTES = 1 << 16
"""Bytes of lines with non-ASCII characters that are enough to recognise an encoding."""
MIN_VALID = 4
"""Valid characters outside of ASCII by which a file with invalid places counts as UTF-8."""
MAX_RIVALS = 3
MAX_LISTED = 50
"""Files that an error lists."""


@dataclass(frozen=True)
class Guess:
    """Probable encoding of a file."""

    name: str
    """Python's name of the encoding."""
    sure: bool
    """True if the file has a byte-order mark or is valid UTF-8."""
    rivals: tuple[str, ...] = ()
    """Other encodings that fit as well and give another text."""

    def __str__(self) -> str:
        """Return the encoding and its rivals for a message."""
        shown = self.name.upper()
        if self.sure or not self.rivals:
            return shown
        return f"{shown} (it could also be {' or '.join(map(str.upper, self.rivals))})"


def recognise(blocks: Iterable[bytes]) -> Guess | None:
    """Return the probable encoding of the bytes of a file, or None if no encoding fits.

    A file that is valid UTF-8 throughout is UTF-8, and so, less surely, is one with a few invalid
    places: text in another encoding is hardly ever valid UTF-8 by chance.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    valid, head, rest, sample = True, b"", b"", b""
    for block in blocks:
        head += block[: SNIFF_BYTES - len(head)]
        valid = valid and _is_valid(decoder, block)
        if len(sample) < SAMPLE_BYTES:
            *lines, rest = (rest + block).split(b"\n")
            if len(rest) > SAMPLE_BYTES:  # very long lines
                lines, rest = [*lines, rest], b""
            sample += b"".join(line + b"\n" for line in lines if not line.isascii())
        elif not valid:
            break
    if wide := wide_encoding(head):
        return Guess(wide, sure=True)
    if valid and _is_valid(decoder, b"", final=True):
        return Guess("utf-8", sure=True)
    sample = (sample + rest)[: 2 * SAMPLE_BYTES]
    return Guess("utf-8", sure=False) if _is_mostly_valid(sample) else _likeliest(sample)


def own_encoding(source: TextFile | Spool, warn: Warn) -> str:
    """Return the encoding of a file by its content, and warn if it is not UTF-8.

    Raises CorpusError if no encoding fits, or if the file is evidently no text.
    """
    guess = recognise(blocks(source))
    if guess is None:
        head = next(blocks(source), b"")[:SNIFF_BYTES]
        refuse_other_than_text(head, source.label, "utf-8")
        raise CorpusError(
            f"{source.label}: its encoding was not recognised, expected UTF-8 or another common "
            "one. Name it with --encoding, or convert the file, for example with iconv."
        )
    if guess.name != "utf-8":
        reason = "" if guess.sure else ", which is a guess"
        warn(f"{source.label} was read as {guess}{reason}. Name another with --encoding.")
    elif not guess.sure:
        warn(f"{source.label} is read as UTF-8, as most of it is valid UTF-8.")
    return guess.name


def decoded(source: TextFile | Spool, reading: ReadSettings, warn: Warn) -> Iterator[str]:
    """Yield the text of a file in pieces, in the encoding of the settings or in its own.

    Raises CorpusError if it cannot be read or decoded.
    """
    encoding = own_encoding(source, warn) if reading.encoding == AUTO else reading.encoding
    return decode(blocks(source), source.label, warn, encoding=encoding, errors=reading.errors)


def invalid(sources: Iterable[object], encoding: str, error: CorpusError) -> CorpusError:
    """Return an error that names every file of the sources that is not valid in an encoding.

    It also names the probable encoding of each file. `error` is the error of the first file, and
    is returned if only that one is known.
    """
    name, files = encoding.upper(), _files(sources)
    bad = [(source, place) for source in files if (place := _invalid_place(source, encoding))]
    if not bad:
        return error
    if len(bad) == 1:
        (source, place), guess = bad[0], recognise(blocks(bad[0][0]))
        if place.startswith(LOOKS_LIKE) or not guess:
            return error
        if guess.name == encoding == "utf-8":
            return CorpusError(
                f"{source.label}: {place} is not valid UTF-8, but most of the file is. Correct "
                "the file, or read such places as U+FFFD with --errors replace.",
                place,
            )
        if guess.name == encoding:
            return error
        return CorpusError(
            f"{source.label}: {place} is not valid {name}; the file seems to be {guess}. {CONVERT} "
            f"{guess.name} or --errors replace.",
            place,
        )
    listed = [f"\n  {_seems(*item)}" for item in bad[:MAX_LISTED]]
    if len(bad) > MAX_LISTED:
        listed.append(f"\n  and {len(bad) - MAX_LISTED:,} more")
    return CorpusError(
        f"{len(bad):,} of {len(files):,} files are not valid {name}. {CONVERT} auto, which reads "
        f"each file in its own encoding, or --errors replace.{''.join(listed)}",
        error.place,
    )


def _files(sources: Iterable[object]) -> list[TextFile | Spool]:
    """Return the files with an encoding, tables included."""
    files: list[TextFile | Spool] = []
    for source in sources:
        if isinstance(source, TextFile | Spool):
            files += [source] * (isinstance(source, Spool) or not source.is_converted)
        elif isinstance(source, Rows) and source.path and ".parquet" not in source.path.suffixes:
            files.append(TextFile(source.label, source.path))
    return files


def _seems(source: TextFile | Spool, place: str) -> str:
    guess = None if place.startswith(LOOKS_LIKE) else recognise(blocks(source))
    if guess and guess.name == "utf-8":
        return f"{source.label}: {place}; most of it is valid UTF-8"
    return f"{source.label}: {place}" + (f"; it seems to be {guess.name.upper()}" if guess else "")


def _invalid_place(source: TextFile | Spool, encoding: str) -> str:
    """Return the place where a file is not valid in an encoding; "" if it is valid or not text."""
    try:
        for _ in decode(
            blocks(source), source.label, lambda _: None, encoding=encoding, errors="strict"
        ):
            pass
    except CorpusError as error:
        return error.place
    return ""


def _is_valid(decoder: codecs.IncrementalDecoder, block: bytes, *, final: bool = False) -> bool:
    try:
        decoder.decode(block, final)
    except UnicodeDecodeError:
        return False
    return True


def _is_mostly_valid(sample: bytes) -> bool:
    """Return whether most of the characters outside of ASCII are valid UTF-8."""
    text = sample.decode("utf-8", "replace")
    others = sum(not char.isascii() for char in text)
    valid = others - text.count("\ufffd")
    return valid >= MIN_VALID and 2 * valid > others


def _likeliest(sample: bytes) -> Guess | None:
    from charset_normalizer import from_bytes

    ranked = []
    for match in from_bytes(sample, cp_isolation=list(COMMON), enable_fallback=False):
        quality = (round(match.chaos, 2), -round(match.coherence, 2))
        names = {match.encoding, *match.could_be_from_charset}
        ranked += [(quality, COMMON.index(name), name) for name in names if name in COMMON]
    if not ranked:
        return None
    ranked.sort()
    best, _, name = ranked[0]
    text = sample.decode(name, "replace")
    alike = [
        other for (mess, fit), _, other in ranked[1:] if mess == best[0] and fit < best[1] + 0.1
    ]
    rivals = [other for other in alike if sample.decode(other, "replace") != text]
    return Guess(name, sure=False, rivals=tuple(rivals[:MAX_RIVALS]))
