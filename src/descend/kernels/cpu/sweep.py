"""One pass of a staged program as the kernel sees it: what it touches in memory, its scalars and its sums."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ...formula.nodes import Node, name, scope
from ...formula.program import Pass, Program
from .compiler import divider_is_slow
from .emit import Lanes, compute_type
from .halves import Half, Halves, halves
from .sums import Sums

_LIGHT = frozenset(["add", "sub", "mul", "neg", "fma", "abs", "sign", "where", "minimum", "maximum"])
_LIGHT |= frozenset(["lt", "le", "gt", "ge", "eq", "ne"])
"""Operations that take less than fetching an element would."""


@dataclass(frozen=True)
class Operand:
    """Something in memory that a pass reads or writes, one address a tensor in a table of addresses."""

    symbol: str
    dtype: str
    domain: str
    table: str
    index: int


@dataclass(frozen=True)
class Sweep:
    """Pass `number` of a program, for one storage type per operand, `width` elements at a time."""

    program: Program
    dtypes: tuple[str, ...]
    width: int
    number: int = 0

    @property
    def one(self) -> Pass:
        """The pass."""
        return self.program.passes[self.number]

    @property
    def lanes(self) -> Lanes:
        """The vectors that it computes with."""
        return Lanes(compute_type(self.dtypes[0]), self.width, self._waits_for_divider)

    @cached_property
    def _waits_for_divider(self) -> bool:
        """Whether roots are sooner made of multiplications, beside all else that a vector asks for.

        In cycles of Intel's cores with AVX-512: the divider takes 12 for a root and 10 for a division; two
        other instructions begin in each, of which a root takes 14 and a sum up to 7. (On AMD's Zen 4 it takes
        10 and 6, and one begins.) Nothing is gained where both are near, and a root that is one for a row is
        better left where the compiler can take it out of the loop.
        """
        ops = [n.op for n in self.one.body]
        roots, divisions = ops.count("sqrt"), ops.count("div")
        others = len(ops) - roots - divisions + 7 * len(self.one.reductions)
        divided = max(others / 2, 12 * roots + 10 * divisions)
        multiplied = max((others + 14 * roots) / 2, 10 * divisions)
        sixteen = (compute_type(self.dtypes[0]), self.width) == ("float32", 16)
        return sixteen and divider_is_slow() and not self.is_matrix and multiplied < 0.8 * divided

    @cached_property
    def operands(self) -> dict[Node, Operand]:
        """What the pass touches: the program's operands, and sums by row or column of passes before it."""
        found: dict[Node, Operand] = {}
        for word in self.one.operands:
            k = self.program.operands.index(word)
            domain = self.program.domains[word]
            found[name(word)] = Operand(f"%of.{word}", self.dtypes[k], domain, "addresses", k)
        for n in self.one.vectors:
            found[n] = self.vector(n)
        return found

    def vector(self, n: Node) -> Operand:
        """Where sums by row or column lie."""
        k = self.program.vectors.index(n)
        return Operand(f"%vector{k}", "float64", scope(n), "vectors", k)

    @cached_property
    def past(self) -> frozenset[str]:
        """What the pass writes past the cache."""
        return self.program.past.intersection(self.one.written)

    @cached_property
    def sums(self) -> Sums:
        """The pass's sums."""
        return Sums(self.one, self.lanes, self.scalars, self._again, self.stored)

    @property
    def is_matrix(self) -> bool:
        """Whether it goes row by row."""
        return self.program.is_matrix(self.number)

    def changes(self, operand: Operand) -> bool:
        """Whether an operand has another value at every place of a row."""
        return operand.domain != "rows" or not self.is_matrix

    def is_steady(self, n: Node) -> bool:
        """Whether a value is at hand before the loop over a row."""
        return n in self.scalars or (n in self.operands and not self.changes(self.operands[n]))

    @cached_property
    def whole(self) -> Half:
        """All that is done with a vector."""
        return Half(frozenset([*self.operands, *self.one.body]), tuple(self.one.written), sums=True)

    @cached_property
    def halves(self) -> Halves | None:
        """What is begun of a vector before the one ahead is finished, where its work is cut in two."""
        along = [n for n in self.operands if not self.is_steady(n)]
        return halves(self.one, along, [*self.scalars, *(n for n in self.operands if self.is_steady(n))])

    @cached_property
    def stored(self) -> dict[Node, Node]:
        """What stands in the cache, to the last bit, when a vector has been computed: as which operand."""
        found = {n: n for n in self.operands if n.op == "name" and n.word not in self.one.written}
        for word, n in self.one.written.items():
            found[n] = name(word)
        found = {n: x for n, x in found.items() if x.word not in self.past}
        places = {n: self.operands[x] for n, x in found.items()}
        exact = ("element", self.lanes.precision)
        return {n: x for n, x in found.items() if (places[n].domain, places[n].dtype) == exact}

    @cached_property
    def _again(self) -> dict[Node, set[str]]:
        """What can be computed a second time at little cost for an element, and the domains it differs by."""
        found = {n: set[str]() for n in self.scalars if not n.is_condition}
        for n, operand in self.operands.items():
            if operand.table == "vectors" or n.word not in self.one.written:
                found[n] = {operand.domain}
        for n in self.one.body:
            if all(a in found or a.op == "const" for a in n.args):
                differs = {domain for a in n.args for domain in found.get(a, ())}
                if n.op in _LIGHT or differs in ({"rows"}, {"columns"}):
                    found[n] = differs
        return found

    @cached_property
    def scalars(self) -> dict[Node, tuple[str, int]]:
        """Where each scalar of the pass stands: in the first pass's row "s", or in its own row "q"."""
        summed = [n for value in self.one.reductions.values() for n in (value, *value.args)]
        used = {*(a for n in self.one.body for a in n.args), *self.one.written.values(), *summed}
        places = {n: ("q", k) for k, n in enumerate(self.one.scalars.late)} if self.number else {}
        places |= {n: ("s", k) for k, n in enumerate(self.program.scalars.row)}
        return {n: place for n, place in places.items() if n in used}
