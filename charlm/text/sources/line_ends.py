"""Line ends of files: LF, CR LF (Windows), or a lone CR (old Macs).

Where line ends end documents, CR LF becomes LF, and so does the CR of a file without any LF, unless
the user keeps them. Streams and whole files are not changed. One report covers a whole corpus.
"""

from collections.abc import Callable, Iterable, Iterator

from charlm.text.documents import CUT_BY_LINES
from charlm.text.sources.decoding import peek

PEEK_CHARS = 1 << 16
"""Characters at the beginning of a file; with a CR and no LF there, the file is of an old Mac."""
NAMES = {"crlf": "CR LF", "cr": "a lone CR", "mixed": "both CR LF and LF", "lf": "LF"}


class LineEnds:
    """Line ends of the files of a corpus, unified as they are read and then reported.

    `keep` is the user's choice to keep CR; None if there is none.
    """

    def __init__(self, document: str, *, keep: bool | None) -> None:
        self.document, self.cut = document, document in CUT_BY_LINES
        self.unified = self.cut and not keep
        self.is_choice = keep is not None
        self.kept_cr = False
        """True if the text that was read still has CR LF."""
        self._labels: dict[str, list[str]] = {kind: [] for kind in NAMES}

    def read(self, pieces: Iterable[str], label: str) -> Iterator[str]:
        """Yield the text of a file, with unified line ends if they end documents."""
        first, pieces = peek(iter(pieces), PEEK_CHARS + 1)
        head = "".join(first)[: PEEK_CHARS + 1]
        mac = "\r" in head and "\n" not in head
        held, ends, pairs = "", 0, 0  # pairs: line ends that are CR LF
        for piece in pieces:
            text = held + piece
            held = "\r" if text.endswith("\r") else ""  # the next piece may begin with its LF
            text = text.removesuffix(held)
            pairs += text.count("\r\n")
            ends += text.count("\n")
            if text:
                yield self._unify(text, mac)
        if held:
            yield self._unify(held, mac)
        self.kept_cr = self.kept_cr or (pairs > 0 and not self.unified)
        if ends or mac:
            kind = "cr" if mac else "crlf" if pairs == ends else "mixed" if pairs else "lf"
            self._labels[kind].append(label)

    def _unify(self, text: str, mac: bool) -> str:
        if not self.unified:
            return text
        text = text.replace("\r\n", "\n")
        return text.replace("\r", "\n") if mac else text

    def report(self, warn: Callable[[str], None]) -> None:
        """Warn of each kind of line end that was changed, or that differs from the others."""
        crlf, macs, mixed = (self._labels[kind] for kind in ("crlf", "cr", "mixed"))
        if self.unified:
            if self.is_choice and (changed := [*crlf, *mixed]):
                warn(
                    f"{_files_end(changed)} CR LF, as on Windows; only the LF was kept. "
                    "Keep the CR too with --keep-cr."
                )
            if macs:
                advice = " Keep them as they are with --keep-cr." if self.is_choice else ""
                warn(
                    f"{_files_end(macs)} a lone CR, as on old Macs; each CR was read as a line "
                    f"end.{advice}"
                )
            return
        if macs:
            result = "are not cut into lines" if self.cut else "are kept as they are"
            warn(
                f"{_files_end(macs)} a lone CR, as on old Macs; they {result}. Convert them with: "
                "tr '\\r' '\\n'"
            )
        if self.document == "paragraph" and (kept := crlf or mixed):
            warn(
                f"{_files_end(kept)} CR LF; with --keep-cr a line with only a CR does not end a "
                "paragraph."
            )
        others = {kind: labels for kind, labels in self._labels.items() if labels and kind != "cr"}
        if mixed or len(others) > 1:
            files = [f"{_files_end(labels)} {NAMES[kind]}" for kind, labels in others.items()]
            warn(f"Line ends differ: {'; '.join(files)}. Unify them, for example: tr -d '\\r'")


def _files_end(labels: list[str]) -> str:
    if len(labels) == 1:
        return f"{labels[0]} ends lines with"
    return f"{len(labels):,} files (the first is {labels[0]}) end lines with"
