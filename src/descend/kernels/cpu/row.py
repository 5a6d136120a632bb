"""A run of elements: what of it is one number at hand, and its vectors, computed as the formula says."""

from __future__ import annotations

from collections.abc import Container, Mapping

from ...formula.nodes import Node, is_random, text
from . import chance
from .emit import STORAGE, Lines
from .sweep import Sweep


def steady(sweep: Sweep, out: Lines) -> dict[Node, str]:
    """The scalars of a pass, in every lane."""
    lanes = sweep.lanes
    values: dict[Node, str] = {}
    for n, (row, k) in sweep.scalars.items():
        value = out.load("double", f"%{row}", k, f"{row}[{k}] = {text(n)}")
        if n.op == "key":
            values[n] = out.emit(f"fptoui double {value} to i64")
            continue
        if n.is_condition:
            # where %usual is true, it is for the compiler too, which then drops the other choice
            value = out.emit(f"or i1 %usual, {holds(out, value)}")
        elif lanes.precision == "float32":
            value = out.emit(f"fptrunc double {value} to float")
        values[n] = lanes.splat(out, value, "i1" if n.is_condition else lanes.scalar)
    return values


def holds(out: Lines, value: str) -> str:
    """Whether a condition holds, which stands among the scalars as a number."""
    return out.emit(f"fcmp une double {value}, 0.0")


class Row:
    """A row of a matrix, or a chunk of a tensor that is taken as it lies.

    `scalars` are from `steady`; `bases` the addresses of its operands, by symbol; `first` the place of its
    first element, for random numbers; `wanted` are the values that it computes, where not all.
    """

    def __init__(
        self,
        sweep: Sweep,
        out: Lines,
        scalars: Mapping[Node, str],
        bases: Mapping[str, str],
        first: str = "",
        wanted: Container[Node] | None = None,
    ) -> None:
        self._sweep, self._out = sweep, out
        self._bases, self._first, self._wanted = bases, first, wanted
        self._given = [(n, x) for n, x in sweep.operands.items() if x.symbol in bases]
        self._leaves = dict(scalars)
        for n, x in self._given:
            if not sweep.changes(x):
                self._leaves[n] = sweep.lanes.load_one(out, bases[x.symbol], x.dtype)
        bounds = (b for b in map(self._bound, sweep.one.body) if b in self._leaves)
        self._nan_bits = {b: sweep.lanes.nan_bits(out, self._leaves[b]) for b in bounds}

    def vector(self, index: str, mask: str | None = None) -> dict[Node, str]:
        """All values of one vector of elements."""
        return self.addressed(index, mask)[0]

    def stored(self, n: Node, index: str) -> str:
        """A vector of a value that stands in memory."""
        operand = self._sweep.operands[self._sweep.stored[n]]
        at = self._out.at(STORAGE[operand.dtype], self._bases[operand.symbol], index)
        return self._sweep.lanes.load(self._out, at, operand.dtype, None)

    def addressed(
        self,
        index: str,
        mask: str | None,
        among: Container[Node] | None = None,
        begun: Mapping[Node, str] | None = None,
    ) -> tuple[dict[Node, str], dict[Node, str]]:
        """All values of one vector of elements, and where its operands lie.

        Or only those `among` some, where others that they need have been `begun`.
        """
        out, sweep, lanes = self._out, self._sweep, self._sweep.lanes
        values = {**self._leaves, **(begun or {})}
        pointers: dict[Node, str] = {}
        for n, operand in self._given:
            if n in self._leaves:
                continue
            pointers[n] = out.at(STORAGE[operand.dtype], self._bases[operand.symbol], index)
            wanted = n not in values and (among is None or n in among)
            if wanted and (operand.table == "vectors" or n.word in sweep.one.reads):
                values[n] = lanes.load(out, pointers[n], operand.dtype, mask)
        labels = {n: f"{row}[{k}]" for n, (row, k) in sweep.scalars.items()}
        for n in sweep.one.body:
            if any(some is not None and n not in some for some in (self._wanted, among)):
                continue
            values[n] = self._operation(n, values, index, f"{sweep.program.labels[n]} = {text(n, labels)}")
            labels[n] = sweep.program.labels[n]
        return values, pointers

    def _operation(self, n: Node, values: dict[Node, str], index: str, note: str) -> str:
        out, lanes = self._out, self._sweep.lanes
        if is_random(n):
            place = out.emit(f"add i64 {self._first}, {index}")
            keyed = (out, lanes, values[n.args[0]])
            if n.op == "normal":
                return chance.normal(*keyed, place, note)
            return chance.uniform(*keyed, 0, place, note)
        given = [lanes.value(a, values) for a in n.args]
        bound = self._bound(n)
        if bound is None:
            return lanes.operation(out, n.op, given, note)
        x, limit = given[1 - n.args.index(bound)], lanes.value(bound, values)
        return lanes.bounded(out, n.op, limit, x, self._nan_bits.get(bound), note)

    def _bound(self, n: Node) -> Node | None:
        """The argument of a minimum or maximum that does not change along a row."""
        if n.op not in ("minimum", "maximum"):
            return None
        return next((a for a in n.args if a.op == "const" or self._sweep.is_steady(a)), None)
