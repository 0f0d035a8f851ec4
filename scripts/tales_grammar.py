"""Probabilistic grammars with features: sampling and exact entropy.

A grammar is a text file (see `tales.grammar`). A rule gives a name one or more weighted
alternatives, and an alternative is text with these marks in it:

    <name>          a text of rule `name`
    <key:=name>     the same, and `{key}` stands for the generated text from here on
    {key}           the value of feature `key`
    (key=value ...) sets features for the rest of this alternative; a value may be {other}
    _ ~             a space, a line feed
    3: text         an alternative of weight 3 instead of 1

`rule[key=value] = a | b` applies if the feature has that value. Indented lines continue a rule, and
`#` begins a comment. Features are passed down to called rules, never back up.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

MARK = re.compile(
    r"\((?P<sets>[^)]*)\)|<(?P<key>\w+):=(?P<bound>\w+)>|<(?P<call>\w+)>|\{(?P<use>\w+)\}"
)
HEAD = re.compile(r"(?P<name>\w+)(\[(?P<when>[^\]]*)\])? = ")


class State(NamedTuple):
    """Rule with the values of all features on which it can depend.

    An echo repeats the text that the same state generated before, and costs no bits.
    """

    rule: str
    features: tuple[tuple[str, str | State], ...]
    echo: bool = False


Features = dict[str, str | State]
Atoms = tuple[str | State, ...]
Expansions = tuple[tuple[float, Atoms], ...]


class Tale(NamedTuple):
    """Generated text and its choices: (position of the first character affected, bits)."""

    text: str
    choices: list[tuple[int, float]]

    @property
    def bits(self) -> float:
        """Return -log2 of the probability of the text."""
        return math.fsum(bits for _, bits in self.choices)


class Expected(NamedTuple):
    """Expected bits and characters of the texts of a state; their ratio is the entropy rate."""

    bits: float
    chars: float


class GrammarError(ValueError):
    """Error of a grammar that is malformed, does not end, or derives one text in two ways."""


@dataclass(frozen=True)
class Alternative:
    """Weighted alternative of a rule: texts and marks in order."""

    weight: int
    marks: tuple[str | re.Match[str], ...]


@dataclass
class Variant:
    """Alternatives of a rule under a condition on the features."""

    when: Features
    alternatives: list[Alternative]


@dataclass
class Binding:
    """Rule made for `<key:=name>`: the rest of the alternative after the bound text."""

    key: str
    name: str
    marks: tuple[str | re.Match[str], ...]


@dataclass
class Form:
    """Expected bits and characters as a linear form in unsolved states (`calls`)."""

    bits: float = 0.0
    chars: float = 0.0
    calls: dict[State, float] = field(default_factory=dict)

    def add(self, other: Form, scale: float) -> None:
        """Add `scale` times another form."""
        self.bits += scale * other.bits
        self.chars += scale * other.chars
        for state, weight in other.calls.items():
            self.calls[state] = self.calls.get(state, 0.0) + scale * weight


class Grammar:
    """Rules of a grammar file.

    Everything is computed from one method: `expansions` of a state, its alternatives as
    (probability, sequence of texts and states).

    A `lifted` grammar does not distinguish the texts that `<key:=name>` can bind: `{key}` becomes
    an echo of the state that generated the text. Since no rule may depend on such a text,
    expectations stay exact, and the lifted grammar generates every text of the plain grammar with
    far fewer states. It is for `expected` and `tales_ambiguity`; sampling needs the plain grammar.
    """

    def __init__(self, source: str, *, lifted: bool = False) -> None:
        self.lifted = lifted
        self.variants: dict[str, list[Variant]] = {}
        self.bindings: dict[str, Binding] = {}
        for name, when, alternatives in _read_rules(source):
            variant = Variant(when, [self._desugar(name, a) for a in alternatives])
            self.variants.setdefault(name, []).append(variant)
        self.needs = self._needs()
        self._expansions: dict[State, Expansions] = {}
        self._forms: dict[State, Form] = {}

    @classmethod
    def from_file(cls, path: Path, *, lifted: bool = False) -> Grammar:
        """Read a grammar file."""
        return cls(path.read_text(encoding="ascii"), lifted=lifted)

    def start(self, rule: str) -> State:
        """Return the state of a rule that needs no features."""
        return self.state(rule, {})

    def state(self, rule: str, features: Features) -> State:
        """Return the state of a rule with the features on which it can depend."""
        if rule not in self.needs:
            raise GrammarError(f"no rule named {rule!r}; define it or correct the spelling")
        known = sorted(self.needs[rule] & features.keys())
        return State(rule, tuple((key, features[key]) for key in known))

    def expansions(self, state: State) -> Expansions:
        """Return the alternatives of a state: (probability, texts and states in order)."""
        if state not in self._expansions:
            expand = self._expand_binding if state.rule in self.bindings else self._expand_rule
            self._expansions[state] = expand(state.rule, dict(state.features))
        return self._expansions[state]

    def sample(self, state: State, random: Callable[[], float]) -> Tale:
        """Generate a text; `random` returns uniform numbers in [0, 1)."""
        pieces: list[str] = []
        choices: list[tuple[int, float]] = []
        position = 0
        stack: list[str | State] = [state]
        while stack:
            atom = stack.pop()
            if isinstance(atom, str):
                pieces.append(atom)
                position += len(atom)
                continue
            expansions = self.expansions(atom)
            probability, atoms = expansions[0]
            if len(expansions) > 1:
                probability, atoms = _choose(expansions, random())
                choices.append((position, -math.log2(probability)))
            stack.extend(reversed(atoms))
        return Tale("".join(pieces), choices)

    def expected(self, state: State) -> Expected:
        """Return the expected bits and characters of a state by recursion over the grammar.

        Bits are sums over choices and characters are sums over texts, so both solve linear
        equations, one per state. Each is eliminated when the recursion returns: if a state calls
        itself `c` times on average, its constant is divided by `1 - c`. Exact up to rounding.
        """
        form = self._form(state, set())
        return Expected(form.bits, form.chars)

    def reachable(self, state: State) -> list[State]:
        """Return all states that a derivation from `state` can reach, itself first."""
        reached = {state: None}
        queue = [state]
        while queue:
            for _, atoms in self.expansions(queue.pop()):
                new = [a for a in atoms if isinstance(a, State) and a not in reached]
                reached.update(dict.fromkeys(new))
                queue.extend(dict.fromkeys(new))
        return list(reached)

    def _form(self, state: State, active: set[State]) -> Form:
        if state in self._forms:
            return self._forms[state]
        if state in active:
            return Form(calls={state: 1.0})
        active.add(state)
        total = Form()
        for probability, atoms in self.expansions(state):
            total.add(Form(bits=0.0 if state.echo else -math.log2(probability)), probability)
            for atom in atoms:
                if isinstance(atom, str):
                    form = Form(chars=len(atom))
                else:
                    form = self._form(atom, active)
                total.add(form, probability)
        active.remove(state)
        return self._eliminate(state, total)

    def _eliminate(self, state: State, total: Form) -> Form:
        own = total.calls.pop(state, 0.0)
        if own >= 1.0:
            raise GrammarError(
                f"<{state.rule}> calls itself {own:g} times on average; expected less than 1"
            )
        solved = Form()
        solved.add(total, 1.0 / (1.0 - own))
        if not solved.calls:
            self._forms[state] = solved
        return solved

    def _expand_rule(self, rule: str, features: Features) -> Expansions:
        fitting = [v for v in self.variants[rule] if v.when.items() <= features.items()]
        if len(fitting) != 1:
            raise GrammarError(f"<{rule}> has {len(fitting)} variants for {features}; expected one")
        total = sum(a.weight for a in fitting[0].alternatives)
        return tuple(
            (a.weight / total, self._atoms(a.marks, features)) for a in fitting[0].alternatives
        )

    def _expand_binding(self, rule: str, features: Features) -> Expansions:
        binding = self.bindings[rule]
        bound = self.state(binding.name, features)
        if self.lifted:
            echo = bound._replace(echo=True)
            return ((1.0, (bound, *self._atoms(binding.marks, features | {binding.key: echo}))),)
        return tuple(
            (p, (text, *self._atoms(binding.marks, features | {binding.key: text})))
            for p, text in self._texts(bound)
        )

    def _texts(self, state: State) -> Iterator[tuple[float, str]]:
        """Yield all texts of a state with finitely many, and their probabilities."""
        for probability, atoms in self.expansions(state):
            texts = [(probability, "")]
            for atom in atoms:
                ends = [(1.0, atom)] if isinstance(atom, str) else list(self._texts(atom))
                texts = [(p * q, text + end) for p, text in texts for q, end in ends]
            yield from texts

    def _atoms(self, marks: tuple[str | re.Match[str], ...], features: Features) -> Atoms:
        """Return the texts and states of an alternative with its features filled in."""
        features = dict(features)
        atoms: list[str | State] = []
        for mark in marks:
            if isinstance(mark, str):
                atoms.append(mark)
            elif mark["call"]:
                atoms.append(self.state(mark["call"], features))
            elif mark["use"]:
                atoms.append(_value(mark["use"], features))
            else:
                features.update(_settings(mark["sets"], features))
        return join(atoms)

    def _desugar(self, name: str, alternative: Alternative) -> Alternative:
        """Move what follows `<key:=name>` into its own rule."""
        for i, mark in enumerate(alternative.marks):
            if isinstance(mark, re.Match) and mark["bound"]:
                rest = self._desugar(name, Alternative(1, alternative.marks[i + 1 :])).marks
                rule = f"{name}_{len(self.bindings)}"
                self.bindings[rule] = Binding(mark["key"], mark["bound"], rest)
                call = MARK.fullmatch(f"<{rule}>")
                assert call is not None
                return Alternative(alternative.weight, (*alternative.marks[:i], call))
        return alternative

    def _sequences(self) -> Iterator[tuple[str, set[str], tuple[str | re.Match[str], ...]]]:
        """Yield every alternative: its rule, the features known at its start, its marks."""
        for name, variants in self.variants.items():
            yield from ((name, set(), a.marks) for v in variants for a in v.alternatives)
        for name, binding in self.bindings.items():
            yield name, {binding.key}, binding.marks

    def _needs(self) -> dict[str, set[str]]:
        """Return the features on which each rule depends: those used before they are set."""
        needs = {n: {k for v in vs for k in v.when} for n, vs in self.variants.items()}
        needs |= {name: set() for name in self.bindings}
        calls = [(name, binding.name, frozenset[str]()) for name, binding in self.bindings.items()]
        for name, known, marks in self._sequences():
            for mark in (m for m in marks if isinstance(m, re.Match)):
                needs[name] |= set(re.findall(r"\{(\w+)\}", mark[0])) - known
                known |= set(re.findall(r"(\w+)=", mark["sets"] or ""))
                if mark["call"]:
                    calls.append((name, mark["call"], frozenset(known)))
        changed = True
        while changed:
            changed = False
            for name, called, already in calls:
                wider = needs[name] | (needs.get(called, set()) - already)
                changed |= wider != needs[name]
                needs[name] = wider
        return needs


def join(atoms: list[str | State] | Atoms) -> Atoms:
    """Join neighbouring texts and drop empty ones."""
    joined: list[str | State] = []
    for atom in atoms:
        if isinstance(atom, str) and joined and isinstance(joined[-1], str):
            joined[-1] += atom
        elif atom:
            joined.append(atom)
    return tuple(joined)


def _choose(expansions: Expansions, point: float) -> tuple[float, Atoms]:
    for expansion in expansions:
        if point < expansion[0]:
            return expansion
        point -= expansion[0]
    return expansions[-1]  # rounding: the probabilities may sum to less than 1


def _value(key: str, features: Features) -> str | State:
    if key not in features:
        raise GrammarError(f"feature {{{key}}} is used before it is set; known: {sorted(features)}")
    return features[key]


def _settings(text: str, features: Features) -> Features:
    pairs = (setting.split("=") for setting in text.split())
    return {k: _value(v[1:-1], features) if v.startswith("{") else v for k, v in pairs}


def _read_rules(source: str) -> Iterator[tuple[str, Features, list[Alternative]]]:
    lines = [line.partition("#")[0].rstrip() for line in source.splitlines()]
    joined = re.sub(r"\n\s+", " ", "\n".join(filter(None, lines)))
    for line in joined.splitlines():
        head = HEAD.match(line)
        if not head:
            raise GrammarError(f"expected 'rule = text', found {line[:40]!r}")
        alternatives = [_read_alternative(a.strip()) for a in line[head.end() :].split("|")]
        yield head["name"], _settings(head["when"] or "", {}), alternatives


def _read_alternative(text: str) -> Alternative:
    weight, colon, rest = text.partition(": ")
    if not (colon and weight.isdigit()):
        weight, rest = "1", text
    marks: list[str | re.Match[str]] = []
    end = 0
    rest = re.sub(r"^(\([^)]*\)) ", r"\1", rest).replace("_", " ").replace("~", "\n")
    for mark in MARK.finditer(rest):
        marks += [rest[end : mark.start()], mark]
        end = mark.end()
    return Alternative(int(weight), (*marks, rest[end:]))
