"""Reads an update rule as its paper writes it, checks it, and stages it. Knows nothing of any back end."""

from .dialects import DIALECTS, dialect, in_dialect
from .expression import Expression, expression
from .rule import Formula, Hyper, Range, Rule, State, chain, rule, rule_of
from .scalars import ScalarProgram
from .stage import Pass, Program, stage

__all__ = [
    "DIALECTS",
    "Expression",
    "Formula",
    "Hyper",
    "Pass",
    "Program",
    "Range",
    "Rule",
    "ScalarProgram",
    "State",
    "chain",
    "dialect",
    "expression",
    "in_dialect",
    "rule",
    "rule_of",
    "stage",
]
