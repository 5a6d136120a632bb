"""What stands between two passes: the scalars of one tensor, from its sums, in float64.

Compiled too, so that a step of several passes needs Python once. The operations are those of the formula, one
rounding each, as NumPy does them; powers, exponentials and logarithms are the C library's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ...formula.nodes import Node, scope, text
from ...formula.program import Program
from ...formula.scalars import ScalarProgram, below
from .emit import Lanes, Lines
from .schedule import ORDER

FIELDS = (
    "arrived",
    *ORDER,
    "addresses",
    "rows",
    "lines",
    "extents",
    "totals",
    "sums",
    "vectors",
    "scratch",
    "records",
    "all",
    "joins",
    "left",
    "done",
    "tensors",
    "taking",
    "takers",
    "epoch",
    "rest",
    "which",
    "mode",
)
"""The context of a launch, 64-bit words, which `Table` sets:

`which` tells a thread its number in the team; where nothing does, `arrived`, the count of them, numbers them.
For every of the `phases`, and in it for every of the `lanes`, `next` is the batch to be taken next, from
`starts`, and `ends` where they end; batch b is the `entries` from batches[b] to batches[b + 1].
Of every tensor: `addresses` of its operands, `lines` its row among `rows` (the first pass's scalars),
`extents` its elements, rows and columns, `vectors` the addresses of its sums by row and column, `records` its
other sums and what follows from them. `totals` are the extents and `all` the sums over all that take part,
the `takers` named in `taking`. `sums` and `scratch` are the chunks' own sums, and by column, of which
`joins` counts who comes to add them up; `left` counts the chunks that are done, `done` is `epoch` where all
of a pass are; `rest` gives the processor away. `mode` says how the caller takes denormal numbers, for all
threads to do alike.
"""

ALONE = -1
"""The mode of a launch on the caller's thread alone, which itself begins all lanes anew."""

NUMBERS = ("phases", "lanes", "tensors", "takers", "epoch", "mode")
"""The fields that are whole numbers, not addresses."""


def field(out: Lines, name: str) -> str:
    """A field of the context `%ctx`."""
    kind = "i64" if name in NUMBERS else "ptr"
    return out.load(kind, "%ctx", FIELDS.index(name), name)


@dataclass(frozen=True)
class Records:
    """What is kept of every tensor during a step: its sums, its rows for later passes, its new states."""

    program: Program

    @cached_property
    def sums(self) -> dict[Node, int]:
        """Every reduction that is one number a tensor, or one of all tensors."""
        return {n: k for k, n in enumerate(self.program.final.reductions)}

    @cached_property
    def starts(self) -> list[int]:
        """Where the row of each pass begins, then the new states; the last is the width of a record."""
        found = [len(self.sums)] * 2  # the first pass has its row elsewhere
        for one in self.program.passes[1:]:
            found.append(found[-1] + len(one.scalars.late))
        return [*found, found[-1] + len(self.program.final.states)]

    @property
    def width(self) -> int:
        """Numbers in a record."""
        return max(1, self.starts[-1])

    def scalars(self, number: int) -> ScalarProgram:
        """The host's part before a pass; after the last one, the new states."""
        passes = self.program.passes
        return passes[number].scalars if number < len(passes) else self.program.final

    def wanted(self, number: int) -> list[Node]:
        """What has to be computed before a pass."""
        scalars = self.scalars(number)
        return [*scalars.late, *scalars.states.values()]

    def render(self, number: int, declared: dict[str, str]) -> str:
        """The function that computes it for one tensor."""
        out, one = Lines([], declared), Lanes("float64", 1)
        record = out.at("double", field(out, "records"), out.place("%tensor", self.width, 0))
        line = out.load("i64", field(out, "lines"), "%tensor")
        row = out.at("double", field(out, "rows"), out.place(line, max(1, len(self.program.scalars.row)), 0))
        everyone = field(out, "all")
        first = {n: k for k, n in enumerate(self.program.scalars.row)}
        values: dict[Node, str] = {}

        def value(n: Node) -> str:
            if n.op == "const":
                return one.constant(n.number)
            if n not in values:
                base = row if n in first else everyone if scope(n) == "global" else record
                at = out.at("double", base, first[n] if n in first else self.sums[n])
                values[n] = out.emit(f"load {one.vector}, ptr {at}", text(n))
                if n.is_condition:
                    values[n] = one.operation(out, "ne", [values[n], one.constant(0)])
            return values[n]

        roots, scalars = self.wanted(number), self.scalars(number)
        for n in below(roots, scalars.known):
            if n.args:
                values[n] = one.operation(out, n.op, [value(a) for a in n.args], text(n))
        for k, n in enumerate(roots):
            found = value(n)
            if n.is_condition:
                found = out.emit(f"uitofp {one.truth} {found} to {one.vector}")
            out.do(f"store {one.vector} {found}, ptr {out.at('double', record, self.starts[number] + k)}")
        head = f"define internal void @glue{number}(ptr %ctx, i64 %tensor) noinline #0 {{"
        return "\n".join([head, *out.lines, "  ret void", "}"])
