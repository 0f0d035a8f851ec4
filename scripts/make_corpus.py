"""Write the built-in corpus, `corpora/tales.txt`, and the facts about it.

The grammar in `tales.grammar` generates the tales, so the probability of every character is known.
`corpora/tales.json` has the exact entropy rate of the grammar and its log-loss on the text, which
no language model can beat on average.

    python scripts/make_corpus.py            write tales.txt, tales.json and README.md
    python scripts/make_corpus.py --check    exit 1 if the existing files differ
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tales_grammar import Grammar, Tale

GRAMMAR = Path(__file__).with_name("tales.grammar")
CORPORA = Path(__file__).resolve().parent.parent / "corpora"
NAME = "tales"
SEED = 1
CHARS = 1_000_000

README = """\
# The built-in corpus

`tales.txt` holds {chars:,} characters of short tales with dialogue, in plain English and plain ASCII:
{tales:,} tales separated by blank lines. Nobody wrote them. A probabilistic grammar of our own,
`scripts/tales.grammar`, generates them, and `scripts/make_corpus.py` writes this folder from it, always
with the same result. Grammar, text and this page are under the MIT licence of the project.

| | |
|---|---|
| characters = bytes | {chars:,} |
| distinct symbols | {symbols} |
| tales | {tales:,} |
| SHA-256 of `tales.txt` | `{sha256}` |
| entropy rate of the source, exact | {entropy_bits_per_char:.4f} bits/char |
| log-loss of the grammar, whole text | {log_loss_bits_per_char:.4f} ± {log_loss_standard_error:.4f} bits/char |
| log-loss, first nine tenths | {log_loss_bits_per_char_first_nine_tenths:.4f} bits/char |
| log-loss, last tenth | {log_loss_bits_per_char_last_tenth:.4f} bits/char |

`tales.json` has the same figures. The last tenth starts at character int(0.9 × characters); training
holds it out by default.

## A yardstick

For most texts nobody knows how good a model could become. For this one it is known: each tale has
exactly one derivation, so its probability is the product of the grammar's choices. The entropy rate is
the expected number of bits of a tale, divided by its expected number of characters; both follow by
recursion over the grammar. The log-loss is -log2 of the probability of this very text, and each choice
counts at the character where it begins. No model can have a lower expected loss. The bits per character
of a model, minus the log-loss of the grammar on the same text, are its distance from perfect.

There is something to learn at every distance: spelling; "a" and "an"; number agreement across a clause
(the pears that the fox hid were red); the hero's name, occupation and pronoun, the companion and the
topic, for a whole tale; who says `my` and who says `her`; closing quotation marks.

## A tale

```text
{sample}```
"""  # noqa: E501 -- a row of a table cannot be broken


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Content of `tales.json`. Bits are log-losses of the grammar that generated the text."""

    name: str
    seed: int
    chars: int
    bytes: int
    symbols: int
    """Distinct characters."""
    sha256: str
    tales: int
    entropy_bits_per_char: float
    """Exact entropy rate of the grammar: expected bits over expected characters of a tale."""
    log_loss_bits_per_char: float
    log_loss_bits_per_char_first_nine_tenths: float
    log_loss_bits_per_char_last_tenth: float
    log_loss_standard_error: float
    """Standard error of the log-loss of the whole text, over tales."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or compare the files and return the exit status."""
    options = _parser().parse_args(arguments)
    files = make_files(generate_tales(options.chars))
    if options.check:
        return _check(files, options.out)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (options.out / name).write_bytes(text.encode())
    print(f"wrote {', '.join(files)} to {options.out}")
    return 0


def make_files(tales: Sequence[Tale]) -> dict[str, str]:
    """Return the content of each file by name."""
    facts = asdict(facts_of(tales))
    sample = next((t.text for t in tales if _is_showpiece(t.text)), tales[0].text)
    return {
        f"{NAME}.txt": "".join(tale.text for tale in tales),
        f"{NAME}.json": json.dumps(facts, indent=2, sort_keys=True) + "\n",
        "README.md": README.format(**facts, sample=sample.removesuffix("\n")),
    }


def generate_tales(chars: int) -> list[Tale]:
    """Generate tales from a fixed seed, at least `chars` characters in all.

    Only `Random.random` is used, since it alone is guaranteed to be the same in all Pythons.
    """
    grammar = Grammar.from_file(GRAMMAR)
    generator = random.Random(SEED)
    tales: list[Tale] = []
    count = 0
    while count < chars:
        tales.append(grammar.sample(grammar.start("tale"), generator.random))
        count += len(tales[-1].text)
    return tales


def facts_of(tales: Sequence[Tale]) -> Facts:
    """Return size, entropy and log-loss of the corpus of these tales."""
    text = "".join(tale.text for tale in tales)
    split = int(len(text) * 0.9)
    bits = math.fsum(tale.bits for tale in tales)
    late_bits = bits_from(tales, split)
    return Facts(
        name=NAME,
        seed=SEED,
        chars=len(text),
        bytes=len(text.encode()),
        symbols=len(set(text)),
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        tales=len(tales),
        entropy_bits_per_char=entropy_rate(),
        log_loss_bits_per_char=bits / len(text),
        log_loss_bits_per_char_first_nine_tenths=(bits - late_bits) / split,
        log_loss_bits_per_char_last_tenth=late_bits / (len(text) - split),
        log_loss_standard_error=standard_error(tales),
    )


def entropy_rate() -> float:
    """Return the exact entropy rate: expected bits over expected characters of a tale."""
    grammar = Grammar.from_file(GRAMMAR, lifted=True)
    expected = grammar.expected(grammar.start("tale"))
    return expected.bits / expected.chars


def bits_from(tales: Sequence[Tale], split: int) -> float:
    """Return the bits of the choices whose first character is at `split` or later."""
    late: list[float] = []
    start = 0
    for tale in tales:
        late += [bits for position, bits in tale.choices if start + position >= split]
        start += len(tale.text)
    return math.fsum(late)


def standard_error(tales: Sequence[Tale]) -> float:
    """Return the standard error of total bits over total characters; tales are independent."""
    chars = sum(len(tale.text) for tale in tales)
    rate = math.fsum(tale.bits for tale in tales) / chars
    squares = math.fsum((tale.bits - rate * len(tale.text)) ** 2 for tale in tales)
    count = len(tales)
    return math.sqrt(squares * count / max(count - 1, 1)) / chars


def _is_showpiece(text: str) -> bool:
    return "apple and pear" in text and '"Where' in text and 8 <= text.count("\n") <= 16


def _check(files: dict[str, str], folder: Path) -> int:
    for name, text in files.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != text.encode():
            print(
                f"{path} differs from what {Path(__file__).name} writes; run it again",
                file=sys.stderr,
            )
            return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Write the built-in corpus, corpora/tales.txt.")
    parser.add_argument("--out", type=Path, default=CORPORA, help="folder to write to")
    parser.add_argument("--chars", type=int, default=CHARS, help="minimum number of characters")
    parser.add_argument("--check", action="store_true", help="only compare; exit 1 if files differ")
    return parser


if __name__ == "__main__":
    sys.exit(main())
