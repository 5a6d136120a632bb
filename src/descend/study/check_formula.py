"""What a formula says of itself, and what a few steps show: kind, cost, and beginners' mistakes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch

from ..errors import UsageError
from ..formula import Rule
from ..formula.nodes import Node, is_reduction, walk
from ..formula.nodes import name as leaf
from .check_subject import Finding, Subject, another, fails, holds, note
from .costs import state_bytes

_RATES = ("lr", "learning_rate", "rate", "alpha", "eta", "step_size")
_STEADY = 400
_UNEVEN = 3.0


def formula(subject: Subject) -> Iterator[Finding]:
    """The formula as read: its kind and cost, and what in it is never used."""
    rule, program = subject.rule, subject.program
    count = program.sweeps
    yield holds(
        "formula",
        f"reads as a rule of kind {rule.kind}; a step is {count} pass{'es' if count > 1 else ''} over memory "
        f"and moves {program.bytes_moved} numbers an element ({4 * program.bytes_moved} bytes in float32); "
        f"it keeps {state_bytes(rule)} bytes of state an element in float32",
    )
    yield from _unused(rule)
    yield from _ranges(subject)


def _leaves(n: Node) -> set[str]:
    return {x.word for x in walk([n]) if x.op == "name"}


def _unused(rule: Rule) -> Iterator[Finding]:
    outputs = rule.outputs
    reads = {word: _leaves(n) for word, n in outputs.items()}
    everything = set().union(*reads.values())
    faults = 0
    own_hypers = {h.name for formula in rule for h in formula.hypers}  # others are those of its stand-in
    for hyper in (h for h in rule.hypers if h.name in own_hypers):
        starts = (
            {s.init for s in rule.states} | {s.block for s in rule.states} | {s.limit for s in rule.states}
        )
        if hyper.name not in everything | starts:
            faults += 1
            advice = (
                "multiply the step by it" if hyper.name in _RATES else "use it in the formula, or take it out"
            )
            yield fails(
                "formula",
                f"the hyper-parameter {hyper.name} is never used: setting it changes nothing",
                advice,
            )
    reach = _reach(reads)
    for state in rule.states:
        own = outputs.get(state.name, leaf(state.name))
        if state.name not in everything - ({state.name} if own == leaf(state.name) else set()) and not any(
            state.name in words for word, words in reads.items() if word != state.name
        ):
            faults += 1
            yield fails(
                "formula",
                f"the state {state.name} is never read: it costs memory and changes no step",
                f"use the old {state.name} in the formula, or take the state out",
            )
        elif own == leaf(state.name) and state.init == 0 and not state.doc:
            faults += 1
            yield fails(
                "formula",
                f"the state {state.name} is never changed: it is returned as it came, which is zero",
                f"assign its new value to the same name, as in {state.name} = …, before the return",
            )
        elif own == leaf(state.name) and state.init == 0:
            yield note(
                "formula",
                f"the state {state.name} is never changed here: right only where somebody else writes it",
            )
        elif state.name not in reach:
            yield note("formula", f"the state {state.name} never reaches p: it only rides along")
    if outputs["p"] == leaf("p"):
        faults += 1
        yield fails("formula", "p is returned as it came: nothing ever moves", "end with p = p - lr * …")
    elif "g" not in _reach(reads, "p"):
        faults += 1
        yield fails(
            "formula", "the step does not depend on the gradient g", "use g in what is subtracted from p"
        )
    if not faults:
        yield holds("formula", "every state is read and every hyper-parameter used")


def _reach(reads: dict[str, set[str]], goal: str = "p") -> set[str]:
    """Everything that `goal` depends on, in this step or a later one."""
    found = set(reads[goal])
    while True:
        more = found.union(*(reads[word] for word in found if word in reads))
        if more == found:
            return found
        found = more


def _ranges(subject: Subject) -> Iterator[Finding]:
    faults = 0
    for hyper in subject.rule.hypers:
        try:
            doubt = hyper.check(hyper.default)
        except UsageError as error:
            doubt = str(error)
        if doubt:
            faults += 1
            yield fails("ranges", f"the default is out of range: {doubt}", "change the default, or the range")
    bare = [h.name for h in subject.rule.hypers if h.allowed == "(-inf, inf)" and not h.doc]
    if bare:
        yield note(
            "ranges",
            f"{', '.join(bare)} may be any number: a wrong value will not be refused",
            f'declare ranges, as in {bare[0]}=Hyper({subject.defaults[bare[0]]:g}, "[0, inf)", "what it is")',
        )
    elif not faults and subject.rule.hypers:
        yield holds("ranges", "every default lies inside its range")


def behaviour(subject: Subject) -> Iterator[Finding]:
    """What a few steps with ordinary gradients show: numbers, direction, the rate, the first steps."""
    run = subject.run([subject.shape]).go(20)
    if not run.finite():
        steps = next(k for k in range(1, 21) if not subject.run([subject.shape]).go(k).finite())
        yield fails(
            "steps",
            f"with ordinary gradients something is NaN or infinite after step {steps}",
            "look for a division by zero, a root or a log of something negative, a power that grows",
        )
        return
    yield from _direction(subject)
    yield from _rate(subject)
    if (
        not any(is_reduction(n) for n in walk(subject.rule.outputs.values()))
        and subject.rule.kind == "element"
    ):
        yield from _first_steps(subject)


def _direction(subject: Subject) -> Iterator[Finding]:
    run = subject.run([subject.shape])
    (p,) = run.params
    downhill = []
    for _ in range(10):
        run.draw()
        run.params[0].grad.copy_(
            run.params[0].grad + 1.0
        )  # a slope with a mean: momentum has something to find
        before, g = p.detach().clone(), p.grad.clone()
        run.step()
        downhill.append(float(((p.detach() - before) * g).sum()))
    moved = [x for x in downhill if x]
    if not moved:
        yield fails(
            "direction", "p has not moved in 10 steps with ordinary gradients", "see whether the step is zero"
        )
    elif sum(moved) > 0:
        yield fails(
            "direction",
            f"the steps climb: {sum(x > 0 for x in downhill)} of 10 go up the gradient",
            "turn the sign round: p = p - lr * …",
        )
    else:
        yield holds("direction", f"{sum(x < 0 for x in downhill)} of the first 10 steps go down the gradient")


def rate_of(rule: Rule) -> str | None:
    """The name of the learning rate, where the rule has one."""
    return next((word for word in _RATES if any(h.name == word for h in rule.hypers)), None)


def _rate(subject: Subject) -> Iterator[Finding]:
    rate = rate_of(subject.rule)
    if rate is None:
        yield note(
            "rate", "no hyper-parameter is called lr: schedules and rates per layer look for that name"
        )
        return
    hyper = subject.rule.hyper(rate)
    plain, other = (
        subject.run([subject.shape], hypers={rate: v}).go(3).params[0]
        for v in (hyper.default, another(hyper))
    )
    if torch.equal(plain.detach(), other.detach()):
        yield fails("rate", f"{rate} has no effect on the first 3 steps", "multiply the step by it")
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = subject.run([subject.shape], hypers={rate: 0.0})
    except UsageError:
        yield holds("rate", f"{rate} scales the steps")
        return
    before = run.params[0].detach().clone()
    if torch.equal(run.go(3).params[0].detach(), before):
        yield holds("rate", f"{rate} scales the steps; at 0 nothing moves")
    else:
        yield note("rate", f"p moves even at {rate} = 0: a schedule that ends at 0 does not bring it to rest")


def _first_steps(subject: Subject) -> Iterator[Finding]:
    """The first step under a constant gradient, beside the step that the rule comes to."""
    run = subject.run([(8,)], torch.float64)
    (p,) = run.params
    if "p" in _leaves(subject.rule.outputs["p"]) and not _translates(subject, p):
        return
    with torch.no_grad():
        p.zero_()
    lengths = []
    for _ in range(_STEADY):
        before = p.detach().clone()
        p.grad = torch.ones_like(p)
        run.step()
        lengths.append(float((p.detach() - before).abs().max()))
    first, later = lengths[0], lengths[-1]
    if not 0 < first < float("inf") or not 0 < later < float("inf"):
        return
    ratio = first / later
    if 1 / _UNEVEN < ratio < _UNEVEN:
        yield holds(
            "first steps", f"under a constant gradient the first step is {ratio:.2g} of the later ones"
        )
        return
    kept = run.state(p)  # an average of ones is one, a sum of them is not
    zero = [s.name for s in subject.rule.states if s.init == 0 and s.name in kept]
    averages = [word for word in zero if 0.5 < float(torch.as_tensor(kept[word]).reshape(-1)[0]) < 1.5]
    why = f": the average {averages[0]} starts at zero" if averages else ""
    hint = f"divide {averages[0]} by (1 - beta**t), as Adam does" if averages else ""
    said = f"{ratio:.2g} times as long as" if ratio > 1 else f"{ratio:.2g} of"
    yield note(
        "first steps",
        f"under a constant gradient the first step is {said} the later ones{why}",
        f"if the paper corrects the bias, {hint}" if hint else "",
    )


def _translates(subject: Subject, p: Any) -> bool:
    """Whether the step is the same wherever p stands; weight decay is so small that it does not count."""
    lengths = []
    for shift in (0.0, 1.0):
        run = subject.run([(8,)], torch.float64)
        with torch.no_grad():
            run.params[0].fill_(shift)
        run.params[0].grad = torch.ones(8, dtype=torch.float64)
        run.step()
        lengths.append(float((run.params[0].detach() - shift).abs().max()))
    return abs(lengths[0] - lengths[1]) <= 0.5 * max(lengths)
