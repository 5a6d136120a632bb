"""Functions in which a thread waits for others: for a pass to be done, or to come for work of their own.

They look again and again, for what they wait for takes less time than the system needs to put a thread to
sleep.
"""

from __future__ import annotations

from .compiler import pause
from .glue import FIELDS

SPIN = 20000
"""Looks, half a millisecond or so, between which a thread with nothing to do gives the processor away."""

PATIENCE = 5000
"""Looks in which nobody comes for a lane until it is another's to take."""

FEW = 16
"""Fewer batches than these are left to the thread in whose cache they are, as long as it comes for them."""

_WAIT = """
define internal void @wait(ptr %ctx, ptr %flag) noinline #0 {
entry:
  %epoch_at = getelementptr i64, ptr %ctx, i64 {EPOCH}
  %epoch = load i64, ptr %epoch_at
  %rest_at = getelementptr ptr, ptr %ctx, i64 {REST}
  %rest = load ptr, ptr %rest_at
  br label %look
look:
  %k = phi i64 [ 0, %entry ], [ %after, %spin ], [ 0, %tired ]
  %done = load atomic i64, ptr %flag acquire, align 8
  %go = icmp uge i64 %done, %epoch
  br i1 %go, label %end, label %spin
spin:
  {PAUSE}
  %after = add i64 %k, 1
  %long = icmp ugt i64 %after, {SPIN}
  br i1 %long, label %tired, label %look
tired:
  %ignored = call i32 %rest()
  br label %look
end:
  ret void
}
"""

_LEAVE = """
define internal void @leave(ptr %ctx, ptr %next, i64 %end, ptr %spent) noinline #0 {
entry:
  %arrived_at = getelementptr i64, ptr %ctx, i64 {ARRIVED}
  %arrived = load atomic i64, ptr %arrived_at monotonic, align 8
  %lanes_at = getelementptr i64, ptr %ctx, i64 {LANES}
  %lanes = load i64, ptr %lanes_at
  %first = load atomic i64, ptr %next monotonic, align 8
  %waited = load i64, ptr %spent
  %all = icmp uge i64 %arrived, %lanes
  br i1 %all, label %look, label %leave
look:
  %before = phi i64 [ %first, %entry ], [ %now, %spin ]
  %k = phi i64 [ %waited, %entry ], [ %after, %spin ]
  %now = load atomic i64, ptr %next monotonic, align 8
  %left = sub i64 %end, %now
  %some = icmp sgt i64 %left, 0
  %few = icmp slt i64 %left, {FEW}
  %patient = icmp ult i64 %k, {PATIENCE}
  %both = and i1 %some, %few
  %stay = and i1 %both, %patient
  br i1 %stay, label %spin, label %done
spin:
  {PAUSE}
  %same = icmp eq i64 %now, %before
  %more = add i64 %k, 1
  %after = select i1 %same, i64 %more, i64 0
  br label %look
done:
  store i64 %k, ptr %spent
  br label %leave
leave:
  ret void
}
"""


def waiting(declared: dict[str, str]) -> list[str]:
    """`wait(ctx, flag)` until a flag is of this step, and `leave(ctx, next, end, spent)`.

    `leave` is called before a thread takes from another's lane. It comes back when much of the lane is left
    or nothing, and while someone comes for the last batches, it leaves them. Nobody is awaited who has not
    come to this launch, nor anyone once nobody has come for long, which `spent` counts.
    """
    instruction, declared["pause"] = pause()
    words = {word.upper(): FIELDS.index(word) for word in ("epoch", "rest", "arrived", "lanes")}
    numbers = {"SPIN": SPIN, "PATIENCE": PATIENCE, "FEW": FEW}
    found = []
    for text in (_WAIT, _LEAVE):
        for word, value in {**words, **numbers, "PAUSE": instruction}.items():
            text = text.replace(f"{{{word}}}", str(value))
        found.append(text)
    return found
