"""Proof that a grammar of `tales_grammar` gives no text two derivations."""

from __future__ import annotations

from itertools import combinations, pairwise

from tales_grammar import Atoms, Grammar, GrammarError, State, join


class Ambiguity:
    """Proof by traversal of the grammar that no text of `start` has two derivations.

    Read from the left, the characters ahead must always determine the next choice. For every state,
    any two alternatives must differ in some character (`_differ`). A shorter one may instead end in
    a letter where the longer one continues with a letter (`pear`, `pears`), provided that nothing
    that ends in a letter is followed by a letter (`_check_joints`). Then the derivation of each
    state, and so of the whole text, is determined. States common to both sides are skipped: by
    induction they have read the same text. A pair that is met again counts as different, because a
    shortest pair of equal texts would contain a shorter pair.
    """

    def __init__(self, grammar: Grammar, start: State) -> None:
        self.grammar = grammar
        self.states = grammar.reachable(start)
        self.firsts = self._edges(0)
        self.lasts = self._edges(-1)
        self._compared: set[tuple[Atoms, Atoms]] = set()

    def check(self) -> int:
        """Raise GrammarError at the first ambiguity; return the number of states checked."""
        for state in self.states:
            expansions = [atoms for _, atoms in self.grammar.expansions(state)]
            for atoms in expansions:
                self._check_joints(state, atoms)
            for one, other in combinations(expansions, 2):
                if not self._differ(one, other, frozenset()):
                    raise GrammarError(f"<{state.rule}> reads one text in two ways: {one}, {other}")
        return len(self.states)

    def _edges(self, end: int) -> dict[State, frozenset[str]]:
        """Return the possible first (end 0) or last (end -1) characters of each state."""
        edges = dict.fromkeys(self.states, frozenset[str]())
        changed = True
        while changed:
            changed = False
            for state in reversed(self.states):
                ends = [atoms[end] for _, atoms in self.grammar.expansions(state) if atoms]
                chars = frozenset[str]().union(*(_edge(atom, end, edges) for atom in ends))
                changed |= chars != edges[state]
                edges[state] = chars
        return edges

    def _check_joints(self, state: State, atoms: Atoms) -> None:
        if not atoms and len(self.grammar.expansions(state)) > 1:
            raise GrammarError(f"<{state.rule}> has an empty alternative; give it a closing mark")
        for left, right in pairwise(atoms):
            lasts, firsts = _edge(left, -1, self.lasts), _edge(right, 0, self.firsts)
            if isinstance(left, State) and _any_letter(lasts) and _any_letter(firsts):
                raise GrammarError(f"in <{state.rule}> a letter follows <{left.rule}>; part them")

    def _differ(self, one: Atoms, other: Atoms, before: frozenset[str]) -> bool:
        """Return whether no text of one sequence is a prefix of a text of the other."""
        one, other, before = self._skip(one, other, before)
        if not one or not other:
            rest = one or other
            after = _edge(rest[0], 0, self.firsts) if rest else frozenset("")
            return bool(rest) and _all_letters(before) and _all_letters(after)
        if isinstance(one[0], str) and isinstance(other[0], str):
            return True  # after _skip they differ in the first character
        if _edge(one[0], 0, self.firsts).isdisjoint(_edge(other[0], 0, self.firsts)):
            return True
        if (one, other) in self._compared:
            return True
        self._compared.add((one, other))
        if isinstance(one[0], str):
            one, other = other, one
        assert isinstance(one[0], State)
        ahead = _edge(other[0], 0, self.firsts)
        return all(
            self._differ(join((*a, *one[1:])), other, before)
            for _, a in self.grammar.expansions(one[0])
            if not (a and ahead.isdisjoint(_edge(a[0], 0, self.firsts)))
        )

    def _skip(
        self, one: Atoms, other: Atoms, before: frozenset[str]
    ) -> tuple[Atoms, Atoms, frozenset[str]]:
        """Drop the common beginning; `before` has the possible characters dropped last."""
        while one and other:
            a, b = one[0], other[0]
            if a == b:
                one, other, before = one[1:], other[1:], _edge(a, -1, self.lasts)
            elif isinstance(a, str) and isinstance(b, str) and a[0] == b[0]:
                one, other = join((a[1:], *one[1:])), join((b[1:], *other[1:]))
                before = frozenset(a[0])
            else:
                break
        return one, other, before


def _edge(atom: str | State, end: int, edges: dict[State, frozenset[str]]) -> frozenset[str]:
    return frozenset(atom[end]) if isinstance(atom, str) else edges[atom]


def _any_letter(chars: frozenset[str]) -> bool:
    return any(map(str.isalpha, chars))


def _all_letters(chars: frozenset[str]) -> bool:
    return bool(chars) and all(map(str.isalpha, chars))
