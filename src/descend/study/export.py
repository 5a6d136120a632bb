"""`descend export`: a rule as one file that needs nothing but torch."""

from __future__ import annotations

import inspect
import keyword
import math
import re
import textwrap
from collections.abc import Callable
from typing import Any

from ..errors import UsageError
from ..formula import Hyper, Range, Rule, rule_of, stage
from . import export_words
from .export_layout import laid_out
from .export_step import variants


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
        self.variants = variants(rule, self.class_name)
        self.joins = self.variants[0].lines.joins
        if any(one.lines.joins != self.joins for one in self.variants):
            raise UsageError(
                f"{rule.name} cannot be exported: it sums over all tensors for matrices and not for vectors"
            )
        scalars = {s.key: s for one in self.variants for s in one.rule.states if s.scalar}
        self.scalars = list(scalars.values())

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
        updates = (one.update() for one in self.variants)
        body = "\n\n\n".join("\n".join(part) for part in (*updates, self.optimizer()))
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
        if len(self.variants) > 1:
            text = self.variants[1].rule.formula_text
            formula += ["", "and for vectors and numbers:", "", *(f"    {x}" for x in text.splitlines())]
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
        names = ["Callable", *(word for word in ("Generator", "Iterator") if f"{word}[" in code)]
        lines += [f"from collections.abc import {', '.join(names)}", "from typing import Any", ""]
        return "\n".join([*lines, "import torch", "from torch import Tensor"])

    # -- the class ------------------------------------------------------------------------------------

    def optimizer(self) -> list[str]:
        """The class."""
        parts = [self.constructor(), self.add_param_group(), self.step()]
        parts += [part for one in self.variants for part in (one.one(), one.start())]
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
        if not self.joins:
            return [
                *lines,
                "    for group in self.param_groups:",
                '        for p in group["params"]:',
                "            if p.grad is not None:",
                "                self._step_of(p, p.grad, group)",
                "    return loss",
            ]
        joins = ", ".join(self.joins) + ("," if len(self.joins) == 1 else "")
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
