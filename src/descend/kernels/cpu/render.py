"""Renders one pass of a staged program as LLVM IR: a loop over vectors of elements, strict IEEE arithmetic.

No operation carries a fast-math flag; the only fused multiply-adds are those that staging wrote. The
remainder of a run of elements does the same operations under a mask, so an element's bits depend neither on
its place nor on how the work was cut. How sums are kept, `sums` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ...formula.nodes import Node, is_random, name, scope, text
from ...formula.program import Pass, Program
from . import chance
from .compiler import divider_is_slow, prefetches_far
from .emit import STORAGE, Lanes, Lines, compute_type
from .sums import FOUR, Sums

AHEAD = 2048
"""Bytes ahead of the loop that are fetched already: dividing and rooting, the loop itself looks less far."""

_LAST = "i64 %n, ptr noalias readonly %s, ptr noalias readonly %q, ptr noalias %out"


@dataclass(frozen=True)
class Operand:
    """Something in memory that a pass reads or writes, one address a tensor in a table of addresses."""

    symbol: str
    dtype: str
    domain: str
    table: str
    index: int


@dataclass(frozen=True)
class Renderer:
    """Renders pass `number` of a program, for one storage type per operand, `width` elements at a time."""

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
        return (
            sixteen
            and divider_is_slow()
            and not self.program.is_matrix(self.number)
            and multiplied < 0.8 * divided
        )

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
        into = {n: self.vector(n).symbol for n in self.one.reductions if scope(n) == "rows"}
        kept = (word for word in self.one.reads if word not in self.one.written)
        stays = [name(word) for word in kept if self.program.domains[word] == "element"]
        return Sums(self.one, self.lanes, self.scalars, into, stays)

    @cached_property
    def scalars(self) -> dict[Node, tuple[str, int]]:
        """Where each scalar of the pass stands: in the first pass's row "s", or in its own row "q"."""
        summed = [n for value in self.one.reductions.values() for n in (value, *value.args)]
        used = {*(a for n in self.one.body for a in n.args), *self.one.written.values(), *summed}
        places = {n: ("q", k) for k, n in enumerate(self.one.scalars.late)} if self.number else {}
        places |= {n: ("s", k) for k, n in enumerate(self.program.scalars.row)}
        return {n: place for n, place in places.items() if n in used}

    def call(
        self, out: Lines, bases: dict[str, str], element: str, count: str, row: str, column: str
    ) -> None:
        """Call the body for one run of elements, from these places of each domain.

        `bases` are the addresses of what it reads and writes, by symbol.
        """
        places = {"element": element, "rows": row, "columns": column}
        given = []
        for symbol, dtype, domain in self._pointers:
            at = bases[symbol]
            if domain != "strip":
                at = out.at(STORAGE[dtype], at, places.get(domain, element))
            given.append(f"ptr {at}")
        given += [f"i64 {element}"] if self.one.is_random else []
        out.do(
            f"call void @body{self.number}({', '.join([*given, f'i64 {count}'])}, ptr %s, ptr %q, ptr %out)"
        )

    @property
    def _pointers(self) -> list[tuple[str, str, str]]:
        """Symbol, storage type and domain of every address that the body takes."""
        found = [(x.symbol, x.dtype, x.domain) for x in self.operands.values()]
        found += [(self.vector(n).symbol, "float64", "rows") for n in self.sums.rows]
        found += [(f"%strip{k}", "float64", "strip") for k in range(len(self.sums.columns))]
        return found + [(f"%part{k}", "float32", "strip") for k in self.sums.by_eights]

    def body(self, declared: dict[str, str]) -> str:
        """The function that does one run of elements.

        Where what it does hangs on conditions that hold or do not for a whole tensor, as the nearer end of a
        weighted mean does, it is there twice: for all of them holding, which is usual, and for any others.
        """
        signature = "".join(f"ptr noalias {symbol}, " for symbol, _, _ in self._pointers)
        signature += "i64 %first, " if self.one.is_random else ""
        conditions = [k for n, k in self.scalars.items() if n.is_condition]
        if not conditions:
            head = f"define internal void @body{self.number}({signature}{_LAST}) #0 {{"
            return "\n".join([head, *self._run(declared), "  ret void", "}"])
        given = f"{signature}{_LAST}"
        head = f"define internal void @either{self.number}({given}, i1 %usual) alwaysinline #0 {{"
        lines = [head, *self._run(declared), "  ret void", "}", ""]
        out = Lines([], declared)
        usual = "true"
        for row, k in conditions:
            usual = out.emit(f"and i1 {usual}, {_holds(out, out.load('double', f'%{row}', k))}")
        passed = given.replace(" noalias", "").replace(" readonly", "")
        out.when(usual, "usual", "other")
        out.do(f"call void @either{self.number}({passed}, i1 true)", "ret void")
        out.lines.append("other:")
        out.do(f"call void @either{self.number}({passed}, i1 false)", "ret void")
        return "\n".join([*lines, f"define internal void @body{self.number}({given}) #0 {{", *out.lines, "}"])

    def _run(self, declared: dict[str, str]) -> list[str]:
        """What is done with one run of elements."""
        width, lanes, sums = self.width, self.lanes, self.sums
        out = Lines([], declared)
        values = self._before(out)
        nan_bits = {n: lanes.nan_bits(out, values[n]) for n in map(self._bound, self.one.body) if n in values}
        sums.start(out)
        done = "0"
        if sums.by_fours:
            done = out.emit(f"and i64 %n, {-FOUR * width}")
            with out.each("four", done, step=FOUR * width) as i:
                places = [i, *(out.emit(f"add i64 {i}, {k * width}") for k in range(1, FOUR))]
                found = [self._elements(out, values, nan_bits, at, None, fours=True) for at in places]
                sums.add_four(out, found)
        full = out.emit(f"and i64 %n, {-width}")
        with out.each("one", full, done, width) as i:
            self._elements(out, values, nan_bits, i, None)
        out.when(out.emit(f"icmp ne i64 {full}, %n"), "rest", "done")
        index = ", ".join(f"i64 {k}" for k in range(width))
        left = out.emit(f"sub i64 %n, {full}")
        mask = out.emit(f"icmp ult <{width} x i64> <{index}>, {lanes.splat(out, left, 'i64')}")
        self._elements(out, values, nan_bits, full, mask)
        out.label("done")
        sums.finish(out)
        return out.lines

    def eights(self, declared: dict[str, str]) -> str:
        """The function that adds up what a few rows have left in float32."""
        return self.sums.eights(self.number, {n: x.dtype for n, x in self.operands.items()}, declared)

    def _bound(self, n: Node) -> Node | None:
        """The argument of a minimum or maximum that does not change along a run."""
        if n.op not in ("minimum", "maximum"):
            return None
        return next((a for a in n.args if a.op == "const" or self._is_steady(a)), None)

    def _is_steady(self, n: Node) -> bool:
        """Whether a value is at hand before the loop."""
        return n in self.scalars or (n in self.operands and not self._inside(self.operands[n]))

    def _inside(self, operand: Operand) -> bool:
        """Whether an operand has another value at every place of a run."""
        return operand.domain != "rows" or not self.program.is_matrix(self.number)

    def _before(self, out: Lines) -> dict[Node, str]:
        """What does not change along a run: the row of scalars, and what is one number a row."""
        lanes = self.lanes
        values: dict[Node, str] = {}
        for n, (row, k) in self.scalars.items():
            value = out.load("double", f"%{row}", k, f"{row}[{k}] = {text(n)}")
            if n.op == "key":
                values[n] = out.emit(f"fptoui double {value} to i64")
                continue
            if n.is_condition:
                # where %usual is true, it is for the compiler too, which then drops the other choice
                value = out.emit(f"or i1 %usual, {_holds(out, value)}")
            elif lanes.precision == "float32":
                value = out.emit(f"fptrunc double {value} to float")
            values[n] = lanes.splat(out, value, "i1" if n.is_condition else lanes.scalar)
        for n, operand in self.operands.items():
            if not self._inside(operand):
                values[n] = lanes.load_one(out, operand.symbol, operand.dtype)
        return values

    def _elements(
        self,
        out: Lines,
        leaves: dict[Node, str],
        nan_bits: dict[Node, str],
        index: str,
        mask: str | None,
        fours: bool = False,
    ) -> dict[Node, str]:
        """One vector of elements and its sums, with `fours` but those that are added by fours; all values."""
        lanes = self.lanes
        values = dict(leaves)
        pointers: dict[Node, str] = {}
        for n, operand in self.operands.items():
            if n in values:
                continue
            at = f"ptr {operand.symbol}, i64 {index}"
            pointers[n] = out.emit(f"getelementptr {STORAGE[operand.dtype]}, {at}")
            # columns are few and stay in the cache; what goes past it is not to be fetched
            near = operand.domain == "columns" or (n.op == "name" and n.word in self.past)
            if mask is None and not near and not prefetches_far():
                lanes.fetch(out, pointers[n], AHEAD)
            if operand.table == "vectors" or n.word in self.one.reads:
                values[n] = lanes.load(out, pointers[n], operand.dtype, mask)
        labels = {n: f"{row}[{k}]" for n, (row, k) in self.scalars.items()}
        for n in self.one.body:
            note = f"{self.program.labels[n]} = {text(n, labels)}"
            if is_random(n):
                place = out.emit(f"add i64 %first, {index}")
                keyed = (out, lanes, values[n.args[0]])
                if n.op == "normal":
                    values[n] = chance.normal(*keyed, place, note)
                else:
                    values[n] = chance.uniform(*keyed, 0, place, note)
                labels[n] = self.program.labels[n]
                continue
            given = [lanes.value(a, values) for a in n.args]
            bound = self._bound(n)
            if bound is None:
                values[n] = lanes.operation(out, n.op, given, note)
            else:
                x = given[1 - n.args.index(bound)]
                limit = lanes.value(bound, values)
                values[n] = lanes.bounded(out, n.op, limit, x, nan_bits.get(bound), note)
            labels[n] = self.program.labels[n]
        self.sums.add(out, values, index, mask, fours)
        for word, n in self.one.written.items():
            operand, past = self.operands[name(word)], word in self.past
            lanes.store(out, lanes.value(n, values), pointers[name(word)], operand.dtype, mask, past)
        return values


def _holds(out: Lines, value: str) -> str:
    """Whether a condition holds, which stands among the scalars as a number."""
    return out.emit(f"fcmp une double {value}, 0.0")
