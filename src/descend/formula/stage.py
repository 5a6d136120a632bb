"""Staging: a rule's expressions, sorted by what each part depends on.

- hyper-parameters, `t` and scalar state only: a `ScalarProgram`, run on the host in float64 once per
  distinct (group, step, scalar state); what the elements need of it is a *row* of scalars;
- elements: the `body` of a `Pass`, straight-line code that reads and writes every element once;
- a sum or a maximum over a tensor, or over all tensors: the end of a pass. What follows from it is again a
  row of scalars, one for every tensor, and the elements that need it wait for the next pass;
- a word for whole matrices: a `Routine` between two passes. What it takes is written to memory by the pass
  before, and the passes after it read what it made.

Most rules are one pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Literal, NoReturn

from .cuts import ORDER, Cut, Cutter
from .matrices import Matrices, Routine, by_passes, untransposed
from .nodes import Node, is_reduction, shared, walk
from .nodes import name as leaf
from .program import Pass, Program
from .rewrite import Rewriter, ShapeError
from .rule import Rule
from .scalars import ScalarProgram
from .separate import Separated, separated, unbounded

Keep = Literal["least", "cached", "past"]
"""Where tensors lie, and so what goes from one pass to the next in temporaries: what saves memory traffic, or
also what saves a root or a division, as temporaries lie in the cache or are written past it."""


@cache
def stage(rule: Rule, keep: Keep = "least", apart: bool = False) -> Program:
    """Sort the expressions of a rule into passes over the elements and the scalars between them.

    `apart`: take what factors by row and by column apart (`separate`), which is more work for the smallest
    tensors. Whatever is asked, the numbers are the same, but for the order in which they are added up.

    Raises FormulaError where the formula cannot be read.
    """
    copied, held = frozenset[str](), frozenset[str]()
    while True:
        try:
            return _Stager(rule, copied, held, keep, apart).program()
        except _Conflict as conflict:
            copied |= conflict.copied
            held |= conflict.held


class _Conflict(Exception):
    """No order of writing in place does; these states are to be `copied` or `held` back as well."""

    def __init__(self, copied: frozenset[str], held: frozenset[str]) -> None:
        super().__init__(copied, held)
        self.copied = copied
        self.held = held


_DEAR = frozenset({"sqrt", "div", "pow", "exp", "log", "tanh", "sin", "cos", "uniform"})
"""Operations that a pass over memory may have to wait for."""

_ROUNDS = 100
"""Rounds after which two writes wait for each other."""


class _Stager:
    """The work of `stage`, with what it needs to know of one rule at hand.

    A pass has a position, level * 5 + place of its domain in ORDER: what needs no reduction and no matrix
    word has level 0, what needs one has level 1, and so on. `copied` are states that `every` makes and that a
    pass writes all the same, from a temporary; of the new value of those in `held` words take a copy; `keep`
    and `apart` are as in `stage`.
    """

    def __init__(
        self, rule: Rule, copied: frozenset[str], held: frozenset[str], keep: Keep, apart: bool
    ) -> None:
        self.rule = rule
        self.keep = keep
        self.scalar_states = [s.name for s in rule.states if s.scalar]
        self.domains = {"p": "element", "g": "element"}
        self.domains |= {s.name: s.shape for s in rule.states if not s.scalar}
        self.outputs = by_passes(rule.outputs, copied)
        self.separated = Separated(self.outputs)
        domain = Rewriter(self.domains).domain
        if apart:
            self.separated = separated(self.outputs, domain)
        if apart or keep != "least":
            self.outputs = unbounded(self.separated, domain)
        whole = [*self.outputs.values()] if rule.reduces else []
        whole += [n.args[3] for n in whole if n.op == "every"]
        several = shared(self.outputs.values())
        self.rewrite = Rewriter(self.domains, frozenset(whole), several, rule.start)
        try:
            for word, n in self.outputs.items():
                self._check(word, n)
            changed = [word for word in self.domains if self.outputs.get(word, leaf(word)) != leaf(word)]
            self.matrices = Matrices(rule, self.rewrite, self.outputs, changed, held)
        except ShapeError as error:
            self._refuse(str(error), self._where(error.node))
        if not changed:
            self._refuse("nothing changes: p and the states are returned as they came; write p = p - lr * …")
        self.new = {w: self.rewrite(self.outputs[w]) for w in changed if w not in self.matrices.kept}
        for written in (self.matrices.between, self.matrices.materialised):
            self.new |= {word: self.rewrite(n) for word, n in written.items()}
        self.domains |= self.matrices.temporaries
        self._cutter = Cutter(self.new, self.domains, self.rewrite, self.matrices)
        self._levels: dict[Node, int] = {}
        self._columns_from = 0
        self._columns_from = max(map(self.level, self.separated.inner), default=0)
        self._levels.clear()

    def _check(self, word: str, n: Node) -> None:
        """Refuse a new value that has more numbers than what it is the value of."""
        try:
            own, new = self.domains.get(word, "scalar"), self.rewrite.domain(n)
        except ShapeError as error:
            self._refuse(str(error), self._where(error.node) or word)
        if new in (own, "scalar") or (own == "element" and new in ("rows", "columns")):
            return
        if {own, new} & {"left", "right", "turned"}:
            shapes = {"left": "rows x rows", "right": "columns x columns", "turned": "columns x rows"}
            has, gets = (shapes.get(x, "of another shape") for x in (own, new))
            self._refuse(f"the matrix {word!r} is {has}, but its new value is {gets}", word)
        per = {"scalar": "a whole parameter", "rows": "a row", "columns": "a column"}[own]
        self._refuse(
            f"{word!r} is one number for {per}, but its new value differs by {new.removesuffix('s')}; sum it "
            'up as mean(x), mean(x, "rows") and so on do, or declare a state with one number an element',
            word,
        )

    def level(self, n: Node) -> int:
        """How many reductions and matrix words, one after the other, a value needs."""
        if n not in self._levels:
            below = max((self.level(a) for a in n.args), default=0)
            if below and is_reduction(n) and self.rewrite.domain(n.args[0]) == "columns":
                below = max(below, self._columns_from)
            self._levels[n] = below + 1 if is_reduction(n) or n in self.matrices.steps else below
        return self._levels[n]

    def program(self) -> Program:
        """All passes, with every state written as early as nothing later needs its old value."""
        scalar_roots = [self.outputs[word] for word in self.scalar_states]
        found = [n for n in walk([*self.new.values(), *scalar_roots]) if is_reduction(n)]
        reductions = {n: self._position(n.args[0], self.rewrite.domain(n.args[0])) for n in found}
        for n in reductions.keys() & self.separated.unless.keys():  # what may be left out waits for the rest
            reductions[n] = max(reductions[n], self._position(n.args[0], "element", self._columns_from))
        write_in = {word: self._position(n, self.domains[word]) for word, n in self.new.items()}
        run_at = {n: self.level(n) for n in self.matrices.steps}
        for _ in range(_ROUNDS):
            positions = sorted({*write_in.values(), *reductions.values()})
            cuts = {at: self._cutter.cut(at, write_in, reductions) for at in positions}
            late = {word: at for cut in cuts.values() for word, at in cut.late.items()}
            before = dict(run_at)
            late |= self._between(run_at, write_in, cuts)
            if not late and run_at == before:
                kept = self._by_column(cuts) or self._worth_keeping(write_in, reductions, cuts)
                if not kept:
                    break
                late = kept
            write_in |= late
        else:
            self._copy(max(run_at, key=lambda n: (self.matrices.steps[n] in self.matrices.kept, run_at[n])))
        for cut in cuts.values():
            self._leave_out(cut)
        labels = self._labels(n for cut in cuts.values() for n in cut.body)
        words = (*(h.name for h in self.rule.hypers), *self.rule.shape_words)
        arguments = ("t", *words, *self.scalar_states)
        early = {w: self.outputs[w] for w in self.scalar_states if self.level(self.outputs[w]) == 0}
        rest = {w: self.outputs[w] for w in self.scalar_states if w not in early}
        first = self._first([*cuts.values()], rest.values())
        passes, known = list[Pass](), tuple[Node, ...]()
        for at, cut in cuts.items():
            scalars = ScalarProgram(arguments, first, early)
            if passes:
                scalars = ScalarProgram((), tuple(cut.row), {}, known, first)
            reads, vectors = tuple(cut.reads), tuple(cut.vectors)
            domain = ORDER[at % len(ORDER)]
            body = tuple(cut.body)
            passes.append(Pass(domain, reads, vectors, body, cut.written, cut.summed, scalars, cut.unless))
            known += tuple(n for n in cut.summed if self.rewrite.domain(n) == "scalar")
        final = ScalarProgram((), (), rest, known, first)
        routines = self._routines(run_at, cuts)
        return Program(
            self.rule,
            tuple(self.domains),
            self.domains,
            tuple(passes),
            final,
            labels,
            routines,
            tuple(self.matrices.temporaries),
            self.keep == "past",
        )

    def _leave_out(self, cut: Cut) -> None:
        """Note under which condition a pass does nothing that anybody wants."""
        conditions = {self.separated.unless.get(n) for n in cut.summed}
        if len(conditions) == 1 and not cut.written:
            cut.unless = conditions.pop()
            if cut.unless is not None:
                cut.row.setdefault(cut.unless)

    def _worth_keeping(
        self, write_in: dict[str, int], reductions: dict[Node, int], cuts: dict[int, Cut]
    ) -> dict[str, int]:
        """A temporary for what two passes over the elements would compute, and where it is written.

        It must save a root, a division or the like and cost no more memory, or else cost less. What is only
        written counts twice, as the processor reads it first; but not where it lies in the cache, or is
        written past it.
        """
        sweeps = {at: cut for at, cut in cuts.items() if ORDER[at % len(ORDER)] == "element"}
        for at, later in sweeps.items():
            for n in reversed(later.seen):
                first = [k for k in sweeps if k < at and self._position(n, "element") <= k]
                dear = {part for part in walk([n]) if part.op in _DEAR and self.rewrite.is_element(part)}
                if not first or not dear or n in self.new.values():
                    continue
                self.new["?"] = n
                least = self._cutter.cut(at, {**write_in, "?": first[-1]}, reductions)
                del self.new["?"]
                saved = sum(self.domains.get(word) == "element" for word in later.reads)
                saved -= 3 + sum(self.domains.get(word) == "element" for word in least.reads)
                least_saved = 0 if self.keep == "least" else -1
                if saved > 0 or (saved >= least_saved and dear & sweeps[first[-1]].seen.keys()):
                    return self._keep(n, first[-1])
        return {}

    def _keep(self, n: Node, at: int) -> dict[str, int]:
        own = next((given for given in self.rule.names if self.rewrite(given) == n), n)
        word = self.matrices.temporary(own)
        self.new[word], self.domains[word] = n, self.rewrite.domain(n)
        return {word: at}

    def _by_column(self, cuts: dict[int, Cut]) -> dict[str, int]:
        """A temporary for what a pass over elements would compute anew in every row, and its place.

        Beside a product of matrices that would be nothing.
        """
        for at, cut in [] if self.matrices.steps else cuts.items():
            for n in reversed(cut.seen):
                own = self.rewrite.domain(n) == "columns" and at % len(ORDER) != ORDER.index("columns")
                if own and n not in self.new.values() and any(part.op in _DEAR for part in walk([n])):
                    return self._keep(n, self._position(n, "columns"))
        return {}

    def _between(
        self, run_at: dict[Node, int], write_in: dict[str, int], cuts: dict[int, Cut]
    ) -> dict[str, int]:
        """Put off what comes too early for a matrix word: words in `run_at`, and writes, which it returns."""
        late: dict[str, int] = {}
        width, steps = len(ORDER), self.matrices.steps
        taken = {n: {*map(untransposed, self.matrices.taken(n))} for n in steps}
        for n, out in steps.items():
            bounds = [run_at[n]]
            for matrix in taken[n]:
                word, _ = self.matrices.operand(matrix)
                if matrix in steps:
                    bounds.append(run_at[matrix] + (out in self.matrices.kept or matrix.op == "every"))
                elif matrix != leaf(word):
                    bounds.append(write_in[word] // width + 1)
            if out in self.matrices.kept:  # it overwrites what others still want to read
                bounds += [run_at[m] for m in steps if self.matrices.precedes(m, n)]
                bounds += [at // width + 1 for at, cut in cuts.items() if out in cut.old]
                bounds += [write_in[out] // width + 1] if out in self.matrices.between else []
                waited_for = {m for matrices in taken.values() for m in matrices}
                waited_for |= {m for cut in cuts.values() for m in cut.results}
                old = {leaf(word) for word in write_in}
                others_wait = n in waited_for or any(self.matrices.precedes(n, m) for m in steps)
                if not others_wait and not old & taken[n]:  # all such are done together
                    bounds.append(max(run_at.values()))
            run_at[n] = max(bounds)
            for at, cut in cuts.items():
                if n in cut.results and at < width * run_at[n]:
                    self._copy(n)
            for matrix in self.matrices.taken(n):
                word, _ = self.matrices.operand(matrix)
                start = width * run_at[n]
                if untransposed(matrix) == leaf(word) and write_in.get(word, start) < start:
                    late[word] = start + ORDER.index(self.domains[word])
        return late

    def _routines(self, run_at: dict[Node, int], cuts: dict[int, Cut]) -> tuple[tuple[Routine, ...], ...]:
        """The matrix words before each pass, and after the last."""
        periods = self.matrices.periods({n for cut in cuts.values() for n in cut.results})
        starts = [*cuts, len(ORDER) * (1 + max(run_at.values(), default=0))]
        sorted_in: list[list[Node]] = [[] for _ in starts]
        for n in run_at:
            place = next(k for k, at in enumerate(starts) if at >= len(ORDER) * run_at[n])
            sorted_in[place].append(n)
        return tuple(
            tuple(self.matrices.routine(n, periods.get(n)) for n in self._in_order(words))
            for words in sorted_in
        )

    def _in_order(self, words: list[Node]) -> list[Node]:
        """Matrix words so that none is too early, and those of one kind, which are done at once, together."""
        left, ordered = list(words), list[Node]()
        while left:
            ready = [n for n in left if not any(self.matrices.precedes(m, n) for m in left)]
            if not ready:
                self._copy(left[0])
            kinds = {self.matrices.word(n): n for n in reversed(ready)}
            last = self.matrices.word(ordered[-1]) if ordered else "matmul"
            ordered.append(kinds.get(last) or kinds.get("matmul") or ready[0])
            left.remove(ordered[-1])
        return ordered

    def _copy(self, n: Node) -> NoReturn:
        """Stage anew with a copy: of what a word makes that comes too late, or of what is below it."""
        kept, below = self.matrices.kept, {*walk([n])}
        if kept:
            found = next((word for word in kept if kept[word] in below), next(iter(kept)))
            raise _Conflict(frozenset([found]), frozenset())
        held = self.matrices.held_in_states
        if held:
            raise _Conflict(frozenset(), frozenset(held))
        out = self._where(n)
        why = "and what takes an old value wait for each other; keep the old value in a state of its own"
        self._refuse(f"{out!r} {why}", out)

    def _where(self, wrong: Node) -> str:
        """The first name whose value holds an operation."""
        named = (item for f in self.rule.formulas for item in f.reading.names.items())
        return next((word for n, word in named if wrong in walk([n])), "")

    def _refuse(self, why: str, word: str = "") -> NoReturn:
        """Point at the line that gives a name its value, or at the formula."""
        own = [f.reading for f in self.rule.formulas if word in f.reading.assigned]
        (own or [self.rule.formulas[-1].reading])[-1].refuse(why, word)

    def _first(self, cuts: list[Cut], states: Iterable[Node]) -> tuple[Node, ...]:
        """The scalars of the first pass, then the parts of later ones that need no sum either."""
        found = dict.fromkeys(cuts[0].row)

        def visit(n: Node) -> None:
            if self.level(n) == 0:
                if n.op != "const":
                    found.setdefault(n)
            elif not is_reduction(n):
                for a in n.args:
                    visit(a)

        for n in [*(n for cut in cuts[1:] for n in cut.row), *states]:
            visit(n)
        return tuple(found)

    def _position(self, n: Node, domain: str, least: int = 0) -> int:
        """The first pass of a domain, from some level on, in which a value can be computed.

        What is computed by column comes after `inner` sums, so that those follow the sums of their rows.
        """
        level = max(self.level(n), least)
        if domain == "columns" and level:
            level = max(level, self._columns_from)
        return len(ORDER) * level + ORDER.index("element" if domain == "scalar" else domain)

    def _labels(self, body: Iterable[Node]) -> dict[Node, str]:
        """A name for every operation: the author's, where the part survived rewriting."""
        known: dict[Node, str] = {}
        for given, word in self.rule.names.items():
            known.setdefault(self.rewrite(given), word)
        labels: dict[Node, str] = {}
        taken = set(self.domains)
        for n in body:
            stem, k = known.get(n, "x"), 1
            unique = stem if n in known and stem not in taken else f"{stem}_{k}"
            while unique in taken:
                k += 1
                unique = f"{stem}_{k}"
            if n not in labels:
                taken.add(unique)
                labels[n] = unique
        return labels
