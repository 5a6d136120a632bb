"""Renders the sums of a pass: in float64, lane by lane, in an order that only the cut into chunks decides.

Turning float32 into float64 takes longer than squaring and adding, so squares of float32 are first added in
float32, by fours of a run of elements, or by eights of a column. Where the sum of these few is so large or so
small that float32 could lose something, their squares are formed in float64, where they are exact.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

from ...formula.nodes import Node, scope, text
from ...formula.program import Pass
from .emit import STORAGE, Lanes, Lines

FOUR = 4
"""How many vectors of squares are added before they are widened."""

EIGHT = 8
"""How many rows of squares are added by column before they are widened."""


@dataclass(frozen=True)
class Sums:
    """The sums of one pass.

    `scalars` are the values that are known before it; `into` the symbol of the place of a sum by row; `stays`
    the operands that have a value for every element and keep it.
    """

    one: Pass
    lanes: Lanes
    scalars: Collection[Node]
    into: dict[Node, str]
    stays: Collection[Node]

    @cached_property
    def tensor(self) -> list[Node]:
        """What is summed over a tensor, or over all."""
        return [n for n in self.one.reductions if scope(n) in ("tensor", "global")]

    @cached_property
    def rows(self) -> list[Node]:
        """What is summed by row."""
        return [n for n in self.one.reductions if scope(n) == "rows"]

    @cached_property
    def columns(self) -> list[Node]:
        """What is summed by column, in a strip of every chunk's own."""
        return [n for n in self.one.reductions if scope(n) == "columns"]

    @cached_property
    def by_fours(self) -> list[Node]:
        """The sums of squares that float32 adds by fours."""
        found = [n for n in self._lanewise if self.lanes.precision == "float32" and not _is_largest(n)]
        return [n for n in found if len(x := self._factors(n)) == 2 and x[0] == x[1]]

    @cached_property
    def by_eights(self) -> dict[int, Node]:
        """The sums by column of squares that float32 adds over a few rows: their place, what is squared.

        Only of what stays, for it is read again where float32 could lose something; rough sums may lose it.
        """
        if self.lanes.precision != "float32":
            return {}
        squares = {k: self._factors(n) for k, n in enumerate(self.columns) if not _is_largest(n)}
        alike = {k: x[0] for k, x in squares.items() if len(x) == 2 and x[0] == x[1]}
        return {k: x for k, x in alike.items() if x in self.stays or self.columns[k] in self.one.rough}

    @property
    def _lanewise(self) -> list[Node]:
        """What a run of elements adds up into one number."""
        return [*self.tensor, *self.rows]

    def _factors(self, reduction: Node) -> tuple[Node, ...]:
        """What is multiplied for a sum, or the one value that is summed."""
        n = self.one.reductions[reduction]
        return n.args if n.op == "mul" and n not in self.scalars else (n,)

    def start(self, out: Lines) -> None:
        """Before a run: sums of nothing."""
        wide = self.lanes.wide
        for k, n in enumerate(self._lanewise):
            start = f"<{', '.join([f'double {start_of(n)}'] * self.lanes.width)}>"
            out.lines += [f"  %sum{k} = alloca {wide}", f"  store {wide} {start}, ptr %sum{k}"]

    def add(
        self, out: Lines, values: dict[Node, str], index: str, mask: str | None, fours: bool = False
    ) -> None:
        """Add one vector of elements; with `fours`, only to what is not added by fours."""
        for k, n in enumerate(self._lanewise):
            if not (fours and n in self.by_fours):
                self._add(out, f"%sum{k}", n, values, mask)
        for k, n in enumerate(self.columns):
            if k in self.by_eights and mask is None:
                at = out.at("float", f"%part{k}", index)
                x, before = values[self.by_eights[k]], self.lanes.load(out, at, "float32", None)
                after = self.lanes.operation(out, "fma", [x, x, before], text(n))
                self.lanes.put(out, after, at, "float32", None)
            else:
                at = out.at("double", f"%strip{k}", index)
                self._add(out, at, n, values, mask, in_memory=True)

    def add_four(self, out: Lines, vectors: Sequence[dict[Node, str]]) -> None:
        """Add four vectors of elements to what is added by fours."""
        lanes, wide = self.lanes, self.lanes.wide
        for k, n in enumerate(self._lanewise):
            if n not in self.by_fours:
                continue
            a, b, c, d = (lanes.value(self._factors(n)[0], values) for values in vectors)
            pairs = [
                lanes.operation(out, "fma", [y, y, lanes.operation(out, "mul", [x, x])])
                for x, y in ((a, b), (c, d))
            ]
            four = lanes.operation(out, "add", pairs, text(n))
            out.when(lanes.is_usual(out, four), f"usual{k}", f"other{k}")
            before = out.emit(f"load {wide}, ptr %sum{k}")
            after = out.emit(f"fadd {wide} {before}, {lanes.widen(out, four)}")
            out.do(f"store {wide} {after}, ptr %sum{k}, align 8", f"br label %added{k}")
            out.lines.append(f"other{k}:")
            for values in vectors:
                self._add(out, f"%sum{k}", n, values, None)
            out.label(f"added{k}")

    def eights(self, number: int, dtypes: dict[Node, str], declared: dict[str, str]) -> str:
        """The function that adds what float32 has summed over a few rows to the strips of a chunk.

        `dtypes` are the storage types of what is squared, which begins at `%rows`.
        """
        out, lanes, sums = Lines([], declared), self.lanes, Lanes("float64", self.lanes.width)
        whole = out.emit(f"and i64 %columns, {-lanes.width}")
        signature = "i64 %columns, i64 %rows"
        for k, x in self.by_eights.items():
            n = self.columns[k]
            rough = n in self.one.rough
            signature += f", ptr %strip{k}, ptr %part{k}" + ("" if rough else f", ptr %rows{k}")
            with out.each(f"vector{k}", whole, step=lanes.width) as i:
                strip, part = out.at("double", f"%strip{k}", i), out.at("float", f"%part{k}", i)
                few = lanes.load(out, part, "float32", None)
                lanes.put(out, lanes.constant(0), part, "float32", None)
                if not rough:
                    out.when(lanes.is_usual(out, few), f"usual{k}", f"other{k}")
                before = sums.load(out, strip, "float64", None)
                after = sums.operation(out, "add", [before, lanes.widen(out, few)], text(n))
                sums.put(out, after, strip, "float64", None)
                if rough:
                    continue
                out.do(f"br label %added{k}")
                out.lines.append(f"other{k}:")
                with out.each(f"row{k}", "%rows") as row:
                    at = out.at(STORAGE[dtypes[x]], f"%rows{k}", out.place(row, "%columns", i))
                    self._add(out, strip, n, {x: lanes.load(out, at, dtypes[x], None)}, None, in_memory=True)
                out.label(f"added{k}")
        head = f"define internal void @eights{number}({signature}) #0 {{"
        return "\n".join([head, *out.lines, "  ret void", "}"])

    def _add(
        self,
        out: Lines,
        at: str,
        reduction: Node,
        values: dict[Node, str],
        mask: str | None,
        in_memory: bool = False,
    ) -> None:
        """Add one vector of elements to what stands at an address; a product is formed in float64."""
        lanes, wide = self.lanes, self.lanes.wide
        largest = _is_largest(reduction)
        factors = [lanes.widen(out, lanes.value(n, values)) for n in self._factors(reduction)]
        sums = Lanes("float64", lanes.width)
        before = sums.load(out, at, "float64", mask) if in_memory else out.emit(f"load {wide}, ptr {at}")
        if len(factors) == 2 and lanes.precision == "float32" and not largest:
            # in float64 the product of two float32 is exact, so the sum rounds once either way
            after = sums.operation(out, "fma", [*factors, before], text(reduction))
        else:
            value = factors[0] if len(factors) == 1 else sums.operation(out, "mul", factors)
            after = sums.operation(out, "maximum" if largest else "add", [before, value], text(reduction))
        if mask is not None and not in_memory:
            after = out.emit(f"select {lanes.truth} {mask}, {wide} {after}, {wide} {before}")
        sums.put(out, after, at, "float64", mask if in_memory else None)

    def finish(self, out: Lines) -> None:
        """After a run the lanes joined in pairs: a row's into its place, a tensor's onto its chunk's."""
        for k, n in enumerate(self._lanewise):
            self._finish(out, n, k)

    def _finish(self, out: Lines, reduction: Node, k: int) -> None:
        operation, width = "maximum" if _is_largest(reduction) else "add", self.lanes.width
        total = out.emit(f"load {self.lanes.wide}, ptr %sum{k}")
        while width > 1:
            kind, width = f"<{width} x double>", width // 2
            halves = []
            for half in (0, width):
                places = ", ".join(f"i32 {half + j}" for j in range(width))
                halves.append(
                    out.emit(f"shufflevector {kind} {total}, {kind} poison, <{width} x i32> <{places}>")
                )
            total = Lanes("float64", width).operation(out, operation, halves)
        one = Lanes("float64", 1)
        if reduction in self.into:
            at = self.into[reduction]
            if reduction.op.startswith("mean"):
                count = out.emit("uitofp i64 %n to double")
                count = out.emit(f"insertelement {one.vector} poison, double {count}, i64 0")
                total = one.operation(out, "div", [total, count])
        else:
            at = out.at("double", "%out", k)
            before = out.emit(f"load {one.vector}, ptr {at}")
            total = one.operation(out, operation, [before, total])
        out.do(f"store {one.vector} {total}, ptr {at}")


def _is_largest(reduction: Node) -> bool:
    return reduction.op.startswith("max")


def start_of(reduction: Node) -> str:
    """What a sum or maximum of nothing is."""
    return "0xFFF0000000000000" if _is_largest(reduction) else "0.0"


def add_up(out: Lines, reduction: Node, at: str, other: str, width: int = 1) -> None:
    """Add so many sums at one address to those at another."""
    lanes = Lanes("float64", width)
    given = [out.emit(f"load {lanes.vector}, ptr {place}, align 8") for place in (at, other)]
    total = lanes.operation(out, "maximum" if _is_largest(reduction) else "add", given)
    out.do(f"store {lanes.vector} {total}, ptr {at}, align 8")


def divide(out: Lines, at: str, count: str) -> None:
    """Divide a sum by a whole number: a mean."""
    total, number = out.load("double", at, 0), out.emit(f"uitofp i64 {count} to double")
    out.do(f"store double {out.emit(f'fdiv double {total}, {number}')}, ptr {at}")
