"""`check`: it passes for the rules of the library, and finds every planted mistake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from descend import modifiers, rules
from descend.errors import UsageError
from descend.formula import Hyper, State, chain, rule_of
from descend.formula.vocabulary import mean, norm, sqrt
from descend.study import Check, Finding, check
from descend.study.check_agreement import agreement, threads
from descend.study.check_descent import descents
from descend.study.check_formula import behaviour
from descend.study.check_formula import formula as reading
from descend.study.check_gradients import gradients
from descend.study.check_state import groups, schedules, state
from descend.study.check_subject import Subject, another, ends
from descend.study.checking import guarded

FEW = ("sophia", "lamb", "adafactor", "muon")
"""One of each kind, and one with a state that others write."""

Formula = Callable[..., Any]


@pytest.mark.parametrize("name", FEW)
def test_a_rule_of_the_library_holds(name: str) -> None:
    found = check(name, quick=True)
    assert found.holds, found.failures
    assert {"formula", "cpu", "torch", "state", "threads", "descent", "speed"} <= {
        f.area for f in found.findings
    }


@pytest.mark.soak
@pytest.mark.parametrize("name", rules.built_in())
def test_every_rule_of_the_library_holds(name: str) -> None:
    found = check(name)
    assert found.holds, found.failures


def test_a_chain_with_sums_holds() -> None:
    found = check(chain(modifiers.clip_global_norm, rules.get("adamw"), modifiers.ema_weights), quick=True)
    assert found.holds, found.failures
    assert any("a never reaches p" in f.said for f in found.findings)


# mistakes that are in the formula


def climbs(p, g, m, lr=0.01, beta=0.9):
    m = beta * m + (1 - beta) * g
    p = p + lr * m
    return p, m


def forgets_m(p, g, m, lr=0.01, beta=0.9):
    new = beta * m + (1 - beta) * g
    p = p - lr * new
    return p, m


def never_reads_v(p, g, v, lr=0.01):
    v = g**2
    p = p - lr * g
    return p, v


def never_uses_beta(p, g, lr=0.01, beta=0.9):
    p = p - lr * g
    return p


def never_uses_lr(p, g, m, lr=0.01, beta=0.9):
    m = beta * m + (1 - beta) * g
    p = p - 0.01 * m
    return p, m


def cancels_lr(p, g, lr=Hyper(0.01, "(0, inf)", "learning rate"), eps=1e-30):
    u = lr * g
    p = p - 0.01 * u / sqrt(u * u + eps)
    return p


def has_no_eps(p, g, v, lr=0.01, beta=0.9):
    v = beta * v + (1 - beta) * g**2
    p = p - lr * g / sqrt(v)
    return p, v


def divides_by_its_norm(p, g, lr=0.01):
    p = p - lr * g / norm(g)
    return p


def ignores_g(p, g, lr=0.01):
    p = p - lr * p
    return p


def stands_still(p, g, m, lr=0.01):
    m = m + lr * g
    return p, m


def takes_roots_of_negatives(p, g, m, lr=0.01, beta=0.9):
    m = beta * m + (1 - beta) * g
    p = p - lr * g / (1 + sqrt(m))
    return p, m


def has_a_default_out_of_range(p, g, m, lr=0.01, beta=Hyper(1.5, "[0, 1)", "share of m kept")):
    m = beta * m + (1 - beta) * g
    p = p - lr * m
    return p, m


def starts_too_fast(p, g, lr=30.0):
    p = p - lr * g
    return p


def grows_without_end(p, g, m=State(), lr=0.01):
    m = 1e9 * m + g
    p = p - lr * m
    return p, m


PARTS = (reading, behaviour, gradients, descents)

PLANTED: list[tuple[Formula, str, str]] = [
    (climbs, "the steps climb", "turn the sign round"),
    (forgets_m, "the state m is never changed", "assign its new value to the same name"),
    (never_reads_v, "the state v is never read", "take the state out"),
    (never_uses_beta, "the hyper-parameter beta is never used", "take it out"),
    (never_uses_lr, "the hyper-parameter lr is never used", "multiply the step by it"),
    (cancels_lr, "lr has no effect", "multiply the step by it"),
    (has_no_eps, "a gradient of zero (0 from the start) makes something NaN", "add a small eps"),
    (divides_by_its_norm, "a gradient of zero (0 from the start, 0 later) makes", "add a small eps"),
    (ignores_g, "does not depend on the gradient", "use g"),
    (stands_still, "p is returned as it came", "p = p - lr"),
    (takes_roots_of_negatives, "with ordinary gradients something is NaN or infinite after step 1", "a root"),
    (has_a_default_out_of_range, "beta must lie in [0, 1), got 1.5", "change the default"),
    (starts_too_fast, "does not go down at its default lr = 30, but at 1", "a default that suits it"),
    (grows_without_end, "with ordinary gradients something is NaN or infinite", "a power that grows"),
]


@pytest.mark.parametrize(("formula", "said", "advice"), PLANTED, ids=[f.__name__ for f, _, _ in PLANTED])
def test_a_planted_mistake_is_found(formula: Formula, said: str, advice: str) -> None:
    subject = Subject(rule_of(formula), quick=True)
    found = [f for part in PARTS for f in guarded(part, subject) if f.word == "fails"]
    assert any(said in f.said and advice in f.advice for f in found), found


def test_the_page_of_a_rule_that_fails() -> None:
    found = check(climbs, quick=True)
    assert not found.holds
    page = str(found)
    assert "FAILS  direction" in page
    assert "-> turn the sign round" in page
    assert " 2 fail, " in page.rstrip().split("\n")[-1]  # the direction, and the descent


# mistakes of an optimizer, which no formula can make


def broken(kind: type) -> Subject:
    """Adam whose optimizer class is broken on purpose."""
    subject = Subject(rules.get("adam"), quick=True)
    good = subject.kind
    subject.__dict__["kind"] = type("Broken", (kind, good), {})
    return subject


class Drifts:
    """Every step goes a little too far."""

    @torch.no_grad()
    def step(self) -> None:
        super().step()  # type: ignore[misc]
        for p in self.param_groups[0]["params"]:  # type: ignore[attr-defined]
            p.mul_(1 + 1e-4 if p.dtype != torch.bfloat16 else 1.25)


class CountsThreads:
    """The number of threads is in the result."""

    @torch.no_grad()
    def step(self) -> None:
        super().step()  # type: ignore[misc]
        self.param_groups[0]["params"][0].add_(1e-3 * torch.get_num_threads())  # type: ignore[attr-defined]


class LosesState:
    """Loading a state dict leaves the averages at zero."""

    def load_state_dict(self, given: dict[str, Any]) -> None:
        super().load_state_dict({**given, "state": {}})  # type: ignore[misc]


class HearsOneGroup:
    """All groups go by the settings of the first."""

    def step(self) -> None:
        first = self.param_groups[0]  # type: ignore[attr-defined]
        for group in self.param_groups:  # type: ignore[attr-defined]
            group["lr"] = first["lr"]
        super().step()  # type: ignore[misc]


class IsDeaf:
    """A setting that is changed on the way is not heard."""

    def step(self) -> None:
        group = self.param_groups[0]  # type: ignore[attr-defined]
        kept = group["beta2"]
        group["beta2"] = 0.999
        super().step()  # type: ignore[misc]
        group["beta2"] = kept


@pytest.mark.parametrize(
    ("kind", "part", "said"),
    [
        (Drifts, agreement, "from the float64 reference over 5 shapes, in ulp"),
        (CountsThreads, threads, "one thread and two give different bits"),
        (LosesState, state, "state dict: going on gives other bits"),
        (HearsOneGroup, groups, "changes the steps of another group"),
        (IsDeaf, schedules, "differ from the reference: beta2"),
    ],
)
def test_a_broken_optimizer_is_found(
    kind: type, part: Callable[[Subject], Iterator[Finding]], said: str
) -> None:
    assert not [f for f in part(Subject(rules.get("adam"), quick=True)) if f.word == "fails"]
    failures = [f for f in part(broken(kind)) if f.word == "fails"]
    assert failures
    assert any(said in f.said for f in failures), failures


def test_what_an_optimizer_raises_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(self: Any, closure: Any = None) -> None:
        raise RuntimeError("broken on purpose")

    from descend.optim.base import FormulaOptimizer

    raising.hooked = True  # type: ignore[attr-defined]  # torch would leave it on the class of the rule
    monkeypatch.setattr(FormulaOptimizer, "step", raising)
    found = check("momentum", quick=True)
    assert {f.area for f in found.failures} >= {
        "behaviour",
        "agreement",
        "gradients",
        "descents",
        "memory limit",
    }
    assert all("raised RuntimeError: broken on purpose" in f.said for f in found.failures)


def test_the_table_of_odd_gradients_tells_what_happens() -> None:
    (_, told) = gradients(Subject(rules.get("adam")))
    rows = {row[0]: row[1:] for row in told.table}
    assert rows["NaN, one element"] == ("NaN", "m NaN, v NaN", "moves by 0.001", "NaN or infinite there")
    assert rows["0 from the start"][0] == "stays"
    assert rows["1e-30"][-1] == "moves on"
    assert list(rows) == [
        "gradient",
        "0 from the start",
        "0 later",
        "1 from the start",
        "infinite, one element",
        "NaN, one element",
        "1e30",
        "1e-30",
    ]


def divides_by_the_deviation(p, g, lr=0.01):
    p = p - lr * g / (sqrt(mean((g - mean(g)) ** 2)) + 1e-8)
    return p


def test_a_gradient_that_is_the_same_everywhere_is_tried() -> None:
    _, told, _ = gradients(Subject(rule_of(divides_by_the_deviation)))
    assert told.area == "equal gradients"
    assert "e+08 times as long as usual" in told.said
    assert "where(x == 0, y, y / (x + eps))" in told.advice


def test_a_precision_is_changed_to_one_that_there_is() -> None:
    (told,) = schedules(Subject(rules.get("muon"), quick=True))
    assert told.word == "holds"
    assert "ns_bits" in told.said
    assert told.said.endswith("shares of the mean step)")


def test_hints_that_fail_nothing() -> None:
    def uncorrected(p, g, v=State("v"), lr=0.01, beta=0.99):
        v = beta * v + (1 - beta) * g**2
        p = p - lr * g / (sqrt(v) + 1e-8)
        return p, v

    found = check(uncorrected, quick=True)
    said = [f for f in found.findings if f.area == "first steps"]
    assert [f.word for f in said] == ["note"]
    assert "9.9 times as long" in said[0].said
    assert "divide v by (1 - beta**t)" in said[0].advice
    assert any("cannot be pickled" in f.said for f in found.findings)  # it stands inside a function


def test_findings_are_told_as_they_come_and_threads_left_alone() -> None:
    heard: list[Finding] = []
    before = torch.get_num_threads()
    found = check("gradient_descent", quick=True, listener=heard.append)
    assert isinstance(found, Check)
    assert tuple(heard) == found.findings
    assert torch.get_num_threads() == before
    assert check(has_a_default_out_of_range).findings[-1].area == "the rest"
    with pytest.raises(UsageError, match="unknown rule 'adm'"):
        check("adm")


def test_values_tried_lie_in_the_range() -> None:
    for name in rules.built_in():
        for hyper in rules.get(name).hypers:
            assert another(hyper) != hyper.default
            assert hyper.check(another(hyper)) is None
            for value in ends(hyper):
                hyper.check(value)
    assert ends(Hyper(0.5, "[0, 1)", name="x"))[0] == 0.0
    assert 0.99 < ends(Hyper(0.5, "[0, 1)", name="x"))[1] < 1
    assert rule_of(climbs).hyper("lr").default == 0.01
