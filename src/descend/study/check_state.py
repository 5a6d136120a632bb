"""A rule as an optimizer: saved and loaded, copied, in groups, with every hyper-parameter on a schedule."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from ..errors import UsageError
from .check_agreement import LIMIT, MATRIX_LIMIT, apart
from .check_formula import rate_of
from .check_subject import Finding, Run, Shape, Subject, another, ends, fails, holds, note

_BEFORE, _AFTER = 3, 3
_LOSES = "look for what decides the steps but is neither p, nor a state, nor a hyper-parameter"


def _shapes(subject: Subject) -> tuple[Shape, ...]:
    return subject.shapes[:2] if subject.needs_matrix else ((33, 5), (7,))


def state(subject: Subject) -> Iterator[Finding]:
    """State dict, pickle and deepcopy: each goes on with the same bits."""
    whole = subject.run(_shapes(subject)).go(_BEFORE)
    random = whole.random.get_state()
    copies = {"state dict": _loaded(whole)}
    copies["deepcopy"] = _copied(whole, copy.deepcopy(whole.optimizer))
    try:
        copies["pickle"] = _copied(whole, pickle.loads(pickle.dumps(whole.optimizer)))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        yield note(
            "pickle",
            f"an optimizer of this rule cannot be pickled: {error}",
            "write the rule at the top level of a file, not inside a function",
        )
    whole.go(_AFTER)
    bad = []
    for name, other in copies.items():
        other.random.set_state(random)
        if not other.go(_AFTER).same_bits(whole):
            bad.append(name)
    if bad:
        yield fails("state", f"{', '.join(bad)}: going on gives other bits than never having stopped", _LOSES)
    else:
        yield holds(
            "state",
            f"{', '.join(copies)}: {_BEFORE} steps, saved, and {_AFTER} more give the bits of all in one go",
        )


def _loaded(run: Run) -> Run:
    """A fresh optimizer over copies of the parameters that has loaded the state dict from a file."""
    file = io.BytesIO()
    torch.save(run.optimizer.state_dict(), file)
    file.seek(0)
    params = [torch.nn.Parameter(p.detach().clone()) for p in run.params]
    optimizer = run.subject.kind(params)
    optimizer.load_state_dict(torch.load(file, weights_only=True))
    return replace(run, params=params, optimizer=optimizer, random=torch.Generator())


def _copied(run: Run, optimizer: Any) -> Run:
    params = [p for group in optimizer.param_groups for p in group["params"]]
    return replace(run, params=params, optimizer=optimizer, random=torch.Generator())


def groups(subject: Subject) -> Iterator[Finding]:
    """Parameters in two groups against one group, and against an optimizer of their own."""
    shapes = _shapes(subject)
    one = subject.run(shapes).go(3)
    two = subject.run(shapes)
    two.optimizer = subject.kind([{"params": [p]} for p in two.params])
    if not two.go(3).same_bits(one):
        yield fails("groups", "two groups with the same settings give other bits than one group", "report it")
        return
    rate = rate_of(subject.rule)
    said = "two groups give the bits of one"
    if rate is not None and not subject.is_global:
        value = another(subject.rule.hyper(rate))
        mixed = subject.run(shapes)
        mixed.optimizer = subject.kind([{"params": [p]} for p in mixed.params])
        mixed.optimizer.param_groups[1][rate] = value
        other = subject.run(shapes, hypers={rate: value})
        mixed.go(3)
        other.go(3)
        first = torch.equal(mixed.params[0].detach(), one.params[0].detach())
        if not (first and torch.equal(mixed.params[1].detach(), other.params[1].detach())):
            yield fails(
                "groups", f"a group with {rate} = {value:g} changes the steps of another group", "report it"
            )
            return
        said += f"; a group with {rate} = {value:g} steps by it, and the other is left alone"
    yield holds("groups", said)


def schedules(subject: Subject) -> Iterator[Finding]:
    """Every hyper-parameter changed between two steps, as a schedule does, against the reference."""
    gently = subject.rule.kind == "matrix"
    limit, unit = (MATRIX_LIMIT, "shares of the mean step") if gently else (LIMIT, "ulp")
    worst, bad = 0.0, []
    for hyper in subject.rule.hypers:
        refused, others = "", [end for end in ends(hyper) if end != hyper.default]
        for value in (another(hyper, gently), *others):  # a word may want one of a few numbers, as 16 or 64
            run = subject.run([subject.shape], torch.float64).go(2)
            run.optimizer.param_groups[0][hyper.name] = value
            try:
                far = apart(run, 1 if subject.quick else 2)
                break
            except UsageError as error:
                refused = refused or f"{hyper.name} = {value:g} is refused at the step: {error}"
        else:
            yield note("schedules", refused)
            continue
        worst = max(worst, far)
        if not far <= limit:
            bad.append(f"{hyper.name} (to {value:g}: {far:.2g} {unit})")
    if bad:
        yield fails(
            "schedules", f"changed on the way, these differ from the reference: {', '.join(bad)}", "report it"
        )
    elif subject.rule.hypers:
        names = ", ".join(h.name for h in subject.rule.hypers)
        yield holds(
            "schedules",
            f"{names}: changed on the way, each acts as in the reference (at most {worst:.2g} {unit})",
        )


def range_ends(subject: Subject) -> Iterator[Finding]:
    """Every hyper-parameter at the ends of its range."""
    count, unfit = 0, []
    for hyper in subject.rule.hypers:
        for value in ends(hyper):
            count += 1
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    run = subject.run([subject.shape], hypers={hyper.name: value}).go(3)
            except UsageError as error:
                yield note(
                    "ranges", f"{hyper.name} = {value:g} lies in {hyper.allowed} but is refused: {error}"
                )
                continue
            if not run.finite():
                unfit.append(f"{hyper.name} = {value:g}")
    if unfit:
        yield note(
            "ranges",
            f"allowed, but something becomes NaN or infinite within 3 steps: {', '.join(unfit)}",
            'where such a value makes no sense, leave it out of the range: "(0, inf)" is without 0',
        )
    elif count:
        yield holds(
            "ranges", f"every hyper-parameter at both ends of its range ({count} runs): all stays finite"
        )
