"""Every dialect of every rule beside a NumPy transcription of what that library, or the paper, does."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import dialect_peers_keras as keras
import dialect_peers_optax as optax
import dialect_peers_paper as paper
import numpy as np
import pytest
import torch

from descend import rules
from descend.formula import Rule
from descend.kernels import reference
from descend.optim import CLASSES

Peer = Callable[..., Any]
Hypers = dict[str, float]

SOURCES = {"keras": keras, "optax": optax, "paper": paper}

OTHER: dict[tuple[str, str], Peer] = {
    ("gradient_descent", "keras"): keras.sgd,
    ("momentum", "keras"): keras.sgd,
    ("nesterov", "keras"): partial(keras.sgd, nesterov=True),
    ("rmsprop_centered", "keras"): partial(keras.rmsprop, centered=True),
    ("rmsprop_momentum", "keras"): keras.rmsprop,
    ("rmsprop_centered_momentum", "keras"): partial(keras.rmsprop, centered=True),
    ("amsgrad", "keras"): partial(keras.adam, amsgrad=True),
    ("gradient_descent", "optax"): optax.sgd,
    ("momentum", "optax"): optax.sgd,
    ("nesterov", "optax"): partial(optax.sgd, nesterov=True),
    ("rmsprop_centered", "optax"): partial(optax.rmsprop, centered=True),
    ("rmsprop_momentum", "optax"): optax.rmsprop,
    ("rmsprop_centered_momentum", "optax"): partial(optax.rmsprop, centered=True),
    ("nadam", "optax"): partial(optax.adam, nesterov=True),
    ("rmsprop_centered", "paper"): partial(paper.rmsprop_graves, momentum=0.0),
    ("rmsprop_centered_momentum", "paper"): paper.rmsprop_graves,
}
"""The transcriptions that have another name than the rule."""

THEIRS: dict[str, dict[str, str]] = {
    "keras": {
        "lr": "learning_rate",
        "beta1": "beta_1",
        "beta2": "beta_2",
        "eps": "epsilon",
        "alpha": "rho",
        "beta2_decay": "beta_2_decay",
        "eps1": "epsilon_1",
        "eps2": "epsilon_2",
        "d": "clip_threshold",
    },
    "optax": {
        "lr": "learning_rate",
        "beta1": "b1",
        "beta2": "b2",
        "beta3": "b3",
        "etaminus": "eta_minus",
        "etaplus": "eta_plus",
        "step_size_min": "min_step_size",
        "step_size_max": "max_step_size",
        "eta": "trust_coefficient",
        "d0": "estim_lr0",
        "d_coef": "estim_lr_coef",
        "eps1": "eps",
        "d": "clipping_threshold",
    },
    "paper": {},
}
"""What the libraries call our hyper-parameters."""

RMSPROP = ("rmsprop", "rmsprop_centered", "rmsprop_momentum", "rmsprop_centered_momentum")
ADAFACTOR = ("adafactor", "adafactor_stack", "adafactor_vector")
THEIRS_OF: dict[tuple[str, str], dict[str, str]] = {
    ("prodigy", "optax"): {"beta1": "beta1", "beta2": "beta2"},
    **{(name, "optax"): {"alpha": "decay"} for name in RMSPROP},
    **{(name, "optax"): {"weight_decay": "weight_decay_rate"} for name in ADAFACTOR},
}

STIRRED: Hypers = {
    "beta1": 0.8,
    "beta2": 0.9,
    "beta3": 0.7,
    "eps": 1e-2,
    "eps_root": 1e-2,
    "alpha": 0.8,
    "rho": 0.8,
    "weight_decay": 0.1,
    "momentum": 0.7,
    "initial_accumulator_value": 0.3,
    "initial_scale": 0.5,
    "threshold": 7.0,
    "eta": 0.5,
    "gamma": 0.5,
    "d0": 1e-3,
    "d": 1.5,
    "d_coef": 0.5,
    "eps1": 1e-3,
    "eps2": 0.5,
    "etaminus": 0.4,
    "etaplus": 1.3,
    "step_size_min": 1e-2,
    "step_size_max": 0.5,
}
"""Values far from every default; eps so large that its place shows."""

SHAPES = {
    "adafactor": ((7, 5), (4, 9)),
    "adafactor_stack": ((3, 4, 5), (2, 3, 4, 6)),
    "adafactor_vector": ((11,), (1,)),
}
PAIRS = [
    (name, word)
    for name in rules.built_in()
    for word in rules.get(name).dialects
    if word != "torch" and rules.get(name).kind != "matrix"  # test_rules_matrix.py has Muon's
]
OWN = [  # pairs whose formula is not the rule's own
    (name, word)
    for name, word in PAIRS
    if rules.get(name, word).formulas[0].function is not rules.get(name).formulas[0].function
]
by_pair = pytest.mark.parametrize(("name", "word"), PAIRS, ids=lambda x: x)


def peer_of(name: str, word: str) -> Peer:
    """The transcription of a rule in a dialect."""
    plain = "adafactor" if name in ADAFACTOR else name
    return OTHER.get((name, word)) or getattr(SOURCES[word], plain)  # type: ignore[no-any-return]


def named(name: str, word: str, hypers: Mapping[str, float]) -> Hypers:
    """Our hyper-parameters by the library's names; those that it has not are left out."""
    taken = inspect.signature(peer_of(name, word)).parameters
    through = any(p.kind is p.VAR_KEYWORD for p in taken.values())
    names = {**THEIRS[word], **THEIRS_OF.get((name, word), {})}
    found = {names.get(ours, ours): value for ours, value in hypers.items()}
    return {theirs: value for theirs, value in found.items() if theirs in taken or through}


