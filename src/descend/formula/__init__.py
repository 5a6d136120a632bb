"""Reads an update rule as its paper writes it, checks it, and stages it. Knows nothing of any back end."""

from .rule import Formula, Hyper, Range, Rule, State, chain, rule, rule_of
from .stage import Program, ScalarProgram, stage

__all__ = [
    "Formula",
    "Hyper",
    "Program",
    "Range",
    "Rule",
    "ScalarProgram",
    "State",
    "chain",
    "rule",
    "rule_of",
    "stage",
]
