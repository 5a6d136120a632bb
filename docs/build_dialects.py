"""Writes docs/dialects.md: how torch, Keras, optax and the papers differ in each rule.

    python docs/build_dialects.py

The formulas and defaults are drawn from the rules; what was measured stands in MEASURED, as
benchmarks/oracles.py --dialects prints it. A test fails when the page is not what this writes.
"""

from __future__ import annotations

from pathlib import Path

from descend import rules
from descend.formula import DIALECTS, Rule

PAGE = Path(__file__).parent / "dialects.md"
CALLED = {"torch": "torch", "keras": "Keras", "optax": "optax", "paper": "paper"}

MEASURED = """
adadelta keras 2.2e-16 2.2e-16
adadelta optax 4.4e-16 4.4e-16
adadelta paper 0 0
adafactor keras 9.4e-07 9.4e-07
adafactor paper 6.7e-17 1.0e-16
adafactor optax 9.9e-08 1.9e+00
adafactor_stack keras 4.2e-07 4.2e-07
adafactor_stack paper 1.4e-16 1.4e-16
adafactor_stack optax 1.6e-07 1.5e+00
adafactor_vector keras 1.9e-07 1.9e-07
adafactor_vector paper 3.4e-17 3.4e-17
adafactor_vector optax 1.3e-07 8.1e-01
adagrad paper 0 0
adagrad keras 2.2e-16 1.9e-09
adagrad optax 2.2e-16 1.9e-09
adam paper 0 0
adam keras 2.2e-16 2.9e-05
adam optax 4.4e-16 1.1e-02
adamax optax 2.2e-16 2.2e-16
adamax paper 0 0
adamax keras 2.2e-16 3.1e-11
adamw keras 3.1e-15 2.9e-05
adamw optax 2.2e-16 1.1e-02
adamw paper 0 4.0e-04
adan paper 9.4e-16 9.4e-16
adan optax 2.2e-16 6.2e-02
ademamix paper 0 0
ademamix optax 2.2e-16 2.2e-16
adopt paper 0 0
adopt optax 2.2e-16 2.2e-16
amsgrad keras 2.2e-16 2.9e-05
amsgrad optax 4.4e-16 4.6e-02
amsgrad paper 0 2.1e-02
gradient_descent keras 2.2e-16 2.2e-16
gradient_descent optax 2.2e-16 2.2e-16
gradient_descent paper 0 0
lamb paper 1.7e-17 1.7e-17
lamb optax 4.4e-16 4.4e-16
lamb keras 3.1e-15 2.4e-01
lars paper 3.4e-17 3.4e-17
lars optax 6.7e-16 3.6e+00
lion paper 0 0
lion keras 3.1e-15 3.1e-15
lion optax 2.2e-16 2.2e-16
momentum optax 4.4e-16 4.4e-16
momentum keras 1.3e-15 5.7e-01
momentum paper 4.4e-15 9.1e-03
muon keras 3.9e-09 6.5e-02
muon optax 3.6e-10 6.2e-03
nadam keras 2.2e-16 2.2e-16
nadam optax 4.4e-16 6.6e-02
nadam paper 0 2.3e-03
nesterov optax 4.4e-16 4.4e-16
nesterov keras 8.9e-16 5.2e-01
nesterov paper 6.7e-16 8.2e-03
prodigy paper 0 0
prodigy optax 4.4e-16 3.0e-01
radam optax 9.8e-15 7.9e-10
radam paper 0 3.3e-04
rmsprop paper 1.3e-16 1.3e-16
rmsprop keras 4.4e-16 8.7e-03
rmsprop optax 4.4e-16 1.3e-03
rmsprop_centered keras 4.4e-16 9.8e-03
rmsprop_centered optax 4.4e-16 1.6e-03
rmsprop_centered paper 0 6.1e-05
rmsprop_centered_momentum keras 1.3e-15 5.5e-01
rmsprop_centered_momentum optax 1.1e-15 5.5e-01
rmsprop_centered_momentum paper 0 1.5e-03
rmsprop_momentum keras 6.7e-16 4.4e-01
rmsprop_momentum optax 8.9e-16 4.4e-01
rprop optax 0 1.6e-01
rprop paper 0 2.9e-01
sophia paper 0 0
sophia optax 5.6e-16 1.3e-02
yogi optax 2.2e-16 6.2e-06
yogi paper 0 2.2e-01
"""
"""Rule, dialect, largest difference of our form of it, and of the rule itself."""

