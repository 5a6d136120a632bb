"""Renders the sums of a pass: in float64, lane by lane, in an order that only the cut into chunks decides.

Turning float32 into float64 takes longer than squaring and adding, so squares of float32 are first added in
float32: along a run of elements by sixteens, which can all be had again; down a column by `tiles`. Where the
sum of these few is so large or so small that float32 could lose something, their squares are formed in
float64, where they are exact. Zeros and ones that a condition chooses are counted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from ...formula.nodes import Node, scope, text
from ...formula.program import Pass
from .emit import LINE, Lanes, Lines

FOUR = 4
"""How many vectors are read side by side, and how many such fours added up before they are widened."""

NEAR = FOUR * 16
"""How many vectors are done before those are summed, so that they are still in the nearest cache."""


@dataclass(frozen=True)
class Sums:
    """The sums of one pass.

    `scalars` are the values that are known before it; `again` what can be computed a second time, at little
    cost, and the domains that it differs by; `stored` what the cache has when it has been computed.
    """

    one: Pass
    lanes: Lanes
    scalars: Collection[Node]
    again: Mapping[Node, set[str]]
    stored: Collection[Node]

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
    def squares(self) -> dict[Node, Node]:
        """The sums of squares that float32 may add a few of first: what is squared."""
        if self.lanes.precision != "float32":
            return {}
        factors = {n: self._factors(n) for n in self.one.reductions if not _is_largest(n)}
        return {n: x[0] for n, x in factors.items() if len(x) == 2 and x[0] == x[1]}

    @cached_property
    def counts(self) -> dict[Node, bool]:
        """The sums of zeros and ones, which whole numbers count; whether a condition that holds is one."""
        values = {n: self.one.reductions[n] for n in self._lanewise if not _is_largest(n)}
        chosen = {n: tuple(a.value for a in x.args[1:]) for n, x in values.items() if x.op == "where"}
        return {n: ones == (1, 0) for n, ones in chosen.items() if ones in ((1, 0), (0, 1))}

    @cached_property
    def tiled(self) -> dict[int, Node]:
        """The sums by column that `tiles` take: their place, and what is squared."""
        squares = {k: self.squares[n] for k, n in enumerate(self.columns) if n in self.squares}
        return {k: x for k, x in squares.items() if x in self.again}

    @cached_property
    def all_tiled(self) -> bool:
        """Whether tiles take all that the pass does: also sums by row of the same, and over the tensor."""
        rows = [self.squares.get(n) for n in self.rows]
        lies = {x for x, differs in self.again.items() if differs <= {"element"}}
        return (
            bool(self.tiled)
            and len(self.tiled) == len(self.columns)
            and not self.one.written
            and all(x in self.tiled.values() for x in rows)
            and all(self.squares.get(n) in lies for n in self.tensor)
        )

    @cached_property
    def by_sixteens(self) -> list[Node]:
        """The sums of squares that float32 adds by sixteens."""
        return [n for n in self._lanewise if n in self.squares]

    @cached_property
    def _scratch(self) -> dict[Node, int]:
        """What of their factors is kept until it is summed, because nothing else does."""
        wanted = dict.fromkeys(self.squares[n] for n in self.by_sixteens)
        return {x: k for k, x in enumerate(x for x in wanted if x not in self.stored)}

    @cached_property
    def _lanewise(self) -> list[Node]:
        """What a run of elements adds up into one number."""
        return [] if self.all_tiled else [*self.tensor, *self.rows]

    def _factors(self, reduction: Node) -> tuple[Node, ...]:
        """What is multiplied for a sum, or the one value that is summed."""
        n = self.one.reductions[reduction]
        return n.args if n.op == "mul" and n not in self.scalars else (n,)

    def start(self, out: Lines) -> None:
        """Before a chunk: sums of nothing."""
        for k, n in enumerate(self._lanewise):
            out.do(f"%sum{k} = alloca {self.lanes.whole if n in self.counts else self._kept_as(n).vector}")
            if n in self.by_sixteens:
                out.do(*(f"{at} = alloca {self.lanes.vector}" for at in _four(k)))
            if n in self.tensor:
                self.blank(out, n, f"%sum{k}")
        for k in self._scratch.values():
            out.do(f"%kept{k} = alloca [{NEAR} x {self.lanes.vector}], align {LINE}")

    def keep(self, out: Lines, values: dict[Node, str], index: str) -> None:
        """Keep what is to be summed of a vector of elements, and nothing else has."""
        for x in self._scratch:
            value, at = self.lanes.value(x, values), self._place(out, x, index)
            out.do(f"store {self.lanes.vector} {value}, ptr {at}")

    def kept(self, out: Lines, x: Node, index: str) -> str:
        """A vector that was kept."""
        return out.emit(f"load {self.lanes.vector}, ptr {self._place(out, x, index)}")

    def _place(self, out: Lines, x: Node, index: str) -> str:
        within = out.emit(f"and i64 {index}, {NEAR * self.lanes.width - 1}")
        return out.at(self.lanes.scalar, f"%kept{self._scratch[x]}", within)

    def start_row(self, out: Lines) -> None:
        """Before a row of it: sums of nothing."""
        for k, n in enumerate(self._lanewise):
            if n in self.rows:
                self.blank(out, n, f"%sum{k}")

    def blank(self, out: Lines, n: Node, at: str) -> None:
        """A sum of nothing, lane by lane."""
        if n in self.counts:
            out.do(f"store {self.lanes.whole} zeroinitializer, ptr {at}")
            return
        kept = self._kept_as(n)
        start = ", ".join([f"{kept.scalar} {start_of(n)}"] * kept.width)
        out.do(f"store {kept.vector} <{start}>, ptr {at}")

    def _kept_as(self, n: Node) -> Lanes:
        """What the lanes of a sum are: float64; but the largest of some numbers is one of them."""
        one_of_them = _is_largest(n) and len(self._factors(n)) == 1
        return self.lanes if one_of_them else Lanes("float64", self.lanes.width)

    def add(
        self, out: Lines, values: dict[Node, str], index: str, mask: str | None, sixteens: bool = False
    ) -> None:
        """Add one vector of elements; with `sixteens`, only to what is not added by them."""
        for k, n in enumerate(self._lanewise):
            if n in self.counts:
                self._count(out, n, f"%sum{k}", values, mask)
            elif not (sixteens and n in self.by_sixteens):
                self.add_to(out, n, f"%sum{k}", values, mask)
        for k in range(len(self.columns)):
            if k not in self.tiled:
                self.add_to_column(out, k, values, index, mask)

    def add_to_column(
        self, out: Lines, k: int, values: dict[Node, str], index: str, mask: str | None
    ) -> None:
        """Add one vector of elements to a sum by column."""
        at = out.at("double", f"%strip{k}", index)
        self.add_to(out, self.columns[k], at, values, mask, in_memory=True)

    def start_fours(self, out: Lines) -> None:
        """Before some fours that are added before they are widened: sums of nothing."""
        zeros = f"{self.lanes.vector} zeroinitializer"
        for k, _ in self._fours():
            out.do(*(f"store {zeros}, ptr {at}" for at in _four(k)))

    def add_to_fours(self, out: Lines, vectors: Sequence[dict[Node, str]]) -> None:
        """Add four vectors of elements, each to the sum of its place."""
        lanes = self.lanes
        for k, n in self._fours():
            for at, values in zip(_four(k), vectors, strict=True):
                x = lanes.value(self.squares[n], values)
                before = out.emit(f"load {lanes.vector}, ptr {at}")
                after = lanes.operation(out, "fma", [x, x, before], text(n))
                out.do(f"store {lanes.vector} {after}, ptr {at}")

    def widen_fours(self, out: Lines) -> Iterator[tuple[Node, str]]:
        """Add each of these sums to its own, but where it is unusual: the caller adds to that place then."""
        lanes = self.lanes
        for k, n in self._fours():
            a, b, c, d = (out.emit(f"load {lanes.vector}, ptr {at}") for at in _four(k))
            pairs = [lanes.operation(out, "add", [x, y]) for x, y in ((a, b), (c, d))]
            with self.unless_usual(out, f"{k}", lanes.operation(out, "add", pairs), f"%sum{k}"):
                yield n, f"%sum{k}"

    def _fours(self) -> Iterator[tuple[int, Node]]:
        return ((k, n) for k, n in enumerate(self._lanewise) if n in self.by_sixteens)

    @contextmanager
    def unless_usual(self, out: Lines, name: str, few: str, at: str) -> Iterator[None]:
        """Add what float32 has added, or else what follows here does so in float64."""
        lanes, name = self.lanes, f"{name}.{out.count}"
        out.when(lanes.is_usual(out, few), f"usual{name}", f"other{name}")
        self.widen(out, few, at)
        out.do(f"br label %added{name}")
        out.lines.append(f"other{name}:")
        yield
        out.label(f"added{name}")

    def widen(self, out: Lines, few: str, at: str) -> None:
        """Add what float32 has added to what stands at an address."""
        wide = self.lanes.wide
        before = out.emit(f"load {wide}, ptr {at}, align 8")
        after = out.emit(f"fadd {wide} {before}, {self.lanes.widen(out, few)}")
        out.do(f"store {wide} {after}, ptr {at}, align 8")

    def add_to(
        self,
        out: Lines,
        reduction: Node,
        at: str,
        values: dict[Node, str],
        mask: str | None = None,
        in_memory: bool = False,
    ) -> None:
        """Add one vector of elements to what stands at an address; a product is formed in float64."""
        lanes = self.lanes
        largest = _is_largest(reduction)
        sums = Lanes("float64", lanes.width) if in_memory else self._kept_as(reduction)
        factors = [lanes.value(n, values) for n in self._factors(reduction)]
        if sums.precision != lanes.precision:
            factors = [lanes.widen(out, x) for x in factors]
        kind = sums.vector
        before = sums.load(out, at, "float64", mask) if in_memory else out.emit(f"load {kind}, ptr {at}")
        if len(factors) == 2 and lanes.precision == "float32" and not largest:
            # in float64 the product of two float32 is exact, so the sum rounds once either way
            after = sums.operation(out, "fma", [*factors, before], text(reduction))
        else:
            value = factors[0] if len(factors) == 1 else sums.operation(out, "mul", factors)
            after = sums.operation(out, _joins(reduction), [before, value], text(reduction))
        if mask is not None and not in_memory:
            after = out.emit(f"select {lanes.truth} {mask}, {kind} {after}, {kind} {before}")
        sums.put(out, after, at, sums.precision, mask if in_memory else None)

    def _count(self, out: Lines, n: Node, at: str, values: dict[Node, str], mask: str | None) -> None:
        """Count the ones of one vector of elements."""
        whole, truth = self.lanes.whole, self.lanes.truth
        one = self.lanes.value(self.one.reductions[n].args[0], values)
        if not self.counts[n]:
            one = out.emit(f"xor {truth} {one}, {self.lanes.true}")
        if mask is not None:
            one = out.emit(f"and {truth} {one}, {mask}")
        before = out.emit(f"load {whole}, ptr {at}")
        less = out.emit(f"sext {truth} {one} to {whole}", text(n))  # -1 for every one
        out.do(f"store {whole} {out.emit(f'sub {whole} {before}, {less}')}, ptr {at}")

    def finish_row(self, out: Lines, places: Mapping[Node, str]) -> None:
        """After a row: its lanes joined, each sum into its place."""
        for k, n in enumerate(self._lanewise):
            if n in self.rows:
                self.deliver(out, n, f"%sum{k}", places[n], "%n")

    def deliver(self, out: Lines, n: Node, lanes: str, at: str, count: str) -> None:
        """The sum by row whose lanes stand at an address, of so many elements, into its place."""
        total, one = self._joined(out, n, lanes), Lanes("float64", 1)
        if n.op.startswith("mean"):
            number = out.emit(f"uitofp i64 {count} to double")
            number = out.emit(f"insertelement {one.vector} poison, double {number}, i64 0")
            total = one.operation(out, "div", [total, number])
        out.do(f"store {one.vector} {total}, ptr {at}")

    def finish(self, out: Lines) -> None:
        """After a chunk: the lanes joined, each sum onto what the chunk has."""
        for k, n in enumerate(self.tensor):
            self.add_chunk(out, n, f"%sum{k}", out.at("double", "%out", k))

    def add_chunk(self, out: Lines, n: Node, lanes: str, at: str) -> None:
        """The sum over a tensor whose lanes stand at an address, onto what is at another."""
        one, total = Lanes("float64", 1), self._joined(out, n, lanes)
        total = one.operation(out, _joins(n), [out.emit(f"load {one.vector}, ptr {at}"), total])
        out.do(f"store {one.vector} {total}, ptr {at}")

    def _joined(self, out: Lines, n: Node, at: str) -> str:
        """The lanes of a sum in pairs, and pairs of pairs, to the last one, in float64."""
        kept, width = self._kept_as(n), self.lanes.width
        if n in self.counts:
            count = out.emit(f"load {self.lanes.whole}, ptr {at}")
            total = out.emit(f"sitofp {self.lanes.whole} {count} to {kept.vector}")
        else:
            total = out.emit(f"load {kept.vector}, ptr {at}")
        while width > 1:
            kind, width = Lanes(kept.precision, width).vector, width // 2
            halves = []
            for half in (0, width):
                places = ", ".join(f"i32 {half + j}" for j in range(width))
                halves.append(
                    out.emit(f"shufflevector {kind} {total}, {kind} poison, <{width} x i32> <{places}>")
                )
            total = Lanes(kept.precision, width).operation(out, _joins(n), halves)
        return Lanes(kept.precision, 1).widen(out, total)


def _four(k: int) -> list[str]:
    """Where a sum by sixteens stands until it is widened."""
    return [f"%four{k}.{j}" for j in range(FOUR)]


def _is_largest(reduction: Node) -> bool:
    return reduction.op.startswith("max")


def _joins(reduction: Node) -> str:
    """The operation between two parts of a sum or maximum."""
    return "maximum" if _is_largest(reduction) else "add"


def start_of(reduction: Node) -> str:
    """What a sum or maximum of nothing is."""
    return "0xFFF0000000000000" if _is_largest(reduction) else "0.0"


def add_up(out: Lines, reduction: Node, at: str, other: str, width: int = 1) -> None:
    """Add so many sums at one address to those at another."""
    lanes = Lanes("float64", width)
    given = [out.emit(f"load {lanes.vector}, ptr {place}, align 8") for place in (at, other)]
    total = lanes.operation(out, _joins(reduction), given)
    out.do(f"store {lanes.vector} {total}, ptr {at}, align 8")


def divide(out: Lines, at: str, count: str) -> None:
    """Divide a sum by a whole number: a mean."""
    total, number = out.load("double", at, 0), out.emit(f"uitofp i64 {count} to double")
    out.do(f"store double {out.emit(f'fdiv double {total}, {number}')}, ptr {at}")
