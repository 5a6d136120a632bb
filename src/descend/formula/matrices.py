"""The matrix words of a rule as routines: what each takes from memory and where it leaves its result."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from .nodes import Node, const, is_matrix, is_reduction, name, node, text, walk
from .rewrite import Rewriter, ShapeError
from .rule import Rule
from .scalars import ScalarProgram


@dataclass(frozen=True, eq=False)
class Routine:
    """One matrix word between two passes: `out <- op(arguments, numbers)`.

    `out` and the `arguments` name operands, an argument with whether it is transposed. `numbers` are the
    word's other arguments, computed on the host; with `repeats` the last of them is k, and the routine runs
    at the first step and every k steps after it; so does a word whose result only routines of the same k
    take.
    """

    op: str
    out: str
    arguments: tuple[tuple[str, bool], ...]
    numbers: ScalarProgram
    repeats: bool

    def __str__(self) -> str:
        given = [f"transpose({word})" if turned else word for word, turned in self.arguments]
        *numbers, last = map(text, self.numbers.row) if self.numbers.row else ("",)
        given += numbers if self.repeats or not last else [*numbers, last]
        when = f", every {last} steps" if self.repeats else ""
        return f"# on whole matrices{when}\n{self.out} <- {self.op}({', '.join(given)})"


class Matrices:
    """Every matrix word of a rule with these new values, and the operands between words and passes.

    `steps` are the words that run, arguments before the words that use them, each with its result's operand;
    `kept` the states that a word writes itself, every k steps, and `between` what some of them are otherwise,
    which a pass writes in every step; `materialised` what passes must write for the words; `temporaries` the
    operands that live only during a step, with their domains. `changed` are the names whose value is new;
    what words take of those in `apart` lies in a temporary.
    """

    def __init__(
        self,
        rule: Rule,
        rewrite: Rewriter,
        outputs: Mapping[str, Node],
        changed: Iterable[str],
        apart: Container[str],
    ) -> None:
        self._rule, self._rewrite, self._apart = rule, rewrite, apart
        self._new = {word: outputs[word] for word in changed}
        self.kept = _kept(self._new)
        self.between = {word: n.args[3] for word, n in self.kept.items() if n.args[3] != name(word)}
        self.steps: dict[Node, str] = {}
        self.materialised: dict[str, Node] = {}
        self.temporaries: dict[str, str] = {}
        self._held: dict[Node, str] = {}
        found = [n for n in walk(outputs.values()) if is_matrix(n) and n.op != "transpose"]
        repeated = {n.args[2] for n in found if n.op == "every"}
        repeated -= {*outputs.values()}  # these are wanted in every step, as is what another takes
        for n in walk(outputs.values()):
            repeated -= {a for i, a in enumerate(n.args) if (n.op, i) != ("every", 2)}
        for n in walk(outputs.values()):
            inside = [n.args[0]] if n.op == "transpose" else self.taken(n) if is_matrix(n) else []
            self._check_turned(a for a in n.args if a not in inside)
        self._check_turned(outputs.values())
        for n in found:
            self._check(n)
            if n not in repeated:
                self.steps[n] = self._out(n)
        for n in self.steps:
            for matrix in self.taken(n):
                self._hold(matrix)

    def taken(self, n: Node) -> list[Node]:
        """The matrices that a word takes, as they stand in the formula."""
        inner = n.args[2] if n.op == "every" else n
        return list(inner.args[: 2 if inner.op in ("matmul", "eigenbasis") else 1])

    def operand(self, matrix: Node) -> tuple[str, bool]:
        """Where an argument lies, and whether it is transposed there."""
        inner = untransposed(matrix)
        word = inner.word if inner.op == "name" else self.steps.get(inner) or self._held[inner]
        return word, matrix.op == "transpose"

    def word(self, n: Node) -> str:
        """What a step does: the word that `every` repeats, or its own."""
        return (n.args[2] if n.op == "every" else n).op

    def precedes(self, m: Node, n: Node) -> bool:
        """Whether m must be done before n: n takes m's result, or overwrites what m takes."""
        taken = set(map(untransposed, self.taken(m)))
        overwrites = self.steps[n] in self.kept and m != n
        return m in map(untransposed, self.taken(n)) or (
            overwrites and any(self.operand(x)[0] == self.steps[n] for x in taken - self.steps.keys())
        )

    def periods(self, needed: Container[Node]) -> dict[Node, Node]:
        """The k of every word that runs every k steps; passes take the results of those in `needed`."""
        found = {n: n.args[0] for n in self.steps if n.op == "every"}
        for n in reversed(self.steps):
            takers = {found.get(m) for m in self.steps if n in map(untransposed, self.taken(m))}
            if n not in found and n not in needed and len(takers) == 1:
                (k,) = takers
                found |= {n: k} if k is not None else {}
        return found

    def routine(self, n: Node, k: Node | None) -> Routine:
        """A word as what runs between two passes, every k steps where there is a k."""
        inner = n.args[2] if n.op == "every" else n
        numbers = [*inner.args[len(self.taken(n)) :], *([] if k is None else [k])]
        scalars = tuple(s.name for s in self._rule.states if s.scalar)
        given = ("t", *(h.name for h in self._rule.hypers), *self._rule.shape_words, *scalars)
        program = ScalarProgram(given, tuple(numbers), {})
        arguments = tuple(map(self.operand, self.taken(n)))
        return Routine(inner.op, self.steps[n], arguments, program, k is not None)

    def _check(self, n: Node) -> None:
        if self._rewrite.domain(n) == "turned":
            raise ShapeError(f"{n.op!r} makes a matrix of columns x rows; transpose the result instead", n)
        numbers = [n.args[0]] if n.op == "every" else n.args[len(self.taken(n)) :]
        if any(is_reduction(a) or self._rewrite.is_element(a) for number in numbers for a in walk([number])):
            what = "the k" if n.op == "every" else "every number"
            raise ShapeError(
                f"{what} of {n.op!r} is known before the step: made of hyper-parameters, scalar states and t",
                n,
            )
        if n.op != "every":
            return
        word = next((word for word, made in self.kept.items() if made == n), None)
        if n.args[1].op != "name" or n.args[1].word != "t":
            raise ShapeError("'every' counts steps: write every(k, t, …, old)", n)
        if not is_matrix(n.args[2]) or n.args[2].op in ("transpose", "every"):
            raise ShapeError("'every' repeats a matrix word: Q = every(k, t, eigenbasis(L, Q), Q)", n)
        if word is None and len(n.args) == _EVERY:
            raise ShapeError("what 'every' makes is kept in a state: Q = every(k, t, …, Q)", n)

    def _check_turned(self, wanted: Iterable[Node]) -> None:
        """Refuse what a pass, which has one place of a matrix at hand, would have to transpose."""
        for n in wanted:
            if n.op == "transpose":
                why = "'transpose' stands only inside another matrix word, as in matmul(transpose(x), y)"
                raise ShapeError(why, n)

    def _out(self, n: Node) -> str:
        for word, made in self.kept.items():
            if made == n:
                return word
        return self.temporary(n)

    def _hold(self, matrix: Node) -> None:
        """See that an argument lies in memory when the word runs."""
        inner = untransposed(matrix)
        if inner.op == "name" or inner in self.steps or inner in self._held:
            return
        if inner.op == "transpose":
            raise ShapeError("'transpose' of a transposed matrix is the matrix", inner)
        if self._rewrite.domain(inner) == "turned":
            raise ShapeError("a transposed matrix only stands directly inside matmul(…)", inner)
        plain = [(word, made) for word, made in self._new.items() if word not in self.kept]
        written = [item for item in [*plain, *self.between.items()] if item[0] not in self._apart]
        word = next((word for word, made in written if made == inner), None)
        if word is None:
            word = self.temporary(inner)
            self.materialised[word] = inner
        self._held[inner] = word

    @property
    def held_in_states(self) -> list[str]:
        """The states that words take the new value of."""
        return [word for word in self._held.values() if word in self._new]

    def temporary(self, n: Node) -> str:
        """A new operand that lives only during a step."""
        stem = self._rule.names.get(n, "w")
        taken = {"p", "g", *self.temporaries, *(s.name for s in self._rule.states)}
        word, k = stem, 1
        while word in taken or word == "w":
            word, k = f"{stem}_{k}", k + 1
        self.temporaries[word] = self._rewrite.domain(n)
        return word