WHY = {
    "adam": "Measured with optax's eps_root at 1e-3; at 0, its default, optax is as torch.",
    "adafactor": "Keras takes means in float32, optax the power of t; in float64 they agree to 5e-15.",
    "adamax": "Without eps the paper divides zero by zero where no gradient ever was; here the step is zero.",
    "adadelta": "optax without a `learning_rate` leaves out the sign with it, and climbs.",
    "adan": "The paper is the authors' code.",
    "adamw": "See Adam for optax. The paper leaves the decay open: here it is torch's 1e-2 times lr.",
    "momentum": "Keras keeps the sum with the other sign. At a constant lr all four go the same way.",
    "nesterov": "The paper takes the gradient at the point ahead; p stands for that point in all of them.",
    "nadam": "Keras' schedule is that of torch with a `momentum_decay` of 1.",
    "prodigy": "The paper is the authors' code.",
    "rmsprop": "The slide has no eps: with eps = 0 an element that never had a gradient becomes NaN.",
    "radam": "The paper has no eps: see RMSProp. Keras has no RAdam.",
    "amsgrad": "The paper has no eps: see RMSProp.",
    "yogi": "The rule itself is optax's with m from zero, so that no gradient is no step.",
    "sophia": "The estimates of the curvature were given to both.",
    "rprop": "lr is the first size here, and was not changed half-way.",
    "adafactor_stack": "optax factors the two largest dimensions, the last two here. See Adafactor.",
    "adafactor_vector": "See Adafactor.",
}
"""What the formulas do not say."""


def measured() -> dict[tuple[str, str], tuple[str, str]]:
    """What stands in MEASURED, by rule and dialect."""
    rows = [line.split() for line in MEASURED.strip().splitlines()]
    return {(name, word): (ours, main) for name, word, ours, main in rows}


def forms(rule: Rule) -> dict[str, Rule]:
    """The forms of a rule, in the order of the page; the rule itself first where it is nobody's."""
    spoken = {word: rule.dialects[word] for word in DIALECTS if word in rule.dialects}
    return spoken if rule.dialect else {"descend": rule, **spoken}


def table(rule: Rule) -> list[str]:
    """The forms of a rule one under the other: what differs of formula and defaults, what was measured."""
    known, found = forms(rule), measured()
    texts = {word: form.formula_text.splitlines() for word, form in known.items()}
    common = set.intersection(*map(set, texts.values()))
    own = {word: tuple(line for line in text if line not in common) for word, text in texts.items()}
    lines = {word: "<br>".join(f"`{line}`" for line in text) for word, text in own.items()}
    first = {text: word for word, text in reversed(own.items())}
    columns = {"": [CALLED.get(word, word) for word in known]}
    if any(own.values()):
        cells = {w: lines[w] if first[own[w]] == w else f"as {CALLED[first[own[w]]]}" for w in known}
        columns["Formula"] = [*cells.values()]
    for name in dict.fromkeys(h.name for form in known.values() for h in form.hypers):
        values = [
            next((f"{h.default:g}" for h in form.hypers if h.name == name), "–") for form in known.values()
        ]
        if len(set(values)) > 1:
            columns[f"`{name}`"] = values
    for k, what in enumerate(("Off by", "The rule itself")):
        if any((rule.name, word) in found for word in known):
            columns[what] = [found.get((rule.name, word), ("–", "–"))[k] for word in known]
    body = [row([*cells]) for cells in zip(*columns.values(), strict=True)]
    return [row([*columns]), "|---" * len(columns) + "|", *body]


