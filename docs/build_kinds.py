"""Writes docs/kinds.md: every rule with its kind, its oracle, its state and its passes over memory.

    python docs/build_kinds.py

What a rule keeps and how often it reads memory is drawn from its staged program. What it was compared with
stands in ORACLES, measured by benchmarks/oracles.py; how quick it is, in the tables of benchmarks/kinds.md
and benchmarks/step.md. A test fails when the page is not what this writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from descend import modifiers, rules
from descend.formula import Rule, chain, stage
from descend.study.costs import state_bytes

PAGE = Path(__file__).parent / "kinds.md"
MEASURED = Path(__file__).parents[1] / "benchmarks"

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
    "adafactor_stack": [("torch.optim 2.13.0", "3.1e-15", "roundings")],
    "adafactor_vector": [("torch.optim 2.13.0", "2.7e-15", "roundings")],
    "lamb": [("optax 0.2.8", "6.7e-16", "roundings")],
    "lars": [("pytorch_optimizer 4.1.0", "1.1e-15", "roundings, at a constant lr (there outside b)")],
    "muon": [("torch.optim 2.13.0", "3.6e-15", "roundings, in bfloat16 products as torch has them")],
    "muon_rms": [("torch.optim 2.13.0", "4.9e-15", "roundings")],
    "shampoo": [("pytorch_optimizer 4.1.0, a root every step", "8.9e-16", "roundings")],
    "soap": [("pytorch_optimizer 4.1.0", "3.4e-08", "it makes its columns orthogonal in float32")],
    "grams": [("pytorch_optimizer 4.1.0", "2.7e-15", "roundings")],
    "mars": [
        (
            "pytorch_optimizer 4.1.0",
            "2.4e-05",
            "it corrects the first gradient too, and adds eps to v as it is",
        ),
        ("the same, without these", "3.1e-15", "roundings"),
    ],
    "normuon": [("pytorch_optimizer 4.1.0", "3.6e-15", "roundings")],
    "sgd_sai": [
        ("pytorch_optimizer 4.1.0", "7.6e-03", "its deviation is that of a sample, over d − 1"),
        ("the same, over d", "3.6e-15", "roundings"),
    ],
    "prodigy": [
        ("prodigyopt 1.1.2", "3.3e-15", "roundings"),
        ("optax 0.2.8", "1.5e-01", "optax corrects the bias, which the authors leave off"),
    ],
    "stable_adamw": [("pytorch_optimizer 4.1.0", "2.2e-15", "roundings")],
}
"""What a rule was run beside, the largest difference of any element, and why."""

IN_TORCH, IN_REFERENCE = "[a step ≤ 5 ulp](accuracy.md)", "a step ≤ 5 ulp"


IN_STEP = {
    "adadelta": "Adadelta",
    "adagrad": "Adagrad",
    "adam": "Adam",
    "adamax": "Adamax",
    "adamw": "AdamW",
    "amsgrad": "AMSGrad",
    "asgd": "ASGD",
    "gradient_descent": "SGD",
    "momentum": "SGD, momentum",
    "nadam": "NAdam",
    "nesterov": "SGD, Nesterov",
    "radam": "RAdam",
    "rmsprop": "RMSprop",
    "rmsprop_centered_momentum": "RMSprop, centred, momentum",
    "rprop": "Rprop",
}
"""Torch's rules, as benchmarks/step.md names them."""


