"""The `tokenizer.json` of each unit, with which the `tokenizers` library gives the same ids.

Only files that charlm could have written are read: other files can have patterns that never finish
or values that crash the library.
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from charlm.commands import command
from charlm.config.class_path import resolve
from charlm.config.corpus import NORMAL_FORMS, WORD_RULES, VocabularySettings
from charlm.config.text_units import UNITS
from charlm.errors import RunError
from charlm.files.safe_read import parse_json, read_bytes

# Unicode White_Space without "\n"; spelt out because \s differs between regex engines.
BLANK = r"\t\x0B\f\r \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}"
LETTER = r"\p{L}\p{M}\p{N}_"
WORD = rf"[{LETTER}]+(?:['’][{LETTER}]+)*"
TEXT_WORDS = rf"\n|[{BLANK}]+|{WORD}|[^{LETTER}{BLANK}\n]"

UNK, EOS = 0, 1
UNK_TOKEN, EOS_TOKEN = "<unk>", "<eos>"
LINE_END = "\n"
UNKNOWN_TEXT = "\N{REPLACEMENT CHARACTER}"
_ONLY_UNK, _ONLY_EOS = rf"\A{UNK_TOKEN}\z", rf"\A{EOS_TOKEN}\z"
MAX_FILE = 64 << 20
"""Bytes of a tokenizer file: about a million entries."""


def _letters() -> list[str]:
    """Return GPT-2's letter for each byte: itself if printable, else one from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    spare = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


LETTERS = _letters()
"""Letters of byte-level tokens, by the value of the byte."""

Json = dict[str, Any]


def split(pattern: str, behavior: str) -> Json:
    """Return a pre-tokenizer that splits at a pattern; `behavior` says what becomes of a match."""
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": False}


def sequence(*steps: Json) -> Json:
    """Return a sequence of pre-tokenizers."""
    return {"type": "Sequence", "pretokenizers": list(steps)}


def byte_level(use_regex: bool) -> Json:
    """Return the pre-tokenizer that spells UTF-8 bytes in LETTERS, after a split into words."""
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


WORD_CUTS: dict[str, Json] = {
    "whitespace": sequence(split(r"\n", "Isolated"), split(rf"[{BLANK}]+", "Removed")),
    "text": split(TEXT_WORDS, "Isolated"),
    "bare": sequence(split(rf"[{BLANK}\n]+", "Removed"), split(TEXT_WORDS, "Isolated")),
}
"""Pre-tokenizers of words, by the setting `words`."""


def eos_token(settings: VocabularySettings) -> str:
    """Return the entry of EOS; for blank-separated words it is the line end."""
    by_blanks = UNITS[settings.unit].whole_words and settings.words == "whitespace"
    return LINE_END if by_blanks else EOS_TOKEN


def drops_blanks(settings: VocabularySettings) -> bool:
    """Return True if blanks between words are not tokens, so that decoded words need one."""
    return UNITS[settings.unit].whole_words and settings.words != "text"


def _normalizer(settings: VocabularySettings) -> Json | None:
    parts: list[Json] = []
    if settings.normalize != "none":
        parts.append({"type": settings.normalize.upper()})
    if settings.lowercase:
        parts.append({"type": "Lowercase"})
    return {"type": "Sequence", "normalizers": parts} if parts else None


def _model(settings: VocabularySettings, tokens: Sequence[str], merges: Sequence[Any]) -> Json:
    entries = {token: index for index, token in enumerate(tokens)}
    if not UNITS[settings.unit].byte_level:
        return {"type": "WordLevel", "vocab": entries, "unk_token": UNK_TOKEN}
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": entries,
        "merges": [list(pair) for pair in merges],
    }


def _replace(regex: str, content: str) -> Json:
    return {"type": "Replace", "pattern": {"Regex": regex}, "content": content}


def _decoder(settings: VocabularySettings) -> Json:
    """Return a decoder with the results of `Vocabulary.decode`.

    Without a decoder, a tokenizer puts a blank between any two tokens.
    """
    unknown = UNKNOWN_TEXT
    if UNITS[settings.unit].byte_level:
        unknown, end = _spelt(UNKNOWN_TEXT), _spelt(LINE_END)
        steps = [_replace(_ONLY_EOS, end), byte_level(use_regex=True)]
    elif drops_blanks(settings):
        # WordPiece puts a blank before each token but the first; no word begins with its prefix
        steps = [] if eos_token(settings) == LINE_END else [_replace(_ONLY_EOS, LINE_END)]
        steps += [{"type": "WordPiece", "prefix": " ", "cleanup": False}]
        steps += [{"type": "Fuse"}, _replace(" ?\n ?", LINE_END)]
    else:
        steps = [_replace(_ONLY_EOS, LINE_END), {"type": "Fuse"}]
    return {"type": "Sequence", "decoders": [_replace(_ONLY_UNK, unknown), *steps]}


