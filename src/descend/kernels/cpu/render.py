"""Renders one pass of a staged program as LLVM IR: a loop over vectors of elements, strict IEEE arithmetic.

No operation carries a fast-math flag; the only fused multiply-adds are those that staging wrote. The
remainder of a run of elements does the same operations under a mask, so an element's bits depend neither on
its place nor on how the work was cut. Sums are kept in float64, lane by lane, in an order that only the cut
into chunks decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ...formula.nodes import Node, is_random, name, scope, text
from ...formula.program import Pass, Program
from . import chance
from .compiler import divider_is_slow
from .emit import STORAGE, Lanes, Lines, compute_type

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
        other instructions begin in each, of which a root takes 14 and a sum 7. (On AMD's Zen 4 it takes 10
        and 6, and one begins.) Nothing is gained where both are near, and a root that is one for a row is
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
    def sums(self) -> dict[str, list[Node]]:
        """The pass's reductions by what they go over; "tensor" holds those over all tensors too."""
        found: dict[str, list[Node]] = {"tensor": [], "rows": [], "columns": []}
        for n in self.one.reductions:
            found[scope(n) if scope(n) in found else "tensor"].append(n)
        return found

    @property
    def strips(self) -> list[Node]:
        """The sums by column, which every chunk keeps in a strip of its own."""
        return self.sums["columns"]

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
        found += [(self.vector(n).symbol, "float64", "rows") for n in self.sums["rows"]]
        return found + [(f"%strip{k}", "float64", "strip") for k in range(len(self.strips))]

    def body(self, declared: dict[str, str]) -> str:
        """The function that does one run of elements."""
        width, lanes = self.width, self.lanes
        head = Lines([], declared)
        values = self._before(head)
        nan_bits = {
            n: lanes.nan_bits(head, values[n]) for n in map(self._bound, self.one.body) if n in values
        }
        signature = "".join(f"ptr noalias {symbol}, " for symbol, _, _ in self._pointers)
        signature += "i64 %first, " if self.one.is_random else ""
        whole = Lines([], declared, head.count)
        self._elements(whole, values, nan_bits, "%i", None)
        rest = Lines([], declared, whole.count)
        index = ", ".join(f"i64 {k}" for k in range(width))
        left = rest.emit("sub i64 %n, %full")
        mask = rest.emit(f"icmp ult <{width} x i64> <{index}>, {lanes.splat(rest, left, 'i64')}")
        self._elements(rest, values, nan_bits, "%full", mask)
        last = Lines([], declared, rest.count)
        for k, reduction in enumerate(self._lanewise):
            self._finish(last, reduction, k)
        return "\n".join(
            [
                f"define internal void @body{self.number}({signature}{_LAST}) #0 {{",
                "entry:",
                *head.lines,
                f"  %full = and i64 %n, {-width}",
                "  %any = icmp ne i64 %full, 0",
                "  br i1 %any, label %loop, label %tail",
                "loop:",
                "  %i = phi i64 [ 0, %entry ], [ %after, %loop ]",
                *whole.lines,
                f"  %after = add nuw i64 %i, {width}",
                "  %again = icmp ult i64 %after, %full",
                "  br i1 %again, label %loop, label %tail",
                "tail:",
                "  %some = icmp ne i64 %full, %n",
                "  br i1 %some, label %rest, label %done",
                "rest:",
                *rest.lines,
                "  br label %done",
                "done:",
                *last.lines,
                "  ret void",
                "}",
            ]
        )

    def _bound(self, n: Node) -> Node | None:
        """The argument of a minimum or maximum that does not change along a run."""
        if n.op not in ("minimum", "maximum"):
            return None
        return next((a for a in n.args if a.op == "const" or self._is_steady(a)), None)

    def _is_steady(self, n: Node) -> bool:
        """Whether a value is at hand before the loop."""
        return n in self.scalars or (n in self.operands and not self._inside(self.operands[n]))

    @property
    def _lanewise(self) -> list[Node]:
        """The reductions that a run of elements adds up into one number."""
        return [*self.sums["tensor"], *self.sums["rows"]]

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
                value = out.emit(f"fcmp une double {value}, 0.0")
            elif lanes.precision == "float32":
                value = out.emit(f"fptrunc double {value} to float")
            values[n] = lanes.splat(out, value, "i1" if n.is_condition else lanes.scalar)
        for n, operand in self.operands.items():
            if not self._inside(operand):
                values[n] = lanes.load_one(out, operand.symbol, operand.dtype)
        for k, reduction in enumerate(self._lanewise):
            start = f"<{', '.join([f'double {start_of(reduction)}'] * self.width)}>"
            out.lines += [f"  %sum{k} = alloca {lanes.wide}", f"  store {lanes.wide} {start}, ptr %sum{k}"]
        return values

    def _elements(
        self,
        out: Lines,
        leaves: dict[Node, str],
        nan_bits: dict[Node, str],
        index: str,
        mask: str | None,
    ) -> None:
        lanes = self.lanes
        values = dict(leaves)
        pointers: dict[Node, str] = {}
        for n, operand in self.operands.items():
            if n in values:
                continue
            at = f"ptr {operand.symbol}, i64 {index}"
            pointers[n] = out.emit(f"getelementptr {STORAGE[operand.dtype]}, {at}")
            if mask is None and operand.domain != "columns":  # those are small and stay in the cache
                self.lanes.fetch(out, pointers[n], AHEAD)
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
            given = [self._value(a, values) for a in n.args]
            bound = self._bound(n)
            if bound is None:
                values[n] = lanes.operation(out, n.op, given, note)
            else:
                x = given[1 - n.args.index(bound)]
                limit = self._value(bound, values)
                values[n] = lanes.bounded(out, n.op, limit, x, nan_bits.get(bound), note)
            labels[n] = self.program.labels[n]
        for k, reduction in enumerate(self._lanewise):
            self._add(out, f"%sum{k}", reduction, values, mask)
        for k, reduction in enumerate(self.sums["columns"]):
            at = out.emit(f"getelementptr double, ptr %strip{k}, i64 {index}")
            self._add(out, at, reduction, values, mask, in_memory=True)
        for word, n in self.one.written.items():
            operand = self.operands[name(word)]
            lanes.store(out, self._value(n, values), pointers[name(word)], operand.dtype, mask)

    def _value(self, n: Node, values: dict[Node, str]) -> str:
        return self.lanes.constant(n.number) if n.op == "const" else values[n]

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
        largest = reduction.op.startswith("max")
        n = self.one.reductions[reduction]
        product = n.args if n.op == "mul" and n not in self.scalars else (n,)
        factors = [lanes.widen(out, self._value(a, values)) for a in product]
        sums = Lanes("float64", self.width)
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

    def _finish(self, out: Lines, reduction: Node, k: int) -> None:
        """The lanes of a sum joined in pairs: a row's into its place, a tensor's onto its chunk's."""
        operation, width = "maximum" if reduction.op.startswith("max") else "add", self.width
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
        into, at = self.vector(reduction).symbol if k >= len(self.sums["tensor"]) else "%out", 0
        if into == "%out":
            at = k
            before = out.emit(f"load {one.vector}, ptr {out.at('double', into, at)}")
            total = one.operation(out, operation, [before, total])
        elif reduction.op.startswith("mean"):
            count = out.emit(
                f"insertelement {one.vector} poison, double {out.emit('uitofp i64 %n to double')}, i64 0"
            )
            total = one.operation(out, "div", [total, count])
        out.do(f"store {one.vector} {total}, ptr {out.at('double', into, at)}")


def start_of(reduction: Node) -> str:
    """What a sum or maximum of nothing is."""
    return "0xFFF0000000000000" if reduction.op.startswith("max") else "0.0"
