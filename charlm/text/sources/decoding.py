"""Bytes to text, exactly; what is not text, or not in the encoding named, is refused.

Nothing is translated: line ends, NUL, combining marks and private characters stay as they are. Only
a byte-order mark at the start of a file goes, with a note.
"""

import codecs
import re
from collections.abc import Callable, Iterable, Iterator
from io import StringIO
from itertools import chain

from charlm.errors import CorpusError, UsageError

AUTO = "auto"
"""Name of an encoding that stands for the own one of each file; see `sources.encodings`."""
CONVERT = (
    "Convert it, for example with iconv; train, eval, score, compare and vocab also take --encoding"
)
LOOKS_LIKE = "looks like"
"""Beginning of the place of a `CorpusError` for a whole file."""
SNIFF_BYTES = 1 << 16
"""As much of a file's beginning is looked at to tell text from other things."""

MAX_LINE_CHARS = 1 << 27
"""Characters of the longest row of a table; longer ones come from a quote that is never closed."""

_MARK = "\udffe"  # stands for replaced bytes until they are counted; no decoded text contains it
codecs.register_error("charlm.mark", lambda error: (_MARK, error.end))  # type: ignore[attr-defined]

_PACKED = {  # what to rename it to
    b"\x1f\x8b": (".gz", "gzip"),
    b"BZh": (".bz2", "bzip2"),
    b"\xfd7zXZ\0": (".xz", "xz"),
    b"\x28\xb5\x2f\xfd": (".zst", "Zstandard"),
}
_MAGIC = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF87a": "a GIF image",
    b"GIF89a": "a GIF image",
    b"II*\0": "a TIFF image",
    b"MM\0*": "a TIFF image",
    b"%PDF-": "a PDF document",
    b"PK\x03\x04": "a zip archive or an office document",
    b"PK\x05\x06": "a zip archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"\xd0\xcf\x11\xe0": "an office document",
    b"\x7fELF": "a program",
    b"MZ\x90\0": "a program",
    b"\0asm": "a program",
    b"SQLite format 3\0": "an SQLite database",
    b"PAR1": "a Parquet table",
    b"\x04\x22\x4d\x18": "a file packed by lz4",
    b"\x1f\x9d": "a file packed by compress",
    b"LZIP": "a file packed by lzip",
    b"ARROW1\0\0": "an Arrow file",
    b"Obj\x01": "an Avro file",
    b"ORC\n": "an ORC file",
    b"\x89HDF\r\n": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"OggS\0": "an Ogg recording",
    b"fLaC\0": "a FLAC recording",
    b"ID3\x03": "an MP3 recording",
    b"ID3\x04": "an MP3 recording",
}
_WIDE_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_CONTROLS = bytes(set(range(1, 32)) - set(b"\t\n\r\f\v\x1b")) + b"\x7f"
_FEW = 32  # so many control bytes or NULs may stand in any text, however short