def _spelt(text: str) -> str:
    return "".join(LETTERS[byte] for byte in text.encode("utf-8"))


def _frame(settings: VocabularySettings) -> Json:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": _normalizer(settings),
        "pre_tokenizer": _class(settings.unit).pre_tokenizer(settings),
        "post_processor": None,
        "decoder": _decoder(settings),
    }


def tokenizer_json(
    settings: VocabularySettings, tokens: Sequence[str], merges: Sequence[Any] = ()
) -> Json:
    """Return the content of `tokenizer.json` for tokens in the order of their ids."""
    return _frame(settings) | {"model": _model(settings, tokens, merges)}


def parse_tokenizer_json(
    content: Any, where: str
) -> tuple[VocabularySettings, list[str], list[tuple[str, str]]]:
    """Return the settings, tokens in order of their ids, and BPE merges of a tokenizer file.

    Raises RunError for content that charlm does not write.
    """
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise RunError(f"{where}: not a tokenizer file; expected the JSON that charlm vocab writes")
    settings = _recognise(content, where)
    tokens = _tokens(content["model"].get("vocab"), where)
    if tokens[:2] != [UNK_TOKEN, eos_token(settings)]:
        raise RunError(f"{where}: entries 0 and 1 are {tokens[:2]}; expected UNK and EOS")
    merges = _merges(content["model"].get("merges", []), where)
    valid = _class(settings.unit).can_hold(tokens[2:], merges)
    if not valid or content["model"] != _model(settings, tokens, merges):
        raise RunError(f"{where}: its model does not have the form that charlm writes")
    return settings, tokens, merges


def read_tokenizer_file(path: Path) -> Any:
    """Read the JSON of a tokenizer file. Raises RunError if it is missing or not JSON."""
    return parse_json(read_bytes(path, MAX_FILE), path)


def _recognise(content: Json, where: str) -> VocabularySettings:
    frame = {key: value for key, value in content.items() if key != "model"}
    forms = [
        (unit, words)
        for unit, spec in UNITS.items()
        for words in (WORD_RULES if "words" in spec.settings else ("text",))
    ]
    for (unit, words), normalize, lowercase in product(forms, NORMAL_FORMS, (False, True)):
        settings = VocabularySettings(
            unit=unit, words=words, normalize=normalize, lowercase=lowercase
        )
        known = _frame(settings)
        old_decoder = byte_level(use_regex=True) if UNITS[unit].byte_level else None
        if frame in (known, known | {"decoder": old_decoder}):  # older versions wrote the second
            return settings
    raise RunError(
        f"{where}: not a tokenizer that charlm wrote; make one with: "
        + command("vocab", "TEXT", "--out", "FILE")
    )


def _class(unit: str) -> Any:
    """Return the vocabulary class of a unit; its module imports this one."""
    return resolve(UNITS[unit].vocabulary)


def _tokens(vocab: Any, where: str) -> list[str]:
    if not isinstance(vocab, dict) or len(vocab) < 2:
        raise RunError(f"{where}: has no vocabulary; expected a table from token to id")
    tokens: list[str | None] = [None] * len(vocab)
    for token, index in vocab.items():
        valid = isinstance(index, int) and not isinstance(index, bool) and 0 <= index < len(tokens)
        if not valid or tokens[index] is not None:
            raise RunError(
                f"{where}: id {index!r} is invalid; expected 0 to {len(tokens) - 1} once"
            )
        tokens[index] = token
    return [token for token in tokens if token is not None]


def no_surrogates(tokens: Sequence[str]) -> bool:
    """Return True if no token has half of a surrogate pair, which is not valid in a text."""
    return not any("\ud800" <= letter <= "\udfff" for letter in "".join(tokens))


def _merges(merges: Any, where: str) -> list[tuple[str, str]]:
    if isinstance(merges, list) and all(
        isinstance(pair, list) and list(map(type, pair)) == [str, str] for pair in merges
    ):
        return [(left, right) for left, right in merges]
    raise RunError(f"{where}: its merges are damaged; expected pairs of strings")
