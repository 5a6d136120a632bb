"""How every package is asked for a step in kinds.py; _kinds_subjects.py says which for which rule."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch

import descend
from descend import wrappers

LR = 1e-4
DECAY = 0.01
ADAMW: dict[str, Any] = {"lr": LR, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": DECAY}
PO, HB = "pytorch_optimizer", "HeavyBall, compiled"
FOREACH, COMPILED, OPTAX = f"{PO}, foreach", f"{PO}, compiled", "optax, jit"
TORCH_CLIP, TORCH_MUON = "torch: clip_grad_norm_, fused AdamW", "torch.optim.Muon"

Step = Callable[[], object]


@dataclass(frozen=True)
class Layout:
    """Tensors of one shape; `swept` when the caches are filled with something else before every step."""

    name: str
    count: int
    shape: tuple[int, ...]
    swept: bool = False

    def shrunk(self) -> Layout:
        """For a smoke run: the same name, few and small tensors."""
        return replace(self, count=min(self.count, 3), shape=tuple(min(n, 16) for n in self.shape))


SIZES = (
    Layout("300 × 32", 300, (32,)),
    Layout("100 of 256 × 256", 100, (256, 256)),
    Layout("1M", 1, (1024, 1024)),
    Layout("1M, swept", 1, (1024, 1024), swept=True),
    Layout("16M", 1, (4096, 4096)),
)


@cache
def _something_else() -> torch.Tensor:
    return torch.ones(1 << 26)


def sweep() -> None:
    """Leave nothing of a step in the caches, as a forward and a backward pass do."""
    _something_else().sum()


class Given:
    """Parameters of one contender's own, with gradients that stay."""

    def __init__(self, layout: Layout) -> None:
        source = torch.Generator().manual_seed(0)
        self.params = [
            torch.nn.Parameter(torch.randn(layout.shape, generator=source) / 10) for _ in range(layout.count)
        ]
        self.gradients = [torch.randn(layout.shape, generator=source) / 100 for _ in range(layout.count)]
        self.give_gradients()

    def give_gradients(self) -> None:
        """Put the gradients in place; also for a library that takes them away."""
        for p, g in zip(self.params, self.gradients, strict=True):
            p.grad = g

    def model(self) -> torch.nn.Module:
        """The parameters as a model, for what asks for one."""
        return torch.nn.ParameterList(self.params)


@dataclass(frozen=True)
class Peer:
    """How a package takes the step."""

    make: Callable[[Given], Step]
    compiles: bool = False
    """With torch.compile, for minutes where there are many tensors."""


@dataclass(frozen=True)
class Subject:
    """A rule or a chain, ours and theirs, with equal hyper-parameters."""

    kind: str
    ours: Callable[[Given], Step]
    peers: dict[str, Peer] = field(default_factory=dict)
    sizes: tuple[Layout, ...] = SIZES
    cycle: int = 1
    """Steps that are timed together, where not all are alike."""


# -- how each package is asked ----------------------------------------------------------------------------


def ours(rule: Any, **hypers: Any) -> Callable[[Given], Step]:
    """descend's optimizer of a rule, a chain, or a name."""
    return lambda given: descend.optimizer(rule)(given.params, **hypers).step  # type: ignore[no-any-return]


def of(module: str, name: str, **hypers: Any) -> Peer:
    """A class of a package, over the parameters."""

    def make(given: Given) -> Step:
        step: Step = getattr(importlib.import_module(module), name)(given.params, **hypers).step
        return step

    return Peer(make)


def compiled(name: str, **hypers: Any) -> Peer:
    """pytorch_optimizer's own way to compile one of its optimizers."""

    def make(given: Given) -> Step:
        package = importlib.import_module(PO)
        step: Step = package.create_optimizer(given.model(), name, compile=True, **hypers).step
        return step

    return Peer(make, compiles=True)


def kozistr(name: str, **hypers: Any) -> dict[str, Peer]:
    """pytorch_optimizer's class, with foreach, and compiled."""
    return {
        FOREACH: of(PO, name, foreach=True, **hypers),
        COMPILED: compiled(name.lower(), **hypers),
    }


def heavyball(name: str, **hypers: Any) -> dict[str, Peer]:
    """HeavyBall's class. It sets every gradient to None, so the step puts them back first."""

    def make(given: Given) -> Step:
        package = importlib.import_module("heavyball")
        optimizer = getattr(package, name)(given.params, compile_step=True, **hypers)

        def step() -> None:
            given.give_gradients()
            optimizer.step()

        return step

    return {HB: Peer(make, compiles=True)}


def optax(transformation: Callable[[Any], Any]) -> dict[str, Peer]:
    """An optax transformation in float32, jitted, its parameters and state donated."""

    def make(given: Given) -> Step:
        import jax
        import optax

        rule = transformation(optax)
        params = [jax.numpy.asarray(p.detach().numpy().copy()) for p in given.params]
        gradients = [jax.numpy.asarray(g.numpy().copy()) for g in given.gradients]
        held = [params, rule.init(params)]

        def update(params: Any, state: Any, gradients: Any) -> Any:
            updates, state = rule.update(gradients, state, params)
            return optax.apply_updates(params, updates), state

        jitted = jax.jit(update, donate_argnums=(0, 1))
        # a state that starts as the parameters themselves cannot be given away with them
        held[1] = jax.tree.map(lambda x: jax.numpy.array(x, copy=True), held[1])

        def step() -> None:
            held[:] = jitted(*held, gradients)
            jax.block_until_ready(held)

        return step

    return {OPTAX: Peer(make)}


