"""The dialects of the rules beside Keras, optax and the papers' algorithms, for docs/dialects.md."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import descend
from descend import rules
from descend.formula import Rule

STEPS, HALF = 40, 20
ANY = ((33, 7), (50,), (3, 4, 2))
SHAPES = {
    "adafactor": ((33, 7), (12, 50), (8, 8)),
    "adafactor_vector": ((50,), (7,), (1,)),
    "adafactor_stack": ((3, 4, 5), (2, 3, 4, 6)),
    "muon": ((12, 12), (7, 7)),  # optax has matrices the other way round
}
LR = {
    "adadelta": 1.0,
    "prodigy": 1.0,
    "lars": 1.0,
    "adafactor": 0.3,
    "adafactor_vector": 0.3,
    "adafactor_stack": 0.3,
}
"""The learning rates that are not 0.01; Adafactor's so large that 1/sqrt(t) is met."""

Given = dict[str, Any]
Peer = Callable[[list[Any]], Iterator[list[Any]]]

KERAS: dict[str, tuple[str, Given]] = {
    "gradient_descent": ("SGD", {}),
    "momentum": ("SGD", {"momentum": 0.9}),
    "nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
    "adagrad": ("Adagrad", {}),
    "adadelta": ("Adadelta", {}),
    "rmsprop": ("RMSprop", {}),
    "rmsprop_centered": ("RMSprop", {"centered": True}),
    "rmsprop_momentum": ("RMSprop", {"momentum": 0.9}),
    "rmsprop_centered_momentum": ("RMSprop", {"momentum": 0.9, "centered": True}),
    "adam": ("Adam", {}),
    "adamw": ("AdamW", {}),
    "adamax": ("Adamax", {}),
    "amsgrad": ("Adam", {"amsgrad": True}),
    "nadam": ("Nadam", {}),
    "lamb": ("Lamb", {"weight_decay": 0.1}),
    "lion": ("Lion", {"weight_decay": 0.1}),
    "muon": ("Muon", {"weight_decay": 0.1}),
    "adafactor": ("Adafactor", {}),
    "adafactor_stack": ("Adafactor", {}),
    "adafactor_vector": ("Adafactor", {}),
}
"""What Keras calls a rule, and the arguments that make it that rule."""

OPTAX: dict[str, tuple[str, Given]] = {
    "gradient_descent": ("sgd", {}),
    "momentum": ("sgd", {"momentum": 0.9}),
    "nesterov": ("sgd", {"momentum": 0.9, "nesterov": True}),
    "adagrad": ("adagrad", {}),
    "adadelta": ("adadelta", {}),
    "rmsprop": ("rmsprop", {}),
    "rmsprop_centered": ("rmsprop", {"centered": True}),
    "rmsprop_momentum": ("rmsprop", {"momentum": 0.9}),
    "rmsprop_centered_momentum": ("rmsprop", {"momentum": 0.9, "centered": True}),
    "adam": ("adam", {"eps_root": 1e-3}),
    "adamw": ("adamw", {"eps_root": 1e-3}),
    "adamax": ("adamax", {}),
    "amsgrad": ("amsgrad", {}),
    "nadam": ("nadam", {}),
    "radam": ("radam", {}),
    "rprop": ("rprop", {}),
    "lion": ("lion", {}),
    "muon": ("contrib.muon", {"weight_decay": 0.1}),
    "yogi": ("yogi", {}),
    "adan": ("adan", {"weight_decay": 0.1}),
    "lamb": ("lamb", {"weight_decay": 0.1}),
    "lars": ("lars", {"weight_decay": 0.1, "trust_coefficient": 0.01}),
    "ademamix": ("contrib.ademamix", {"weight_decay": 0.1}),
    "adopt": ("contrib.adopt", {}),
    "prodigy": ("contrib.prodigy", {"estim_lr0": 1e-3, "weight_decay": 0.1}),
    "sophia": ("contrib.sophia", {}),
    "adafactor": ("adafactor", {"min_dim_size_to_factor": 1, "weight_decay_rate": 0.01}),
    "adafactor_stack": ("adafactor", {"min_dim_size_to_factor": 1}),
    "adafactor_vector": ("adafactor", {}),
}
"""The same in optax."""

OURS = {"trust_coefficient": "eta", "estim_lr0": "d0", "weight_decay_rate": "weight_decay"}
"""What we call an argument of theirs."""


def rate(name: str, step: int) -> float:
    """The learning rate of a step, from 0: it falls to a third half-way."""
    lr = LR.get(name, 0.01)
    return lr if step < HALF or name == "rprop" else lr / 3


def drawn(name: str) -> list[Any]:
    """The first points."""
    source = np.random.default_rng(0)
    return [source.standard_normal(shape) for shape in SHAPES.get(name, ANY)]


def gradients(name: str, step: int) -> list[Any]:
    """The gradients of a step, normal; zero at two steps, and in one element at the first three."""
    source = np.random.default_rng(1 + step)
    found = [source.standard_normal(shape) * (1 + step / STEPS) for shape in SHAPES.get(name, ANY)]
    for g in found:
        g *= step not in (4, 25)
        g.flat[0] *= step > 2
    return found


def estimates(name: str, step: int) -> list[Any]:
    """Sophia's estimates of the curvature at a step."""
    source = np.random.default_rng(1000 + step)
    return [source.standard_normal(shape) * 20 for shape in SHAPES.get(name, ANY)]


