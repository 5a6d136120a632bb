"""LLVM instructions for a vector of elements: arithmetic, and loads and stores of every storage type."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ...formula.nodes import Node

STORAGE = {"float32": "float", "float64": "double", "float16": "half", "bfloat16": "i16"}
SIZES = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}
LINE = 64
"""Bytes of a line of the cache, which tensors begin with."""
_SHORT = {"float32": "f32", "float64": "f64", "float16": "f16", "bfloat16": "i16"}
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
    "pow": "pow",
    "fma": "fma",
}


_ROOT = """
declare <16 x float> @{RSQRT}(<16 x float>, <16 x float>, i16)

define internal <16 x float> @root(<16 x float> %x) alwaysinline #0 {
  %bits = bitcast <16 x float> %x to <16 x i32>
  %above = sub <16 x i32> %bits, {LEAST}
  %usual = icmp ult <16 x i32> %above, {SPAN}
  %zero = icmp eq <16 x i32> %bits, zeroinitializer
  %either = or <16 x i1> %usual, %zero
  %all = bitcast <16 x i1> %either to i16
  %quick = icmp eq i16 %all, -1
  br i1 %quick, label %steps, label %divider
steps:
  %mask = bitcast <16 x i1> %usual to i16
  %guess = call <16 x float> @{RSQRT}(<16 x float> %x, <16 x float> zeroinitializer, i16 %mask)
  %root = fmul <16 x float> %x, %guess
  %half = fmul <16 x float> %guess, {HALF}
  %less = fneg <16 x float> %root
  %off = call <16 x float> @llvm.fma.v16f32(<16 x float> %less, <16 x float> %half, <16 x float> {HALF})
  %root2 = call <16 x float> @llvm.fma.v16f32(<16 x float> %root, <16 x float> %off, <16 x float> %root)
  %half2 = call <16 x float> @llvm.fma.v16f32(<16 x float> %half, <16 x float> %off, <16 x float> %half)
  %less2 = fneg <16 x float> %root2
  %rest = call <16 x float> @llvm.fma.v16f32(<16 x float> %less2, <16 x float> %root2, <16 x float> %x)
  %root3 = call <16 x float> @llvm.fma.v16f32(<16 x float> %rest, <16 x float> %half2, <16 x float> %root2)
  ret <16 x float> %root3
divider:
  %slow = call <16 x float> @llvm.sqrt.v16f32(<16 x float> %x)
  ret <16 x float> %slow
}"""
"""The root of AVX-512 in multiplications, rounded correctly, which leaves the divider to divisions.

