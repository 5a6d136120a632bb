"""Back ends that run a staged formula: `reference` (float64), `torch` (any device) and `cpu` (fused)."""

from __future__ import annotations

from ..formula import Rule, stage


def show(rule: Rule, dtype: str = "float32") -> str:
    """A rule from formula to machine: the formula, the staged program, the source of each back end.

    `dtype` is the storage type that the CPU kernel is rendered for.
    """
    from . import cpu, torch_ops

    program = stage(rule)
    if program.folds:
        code = "none: sums of sums by row or column run on the torch back end"
    else:
        code = "\n".join(cpu.Kernel(program, (dtype,) * len(program.operands)).sources)
    parts = {
        f"formula: {rule.title or rule.name}"
        + (f" ({rule.source})" if rule.source else ""): rule.formula_text,
        "staged": str(program),
        "back end reference: the formula itself, on float64 NumPy arrays": rule.formula_text,
        "back end torch": torch_ops.source(program),
        f"back end cpu, {dtype}: LLVM IR, compiled for this machine": code,
    }
    return "\n\n".join(f"── {head} ──\n{text}" for head, text in parts.items())