def row(cells: list[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def differs(form: Rule, rule: Rule) -> str:
    """How a form differs from the rule itself."""
    if form is rule:
        return "the rule"
    if form.formulas[0].function is not rule.formulas[0].function:
        return "own formula"
    same = all(rule.hyper(h.name).default == h.default for h in form.hypers)
    return "the same" if same else "own defaults"


def reasons(rule: Rule) -> list[str]:
    """A sentence for each formula of its own, and what the formulas do not say."""
    said: dict[str, list[str]] = {}
    for word, form in rule.dialects.items():
        if differs(form, rule) == "own formula":
            said.setdefault(form.formulas[0].function.__doc__ or "", []).append(CALLED[word])
    lines = [f"{', '.join(who)}: {what}" for what, who in said.items()]
    lines += [WHY[rule.name]] if rule.name in WHY else []
    return [line.replace("*", "\\*") for line in lines]


def page() -> str:
    """The page in Markdown."""
    spoken = [rules.get(name) for name in rules.built_in() if rules.get(name).dialects]
    lines = [
        "# Dialects: one rule as torch, Keras, optax and its paper have it",
        "",
        "Libraries mean different things by one name: eps inside the root or outside, lr inside the",
        "momentum or outside, another start, other defaults. A dialect is one library's form of a rule, with",
        "its defaults:",
        "",
        "```python",
        'descend.optimizer("nadam", dialect="keras")(model.parameters(), lr=1e-3)',
        'descend.optimizer("adam", dialect="keras", decay="decoupled")(params, weight_decay=4e-3)',
        'descend.rules.get("nadam", dialect="paper")',
        "```",
        "",
        "and in the terminal `descend show nadam --dialect keras`,",
        "`descend fit digits --rule nadam --dialect keras`; `descend rules` lists who has which. torch's",
        "form is the default, and the paper's where torch has no such rule. The hyper-parameters bear the",
        'formula\'s names. Every optimizer of Keras takes a weight_decay: it is `decay="decoupled"` here. A',
        "rule of one's own may have dialects too, by `descend.formula.dialect`.",
        "",
        "| Rule | torch | Keras | optax | paper |",
        "|---|---|---|---|---|",
    ]
    for rule in spoken:
        cells = [differs(rule.dialects[word], rule) if word in rule.dialects else "–" for word in DIALECTS]
        lines.append(row([f"[{rule.title}](#{anchor(rule)})", *cells]))
    lines += [
        "",
        "*The same*: the rule itself is that library's. *Own defaults*: the rule's formula, other defaults.",
        "–: the library has no such rule, or (paper) no paper has just this form.",
        "",
        "## How they were compared",
        "",
        "`benchmarks/oracles.py --dialects` runs each form on the fused float64 kernel beside Keras 3.15.1",
        "(on jax) and optax 0.2.8 in float64: 40 steps, three tensors, normal gradients that are all zero at",
        "two steps and in one element at the first three; the library's defaults but for lr, decays and what",
        "the script sets; and lr a third as large from the middle on, which is where lr inside or outside a",
        "sum shows. *Off by* is the largest difference of any element after any step, where p moves by 0.1",
        "to 4. *The rule itself* is what the rule without a dialect is off by at the same values.",
        "",
        "A paper's form is compared with a transcription of the paper's algorithm in NumPy. The tests do so",
        "with all forms, the libraries' too, at their defaults and at values far from them, to 1e-12",
        "(`tests/rules/dialect_peers_*.py`). torch's own forms are in [accuracy](accuracy.md).",
    ]
    for rule in spoken:
        if len(forms(rule)) > 1:
            lines += ["", f"## {rule.title}", "", *table(rule)]
            for reason in reasons(rule):
                lines += ["", reason]
    return "\n".join(lines) + "\n"


def anchor(rule: Rule) -> str:
    """The heading of a rule as a link's target; rules with one form have no heading."""
    return "".join(c for c in rule.title.lower().replace(" ", "-") if c.isalnum() or c == "-")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
