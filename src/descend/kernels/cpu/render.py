"""Renders one pass of a staged program as LLVM IR: a loop over vectors of elements, strict IEEE arithmetic.

No operation carries a fast-math flag; the only fused multiply-adds are those that staging wrote. The
remainder of a run of elements does the same operations under a mask, so an element's bits depend neither on
its place nor on how the work was cut. How sums are kept, `sums` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...formula.nodes import Node, name
from .compiler import prefetches_far
from .emit import STORAGE, Lines
from .row import Row, holds, steady
from .sums import FOUR
from .sweep import Sweep

AHEAD = 2048
"""Bytes ahead of the loop that are fetched already: dividing and rooting, the loop itself looks less far."""

_LAST = "i64 %n, ptr noalias readonly %s, ptr noalias readonly %q, ptr noalias %out"


@dataclass(frozen=True)
class Body:
    """The function that does the elements of a chunk: a run of them, or row by row of a matrix."""

    sweep: Sweep

    def call(
        self, out: Lines, bases: Mapping[str, str], element: str, count: str, row: str, rows: str
    ) -> None:
        """Call it for so many elements from these places on; of a matrix for so many rows of that length.

        `bases` are the addresses of what it reads and writes, by symbol.
        """
        sweep, given = self.sweep, list[str]()
        for symbol, dtype, domain in self._pointers:
            places = {"strip": "0", "rows": row, "columns": "0" if sweep.is_matrix else element}
            given.append(f"ptr {out.at(STORAGE[dtype], bases[symbol], places.get(domain, element))}")
        given += [f"i64 {element}"] if sweep.one.is_random else []
        given += [f"i64 {rows}"] if sweep.is_matrix else []
        out.do(
            f"call void @body{sweep.number}({', '.join([*given, f'i64 {count}'])}, ptr %s, ptr %q, ptr %out)"
        )

    @property
    def _pointers(self) -> list[tuple[str, str, str]]:
        """Symbol, storage type and domain of every address that it takes."""
        sweep, sums = self.sweep, self.sweep.sums
        found = [(x.symbol, x.dtype, x.domain) for x in sweep.operands.values()]
        found += [(sweep.vector(n).symbol, "float64", "rows") for n in sums.rows]
        strips = (k for k in range(len(sums.columns)) if k not in sums.tiled)
        return found + [(f"%strip{k}", "float64", "strip") for k in strips]

    def text(self, declared: dict[str, str]) -> str:
        """The function.

        Where what it does hangs on conditions that hold or do not for a whole tensor, as the nearer end of a
        weighted mean does, it is there twice: for all of them holding, which is usual, and for any others.
        """
        sweep = self.sweep
        signature = "".join(f"ptr noalias {symbol}, " for symbol, _, _ in self._pointers)
        signature += "i64 %first, " if sweep.one.is_random else ""
        signature += "i64 %rows, " if sweep.is_matrix else ""
        conditions = [k for n, k in sweep.scalars.items() if n.is_condition]
        if not conditions:
            head = f"define internal void @body{sweep.number}({signature}{_LAST}) #0 {{"
            return "\n".join([head, *self._chunk(declared), "  ret void", "}"])
        given = f"{signature}{_LAST}"
        head = f"define internal void @either{sweep.number}({given}, i1 %usual) alwaysinline #0 {{"
        lines = [head, *self._chunk(declared), "  ret void", "}", ""]
        out = Lines([], declared)
        usual = "true"
        for row, k in conditions:
            usual = out.emit(f"and i1 {usual}, {holds(out, out.load('double', f'%{row}', k))}")
        passed = given.replace(" noalias", "").replace(" readonly", "")
        out.when(usual, "usual", "other")
        out.do(f"call void @either{sweep.number}({passed}, i1 true)", "ret void")
        out.lines.append("other:")
        out.do(f"call void @either{sweep.number}({passed}, i1 false)", "ret void")
        return "\n".join(
            [*lines, f"define internal void @body{sweep.number}({given}) #0 {{", *out.lines, "}"]
        )

    def _chunk(self, declared: dict[str, str]) -> list[str]:
        """What is done with a chunk."""
        sweep, sums = self.sweep, self.sweep.sums
        out = Lines([], declared)
        scalars = steady(sweep, out)
        sums.start(out)
        if sweep.is_matrix:
            with out.each("row", "%rows") as r:
                place = out.emit(f"mul i64 {r}, %n")
                places = {"element": place, "rows": r, "columns": "0", "strip": "0"}
                bases = {
                    symbol: out.at(STORAGE[dtype], symbol, places[domain])
                    for symbol, dtype, domain in self._pointers
                }
                first = out.emit(f"add i64 %first, {place}") if sweep.one.is_random else ""
                sums.start_row(out)
                self._row(out, Row(sweep, out, scalars, bases, first))
                sums.finish_row(out, {n: bases[sweep.vector(n).symbol] for n in sums.rows})
        else:
            bases = {symbol: symbol for symbol, _, _ in self._pointers}
            self._row(out, Row(sweep, out, scalars, bases, "%first"))
        sums.finish(out)
        return out.lines

    def _row(self, out: Lines, row: Row) -> None:
        """One run of elements."""
        width = self.sweep.width
        done = self._fours(out, row) if self.sweep.sums.by_fours else "0"
        full = out.emit(f"and i64 %n, {-width}")
        with out.each("one", full, done, width) as i:
            self._elements(out, row, i, None)
        out.when(out.emit(f"icmp ne i64 {full}, %n"), "rest", "done")
        self._elements(out, row, full, self.sweep.lanes.mask(out, full, "%n"))
        out.label("done")

    def _fours(self, out: Lines, row: Row) -> str:
        """Four vectors of elements at a time, as far as that goes; where it ends.

        Where all can be had again, four fours are summed before they are widened. Where nothing is written,
        the four are read side by side, from the quarters of the run: a core looks ahead in each of them.
        """
        width, sums, written = self.sweep.width, self.sweep.sums, bool(self.sweep.one.written)
        done = out.emit(f"and i64 %n, {-FOUR * width}")
        stop, step, apart = done, FOUR * width, [f"{k * width}" for k in range(1, FOUR)]
        if not written:
            stop, step = out.emit(f"lshr i64 {done}, {FOUR.bit_length() - 1}"), width
            apart = [out.emit(f"mul i64 {stop}, {k}") for k in range(1, FOUR)]

        def places(i: str) -> list[str]:
            return [i, *(out.emit(f"add i64 {i}, {k}") for k in apart)]

        def four(i: str) -> list[dict[Node, str]]:
            return [self._elements(out, row, at, None, fours=True) for at in places(i)]

        if not sums.by_sixteens:
            with out.each("four", stop, step=step) as i:
                sums.add_four(out, four(i))
            return done
        with out.each("fours", stop, step=FOUR * step) as first:
            end = out.sooner(out.emit(f"add i64 {first}, {FOUR * step}"), stop)
            sums.start_fours(out)
            with out.each("four", end, first, step) as i:
                sums.add_to_fours(out, four(i))
            for k, (n, into) in enumerate(sums.widen_fours(out)):
                x = sums.squares[n]
                with out.each(f"again{k}", end, first, step) as i:
                    for at in places(i):
                        sums.add_to(out, n, into, {x: row.stored(x, at)} if written else row.vector(at))
        return done

    def _elements(
        self, out: Lines, row: Row, index: str, mask: str | None, fours: bool = False
    ) -> dict[Node, str]:
        """One vector of elements and its sums, with `fours` but those that are added by fours; all values."""
        sweep, lanes = self.sweep, self.sweep.lanes
        values, pointers = row.addressed(index, mask)
        for n, at in pointers.items():
            # columns are few and stay in the cache; what goes past it is not to be fetched
            near = sweep.operands[n].domain == "columns" or (n.op == "name" and n.word in sweep.past)
            if mask is None and not near and not prefetches_far():
                lanes.fetch(out, at, AHEAD)
        sweep.sums.add(out, values, index, mask, fours)
        for word, n in sweep.one.written.items():
            operand, past = sweep.operands[name(word)], word in sweep.past
            lanes.store(out, lanes.value(n, values), pointers[name(word)], operand.dtype, mask, past)
        return values
