"""The built-in corpus: files, entropy, unambiguity and grammar of the text."""

import hashlib
import json
import math
import random
import re
from collections import Counter
from itertools import product

import pytest

from make_corpus import CORPORA, GRAMMAR, entropy_rate, generate_tales, main, make_files
from tales_ambiguity import Ambiguity
from tales_grammar import Grammar, GrammarError

SMALL = {
    "agreement": """
tale = (s= is=is) The <noun> {is} <adj>.~ | 2: (s=s is=are) The <noun><where> {is} <adj>.~
where = _near <other> | _by <other>
other = (s=) the <noun>
noun = 3: pear{s} | pea{s} | egg{s}
adj = red | 4: old | odd
""",
    "echo": """
tale = (he=he) <name:=man> <rest> | 3: (he=she) <name:=woman> <rest>
man = Tom | 2: Al
woman = Ada | Tess | Bo
rest = saw {name}. | 2: hid, said {name}, for {he} is {name}!
""",
    "list": "tale = 3: x.~ | y,_<more>\nmore = 3: x.~ | z,_<tale>\n",
}
BOUNDS = {"agreement": 10, "echo": 10, "list": 60}
"""Nested choices that hold all but 1e-36 of the probability."""


def enumerate_texts(grammar, state, bound):
    """Return (text, probability) of every derivation of at most `bound` nested choices."""
    if isinstance(state, str):
        return [(state, 1.0)]
    if bound == 0:
        return []
    texts = []
    for probability, atoms in grammar.expansions(state):
        choices = [enumerate_texts(grammar, atom, bound - 1) for atom in atoms]
        for choice in product(*choices):
            weight = probability * math.prod(p for _, p in choice)
            texts.append(("".join(text for text, _ in choice), weight))
    return texts


@pytest.fixture(scope="module")
def tales():
    return generate_tales(1_000_000)


@pytest.fixture(scope="module")
def text():
    return (CORPORA / "tales.txt").read_text(encoding="ascii")


@pytest.fixture(scope="module")
def facts():
    return json.loads((CORPORA / "tales.json").read_text())


def test_the_script_writes_the_committed_files(tales):
    for name, content in make_files(tales).items():
        committed = (CORPORA / name).read_bytes()
        assert hashlib.sha256(committed).digest() == hashlib.sha256(content.encode()).digest(), name


