"""Line ends of files: CR LF (Windows), a lone CR (old Macs), LF; made one where lines count.

Lines and paragraphs end with LF. In texts that are cut into them, CR LF and the lone CR of a file
without any LF are read as LF, unless the user keeps them. In streams and whole files everything
stays as it is. What was found is reported once for a whole corpus.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

PEEK_CHARS = 1 << 16
"""Characters at the beginning of a file in which a CR and no LF make it a file of an old Mac."""
CUT_BY_LINES = ("line", "paragraph")
"""Kinds of documents that end at line ends."""
NAMES = {"crlf": "CR LF", "cr": "a lone CR", "mixed": "both CR LF and LF", "lf": "LF"}


class LineEnds:
    """Line ends of the files of a corpus, as they are read; `report` names what was found."""

    def __init__(self, document: str, *, keep: bool) -> None:
        self.document, self.cut = document, document in CUT_BY_LINES
        self.unified = self.cut and not keep
        self.kept_cr = False
        """Whether the text as it was given on has CR LF in it."""
        self._labels: dict[str, list[str]] = {kind: [] for kind in NAMES}

    def read(self, pieces: Iterable[str], label: str) -> Iterator[str]:
        """Give the text of a file on, its line ends made one where documents are cut by them."""
        head, pieces = _peeked(iter(pieces))
        mac = "\r" in head and "\n" not in head
        held, ends, windows = "", 0, 0
        for piece in pieces:
            text = held + piece
            held = "\r" if text.endswith("\r") else ""  # the next piece may begin with its LF
            text = text[: len(text) - len(held)]
            pairs = text.count("\r\n")
            ends += text.count("\n")
            windows += pairs
            self.kept_cr = self.kept_cr or (pairs > 0 and not self.unified)
            if text:
                yield self._one(text, mac) if pairs or mac else text
        if held:
            yield self._one(held, mac)
        kind = "cr" if mac else "crlf" if windows == ends else "mixed" if windows else "lf"
        if ends or mac:
            self._labels[kind].append(label)

    def _one(self, text: str, mac: bool) -> str:
        if not self.unified:
            return text
        text = text.replace("\r\n", "\n")
        return text.replace("\r", "\n") if mac else text

    def report(self, warn: Callable[[str], None]) -> None:
        """Give one sentence for each kind of line end that was changed, or that differs."""
        found = {kind: labels for kind, labels in self._labels.items() if labels}
        if self.unified:
            if changed := [*found.get("crlf", ()), *found.get("mixed", ())]:
                warn(
                    f"{_those(changed)} CR LF, as on Windows; only the LF was kept. "
                    "Keep the CR too with --keep-cr."
                )
            if macs := found.get("cr"):
                warn(
                    f"{_those(macs)} a lone CR, as on old Macs; each CR was read as a line end. "
                    "Keep them as they are with --keep-cr."
                )
            return
        if macs := found.get("cr"):
            cut = "are not cut into lines" if self.cut else "are kept as they are"
            warn(
                f"{_those(macs)} a lone CR, as on old Macs; they {cut}. Convert them with: "
                "tr '\\r' '\\n'"
            )
        if self.document == "paragraph" and (kept := found.get("crlf") or found.get("mixed")):
            warn(
                f"{_those(kept)} CR LF; with --keep-cr a line of a CR alone does not end a "
                "paragraph."
            )
        different = set(found) - {"cr"}
        if different and different not in ({"lf"}, {"crlf"}):
            parts = [
                f"{_those(labels)} {NAMES[kind]}" for kind, labels in found.items() if kind != "cr"
            ]
            warn(f"Line ends differ: {'; '.join(parts)}. Make them one, such as with: tr -d '\\r'")


def _those(labels: list[str]) -> str:
    if len(labels) == 1:
        return f"{labels[0]} ends lines with"
    return f"{len(labels):,} files (the first is {labels[0]}) end lines with"


def _peeked(pieces: Iterator[str]) -> tuple[str, Iterator[str]]:
    """The first characters, as many wherever the pieces end, and all pieces again."""
    first: list[str] = []
    count = 0
    while count <= PEEK_CHARS and (piece := next(pieces, "")):
        first.append(piece)
        count += len(piece)
    return "".join(first)[: PEEK_CHARS + 1], chain(first, pieces)
