"""The table of the rules' tests: one line per rule, with the torch class that stands for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from descend import rules
from descend.formula import DIALECTS, Rule, chain
from descend.modifiers import coupled_decay, decoupled_decay

Hypers = Mapping[str, float]
Build = Callable[..., torch.optim.Optimizer]


@dataclass(frozen=True)
class Line:
    """A rule (or a chain), torch's class for it, and the hyper-parameters it is tested at.

    `torch` builds torch's optimizer from parameters, our hyper-parameters and torch's own flags (foreach,
    fused); None where torch has no such rule. `fused` says whether torch has a fused kernel for it.
    """

    rule: Rule
    torch: Build | None = None
    fused: bool = False
    hypers: Hypers = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The rule's name."""
        return self.rule.name

    @property
    def values(self) -> dict[str, float]:
        """Every hyper-parameter of the rule, at its default unless the line says otherwise."""
        return {h.name: self.hypers.get(h.name, h.default) for h in self.rule.hypers}

    @property
    def paths(self) -> list[str]:
        """The paths that torch has for the rule on the CPU."""
        return [] if self.torch is None else ["forloop", "foreach", *(["fused"] if self.fused else [])]

    def optimizer(self, params: list[torch.Tensor], **flags: Any) -> torch.optim.Optimizer:
        """torch's optimizer with this line's hyper-parameters."""
        assert self.torch is not None
        return self.torch(params, self.values, **flags)


_PAIRS = {
    "betas": ("beta1", "beta2"),
    "etas": ("etaminus", "etaplus"),
    "step_sizes": ("step_size_min", "step_size_max"),
}


def _by(kind: type[torch.optim.Optimizer], **fixed: Any) -> Build:
    """A builder of torch's class from our hyper-parameters; pairs are gathered as torch wants them."""

    def build(params: list[torch.Tensor], values: Hypers, **flags: Any) -> torch.optim.Optimizer:
        given: dict[str, Any] = dict(values)
        for pair, (first, second) in _PAIRS.items():
            if first in given:
                given[pair] = (given.pop(first), given.pop(second))
        return kind(params, **given, **fixed, **flags)

    return build


def _line(rule: Rule | str, build: Build | None = None, fused: bool = False, **hypers: float) -> Line:
    return Line(rules.get(rule) if isinstance(rule, str) else rule, build, fused, hypers)


_o = torch.optim

CLASSICAL: tuple[Line, ...] = (
    _line("gradient_descent", _by(_o.SGD), True),
    _line("momentum", _by(_o.SGD), True, dampening=0.1),
    _line("ema_momentum"),
    _line("nesterov", _by(_o.SGD, nesterov=True), True),
    _line("adagrad", _by(_o.Adagrad), True, lr_decay=0.01, initial_accumulator_value=0.1),
    _line("adadelta", _by(_o.Adadelta)),
    _line("rmsprop", _by(_o.RMSprop)),
    _line("rmsprop_from_first"),
    _line("rmsprop_centered", _by(_o.RMSprop, centered=True)),
    _line("rmsprop_momentum", _by(_o.RMSprop)),
    _line("rmsprop_centered_momentum", _by(_o.RMSprop, centered=True)),
    _line("adam", _by(_o.Adam), True),
    _line("adamw", _by(_o.AdamW), True),
    _line("adamax", _by(_o.Adamax)),
    _line("nadam", _by(_o.NAdam)),
    _line("amsgrad", _by(_o.Adam, amsgrad=True), True),
    _line("radam", _by(_o.RAdam)),
    _line("rprop", _by(_o.Rprop)),
    _line("asgd", _by(_o.ASGD), t0=3.0),
)
"""The rules of torch.optim and of the textbooks."""

ELEMENT: tuple[Line, ...] = (
    _line("adan", weight_decay=0.1),
    _line("ademamix", weight_decay=0.1),
    _line("adopt"),
    _line("grams", weight_decay=0.1),
    _line("lion", weight_decay=0.1),
    _line("sophia", weight_decay=0.1),
    _line("yogi"),
)
"""Newer rules that work on every element by itself."""

RULES = CLASSICAL + ELEMENT
"""Every rule that takes one pass."""

_AT = {"yogi (optax)": {"initial_accumulator_value": 0.0}}  # so that no gradient is no step


def _forms() -> Iterator[Line]:
    """Every formula that a dialect has and its rule has not, once; with an eps where the paper has none."""
    for name in rules.built_in():
        main = rules.get(name)
        seen = {main.formulas[0].function}
        for word in DIALECTS:
            form = main.dialects.get(word, main)
            if form.formulas[0].function not in seen:
                seen.add(form.formulas[0].function)
                eps = {"eps": 1e-8} if any(h.name == "eps" and h.default == 0 for h in form.hypers) else {}
                yield _line(form, **eps, **_AT.get(form.name, {}))


FORMS = tuple(_forms())
ELEMENT_FORMS = tuple(line for line in FORMS if line.rule.kind == "element")

REDUCTION: tuple[Line, ...] = (
    _line("adafactor", weight_decay=0.1),
    _line("adafactor_stack", weight_decay=0.1),
    _line("adafactor_vector", weight_decay=0.1),
    _line("lamb"),
    _line("lars", eta=0.1),
    _line("mars", weight_decay=0.1),
    _line("prodigy", d0=1e-3, weight_decay=0.1),
    _line("sgd_sai"),
    _line("stable_adamw"),
)
MATRIX: tuple[Line, ...] = (
    _line("muon", ns_bits=64),
    _line("muon_rms", ns_bits=64),
    _line("normuon", ns_bits=64),
    _line("shampoo", precondition_frequency=3, eps=0.1),  # what no gradient has touched is not amplified
    _line("soap", precondition_frequency=3),
)
MATRIX_FORMS = tuple(line for line in FORMS if line.rule.kind == "matrix")
"""Rules that work on whole matrices."""

REDUCTION_FORMS = tuple(line for line in FORMS if line.rule.kind == "reduction")
"""Rules that sum over tensors."""

_NADAMW, _AMSGRADW = _by(_o.NAdam, decoupled_weight_decay=True), _by(_o.AdamW, amsgrad=True)

CHAINS: tuple[Line, ...] = (
    _line(chain(coupled_decay, rules.get("adam")), _by(_o.Adam), True, weight_decay=0.1),
    _line(chain(coupled_decay, rules.get("momentum")), _by(_o.SGD), True, weight_decay=0.1),
    _line(chain(coupled_decay, rules.get("asgd")), _by(_o.ASGD), weight_decay=0.1),
    _line(chain(decoupled_decay, rules.get("nadam")), _NADAMW, weight_decay=0.1),
    _line(chain(decoupled_decay, rules.get("amsgrad")), _AMSGRADW, True, weight_decay=0.1),
)
"""Rules with weight decay before them, as torch's classes have it."""

LINES = RULES + CHAINS
MEASURED = CLASSICAL + CHAINS
"""What docs/accuracy.md measures."""
BY_NAME = {line.name: line for line in LINES + FORMS}
WITH_TORCH = tuple(line for line in LINES if line.torch is not None)
