"""Renders one pass of a staged program as LLVM IR: a loop over vectors of elements, strict IEEE arithmetic.

No operation carries a fast-math flag; the only fused multiply-adds are those that staging wrote. The
remainder of a run of elements does the same operations under a mask, so an element's bits depend neither on
its place nor on how the work was cut. How sums are kept, `sums` says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from ...formula.nodes import Node, name
from .compiler import prefetches_far
from .emit import STORAGE, Lines
from .halves import Half
from .row import Row, holds, steady
from .sums import FOUR, NEAR
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
        width, done = self.sweep.width, "0"
        full = out.emit(f"and i64 %n, {-width}")
        if self.sweep.sums.by_sixteens:
            done = self._sixteens(out, row)
            with out.each("one", full, done, width) as i:
                self._elements(out, row, i, None)
        else:
            self._vectors(out, row, "0", full)
        out.when(out.emit(f"icmp ne i64 {full}, %n"), "rest", "done")
        self._elements(out, row, full, self.sweep.lanes.mask(out, full, "%n"))
        out.label("done")

    def _sixteens(self, out: Lines, row: Row) -> str:
        """A run, as far as fours of vectors go, with the sums that are added by sixteens; where it ends.

        Where much is done, that comes first, for a few fours at a time, and leaves in the nearest cache what
        is to be summed. Where little is, the four are read side by side, from the quarters of the run: a core
        looks ahead in each of them.
        """
        sweep, width = self.sweep, self.sweep.width
        done, step = out.emit(f"and i64 %n, {-FOUR * width}"), FOUR * width
        if sweep.one.written or sweep.halves:
            kept = partial(self._kept, out, row)
            with out.each("near", done, step=NEAR * width) as first:
                end = out.sooner(out.emit(f"add i64 {first}, {NEAR * width}"), done)
                self._vectors(out, row, first, end)
                self._fours(out, (first, end, step), [f"{k * width}" for k in range(1, FOUR)], kept, kept)
            return done
        quarter = out.emit(f"lshr i64 {done}, {FOUR.bit_length() - 1}")
        apart = [out.emit(f"mul i64 {quarter}, {k}") for k in range(1, FOUR)]
        take = partial(self._elements, out, row, mask=None, sixteens=True)
        self._fours(out, ("0", quarter, width), apart, take, row.vector)
        return done

    def _fours(
        self,
        out: Lines,
        span: tuple[str, str, int],
        apart: Sequence[str],
        take: Callable[[str], dict[Node, str]],
        again: Callable[[str], dict[Node, str]],
    ) -> None:
        """Add four fours of vectors at a time over a span (start, stop, step), the others so far `apart`.

        `take` gives the values of one, and `again` once more where float32 could not add them.
        """
        (start, stop, step), sums = span, self.sweep.sums

        def places(i: str) -> list[str]:
            return [i, *(out.emit(f"add i64 {i}, {k}") for k in apart)]

        with out.each("fours", stop, start, FOUR * step) as first:
            end = out.sooner(out.emit(f"add i64 {first}, {FOUR * step}"), stop)
            sums.start_fours(out)
            with out.each("four", end, first, step) as i:
                sums.add_to_fours(out, [take(at) for at in places(i)])
            for k, (n, into) in enumerate(sums.widen_fours(out)):
                with out.each(f"again{k}", end, first, step) as i:
                    for at in places(i):
                        sums.add_to(out, n, into, again(at))

    def _kept(self, out: Lines, row: Row, index: str) -> dict[Node, str]:
        """Of a vector of elements what is squared and summed, from the nearest cache."""
        sweep, sums = self.sweep, self.sweep.sums
        return {
            x: row.stored(x, index) if x in sweep.stored else sums.kept(out, x, index)
            for x in dict.fromkeys(map(sums.squares.__getitem__, sums.by_sixteens))
        }

    def _vectors(self, out: Lines, row: Row, start: str, stop: str) -> None:
        """Vector after vector of elements.

        Where the work is cut in halves, one is begun before the one ahead of it is finished.
        """
        width, lanes, sums, halves = self.sweep.width, self.sweep.lanes, self.sweep.sums, self.sweep.halves
        sixteens = bool(sums.by_sixteens)
        if halves is None:
            with out.each("each", stop, start, width) as i:
                sums.keep(out, self._elements(out, row, i, None, sixteens), i)
            return
        kinds = [lanes.truth if n.is_condition else lanes.vector for n in halves.carried]
        here = [f"%each.{k}" for k in range(len(kinds))]

        def begin(at: str) -> list[str]:
            values = self._elements(out, row, at, None, half=halves.early)
            return [lanes.value(n, values) for n in halves.carried]

        def finish(at: str) -> None:
            begun = dict(zip(halves.carried, here, strict=True))
            sums.keep(out, self._elements(out, row, at, None, sixteens, halves.late, begun), at)

        out.when(out.emit(f"icmp slt i64 {start}, {stop}"), "each.first", "each.over")
        last, first = out.emit(f"sub i64 {stop}, {width}"), begin(start)
        with out.each("each", last, start, width, [*zip(kinds, first, strict=True)]) as i:
            ahead = begin(out.emit(f"add i64 {i}, {width}"))
            finish(i)
            for at, kind, value in zip(here, kinds, ahead, strict=True):
                out.do(f"{at}.next = freeze {kind} {value}")
        finish(i)
        out.label("each.over")

    def _elements(
        self,
        out: Lines,
        row: Row,
        index: str,
        mask: str | None,
        sixteens: bool = False,
        half: Half | None = None,
        begun: Mapping[Node, str] | None = None,
    ) -> dict[Node, str]:
        """One vector of elements and its sums, but with `sixteens` those that are added by them; all values.

        Of a `half` what belongs to it, with what has been `begun` for it.
        """
        sweep, lanes, part = self.sweep, self.sweep.lanes, half or self.sweep.whole
        values, pointers = row.addressed(index, mask, part.values, begun)
        for n, at in pointers.items():
            # columns are few and stay in the cache; what goes past it is not to be fetched
            near = sweep.operands[n].domain == "columns" or (n.op == "name" and n.word in sweep.past)
            if mask is None and n in part.values and not near and not prefetches_far():
                lanes.fetch(out, at, AHEAD)
        if part.sums:
            sweep.sums.add(out, values, index, mask, sixteens)
        for word in part.writes:
            operand, past = sweep.operands[name(word)], word in sweep.past
            value = lanes.value(sweep.one.written[word], values)
            lanes.store(out, value, pointers[name(word)], operand.dtype, mask, past)
        return values