def cautious_optax(o: Any, inner: Any, scaled: bool, decay: float | None = None) -> Any:
    """Caution around an optax transformation, and an average of the weights, as a user would write them."""
    from jax import numpy as jnp
    from jax import tree

    def init(params: Any) -> Any:
        return inner.init(params), None if decay is None else tree.map(jnp.copy, params)

    def masked(u: Any, g: Any) -> Any:
        kept = (u * g < 0).astype(u.dtype)
        return u * kept / jnp.maximum(kept.mean(), 1e-3) if scaled else u * kept

    def update(gradients: Any, state: Any, params: Any) -> Any:
        updates, held = inner.update(gradients, state[0], params)
        updates = tree.map(masked, updates, gradients)
        if decay is None:
            return updates, (held, None)
        mean = tree.map(lambda a, p, u: decay * a + (1 - decay) * (p + u), state[1], params, updates)
        return updates, (held, mean)

    return o.GradientTransformation(init, update)


def torch_clip_norm(given: Given) -> Step:
    """What a training loop in torch says."""
    optimizer = torch.optim.AdamW(given.params, **ADAMW, fused=True)

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(given.params, 1.0, foreach=True)
        optimizer.step()

    return step


def torch_chain(given: Given) -> Step:
    """Clipping, AdamW and the average of weights in torch, which has no caution."""
    optimizer = torch.optim.AdamW(given.params, **ADAMW, fused=True)
    model = given.model()
    swa = torch.optim.swa_utils
    average = swa.AveragedModel(model, multi_avg_fn=swa.get_ema_multi_avg_fn(0.999))

    def step() -> None:
        torch.nn.utils.clip_grad_value_(given.params, 1.0, foreach=True)
        optimizer.step()
        average.update_parameters(model)

    return step


def sophia_steps(given: Given) -> Step:
    """pytorch_optimizer's SophiaH, given its estimates once; the steps in between are what is timed."""
    from pytorch_optimizer import SophiaH

    hypers = {"lr": LR, "betas": (0.96, 0.99), "weight_decay": DECAY, "p": 1.0, "update_period": 1 << 40}
    optimizer = SophiaH(given.params, **hypers, foreach=True)
    optimizer.step(hessian=[g * g for g in given.gradients])
    return optimizer.step


def optax_sophia(o: Any) -> Any:
    """optax's, its estimates taken at the first step only."""
    estimates = o.GradientTransformationExtraArgs(
        lambda params: o.EmptyState(), lambda g, state, params=None, **extra: (g, state)
    )
    fixed = {"update_interval": 1 << 30, "hessian_diagonal_fn": estimates}
    return o.contrib.sophia(LR, b1=0.96, b2=0.99, eps=1e-12, weight_decay=DECAY, **fixed)


def torch_muon_compiled(given: Given) -> Step:
    """torch.compile over its step."""
    step: Step = torch.compile(torch.optim.Muon(given.params, LR, DECAY, 0.95).step)
    return step


def kozistr_muon(given: Given) -> Step:
    """pytorch_optimizer's, which takes all matrices of one shape together."""
    from pytorch_optimizer import Muon

    groups = [{"params": given.params, "use_muon": True, "lr": LR, "weight_decay": DECAY}]
    return Muon(groups, foreach=True).step  # type: ignore[no-any-return]


# -- wrappers ---------------------------------------------------------------------------------------------


def our_schedule_free(given: Given) -> Step:
    """Ours around Adam without its first average."""
    return wrappers.ScheduleFree(descend.Adam(given.params, LR, (0.0, 0.999)), weight_decay=DECAY).step


def schedulefree(given: Given) -> Step:
    """The authors' class, in its training mode."""
    from schedulefree import AdamWScheduleFree

    optimizer = AdamWScheduleFree(given.params, LR, weight_decay=DECAY, foreach=True)
    optimizer.train()
    step: Step = optimizer.step
    return step


def two_steps(optimizer: Any, given: Given) -> Step:
    """SAM's two halves, the gradients given."""

    def step() -> None:
        optimizer.first_step()
        given.give_gradients()
        optimizer.second_step()

    return step


def our_sam(given: Given) -> Step:
    """Ours around our AdamW."""
    return two_steps(wrappers.SAM(descend.AdamW(given.params, **ADAMW)), given)


def their_sam(**path: bool) -> Peer:
    """pytorch_optimizer's around torch's AdamW; only the base may be fused, or both take foreach."""

    def make(given: Given) -> Step:
        from pytorch_optimizer import SAM

        return two_steps(SAM(given.params, torch.optim.AdamW, rho=0.05, **ADAMW, **path), given)

    return Peer(make)


def our_lookahead(given: Given) -> Step:
    """Ours around our AdamW."""
    return wrappers.Lookahead(descend.AdamW(given.params, **ADAMW), k=5, alpha=0.5).step


def their_lookahead(given: Given) -> Step:
    """pytorch_optimizer's around torch's fused AdamW."""
    from pytorch_optimizer import Lookahead

    base = torch.optim.AdamW(given.params, **ADAMW, fused=True)
    return Lookahead(base, k=5, alpha=0.5).step  # type: ignore[no-any-return]