Newton's step from an estimate of 14 bits, then one on the exact remainder. It is for zeros and from 2**-78 to
2**127, where no remainder is lost; any other number sends its vector to the divider.
"""


def _bits_of(power: int) -> int:
    """The bits of a power of two in float32."""
    return (127 + power) << 23


_LEAST, _MOST = _bits_of(-78), _bits_of(127)
for _word, _value in (("LEAST", f"i32 {_LEAST}"), ("SPAN", f"i32 {_MOST - _LEAST}"), ("HALF", "float 0.5")):
    _ROOT = _ROOT.replace(f"{{{_word}}}", f"<{', '.join([_value] * 16)}>")
_ROOT = _ROOT.replace("{RSQRT}", "llvm.x86.avx512.rsqrt14.ps.512")


def compute_type(dtype: str) -> str:
    """The precision of the arithmetic: float64 for float64, float32 for everything else."""
    return "float64" if dtype == "float64" else "float32"


@dataclass
class Lines:
    """Collects instructions and declarations, and numbers temporaries."""

    lines: list[str]
    declared: dict[str, str]
    count: int = 0

    def emit(self, instruction: str, note: str = "") -> str:
        """Add an instruction; the name of its result."""
        self.count += 1
        label = f"%t{self.count}"
        self.lines.append(f"  {label} = {instruction}{'  ; ' + note if note else ''}")
        return label

    def do(self, *instructions: str) -> None:
        """Add instructions without a result."""
        self.lines += [f"  {instruction}" for instruction in instructions]

    def call(self, name: str, returns: str, *arguments: tuple[str, str], note: str = "") -> str:
        """Call an intrinsic with (type, value) pairs, and declare it."""
        kinds = ", ".join(kind for kind, _ in arguments)
        self.declared[name] = f"declare {returns} @{name}({kinds})"
        given = ", ".join(f"{kind} {value}" for kind, value in arguments)
        return self.emit(f"call {returns} @{name}({given})", note)

    def at(self, kind: str, base: str, index: str | int, note: str = "") -> str:
        """The address of an item of an array."""
        return self.emit(f"getelementptr {kind}, ptr {base}, i64 {index}", note)

    def load(self, kind: str, base: str, index: str | int, note: str = "") -> str:
        """An item of an array."""
        return self.emit(f"load {kind}, ptr {self.at(kind, base, index, note)}")

    def place(self, row: str, width: str | int, column: str | int) -> str:
        """row * width + column."""
        return self.emit(f"add i64 {self.emit(f'mul i64 {row}, {width}')}, {column}")

    def sooner(self, one: str, other: str) -> str:
        """The smaller of two whole numbers."""
        return self.emit(f"select i1 {self.emit(f'icmp slt i64 {one}, {other}')}, i64 {one}, i64 {other}")

    def label(self, name: str) -> None:
        """Begin a block, which the one before runs into."""
        self.lines += [f"  br label %{name}", f"{name}:"]

    def when(self, condition: str, then: str, otherwise: str) -> None:
        """Go on in one of two blocks; the first begins here."""
        self.lines += [f"  br i1 {condition}, label %{then}, label %{otherwise}", f"{then}:"]

    @contextmanager
    def each(
        self, name: str, stop: str, start: str = "0", step: int = 1, carried: Sequence[tuple[str, str]] = ()
    ) -> Iterator[str]:
        """A loop; gives its index.

        Of what is `carried` from turn to turn, (type, value) pairs, the body finds number k as %name.k and
        leaves it for the next turn as %name.k.next.
        """
        self.label(f"{name}.from")
        self.label(name)
        index = f"%{name}.i"
        for k, (kind, first) in enumerate([("i64", start), *carried], -1):
            value = index if k < 0 else f"%{name}.{k}"
            self.do(f"{value} = phi {kind} [ {first}, %{name}.from ], [ {value}.next, %{name}.step ]")
        more = self.emit(f"icmp slt i64 {index}, {stop}")
        self.when(more, f"{name}.body", f"{name}.end")
        yield index
        self.label(f"{name}.step")
        self.do(f"{index}.next = add i64 {index}, {step}", f"br label %{name}")
        self.lines.append(f"{name}.end:")


@dataclass(frozen=True)
class Lanes:
    """Vectors of `width` elements, computed in `precision`: strict IEEE, without any fast-math flag.

    `quick_root`: take roots in multiplications, which sixteen float32 can, with the same bits.
    """

    precision: str
    width: int
    quick_root: bool = False

    @property
    def scalar(self) -> str:
        """The LLVM type of one element in the arithmetic."""
        return STORAGE[self.precision]

    @property
    def vector(self) -> str:
        """The LLVM type of a vector of elements."""
        return f"<{self.width} x {self.scalar}>"

    @property
    def wide(self) -> str:
        """The LLVM type that sums are kept in: float64, so that squares of float32 never overflow."""
        return f"<{self.width} x double>"

    @property
    def truth(self) -> str:
        """The LLVM type of a vector of truth values."""
        return f"<{self.width} x i1>"

    @property
    def true(self) -> str:
        """A vector of conditions that hold."""
        return f"<{', '.join(['i1 true'] * self.width)}>"

    def number(self, value: float) -> str:
        """A constant, rounded to the precision."""
        if self.precision == "float32":
            value = struct.unpack("<f", struct.pack("<f", value))[0]
        return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"

    def constant(self, value: float) -> str:
        """A vector of one constant."""
        return f"<{', '.join([f'{self.scalar} {self.number(value)}'] * self.width)}>"

    def splat(self, out: Lines, value: str, kind: str) -> str:
        """A vector of one value of an LLVM type."""
        one = out.emit(f"insertelement <{self.width} x {kind}> poison, {kind} {value}, i64 0")
        zero = f"<{self.width} x i32> zeroinitializer"
        return out.emit(
            f"shufflevector <{self.width} x {kind}> {one}, <{self.width} x {kind}> poison, {zero}"
        )

    def mask(self, out: Lines, start: str, stop: str) -> str:
        """Which elements of the vector from `start` on come before `stop`."""
        index = ", ".join(f"i64 {k}" for k in range(self.width))
        left = out.emit(f"sub i64 {stop}, {start}")
        return out.emit(f"icmp ult <{self.width} x i64> <{index}>, {self.splat(out, left, 'i64')}")

    def operation(self, out: Lines, op: str, arguments: list[str], note: str = "") -> str:
        """One operation of a formula on vectors."""
        v = self.vector
        if op in _PLAIN:
            return out.emit(f"{_PLAIN[op]} {v} {arguments[0]}, {arguments[1]}", note)
        if op in _COMPARE:
            return out.emit(f"fcmp {_COMPARE[op]} {v} {arguments[0]}, {arguments[1]}", note)
        if op == "neg":
            return out.emit(f"fneg {v} {arguments[0]}", note)
        if op == "where":
            return out.emit(
                f"select {self.truth} {arguments[0]}, {v} {arguments[1]}, {v} {arguments[2]}", note
            )
        if op in ("minimum", "maximum"):  # llvm.minimum would take twice as long, to tell -0 from 0
            a, b = arguments
            apart = out.emit(f"fcmp {'olt' if op == 'minimum' else 'ogt'} {v} {a}, {b}")
            chosen = out.emit(f"select {self.truth} {apart}, {v} {a}, {v} {b}")
            lost = out.emit(f"fcmp uno {v} {a}, {a}")
            return out.emit(f"select {self.truth} {lost}, {v} {a}, {v} {chosen}", note)
        if op == "sign":  # x itself where it is zero or NaN
            below = out.emit(f"fcmp olt {v} {arguments[0]}, {self.constant(0)}")
            above = out.emit(f"fcmp ogt {v} {arguments[0]}, {self.constant(0)}")
            kept = out.emit(f"select {self.truth} {below}, {v} {self.constant(-1)}, {v} {arguments[0]}")
            return out.emit(f"select {self.truth} {above}, {v} {self.constant(1)}, {v} {kept}", note)
        if op == "sqrt" and self.quick_root:
            out.declared["root"] = _ROOT
            for word, takes in (("sqrt", 1), ("fma", 3)):
                name = f"llvm.{word}.v16f32"
                out.declared[name] = f"declare {v} @{name}({', '.join([v] * takes)})"
            return out.emit(f"call {v} @root({v} {arguments[0]})", note)
        name = f"llvm.{_INTRINSIC[op]}.v{self.width}{_SHORT[self.precision]}"
        return out.call(name, v, *((v, a) for a in arguments), note=note)

    def value(self, n: Node, values: dict[Node, str]) -> str:
        """The vector of a node: a constant, or what has been computed."""
        return self.constant(n.number) if n.op == "const" else values[n]

    def is_usual(self, out: Lines, *totals: str) -> str:
        """Whether all sums of a few squares are numbers of which float32 has lost nothing.

        Above 2**127 it may have overflowed, below 2**-96 squares may have sunk into the denormal numbers.
        """
        assert self.precision == "float32"
        least = self._integers(_bits_of(-96))
        above = [out.emit(f"sub {self.whole} {self._as_bits(out, total)}, {least}") for total in totals]
        most, *others = above
        for one in others:
            most = out.call(f"llvm.umax.v{self.width}i32", self.whole, (self.whole, most), (self.whole, one))
        usual = out.emit(f"icmp ult {self.whole} {most}, {self._integers(_bits_of(127) - _bits_of(-96))}")
        all_of_them = out.emit(f"bitcast {self.truth} {usual} to i{self.width}")
        return out.emit(f"icmp eq i{self.width} {all_of_them}, -1")

    def _as_bits(self, out: Lines, value: str) -> str:
        return out.emit(f"bitcast {self.vector} {value} to {self.whole}")

    def nan_bits(self, out: Lines, value: str) -> str:
        """Bits that make a NaN of any number where `value` is NaN, and change nothing elsewhere."""
        nan = out.emit(f"fcmp uno {self.vector} {value}, {value}")
        return out.emit(f"sext {self.truth} {nan} to {self.whole}")

    def bounded(self, out: Lines, op: str, bound: str, x: str, nan_bits: str | None, note: str) -> str:
        """The "minimum" or "maximum" of x and of a bound whose `nan_bits` were found outside of the loop."""
        nearer = out.emit(f"fcmp {'olt' if op == 'minimum' else 'ogt'} {self.vector} {bound}, {x}")
        chosen = out.emit(f"select {self.truth} {nearer}, {self.vector} {bound}, {self.vector} {x}", note)
        if nan_bits is None:
            return chosen
        bits = out.emit(
            f"or {self.whole} {out.emit(f'bitcast {self.vector} {chosen} to {self.whole}')}, {nan_bits}"
        )
        return out.emit(f"bitcast {self.whole} {bits} to {self.vector}")

    @property
    def whole(self) -> str:
        """The LLVM type of a vector of whole numbers, as wide as the elements are."""
        return f"<{self.width} x {'i64' if self.precision == 'float64' else 'i32'}>"

    def fetch(self, out: Lines, at: str, ahead: int) -> None:
        """Ask for the memory so many bytes behind an address; past the end of a tensor nothing happens."""
        out.declared["llvm.prefetch.p0"] = "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)"
        place = out.emit(f"getelementptr i8, ptr {at}, i64 {ahead}")
        out.lines.append(f"  call void @llvm.prefetch.p0(ptr {place}, i32 0, i32 3, i32 1)")

    def load(self, out: Lines, at: str, dtype: str, mask: str | None) -> str:
        """A vector of elements of a storage type, in the precision of the arithmetic."""
        kind = f"<{self.width} x {STORAGE[dtype]}>"
        if mask is None:
            value = out.emit(f"load {kind}, ptr {at}, align {SIZES[dtype]}")
        else:
            name = f"llvm.masked.load.v{self.width}{_SHORT[dtype]}.p0"
            size, zeros = ("i32", str(SIZES[dtype])), (kind, "zeroinitializer")
            value = out.call(name, kind, ("ptr", at), size, (self.truth, mask), zeros)
        return self._computed(out, value, dtype)

    def load_one(self, out: Lines, at: str, dtype: str) -> str:
        """One element, in every lane."""
        value = out.emit(f"load {STORAGE[dtype]}, ptr {at}, align {SIZES[dtype]}")
        return self._computed(out, self.splat(out, value, STORAGE[dtype]), dtype)

    def _computed(self, out: Lines, value: str, dtype: str) -> str:
        kind = f"<{self.width} x {STORAGE[dtype]}>"
        if dtype == "float16":
            return out.emit(f"fpext {kind} {value} to {self.vector}")
        if dtype == "bfloat16":
            ints = f"<{self.width} x i32>"
            wide = out.emit(f"zext {kind} {value} to {ints}")
            high = out.emit(f"shl {ints} {wide}, {self._integers(16)}")
            return out.emit(f"bitcast {ints} {high} to {self.vector}")
        if dtype != self.precision:
            return out.emit(f"{'fptrunc' if dtype == 'float64' else 'fpext'} {kind} {value} to {self.vector}")
        return value

    def widen(self, out: Lines, value: str) -> str:
        """A vector of the arithmetic in float64."""
        if self.precision == "float64":
            return value
        return out.emit(f"fpext {self.vector} {value} to {self.wide}")

    def store(
        self, out: Lines, value: str, at: str, dtype: str, mask: str | None, past: bool = False
    ) -> None:
        """Write a vector of the arithmetic as elements of a storage type.

        With `past` straight to memory, from the beginning of a line of the cache; others may read it after a
        fence.
        """
        kind = f"<{self.width} x {STORAGE[dtype]}>"
        if dtype == "bfloat16":
            value = self._round_to_bfloat16(out, value, kind)
        elif dtype != self.precision:
            step = "fpext" if dtype == "float64" else "fptrunc"
            value = out.emit(f"{step} {self.vector} {value} to {kind}")
        if past and mask is None:
            out.declared["!0"] = "!0 = !{i32 1}"
            align = min(LINE, self.width * SIZES[dtype])
            out.do(f"store {kind} {value}, ptr {at}, align {align}, !nontemporal !0")
        else:
            self.put(out, value, at, dtype, mask)

    def put(self, out: Lines, value: str, at: str, dtype: str, mask: str | None) -> None:
        """Write a vector that is of the storage type already."""
        kind = f"<{self.width} x {STORAGE[dtype]}>"
        if mask is None:
            out.lines.append(f"  store {kind} {value}, ptr {at}, align {SIZES[dtype]}")
            return
        name = f"llvm.masked.store.v{self.width}{_SHORT[dtype]}.p0"
        out.declared[name] = f"declare void @{name}({kind}, ptr, i32, {self.truth})"
        out.lines.append(
            f"  call void @{name}({kind} {value}, ptr {at}, i32 {SIZES[dtype]}, {self.truth} {mask})"
        )

    def _round_to_bfloat16(self, out: Lines, value: str, kind: str) -> str:
        """To nearest, ties to even; on integers because the hardware's instruction flushes denormals."""
        ints = f"<{self.width} x i32>"
        bits = out.emit(f"bitcast {self.vector} {value} to {ints}")
        odd = out.emit(f"lshr {ints} {bits}, {self._integers(16)}")
        odd = out.emit(f"and {ints} {odd}, {self._integers(1)}")
        bias = out.emit(f"add {ints} {odd}, {self._integers(0x7FFF)}")
        rounded = out.emit(f"add {ints} {bits}, {bias}")
        quiet = out.emit(f"or {ints} {bits}, {self._integers(0x400000)}")
        nan = out.emit(f"fcmp uno {self.vector} {value}, {value}")
        chosen = out.emit(f"select {self.truth} {nan}, {ints} {quiet}, {ints} {rounded}")
        high = out.emit(f"lshr {ints} {chosen}, {self._integers(16)}")
        return out.emit(f"trunc {ints} {high} to {kind}")

    def _integers(self, value: int) -> str:
        return f"<{', '.join([f'i32 {value}'] * self.width)}>"
