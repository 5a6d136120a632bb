"""`descend export`: a rule as one file that needs nothing but torch."""

from __future__ import annotations

import inspect
import keyword
import math
import re
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import UsageError
from ..formula import Hyper, Range, Rule, State, rule_of, stage
from ..formula.nodes import name as leaf
from . import export_words
from .export_layout import laid_out
from .export_lines import lines_of


def export(rule: str | Rule | Callable[..., Any]) -> str:
    """The rule as the text of a Python file: a plain `torch.optim.Optimizer`, to hand to anybody.

    The class takes the rule's hyper-parameters by their names, as `descend.optimizer(rule)` does, and keeps
    its states under the same keys, so state dicts cross over. It steps tensor by tensor in torch's own
    operations: to the same numbers within roundings, and more slowly.

    `rule` is a name of `descend rules`, the name of a file with a formula, a rule, a chain or a bare formula.

    >>> text = export("adam")
    >>> "class Adam(torch.optim.Optimizer):" in text
    True
    >>> "import descend" in text
    False

    Raises UsageError for an unknown name and for a rule with parts that the file could not have; FormulaError
    for a formula that cannot be read.
    """
    from .. import rules

    return _File(rules.get(rule) if isinstance(rule, str) else rule_of(rule)).text()


class _File:
    """The parts of an exported file, each as lines."""

    def __init__(self, rule: Rule) -> None:
        stage(rule)  # refuses what is no rule
        for formula in rule.formulas:
            if any(mask.names for mask in formula.masks) or (formula.masks and formula.states):
                raise UsageError(
                    f"{rule.name} cannot be exported: {formula.name!r} applies to parameters of some names, "
                    "or keeps a state for some only. Export the chain with it and without it, and give each "
                    "its own parameters"
                )
        self.rule = rule
        self.lines = lines_of(rule)
        self.tensors = [s for s in rule.states if not s.scalar]
        self.scalars = [s for s in rule.states if s.scalar]
        self.shaped = any(s.shape != "element" for s in self.tensors) or any(
            "_along(" in line and not line.startswith(" ") for line in self.lines.body
        )

    @property
    def class_name(self) -> str:
        """The title where it is one word, as RAdam; else the rule's name as classes are called."""
        rule = self.rule
        whole = len(rule.formulas) == 1 and re.fullmatch(r"[A-Za-z]\w*", rule.title)
        words = [rule.title] if whole else re.findall(r"[A-Za-z0-9]+", rule.name)
        made = "".join(word[:1].upper() + word[1:] for word in words)
        return f"Rule{made}" if not made.isidentifier() or keyword.iskeyword(made) else made

    def text(self) -> str:
        """The whole file."""
        body = "\n\n\n".join("\n".join(part) for part in (self.update(), self.optimizer()))
        known = {
            word: inspect.getsource(function).rstrip()
            for word, function in vars(export_words).items()
            if inspect.isfunction(function)
        }
        helpers = "\n\n\n".join(known[word] for word in _needed(known, body))
        parts = [self.head(), self.imports(f"{helpers}\n{body}"), *([helpers] if helpers else []), body]
        return "\n\n".join(parts[:2]) + "\n\n\n" + "\n\n\n".join(parts[2:]) + "\n"

    def head(self) -> str:
        """The file's docstring: the rule's page, its formula and its source."""
        rule = self.rule
        title = f"{rule.title or rule.name}, as a torch optimizer in one file."
        source = [f"Source: {rule.source}.", ""] if rule.source else []
        page = [*rule.doc.strip().splitlines(), ""] if rule.doc else []
        formula = [f"    {line}" for line in rule.formula_text.splitlines()]
        about = [
            f"Written by `descend export` from this formula of one element, in which p is the parameter, g "
            f"its{chr(10)}gradient and t the step, from 1:",
            "",
        ]
        lines = [title, "", *source, *page, *"\n".join(about).splitlines(), "", *formula]
        text = "\n".join(lines).replace("\\", "\\\\").replace('"""', "'''")
        return f'"""{text}\n"""'

    def imports(self, code: str) -> str:
        """What the code imports."""
        lines = ["from __future__ import annotations", ""]
        lines += [f"import {module}" for module in ("contextlib", "math") if f"{module}." in code]
        names = ["Callable", *(["Generator"] if "Generator[" in code else [])]
        lines += [f"from collections.abc import {', '.join(names)}", "from typing import Any", ""]
        return "\n".join([*lines, "import torch", "from torch import Tensor"])

    # -- the step of one tensor -----------------------------------------------------------------------

    def update(self) -> list[str]:
        """The function that takes one step of one tensor."""
        rule, names = self.rule, [s.name for s in self.tensors]
        takes = {word for formula in rule.formulas for word in formula.arguments_taken}
        floats = [*(["t"] if "t" in takes else []), *(s.name for s in self.scalars)]
        floats += [*rule.shape_words, *(h.name for h in rule.hypers)]
        given = [*(f"{word}: Tensor" for word in ("g", "p", *names))]
        given += ["*"] if floats or rule.is_masked else []
        given += [f"{word}: float" for word in floats]
        given += ["ndim: int"] if rule.is_masked else []
        many = len(self.scalars)
        result = {0: "None", 1: "float"}.get(many, f"tuple[{', '.join(['float'] * many)}]")
        if self.lines.joins:
            result = f"Generator[Any, float, {result}]"
        lines = ["def update(", *(f"    {word}," for word in given), f") -> {result}:"]
        changed = ["p", *(word for word in names if rule.outputs[word] != leaf(word))]
        verb = "is" if len(changed) == 1 else "are"
        what = f'"""One step of one tensor: {_listed(changed)} {verb} changed in place.'
        more = []
        if self.lines.joins:
            more = ["It stops for every sum over all tensors: it gives its own part, and is sent the whole."]
        if self.scalars:
            more.append(f"Returns the new {_listed([s.name for s in self.scalars])}.")
        lines += (
            [f'    {what}"""'] if not more else [f"    {what}", "", *(f"    {x}" for x in more), '    """']
        )
        for line in self.lines.body:
            lines += laid_out(line.lstrip(), 4 + len(line) - len(line.lstrip()))
        if self.scalars:
            lines.append(f"    return {', '.join(s.name for s in self.scalars)}")
        return lines

    # -- the class ------------------------------------------------------------------------------------

    def optimizer(self) -> list[str]:
        """The class."""
        parts = [self.constructor(), self.add_param_group(), self.step()]
        parts += [self.one(), self.start()]
        parts += [self.load()] if self.scalars else []
        head = [f"class {self.class_name}(torch.optim.Optimizer):", *self.page()]
        lines = [*head, ""]
        for part in parts:
            for line in part:
                lines += laid_out(line.lstrip(), 4 + len(line) - len(line.lstrip())) if line else [""]
            lines.append("")
        return lines[:-1]

    def page(self) -> list[str]:
        """The class's docstring."""
        rule = self.rule
        lines = [f"{rule.title or rule.name}; the file's docstring has the formula.", "", "Args:"]
        lines.append("    params: the parameters, or groups of them, as torch.optim takes them.")
        for h in rule.hypers:
            text = f"{h.name}: {h.doc or 'a number'}. In {h.allowed}."
            lines += textwrap.wrap(text, 84, initial_indent="    ", subsequent_indent="        ")
        lines.append("    maximize: climb instead of descend.")
        lines[0] = f'"""{lines[0]}'
        lines += ["", "Raises:", "    ValueError: a value outside its range.", '"""']
        return ["    " + line.replace("\\", "\\\\") if line else "" for line in lines]

    def constructor(self) -> list[str]:
        """`__init__`."""
        hypers = self.rule.hypers
        lines = ["def __init__(", "    self,", "    params: Any,", "    *,"]
        lines += [f"    {h.name}: float = {_number(h.default)}," for h in hypers]
        lines += ["    maximize: bool = False,", ") -> None:", "    defaults = {"]
        lines += [f'        "{word}": {word},' for word in [*(h.name for h in hypers), "maximize"]]
        return [*lines, "    }", "    super().__init__(params, defaults)"]

    def add_param_group(self) -> list[str]:
        """The check of a group's values."""
        lines = ["def add_param_group(self, param_group: dict[str, Any]) -> None:"]
        lines += ['    """Add a group of parameters; what it leaves out is as the constructor had it."""']
        if self.rule.hypers:
            lines.append("    values = {**self.defaults, **param_group}")
            for h in self.rule.hypers:
                lines += self.check(h)
        return [*lines, "    super().add_param_group(param_group)"]

    def check(self, h: Hyper) -> list[str]:
        """The lines that refuse a value out of its range."""
        allowed = Range(h.allowed)
        low, high = (_bound(x) for x in (allowed.low, allowed.high))
        opened = ["<=" if allowed.written[0] == "[" else "<", "<=" if allowed.written[-1] == "]" else "<"]
        test = f'{low} {opened[0]} float(values["{h.name}"]) {opened[1]} {high}'
        said = f"{h.name} = {{values['{h.name}']}} is not in {h.allowed}"
        return [f"    if not {test}:", f'        raise ValueError(f"{said}")']

    def step(self) -> list[str]:
        """`step`."""
        lines = [
            "@torch.no_grad()",
            "def step(self, closure: Callable[[], Any] | None = None) -> Any:",
            '    """Take one step, for every parameter that has a gradient.',
            "",
            "    `closure` computes the loss anew and is called first; its value is returned.",
            '    """',
            "    loss = None",
            "    if closure is not None:",
            "        with torch.enable_grad():",
            "            loss = closure()",
        ]
        if not self.lines.joins:
            return [
                *lines,
                "    for group in self.param_groups:",
                '        for p in group["params"]:',
                "            if p.grad is not None:",
                "                self._step_of(p, p.grad, group)",
                "    return loss",
            ]
        joins = ", ".join(self.lines.joins) + ("," if len(self.lines.joins) == 1 else "")
        return [
            *lines,
            "    steps = [",
            "        self._step_of(p, p.grad, group)",
            "        for group in self.param_groups",
            '        for p in group["params"]',
            "        if p.grad is not None",
            "    ]",
            "    if not steps:",
            "        return loss",
            "    whole: Any = None",
            f"    for join in ({joins}):  # the sums over all tensors, one after the other",
            "        whole = join([float(step.send(whole)) for step in steps])",
            "    for step in steps:",
            "        with contextlib.suppress(StopIteration):",
            "            step.send(whole)",
            "    return loss",
        ]

    def one(self) -> list[str]:
        """The step of one parameter: its state, and what its numbers are computed in."""
        rule, several = self.rule, bool(self.lines.joins)
        result = "Generator[Any, float, None]" if several else "None"
        lines = [
            f"def _step_of(self, p: Tensor, g: Tensor, group: dict[str, Any]) -> {result}:",
            "    if g.layout != torch.strided:",
            f'        raise RuntimeError("{self.class_name} does not support sparse gradients")',
        ]
        lines += self.shape_checks()
        lines += ["    state = self.state[p]", "    if not state:", "        self._start(p, state, group)"]
        lines += ['    state["step"] += 1']
        operands = ["p", *(f'state["{s.key}"]' for s in self.tensors)]
        lines.append(f"    kept = [{', '.join(operands)}]")
        computable = "_over_whole" if rule.reduces else "_computable"
        lines.append(f"    used = [{computable}(x) for x in kept]")
        lines.append(f'    g = {computable}(-g if group["maximize"] else g)')
        floats: list[tuple[str, str]] = []
        takes = {word for formula in rule.formulas for word in formula.arguments_taken}
        if "t" in takes:
            floats.append(("t", 'float(state["step"])'))
        floats += [(s.name, f'float(state["{s.key}"])') for s in self.scalars]
        floats += [(w, f"float(p.shape[{-2 if w == 'rows' else -1}])") for w in rule.shape_words]
        floats += [(h.name, f'float(group["{h.name}"])') for h in rule.hypers]
        floats += [("ndim", "p.dim()")] if rule.is_masked else []
        given = ", ".join(["g", "*used", *(f"{word}={value}" for word, value in floats)])
        target = ", ".join(s.name for s in self.scalars)
        before = (f"{target} = " if target else "") + ("yield from " if several else "")
        lines.append(f"    {before}update({given})")
        lines += [f'    state["{s.key}"].fill_({s.name})' for s in self.scalars]
        lines += [
            "    for own, new in zip(kept, used):",
            "        if own.dtype in (torch.float16, torch.bfloat16):",
            "            own.copy_(new.view_as(own))",
        ]
        return lines

    def shape_checks(self) -> list[str]:
        """Refusals of parameters that a rule of matrices cannot take."""
        if not self.shaped and not self.rule.shape_words:
            return []
        name = self.class_name
        return [
            "    if p.dim() < 2 or p.is_complex():",
            "        raise ValueError(",
            f'            f"{name} takes real matrices, not a parameter of shape {{tuple(p.shape)}}"',
            "        )",
        ]

    def start(self) -> list[str]:
        """The state before the first step."""
        lines = [
            "@staticmethod",
            "def _start(p: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:",
            '    """The state before the first step."""',
            '    state["step"] = torch.tensor(0.0)',
        ]
        for s in self.rule.states:
            start = f'group["{s.init}"]' if isinstance(s.init, str) else _number(s.init)
            lines.append(f'    state["{s.key}"] = {self.initial(s, start)}')
        return lines

    def initial(self, s: State, start: str) -> str:
        """A state at its start."""
        if s.scalar:
            value = f"float({start})" if start.startswith("group") else start
            return f"torch.tensor({value}, dtype=torch.float64)"
        if s.init == "p":
            return "p.detach().clone()"
        if s.shape != "element":
            shape = "*p.shape[:-1], 1" if s.shape == "rows" else "*p.shape[:-2], 1, p.shape[-1]"
            return f"p.new_zeros({shape})" if start == "0.0" else f"p.new_full(({shape}), {start})"
        if start == "0.0":
            return "torch.zeros_like(p)"
        return f"_filled_like(p, {f'float({start})' if start.startswith('group') else start})"

    def load(self) -> list[str]:
        """State dicts whose numbers keep their digits."""
        keys = ", ".join(f'"{s.key}"' for s in self.scalars) + ("," if len(self.scalars) == 1 else "")
        return [
            "def load_state_dict(self, state_dict: dict[str, Any]) -> None:",
            '    """As torch has it, but numbers stay float64: torch rounds them as it does tensors."""',
            "    super().load_state_dict(state_dict)",
            '    places = [i for group in state_dict["param_groups"] for i in group["params"]]',
            '    params = [p for group in self.param_groups for p in group["params"]]',
            "    for place, p in zip(places, params):",
            f"        for key in ({keys}):",
            '            if key in state_dict["state"].get(place, {}):',
            '                value = float(state_dict["state"][place][key])',
            "                self.state[p][key] = torch.tensor(value, dtype=torch.float64)",
        ]


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _number(value: float) -> str:
    return repr(float(value))


def _bound(value: float) -> str:
    if math.isinf(value):
        return "math.inf" if value > 0 else "-math.inf"
    return str(int(value)) if value == int(value) else repr(value)


def _needed(lines: dict[str, str], text: str) -> list[str]:
    """Which of the functions, named by `lines`, a text and the functions in it call."""
    found: list[str] = []
    todo = [word for word in lines if f"{word}(" in text]
    while todo:
        word = todo.pop(0)
        if word not in found:
            found.append(word)
            todo += [other for other in lines if other != word and f"{other}(" in lines[word]]
    return [word for word in lines if word in found]
