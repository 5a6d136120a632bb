"""The parts of an exported file that step one parameter; two where a rule leaves vectors to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ..errors import UsageError
from ..formula import Rule, State
from ..formula.nodes import is_reduction, scope, walk
from ..formula.nodes import name as leaf
from .export_lines import Lines, lines_of


def variants(rule: Rule, class_name: str) -> list[Variant]:
    """How parameters are stepped: those of any shape; or matrices first, then vectors and numbers."""
    if not any(formula.otherwise for formula in rule.formulas):
        return [Variant(rule, class_name, "")]
    matrices = tuple(replace(formula, otherwise=()) for formula in rule.formulas)
    vectors = tuple(part for formula in rule.formulas for part in (formula.otherwise or (formula,)))
    return [
        Variant(replace(rule, formulas=matrices), class_name, "", has_other=True),
        Variant(replace(rule, formulas=vectors), class_name, "_vector"),
    ]


@dataclass(frozen=True)
class Variant:
    """How some parameters are stepped; `suffix` marks its functions, `has_other` the first of two."""

    rule: Rule
    class_name: str
    suffix: str
    has_other: bool = False

    @cached_property
    def lines(self) -> Lines:
        """The body of its `update`."""
        if self.block and any(
            is_reduction(n) and scope(n) == "tensor" for n in walk(self.rule.outputs.values())
        ):
            raise UsageError(f"{self.rule.name} cannot be exported: it sums over blocks of a matrix together")
        return lines_of(self.rule)

    @property
    def tensors(self) -> list[State]:
        """The states that are tensors."""
        return [s for s in self.rule.states if not s.scalar]

    @property
    def scalars(self) -> list[State]:
        """The states that are numbers."""
        return [s for s in self.rule.states if s.scalar]

    @property
    def block(self) -> str:
        """The hyper-parameter that bounds the sides of blocks."""
        return next((s.block for s in self.rule.states if s.block), "")

    def floats(self) -> list[tuple[str, str]]:
        """What `update` takes beside tensors, and how it is found."""
        rule = self.rule
        takes = {word for formula in rule.formulas for word in formula.arguments_taken}
        found = [("t", 'float(state["step"])')] if "t" in takes else []
        found += [(s.name, f'float(state["{s.key}"])') for s in self.scalars]
        found += [(word, f"float({word})") for word in rule.shape_words]
        return found + [(h.name, f'float(group["{h.name}"])') for h in rule.hypers]

    def update(self) -> list[str]:
        """The function that takes one step of one tensor."""
        rule, masked = self.rule, any(formula.masks for formula in self.rule.formulas)
        optional = {s.name for s in self.tensors if s.limit}
        names = [s.name for s in self.tensors]
        words = [word for word, _ in self.floats()]
        given = [
            *(f"{word}: Tensor{' | None' if word in optional else ''}" for word in ("g", "p", *names)),
            *(["*"] if words or masked else []),
            *(f"{word}: float" for word in words),
            *(["ndim: int"] if masked else []),
        ]
        many = len(self.scalars)
        result = {0: "None", 1: "float"}.get(many, f"tuple[{', '.join(['float'] * many)}]")
        if self.lines.joins:
            result = f"Generator[Any, float, {result}]"
        lines = [f"def update{self.suffix}(", *(f"    {word}," for word in given), f") -> {result}:"]
        changed = ["p", *(word for word in names if rule.outputs[word] != leaf(word))]
        verb, what = "is" if len(changed) == 1 else "are", "matrix" if rule.has_matrices else "tensor"
        head = f'"""One step of one {what}: {_listed(changed)} {verb} changed in place.'
        more = []
        if self.lines.joins:
            more = ["It stops for every sum over all tensors: it gives its own part, and is sent the whole."]
        if optional:
            more.append(f"Where a side is too long, {_listed(sorted(optional))} are None, for the identity.")
        if self.scalars:
            more.append(f"Returns the new {_listed([s.name for s in self.scalars])}.")
        said = [f"    {head}", "", *(f"    {x}" for x in more), '    """']
        lines += said if more else [f'    {head}"""']
        lines += self.lines.text()
        if self.scalars:
            lines.append(f"    return {', '.join(s.name for s in self.scalars)}")
        return lines

    def one(self) -> list[str]:
        """The step of one parameter: its state, and what its numbers are computed in."""
        several, name = bool(self.lines.joins), self.class_name
        result = "Generator[Any, float, None]" if several else "None"
        step = f"_step{self.suffix or '_of'}"
        lines = [f"def {step}(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> {result}:"]
        if self.has_other:
            call = "self._step_vector(p, g, group)"
            lines += ["    if p.dim() < 2:", f"        {'yield from ' if several else ''}{call}"]
            lines += ["        return"]
        lines += [
            "    if g.layout != torch.strided:",
            f'        raise RuntimeError("{name} does not support sparse gradients")',
            *self._refusals(),
            "    state = self.state[p]",
            "    if not state:",
            f"        self._start{self.suffix}(p, state, group)",
            '    state["step"] += 1',
        ]
        if self.rule.shape_words:
            lines += ["    rows = p.shape[0] if p.dim() else 1", "    columns = p.numel() // max(1, rows)"]
        operands = ["p", *(f'state["{s.key}"]' for s in self.tensors)]
        lines.append(f"    kept = [{', '.join(operands)}]")
        by_rows = self.rule.is_flat and any("_along(" in line for line in self.lines.body)
        whole = "_by_rows" if by_rows else "_over_whole" if self.rule.reduces else "_computable"
        whole = "_matrix" if self.rule.has_matrices else whole
        lines.append(f"    used = [{whole}(x) for x in kept]")
        lines.append(f'    g = {whole}(-g if group["maximize"] else g)')
        lines += self._call(several)
        lines += [f'    state["{s.key}"].fill_({s.name})' for s in self.scalars]
        test = "own.dtype in (torch.float16, torch.bfloat16)"
        if self.rule.has_matrices or by_rows:
            test = "new.data_ptr() != own.data_ptr()"
        if any(s.limit for s in self.tensors):
            test = f"new is not None and {test}"
        end = [f"        if {test}:", "            own.copy_(new.view_as(own))"]
        return [*lines, "    for own, new in zip(kept, used):", *end]

    def _call(self, several: bool) -> list[str]:
        """The lines that call `update`."""
        floats = self.floats()
        floats += [("ndim", "p.dim()")] if any(formula.masks for formula in self.rule.formulas) else []
        named = [f"{word}={value}" for word, value in floats]
        target = ", ".join(s.name for s in self.scalars)
        before = (f"{target} = " if target else "") + ("yield from " if several else "")
        if not self.block:
            return [f"    {before}update{self.suffix}({', '.join(['g', '*used', *named])})"]
        shapes = ", ".join(f'"{s.shape}"' for s in [*self.tensors])
        return [
            f'    shapes = ["element", "element", {shapes}]',
            f'    for block in _blocks([g, *used], shapes, int(group["{self.block}"])):',
            f"        {before}update{self.suffix}({', '.join(['*block', *named])})",
        ]

    def _refusals(self) -> list[str]:
        """Refusals of parameters that a rule of rows, columns or matrices cannot take."""
        sides = any(s.shape != "element" for s in self.tensors) or self.lines.along
        if not sides and not self.rule.has_matrices:
            return []
        said = f"{self.class_name} takes real matrices, not a parameter of shape {{tuple(p.shape)}}"
        return ["    if p.dim() < 2 or p.is_complex():", f'        raise ValueError(f"{said}")']

    def start(self) -> list[str]:
        """The state before the first step."""
        lines = [
            "@staticmethod",
            f"def _start{self.suffix}(p: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:",
            '    """The state before the first step."""',
            '    state["step"] = torch.tensor(0.0)',
        ]
        for s in self.rule.states:
            start = f'group["{s.init}"]' if isinstance(s.init, str) else repr(float(s.init))
            lines.append(f'    state["{s.key}"] = {self._initial(s, start)}')
        return lines

    def _initial(self, s: State, start: str) -> str:
        """A state at its start."""
        if s.init == "p":
            return "p.detach().clone()"
        value = f"float({start})" if start.startswith("group") else start
        if s.scalar:
            return f"torch.tensor({value}, dtype=torch.float64)"
        if s.shape in ("left", "right"):
            block = f'int(group["{s.block}"])' if s.block else "None"
            limit = f'int(group["{s.limit}"])' if s.limit else "None"
            made = f'_squares(p, "{s.shape}", {block}, {limit})'
            return made if start == "0.0" else f"{made}.fill_({value})"
        if s.shape != "element":
            shape = "*p.shape[:-1], 1" if s.shape == "rows" else "*p.shape[:-2], 1, p.shape[-1]"
            if self.rule.is_flat:
                shape = "len(p), *[1] * (p.dim() - 1)" if s.shape == "rows" else "1, *p.shape[1:]"
            return f"p.new_zeros({shape})" if start == "0.0" else f"p.new_full(({shape}), {start})"
        return "torch.zeros_like(p)" if start == "0.0" else f"_filled_like(p, {value})"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
