"""The nodes of a formula: an expression graph in which equal subexpressions are equal nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

ARITHMETIC = {"add": "+", "sub": "-", "mul": "*", "div": "/", "pow": "**"}
COMPARISON = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
SCOPES = ("tensor", "global", "rows", "columns")
REDUCTIONS = frozenset(f"{word}_{scope}" for word in ("sum", "mean", "max") for scope in SCOPES)
"""Operations that make fewer numbers of many elements: one of a tensor, one of all tensors of all groups,
one of every row of a matrix, one of every column."""
MATRIX = frozenset({"matmul", "transpose", "newton_schulz", "inverse_root", "eigenbasis", "every"})
"""Operations on whole matrices, which torch's routines do between two passes."""


@dataclass(frozen=True, eq=False)
class Node:
    """One operation on other nodes, or a leaf: a `const` (its number) or a `name` (its word).

    Two nodes compare equal when their whole expressions are the same, so a dictionary of nodes
    finds common subexpressions.
    """

    op: str
    args: tuple[Node, ...] = ()
    value: float | str | None = None
    _hash: int = field(init=False, repr=False, default=0)

    def __post_init__(self) -> None:
        # repr keeps 0.0 apart from -0.0 and 1 apart from True
        object.__setattr__(self, "_hash", hash((self.op, self.args, repr(self.value))))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return (
            isinstance(other, Node)
            and self._hash == other._hash
            and self.op == other.op
            and repr(self.value) == repr(other.value)
            and self.args == other.args
        )

    @property
    def is_condition(self) -> bool:
        """Whether the node is a truth value, as a comparison gives."""
        return self.op in COMPARISON

    @property
    def number(self) -> float:
        """The number of a `const` leaf."""
        assert self.op == "const"
        assert isinstance(self.value, (int, float))
        return float(self.value)

    @property
    def word(self) -> str:
        """The word of a `name` leaf."""
        assert self.op == "name"
        assert isinstance(self.value, str)
        return self.value


def const(value: float) -> Node:
    """A number."""
    return Node("const", (), float(value))


def name(word: str) -> Node:
    """A parameter of the formula: an element, a hyper-parameter, `t` or a state."""
    return Node("name", (), word)


def node(op: str, *args: Node) -> Node:
    """An operation on nodes."""
    return Node(op, args)


def is_random(n: Node) -> bool:
    """Whether a node is a random number of every element, under a key: "uniform" or "normal"."""
    return n.op in ("uniform", "normal")


def is_reduction(n: Node) -> bool:
    """Whether a node is a number, or a row or column of them, made of many elements."""
    return n.op in REDUCTIONS


def is_matrix(n: Node) -> bool:
    """Whether a node is a matrix that is made of whole matrices."""
    return n.op in MATRIX


def scope(n: Node) -> str:
    """Over what a reduction goes: one of SCOPES."""
    return n.op.split("_")[1]


def walk(roots: Iterable[Node]) -> Iterator[Node]:
    """Every node below `roots` once, arguments before the nodes that use them."""
    seen: set[Node] = set()

    def visit(n: Node) -> Iterator[Node]:
        if n in seen:
            return
        seen.add(n)
        for a in n.args:
            yield from visit(a)
        yield n

    for root in roots:
        yield from visit(root)


def shared(roots: Iterable[Node]) -> frozenset[Node]:
    """The nodes below `roots` that more than one other takes, or that one takes and a root is."""
    roots = [*roots]
    taken = Counter(a for n in walk(roots) for a in {*n.args})
    taken.update({*roots})
    return frozenset(n for n, times in taken.items() if times > 1)


def substitute(root: Node, values: dict[str, Node]) -> Node:
    """`root` with the named leaves replaced."""
    done: dict[Node, Node] = {}
    for n in walk([root]):
        if n.op == "name":
            done[n] = values.get(n.word, n)
        elif n.args:
            done[n] = Node(n.op, tuple(done[a] for a in n.args), n.value)
        else:
            done[n] = n
    return done[root]


def text(n: Node, names: dict[Node, str] | None = None, level: int = 0) -> str:
    """The expression as Python writes it; `names` gives nodes that are printed by name.

    >>> text(node("mul", name("lr"), node("add", name("m"), const(1))))
    'lr * (m + 1)'
    """
    if names and n in names:
        return names[n]
    if n.op == "const":
        whole = n.number.is_integer() and abs(n.number) <= 1e15
        written = str(int(n.number)) if whole else repr(n.number)
        return f"({written})" if n.number < 0 and level > 4 else written
    if n.op == "name":
        return n.word

    def inner(k: int, at: int) -> str:
        return text(n.args[k], names, at)

    if n.op in COMPARISON:
        written, own = f"{inner(0, 2)} {COMPARISON[n.op]} {inner(1, 2)}", 1
    elif n.op in ("add", "sub"):
        written, own = f"{inner(0, 2)} {ARITHMETIC[n.op]} {inner(1, 3)}", 2
    elif n.op in ("mul", "div"):
        written, own = f"{inner(0, 3)} {ARITHMETIC[n.op]} {inner(1, 4)}", 3
    elif n.op == "neg":
        written, own = f"-{inner(0, 4)}", 4
    elif n.op == "pow":
        written, own = f"{inner(0, 6)}**{inner(1, 5)}", 5
    elif n.op in REDUCTIONS:
        word, over = n.op.split("_")
        before = "global_" if over == "global" else ""
        after = f', "{over}"' if over in ("rows", "columns") else ""
        written, own = f"{before}{word}({text(n.args[0], names)}{after})", 9
    else:
        written, own = f"{n.op}({', '.join(text(a, names) for a in n.args)})", 9
    return f"({written})" if own < level else written