def defaults_of(peer: Peer) -> Hypers:
    """The defaults of a transcription, but for the momentum, which a rule with momentum has always."""
    found = inspect.signature(peer).parameters.values()
    return {p.name: p.default for p in found if p.default is not p.empty and p.name != "momentum"}


def gradients(shape: tuple[int, ...], quiet: bool, steps: int = 40) -> list[Any]:
    """Normal gradients, all zero at two steps and a tenth always; with `quiet` one is zero at first."""
    source = np.random.default_rng(7)
    found = []
    for t in range(1, steps + 1):
        g = source.standard_normal(shape) * (1 + t / steps)
        g[source.random(shape) < 0.1] *= t == 1
        if t in (4, 20):
            g[...] = 0
        if quiet and t <= 3:
            g.flat[0] = 0
        found.append(g)
    return found


def apart(rule: Rule, hypers: Hypers, peer: Peer, theirs: Hypers, shape: tuple[int, ...]) -> float:
    """The largest difference of two paths, over 1 or the largest element; lr falls to a third half-way."""
    lr = "lr" if "lr" in theirs else "learning_rate"
    source = np.random.default_rng(3)
    p = q = source.standard_normal(shape)
    states = reference.initial_states(rule, p, hypers)
    kept: dict[str, Any] = {}
    quiet = "eps" not in hypers or hypers["eps"] > 0
    worst = 0.0
    for t, g in enumerate(gradients(shape, quiet), 1):
        factor = 1.0 if t <= 20 else 1 / 3
        if "h" in states:
            kept["h"] = states["h"] = source.standard_normal(shape) * 20
        p, states = reference.step(rule, p, g, t, states, {**hypers, "lr": hypers["lr"] * factor})
        q = peer(q, g, t, kept, **{**theirs, lr: theirs[lr] * factor})
        worst = max(worst, float(np.abs(p - q).max() / max(1.0, np.abs(q).max())))
        assert np.isfinite(p).all()
    return worst


def paths(name: str, rule: Rule, hypers: Hypers, peer: Peer, theirs: Hypers) -> float:
    """`apart` for every shape."""
    shapes = SHAPES.get(name, ((7, 5), (11,), (3, 4, 2)))
    return max(apart(rule, hypers, peer, theirs, shape) for shape in shapes)


def stirred(name: str, word: str) -> Hypers:
    """The hyper-parameters of a dialect, those that the library has too far from their defaults."""
    form = rules.get(name, word)
    known = named(name, word, {h.name: 0.0 for h in form.hypers})
    names = {**THEIRS[word], **THEIRS_OF.get((name, word), {})}
    own = {h.name: h.default for h in form.hypers}
    changed = {ours: STIRRED[ours] for ours in own if ours in STIRRED and names.get(ours, ours) in known}
    if "eps" in changed and own["eps"] == 0:
        del changed["eps"]
    return {**own, **changed, "lr": 0.5 if name in ADAFACTOR else own["lr"] * 2}


@by_pair
def test_a_dialect_has_the_library_s_defaults(name: str, word: str) -> None:
    form = rules.get(name, word)
    ours = named(name, word, {h.name: h.default for h in form.hypers})
    theirs = defaults_of(peer_of(name, word))
    assert {key: ours[key] for key in ours if key in theirs} == {
        key: theirs[key] for key in theirs if key in ours
    }


@by_pair
def test_a_dialect_goes_the_library_s_way_by_its_defaults(name: str, word: str) -> None:
    form, peer = rules.get(name, word), peer_of(name, word)
    hypers = {h.name: h.default for h in form.hypers}
    needed = {
        k: v for k, v in named(name, word, hypers).items() if k not in defaults_of(peer) or k.startswith("l")
    }
    assert paths(name, form, hypers, peer, needed) < 1e-12


@by_pair
def test_and_by_other_values(name: str, word: str) -> None:
    hypers = stirred(name, word)
    assert paths(name, rules.get(name, word), hypers, peer_of(name, word), named(name, word, hypers)) < 1e-12


@pytest.mark.parametrize(("name", "word"), OWN, ids=lambda x: x)
def test_the_rule_s_own_formula_is_seen_to_differ(name: str, word: str) -> None:
    hypers = stirred(name, word)
    main = rules.get(name)
    here = {h.name: hypers.get(h.name, h.default) for h in main.hypers}
    assert paths(name, main, here, peer_of(name, word), named(name, word, hypers)) > 1e-6


@pytest.mark.parametrize("name", sorted(set(CLASSES) & set(rules.built_in())))
def test_the_rules_themselves_have_torch_s_defaults(name: str) -> None:
    theirs = inspect.signature(getattr(torch.optim, CLASSES[name].__name__)).parameters
    for hyper in rules.get(name, "torch").hypers:
        where = CLASSES[name].hyper_keys.get(hyper.name, hyper.name)
        value = theirs[where].default if isinstance(where, str) else theirs[where[0]].default[where[1]]
        assert value == hyper.default, hyper.name