def codec_name(encoding: str) -> str:
    """Return Python's name of a text encoding, such as "utf-8". UsageError where there is none."""
    if encoding == AUTO:
        raise UsageError(
            "--encoding auto looks at a whole file first, which cannot be done here. Name the "
            "encoding, such as --encoding cp1252."
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


def decode(
    blocks: Iterable[bytes],
    label: str,
    note: Callable[[str], None],
    *,
    encoding: str,
    errors: str,
    sniff_bytes: int = SNIFF_BYTES,
) -> Iterator[str]:
    """The text of one file, a piece for each block; `label` names the file in messages.

    CorpusError where the bytes are not text, or not valid in the encoding and `errors` is "strict".
    With "replace" each invalid place becomes U+FFFD, and `note` gets their number. The first
    `sniff_bytes` bytes are read before there is any text; 1 gives the text of a pipe as it comes.
    """
    blocks = _sniffed(iter(blocks), label, encoding, sniff_bytes)
    pieces = _decoded(blocks, label, encoding, errors)
    first = next((piece for piece in pieces if piece), "")
    if first.startswith("\ufeff"):
        note(f"{label} begins with a byte-order mark; it was dropped.")
        first = first[1:]
    places = 0
    for piece in chain([first], pieces):
        if errors == "replace" and _MARK in piece:
            places += piece.count(_MARK)
            piece = piece.replace(_MARK, "\ufffd")
        yield _without_surrogates(piece, label, encoding)
    if places:
        what = "1 place was" if places == 1 else f"{places:,} places were"
        note(f"{label}: {what} not valid {encoding.upper()}, replaced by U+FFFD.")


def _decoded(blocks: Iterator[bytes], label: str, encoding: str, errors: str) -> Iterator[str]:
    handler = "charlm.mark" if errors == "replace" else "strict"
    decoder = codecs.getincrementaldecoder(encoding)(handler)
    before, lines = 0, 1  # bytes given to the decoder; number of the line that they end in
    for block in chain(blocks, [b""]):
        state = decoder.getstate()
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeError as error:
            decoder.setstate(state)  # some codecs forget the bytes that they held
            raise _invalid(error, block, before, lines, decoder, label, encoding) from error
        before += len(block)
        lines += text.count("\n")
        yield text


def placeless(error: UnicodeError) -> str:
    """Return what is wrong with a text as a whole, such as a missing byte-order mark, or nothing.

    Python up to 3.12 gives no place for a missing mark, later versions that of the first bytes.
    """
    if isinstance(error, UnicodeDecodeError):
        return error.reason if "BOM" in error.reason else ""
    return str(error)


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
    if (reason := placeless(error)) or not isinstance(error, UnicodeDecodeError):
        return CorpusError(
            f"{label} is not valid {name}: {reason}. "
            f"Name its encoding, such as --encoding utf-16-le.",
            reason,
        )
    held = len(error.object) - len(block)  # bytes of the character that the last block cut
    good = block[: max(0, error.start - held)]
    lines += decoder.decode(good).count("\n")
    byte = before - held + error.start
    found = " ".join(f"0x{value:02x}" for value in error.object[error.start : error.end][:4])
    other = "cp1252" if encoding.startswith("utf") else "utf-8"
    place = f"line {lines}, byte {byte}: {found}"
    return CorpusError(
        f"{label}: {place} is not valid {name}. {CONVERT} {other} or --errors replace.", place
    )


def _without_surrogates(text: str, label: str, encoding: str) -> str:
    """The text itself; some codecs, as UTF-7, can decode to halves of a pair, which are no text."""
    if encoding != "utf-8" and not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise CorpusError(
                f"{label} has half of a surrogate pair, U+{ord(text[error.start]):04X}, which no "
                f"text can hold. Correct the file or name another encoding (--encoding)."
            ) from error
    return text


def line_batches(pieces: Iterable[str], label: str) -> Iterator[list[str]]:
    r"""Cut a text into lines with their ends, which are "\n", or "\r" if the first piece has none.

    "\r\n" needs no care: the "\r" stays before the "\n".
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
                    f"{label} has a line of more than {MAX_LINE_CHARS:,} characters, which is no "
                    f"row of a table. Give it as plain text: --input-format text."
                )
            continue
        lines = list(StringIO("".join([*held, piece]), newline=end))
        held = [] if lines[-1].endswith(end) else [lines.pop()]
        size = len(held[0]) if held else 0
        yield lines
    if last := "".join(held):
        yield [last]


# ------------------------------------------------------------------ is it text?


def _sniffed(blocks: Iterator[bytes], label: str, encoding: str, size: int) -> Iterator[bytes]:
    """The same blocks, after a look at the first of them."""
    first: list[bytes] = []
    while sum(map(len, first)) < size and (block := next(blocks, b"")):
        first.append(block)
    refuse_other_than_text(b"".join(first)[:SNIFF_BYTES], label, encoding)
    return chain(first, blocks)


def refuse_pointer(head: bytes, label: str) -> None:
    """Raise CorpusError for a file that Git LFS left in the place of the real one."""
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        raise CorpusError(
            f"{label} is a pointer of Git LFS, expected the file that it stands for. Fetch that "
            f"with: git lfs pull"
        )


def refuse_other_than_text(head: bytes, label: str, encoding: str) -> None:
    """Raise CorpusError for bytes at the beginning of a file that are no text in the encoding."""
    refuse_pointer(head, label)
    for magic, (suffix, kind) in _PACKED.items():
        if head.startswith(magic) and (magic != b"BZh" or re.match(rb"BZh[1-9](1AY|\x17rE)", head)):
            raise CorpusError(
                f"{label} is {kind} data, not text. Unpack it, or rename it to end in {suffix}."
            )
    kind = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "")
    if head[257:262] == b"ustar":
        kind = "a tar archive"
    if kind:
        advice = "Unpack or convert it to plain text."
        if kind == _MAGIC[b"PAR1"]:
            advice = "Read it with --input-format parquet."
        raise CorpusError(f"{label} is {kind}, not text. {advice}")
    if encoding.startswith(("utf-16", "utf-32")):
        return
    if wide := wide_encoding(head):
        raise CorpusError(
            f"{label} looks like {wide.upper()}, not {encoding.upper()}. {CONVERT} {wide}.",
            f"{LOOKS_LIKE} {wide.upper()}",
        )
    controls = len(head) - len(head.translate(None, _CONTROLS))
    if controls > max(_FEW, len(head) / 10) or head.count(0) > max(_FEW, len(head) / 2):
        raise CorpusError(
            f"{label} is not text: {controls:,} of its first {len(head):,} bytes are control "
            f"characters, {head.count(0):,} are NUL. Give a plain text file."
        )


def wide_encoding(head: bytes) -> str:
    """Return "utf-16…" or "utf-32…" where a mark, or the places of the NULs, say so; else ""."""
    for mark, name in _WIDE_MARKS.items():
        if head.startswith(mark):
            return name
    if head.count(0) < _FEW // 4:
        return ""
    n0, n1, n2, n3 = (4 * head[offset::4].count(0) / len(head) for offset in range(4))
    if n0 < 0.01 and n2 > 0.5 and n3 > 0.9:
        return "utf-32-le"
    if n3 < 0.01 and n1 > 0.5 and n0 > 0.9:
        return "utf-32-be"
    if max(n0, n2) < 0.01 and min(n1, n3) > 0.15:
        return "utf-16-le"
    return "utf-16-be" if max(n1, n3) < 0.01 and min(n0, n2) > 0.15 else ""
