"""The contenders of step.py: the models that are stepped, and every library's way to step them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from _timing import Contender

import descend

ADAM = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8}
OURS = "descend"
STILL = "descend, no arithmetic"
ADD = "torch.add(out=)"


class Scales(torch.nn.Module):
    """150 layers of a scale and a shift each: 300 vectors of 32."""

    def __init__(self) -> None:
        super().__init__()
        self.scales = torch.nn.ParameterList([torch.ones(32) for _ in range(150)])
        self.shifts = torch.nn.ParameterList([torch.zeros(32) for _ in range(150)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for scale, shift in zip(self.scales, self.shifts, strict=True):
            x = x * scale + shift
        return x


def _perceptron() -> torch.nn.Module:
    linear, relu = torch.nn.Linear, torch.nn.ReLU
    return torch.nn.Sequential(linear(64, 64), relu(), linear(64, 64), relu(), linear(64, 10))


@dataclass(frozen=True)
class Size:
    """A layout of parameters as a model, and the batch that goes through it."""

    name: str
    model: Callable[[], torch.nn.Module]
    inputs: tuple[int, int]
    outputs: int
    many: bool = False
    """Whether it has hundreds of tensors."""


def sizes(smoke: bool) -> list[Size]:
    """The four layouts; a smoke run shrinks the two large ones."""
    one, sixteen = (64, 64) if smoke else (1024, 4096)
    return [
        Size("9k in 6", _perceptron, (64, 64), 10),
        Size("300 × 32", Scales, (16, 32), 32, many=True),
        Size("1M", lambda: torch.nn.Linear(one, one, bias=False), (32, one), one),
        Size("16M", lambda: torch.nn.Linear(sixteen, sixteen, bias=False), (8, sixteen), sixteen),
    ]


class Bench:
    """A model of its own for one contender, with gradients that stay (bare) or come from real passes."""

    def __init__(self, size: Size, passes: bool) -> None:
        torch.manual_seed(0)
        self.model = size.model()
        self.params = list(self.model.parameters())
        self.before: Callable[[], object] | None = None
        if passes:
            self.x, self.y = torch.randn(size.inputs), torch.randn(size.inputs[0], size.outputs)
            self.before = self._passes
        else:
            for p in self.params:
                p.grad = torch.randn_like(p) * 0.01
            self.gradients = [p.grad for p in self.params]

    def _passes(self) -> None:
        self.model.zero_grad()
        torch.nn.functional.mse_loss(self.model(self.x), self.y).backward()

    def give_gradients(self) -> None:
        """Put the gradients back, for a library that takes them away."""
        for p, g in zip(self.params, self.gradients, strict=True):
            p.grad = g


Made = tuple[str, Contender | str]
"""A contender by name, or the reason why there is none."""


def torch_paths(bench: Callable[[], Bench], rule: str, hypers: dict[str, Any]) -> Iterator[Made]:
    """torch's own ways to step, as far as the class has them."""
    kind = getattr(torch.optim, rule)
    paths: dict[str, dict[str, bool]] = {"torch fused": {"fused": True}, "torch foreach": {"foreach": True}}
    for name, flags in {**paths, "torch for-loop": {"foreach": False}}.items():
        if next(iter(flags)) in inspect.signature(kind).parameters:
            yield name, _over(name, bench(), lambda p, flags=flags: kind(p, **hypers, **flags))


def ours(bench: Callable[[], Bench], rule: str, hypers: dict[str, Any]) -> Iterator[Made]:
    """descend's class of the same name."""
    kind = getattr(descend, rule, None)
    yield OURS, "not in descend" if kind is None else _over(OURS, bench(), lambda p: kind(p, **hypers))


def _over(name: str, bench: Bench, make: Callable[[list[torch.Tensor]], Any]) -> Contender:
    return Contender(name, make(bench.params).step, bench.before)


def compiled(bench: Callable[[], Bench], smoke: bool) -> Iterator[Made]:
    """torch.compile over the step of the foreach path (the quicker one to compile)."""
    if smoke:
        yield "torch.compile", "left out of a smoke run"
        return
    b = bench()
    step = torch.compile(torch.optim.Adam(b.params, **ADAM, foreach=True).step)
    yield "torch.compile", Contender("torch.compile", step, b.before)


def libraries(
    bench: Callable[[], Bench], size: Size, smoke: bool, passes: bool, everything: bool
) -> Iterator[Made]:
    """The other libraries' Adam, each with the reason when it is missing."""
    for name, make in (
        ("pytorch_optimizer AdaBelief", _kozistr),
        ("HeavyBall AdamW", _heavyball),
        ("DeepSpeed CPUAdam", _deepspeed),
        ("optax.adam, jit", _optax),
    ):
        if make is _heavyball and (smoke or (size.many and not everything)):
            yield name, "left out of a smoke run" if smoke else "left out: compiles for minutes (--all)"
            continue
        if make is _optax and passes:
            yield name, "has no torch passes"
            continue
        try:
            yield name, make(name, bench())
        except ImportError as error:
            yield name, f"not installed ({error.name or error})"
        except Exception as error:  # a peer that cannot be built here is a row of its own, not our failure
            yield name, f"failed: {type(error).__name__}"


def _kozistr(name: str, b: Bench) -> Contender:
    # its "adam" is torch.optim.Adam itself; of its own rules AdaBelief has Adam's states, nearly its formula
    from pytorch_optimizer import AdaBelief

    return Contender(name, AdaBelief(b.params, **ADAM, foreach=True).step, b.before)


def _heavyball(name: str, b: Bench) -> Contender:
    import heavyball

    step = heavyball.AdamW(b.params, **ADAM, weight_decay=0.0, compile_step=True).step
    return Contender(name, step, b.before or b.give_gradients)  # it sets every p.grad to None


def _deepspeed(name: str, b: Bench) -> Contender:
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    return Contender(name, DeepSpeedCPUAdam(b.params, **ADAM, adamw_mode=False).step, b.before)


def _optax(name: str, b: Bench) -> Contender:
    import jax
    import optax

    rule = optax.adam(ADAM["lr"], *ADAM["betas"], ADAM["eps"])
    params = [jax.numpy.asarray(p.detach().numpy().copy()) for p in b.params]
    gradients = [jax.numpy.asarray(g.numpy().copy()) for g in b.gradients]
    held = [params, rule.init(params)]

    def update(params: Any, state: Any, gradients: Any) -> Any:
        updates, state = rule.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    jitted = jax.jit(update, donate_argnums=(0, 1))

    def step() -> None:
        held[:] = jitted(*held, gradients)
        jax.block_until_ready(held[0])

    return Contender(name, step)


def no_arithmetic(p, g, m, v):  # type: ignore[no-untyped-def]
    """Adam's loads and stores: four tensors read, three written."""
    m = m + g
    v = v + g
    p = p + g
    return p, m, v


def bandwidth(bench: Callable[[], Bench]) -> Iterator[Made]:
    """What the memory allows: our kernel without its arithmetic, and torch.add into a third tensor."""
    still = descend.optimizer(no_arithmetic)
    yield STILL, _over(STILL, bench(), still)
    b = bench()
    (p,), (g,) = b.params, b.gradients
    p, out = p.detach(), torch.empty_like(p)
    yield ADD, Contender(ADD, lambda: torch.add(p, g, out=out))
