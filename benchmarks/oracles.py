"""The newer rules beside their authors' packages: the largest difference of any element, for docs/kinds.md.

    pip install --no-deps pytorch_optimizer==4.1.0 lion-pytorch==0.2.5 prodigyopt==1.1.2
    pip install optax==0.2.8
    python benchmarks/oracles.py
    python benchmarks/oracles.py --dialects  # with keras and pytest too: for docs/dialects.md

Float64, 40 steps, three tensors, normal gradients that grow a little. A package that is missing is left out.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

import descend
from descend import modifiers, rules
from descend.formula import Rule, chain

ANY = ((33, 7), (50,), (3, 4, 2))
MATRICES = ((33, 7), (12, 50), (8, 8))
VECTORS = ((50,), (7,), ())
STEPS = 40

Peer = Callable[[list[torch.Tensor]], Iterator[list[Any]]]
"""Given the parameters, with the gradients of each step in them: the points after each step."""


def drawn(shapes: tuple[tuple[int, ...], ...]) -> list[torch.Tensor]:
    """The first points."""
    source = torch.Generator().manual_seed(0)
    return [torch.randn(s, generator=source, dtype=torch.float64).requires_grad_() for s in shapes]


def gradients(params: list[torch.Tensor], step: int) -> None:
    """Give every parameter the gradient of a step."""
    source = torch.Generator().manual_seed(1 + step)
    for p in params:
        p.grad = torch.randn(p.shape, generator=source, dtype=torch.float64) * (1 + 0.3 * step / STEPS)


def by_torch(make: Callable[[list[torch.Tensor]], torch.optim.Optimizer]) -> Peer:
    """A peer that is a torch optimizer."""

    def run(params: list[torch.Tensor]) -> Iterator[list[Any]]:
        optimizer = make(params)
        for step in range(STEPS):
            gradients(params, step)
            optimizer.step()
            yield [p.detach().numpy().copy() for p in params]

    return run


def by_optax(transformation: Any) -> Peer:
    """A peer that is an optax transformation, in float64."""
    import jax
    import optax

    jax.config.update("jax_enable_x64", True)

    def run(params: list[torch.Tensor]) -> Iterator[list[Any]]:
        points = [jax.numpy.array(p.detach().numpy()) for p in params]
        state = transformation.init(points)
        for step in range(STEPS):
            gradients(params, step)
            given = [jax.numpy.array(p.grad.numpy()) for p in params if p.grad is not None]
            updates, state = transformation.update(given, state, points)
            points = optax.apply_updates(points, updates)
            yield [np.array(x) for x in points]

    return run


def difference(rule: str | Rule, hypers: dict[str, float], peer: Peer, shapes: Any) -> tuple[float, float]:
    """The largest difference of an element after any step, and how far the farthest element moved."""
    ours = drawn(shapes)
    first = [p.detach().numpy().copy() for p in ours]
    optimizer = descend.optimizer(rules.get(rule) if isinstance(rule, str) else rule)(ours, **hypers)
    apart = 0.0
    for step, theirs in enumerate(peer(drawn(shapes))):
        gradients(ours, step)
        optimizer.step()
        apart = max(
            apart,
            *(float(np.abs(p.detach().numpy() - q).max()) for p, q in zip(ours, theirs, strict=True)),
        )
    moved = max(float(np.abs(p.detach().numpy() - q).max()) for p, q in zip(ours, first, strict=True))
    return apart, moved


def cases() -> Iterator[tuple[str, str | Rule, dict[str, float], Callable[[Any], Peer], Any]]:
    """(package, rule, hyper-parameters, what makes the peer of the package, shapes)."""
    both = {"lr": 1e-2, "weight_decay": 0.1}
    one, po = {"lr": 1e-2}, "pytorch_optimizer"
    loop, adan = {"foreach": False}, (0.98, 0.92, 0.99)
    mix, decoupled = (0.9, 0.999, 0.9999), {"weight_decouple": True, "foreach": False}
    late: dict[str, Any] = {"clip_lambda": lambda t: (t - 1) ** 0.25, **loop}

    def plain(name: str, **fixed: Any) -> Callable[[Any], Peer]:
        return lambda package: by_torch(lambda ps: getattr(package, name)(ps, **fixed))

    yield "lion_pytorch", "lion", both, plain("Lion", **both), ANY
    yield "optax", "lion", both, lambda o: by_optax(o.lion(1e-2, weight_decay=0.1)), ANY
    yield po, "adan", both, plain("Adan", betas=adan, weight_decouple=False, **both, foreach=False), ANY
    yield "optax", "adan", one, lambda o: by_optax(o.adan(1e-2, eps_root=0.0)), ANY
    warm = {**both, "warmup": 20.0}
    yield po, "ademamix", warm, plain("AdEMAMix", betas=mix, t_alpha_beta3=20, **both, **decoupled), ANY
    yield po, "ademamix", both, plain("AdEMAMix", betas=mix, **both, **decoupled), ANY
    yield (
        "optax",
        "ademamix",
        both,
        lambda o: by_optax(o.contrib.ademamix(1e-2, alpha=5.0, weight_decay=0.1)),
        ANY,
    )
    yield "optax", "adopt", one, lambda o: by_optax(o.contrib.adopt(1e-2)), ANY
    yield po, "adopt", one, plain("ADOPT", **one, **loop), ANY
    yield po, "adopt", one, plain("ADOPT", **one, **late), ANY
    yield "optax", "yogi", one, lambda o: by_optax(o.yogi(1e-2)), ANY
    trust = {"lr": 1.0, "weight_decay": 0.01}
    yield po, "lars", {**trust, "eta": 0.01}, plain("LARS", **trust, trust_coefficient=0.01, **loop), MATRICES
    yield "optax", "lamb", both, lambda o: by_optax(o.lamb(1e-2, weight_decay=0.1)), ANY
    stable = plain("StableAdamW", **both, betas=(0.9, 0.99), eps=1e-6, kahan_sum=False, **loop)
    yield po, "stable_adamw", both, stable, ANY
    found = {"d0": 1e-3, "weight_decay": 0.1}
    yield "prodigyopt", "prodigy", found, plain("Prodigy", **found), ANY
    free = lambda o: by_optax(o.contrib.prodigy(1.0, estim_lr0=1e-3, betas=(0.9, 0.999)))  # noqa: E731
    yield "optax", "prodigy", {"d0": 1e-3}, free, ANY
    own = {"weight_decay": 0.1, "eps1": 2.0**-52}
    for name, shapes in (("", MATRICES), ("_vector", VECTORS), ("_stack", ((3, 5, 7, 4), (2, 6, 3)))):
        yield "torch.optim", f"adafactor{name}", own, plain("Adafactor", weight_decay=0.1), shapes
    paper = lambda o: by_optax(o.adafactor(1e-2, min_dim_size_to_factor=1))  # noqa: E731
    yield "optax", rules.get("adafactor", "paper"), {}, paper, MATRICES
    square: tuple[tuple[int, ...], ...] = ((12, 12), (7, 7), (12, 12))  # full rank from the first gradient on
    for name, scale in (("muon", None), ("muon_rms", "match_rms_adamw")):
        yield "torch.optim", name, both, plain("Muon", **both, adjust_lr_fn=scale), MATRICES
    exact = {**both, "ns_bits": 64.0}
    muon = lambda o: by_optax(o.contrib.muon(1e-2, weight_decay=0.1))  # noqa: E731
    yield "optax", rules.get("muon", "optax"), exact, muon, square
    often = {"lr": 1e-2, "precondition_frequency": 1.0}
    yield po, "shampoo", often, plain("Shampoo", lr=1e-2), MATRICES
    seldom = plain("SOAP", **both, precondition_frequency=4)
    yield po, "soap", {**both, "precondition_frequency": 4.0}, seldom, square
    clipped = chain(modifiers.agc, rules.get("momentum"))
    sgd = lambda o: by_optax(o.chain(o.adaptive_grad_clip(0.3, axis=1), o.sgd(0.1, momentum=0.9)))  # noqa: E731
    yield "optax", clipped, {"lr": 0.1, "clipping": 0.3}, sgd, MATRICES


def papers() -> Iterator[tuple[str, str | Rule, dict[str, float], Callable[[Any], Peer], Any]]:
    """As `cases`: rules that were written from their papers, first as the package is, then as the paper."""
    both, po = {"lr": 1e-2, "weight_decay": 0.1}, "pytorch_optimizer"
    loop = {"foreach": False}
    yield po, "grams", both, lambda o: by_torch(lambda ps: o.Grams(ps, **both, **loop)), ANY
    whole = {**both, **loop, "optimize_1d": True}
    yield po, "mars", both, lambda o: by_torch(lambda ps: o.MARS(ps, **whole)), ANY
    bare = {**whole, "eps": 0.0}
    yield po, "mars", {**both, "eps": 0.0}, lambda o: by_torch(lambda ps: _mars(o)(ps, **bare)), ANY
    yield po, "sgd_sai", both, lambda o: by_torch(lambda ps: o.SGDSaI(ps, **both, **loop)), MATRICES
    yield po, "sgd_sai", both, lambda o: by_torch(lambda ps: _sgd_sai(o)(ps, **both, **loop)), ANY
    options = {**both, **loop, "nesterov": False, "update_scale": "match_rms", "eps": 1e-8}
    matrices = lambda o: by_torch(lambda ps: o.NorMuon([{"params": ps, "use_muon": True}], **options))  # noqa: E731
    yield po, "normuon", both, matrices, MATRICES


def _mars(package: Any) -> Any:
    """MARS without a correction at the first step, and without what is added to v."""

    class Corrected(package.MARS):  # type: ignore[misc]
        def apply_ams_bound(self, _: bool, v: torch.Tensor, *others: Any) -> torch.Tensor:
            return v.sqrt()

        def init_group(self, group: dict[str, Any], **options: Any) -> None:
            new = [p for p in group["params"] if p not in self.state]
            super().init_group(group, **options)
            for p in new:
                self.state[p]["last_grad"].copy_(p.grad)

    return Corrected


def _sgd_sai(package: Any) -> Any:
    """SGD-SaI with the deviation of all elements, over d, for vectors too."""

    class Whole(package.SGDSaI):  # type: ignore[misc]
        def init_group(self, group: dict[str, Any], **options: Any) -> None:
            new = [p for p in group["params"] if p not in self.state]
            super().init_group(group, **options)
            for p in new:
                self.state[p]["gsnr"] = p.grad.norm() / (p.grad.std(correction=0) + group["eps"])

    return Whole


def main() -> None:
    """Print a line for every rule and package."""
    print(f"{'rule':20}{'package':20}{'largest difference':>20}{'moved':>10}")
    for package, rule, hypers, make, shapes in (*cases(), *papers()):
        name = rule if isinstance(rule, str) else rule.name
        try:
            found = importlib.import_module(package)
        except ImportError:
            print(f"{name:20}{package:20}{'not installed':>20}")
            continue
        apart, moved = difference(rule, hypers, make(found), shapes)
        print(f"{name:20}{package:20}{apart:20.1e}{moved:10.2f}", flush=True)


if __name__ == "__main__":
    if "--dialects" in sys.argv:
        import _dialects

        _dialects.main()
    else:
        main()
