"""Renders passes that sum squares by column: eight rows at a time, which read memory side by side.

A tile leaves one number a column in float32. Where nothing else is to be done but to sum the same squares by
row, and others over the tensor, tiles do that too, a few vectors in float32 at a time; they take the elements
of the tensor as they lie, eight vectors beside one of each row. A chunk goes block by block: the columns'
sums of its tiles are added in float32 and then widened onto the chunk's strip.

Rows that fill no tile make one each. Where such sums, of at most fifteen roundings, are so large or so small
that float32 could lose something, the squares are formed in float64 instead, and so are those of the columns
that fill no vector.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ...formula.nodes import Node, text, walk
from .emit import LINE, SIZES, STORAGE, Lines
from .row import Row, steady
from .sweep import Operand, Sweep

TALL = 8
"""Rows of a tile."""

STRETCH = 8
"""Vectors of a row that are added before they are widened."""

BLOCK = 32
"""Rows whose squares are added by column before they are widened."""

PAGE = 4096
"""Bytes of memory in which a processor looks ahead in one place."""

_KEPT = ("strip", "part")
"""Where sums by column are kept: of the chunk, and of the block in float32."""


@dataclass(frozen=True)
class Tiles:
    """The function that adds up a block of one pass."""

    sweep: Sweep

    def __bool__(self) -> bool:
        return bool(self.sweep.sums.tiled)

    @cached_property
    def rows(self) -> list[tuple[int, Node, Node]]:
        """The sums by row: their number, what they sum, and what is squared there."""
        sums = self.sweep.sums
        return [(k, n, sums.squares[n]) for k, n in enumerate(sums.rows)] if sums.all_tiled else []

    @cached_property
    def tensor(self) -> list[tuple[int, Node, Node]]:
        """The sums over the tensor, likewise."""
        sums = self.sweep.sums
        return [(k, n, sums.squares[n]) for k, n in enumerate(sums.tensor)] if sums.all_tiled else []

    @cached_property
    def beside(self) -> set[Node]:
        """What is computed for the rows, side by side."""
        return {*walk(self.sweep.sums.tiled.values())}

    @cached_property
    def along(self) -> set[Node]:
        """What is computed of the tensor as it lies."""
        return {*walk(x for _, _, x in self.tensor)}

    def operands(self, wanted: set[Node]) -> list[Operand]:
        """What of memory is needed for some of it."""
        return [x for n, x in self.sweep.operands.items() if n in wanted]

    @property
    def _places(self) -> list[tuple[str, str, str]]:
        """Symbol, storage type and domain of every address that the function takes."""
        operands = self.operands(self.beside | self.along)
        found = [(x.symbol, x.dtype, x.domain) for x in operands]
        found += [(self.into(n), "float64", "rows") for _, n, _ in self.rows]
        return found + [(f"%{word}{k}", "float64", "strip") for k in self.sweep.sums.tiled for word in _KEPT]

    def into(self, n: Node) -> str:
        """Where a sum by row goes."""
        return self.sweep.vector(n).symbol

    def call(self, out: Lines, bases: dict[str, str], columns: str, first: str, count: str) -> None:
        """Add up so many rows from the first on; `bases` are the addresses of tensors and strips."""
        places = {"element": out.place(first, columns, 0), "rows": first, "columns": "0", "strip": "0"}
        given = [f"i64 {columns}", f"i64 {count}"]
        given += [f"ptr {out.at(STORAGE[dtype], bases[x], places[d])}" for x, dtype, d in self._places]
        out.do(f"call void @tiles{self.sweep.number}({', '.join(given)}, ptr %s, ptr %q, ptr %out)")

    def text(self, declared: dict[str, str]) -> str:
        """The function."""
        signature = "i64 %columns, i64 %rows, " + ", ".join(f"ptr noalias {x}" for x, _, _ in self._places)
        signature += ", ptr noalias readonly %s, ptr noalias readonly %q, ptr noalias %out"
        head = f"define internal void @tiles{self.sweep.number}({signature}) #0 {{"
        return "\n".join([head, *_Block(self, declared).lines(), "  ret void", "}"])


class _Block:
    """The lines of that function."""

    def __init__(self, tiles: Tiles, declared: dict[str, str]) -> None:
        self._tiles, self._sweep = tiles, tiles.sweep
        self._sums, self._lanes = tiles.sweep.sums, tiles.sweep.lanes
        self._out = Lines([], declared)
        self._scalars = steady(self._sweep, self._out)
        self._whole = self._out.emit(f"and i64 %columns, {-self._sweep.width}")

    def lines(self) -> list[str]:
        """All of it."""
        out, width = self._out, self._sweep.width
        eights = out.emit(f"and i64 %rows, {-TALL}")
        self._begin()
        for height, start, stop in ((TALL, "0", eights), (1, eights, "%rows")):
            with out.each(f"tall{height}", stop, start, height) as first:
                self._stretches(first, height)
        with out.each("widened", self._whole, step=width) as i:
            self._widen_columns(i)
        self._rest()
        self._rest_lying()
        return out.lines

    def _stretches(self, first: str, height: int) -> None:
        """A tile of so many rows, stretch by stretch."""
        out, width = self._out, self._sweep.width
        rows = [self._row(out.emit(f"add i64 {first}, {k}")) for k in range(height)]
        lying = out.emit(f"mul i64 {first}, {self._whole}")
        with out.each(f"stretch{height}", self._whole, step=STRETCH * width) as start:
            end = out.sooner(out.emit(f"add i64 {start}, {STRETCH * width}"), self._whole)
            self._blank(at for k, _, _ in self._tiles.rows for at in _row_sums(k))
            self._blank(_few(k) for k, _, _ in self._tiles.tensor)
            with out.each(f"beside{height}", end, start, width) as i:
                if height > 1:
                    self._fetch(first, i)
                self._tile([row.vector(i) for row in rows], i)
                place = out.emit(f"mul i64 {i}, {height}")
                self._lie(out.emit(f"add i64 {lying}, {place}"), height)
            self._widen_rows(first, start, end, height)
            begins, ends = (out.emit(f"mul i64 {x}, {height}") for x in (start, end))
            begins, ends = (out.emit(f"add i64 {lying}, {x}") for x in (begins, ends))
            self._widen_lying(begins, ends, height)

    def _begin(self) -> None:
        """Sums of nothing."""
        out, lanes = self._out, self._lanes
        for k, n, _ in self._tiles.rows:
            out.do(f"%sum{k} = alloca [{BLOCK} x {lanes.wide}]")
            out.do(f"%each{k} = alloca [{TALL} x {lanes.vector}]")
            out.do(*(f"{at} = alloca {lanes.vector}" for at in _row_sums(k)))
            with out.each(f"blank{k}", "%rows") as r:
                self._sums.blank(out, n, self._lanes_of(k, r))
        for k, n, _ in self._tiles.tensor:
            out.do(f"{_few(k)} = alloca {lanes.vector}", f"{_all(k)} = alloca {lanes.wide}")
            self._sums.blank(out, n, _all(k))

    def _blank(self, places: Iterable[str]) -> None:
        self._out.do(*(f"store {self._lanes.vector} zeroinitializer, ptr {at}" for at in places))

    def _fetch(self, first: str, i: str) -> None:
        """Ask for the tile below, line by line, where rows are short.

        Processors look ahead in one place of a page; the rows of a tile are eight places.
        """
        out, operands = self._out, self._tiles.operands(self._tiles.beside)
        for k, x in enumerate(operands):
            if x.domain != "element":
                continue
            size = SIZES[x.dtype]
            out.when(out.emit(f"icmp slt i64 %columns, {PAGE // size}"), f"short{k}", f"long{k}")
            below = out.emit(f"add i64 {first}, {TALL}")
            at = out.place(below, "%columns", out.emit(f"mul i64 {i}, {TALL}"))
            for line in range(0, TALL * self._sweep.width * size, LINE):
                self._lanes.fetch(out, out.at(STORAGE[x.dtype], x.symbol, at), line)
            out.label(f"long{k}")

    def _row(self, number: str) -> Row:
        """A row of the block."""
        out, operands = self._out, self._tiles.operands(self._tiles.beside)
        places = {"element": out.place(number, "%columns", 0), "rows": number, "columns": "0"}
        bases = {x.symbol: out.at(STORAGE[x.dtype], x.symbol, places[x.domain]) for x in operands}
        return Row(self._sweep, out, self._scalars, bases, wanted=self._tiles.beside)

    def _lying(self) -> Row:
        """The elements of the block as they lie."""
        bases = {x.symbol: x.symbol for x in self._tiles.operands(self._tiles.along)}
        return Row(self._sweep, self._out, self._scalars, bases, wanted=self._tiles.along)

    def _tile(self, rows: Sequence[dict[Node, str]], i: str) -> None:
        """Add a vector of each row: by column in pairs to what the tiles above have left."""
        out, lanes = self._out, self._lanes
        for k, n, x in self._tiles.rows:
            for at, values in zip(_row_sums(k), rows, strict=False):
                before, one = out.emit(f"load {lanes.vector}, ptr {at}"), lanes.value(x, values)
                after = lanes.operation(out, "fma", [one, one, before], text(n))
                out.do(f"store {lanes.vector} {after}, ptr {at}")
        for k, x in self._sums.tiled.items():
            at = out.at("float", f"%part{k}", i)
            both = [self._added([lanes.value(x, values) for values in rows])]
            both.append(lanes.load(out, at, "float32", None))
            added = lanes.operation(out, "add", both, text(self._sums.columns[k]))
            lanes.put(out, added, at, "float32", None)

    def _lie(self, place: str, count: int) -> None:
        """Add so many vectors of elements as they lie."""
        out, lanes = self._out, self._lanes
        if not self._tiles.tensor:
            return
        row = self._lying()
        places = [out.emit(f"add i64 {place}, {k * self._sweep.width}") for k in range(count)]
        vectors = [row.vector(at) for at in places]
        for k, n, x in self._tiles.tensor:
            both = [out.emit(f"load {lanes.vector}, ptr {_few(k)}")]
            both.append(self._added([lanes.value(x, values) for values in vectors]))
            out.do(f"store {lanes.vector} {lanes.operation(out, 'add', both, text(n))}, ptr {_few(k)}")

    def _added(self, factors: Sequence[str]) -> str:
        """The squares of eight vectors, added in pairs, or that of one."""
        out, lanes = self._out, self._lanes
        if len(factors) == 1:
            return lanes.operation(out, "mul", [factors[0], factors[0]])
        found = [
            lanes.operation(out, "fma", [b, b, lanes.operation(out, "mul", [a, a])])
            for a, b in zip(factors[::2], factors[1::2], strict=True)
        ]
        while len(found) > 1:
            found = [lanes.operation(out, "add", found[j : j + 2]) for j in range(0, len(found), 2)]
        return found[0]

    def _widen_rows(self, first: str, start: str, end: str, height: int) -> None:
        """What a stretch of the tile has left of every row, onto its lanes; or their squares one by one."""
        out, sums, lanes = self._out, self._sums, self._lanes
        for k, n, _ in self._tiles.rows:
            few = [out.emit(f"load {lanes.vector}, ptr {at}") for at in _row_sums(k)[:height]]
            name = f"{height}.{k}"
            out.when(lanes.is_usual(out, *few), f"rows{name}", f"apart{name}")
            for j, one in enumerate(few):
                sums.widen(out, one, self._lanes_of(k, out.emit(f"add i64 {first}, {j}")))
            out.do(f"br label %wide{name}")
            out.lines.append(f"apart{name}:")
            for j, one in enumerate(few):
                out.do(f"store {lanes.vector} {one}, ptr {out.at(lanes.vector, f'%each{k}', j)}")
            with out.each(f"single{name}", f"{height}") as place:
                r = out.emit(f"add i64 {first}, {place}")
                one = out.emit(f"load {lanes.vector}, ptr {out.at(lanes.vector, f'%each{k}', place)}")
                into = self._lanes_of(k, r)
                with sums.unless_usual(out, f".row{name}", one, into):
                    row = self._row(r)
                    with out.each(f"once{name}", end, start, self._sweep.width) as i:
                        sums.add_to(out, n, into, row.vector(i))
            out.label(f"wide{name}")

    def _widen_lying(self, start: str, end: str, height: int) -> None:
        """What has been left of the elements as they lie, in a stretch."""
        out, lanes = self._out, self._lanes
        for k, n, _ in self._tiles.tensor:
            few = out.emit(f"load {lanes.vector}, ptr {_few(k)}")
            with self._sums.unless_usual(out, f".lying{height}.{k}", few, _all(k)):
                row = self._lying()
                with out.each(f"lie{height}.{k}", end, start, self._sweep.width) as i:
                    self._sums.add_to(out, n, _all(k), row.vector(i))

    def _widen_columns(self, i: str) -> None:
        """What the block's tiles have left, onto the strip; or their squares one by one."""
        out, lanes = self._out, self._lanes
        for k in self._sums.tiled:
            part = out.at("float", f"%part{k}", i)
            few = lanes.load(out, part, "float32", None)
            lanes.put(out, lanes.constant(0), part, "float32", None)
            strip = out.at("double", f"%strip{k}", i)
            with (
                self._sums.unless_usual(out, f"{k}", few, strip),
                out.each(f"again{k}", "%rows") as r,
            ):
                self._sums.add_to_column(out, k, self._row(r).vector(i), i, None)

    def _rest(self) -> None:
        """The columns that fill no vector, and the rows' sums into their places."""
        out, whole = self._out, self._whole
        tail = out.emit(f"icmp ne i64 {whole}, %columns")
        every = "true" if self._tiles.rows else tail
        with out.each("left", out.emit(f"select i1 {every}, i64 %rows, i64 0")) as r:
            out.when(tail, "tail", "ended")
            mask = self._lanes.mask(out, whole, "%columns")
            self._add(self._row(r).vector(whole, mask), r, whole, mask)
            out.label("ended")
            for k, n, _ in self._tiles.rows:
                at = out.at("double", self._tiles.into(n), r)
                self._sums.deliver(out, n, self._lanes_of(k, r), at, "%columns")

    def _add(self, values: dict[Node, str], r: str, i: str, mask: str) -> None:
        """One vector of a row, in float64."""
        for k in self._sums.tiled:
            self._sums.add_to_column(self._out, k, values, i, mask)
        for k, n, _ in self._tiles.rows:
            self._sums.add_to(self._out, n, self._lanes_of(k, r), values, mask)

    def _rest_lying(self) -> None:
        """The elements behind those that went beside the tiles, and the block's sums onto the chunk's."""
        out, width = self._out, self._sweep.width
        if not self._tiles.tensor:
            return
        row = self._lying()
        start = out.emit(f"mul i64 %rows, {self._whole}")
        stop = out.emit("mul i64 %rows, %columns")
        over = out.emit(f"and i64 {out.emit(f'sub i64 {stop}, {start}')}, {width - 1}")
        full = out.emit(f"sub i64 {stop}, {over}")
        with out.each("behind", full, start, width) as i:
            self._add_lying(row.vector(i), None)
        mask = self._lanes.mask(out, full, stop)
        self._add_lying(row.vector(full, mask), mask)
        for k, n, _ in self._tiles.tensor:
            self._sums.add_chunk(out, n, _all(k), out.at("double", "%out", k))

    def _add_lying(self, values: dict[Node, str], mask: str | None) -> None:
        for k, n, _ in self._tiles.tensor:
            self._sums.add_to(self._out, n, _all(k), values, mask)

    def _lanes_of(self, k: int, r: str) -> str:
        """Where the lanes of a row's sum are kept."""
        return self._out.at(self._lanes.wide, f"%sum{k}", r)


def _row_sums(k: int) -> list[str]:
    """Where the sums of a tile's rows stand until they are widened."""
    return [f"%row{k}.{j}" for j in range(TALL)]


def _few(k: int) -> str:
    """Where a sum over the tensor stands until it is widened."""
    return f"%few{k}"


def _all(k: int) -> str:
    """Where the lanes of a sum over the tensor stand."""
    return f"%all{k}"
