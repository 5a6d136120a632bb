"""A staged rule: its passes over memory, and what stands between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from .matrices import Routine
from .nodes import Node, is_random, scope, text
from .rule import Rule
from .scalars import ScalarProgram


@dataclass(frozen=True, eq=False)
class Pass:
    """One sweep over memory: over the elements, or over the rows or columns of matrices.

    `reads` are the operands it loads; `body` every element operation in order; `written` the operands that
    it changes, with their new values; `reductions` what it sums up for the passes after it, with the elements
    that are summed; `scalars` the host's part, which fills its row; `vectors` the sums by row or
    column of earlier passes that it reads. Where a scalar `unless` holds, nobody wants its sums.
    """

    domain: str
    reads: tuple[str, ...]
    vectors: tuple[Node, ...]
    body: tuple[Node, ...]
    written: dict[str, Node]
    reductions: dict[Node, Node]
    scalars: ScalarProgram
    unless: Node | None = None

    @cached_property
    def operands(self) -> tuple[str, ...]:
        """The operands that it touches, in the program's order."""
        return (*self.reads, *(word for word in self.written if word not in self.reads))

    @cached_property
    def is_random(self) -> bool:
        """Whether it makes random numbers."""
        return any(is_random(n) for n in self.body)

    @cached_property
    def row_index(self) -> dict[Node, int]:
        """Where in a row each scalar stands."""
        return {n: i for i, n in enumerate(self.scalars.row)}


@dataclass(frozen=True, eq=False)
class Program:
    """A staged rule: what the kernels run.

    `operands` are the names that differ within a tensor, p and g first, and `domains` says how; `passes` the
    sweeps in order; `final` the scalar states that depend on a reduction; `labels` names for parts, the
    author's where they survive. `routines` are what is done with whole matrices before each pass, and after
    the last one; `temporaries` the operands that live only during a step, as arguments and results of those;
    `far` says that the program is for tensors far larger than the cache.
    """

    rule: Rule
    operands: tuple[str, ...]
    domains: dict[str, str]
    passes: tuple[Pass, ...]
    final: ScalarProgram
    labels: dict[Node, str]
    routines: tuple[tuple[Routine, ...], ...]
    temporaries: tuple[str, ...]
    far: bool

    @property
    def scalars(self) -> ScalarProgram:
        """The host's part of the first pass."""
        return self.passes[0].scalars

    @property
    def sweeps(self) -> int:
        """Passes over whole tensors; those over rows or columns alone read far less."""
        return sum(one.domain == "element" for one in self.passes)

    @property
    def bytes_moved(self) -> int:
        """Values read and written per element: what the step costs where memory is the limit."""
        whole = [word for one in self.passes for word in (*one.reads, *one.written)]
        return sum(self.domains[word] == "element" for word in whole)

    @cached_property
    def vectors(self) -> tuple[Node, ...]:
        """Every sum by row or column that a pass leaves for a later one."""
        return tuple(n for one in self.passes for n in one.reductions if scope(n) in ("rows", "columns"))

    @cached_property
    def meets(self) -> tuple[int, ...]:
        """The passes that sum over all tensors."""
        passes = enumerate(self.passes)
        return tuple(k for k, one in passes if any(scope(n) == "global" for n in one.reductions))

    @cached_property
    def folds(self) -> bool:
        """Whether numbers of rows or columns are summed by row or column again, which only torch_ops does."""
        inner = [n for one in self.passes if one.domain != "element" for n in one.reductions]
        return any(scope(n) in ("rows", "columns") for n in inner)

    @cached_property
    def kept(self) -> tuple[str, ...]:
        """The temporaries with a number for every element."""
        return tuple(word for word in self.temporaries if self.domains[word] == "element")

    @cached_property
    def past(self) -> frozenset[str]:
        """The temporaries that are written past the cache, in whole lines, which rows need not begin with."""
        whole = [one for k, one in enumerate(self.passes) if self.far and not self.is_matrix(k)]
        return frozenset(word for one in whole for word in one.written if word in self.kept)

    def is_matrix(self, number: int) -> bool:
        """Whether a pass over elements has to know where the rows of a matrix begin."""
        one = self.passes[number]
        mixed = any(self.domains[word] != "element" for word in one.reads)
        sums = any(scope(n) in ("rows", "columns") for n in one.reductions)
        return one.domain == "element" and (mixed or sums or bool(one.vectors))

    @cached_property
    def leaders(self) -> tuple[int, ...]:
        """Of every pass the one whose chunks it follows: after some rows there, the same rows here.

        So passes that need the sums of their own rows alone find them in the cache.
        """
        found = list[int]()
        for k in range(len(self.passes)):
            found.append(found[-1] if k and self._follows(k, found[-1]) else k)
        return tuple(found)

    def _follows(self, number: int, leader: int) -> bool:
        one, before = self.passes[number], self.passes[leader:number]
        summed = {n for other in before for n in other.reductions}
        return (
            self.is_matrix(leader)
            and (one.domain == "rows" or self.is_matrix(number))
            and not any(self.routines[leader + 1 : number + 1])
            and not one.scalars.late  # what is `unless` among them
            and all(scope(n) == "rows" for n in one.vectors if n in summed)
            and not any(scope(n) == "global" for n in (*summed, *one.reductions))
        )

    def __str__(self) -> str:
        lines = []
        sums: dict[Node, str] = {}
        for k, one in enumerate(self.passes):
            lines += [*map(str, self.routines[k]), *([""] if self.routines[k] else [])]
            several = f"pass {k + 1} of {len(self.passes)}: " if len(self.passes) > 1 else ""
            when = "from the sums, in float64" if k else "on the host, in float64"
            lines.append(f"# {several}{when}")
            lines += [f"s[{i}] = {text(n, sums)}" for n, i in one.row_index.items()]
            lines += [f"{word} <- {text(n, sums)}" for word, n in one.scalars.states.items()]
            lines.append("")
            per = one.domain.removesuffix("s")
            writes = f"; writes {', '.join(one.written)}" if one.written else ""
            lines.append(f"# {several}per {per}, reads {', '.join(one.reads)}{writes}")
            names: dict[Node, str] = {n: f"s[{i}]" for n, i in one.row_index.items()} | sums
            for n in one.body:
                lines.append(f"{self.labels[n]} = {text(n, names)}")
                names[n] = self.labels[n]
            lines += [f"{word} <- {text(n, names)}" for word, n in one.written.items()]
            for reduction, n in one.reductions.items():
                lines.append(f"r{len(sums)} <- {text(Node(reduction.op, (n,)), names)}")
                sums[reduction] = f"r{len(sums)}"
            lines.append("")
        lines += map(str, self.routines[-1])
        if self.final.states:
            lines.append("# after the last pass, on the host")
            lines += [f"{word} <- {text(n, sums)}" for word, n in self.final.states.items()]
        return "\n".join(lines).rstrip()
