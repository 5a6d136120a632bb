"""Renders a whole program as one LLVM module: the passes, and what hands their chunks to the threads.

`run(ctx)` takes batches of chunks, in the order of `schedule`, until none is left. A chunk of a later pass
waits until the pass before is done with its tensor, or with all where that one sums over all. Whoever does a
tensor's last chunk adds up the chunks' sums, in their order (but `strips` in a tree), and computes the
tensor's scalars for the next pass. `between(ctx, k)` computes those alone, for steps that go through Python
between the passes (`epoch` is 0 there, and nothing waits).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ...formula.nodes import scope
from ...formula.program import Program
from .compiler import is_x86
from .emit import Lines
from .glue import ALONE, FIELDS, Records, field
from .render import Body
from .schedule import ENTRY, strips_of
from .strips import Strips
from .sums import add_up, divide, start_of
from .sweep import Operand, Sweep
from .tiles import BLOCK, Tiles
from .waiting import waiting

DOMAINS = ("element", "rows", "columns", "left", "right")
"""The order of the extents."""

_MODE = """
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)

define i64 @mode() #0 {
  %at = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %at)
  %now = load i32, ptr %at
  %flags = and i32 %now, 32832
  %wide = zext i32 %flags to i64
  ret i64 %wide
}

define internal void @adopt(i64 %mode) #0 {
  %at = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %at)
  %now = load i32, ptr %at
  %rest = and i32 %now, -32833
  %flags = trunc i64 %mode to i32
  %new = or i32 %rest, %flags
  store i32 %new, ptr %at
  call void @llvm.x86.sse.ldmxcsr(ptr %at)
  ret void
}
"""
"""Whether denormal numbers are taken for zeros, as operands and as results: bits 0x8040 of every thread's own
control word, which `mode` reads and `adopt` sets."""

_NO_MODE = """
define i64 @mode() #0 {
  ret i64 0
}