def by_keras(name: str) -> Peer:
    """Keras' own optimizer, in float64 on jax."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import jax

    jax.config.update("jax_enable_x64", True)
    import keras

    keras.config.set_floatx("float64")
    kind, given = KERAS[name]

    def run(points: list[Any]) -> Iterator[list[Any]]:
        variables = [keras.Variable(p, dtype="float64") for p in points]
        optimizer = getattr(keras.optimizers, kind)(learning_rate=rate(name, 0), **given)
        for step in range(STEPS):
            optimizer.learning_rate = rate(name, step)
            optimizer.apply(gradients(name, step), variables)
            yield [keras.ops.convert_to_numpy(v).copy() for v in variables]

    return run


def by_optax(name: str) -> Peer:
    """optax's own transformation, in float64."""
    import jax
    import optax

    jax.config.update("jax_enable_x64", True)
    path, given = OPTAX[name]
    make: Any = optax
    for word in path.split("."):
        make = getattr(make, word)
    if name == "sophia":
        given = {**given, "update_interval": 1, "hessian_diagonal_fn": given_estimates(name)}
    lr = rate(name, 0)
    schedule = lr if name == "rprop" else lambda k: jax.numpy.where(k < HALF, lr, lr / 3)
    transformation = make(schedule, **given)

    def run(points: list[Any]) -> Iterator[list[Any]]:
        points = [jax.numpy.array(p) for p in points]
        state = transformation.init(points)
        for step in range(STEPS):
            given = [jax.numpy.array(g) for g in gradients(name, step)]
            updates, state = transformation.update(given, state, points)
            points = optax.apply_updates(points, updates)
            yield [np.array(p) for p in points]

    return run


def given_estimates(name: str) -> Any:
    """A transformation of optax that gives Sophia the estimates of `estimates` instead of Hutchinson's."""
    import jax
    import optax

    table = [[jax.numpy.array(h) for h in estimates(name, step)] for step in range(STEPS)]
    stacked = [jax.numpy.stack(each) for each in zip(*table, strict=True)]

    def update(grads: Any, count: Any, params: Any = None, **more: Any) -> Any:
        return [h[count] for h in stacked], count + 1

    return optax.GradientTransformationExtraArgs(lambda params: jax.numpy.zeros([], int), update)


def ours(name: str, rule: Rule, hypers: dict[str, float]) -> Iterator[list[Any]]:
    """The fused float64 kernel's points."""
    params = [torch.tensor(p).requires_grad_() for p in drawn(name)]
    optimizer = descend.optimizer(rule)(params, **hypers)
    averaged = [np.zeros(p.shape) for p in params]
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = rate(name, step)
        for p, g in zip(params, gradients(name, step), strict=True):
            p.grad = torch.tensor(g)
        if name == "sophia" and step:  # optax's average of the estimates, which it reads a step later
            averaged = [0.99 * a + 0.01 * h for a, h in zip(averaged, estimates(name, step - 1), strict=True)]
            for p, h in zip(params, averaged, strict=True):
                optimizer.state[p]["hessian"] = torch.tensor(h)
        optimizer.step()
        yield [p.detach().numpy().copy() for p in params]


def difference(name: str, rule: Rule, word: str) -> float:
    """The largest difference of an element from a library after any step, with the library's defaults."""
    form = rules.get(name, word)
    given = (KERAS if word == "keras" else OPTAX)[name][1]
    hypers = {h.name: h.default for h in form.hypers}
    hypers |= {OURS.get(k, k): v for k, v in given.items() if OURS.get(k, k) in hypers}
    hypers |= {"ns_bits": 64.0} if "ns_bits" in hypers else {}
    known = {h.name: hypers[h.name] for h in rule.hypers if h.name in hypers}
    peer = by_keras(name) if word == "keras" else by_optax(name)
    pairs = zip(ours(name, rule, {**known, "lr": rate(name, 0)}), peer(drawn(name)), strict=True)
    return max(float(np.abs(p - q).max()) for a, b in pairs for p, q in zip(a, b, strict=True))


def from_paper(name: str, rule: Rule) -> float:
    """The same from the paper's algorithm as the tests have it."""
    tests = Path(__file__).parents[1] / "tests" / "rules"
    sys.path.insert(0, str(tests))
    import test_rules_dialects as known

    hypers = {h.name: h.default for h in rules.get(name, "paper").hypers}
    here = {h.name: hypers.get(h.name, h.default) for h in rule.hypers}
    return known.paths(name, rule, here, known.peer_of(name, "paper"), known.named(name, "paper", hypers))


def main() -> None:
    """Print a line for every rule and dialect: how far our form is, and how far the rule's own would be."""
    print(f"{'rule':28}{'dialect':10}{'the dialect':>14}{'the rule itself':>18}")
    for name in rules.built_in():
        rule = rules.get(name)
        for word in rule.dialects:
            if word == "torch" or (word, rule.kind) == ("paper", "matrix"):  # muon's paper is its rule
                continue
            form = rules.get(name, word)
            found = [
                from_paper(name, one) if word == "paper" else difference(name, one, word)
                for one in (form, rule)
            ]
            print(f"{name:28}{word:10}{found[0]:14.1e}{found[1]:18.1e}", flush=True)


if __name__ == "__main__":
    main()
