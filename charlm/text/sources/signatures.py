"""Signatures: recognise files that are not text by the bytes that they begin with."""

import codecs
import re

from charlm.errors import CorpusError

CONVERT = "Convert it, for example with iconv; most commands that read files also take --encoding"

LOOKS_LIKE = "looks like"
"""First words of the place of a `CorpusError` that concerns a whole file."""

_PACKED = {  # → suffix that makes charlm unpack the file, and format
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
    b"{\\rtf": "a document in RTF",
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
    b"\xff\xff\xff\xff": "an Arrow stream",
    b"Obj\x01": "an Avro file",
    b"ORC\n": "an ORC file",
    b"\x89HDF\r\n": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"OggS\0": "an Ogg recording",
    b"fLaC\0": "a FLAC recording",
    b"ID3\x03": "an MP3 recording",
    b"ID3\x04": "an MP3 recording",
}

_ARROW = (
    "Write it as Parquet, for example with pyarrow.parquet.write_table, or to_parquet of a data "
    "set of Hugging Face."
)
_ADVICE = {
    b"PAR1": "Read it with --input-format parquet.",
    b"{\\rtf": "Give it as a file that ends in .rtf.",
    b"PK\x03\x04": "Unpack it; give a document as a file that ends in .docx, .odt or .epub, and "
    "save a spreadsheet as .csv.",
    b"%PDF-": "Convert it to plain text, for example with: pdftotext.",
    b"\xd0\xcf\x11\xe0": "Save it as .docx, a spreadsheet as .csv, in the program that wrote it.",
    b"ARROW1\0\0": _ARROW,
    b"\xff\xff\xff\xff": _ARROW,
}

_WIDE_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

_CONTROLS = bytes(set(range(1, 32)) - set(b"\t\n\r\f\v\x1b")) + b"\x7f"

_MAX_CONTROLS = 32  # accepted in any text, however short


def refuse_pointer(head: bytes, label: str) -> None:
    """Raise CorpusError for a pointer that Git LFS left in place of the real file."""
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        raise CorpusError(
            f"{label} is a pointer of Git LFS, expected the file itself. Fetch it with: "
            f"git lfs pull"
        )


def refuse_other_than_text(head: bytes, label: str, encoding: str) -> None:
    """Raise CorpusError if the first bytes of a file show that it is not text in the encoding."""
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
        for magic, other in _ADVICE.items():
            advice = other if kind == _MAGIC[magic] else advice
        raise CorpusError(f"{label} is {kind}, not text. {advice}")
    if encoding.startswith(("utf-16", "utf-32")):
        return
    if wide := wide_encoding(head):
        raise CorpusError(
            f"{label} looks like {wide.upper()}, not {encoding.upper()}. {CONVERT} {wide}.",
            f"{LOOKS_LIKE} {wide.upper()}",
        )
    controls = len(head) - len(head.translate(None, _CONTROLS))
    if controls > max(_MAX_CONTROLS, len(head) / 10) or head.count(0) > max(
        _MAX_CONTROLS, len(head) / 2
    ):
        raise CorpusError(
            f"{label} is not text: {controls:,} of its first {len(head):,} bytes are control "
            f"characters, {head.count(0):,} are NUL. Give a plain text file, or name those of a "
            "folder with a pattern such as 'FOLDER/*.txt'."
        )


def wide_encoding(head: bytes) -> str:
    """Return "utf-16…" or "utf-32…" if a byte-order mark or the places of NULs show it, else ""."""
    for mark, name in _WIDE_MARKS.items():
        if head.startswith(mark):
            return name
    if head.count(0) < _MAX_CONTROLS // 4:
        return ""
    n0, n1, n2, n3 = (4 * head[offset::4].count(0) / len(head) for offset in range(4))
    if n0 < 0.01 and n2 > 0.5 and n3 > 0.9:
        return "utf-32-le"
    if n3 < 0.01 and n1 > 0.5 and n0 > 0.9:
        return "utf-32-be"
    if max(n0, n2) < 0.01 and min(n1, n3) > 0.15:
        return "utf-16-le"
    return "utf-16-be" if max(n1, n3) < 0.01 and min(n0, n2) > 0.15 else ""