_EVERY = 4
"""The arguments of `every`; without the last it is a word whose result nobody reads on the other steps."""


def by_passes(outputs: Mapping[str, Node], words: Container[str]) -> dict[str, Node]:
    """The outputs with a choice that passes make for each `every` that is the new value of one of `words`."""
    chosen = {n for word, n in outputs.items() if word in words}
    done: dict[Node, Node] = {}
    for n in walk(outputs.values()):
        done[n] = Node(n.op, tuple(done[a] for a in n.args), n.value)
        if n in chosen:
            k, t, new, old = done[n].args
            due = node("eq", node("mod", node("sub", t, const(1)), k), const(0))
            done[n] = node("where", due, node("every", k, t, new), old)
    return {word: done[n] for word, n in outputs.items()}


def _kept(new: Mapping[str, Node]) -> dict[str, Node]:
    """The state that each `every` writes; passes copy it to others of the same value.

    One that is itself between the words comes first: no pass has to write it.
    """
    found: dict[Node, str] = {}
    for word, n in new.items():
        if n.op == "every" and len(n.args) == _EVERY and (n not in found or n.args[3] == name(word)):
            found[n] = word
    return {word: n for n, word in found.items()}


def untransposed(matrix: Node) -> Node:
    """The matrix that an argument of a word is or is the transpose of."""
    return matrix.args[0] if matrix.op == "transpose" else matrix
