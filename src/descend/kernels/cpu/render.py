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
from ...formula.stage import Pass, Program
from . import chance
from .emit import STORAGE, Lanes, Lines, compute_type

_FIELDS = ("next", "count", "chunks", "addresses", "rows", "sums", "vectors", "widths", "scratch")
"""The context of a launch, 64-bit words: the counter of chunks taken, then what `Table` sets."""

_CHUNK = ("tensor", "offset", "length", "line", "place")
"""A chunk: which tensor, from which element (or row of a matrix), how many, its row of scalars, scratch."""


AHEAD = 2048
"""Bytes ahead of the loop that are fetched already: dividing and rooting, the loop itself looks less far."""

_LAST = "ptr noalias readonly %s, ptr noalias %out"


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
        return Lanes(compute_type(self.dtypes[0]), self.width)

    @cached_property
    def operands(self) -> dict[Node, Operand]:
        """What the pass touches: the program's operands, and sums by row or column of passes before it."""
        found: dict[Node, Operand] = {}
        for word in self.one.operands:
            k = self.program.operands.index(word)
            domain = self.program.domains[word]
            found[name(word)] = Operand(f"%of.{word}", self.dtypes[k], domain, "addresses", k)
        for n in self.one.vectors:
            found[n] = self._vector(n)
        return found

    def _vector(self, n: Node) -> Operand:
        k = self.program.vectors.index(n)
        return Operand(f"%vector{k}", "float64", scope(n), "vectors", k)

    @cached_property
    def sums(self) -> dict[str, list[Node]]:
        """The pass's reductions by what they go over; "tensor" holds those over all tensors too."""
        found: dict[str, list[Node]] = {"tensor": [], "rows": [], "columns": []}
        for n in self.one.reductions:
            found[scope(n) if scope(n) in found else "tensor"].append(n)
        return found

    def module(self) -> str:
        """The whole module: `run(ctx)` takes chunks until none is left, `body` does one run of elements."""
        declared: dict[str, str] = {}
        body = self._body(declared)
        parts = [f"; {line}" for line in self.program.rule.formula_text.splitlines()]
        parts += ["", body, self._driver(), *declared.values()]
        wide = 'attributes #0 = { nounwind "prefer-vector-width"="512" }'
        return "\n".join([*parts, wide, ""])

    # -- the driver: chunks, and the rows of a matrix ---------------------------------------------------

    def _driver(self) -> str:
        matrix = self.program.is_matrix(self.number)
        lines = [f"; ctx: {', '.join(_FIELDS)}; a chunk: {', '.join(_CHUNK)}"]
        lines += ["define void @run(ptr %ctx) #0 {", "entry:"]
        for k, field in enumerate(_FIELDS):
            lines.append(f"  %{field}_at = getelementptr i64, ptr %ctx, i64 {k}")
            if k:
                lines.append(f"  %{field} = load {'i64' if k == 1 else 'ptr'}, ptr %{field}_at")
        lines += [
            "  br label %next",
            "next:",
            "  %i = atomicrmw add ptr %next_at, i64 1 monotonic",
            "  %more = icmp slt i64 %i, %count",
            "  br i1 %more, label %chunk, label %done",
            "chunk:",
            f"  %at = mul i64 %i, {len(_CHUNK)}",
        ]
        for k, field in enumerate(_CHUNK):
            lines.append(f"  %{field}_k = add i64 %at, {k}")
            lines.append(f"  %{field}_at = getelementptr i64, ptr %chunks, i64 %{field}_k")
            lines.append(f"  %{field} = load i64, ptr %{field}_at")
        lines += [
            # after a reduction every tensor has a row of scalars of its own
            f"  %row_k = mul i64 %{'tensor' if self.number else 'line'}, {max(1, len(self.one.scalars.row))}",
            "  %s = getelementptr double, ptr %rows, i64 %row_k",
            f"  %sum_k = mul i64 %i, {len(self.sums['tensor'])}",
            "  %out = getelementptr double, ptr %sums, i64 %sum_k",
        ]
        for k, reduction in enumerate(self.sums["tensor"]):
            lines.append(f"  %start{k} = getelementptr double, ptr %out, i64 {k}")
            lines.append(f"  store double {_start(reduction)}, ptr %start{k}")
        for operand in [*self.operands.values(), *(self._vector(n) for n in self.sums["rows"])]:
            width = len(self.program.operands if operand.table == "addresses" else self.program.vectors)
            lines += [
                f"  {operand.symbol}_t = mul i64 %tensor, {width}",
                f"  {operand.symbol}_k = add i64 {operand.symbol}_t, {operand.index}",
                f"  {operand.symbol}_at = getelementptr ptr, ptr %{operand.table}, i64 {operand.symbol}_k",
                f"  {operand.symbol}_base = load ptr, ptr {operand.symbol}_at",
            ]
        lines += self._rows() if matrix else self._run("%offset", "%length", "%offset", "%offset")
        lines += ["  br label %next"] if not matrix else []
        return "\n".join([*lines, "done:", "  ret void", "}"])

    def _rows(self) -> list[str]:
        """A loop over the rows of a chunk of a matrix."""
        lines = [
            "  %columns_at = getelementptr i64, ptr %widths, i64 %tensor",
            "  %columns = load i64, ptr %columns_at",
        ]
        for k in range(len(self.sums["columns"])):
            lines += [
                f"  %strip{k}_k = mul i64 %columns, {k}",
                f"  %strip{k}_n = add i64 %place, %strip{k}_k",
                f"  %strip{k} = getelementptr double, ptr %scratch, i64 %strip{k}_n",
            ]
        return [
            *lines,
            "  br label %row",
            "row:",
            "  %r = phi i64 [ 0, %chunk ], [ %r_next, %row ]",
            "  %this = add i64 %offset, %r",
            "  %start = mul i64 %this, %columns",
            *self._run("%start", "%columns", "%this", "0"),
            "  %r_next = add i64 %r, 1",
            "  %again = icmp ult i64 %r_next, %length",
            "  br i1 %again, label %row, label %next",
        ]

    def _run(self, element: str, count: str, row: str, column: str) -> list[str]:
        """The call of `body` for one run of elements, from these places of each domain."""
        places = {"rows": row, "columns": column}  # all others lie in memory as they are counted
        lines, given = [], []
        for operand in self.operands.values():
            place = places.get(operand.domain, element)
            at = f"ptr {operand.symbol}_base, i64 {place}"
            lines.append(f"  {operand.symbol} = getelementptr {STORAGE[operand.dtype]}, {at}")
            given.append(f"ptr {operand.symbol}, ")
        for n in self.sums["rows"]:
            symbol = self._vector(n).symbol
            lines.append(f"  {symbol} = getelementptr double, ptr {symbol}_base, i64 {row}")
            given.append(f"ptr {symbol}, ")
        given += [f"ptr %strip{k}, " for k in range(len(self.sums["columns"]))]
        first = f"i64 {element}, " if self.one.is_random else ""
        lines.append(f"  call void @body({''.join(given)}{first}i64 {count}, ptr %s, ptr %out)")
        return lines

    # -- the body: one run of elements ----------------------------------------------------------------

    def _body(self, declared: dict[str, str]) -> str:
        width, lanes = self.width, self.lanes
        head = Lines([], declared)
        values = self._before(head)
        symbols = [operand.symbol for operand in self.operands.values()]
        symbols += [self._vector(n).symbol for n in self.sums["rows"]]
        symbols += [f"%strip{k}" for k in range(len(self.sums["columns"]))]
        signature = "".join(f"ptr noalias {symbol}, " for symbol in symbols)
        signature += "i64 %first, " if self.one.is_random else ""
        whole = Lines([], declared, head.count)
        self._elements(whole, values, "%i", None)
        rest = Lines([], declared, whole.count)
        index = ", ".join(f"i64 {k}" for k in range(width))
        left = rest.emit("sub i64 %n, %full")
        mask = rest.emit(f"icmp ult <{width} x i64> <{index}>, {lanes.splat(rest, left, 'i64')}")
        self._elements(rest, values, "%full", mask)
        last = Lines([], declared, rest.count)
        for k, reduction in enumerate(self._lanewise):
            self._finish(last, reduction, k)
        return "\n".join(
            [
                f"define internal void @body({signature}i64 %n, {_LAST}) #0 {{",
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
        for n, k in self.one.row_index.items():
            at = out.emit(f"getelementptr double, ptr %s, i64 {k}")
            value = out.emit(f"load double, ptr {at}", f"s[{k}] = {text(n)}")
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
            start = f"<{', '.join([f'double {_start(reduction)}'] * self.width)}>"
            out.lines += [f"  %sum{k} = alloca {lanes.wide}", f"  store {lanes.wide} {start}, ptr %sum{k}"]
        return values

    def _elements(self, out: Lines, leaves: dict[Node, str], index: str, mask: str | None) -> None:
        lanes = self.lanes
        values = dict(leaves)
        pointers: dict[Node, str] = {}
        for n, operand in self.operands.items():
            if n in values:
                continue
            at = f"ptr {operand.symbol}, i64 {index}"
            pointers[n] = out.emit(f"getelementptr {STORAGE[operand.dtype]}, {at}")
            if mask is None:
                self.lanes.fetch(out, pointers[n], AHEAD)
            if operand.table == "vectors" or n.word in self.one.reads:
                values[n] = lanes.load(out, pointers[n], operand.dtype, mask)
        labels = {n: f"s[{i}]" for n, i in self.one.row_index.items()}
        for n in self.one.body:
            note = f"{self.program.labels[n]} = {text(n, labels)}"
            if is_random(n):
                place = out.emit(f"add i64 %first, {index}")
                given = (out, lanes, values[n.args[0]])
                if n.op == "normal":
                    values[n] = chance.normal(*given, place, note)
                else:
                    values[n] = chance.uniform(*given, 0, place, note)
                labels[n] = self.program.labels[n]
                continue
            values[n] = lanes.operation(out, n.op, [self._value(a, values) for a in n.args], note)
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
        n = self.one.reductions[reduction]
        factors = [lanes.widen(out, self._value(a, values)) for a in (n.args if n.op == "mul" else (n,))]
        value = factors[0] if len(factors) == 1 else out.emit(f"fmul {wide} {factors[0]}, {factors[1]}")
        sums = Lanes("float64", self.width)
        if in_memory:
            before = sums.load(out, at, "float64", mask)
        else:
            before = out.emit(f"load {wide}, ptr {at}")
            if mask is not None:
                start = f"<{', '.join([f'double {_start(reduction)}'] * self.width)}>"
                value = out.emit(f"select {lanes.truth} {mask}, {wide} {value}, {wide} {start}")
        largest = reduction.op.startswith("max")
        after = sums.operation(out, "maximum" if largest else "add", [before, value], text(reduction))
        sums.put(out, after, at, "float64", mask if in_memory else None)

    def _finish(self, out: Lines, reduction: Node, k: int) -> None:
        """The lanes of a sum joined in order: a row's into its place, a tensor's onto its chunk's."""
        wide = self.lanes.wide
        lanes = out.emit(f"load {wide}, ptr %sum{k}")
        largest = reduction.op.startswith("max")
        if largest:
            total = out.call(f"llvm.vector.reduce.fmaximum.v{self.width}f64", "double", (wide, lanes))
        else:
            adding = f"llvm.vector.reduce.fadd.v{self.width}f64"
            total = out.call(adding, "double", ("double", "-0.0"), (wide, lanes))
        if k >= len(self.sums["tensor"]):
            out.lines.append(f"  store double {total}, ptr {self._vector(reduction).symbol}")
            return
        at = out.emit(f"getelementptr double, ptr %out, i64 {k}")
        before = out.emit(f"load double, ptr {at}")
        if largest:
            total = out.call("llvm.maximum.f64", "double", ("double", before), ("double", total))
        else:
            total = out.emit(f"fadd double {before}, {total}")
        out.lines.append(f"  store double {total}, ptr {at}")


def _start(reduction: Node) -> str:
    """What a sum or maximum of nothing is."""
    return "0xFFF0000000000000" if reduction.op.startswith("max") else "0.0"
