"""Reads an update rule as its paper writes it, checks it, and stages it. Knows nothing of any back end."""

from .chaining import chain, except_for, only, renamed
from .declared import Hyper, Range, State
from .dialects import DIALECTS, dialect, in_dialect
from .expression import Expression, expression
from .program import Pass, Program
from .rule import Formula, Rule, rule, rule_of
from .scalars import ScalarProgram
from .stage import Keep, stage

__all__ = [
    "DIALECTS",
    "Expression",
    "Formula",
    "Hyper",
    "Keep",
    "Pass",
    "Program",
    "Range",
    "Rule",
    "ScalarProgram",
    "State",
    "chain",
    "dialect",
    "except_for",
    "expression",
    "in_dialect",
    "only",
    "renamed",
    "rule",
    "rule_of",
    "stage",
]
