"""Staging: a rule's expressions, sorted by what each part depends on.

- hyper-parameters, `t` and scalar state only: a `ScalarProgram`, run on the host in float64 once per
  distinct (group, step, scalar state); what the elements need of it is a *row* of scalars;
- elements: the `body` of a `Pass`, straight-line code that reads and writes every element once;
- a sum or a maximum over a tensor, or over all tensors: the end of a pass. What follows from it is again a
  row of scalars, one for every tensor, and the elements that need it wait for the next pass.

Most rules are one pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property

from .nodes import Node, is_reduction, text, walk
from .nodes import name as leaf
from .rewrite import Rewriter
from .rule import Rule
from .scalars import ScalarProgram


@dataclass(frozen=True, eq=False)
class Pass:
    """One sweep over memory.

    `reads` are the operands it loads; `body` every element operation in order; `written` the operands that
    it changes, with their new values; `reductions` what it sums up for the passes after it, with the elements
    that are summed; `scalars` the host's part, which fills its row.
    """

    reads: tuple[str, ...]
    body: tuple[Node, ...]
    written: dict[str, Node]
    reductions: dict[Node, Node]
    scalars: ScalarProgram

    @cached_property
    def operands(self) -> tuple[str, ...]:
        """The operands that it touches, in the program's order."""
        return (*self.reads, *(word for word in self.written if word not in self.reads))

    @cached_property
    def row_index(self) -> dict[Node, int]:
        """Where in a row each scalar stands."""
        return {n: i for i, n in enumerate(self.scalars.row)}


@dataclass(frozen=True, eq=False)
class Program:
    """A staged rule: what the kernels run.

    `operands` are the per-element names, p and g first; `passes` the sweeps in order; `final` the scalar
    states that depend on a reduction; `labels` names for parts, the author's where they survive.
    """

    rule: Rule
    operands: tuple[str, ...]
    passes: tuple[Pass, ...]
    final: ScalarProgram
    labels: dict[Node, str]

    @property
    def scalars(self) -> ScalarProgram:
        """The host's part of the first pass."""
        return self.passes[0].scalars

    @property
    def bytes_moved(self) -> int:
        """Values read and written per element: what the step costs where memory is the limit."""
        return sum(len(one.reads) + len(one.written) for one in self.passes)

    def __str__(self) -> str:
        lines = []
        known = 0
        for k, one in enumerate(self.passes):
            several = f"pass {k + 1} of {len(self.passes)}: " if len(self.passes) > 1 else ""
            lines += [f"# {several}on the host, in float64", one.scalars.source, ""]
            writes = f"; writes {', '.join(one.written)}" if one.written else ""
            lines.append(f"# {several}per element, reads {', '.join(one.reads)}{writes}")
            names: dict[Node, str] = {n: f"s[{i}]" for n, i in one.row_index.items()}
            for n in one.body:
                lines.append(f"{self.labels[n]} = {text(n, names)}")
                names[n] = self.labels[n]
            lines += [f"{word} <- {text(n, names)}" for word, n in one.written.items()]
            for reduction, n in one.reductions.items():
                lines.append(f"r{known} <- {text(Node(reduction.op, (n,)), names)}")
                known += 1
            lines.append("")
        if self.final.states:
            lines += ["# after the last pass, on the host", self.final.source]
        return "\n".join(lines).rstrip()


@cache
def stage(rule: Rule) -> Program:
    """Sort the expressions of a rule into passes over the elements and the scalars between them.

    Raises FormulaError where the formula cannot be read.
    """
    return _Stager(rule).program()


