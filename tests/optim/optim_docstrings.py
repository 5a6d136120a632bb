"""What the docstring of each class must say, drawn from its rules. Run this file to write them anew."""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from pathlib import Path

import descend
from descend import rules
from descend.formula import Hyper, Rule
from descend.modifiers import coupled_decay

WIDTH = 106

FORMULAS: dict[str, dict[str, str]] = {
    "SGD": {
        "gradient_descent": "without momentum",
        "momentum": "with momentum",
        "nesterov": "with momentum and nesterov",
    },
    "RMSprop": {
        "rmsprop": "as it stands",
        "rmsprop_momentum": "with momentum",
        "rmsprop_centered": "centered",
        "rmsprop_centered_momentum": "centered, with momentum",
    },
    "Adam": {"adam": "as it stands", "amsgrad": "with amsgrad"},
    "AdamW": {"adamw": "as it stands"},
}
"""The rules of the classes whose options choose among several, and when."""

FLAGS = {
    "params": "the parameters, as tensors, as (name, tensor) pairs, or as dicts of parameter groups.",
    "maximize": "climb instead of descend.",
    "foreach": "torch's choice of an implementation; every step is fused here, whatever it says.",
    "fused": "torch's choice of an implementation; every step is fused here, whatever it says.",
    "capturable": "must stay False: the scalars of a step are computed on the host.",
    "differentiable": "let autograd record the step (on the torch back end, which is slower).",
    "strict": "refuse values that are allowed but make no sense, instead of warning.",
    "nesterov": "look ahead along the momentum.",
    "centered": "subtract the squared average of the gradients: divide by their standard deviation.",
    "amsgrad": "divide by the largest average of the squared gradients so far.",
    "decoupled_weight_decay": "let the weights decay by themselves, p = p - lr * weight_decay * p, "
    "instead of through the gradient.",
    "independent_weight_decay": "let them decay whatever lr is, p = p - weight_decay * p.",
}

EXAMPLE = """\
Example:
    >>> import torch, descend
    >>> model = torch.nn.Linear(3, 1)
    >>> optimizer = descend.{name}(model.parameters(), lr={lr})
    >>> model(torch.ones(2, 3)).sum().backward()
    >>> optimizer.step()
    >>> optimizer.zero_grad()"""


def formulas(name: str) -> dict[str, str]:
    return FORMULAS.get(name, {name.lower(): ""})


def found(name: str) -> list[Rule]:
    return [rules.get(rule) for rule in formulas(name)]


def hyper(name: str, word: str) -> Hyper:
    for rule in [*found(name), coupled_decay]:
        for one in rule.hypers:
            if one.name == word:
                return one
    raise KeyError(word)


def about(one: Hyper) -> str:
    sensible = f", sensibly in {one.sensible}" if one.sensible else ""
    return f"{one.doc}. In {one.allowed}{sensible}."


def arguments(kind: type[descend.FormulaOptimizer]) -> list[str]:
    lines = ["Args:"]
    inside: dict[str, list[str]] = {}
    for word, where in kind.hyper_keys.items():
        inside.setdefault(where[0], []).append(word)
    for word, parameter in inspect.signature(kind).parameters.items():
        if word in FLAGS:
            text = FLAGS[word]
        elif word in inside:
            text = f"the pair ({', '.join(inside[word])})."
        else:
            text = about(hyper(kind.__name__, word))
        if parameter.default is not parameter.empty and word not in FLAGS:
            text += f" Default {parameter.default!r}."
        lines += wrapped(f"{word}: {text}", 4)
        for part in inside.get(word, ()):
            lines += wrapped(f"{part}: {about(hyper(kind.__name__, part))}", 8)
    return lines


def wrapped(text: str, indent: int) -> list[str]:
    pad = " " * indent
    return textwrap.wrap(text, WIDTH, initial_indent=pad, subsequent_indent=pad + "    ")


def expected(kind: type[descend.FormulaOptimizer]) -> str:
    name = kind.__name__
    first = found(name)[0]
    lines = wrapped(first.summary, 0)
    lines += ["", "For every element p with gradient g; t counts the parameter's steps from 1."]
    for rule, when in formulas(name).items():
        one = rules.get(rule)
        head = f"{one.title}{', ' + when if when else ''} ({one.source}):"
        lines += ["", *wrapped(head, 0), "", *(f"    {line}" for line in one.formula_text.splitlines())]
    lines += ["", *arguments(kind), "", "Raises:"]
    why = "UsageError: (a ValueError) a value out of range, or a group key that is nearly an option's."
    lines += wrapped(why, 4)
    lr = inspect.signature(kind).parameters["lr"].default
    return "\n".join([*lines, "", EXAMPLE.format(name=name, lr=lr)])


def rewrite(kind: type[descend.FormulaOptimizer]) -> None:
    path = Path(inspect.getsourcefile(kind) or "")
    source = path.read_text()
    page = textwrap.indent(expected(kind), "    ", lambda line: bool(line.strip())).lstrip()
    pattern = re.compile(rf'(class {kind.__name__}\(\w+\):\n    """).*?(""")', re.DOTALL)
    path.write_text(pattern.sub(lambda m: f"{m[1]}{page}\n    {m[2]}", source, count=1))


if __name__ == "__main__":
    for one in descend.optim.CLASSES.values():
        rewrite(one)
    sys.stdout.write("written\n")