define internal void @adopt(i64 %mode) #0 {
  ret void
}
"""


@dataclass(frozen=True)
class Driver:
    """Renders a program for one storage type per operand, `width` elements at a time."""

    program: Program
    dtypes: tuple[str, ...]
    width: int

    @cached_property
    def records(self) -> Records:
        """What is kept of every tensor."""
        return Records(self.program)

    @cached_property
    def passes(self) -> list[Sweep]:
        """Every pass."""
        return [Sweep(self.program, self.dtypes, self.width, k) for k in range(len(self.program.passes))]

    @cached_property
    def _after(self) -> list[list[int]]:
        """What is computed after every pass: the next one's row, and after all sums the new states."""
        last = len(self.passes)
        summing = [k for k, one in enumerate(self.passes) if one.sums.tensor]
        final = {summing[-1]: [last]} if summing else {}
        rows = [[k + 1] if k + 1 < last else [] for k in range(last)]
        return [[j for j in [*rows[k], *final.get(k, [])] if self.records.wanted(j)] for k in range(last)]

    def module(self) -> str:
        """The whole module."""
        declared: dict[str, str] = {}
        parts = [f"; {line}" for line in self.program.rule.formula_text.splitlines()]
        for one in self.passes:
            if not one.sums.all_tiled:
                parts += ["", Body(one).text(declared)]
            if tiles := Tiles(one):
                parts += ["", tiles.text(declared)]
            parts += ["", self._chunk(one, declared)]
            if self._finishes(one):
                parts += ["", self._finish(one, declared)]
        steps = [k for k in range(1, len(self.passes) + 1) if self.records.wanted(k)]
        parts += [part for k in steps for part in ("", self.records.render(k, declared))]
        parts += ["", self._between(steps)]
        parts += waiting(declared)
        parts += ["", _MODE if is_x86() else _NO_MODE, "", self._run(), "", *declared.values()]
        return "\n".join([*parts, 'attributes #0 = { nounwind "prefer-vector-width"="512" }', ""])

    def _finishes(self, one: Sweep) -> bool:
        """Whether the last chunk of a tensor has something to do, or others wait for it."""
        return one.number + 1 < len(self.passes) or bool(one.one.reductions)

    def _run(self) -> str:
        """Phase by phase the thread's own lane, then what is left of the others'."""
        out = Lines([], {})
        out.do("%spent = alloca i64", "store i64 0, ptr %spent")
        before, mode = out.emit("call i64 @mode()"), field(out, "mode")
        lanes, nexts, ends = (field(out, name) for name in ("lanes", "next", "ends"))
        batches, entries, starts = (field(out, name) for name in ("batches", "entries", "starts"))
        out.when(out.emit(f"icmp eq i64 {mode}, {ALONE}"), "alone", "several")
        with out.each("begin", out.emit(f"mul i64 {field(out, 'phases')}, {lanes}")) as k:
            out.do(f"store i64 {out.load('i64', starts, k)}, ptr {out.at('i64', nexts, k)}")
        out.do("br label %ready")
        out.lines.append("several:")
        out.do(f"call void @adopt(i64 {mode})")
        out.label("ready")
        me = self._me(out)
        with out.each("phase", field(out, "phases")) as phase, out.each("lane", lanes) as k:
            lane = out.emit(f"urem i64 {out.emit(f'add i64 {me}, {k}')}, {lanes}")
            cell = out.place(phase, lanes, lane)
            next_at, end = out.at("i64", nexts, cell), out.load("i64", ends, cell)
            out.label("next")
            out.when(out.emit(f"icmp eq i64 {k}, 0"), "own", "others")
            out.do("br label %take")
            out.lines.append("others:")
            out.do(f"call void @leave(ptr %ctx, ptr {next_at}, i64 {end}, ptr %spent)")
            out.label("take")
            batch = out.emit(f"atomicrmw add ptr {next_at}, i64 1 monotonic")
            out.when(out.emit(f"icmp slt i64 {batch}, {end}"), "batch", "none")
            if len({*self.program.leaders}) == 1:
                batch = self._mirrored(out, batch, out.load("i64", starts, cell), end)
            first = out.load("i64", batches, batch)
            after = out.load("i64", batches, out.emit(f"add i64 {batch}, 1"))
            with out.each("turn", out.emit(f"sub i64 {after}, {first}")) as turn:
                entry = out.at("i64", entries, out.place(out.emit(f"add i64 {first}, {turn}"), len(ENTRY), 0))
                number = out.load("i64", entry, 0)
                cases = " ".join(f"i64 {k}, label %pass{k}" for k in range(len(self.passes)))
                out.do(f"switch i64 {number}, label %pass0 [ {cases} ]")
                for one in self.passes:
                    out.lines.append(f"pass{one.number}:")
                    out.do(f"call void @chunk{one.number}(ptr %ctx, ptr {entry})", "br label %over")
                out.lines.append("over:")
            out.do("br label %next")
            out.lines.append("none:")
        out.do(f"call void @adopt(i64 {before})")
        return "\n".join(["define void @run(ptr %ctx) #0 {", *out.lines, "  ret void", "}"])

    def _mirrored(self, out: Lines, batch: str, start: str, end: str) -> str:
        """The batch that is taken instead in every other step, from the end that the last left cached.

        Where there are several passes, they do that among themselves.
        """
        odd = out.emit(f"trunc i64 {field(out, 'epoch')} to i1")
        last = out.emit(f"add i64 {out.emit(f'sub i64 {end}, 1')}, {start}")
        return out.emit(f"select i1 {odd}, i64 {out.emit(f'sub i64 {last}, {batch}')}, i64 {batch}")

    def _me(self, out: Lines) -> str:
        """The number of a thread: one that it has in every step, so that its lanes stay in its caches."""
        which, arrived = field(out, "which"), out.at("i64", "%ctx", FIELDS.index("arrived"))
        place = out.emit(f"atomicrmw add ptr {arrived}, i64 1 monotonic")
        out.when(out.emit(f"icmp eq ptr {which}, null"), "arriving", "member")
        out.do("br label %numbered")
        out.lines.append("member:")
        number = out.emit(f"zext i32 {out.emit(f'call i32 {which}()')} to i64")
        out.label("numbered")
        return out.emit(f"phi i64 [ {place}, %arriving ], [ {number}, %member ]")

    # -- one chunk -------------------------------------------------------------------------------------

    def _chunk(self, one: Sweep, declared: dict[str, str]) -> str:
        """Wait for what the chunk needs, run the pass over it, and finish the tensor after its last chunk."""
        out = Lines([], declared)
        entry = {word: out.load("i64", "%entry", k, word) for k, word in enumerate(ENTRY) if k}
        tensor = entry["tensor"]
        if one.number and self.program.leaders[one.number] == one.number:
            out.do(f"call void @wait(ptr %ctx, ptr {self._flag(out, 'done', one.number - 1, tensor)})")
        line = out.load("i64", field(out, "lines"), tensor)
        places = {
            "%s": (field(out, "rows"), out.place(line, max(1, len(self.program.scalars.row)), 0)),
            "%q": (
                field(out, "records"),
                out.place(tensor, self.records.width, self.records.starts[one.number]),
            ),
            "%out": (field(out, "sums"), entry["place"]),
        }
        for symbol, (base, place) in places.items():
            out.do(f"{symbol} = getelementptr double, ptr {base}, i64 {place}")
        for k, n in enumerate(one.sums.tensor):
            out.do(f"store double {start_of(n)}, ptr {out.at('double', '%out', k)}")
        touched = [*one.operands.values(), *map(one.vector, one.sums.rows)]
        bases = {x.symbol: self._base(out, x, tensor) for x in touched}
        unless = one.one.unless
        if unless is not None:
            holds = out.load("double", "%q", one.one.scalars.late.index(unless), "nobody wants the sums")
            out.when(out.emit(f"fcmp oeq double {holds}, 0.0"), "wanted", "unwanted")
        self._sweep(out, one, bases, entry)
        if unless is not None:
            out.label("unwanted")
        if self._finishes(one):
            out.do(f"call void @finish{one.number}(ptr %ctx, ptr %entry)")
        head = f"define internal void @chunk{one.number}(ptr %ctx, ptr %entry) #0 {{"
        return "\n".join([head, *out.lines, "  ret void", "}"])

    def _sweep(self, out: Lines, one: Sweep, bases: dict[str, str], entry: dict[str, str]) -> None:
        """The pass over a chunk."""
        offset, length, body = entry["offset"], entry["length"], Body(one)
        if self.program.is_matrix(one.number):
            columns = self._extent(out, "columns", entry["tensor"])
            strips = Strips(one, strips_of(self.program))
            strips.begin(out, bases, columns, field(out, "scratch"), entry["strip"])
            if tiles := Tiles(one):
                with out.each("block", length, step=BLOCK) as block:
                    count = out.sooner(out.emit(f"sub i64 {length}, {block}"), f"{BLOCK}")
                    first = out.emit(f"add i64 {offset}, {block}")
                    if not one.sums.all_tiled:
                        body.call(out, bases, out.place(first, columns, 0), columns, first, count)
                    tiles.call(out, bases, columns, first, count)
            else:
                body.call(out, bases, out.place(offset, columns, 0), columns, offset, length)
        else:
            body.call(out, bases, offset, length, offset, "1")
        if one.past and is_x86():
            out.declared["fence"] = "declare void @llvm.x86.sse.sfence()"
            out.do("call void @llvm.x86.sse.sfence()")

    def _base(self, out: Lines, operand: Operand, tensor: str) -> str:
        width = len(self.program.operands if operand.table == "addresses" else self.program.vectors)
        return out.load("ptr", field(out, operand.table), out.place(tensor, width, operand.index))

    def _extent(self, out: Lines, domain: str, tensor: str) -> str:
        place = out.place(field(out, "tensors"), DOMAINS.index(domain), tensor)
        return out.load("i64", field(out, "extents"), place)

    def _flag(self, out: Lines, name: str, number: int, tensor: str) -> str:
        """Where it is noted how much of a pass is done: of one tensor, or of all where it sums over all."""
        if self._is_global(number):
            place = out.place(field(out, "tensors"), len(self.passes), number)
        else:
            place = out.place(field(out, "tensors"), number, tensor)
        return out.at("i64", field(out, name), place)

    def _is_global(self, number: int) -> bool:
        return number in self.program.meets

    # -- the end of a pass over a tensor ---------------------------------------------------------------

    def _finish(self, one: Sweep, declared: dict[str, str]) -> str:
        """After the last chunk of a tensor: add up, compute what the next pass needs, and let it begin."""
        out, number = Lines([], declared), one.number
        entry = {word: out.load("i64", "%entry", k, word) for k, word in enumerate(ENTRY) if k}
        tensor, share = entry["tensor"], entry["share"]
        strips = Strips(one, strips_of(self.program))
        if strips:
            columns, rows = (self._extent(out, domain, tensor) for domain in ("columns", "rows"))
            first = strips.join(out, entry, columns, field(out, "scratch"), field(out, "joins"))
            for k, n in enumerate(one.sums.columns):
                strips.deliver(out, k, self._base(out, one.vector(n), tensor), columns, rows, first)
        else:
            out.when(out.emit(f"icmp eq i64 {share}, 1"), "alone", "several")
            out.do("br label %last")
            out.lines.append("several:")
            place = out.place(field(out, "tensors"), number, tensor)
            self._count(out, out.at("i64", field(out, "left"), place), share)
            out.label("last")
        if one.sums.tensor:
            self._join(out, one, entry)
        epoch = field(out, "epoch")
        out.when(out.emit(f"icmp ne i64 {epoch}, 0"), "settle", "end")
        after = self._after[number]
        flag = self._flag(out, "done", number, tensor)
        if self._is_global(number):
            self._count(out, self._flag(out, "left", number, tensor), field(out, "takers"))
            self._meet(out, one)
            with out.each("everyone", field(out, "takers")) as taker:
                each = out.load("i64", field(out, "taking"), taker)
                out.do(*(f"call void @glue{j}(ptr %ctx, i64 {each})" for j in after))
        else:
            out.do(*(f"call void @glue{j}(ptr %ctx, i64 {tensor})" for j in after))
        out.do(f"store atomic i64 {epoch}, ptr {flag} release, align 8")
        out.label("end")
        head = f"define internal void @finish{number}(ptr %ctx, ptr %entry) noinline #0 {{"
        return "\n".join([head, *out.lines, "  ret void", "}"])

    def _count(self, out: Lines, at: str, all_of_them: str) -> None:
        """Count one more that is done; only the last goes on, and sets the count back."""
        name = f"last{out.count}"
        before = out.emit(f"atomicrmw add ptr {at}, i64 1 acq_rel")
        now = out.emit(f"add i64 {before}, 1")
        out.when(out.emit(f"icmp eq i64 {now}, {all_of_them}"), name, "end")
        out.do(f"store i64 0, ptr {at}")

    def _record(self, out: Lines, tensor: str) -> str:
        return out.at("double", field(out, "records"), out.place(tensor, self.records.width, 0))

    def _join(self, out: Lines, one: Sweep, entry: dict[str, str]) -> None:
        """The sums of a tensor's chunks, in their order, into its record."""
        width, record = len(one.sums.tensor), self._record(out, entry["tensor"])
        places = {n: out.at("double", record, self.records.sums[n]) for n in one.sums.tensor}
        out.do(*(f"store double {start_of(n)}, ptr {at}" for n, at in places.items()))
        before = out.emit(f"mul i64 {entry['piece']}, {width}")
        first = out.at("double", field(out, "sums"), out.emit(f"sub i64 {entry['place']}, {before}"))
        with out.each("piece", entry["share"]) as piece:
            for j, (n, at) in enumerate(places.items()):
                add_up(out, n, at, out.at("double", first, out.place(piece, width, j)))
        for n, at in places.items():
            if n.op == "mean_tensor":
                divide(out, at, self._extent(out, one.one.domain, entry["tensor"]))

    def _meet(self, out: Lines, one: Sweep) -> None:
        """The sums over all tensors, in their order."""
        everyone = field(out, "all")
        found = [n for n in one.sums.tensor if scope(n) == "global"]
        places = {n: out.at("double", everyone, self.records.sums[n]) for n in found}
        out.do(*(f"store double {start_of(n)}, ptr {at}" for n, at in places.items()))
        with out.each("taker", field(out, "takers")) as k:
            record = self._record(out, out.load("i64", field(out, "taking"), k))
            for n, at in places.items():
                add_up(out, n, at, out.at("double", record, self.records.sums[n]))
        total = out.load("i64", field(out, "totals"), DOMAINS.index(one.one.domain))
        for n, at in places.items():
            if n.op.startswith("mean"):
                divide(out, at, total)

    def _between(self, steps: list[int]) -> str:
        """What stands before a pass, for every tensor that takes part."""
        out = Lines([], {})
        with out.each("taker", field(out, "takers")) as k:
            tensor = out.load("i64", field(out, "taking"), k)
            cases = " ".join(f"i64 {j}, label %step{j}" for j in steps)
            out.do(f"switch i64 %number, label %over [ {cases} ]")
            for j in steps:
                out.lines.append(f"step{j}:")
                out.do(f"call void @glue{j}(ptr %ctx, i64 {tensor})", "br label %over")
            out.lines.append("over:")
        return "\n".join(["define void @between(ptr %ctx, i64 %number) #0 {", *out.lines, "  ret void", "}"])
