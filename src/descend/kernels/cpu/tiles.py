"""Renders sums of squares by column, and of the same by row, in tiles of eight rows.

A tile leaves one number a column in float32, and one a row and lane every eight vectors. A chunk goes block
by block: the columns' sums of its tiles are added in float32 and then widened onto the chunk's strip. Where
such sums, of at most eight roundings, are so large or so small that float32 could lose something, the squares
are formed in float64 instead, and so are those of the rows and columns that fill no tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ...formula.nodes import Node, text, walk
from .emit import STORAGE, Lines
from .row import Row, steady
from .sweep import Operand, Sweep

EIGHT = 8
"""Rows of a tile, and vectors of a row that are added before they are widened."""

BLOCK = 32
"""Rows whose squares are added by column before they are widened."""


@dataclass(frozen=True)
class Tiles:
    """Those sums of one pass: a function of their own, which reads a block once more."""

    sweep: Sweep

    def __bool__(self) -> bool:
        return bool(self.sweep.sums.tiled)

    @cached_property
    def _wanted(self) -> set[Node]:
        """What is computed for them."""
        return {*walk(self.sweep.sums.tiled.values())}

    @cached_property
    def _operands(self) -> list[Operand]:
        return [x for n, x in self.sweep.operands.items() if n in self._wanted]

    @cached_property
    def _crossed(self) -> list[tuple[int, Node, Node]]:
        """The sums by row: their number, what they sum, and what is squared there."""
        return [(k, n, x) for k, (n, x) in enumerate(self.sweep.sums.crossed.items())]

    @property
    def _places(self) -> list[tuple[str, str, str]]:
        """Symbol, storage type and domain of every address that the function takes."""
        found = [(x.symbol, x.dtype, x.domain) for x in self._operands]
        found += [(self._into(n), "float64", "rows") for _, n, _ in self._crossed]
        return found + [(f"%{word}{k}", "float64", "strip") for k in self.sweep.sums.tiled for word in _KEPT]

    def _into(self, n: Node) -> str:
        return self.sweep.vector(n).symbol

    def call(self, out: Lines, bases: dict[str, str], columns: str, first: str, count: str) -> None:
        """Add up so many rows from the first on; `bases` are the addresses of tensors and strips."""
        places = {"element": out.place(first, columns, 0), "rows": first, "columns": "0", "strip": "0"}
        given = [f"i64 {columns}", f"i64 {count}"]
        given += [f"ptr {out.at(STORAGE[dtype], bases[x], places[d])}" for x, dtype, d in self._places]
        out.do(f"call void @tiles{self.sweep.number}({', '.join(given)}, ptr %s, ptr %q)")

    def text(self, declared: dict[str, str]) -> str:
        """The function that adds up a block."""
        out, width, lanes = Lines([], declared), self.sweep.width, self.sweep.lanes
        scalars = steady(self.sweep, out)
        eights, whole = out.emit(f"and i64 %rows, {-EIGHT}"), out.emit(f"and i64 %columns, {-width}")
        for k, n, _ in self._crossed:
            out.do(f"%sum{k} = alloca [{BLOCK} x {lanes.wide}], align 64")
            out.do(f"%few{k} = alloca [{EIGHT} x {lanes.vector}], align 64")
            out.do(*(f"{at} = alloca {lanes.vector}" for at in _row_sums(k)))
            with out.each(f"blank{k}", "%rows") as r:
                self.sweep.sums.blank(out, n, self._lanes_of(out, k, r))
        with out.each("tile", eights, step=EIGHT) as first:
            rows = [self._row(out, scalars, out.emit(f"add i64 {first}, {k}")) for k in range(EIGHT)]
            with out.each("stretch", whole, step=EIGHT * width) as start:
                end = out.sooner(out.emit(f"add i64 {start}, {EIGHT * width}"), whole)
                for k, _, _ in self._crossed:
                    out.do(*(f"store {lanes.vector} zeroinitializer, ptr {at}" for at in _row_sums(k)))
                with out.each("vector", end, start, width) as i:
                    self._tile(out, [row.vector(i) for row in rows], i)
                self._widen_rows(out, scalars, first, start, end)
        with out.each("widened", whole, step=width) as i:
            self._widen_columns(out, scalars, eights, i)
        self._rest(out, scalars, eights, whole)
        signature = "i64 %columns, i64 %rows, " + ", ".join(f"ptr noalias {x}" for x, _, _ in self._places)
        signature += ", ptr noalias readonly %s, ptr noalias readonly %q"
        head = f"define internal void @tiles{self.sweep.number}({signature}) #0 {{"
        return "\n".join([head, *out.lines, "  ret void", "}"])

    def _row(self, out: Lines, scalars: dict[Node, str], number: str) -> Row:
        """A row of the block."""
        places = {"element": out.place(number, "%columns", 0), "rows": number, "columns": "0"}
        bases = {x.symbol: out.at(STORAGE[x.dtype], x.symbol, places[x.domain]) for x in self._operands}
        return Row(self.sweep, out, scalars, bases, wanted=self._wanted)

    def _tile(self, out: Lines, rows: list[dict[Node, str]], i: str) -> None:
        """Add a vector of each of eight rows: by column in pairs to what the tiles above have left."""
        sums, lanes = self.sweep.sums, self.sweep.lanes
        for k, n, x in self._crossed:
            for at, values in zip(_row_sums(k), rows, strict=True):
                before, one = out.emit(f"load {lanes.vector}, ptr {at}"), lanes.value(x, values)
                after = lanes.operation(out, "fma", [one, one, before], text(n))
                out.do(f"store {lanes.vector} {after}, ptr {at}")
        for k, x in sums.tiled.items():
            factors = [lanes.value(x, values) for values in rows]
            found = [
                lanes.operation(out, "fma", [b, b, lanes.operation(out, "mul", [a, a])])
                for a, b in zip(factors[::2], factors[1::2], strict=True)
            ]
            while len(found) > 1:
                found = [lanes.operation(out, "add", found[j : j + 2]) for j in range(0, len(found), 2)]
            at = out.at("float", f"%part{k}", i)
            both = [*found, lanes.load(out, at, "float32", None)]
            lanes.put(out, lanes.operation(out, "add", both, text(sums.columns[k])), at, "float32", None)

    def _widen_rows(self, out: Lines, scalars: dict[Node, str], first: str, start: str, end: str) -> None:
        """What a stretch of the tile has left of every row, onto its lanes; or their squares one by one."""
        sums, lanes = self.sweep.sums, self.sweep.lanes
        for k, n, _ in self._crossed:
            few = [out.emit(f"load {lanes.vector}, ptr {at}") for at in _row_sums(k)]
            out.when(lanes.is_usual(out, *few), f"rows{k}", f"each{k}")
            for j, one in enumerate(few):
                sums.widen(out, one, self._lanes_of(out, k, out.emit(f"add i64 {first}, {j}")))
            out.do(f"br label %wide{k}")
            out.lines.append(f"each{k}:")
            for j, one in enumerate(few):
                out.do(f"store {lanes.vector} {one}, ptr {out.at(lanes.vector, f'%few{k}', j)}")
            with out.each(f"apart{k}", f"{EIGHT}") as place:
                r = out.emit(f"add i64 {first}, {place}")
                one = out.emit(f"load {lanes.vector}, ptr {out.at(lanes.vector, f'%few{k}', place)}")
                into = self._lanes_of(out, k, r)
                with sums.unless_usual(out, f".row{k}", one, into):
                    row = self._row(out, scalars, r)
                    with out.each(f"once{k}", end, start, self.sweep.width) as i:
                        sums.add_to(out, n, into, row.vector(i))
            out.label(f"wide{k}")

    def _widen_columns(self, out: Lines, scalars: dict[Node, str], eights: str, i: str) -> None:
        """What the block's tiles have left, onto the strip; or their squares one by one."""
        sums, lanes = self.sweep.sums, self.sweep.lanes
        for k in sums.tiled:
            part = out.at("float", f"%part{k}", i)
            few = lanes.load(out, part, "float32", None)
            lanes.put(out, lanes.constant(0), part, "float32", None)
            strip = out.at("double", f"%strip{k}", i)
            with sums.unless_usual(out, f"{k}", few, strip), out.each(f"again{k}", eights) as r:
                sums.add_to_column(out, k, self._row(out, scalars, r).vector(i), i, None)

    def _rest(self, out: Lines, scalars: dict[Node, str], eights: str, whole: str) -> None:
        """All that no tile has taken, and the rows' sums into their places."""
        sums, lanes, width = self.sweep.sums, self.sweep.lanes, self.sweep.width
        tail = out.emit(f"icmp ne i64 {whole}, %columns")
        every = "true" if self._crossed else tail
        with out.each("left", "%rows", out.emit(f"select i1 {every}, i64 0, i64 {eights}")) as r:
            row = self._row(out, scalars, r)
            tiled = out.emit(f"icmp slt i64 {r}, {eights}")
            with out.each("single", whole, out.emit(f"select i1 {tiled}, i64 {whole}, i64 0"), width) as i:
                self._add(out, row.vector(i), r, i, None)
            out.when(tail, "tail", "ended")
            mask = lanes.mask(out, whole, "%columns")
            self._add(out, row.vector(whole, mask), r, whole, mask)
            out.label("ended")
            for k, n, _ in self._crossed:
                sums.deliver(
                    out, n, self._lanes_of(out, k, r), out.at("double", self._into(n), r), "%columns"
                )

    def _add(self, out: Lines, values: dict[Node, str], r: str, i: str, mask: str | None) -> None:
        """One vector of a row, in float64."""
        for k in self.sweep.sums.tiled:
            self.sweep.sums.add_to_column(out, k, values, i, mask)
        for k, n, _ in self._crossed:
            self.sweep.sums.add_to(out, n, self._lanes_of(out, k, r), values, mask)

    def _lanes_of(self, out: Lines, k: int, r: str) -> str:
        """Where the lanes of a row's sum are kept."""
        return out.at(self.sweep.lanes.wide, f"%sum{k}", r)


_KEPT = ("strip", "part")
"""Where sums by column are kept: of the chunk, and of the block in float32."""


def _row_sums(k: int) -> list[str]:
    """Where the sums of a tile's rows stand until they are widened."""
    return [f"%row{k}.{j}" for j in range(EIGHT)]
