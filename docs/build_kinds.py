"""Writes docs/kinds.md: every rule with its kind, its oracle, its state and its passes over memory.

    python docs/build_kinds.py

What a rule keeps and how often it reads memory is drawn from its staged program. What it was compared with
stands in ORACLES, measured by benchmarks/oracles.py. A test fails when the page is not what this writes.
"""

from __future__ import annotations

from pathlib import Path

from descend import modifiers, rules
from descend.formula import Rule, chain, stage

PAGE = Path(__file__).parent / "kinds.md"

ORACLES: dict[str, list[tuple[str, str, str]]] = {
    "adan": [
        ("pytorch_optimizer 4.1.0", "1.5e-14", "roundings"),
        ("optax 0.2.8", "9.2e-02", "optax looks ahead by 1 − beta2 = 0.08 where paper and authors have 0.92"),
    ],
    "ema_momentum": [("momentum, at lr/(1 − beta)", "1e-12", "roundings; a limit, in the reference")],
    "ademamix": [
        ("pytorch_optimizer 4.1.0, with and without warm-up", "2.7e-15", "roundings"),
        ("optax 0.2.8, without", "4.4e-16", "roundings"),
    ],
    "adopt": [
        ("optax 0.2.8", "4.4e-16", "roundings"),
        ("pytorch_optimizer 4.1.0", "6.8e-03", "it clips at t^¼, a step ahead; with (t−1)^¼ 2.2e-16"),
    ],
    "lion": [("lion-pytorch 0.2.5", "5.3e-15", "roundings"), ("optax 0.2.8", "8.9e-16", "roundings")],
    "sophia": [("pytorch_optimizer 4.1.0, estimates given", "8.9e-15", "roundings")],
    "yogi": [("optax 0.2.8", "3.9e-06", "optax starts m at 1e-6; from the same start 2.2e-16")],
    "adafactor": [("torch.optim 2.13.0", "3.1e-15", "roundings")],
    "adafactor_paper": [("optax 0.2.8", "3.9e-09", "optax computes t**-0.8 in float32")],
    "adafactor_stack": [("torch.optim 2.13.0", "3.1e-15", "roundings")],
    "adafactor_vector": [("torch.optim 2.13.0", "2.7e-15", "roundings")],
    "lamb": [("optax 0.2.8", "6.7e-16", "roundings")],
    "lars": [("pytorch_optimizer 4.1.0", "1.1e-15", "roundings, at a constant lr (there outside b)")],
    "prodigy": [
        ("prodigyopt 1.1.2", "3.3e-15", "roundings"),
        ("optax 0.2.8", "1.5e-01", "optax corrects the bias, which the authors leave off"),
    ],
    "stable_adamw": [("pytorch_optimizer 4.1.0", "2.2e-15", "roundings")],
}
"""What a rule was run beside, the largest difference of any element, and why."""

IN_TORCH, IN_REFERENCE = "[a step ≤ 4 ulp](accuracy.md)", "a step ≤ 5 ulp"


def state(rule: Rule) -> str:
    """Bytes of state that an element of a float32 parameter takes."""
    kinds = [s.shape for s in rule.states if not s.scalar]
    whole = 4 * kinds.count("element")
    parts = [f"4 / {other}" for shape, other in (("rows", "columns"), ("columns", "rows")) if shape in kinds]
    return " + ".join([str(whole)] * (whole > 0 or not parts) + parts)


def row(name: str) -> list[str]:
    """The lines of a rule in the table."""
    rule = rules.get(name)
    program = stage(rule)
    sweeps = sum(one.domain == "element" for one in program.passes)
    lead = f"| [{rule.title}](rules/{name}.md) | {rule.kind} | {rule.source}"
    tail = f"{state(rule)} | {sweeps} | {program.bytes_moved} |"
    torch = rule.doc.split("\ntorch: ")[1].split("\n")[0]
    known = torch.split("`")[1] if torch.startswith("`") else ""
    default = (f"torch.optim.{known}", IN_TORCH) if known else ("float64 reference", IN_REFERENCE)
    found = ORACLES.get(name) or [(*default, "roundings")]
    first, *more = [" | ".join(one) for one in found]
    return [f"{lead} | {first} | {tail}", *(f"| | | | {one} | | | |" for one in more)]


CHAINS: dict[str, Rule] = {
    "adamw": rules.get("adamw"),
    "clip_value, adamw, cautious_unscaled, ema_weights": chain(
        modifiers.clip_value, rules.get("adamw"), modifiers.cautious_unscaled, modifiers.ema_weights
    ),
    "adamw, cautious": chain(rules.get("adamw"), modifiers.cautious),
    "clip_norm, adamw": chain(modifiers.clip_norm, rules.get("adamw")),
    "clip_global_norm, adamw": chain(modifiers.clip_global_norm, rules.get("adamw")),
    "agc, adamw": chain(modifiers.agc, rules.get("adamw")),
    "centralise, adamw": chain(modifiers.centralise, rules.get("adamw")),
    "clip_global_norm, lamb": chain(modifiers.clip_global_norm, rules.get("lamb")),
}


def page() -> str:
    """The page in Markdown."""
    lines = [
        "# The kinds of rules, and what each was compared with",
        "",
        "An **element** rule says what happens to one element, and takes one pass over memory. A",
        "**reduction** rule sums over a tensor, its rows or columns, or all tensors, and takes a pass more",
        "for every sum that another has to wait for. The columns:",
        "",
        "- *Largest difference* from the oracle, of any element of p, in float64: 40 steps, three tensors,",
        "  normal gradients, in which p moves by 0.1 to 2; `benchmarks/oracles.py` prints it (Sophia, whose",
        "  estimates must be given, was run by hand). Every rule is also held, in the tests, to its own",
        "  formula in float64 NumPy on both back ends; and where another rule is its limit, to that rule.",
        "- *State*: bytes for an element of a float32 parameter. *Passes*: sweeps over whole tensors (those",
        "  over rows or columns read far less). *Moved*: values read and written for an element in a step;",
        "  times 4 bytes in float32, this is what a step costs where memory is the limit.",
        "",
        "| Rule | Kind | Source | Oracle | Largest difference | Why | State | Passes | Moved |",
        "|---|---|---|---|---|---|---|---|---|",
        *(line for name in rules.names() for line in row(name)),
        "",
        "## Chains",
        "",
        "[Modifiers](rules/index.md#modifiers) fuse with the rule that they stand around.",
        "",
        "| Chain | State | Passes | Moved | in AdamW's |",
        "|---|---|---|---|---|",
    ]
    least = stage(CHAINS["adamw"]).bytes_moved
    for name, rule in CHAINS.items():
        program = stage(rule)
        moved = program.bytes_moved
        lines.append(f"| {name} | {state(rule)} | {len(program.passes)} | {moved} | {moved / least:.2f} |")
    lines += [
        "",
        "Their oracles, in float64, are in `tests/rules/test_modifiers.py`, to 1e-12: `clip_grad_value_`,",
        "`clip_grad_norm_`, `swa_utils.AveragedModel` of torch; the authors' lines for adaptive clipping",
        "(5.3e-15 from optax's, over momentum), centralisation and caution.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
