"""Names of texts, as a user types them, and the sources that they mean.

    corpus.txt     a file                  corpus.txt.gz   also .bz2 .xz .zst, unpacked as read
    corpora/       every file inside       "books/*.txt"   a pattern
    -              standard input          rows.jsonl      .ndjson .json .csv .tsv .parquet
    hf:org/name    a dataset of the hub

Archives of several files are refused. Nothing is written beside the user's files.
"""

import difflib
import glob
import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path

from charlm.commands import quote
from charlm.config.corpus import ReadSettings
from charlm.config.fields import listed_names
from charlm.config.settings import table
from charlm.errors import CharlmError, CorpusError, UsageError, named
from charlm.text.sources.compressed import unpacked_name
from charlm.text.sources.files import STDIN_LABEL, Spool, TextFile, shown, stdin
from charlm.text.sources.hub import HUB_PREFIX, hub_parts, hub_rows
from charlm.text.sources.rows import Columns, Rows, Warn
from charlm.text.sources.tables import TABLES, table_rows
from charlm.units import first_few

Source = TextFile | Spool | Rows

_ARCHIVES = (
    *(".zip", ".7z", ".rar", ".tar", ".tgz", ".tbz2", ".txz", ".tzst"),
    *(".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst"),
)
_NOT_TO_OPEN = {
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def find(
    names: Sequence[str],
    reading: ReadSettings,
    warn: Warn,
    reported: dict[str, str] | None = None,
    columns: Columns | None = None,
) -> list[Source]:
    """Return the sources of the names in their order. Files of a folder or pattern are sorted.

    Calls that share `reported` report only once how their tables are read, and those that share
    `columns` read the columns of the first table, or of a run, where others have them too. Raises
    CorpusError if there is no such text, and UsageError for a name or option that makes no sense.
    """
    if not names:
        raise UsageError(
            "No text was named. Give a file, a folder, a pattern, hf:name or - (stdin)."
        )
    joined = " ".join(names)
    if len(names) > 1 and not all(map(_is_there, names)) and _is_there(joined):
        raise CorpusError(
            f"{shown(joined)} was given as {len(names)} names. Put quotes around a name with "
            f"blanks: {quote(joined)}."
        )
    sources: list[Source] = []
    spools: dict[str, Spool] = {}  # by label, since each can be read only once
    for name in names:
        for source in _find(name, reading, warn):
            if isinstance(source, Spool):
                source = spools.setdefault(source.label, source)
            sources.append(source)
    _warn_twice(sources, warn)
    kinds = [_kind(source, reading) for source in sources]
    _check_table_options(kinds, reading, sources[0].label if sources else "")
    reported = {} if reported is None else reported
    opened: list[Source] = [
        table_rows(source, kind, reading, reported, columns)
        if kind and not isinstance(source, Rows)
        else source
        for source, kind in zip(sources, kinds, strict=True)
    ]
    if columns is None:
        return opened
    return [each.sharing(columns) if isinstance(each, Rows) else each for each in opened]


def _kind(source: Source, reading: ReadSettings) -> str | None:
    """Return the format of a table, "hub" for a dataset of the hub, or None for plain text."""
    if isinstance(source, Rows):
        return "hub"
    if reading.input_format != "auto":
        return reading.input_format if reading.input_format != "text" else None
    name = unpacked_name(source.path) if isinstance(source, TextFile) else source.label
    return TABLES.get(Path(name).suffix.lower())


def _check_table_options(kinds: Sequence[str | None], reading: ReadSettings, first: str) -> None:
    """Raise UsageError for a setting of tables if it applies to no source, `first` among them."""
    if reading.input_format != "auto" and set(kinds) == {"hub"}:
        raise UsageError(
            f"{named('input_format')} {reading.input_format} was given, but a dataset of the hub "
            "has its own format. Leave it out."
        )
    formats = ["parquet" if kind == "hub" else kind for kind in kinds]  # both have typed columns
    settings = table()
    for name in (each.name for each in fields(ReadSettings)):
        setting = settings[name]
        for need in setting.needs:
            is_given = need.fact == "input_format" and getattr(reading, name) != setting.default
            if is_given and not any(map(need.holds, formats)):
                expected = listed_names([*dict.fromkeys(filter(need.holds, TABLES.values()))])
                raise UsageError(
                    f"{named(name)} was given, but no source is a table of the format {expected} "
                    f"(found: {first}). Leave it out, name such a file, or add "
                    f"{named('input_format')}."
                )


def reads_once(name: str) -> bool:
    """Return True for a text that can be read only once: standard input or a pipe."""
    return name == "-" or (not name.startswith(HUB_PREFIX) and Path(name).is_fifo())


def check_read_again(names: Iterable[str], who: str) -> None:
    """Raise UsageError for a text that can be read only once: standard input or a pipe."""
    for name in names:
        if reads_once(name):
            raise UsageError(
                f"{who} reads its text several times, and {'stdin' if name == '-' else shown(name)}"
                " can be read only once; give the text in a file"
            )


def short_name(name: str, sources: Sequence[Source]) -> str:
    """Return a name for a run of a text: a safe name that is never empty or hidden."""
    if name == "-":
        return "stdin"
    if name.startswith(HUB_PREFIX):
        return safe_name(hub_parts(name)["path"].rpartition("/")[2])
    path = Path(name)
    if path.is_dir():
        return safe_name(path.resolve().name)
    file = path if path.exists() else Path(sources[0].label)
    return safe_name(Path(unpacked_name(file)).stem)


def safe_name(text: str) -> str:
    """Return a text with all but ASCII letters, digits, dots and underscores as hyphens."""
    plain = unicodedata.normalize("NFKD", text)
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    return re.sub(r"[^A-Za-z0-9._]+", "-", plain).strip("-.")[:80] or "text"


def _is_there(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):
        return False


def _find(name: str, reading: ReadSettings, warn: Warn) -> Iterable[Source]:
    if name == "-":
        return [Spool(STDIN_LABEL, stdin)]
    if name.startswith(HUB_PREFIX):
        return [hub_rows(name, reading.column)]
    path = Path(name)
    if not name:
        raise UsageError("The name of a text is empty. Give a file, a folder or - (stdin).")
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        return [_file(path) for path in _glob_or_fail(name, error)]
    if stat.S_ISDIR(mode):
        return [_file(path) for path in _walk(path, warn)]
    if stat.S_ISFIFO(mode):
        return [Spool(shown(name), lambda: path.open("rb"))]
    if kind := _NOT_TO_OPEN.get(stat.S_IFMT(mode)):
        raise CorpusError(f"{shown(name)} is {kind}, not text. Give a file, a folder or - (stdin).")
    return [_file(path)]


def _file(path: Path) -> TextFile:
    name, label = path.name.lower(), shown(path)
    if name.endswith(_ARCHIVES):
        raise CorpusError(
            f"{label} is an archive. Unpack it and give the folder or its text files."
        )
    return TextFile(label, path)


_RUN_FILES = (("config.json", "run.json"), ("search.json", "study.log"))
"""Files that every run has, and files that every search has."""


_MEDIA = frozenset({
    ".avi", ".bmp", ".flac", ".gif", ".heic", ".jpeg", ".jpg", ".m4a", ".mkv", ".mov", ".mp3",
    ".mp4", ".ogg", ".otf", ".png", ".tif", ".tiff", ".ttf", ".wav", ".webp", ".woff", ".woff2",
})  # fmt: skip
"""Suffixes of pictures, recordings and fonts, which folders of texts may hold too."""
_PROGRAMS = frozenset({
    ".class", ".dll", ".dylib", ".elc", ".exe", ".o", ".pyc", ".pyd", ".pyo", ".so",
})  # fmt: skip
"""Suffixes of compiled programs, which folders of source code hold too."""
_SCRIVENER = ".scriv"


def _is_note(path: Path) -> bool:
    """Return True for a file of a Scrivener project that is not one of its texts."""
    in_project = any(folder.endswith(_SCRIVENER) for folder in path.parent.parts)
    return in_project and not re.fullmatch(r"(content|\d+)\.rtf", path.name)


def _walk(top: Path, warn: Warn) -> list[Path]:
    """Return the files under a folder, without hidden and special ones; read each folder once."""
    files: list[Path] = []
    runs: list[Path] = []
    seen = {top.resolve()}

    def enter(folder: Path, name: str) -> bool:
        """Return True for a folder to read: not hidden, not a run of charlm, not read before."""
        inner = folder / name
        real = inner.resolve()
        if name.startswith("."):
            return False
        if any(all((inner / file).is_file() for file in names) for names in _RUN_FILES):
            runs.append(inner)
            return False
        if real in seen:
            warn(f"{shown(inner)} leads to a folder that has already been read; it was skipped.")
            return False
        seen.add(real)
        return True

    def fail(error: OSError) -> None:
        """Raise CorpusError for a folder that cannot be listed."""
        raise CorpusError(f"{shown(error.filename)} cannot be read: {error.strerror}.") from error

    for here, folders, names in os.walk(top, onerror=fail, followlinks=True):
        folder = Path(here)
        folders[:] = [name for name in sorted(folders) if enter(folder, name)]
        files += [folder / name for name in names if not name.startswith((".", "~$"))]
    if runs:
        named, were = first_few(map(shown, runs), 1), "were" if len(runs) > 1 else "was"
        warn(f"{named} {were} skipped: runs of charlm contain no text to train on.")
    files = sorted(path for path in files if path.is_file() and not _is_note(path))
    for suffixes, kinds in ((_MEDIA, "pictures and recordings"), (_PROGRAMS, "compiled programs")):
        left_out = [path for path in files if path.suffix.lower() in suffixes]
        if left_out:
            warn(f"{first_few(map(shown, left_out), 1)} skipped: {kinds} contain no text.")
        files = [path for path in files if path.suffix.lower() not in suffixes]
    if not files:
        raise CorpusError(
            f"{shown(top)} contains no files but hidden ones, pictures and programs. Put text "
            "into it."
        )
    return _without_links(files, warn)


def _without_links(files: list[Path], warn: Warn) -> list[Path]:
    """Return the files without links to others of them, which would be read twice."""
    links = {path for path in files if path.is_symlink()}
    if not links:  # names of many files take long to resolve
        return files
    targets = {path.resolve() for path in files if path not in links}
    left_out = list[Path]()
    for path in filter(links.__contains__, files):
        if path.resolve() in targets:
            left_out.append(path)
        targets.add(path.resolve())
    if left_out:
        warn(f"{first_few(map(shown, left_out), 1)} skipped: links to files that are read anyway.")
    return sorted({*files}.difference(left_out))


def _glob_or_fail(name: str, error: Exception) -> list[Path]:
    """Return the files that match a pattern, sorted, each once. Raises CorpusError if none does."""
    folder, pattern = literal_folders(name)
    if not glob.has_magic(pattern):
        raise _missing(name, error) from error
    # pathlib's patterns would match hidden files too
    matches = map(Path, glob.glob(glob.escape(folder) + pattern, recursive=True))  # noqa: PTH207
    files = {path.resolve(): path for path in sorted(matches, reverse=True) if path.is_file()}
    if not files:
        raise CorpusError(
            f"No file matches the pattern {shown(name)}. Check the pattern, or put it in quotes."
        )
    return sorted(files.values())


def literal_folders(pattern: str) -> tuple[str, str]:
    """Split off the folders at the beginning of a pattern that exist literally, such as "a[1]"."""
    separators = (os.sep, os.altsep)
    ends = (place for place in range(len(pattern) - 1, 0, -1) if pattern[place] in separators)
    place = next((place for place in ends if Path(pattern[:place]).is_dir()), 0)
    return pattern[:place], pattern[place:]


def _missing(name: str, error: Exception) -> CharlmError:
    path = Path(name)
    if "://" in name:
        return CorpusError(
            f"{shown(name)} is an address. Download it first, or use hf:org/dataset."
        )
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        reason = getattr(error, "strerror", None) or str(error)
        return CorpusError(f"{shown(name)} cannot be read: {reason}.")
    try:
        beside = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return CorpusError(f"{shown(name)} does not exist, nor does its folder.")
    near = difflib.get_close_matches(path.name, beside, n=1)
    advice = f"Did you mean {shown(path.parent / near[0])}?" if near else "Check the name."
    return CorpusError(f"{shown(name)} does not exist. {advice}")


def _warn_twice(sources: Iterable[Source], warn: Warn) -> None:
    seen: set[str] = set()
    for source in sources:
        key = str(source.path.resolve()) if isinstance(source, TextFile) else source.label
        if key in seen:
            warn(f"{source.label} is named twice; its text is read twice.")
        seen.add(key)
