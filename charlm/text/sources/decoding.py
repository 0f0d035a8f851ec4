"""Decoding of files, strict and exact.

Line ends, NULs, combining marks and private characters stay as they are. Only a byte-order mark at
the start of a file is removed, with a warning.
"""

import codecs
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from io import StringIO
from itertools import chain
from typing import AnyStr

from charlm.config.corpus import ReadSettings
from charlm.errors import CorpusError, UsageError
from charlm.text.documents import check_text
from charlm.text.sources.signatures import CONVERT, refuse_other_than_text

AUTO = "auto"
"""Encoding that means: recognise the encoding of each file (see `sources.encodings`)."""
SNIFF_BYTES = 1 << 16
"""Bytes at the beginning of a file that are checked for signatures."""
MAX_LINE_CHARS = 1 << 27
"""Limit of a row of a table. A longer row comes from a quote that is never closed."""

_OTHER_ENCODING = "Correct the file or name another encoding (--encoding)."
_MARK = "\udffe"  # replaces invalid bytes until they are counted; no decoded text contains it
codecs.register_error("charlm.mark", lambda error: (_MARK, error.end))  # type: ignore[attr-defined]


def codec_name(encoding: str) -> str:
    """Return Python's name of a text encoding, such as "utf-8". Raises UsageError if unknown."""
    if encoding == AUTO:
        raise UsageError(
            "--encoding auto needs to read the whole text first, which is not possible here. Name "
            "the encoding, such as --encoding cp1252."
        )
    try:
        info = codecs.lookup(encoding)
        if not info._is_text_encoding or info.incrementaldecoder is None:
            raise LookupError
    except (LookupError, ValueError) as error:  # ValueError: a NUL in the name
        raise UsageError(
            f'"{encoding}" is not a known text encoding. '
            f"Try utf-8, utf-16, latin-1, cp1252 or gb18030."
        ) from error
    return info.name


def with_codec(reading: ReadSettings) -> ReadSettings:
    """Return settings with Python's name of the encoding, unless that of each file is recognised.

    Raises UsageError for an encoding that is not known.
    """
    if reading.encoding == AUTO:
        return reading
    return replace(reading, encoding=codec_name(reading.encoding))


def decode(
    blocks: Iterable[bytes],
    label: str,
    warn: Callable[[str], None],
    *,
    encoding: str,
    errors: str,
    sniff_bytes: int = SNIFF_BYTES,
) -> Iterator[str]:
    """Yield the text of one file, a piece for each block. `label` names the file in messages.

    With `errors` "replace", invalid places become U+FFFD, with a warning. `sniff_bytes` bytes are
    read before any text is yielded; with 1, the text of a pipe comes at once. Raises CorpusError
    for bytes that are not text, and for invalid ones if `errors` is "strict".
    """
    head, blocks = peek(iter(blocks), sniff_bytes)
    refuse_other_than_text(b"".join(head)[:SNIFF_BYTES], label, encoding)
    pieces = _decoded(blocks, label, encoding, errors)
    first = next((piece for piece in pieces if piece), "")
    if first.startswith("\ufeff"):
        warn(f"{label} begins with a byte-order mark; it was removed.")
        first = first[1:]
    places = 0
    for piece in chain([first], pieces):
        if errors == "replace" and _MARK in piece:
            places += piece.count(_MARK)
            piece = piece.replace(_MARK, "\ufffd")
        if encoding != "utf-8":  # UTF-7, for example, allows lone surrogates
            check_text(piece, label, _OTHER_ENCODING)
        yield piece
    if places:
        invalid = "1 place was" if places == 1 else f"{places:,} places were"
        warn(f"{label}: {invalid} not valid {encoding.upper()}, replaced by U+FFFD.")


def _decoded(blocks: Iterator[bytes], label: str, encoding: str, errors: str) -> Iterator[str]:
    handler = "charlm.mark" if errors == "replace" else "strict"
    decoder = codecs.getincrementaldecoder(encoding)(handler)
    before, lines = 0, 1  # bytes decoded so far; number of the line that they end in
    for block in chain(blocks, [b""]):
        state = decoder.getstate()
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeError as error:
            decoder.setstate(state)  # some codecs lose the bytes that they held
            raise _invalid(error, block, before, lines, decoder, label, encoding) from error
        before += len(block)
        lines += text.count("\n")
        yield text


def _invalid(
    error: UnicodeError,
    block: bytes,
    before: int,
    lines: int,
    decoder: codecs.IncrementalDecoder,
    label: str,
    encoding: str,
) -> CorpusError:
    name = encoding.upper()
    # for a missing byte-order mark, Python up to 3.12 gives no place, and later the first bytes
    reason = error.reason if isinstance(error, UnicodeDecodeError) else str(error)
    if "BOM" in reason or not isinstance(error, UnicodeDecodeError):
        return CorpusError(
            f"{label} is not valid {name}: {reason}. "
            f"Name its encoding, such as --encoding utf-16-le.",
            reason,
        )
    held = len(error.object) - len(block)  # bytes of a character that began in the last block
    good = block[: max(0, error.start - held)]
    lines += decoder.decode(good).count("\n")
    byte = before - held + error.start
    values = " ".join(f"0x{value:02x}" for value in error.object[error.start : error.end][:4])
    other = "cp1252" if encoding.startswith("utf") else "utf-8"
    place = f"line {lines}, byte {byte}: {values}"
    return CorpusError(
        f"{label}: {place} is not valid {name}. {CONVERT} {other} or --errors replace.", place
    )


def line_batches(pieces: Iterable[str], label: str) -> Iterator[list[str]]:
    r"""Yield lines with their ends, which are "\n", or "\r" if the first piece has no "\n".

    In "\r\n", the "\r" stays before the "\n".
    """
    held: list[str] = []
    size, end = 0, ""
    for piece in pieces:
        if not end and ("\n" in piece or "\r" in piece[:-1]):
            end = "\n" if "\n" in piece else "\r"
        if not end or end not in piece:
            held.append(piece)
            size += len(piece)
            if size > MAX_LINE_CHARS:
                raise CorpusError(
                    f"{label} has a line of more than {MAX_LINE_CHARS:,} characters, which is "
                    f"too long for a table. Read it as plain text: --input-format text."
                )
            continue
        lines = list(StringIO("".join([*held, piece]), newline=end))
        held = [] if lines[-1].endswith(end) else [lines.pop()]
        size = len(held[0]) if held else 0
        yield lines
    if last := "".join(held):
        yield [last]


def peek(pieces: Iterator[AnyStr], size: int) -> tuple[list[AnyStr], Iterator[AnyStr]]:
    """Read pieces until they have `size` bytes or characters; return them, and all pieces."""
    first: list[AnyStr] = []
    count = 0
    while count < size and (piece := next(pieces, None)):
        first.append(piece)
        count += len(piece)
    return first, chain(first, pieces)