def tables(report: str) -> Iterator[tuple[str, dict[str, str]]]:
    """All rows of a benchmark's tables: the heading that they are under, the cells by column."""
    heading, head = "", None
    for line in (MEASURED / report).read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        if not line.startswith("|"):
            head = None
        elif head is None:
            head = [cell.strip() for cell in line.strip("|").split("|")]
        elif not line.startswith("|---"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            yield heading, dict(zip(head, cells, strict=True))


@cache
def speeds() -> dict[str, tuple[str, str]]:
    """By rule or chain: the best peer over ours, and ours in steps of our AdamW; empty if not measured."""
    found: dict[str, tuple[str, str]] = {}
    named = {row: rule for rule, row in IN_STEP.items()}
    for heading, row in tables("step.md"):
        if heading == "2 threads: every rule, bare":
            path, times = re.findall(r", (torch [\w-]+) ([\d.]+)×", row["1M"])[0]
            found[named[row[""]]] = f"{times} ({path})", ""
    for _, row in tables("kinds.md"):
        if "in AdamW's" in row:
            peer, adamw = found.get(row["rule"], ("", ""))
            if row["size"] in ("1M", "1024 × 1024") and row["over ours"] != "–":
                peer = f"{row['over ours'].split('×')[0]} ({row['best peer']})"
            if row["size"] in ("16M", "1024 × 1024"):
                adamw = row["in AdamW's"].split("×")[0]
            found[row["rule"]] = peer, adamw
    return found


def row(name: str) -> list[str]:
    """The lines of a rule in the table."""
    rule = rules.get(name)
    program = stage(rule)
    sweeps = program.sweeps
    lead = f"| [{rule.title}](rules/{name}.md) | {rule.kind} | {rule.source}"
    peer, adamw = speeds().get(name, ("", ""))
    tail = f"{state_bytes(rule)} | {sweeps} | {program.bytes_moved} | {peer} | {adamw} |"
    torch = rule.doc.split("\ntorch: ")[1].split("\n")[0]
    known = torch.split("`")[1] if torch.startswith("`") else ""
    default = (f"torch.optim.{known}", IN_TORCH) if known else ("float64 reference", IN_REFERENCE)
    found = ORACLES.get(name) or [(*default, "roundings")]
    first, *more = [" | ".join(one) for one in found]
    return [f"{lead} | {first} | {tail}", *(f"| | | | {one} | | | | | |" for one in more)]


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


def head(*columns: str) -> list[str]:
    """The first two lines of a table."""
    return ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]


def page() -> str:
    """The page in Markdown."""
    program, speed = ("State", "Passes", "Moved"), ("Best peer", "AdamWs")
    lines = [
        "# The kinds of rules, and what each was compared with",
        "",
        "An **element** rule says what happens to one element, and takes one pass over memory. A",
        "**reduction** rule sums over a tensor, its rows or columns, or all tensors, and takes a pass more",
        "for every sum that another has to wait for. A **matrix** rule calls routines of linear algebra",
        "between its passes, for all matrices of one shape together. The columns:",
        "",
        "- *Largest difference* from the oracle, of any element of p, in float64: 40 steps, three tensors,",
        "  normal gradients, in which p moves by 0.1 to 2; `benchmarks/oracles.py` prints it (Sophia, whose",
        "  estimates must be given, was run by hand). Every rule is also held, in the tests, to its own",
        "  formula in float64 NumPy on both back ends; and where another rule is its limit, to that rule.",
        "- *State*: bytes for an element of a float32 parameter. *Passes*: sweeps over whole tensors (those",
        "  over rows or columns read far less). *Moved*: values read and written for an element in a step;",
        "  times 4 bytes in float32, this is what a step costs where memory is the limit.",
        "- *Best peer*: the time of a step of the quickest other package over ours, for 1024 × 1024 elements",
        "  (among torch's own paths alone, for rules of torch). *AdamWs*: our step in steps of our AdamW,",
        "  for 4096 × 4096 elements (matrix rules: 1024 × 1024). Both are read from the dated tables",
        "  `benchmarks/kinds.md` and `benchmarks/step.md`; empty where nothing was measured.",
        "",
        *head("Rule", "Kind", "Source", "Oracle", "Largest difference", "Why", *program, *speed),
        *(line for name in rules.built_in() for line in row(name)),
        "",
        "## Chains",
        "",
        "[Modifiers](rules/index.md#modifiers) fuse with the rule that they stand around.",
        "",
        "*Bytes* is what a chain moves over what AdamW moves.",
        "",
        *head("Chain", *program, "Bytes", *speed),
    ]
    least = stage(CHAINS["adamw"]).bytes_moved
    for name, rule in CHAINS.items():
        staged = stage(rule)
        moved = staged.bytes_moved
        lead = f"| {name} | {state_bytes(rule)} | {len(staged.passes)}"
        lines.append(f"{lead} | {moved} | {moved / least:.2f} | {' | '.join(speeds().get(name, ('', '')))} |")
    lines += [
        "",
        "Their oracles, in float64, are in `tests/rules/test_modifiers.py`, to 1e-12: `clip_grad_value_`,",
        "`clip_grad_norm_`, `swa_utils.AveragedModel` of torch; the authors' lines for adaptive clipping",
        "(5.3e-15 from optax's, over momentum), centralisation and caution.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
