"""Renders one pass of a staged program as LLVM IR: a loop over vectors of elements, strict IEEE arithmetic.

No operation carries a fast-math flag; the only fused multiply-adds are those that staging wrote. The
remainder of a run of elements does the same operations under a mask, so an element's bits depend neither on
its place nor on how the work was cut. How sums are kept, `sums` says.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from functools import cached_property

from ...formula.nodes import Node, is_random, name, scope, text
from ...formula.program import Pass, Program
from . import chance
from .compiler import divider_is_slow, prefetches_far
from .emit import STORAGE, Lanes, Lines, compute_type
from .sums import FOUR, Sums

_LIGHT = frozenset(["add", "sub", "mul", "neg", "fma", "abs", "sign", "where", "minimum", "maximum"])
_LIGHT |= frozenset(["lt", "le", "gt", "ge", "eq", "ne"])
"""Operations that take less than fetching an element would."""

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
        return Sums(self.one, self.lanes, self.scalars, into, self._again)

    @cached_property
    def _again(self) -> dict[Node, set[str]]:
        """What can be computed a second time, at little cost for an element, and the domains it differs by."""
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

    @property
    def has_body(self) -> bool:
        """Whether anything is left to do for a run of elements beside sums by column that are tiled."""
        return bool(self.one.written) or self.sums.by_run

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
        strips = (k for k in range(len(self.sums.columns)) if k not in self.sums.tiled)
        return found + [(f"%strip{k}", "float64", "strip") for k in strips]

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
        width, sums = self.width, self.sums
        out = Lines([], declared)
        values, nan_bits = self.leaves(out)
        sums.start(out)
        done = self._fours(out, values, nan_bits) if sums.by_fours else "0"
        full = out.emit(f"and i64 %n, {-width}")
        with out.each("one", full, done, width) as i:
            self._elements(out, values, nan_bits, i, None)
        out.when(out.emit(f"icmp ne i64 {full}, %n"), "rest", "done")
        self._elements(out, values, nan_bits, full, self.mask(out, full, "%n"))
        out.label("done")
        sums.finish(out)
        return out.lines

    def _fours(self, out: Lines, leaves: dict[Node, str], nan_bits: dict[Node, str]) -> str:
        """Four vectors of elements at a time, as far as that goes; where it ends.

        Where nothing is written, all can be computed again, so four fours are summed before they are widened.
        """
        width, sums = self.width, self.sums
        done = out.emit(f"and i64 %n, {-FOUR * width}")

        def four(i: str) -> list[dict[Node, str]]:
            places = [i, *(out.emit(f"add i64 {i}, {k * width}") for k in range(1, FOUR))]
            return [self._elements(out, leaves, nan_bits, at, None, fours=True) for at in places]

        if self.one.written:
            with out.each("four", done, step=FOUR * width) as i:
                sums.add_four(out, four(i))
            return done
        with out.each("fours", done, step=FOUR * FOUR * width) as first:
            end = out.emit(f"add i64 {first}, {FOUR * FOUR * width}")
            end = out.emit(f"select i1 {out.emit(f'icmp slt i64 {end}, {done}')}, i64 {end}, i64 {done}")
            sums.start_fours(out)
            with out.each("four", end, first, FOUR * width) as i:
                sums.add_to_fours(out, four(i))
            for k, n in sums.widen_fours(out):
                with out.each(f"again{k}", end, first, width) as i:
                    sums.add_one(out, k, n, self.evaluate(out, leaves, nan_bits, i, None)[0])
        return done

    def mask(self, out: Lines, start: str, stop: str) -> str:
        """Which elements of the vector from `start` on come before `stop`."""
        index = ", ".join(f"i64 {k}" for k in range(self.width))
        left = out.emit(f"sub i64 {stop}, {start}")
        return out.emit(f"icmp ult <{self.width} x i64> <{index}>, {self.lanes.splat(out, left, 'i64')}")

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

    def leaves(
        self, out: Lines, bases: Mapping[str, str] | None = None
    ) -> tuple[dict[Node, str], dict[Node, str]]:
        """What does not change along a run: the row of scalars, and what is one number a row; bits of bounds.

        `bases` are the addresses of operands, where they are not their symbols.
        """
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
        for n, operand in self._given(bases):
            if not self._inside(operand):
                at = operand.symbol if bases is None else bases[operand.symbol]
                values[n] = lanes.load_one(out, at, operand.dtype)
        nan_bits = {n: lanes.nan_bits(out, values[n]) for n in map(self._bound, self.one.body) if n in values}
        return values, nan_bits

    def _given(self, bases: Mapping[str, str] | None) -> list[tuple[Node, Operand]]:
        """The operands, or those that have an address."""
        return [(n, x) for n, x in self.operands.items() if bases is None or x.symbol in bases]

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
        values, pointers = self.evaluate(out, leaves, nan_bits, index, mask)
        for n, at in pointers.items():
            # columns are few and stay in the cache; what goes past it is not to be fetched
            near = self.operands[n].domain == "columns" or (n.op == "name" and n.word in self.past)
            if mask is None and not near and not prefetches_far():
                lanes.fetch(out, at, AHEAD)
        self.sums.add(out, values, index, mask, fours)
        for word, n in self.one.written.items():
            operand, past = self.operands[name(word)], word in self.past
            lanes.store(out, lanes.value(n, values), pointers[name(word)], operand.dtype, mask, past)
        return values

    def evaluate(
        self,
        out: Lines,
        leaves: dict[Node, str],
        nan_bits: dict[Node, str],
        index: str,
        mask: str | None,
        bases: Mapping[str, str] | None = None,
        wanted: Container[Node] | None = None,
    ) -> tuple[dict[Node, str], dict[Node, str]]:
        """One vector of elements: all values, or those `wanted`, and the addresses of operands."""
        lanes = self.lanes
        values = dict(leaves)
        pointers: dict[Node, str] = {}
        for n, operand in self._given(bases):
            if n in values:
                continue
            base = operand.symbol if bases is None else bases[operand.symbol]
            pointers[n] = out.at(STORAGE[operand.dtype], base, index)
            if operand.table == "vectors" or n.word in self.one.reads:
                values[n] = lanes.load(out, pointers[n], operand.dtype, mask)
        labels = {n: f"{row}[{k}]" for n, (row, k) in self.scalars.items()}
        for n in self.one.body:
            if wanted is not None and n not in wanted:
                continue
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
        return values, pointers


def _holds(out: Lines, value: str) -> str:
    """Whether a condition holds, which stands among the scalars as a number."""
    return out.emit(f"fcmp une double {value}, 0.0")
