"""Renders sums of squares by column in tiles of eight rows, which leave one number a column in float32.

Each chunk goes block by block: the sums of a block's tiles are added in float32 and then widened onto the
chunk's strip, at most eight roundings in all. Where they are so large or so small that float32 could lose
something, the block's squares are formed in float64 instead, and so are those of the rows and columns that
fill no tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ...formula.nodes import Node, text, walk
from .emit import STORAGE, Lanes, Lines
from .render import Operand, Renderer

EIGHT = 8
"""Rows of a tile."""

BLOCK = 32
"""Rows whose squares are added before they are widened."""


@dataclass(frozen=True)
class Tiles:
    """The sums by column of one pass that are taken so: a function of their own, which reads a block again."""

    one: Renderer

    def __bool__(self) -> bool:
        return bool(self.one.sums.tiled)

    @cached_property
    def _wanted(self) -> set[Node]:
        """What is computed for them."""
        return {*walk(self.one.sums.tiled.values())}

    @cached_property
    def _operands(self) -> list[Operand]:
        return [x for n, x in self.one.operands.items() if n in self._wanted]

    def call(self, out: Lines, bases: dict[str, str], columns: str, first: str, count: str) -> None:
        """Add up so many rows from the first on; `bases` are the addresses of tensors and strips."""
        places = {"element": out.place(first, columns, 0), "rows": first, "columns": "0"}
        given = [f"i64 {columns}", f"i64 {count}"]
        given += [f"ptr {out.at(STORAGE[x.dtype], bases[x.symbol], places[x.domain])}" for x in self._operands]
        given += [f"ptr {bases[symbol]}" for symbol in self._sums]
        out.do(f"call void @tiles{self.one.number}({', '.join(given)}, ptr %s, ptr %q)")

    @property
    def _sums(self) -> list[str]:
        return [f"%{word}{k}" for k in self.one.sums.tiled for word in ("strip", "part")]

    def text(self, declared: dict[str, str]) -> str:
        """The function that adds up a block."""
        out, width = Lines([], declared), self.one.width
        eights, whole = out.emit(f"and i64 %rows, {-EIGHT}"), out.emit(f"and i64 %columns, {-width}")
        with out.each("tile", eights, step=EIGHT) as first:
            rows = [_Row(self, out, out.emit(f"add i64 {first}, {k}")) for k in range(EIGHT)]
            with out.each("vector", whole, step=width) as i:
                self._tile(out, [row.values(i) for row in rows], i)
        with out.each("widened", whole, step=width) as i:
            self._widen(out, eights, i)
        tail = out.emit(f"icmp ne i64 {whole}, %columns")
        with out.each("left", "%rows", out.emit(f"select i1 {tail}, i64 0, i64 {eights}")) as r:
            self._left(out, r, eights, whole, tail)
        pointers = [x.symbol for x in self._operands] + self._sums
        signature = "i64 %columns, i64 %rows, " + ", ".join(f"ptr noalias {symbol}" for symbol in pointers)
        signature += ", ptr noalias readonly %s, ptr noalias readonly %q"
        head = f"define internal void @tiles{self.one.number}({signature}) #0 {{"
        return "\n".join([head, *out.lines, "  ret void", "}"])

    def _tile(self, out: Lines, rows: list[dict[Node, str]], i: str) -> None:
        """Add a vector of each of eight rows, in pairs, to what the tiles above have left."""
        sums, lanes = self.one.sums, self.one.lanes
        for k, x in sums.tiled.items():
            factors = [lanes.value(x, values) for values in rows]
            found = [
                lanes.operation(out, "fma", [b, b, lanes.operation(out, "mul", [a, a])])
                for a, b in zip(factors[::2], factors[1::2], strict=True)
            ]
            while len(found) > 1:
                found = [lanes.operation(out, "add", found[j : j + 2]) for j in range(0, len(found), 2)]
            at = out.at("float", f"%part{k}", i)
            after = lanes.operation(
                out, "add", [*found, lanes.load(out, at, "float32", None)], text(sums.columns[k])
            )
            lanes.put(out, after, at, "float32", None)

    def _widen(self, out: Lines, eights: str, i: str) -> None:
        """What the block's tiles have left, onto the strip; or their squares one by one."""
        sums, lanes = self.one.sums, self.one.lanes
        wide = Lanes("float64", lanes.width)
        for k in sums.tiled:
            part, strip = out.at("float", f"%part{k}", i), out.at("double", f"%strip{k}", i)
            few = lanes.load(out, part, "float32", None)
            lanes.put(out, lanes.constant(0), part, "float32", None)
            out.when(lanes.is_usual(out, few), f"usual{k}", f"other{k}")
            before = wide.load(out, strip, "float64", None)
            wide.put(out, wide.operation(out, "add", [before, lanes.widen(out, few)]), strip, "float64", None)
            out.do(f"br label %added{k}")
            out.lines.append(f"other{k}:")
            with out.each(f"again{k}", eights) as r:
                sums.add_to_column(out, k, _Row(self, out, r).values(i), i, None)
            out.label(f"added{k}")

    def _left(self, out: Lines, r: str, eights: str, whole: str, tail: str) -> None:
        """Of a row all that no tile has taken."""
        sums, width = self.one.sums, self.one.width
        row = _Row(self, out, r)
        tiled = out.emit(f"icmp slt i64 {r}, {eights}")
        with out.each("single", whole, out.emit(f"select i1 {tiled}, i64 {whole}, i64 0"), width) as i:
            values = row.values(i)
            for k in sums.tiled:
                sums.add_to_column(out, k, values, i, None)
        out.when(tail, "tail", "ended")
        mask = self.one.mask(out, whole, "%columns")
        values = row.values(whole, mask)
        for k in sums.tiled:
            sums.add_to_column(out, k, values, whole, mask)
        out.label("ended")


class _Row:
    """A row of the block, with what is one number for all of it at hand."""

    def __init__(self, tiles: Tiles, out: Lines, number: str) -> None:
        self._one, self._out, self._wanted = tiles.one, out, tiles._wanted
        places = {"element": out.place(number, "%columns", 0), "rows": number, "columns": "0"}
        self._bases = {
            x.symbol: out.at(STORAGE[x.dtype], x.symbol, places[x.domain]) for x in tiles._operands
        }
        self._leaves = tiles.one.leaves(out, self._bases)

    def values(self, index: str, mask: str | None = None) -> dict[Node, str]:
        """What is squared, and all that it is made of, of a vector of the row."""
        values, _ = self._one.evaluate(self._out, *self._leaves, index, mask, self._bases, self._wanted)
        return values
