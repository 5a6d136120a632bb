"""Functions in which a thread waits for others: for a pass to be done, or to come for its own work.

They look again and again, for what they wait for takes less time than the system needs to put a thread to
sleep, and now and then they give the processor away, to whom they wait for may need it.
"""

from __future__ import annotations

from .compiler import pause
from .glue import FIELDS

PATIENCE = 20000
"""Looks, a third of a millisecond or more, after which a thread waits no longer without doing anything."""

FEW = 16
"""Batches that are left to the thread in whose cache they are, as long as it comes for them."""

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
  %long = icmp ugt i64 %after, {PATIENCE}
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
  %rest_at = getelementptr ptr, ptr %ctx, i64 {REST}
  %rest = load ptr, ptr %rest_at
  %first = load atomic i64, ptr %next monotonic, align 8
  %waited = load i64, ptr %spent
  br label %look
look:
  %before = phi i64 [ %first, %entry ], [ %now, %spin ], [ %now, %tired ]
  %k = phi i64 [ %waited, %entry ], [ %after, %spin ], [ %after, %tired ]
  %now = load atomic i64, ptr %next monotonic, align 8
  %left = sub i64 %end, %now
  %some = icmp sgt i64 %left, 0
  %few = icmp slt i64 %left, {FEW}
  %patient = icmp ult i64 %k, {PATIENCE}
  %both = and i1 %some, %few
  %stay = and i1 %both, %patient
  br i1 %stay, label %spin, label %leave
spin:
  {PAUSE}
  %same = icmp eq i64 %now, %before
  %more = add i64 %k, 1
  %after = select i1 %same, i64 %more, i64 0
  %turn = and i64 %k, 255
  %long = icmp eq i64 %turn, 255
  br i1 %long, label %tired, label %look
tired:
  %ignored = call i32 %rest()
  br label %look
leave:
  store i64 %k, ptr %spent
  ret void
}
"""


def waiting(declared: dict[str, str]) -> list[str]:
    """`wait(ctx, flag)` for a flag of this step, and `leave(ctx, next, end, spent)` for a lane's own thread.

    `leave` comes back when there is something to take of a lane, or nothing is left: as long as its own
    thread still comes for the last batches, they are left to it. Where it has not come for long, which
    `spent` counts in one launch, they are taken.
    """
    instruction, declared["pause"] = pause()
    words = {"EPOCH": FIELDS.index("epoch"), "REST": FIELDS.index("rest"), "PAUSE": instruction}
    found = []
    for text in (_WAIT, _LEAVE):
        for word, value in {**words, "PATIENCE": PATIENCE, "FEW": FEW}.items():
            text = text.replace(f"{{{word}}}", str(value))
        found.append(text)
    return found
