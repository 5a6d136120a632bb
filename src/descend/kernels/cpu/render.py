"""Renders a staged program as LLVM IR: one loop over vectors of elements, strict IEEE arithmetic.

No operation carries a fast-math flag; the only fused multiply-adds are those that staging wrote. The
remainder of a tensor runs the same operations under a mask, so an element's bits depend neither on its
place nor on how the work was cut.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ...formula.nodes import Node, text
from ...formula.stage import Pass, Program

STORAGE = {"float32": "float", "float64": "double", "float16": "half", "bfloat16": "i16"}
SIZES = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}
_PLAIN = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_COMPARE = {"lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "eq": "oeq", "ne": "une"}
_INTRINSIC = {
    "sqrt": "sqrt",
    "abs": "fabs",
    "exp": "exp",
    "log": "log",
    "tanh": "tanh",
    "sin": "sin",
    "cos": "cos",
    "floor": "floor",
    "minimum": "minimum",
    "maximum": "maximum",
    "pow": "pow",
    "fma": "fma",
}


def compute_type(dtype: str) -> str:
    """The precision of the arithmetic: float64 for float64, float32 for everything else."""
    return "float64" if dtype == "float64" else "float32"


@dataclass
class _Lines:
    """Collects instructions and declarations, and numbers temporaries."""

    lines: list[str]
    declared: dict[str, str]
    count: int = 0

    def emit(self, instruction: str, note: str = "") -> str:
        self.count += 1
        label = f"%t{self.count}"
        self.lines.append(f"  {label} = {instruction}{'  ; ' + note if note else ''}")
        return label

    def call(self, name: str, returns: str, *arguments: tuple[str, str], note: str = "") -> str:
        kinds = ", ".join(kind for kind, _ in arguments)
        self.declared[name] = f"declare {returns} @{name}({kinds})"
        given = ", ".join(f"{kind} {value}" for kind, value in arguments)
        return self.emit(f"call {returns} @{name}({given})", note)


@dataclass(frozen=True)
class Renderer:
    """Renders one pass of a program, for one storage type per operand and one vector width (in elements)."""

    program: Program
    dtypes: tuple[str, ...]
    width: int
    number: int = 0

    @property
    def one(self) -> Pass:
        """The pass."""
        return self.program.passes[self.number]

    def dtype(self, word: str) -> str:
        """The storage type of an operand."""
        return self.dtypes[self.program.operands.index(word)]

    @property
    def scalar(self) -> str:
        """The LLVM type of the arithmetic."""
        return STORAGE[self.precision]

    @property
    def precision(self) -> str:
        """The precision of the arithmetic, float32 or float64."""
        return compute_type(self.dtypes[0])

    @property
    def vector(self) -> str:
        """The LLVM type of a vector of elements."""
        return f"<{self.width} x {self.scalar}>"

    @property
    def suffix(self) -> str:
        """How intrinsics name that vector type."""
        return f"v{self.width}f{'64' if self.precision == 'float64' else '32'}"

    def module(self) -> str:
        """The whole module: `run(ctx)` takes chunks until none is left, `body` does one chunk."""
        declared: dict[str, str] = {}
        body = self._body(declared)
        parts = [f"; {line}" for line in self.program.rule.formula_text.splitlines()]
        parts += ["", body, self._driver(), *declared.values()]
        wide = 'attributes #0 = { nounwind "prefer-vector-width"="512" }'
        return "\n".join([*parts, wide, ""])

    def _driver(self) -> str:
        operands, sums = self.program.operands, len(self.one.reductions)
        lines = [
            "; ctx: next chunk, chunk count, chunks, addresses, rows, sums",
            "; a chunk: tensor, offset, length, row",
            "define void @run(ptr %ctx) #0 {",
            "entry:",
        ]
        for k, field in enumerate(("next", "count", "chunks", "addresses", "rows", "sums")):
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
            "  %at = mul i64 %i, 4",
        ]
        for k, field in enumerate(("tensor", "offset", "length", "line")):
            lines.append(f"  %{field}_k = add i64 %at, {k}")
            lines.append(f"  %{field}_at = getelementptr i64, ptr %chunks, i64 %{field}_k")
            lines.append(f"  %{field} = load i64, ptr %{field}_at")
        lines.append(f"  %first = mul i64 %tensor, {len(operands)}")
        given = []
        for word in self.one.operands:
            lines += [
                f"  %of.{word}_k = add i64 %first, {operands.index(word)}",
                f"  %of.{word}_at = getelementptr ptr, ptr %addresses, i64 %of.{word}_k",
                f"  %of.{word}_base = load ptr, ptr %of.{word}_at",
                f"  %of.{word} = getelementptr {STORAGE[self.dtype(word)]}, ptr %of.{word}_base, i64 %offset",
            ]
            given.append(f"ptr %of.{word}, ")
        lines += [
            # after a reduction every tensor has a row of its own
            f"  %row_k = mul i64 %{'tensor' if self.number else 'line'}, {max(1, len(self.one.scalars.row))}",
            "  %s = getelementptr double, ptr %rows, i64 %row_k",
            f"  %sum_k = mul i64 %i, {sums}",
            "  %out = getelementptr double, ptr %sums, i64 %sum_k",
            f"  call void @body({''.join(given)}i64 %length, ptr %s, ptr %out)",
            "  br label %next",
            "done:",
            "  ret void",
            "}",
        ]
        return "\n".join(lines)

    def _body(self, declared: dict[str, str]) -> str:
        width = self.width
        head = _Lines([], declared)
        leaves: dict[Node, str] = {}
        for n, k in self.one.row_index.items():
            at = head.emit(f"getelementptr double, ptr %s, i64 {k}")
            value = head.emit(f"load double, ptr {at}", f"s[{k}] = {text(n)}")
            if n.is_condition:
                value = head.emit(f"fcmp une double {value}, 0.0")
            elif self.precision == "float32":
                value = head.emit(f"fptrunc double {value} to float")
            leaves[n] = self._splat(head, value, "i1" if n.is_condition else self.scalar)
        signature = "".join(f"ptr noalias %of.{word}, " for word in self.one.operands)
        for k, reduction in enumerate(self.one.reductions):
            head.lines.append(f"  %sum{k} = alloca {self.sums}")
            head.lines.append(f"  store {self.sums} {self._start(reduction)}, ptr %sum{k}")
        whole = _Lines([], declared, head.count)
        self._elements(whole, leaves, "%i", None)
        rest = _Lines([], declared, whole.count)
        last = _Lines([], declared, 0)
        index = ", ".join(f"i64 {k}" for k in range(width))
        left = rest.emit("sub i64 %n, %full")
        mask = rest.emit(f"icmp ult <{width} x i64> <{index}>, {self._splat(rest, left, 'i64')}")
        self._elements(rest, leaves, "%full", mask)
        for k, reduction in enumerate(self.one.reductions):
            self._finish(last, reduction, k)
        return "\n".join(
            [
                f"define internal void @body({signature}i64 %n, ptr noalias readonly %s, ptr %out) #0 {{",
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
                *(line.replace("%t", "%z") for line in last.lines),
                "  ret void",
                "}",
            ]
        )

    @property
    def sums(self) -> str:
        """The LLVM type that sums are kept in: float64, so that squares of float32 never overflow."""
        return f"<{self.width} x double>"

    def _start(self, reduction: Node) -> str:
        start = "0xFFF0000000000000" if reduction.op.startswith("max") else "0.0"
        return f"<{', '.join([f'double {start}'] * self.width)}>"

    def _add(
        self, out: _Lines, k: int, reduction: Node, n: Node, values: dict[Node, str], mask: str | None
    ) -> None:
        """Add one vector of elements to a sum; a product is formed in float64."""
        factors = [self._wide(out, self._value(a, values)) for a in (n.args if n.op == "mul" else (n,))]
        value = factors[0]
        if len(factors) == 2:
            value = out.emit(f"fmul {self.sums} {factors[0]}, {factors[1]}")
        if mask is not None:
            chosen = f"select <{self.width} x i1> {mask}, {self.sums} {value}, {self.sums}"
            value = out.emit(f"{chosen} {self._start(reduction)}")
        before = out.emit(f"load {self.sums}, ptr %sum{k}")
        if reduction.op.startswith("max"):
            name = f"llvm.maximum.v{self.width}f64"
            after = out.call(name, self.sums, (self.sums, before), (self.sums, value), note=text(reduction))
        else:
            after = out.emit(f"fadd {self.sums} {before}, {value}", text(reduction))
        out.lines.append(f"  store {self.sums} {after}, ptr %sum{k}")

    def _wide(self, out: _Lines, value: str) -> str:
        return (
            value if self.precision == "float64" else out.emit(f"fpext {self.vector} {value} to {self.sums}")
        )

    def _finish(self, out: _Lines, reduction: Node, k: int) -> None:
        """The lanes of a sum added in order, into this chunk's place."""
        lanes = out.emit(f"load {self.sums}, ptr %sum{k}")
        if reduction.op.startswith("max"):
            total = out.call(f"llvm.vector.reduce.fmaximum.v{self.width}f64", "double", (self.sums, lanes))
        else:
            name = f"llvm.vector.reduce.fadd.v{self.width}f64"
            total = out.call(name, "double", ("double", "-0.0"), (self.sums, lanes))
        at = out.emit(f"getelementptr double, ptr %out, i64 {k}")
        out.lines.append(f"  store double {total}, ptr {at}")

    def _elements(self, out: _Lines, leaves: dict[Node, str], index: str, mask: str | None) -> None:
        values = dict(leaves)
        pointers = {}
        for word in self.one.operands:
            pointers[word] = out.emit(
                f"getelementptr {STORAGE[self.dtype(word)]}, ptr %of.{word}, i64 {index}"
            )
            if word in self.one.reads:
                values[Node("name", (), word)] = self._load(out, pointers[word], self.dtype(word), mask)
        labels = {n: f"s[{i}]" for n, i in self.one.row_index.items()}
        for n in self.one.body:
            values[n] = self._operation(out, n, values, f"{self.program.labels[n]} = {text(n, labels)}")
            labels[n] = self.program.labels[n]
        for k, (reduction, n) in enumerate(self.one.reductions.items()):
            self._add(out, k, reduction, n, values, mask)
        for word, n in self.one.written.items():
            self._store(out, self._value(n, values), pointers[word], self.dtype(word), mask)

    def _operation(self, out: _Lines, n: Node, values: dict[Node, str], note: str) -> str:
        v = self.vector
        arguments = [self._value(a, values) for a in n.args]
        if n.op in _PLAIN:
            return out.emit(f"{_PLAIN[n.op]} {v} {arguments[0]}, {arguments[1]}", note)
        if n.op in _COMPARE:
            return out.emit(f"fcmp {_COMPARE[n.op]} {v} {arguments[0]}, {arguments[1]}", note)
        if n.op == "neg":
            return out.emit(f"fneg {v} {arguments[0]}", note)
        if n.op == "where":
            condition = f"<{self.width} x i1> {arguments[0]}"
            return out.emit(f"select {condition}, {v} {arguments[1]}, {v} {arguments[2]}", note)
        if n.op == "sign":  # x itself where it is zero or NaN
            below = out.emit(f"fcmp olt {v} {arguments[0]}, {self._constant(0)}")
            above = out.emit(f"fcmp ogt {v} {arguments[0]}, {self._constant(0)}")
            kept = out.emit(
                f"select <{self.width} x i1> {below}, {v} {self._constant(-1)}, {v} {arguments[0]}"
            )
            return out.emit(f"select <{self.width} x i1> {above}, {v} {self._constant(1)}, {v} {kept}", note)
        name = f"llvm.{_INTRINSIC[n.op]}.{self.suffix}"
        return out.call(name, v, *((v, a) for a in arguments), note=note)

    def _value(self, n: Node, values: dict[Node, str]) -> str:
        return self._constant(n.number) if n.op == "const" else values[n]

    def _number(self, value: float) -> str:
        if self.precision == "float32":
            value = struct.unpack("<f", struct.pack("<f", value))[0]
        return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"

    def _constant(self, value: float) -> str:
        return f"<{', '.join([f'{self.scalar} {self._number(value)}'] * self.width)}>"

    def _splat(self, out: _Lines, value: str, kind: str) -> str:
        one = out.emit(f"insertelement <{self.width} x {kind}> poison, {kind} {value}, i64 0")
        return out.emit(
            f"shufflevector <{self.width} x {kind}> {one}, <{self.width} x {kind}> poison, "
            f"<{self.width} x i32> zeroinitializer"
        )

    def _load(self, out: _Lines, at: str, dtype: str, mask: str | None) -> str:
        kind = f"<{self.width} x {STORAGE[dtype]}>"
        if mask is None:
            value = out.emit(f"load {kind}, ptr {at}, align {SIZES[dtype]}")
        else:
            name = f"llvm.masked.load.v{self.width}{_short(dtype)}.p0"
            value = out.call(
                name,
                kind,
                ("ptr", at),
                ("i32", str(SIZES[dtype])),
                (f"<{self.width} x i1>", mask),
                (kind, "zeroinitializer"),
            )
        if dtype == "float16":
            return out.emit(f"fpext {kind} {value} to {self.vector}")
        if dtype == "bfloat16":
            ints = f"<{self.width} x i32>"
            wide = out.emit(f"zext {kind} {value} to {ints}")
            high = out.emit(f"shl {ints} {wide}, {self._integers(16)}")
            return out.emit(f"bitcast {ints} {high} to {self.vector}")
        return value

    def _store(self, out: _Lines, value: str, at: str, dtype: str, mask: str | None) -> None:
        kind = f"<{self.width} x {STORAGE[dtype]}>"
        if dtype == "float16":
            value = out.emit(f"fptrunc {self.vector} {value} to {kind}")
        elif dtype == "bfloat16":
            value = self._round_to_bfloat16(out, value, kind)
        if mask is None:
            out.lines.append(f"  store {kind} {value}, ptr {at}, align {SIZES[dtype]}")
            return
        name = f"llvm.masked.store.v{self.width}{_short(dtype)}.p0"
        out.declared[name] = f"declare void @{name}({kind}, ptr, i32, <{self.width} x i1>)"
        out.lines.append(
            f"  call void @{name}({kind} {value}, ptr {at}, i32 {SIZES[dtype]}, <{self.width} x i1> {mask})"
        )

    def _round_to_bfloat16(self, out: _Lines, value: str, kind: str) -> str:
        """To nearest, ties to even; done on integers because the hardware's instruction flushes denormals."""
        ints = f"<{self.width} x i32>"
        bits = out.emit(f"bitcast {self.vector} {value} to {ints}")
        odd = out.emit(f"lshr {ints} {bits}, {self._integers(16)}")
        odd = out.emit(f"and {ints} {odd}, {self._integers(1)}")
        bias = out.emit(f"add {ints} {odd}, {self._integers(0x7FFF)}")
        rounded = out.emit(f"add {ints} {bits}, {bias}")
        quiet = out.emit(f"or {ints} {bits}, {self._integers(0x400000)}")
        nan = out.emit(f"fcmp uno {self.vector} {value}, {value}")
        chosen = out.emit(f"select <{self.width} x i1> {nan}, {ints} {quiet}, {ints} {rounded}")
        high = out.emit(f"lshr {ints} {chosen}, {self._integers(16)}")
        return out.emit(f"trunc {ints} {high} to {kind}")

    def _integers(self, value: int) -> str:
        return f"<{', '.join([f'i32 {value}'] * self.width)}>"


def _short(dtype: str) -> str:
    return {"float32": "f32", "float64": "f64", "float16": "f16", "bfloat16": "i16"}[dtype]
