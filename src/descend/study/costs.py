"""What a rule costs in memory."""

from __future__ import annotations

from ..formula import Rule


def state_bytes(rule: Rule) -> str:
    """Bytes of state for an element of a float32 parameter; of matrices with their rows and columns.

    >>> from descend import rules
    >>> state_bytes(rules.get("adam")), state_bytes(rules.get("adafactor"))
    ('8', '4/columns + 4/rows')
    """
    kinds = [s.shape for s in rule.states if not s.scalar]
    whole = 4 * kinds.count("element")
    words = {"rows": "/columns", "columns": "/rows", "left": "·rows/columns", "right": "·columns/rows"}
    parts = [f"{4 * kinds.count(kind)}{word}" for kind, word in words.items() if kind in kinds]
    return " + ".join([str(whole)] * (whole > 0 or not parts) + parts)
