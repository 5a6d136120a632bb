"""A pass, cut out of the expressions of a rule: what it reads, computes, writes and sums up."""

from __future__ import annotations

from dataclasses import dataclass, field

from .matrices import Matrices
from .nodes import Node, is_reduction
from .nodes import name as leaf
from .rewrite import Rewriter

ORDER = ("left", "right", "rows", "columns", "element")
"""Vectors before elements, where one pass could do either first: they are small."""


@dataclass
class Cut:
    """What a pass takes and makes, in the order in which it was met.

    `reads` are operands and `vectors` sums by row or column of passes before; `row` the scalars that `body`
    needs; `written` and `summed` say what is made of it, and `unless` when nobody wants that. `seen` is the
    body as it stands in the rule, `results` the matrix words whose results are taken, `old` their states that
    are read before those. `late` are states that were written too early, for their old value is wanted here,
    and the position where they may be.
    """

    reads: dict[str, None] = field(default_factory=dict)
    body: dict[Node, None] = field(default_factory=dict)
    row: dict[Node, None] = field(default_factory=dict)
    written: dict[str, Node] = field(default_factory=dict)
    summed: dict[Node, Node] = field(default_factory=dict)
    vectors: dict[Node, None] = field(default_factory=dict)
    late: dict[str, int] = field(default_factory=dict)
    results: set[Node] = field(default_factory=set)
    old: set[str] = field(default_factory=set)
    seen: dict[Node, None] = field(default_factory=dict)
    unless: Node | None = None


@dataclass(frozen=True)
class Cutter:
    """Knows the `new` value of every operand, and what it is one number of."""

    new: dict[str, Node]
    domains: dict[str, str]
    rewrite: Rewriter
    matrices: Matrices

    def cut(self, at: int, write_in: dict[str, int], reductions: dict[Node, int]) -> Cut:
        """What the pass at a position computes, given where each operand is written."""
        cut = Cut()
        written_before = {n: word for word, n in self.new.items() if write_in[word] < at}
        gone = {word for word in self.new if write_in[word] < at}

        def visit(n: Node) -> Node:
            if n in written_before:
                n = leaf(written_before[n])
                if n.word in self.matrices.kept:
                    cut.old.add(n.word)
                cut.reads.setdefault(n.word)
                return n
            if n in self.matrices.steps:
                cut.results.add(n)
                cut.reads.setdefault(self.matrices.steps[n])
                return leaf(self.matrices.steps[n])
            if not self.rewrite.is_element(n):
                if n.op != "const":
                    cut.row.setdefault(n)
                return n
            if is_reduction(n):
                cut.vectors.setdefault(n)
                return n
            if not n.args:
                if n.word in gone:  # written too early: in this pass, or in the next of its own domain
                    mine, width = ORDER.index(self.domains[n.word]), len(ORDER)
                    cut.late[n.word] = at if at % width == mine else width * (at // width + 1) + mine
                if n.word in self.matrices.kept:
                    cut.old.add(n.word)
                cut.reads.setdefault(n.word)
                return n
            made = Node(n.op, tuple(visit(a) for a in n.args), n.value)
            cut.body.setdefault(made)
            cut.seen.setdefault(n)
            return made

        cut.written = {word: visit(n) for word, n in self.new.items() if write_in[word] == at}
        cut.summed = {n: visit(self.rewrite(n.args[0])) for n, place in reductions.items() if place == at}
        cut.reads = {word: None for word in self.domains if word in cut.reads}
        return cut