def test_check_finds_a_changed_file(tmp_path, capsys):
    """--check is 0 after writing and 1, with one line, after a change."""
    options = ["--out", str(tmp_path), "--chars", "5000"]
    assert main(options) == 0
    assert main([*options, "--check"]) == 0
    (tmp_path / "tales.txt").write_text("Once\n")
    assert main([*options, "--check"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("lifted", [False, True])
def test_entropy_equals_enumeration(name, lifted):
    """So does the mean length."""
    grammar = Grammar(SMALL[name])
    texts = enumerate_texts(grammar, grammar.start("tale"), BOUNDS[name])
    assert len({text for text, _ in texts}) == len(texts)
    assert math.fsum(p for _, p in texts) == pytest.approx(1, abs=1e-12)
    other = Grammar(SMALL[name], lifted=lifted)
    expected = other.expected(other.start("tale"))
    entropy = math.fsum(-p * math.log2(p) for _, p in texts)
    assert expected.bits == pytest.approx(entropy, abs=1e-12)
    length = math.fsum(p * len(text) for text, p in texts)
    assert expected.chars == pytest.approx(length, abs=1e-12)


def test_entropy_of_trees():
    """x or [tree,tree] with probability 1/4: mean nodes solve n = 1 + 2n/4, so n = 2."""
    grammar = Grammar("tale = 3: x | <pair>\npair = [<tale>,<tale>]\n")
    expected = grammar.expected(grammar.start("tale"))
    choice = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert expected.bits == pytest.approx(2 * choice, abs=1e-12)
    assert expected.chars == pytest.approx(1.5 + 0.5 * 3, abs=1e-12)


def test_a_grammar_that_never_ends_is_refused():
    """A rule that calls itself once or more on average has no expected length."""
    grammar = Grammar("tale = x | [<tale>,<tale>]\n")
    with pytest.raises(GrammarError, match="calls itself 1 times"):
        grammar.expected(grammar.start("tale"))


@pytest.mark.parametrize(
    "source",
    [
        "tale = a b | a <noun>\nnoun = b | c\n",
        "tale = <end> | go~\nend = go~ | stop~\n",
        "tale = stop. | stop. go\n",
        "tale = <noun>s~ | <noun>~\nnoun = pea | peas\n",
        "tale = <noun> <adj>\nnoun = a | a b\nadj = b c | c\n",
    ],
)
def test_ambiguous_grammars_are_refused(source):
    """Two derivations of one text, a choice that ends early, or glued words are errors."""
    grammar = Grammar(source)
    with pytest.raises(GrammarError):
        Ambiguity(grammar, grammar.start("tale")).check()


def test_no_tale_has_two_derivations():
    grammar = Grammar.from_file(GRAMMAR, lifted=True)
    assert Ambiguity(grammar, grammar.start("tale")).check() > 1000


def test_tales_agree_with_the_exact_expectations(tales):
    """Mean bits and characters of a tale lie within 5 standard errors of the exact ones."""
    grammar = Grammar.from_file(GRAMMAR, lifted=True)
    expected = grammar.expected(grammar.start("tale"))
    for values, exact in (
        ([tale.bits for tale in tales], expected.bits),
        ([len(tale.text) for tale in tales], expected.chars),
    ):
        mean = math.fsum(values) / len(values)
        variance = math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
        assert abs(mean - exact) < 5 * math.sqrt(variance / len(values))


def test_choices_lie_inside_their_tale(tales):
    for tale in tales:
        positions = [position for position, _ in tale.choices]
        assert positions == sorted(positions)
        assert positions[-1] < len(tale.text)


def test_the_facts_in_the_json_file_follow_from_the_text(tales, text, facts):
    assert facts["chars"] == facts["bytes"] == len(text)
    assert facts["symbols"] == len(set(text))
    assert facts["tales"] == text.count("\n\n") == len(tales)
    assert facts["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert facts["entropy_bits_per_char"] == entropy_rate()
    split = int(len(text) * 0.9)
    early = late = start = 0
    for tale in tales:
        early += sum(bits for position, bits in tale.choices if start + position < split)
        late += sum(bits for position, bits in tale.choices if start + position >= split)
        start += len(tale.text)
    close = {"rel": 1e-9}
    assert facts["log_loss_bits_per_char"] == pytest.approx((early + late) / len(text), **close)
    first, last = "first_nine_tenths", "last_tenth"
    assert facts[f"log_loss_bits_per_char_{first}"] == pytest.approx(early / split, **close)
    assert facts[f"log_loss_bits_per_char_{last}"] == pytest.approx(
        late / (len(text) - split), **close
    )
    gap = abs(facts["log_loss_bits_per_char"] - facts["entropy_bits_per_char"])
    assert gap < 5 * facts["log_loss_standard_error"]


def test_every_word_is_common_enough_to_learn(text):
    words = re.findall("[A-Za-z]+", text)
    assert {word: count for word, count in Counter(words).items() if count < 40} == {}


def test_quotation_marks_close_on_their_line(text):
    for line in text.splitlines():
        assert line.count('"') % 2 == 0, line


def test_articles_and_numbers_agree(text):
    """a before consonants, an before vowels; singular and plural heads with their verbs."""
    assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]", text)
    heads = re.findall(
        r"\b(?:The|My|Your|Our) (?:[a-z]+ ){0,2}[a-z]*([a-z])"
        r" that (?:I|we|you|they|s?he|the \w+|[A-Z]\w+) (?:dug up|\w+) (was|is|were|are)\b",
        text,
    )
    assert len(heads) > 500
    assert all((last == "s") == (verb in ("were", "are")) for last, verb in heads)
    assert not re.search(r"\bThe \w+[^s\W] (were|are)\b|\b[Tt]hey was\b", text)
    assert "apple and pear salad" in text


def test_each_tale_keeps_its_hero(text):
    """One name of the 8 in a tale, and pronouns of one gender only."""
    for tale in text.split("\n\n")[:-1]:
        name = re.search(r"named (\w+)", tale)[1]
        shes = re.findall(r"\b(she|She|her)\b", tale)
        hes = re.findall(r"\b(he|He|his)\b", tale)
        assert not (shes and hes), tale
        assert not re.search(rf"\bnamed (?!{name})", tale)


def test_a_sample_depends_on_its_random_numbers_only():
    """Its probability is the product of its choices."""
    grammar = Grammar(SMALL["agreement"])
    texts = dict(enumerate_texts(grammar, grammar.start("tale"), 10))
    for seed in range(50):
        tale = grammar.sample(grammar.start("tale"), random.Random(seed).random)
        assert tale == grammar.sample(grammar.start("tale"), random.Random(seed).random)
        assert 2**-tale.bits == pytest.approx(texts[tale.text], rel=1e-12)
