"""Back ends that run a staged formula: `reference` (float64), `torch` (any device) and `cpu` (fused)."""

from __future__ import annotations

from ..formula import Program, Rule, stage


def cost(program: Program) -> str:
    """What a step of a program costs where memory is the limit: its passes, and bytes an element moves.

    >>> from descend import rules
    >>> cost(stage(rules.get("adam")))
    '1 pass over memory, 7 values read or written for an element: 28 bytes in float32'
    """
    count = program.sweeps
    moved = program.bytes_moved
    passes = "1 pass" if count == 1 else f"{count} passes"
    values = f"{moved} values read or written for an element: {4 * moved} bytes in float32"
    return f"{passes} over memory, {values}"


def show(rule: Rule, dtype: str = "float32") -> str:
    """A rule from formula to machine: the formula, the staged program, the source of each back end.

    `dtype` is the storage type that the CPU kernel is rendered for.
    """
    from . import cpu, torch_ops

    program = stage(rule)
    alone = len(rule.formulas) == 1
    heading = (rule.title if alone else "") or rule.name
    heading += f" ({rule.source})" if alone and rule.source else ""
    if program.folds:
        code = "none: sums of sums by row or column run on the torch back end"
    else:
        code = cpu.Kernel(program, (dtype,) * len(program.operands)).source
    parts = {
        f"formula: {heading}": rule.formula_text,
        f"staged: {cost(program)}": str(program),
        "back end reference: the formula itself, on float64 NumPy arrays": rule.formula_text,
        "back end torch": torch_ops.source(program),
        f"back end cpu, {dtype}: LLVM IR, compiled for this machine": code,
    }
    return "\n\n".join(f"── {head} ──\n{text}" for head, text in parts.items())
