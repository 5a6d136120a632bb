"""What of a vector's work is begun before the vector ahead of it is finished.

From loading to storing, a vector of AdamW takes some fifty cycles, most of them in a root and in the division
that waits for it. A core has only so many instructions under way: six such vectors, three where formulas are
longer, and half as many where another program has the core's other thread; too few to keep it busy. So the
work is cut in two where that makes both halves short, and a loop begins one vector while it finishes another.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ...formula.nodes import Node
from ...formula.program import Pass

_CYCLES = {"div": 11, "sqrt": 14, "fma": 4, "add": 3, "sub": 3, "mul": 3}
"""How long a core waits for a result; one cycle for what is not named."""

_EVEN = 0.75
"""The share of all cycles that the longer half takes at most."""


@dataclass(frozen=True)
class Half:
    """What of a vector is read or computed, which operands are written, and whether it is summed."""

    values: frozenset[Node]
    writes: tuple[str, ...]
    sums: bool


@dataclass(frozen=True)
class Halves:
    """Both halves, and the values that the early one hands to the late one."""

    early: Half
    late: Half
    carried: tuple[Node, ...]


def halves(one: Pass, operands: Collection[Node], steady: Collection[Node]) -> Halves | None:
    """The halves of a pass, or None where they are not worth it.

    `operands` are what it reads and writes for every element, `steady` what does not change along its loop.
    """
    ready = {*steady}  # before the loop, for the compiler finds what does not change there
    chains: dict[Node, int] = {}
    for n in one.body:
        if all(a in ready or a.op == "const" for a in n.args):
            ready.add(n)
        else:
            chains[n] = _CYCLES.get(n.op, 1) + max(chains.get(a, 0) for a in n.args)
    whole = max(chains.values(), default=0)
    cuts = {n: max(chains.get(a, 0) for a in n.args) for n in chains if n.op in ("div", "sqrt")}
    longer = {n: max(before, whole - before) for n, before in cuts.items()}
    cut = min(longer, key=longer.__getitem__, default=None)
    if cut is None or longer[cut] > _EVEN * whole:
        return None
    early = _below(cut.args, {*chains, *operands}, ready)
    late = {*one.body, *operands} - early
    writes = tuple(word for word, n in one.written.items() if n in early)
    others = tuple(word for word in one.written if word not in writes)
    summed = {x for n in one.reductions.values() for x in (n, *n.args)}
    handed = early & {*(a for n in late for a in n.args), *summed}
    # what still stands in memory is read again, which costs less than a register
    again = {n for n in handed if n in operands and not (n.op == "name" and n.word in writes)}
    return Halves(
        Half(frozenset(early | ready), writes, sums=False),
        Half(frozenset(late | again), others, sums=True),
        tuple(n for n in (*operands, *one.body) if n in handed - again),
    )


def _below(roots: Iterable[Node], among: Collection[Node], steady: Collection[Node]) -> set[Node]:
    """What `roots` need of some nodes, and what those need, but of what is steady nothing."""
    found: set[Node] = set()
    left = [*roots]
    while left:
        n = left.pop()
        if n in among and n not in found and n not in steady:
            found.add(n)
            left += n.args
    return found
