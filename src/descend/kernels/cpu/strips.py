"""Renders sums by column: a strip of numbers for every chunk of a tensor, and how the strips are added up.

By pairs, pairs of pairs and so on, in a tree that the number of chunks alone decides, so the bits are the
same whichever threads take part. Whoever comes second to a pair adds it: where a thread has taken neighbours,
nearly all of that is in its own cache, and none adds up what all others wait for.
"""

from __future__ import annotations

from dataclasses import dataclass

from .emit import Lines
from .sums import add_up, divide, start_of
from .sweep import Sweep


@dataclass(frozen=True)
class Strips:
    """The sums by column of one pass. `most` are the strips that a chunk keeps, at most, in any pass."""

    one: Sweep
    most: int

    def __bool__(self) -> bool:
        return bool(self.one.sums.columns)

    def begin(self, out: Lines, bases: dict[str, str], columns: str, scratch: str, place: str) -> None:
        """Sums of nothing, and where those of some rows are kept in float32."""
        strips, at = self.one.sums.columns, out.at("double", scratch, place)
        for k, n in enumerate(strips):
            mine = bases[f"%strip{k}"] = self._strip(out, at, columns, k)
            with out.each(f"blank{k}", columns) as i:
                out.do(f"store double {start_of(n)}, ptr {out.at('double', mine, i)}")
        for k in self.one.sums.tiled:
            mine = bases[f"%part{k}"] = self._strip(out, at, columns, len(strips) + k)
            with out.each(f"zero{k}", columns) as i:
                out.do(f"store float 0.0, ptr {out.at('float', mine, i)}")

    def join(self, out: Lines, entry: dict[str, str], columns: str, scratch: str, joins: str) -> str:
        """Add the strips of the chunk and of its neighbours, as far as they are done.

        Who has all of the tensor's in the strips of the first chunk goes on, with their address; others go to
        the block "end". `joins` counts for every chunk who has come to the pair of which it is the right one.
        """
        piece, share = entry["piece"], entry["share"]
        room = out.emit(f"mul i64 {columns}, {self.most}")
        before = out.emit(f"mul i64 {piece}, {room}")
        first = out.at("double", scratch, out.emit(f"sub i64 {entry['strip']}, {before}"))
        counts = out.at("i64", joins, out.emit(f"sub i64 {entry['join']}, {piece}"))
        out.label("tree")
        out.label("level")
        out.do(
            "%half = phi i64 [ 1, %tree ], [ %whole, %joined ]",
            f"%one = phi i64 [ {piece}, %tree ], [ %left, %joined ]",
            "%whole = shl i64 %half, 1",
        )
        out.when(out.emit(f"icmp slt i64 %half, {share}"), "below", "top")
        out.do("%right = or i64 %one, %half", "%left = xor i64 %right, %half")
        out.when(out.emit(f"icmp slt i64 %right, {share}"), "pair", "joined")
        come = out.at("i64", counts, "%right")
        before = out.emit(f"atomicrmw add ptr {come}, i64 1 acq_rel")
        out.when(out.emit(f"icmp ne i64 {before}, 0"), "second", "end")
        out.do(f"store i64 0, ptr {come}")
        left, right = (out.at("double", first, out.place(side, room, 0)) for side in ("%left", "%right"))
        for k, n in enumerate(self.one.sums.columns):
            mine, other = (self._strip(out, side, columns, k) for side in (left, right))
            whole = out.emit(f"and i64 {columns}, {-self.one.width}")
            with out.each(f"vector{k}", whole, step=self.one.width) as i:
                add_up(out, n, out.at("double", mine, i), out.at("double", other, i), self.one.width)
            with out.each(f"single{k}", columns, start=whole) as i:
                add_up(out, n, out.at("double", mine, i), out.at("double", other, i))
        out.label("joined")
        out.do("br label %level")
        out.lines.append("top:")
        return first

    def deliver(self, out: Lines, k: int, into: str, columns: str, rows: str, at: str) -> None:
        """One of a tensor's sums by column, from the place of its first chunk to where others look for it."""
        n, strip = self.one.sums.columns[k], self._strip(out, at, columns, k)
        with out.each(f"column{k}", columns) as i:
            out.do(f"store double {out.load('double', strip, i)}, ptr {out.at('double', into, i)}")
            if n.op.startswith("mean"):
                divide(out, out.at("double", into, i), rows)

    def _strip(self, out: Lines, at: str, columns: str, k: int) -> str:
        return out.at("double", at, out.emit(f"mul i64 {columns}, {k}"))