class _Stager:
    """The work of `stage`, with what it needs to know of one rule at hand."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.scalar_states = [s.name for s in rule.states if s.scalar]
        self.operands = ("p", "g", *(s.name for s in rule.states if not s.scalar))
        self.outputs = rule.outputs
        kept_whole = frozenset(self.outputs.values()) if rule.reduces else frozenset()
        self.rewrite = Rewriter(frozenset(self.operands), kept_whole)
        for word in self.scalar_states:
            if self.rewrite.is_element(self.outputs[word]):
                why = f"{word!r} is one number for a whole parameter, but its new value differs by element"
                rule.formulas[-1].reading.source.refuse(None, why)
        changed = [word for word in self.operands if word in self.outputs]
        self.new = {word: self.rewrite(self.outputs[word]) for word in changed}
        self._levels: dict[Node, int] = {}

    def level(self, n: Node) -> int:
        """The first pass in which a value can be computed."""
        if n not in self._levels:
            below = max((self.level(a) for a in n.args), default=0)
            self._levels[n] = below + 1 if is_reduction(n) else below
        return self._levels[n]

    def program(self) -> Program:
        """All passes, with every state written as early as nothing later needs its old value."""
        scalar_roots = [self.outputs[word] for word in self.scalar_states]
        reductions = [n for n in walk([*self.new.values(), *scalar_roots]) if is_reduction(n)]
        last = [self.level(self.outputs[word]) for word in self.scalar_states]
        count = max(1 + max(self.level(n) for n in self.new.values()), *last, 1)
        write_in = {word: self.level(n) for word, n in self.new.items()}
        while True:
            cuts = [self._cut(k, write_in, reductions) for k in range(count)]
            late = {word: k for k, cut in enumerate(cuts) for word in cut.late}
            if not late:
                break
            write_in |= late
        labels = self._labels(n for cut in cuts for n in cut.body)
        arguments = ("t", *(h.name for h in self.rule.hypers), *self.scalar_states)
        early = {w: self.outputs[w] for w in self.scalar_states if self.level(self.outputs[w]) == 0}
        passes, known = [], tuple[Node, ...]()
        for k, cut in enumerate(cuts):
            states = early if k == 0 else {}
            scalars = ScalarProgram(arguments, tuple(cut.row), states, known)
            passes.append(Pass(tuple(cut.reads), tuple(cut.body), cut.written, cut.summed, scalars))
            known += tuple(cut.summed)
        rest = {w: self.outputs[w] for w in self.scalar_states if w not in early}
        final = ScalarProgram(arguments, (), rest, known)
        return Program(self.rule, self.operands, tuple(passes), final, labels)

    def _cut(self, k: int, write_in: dict[str, int], reductions: list[Node]) -> _Cut:
        """What pass `k` computes, given in which pass each operand is written."""
        cut = _Cut()
        written_before = {n: word for word, n in self.new.items() if write_in[word] < k and n.args}
        gone = {word for word in self.new if write_in[word] < k}

        def visit(n: Node) -> Node:
            if n in written_before:
                n = leaf(written_before[n])
                cut.reads.setdefault(n.word)
                return n
            if not self.rewrite.is_element(n):
                if n.op != "const":
                    cut.row.setdefault(n)
                return n
            if not n.args:
                if n.word in gone:
                    cut.late.add(n.word)
                cut.reads.setdefault(n.word)
                return n
            made = Node(n.op, tuple(visit(a) for a in n.args), n.value)
            cut.body.setdefault(made)
            return made

        cut.written = {word: visit(n) for word, n in self.new.items() if write_in[word] == k}
        for n in dict.fromkeys(reductions):
            if self.level(n) == k + 1:
                cut.summed[n] = visit(self.rewrite(n.args[0]))
        cut.reads = {word: None for word in self.operands if word in cut.reads}
        return cut

    def _labels(self, body: Iterable[Node]) -> dict[Node, str]:
        """A name for every operation: the author's, where the part survived rewriting."""
        known: dict[Node, str] = {}
        for given, word in self.rule.names.items():
            known.setdefault(self.rewrite(given), word)
        labels: dict[Node, str] = {}
        taken = set(self.operands)
        for n in body:
            stem, k = known.get(n, "x"), 1
            unique = stem if n in known and stem not in taken else f"{stem}_{k}"
            while unique in taken:
                k += 1
                unique = f"{stem}_{k}"
            if n not in labels:
                taken.add(unique)
                labels[n] = unique
        return labels


class _Cut:
    """A pass while it is being cut out of the expressions."""

    def __init__(self) -> None:
        self.reads: dict[str, None] = {}
        self.body: dict[Node, None] = {}
        self.row: dict[Node, None] = {}
        self.written: dict[str, Node] = {}
        self.summed: dict[Node, Node] = {}
        self.late: set[str] = set()
