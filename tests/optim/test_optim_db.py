"""Our classes in place of torch's own in torch's optimizer table: every configuration, every error."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from optim_measure import LIMIT, distance, numbers

import descend

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch's test helpers warn while they are imported
    from torch.testing._internal.common_optimizers import OptimizerErrorEnum, optim_db

TABLE = [info for info in optim_db if info.optim_cls.__name__.lower() in descend.optim.CLASSES]
DTYPES = (
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.complex64,
    torch.complex128,
)
STEPS = 4


def ours_of(info: Any) -> type[descend.FormulaOptimizer]:
    return getattr(descend, info.optim_cls.__name__)


def test_every_class_of_ours_is_in_the_table() -> None:
    assert {info.optim_cls.__name__.lower() for info in TABLE} == set(descend.optim.CLASSES)


def parameters(dtype: torch.dtype, source: torch.Generator) -> list[torch.Tensor]:
    """Contiguous, transposed, channels last, strided, of no dimension, of no elements."""

    def fresh(*shape: int) -> torch.Tensor:
        real = torch.randn(*shape, 2, generator=source, dtype=torch.float64)
        return (torch.view_as_complex(real) if dtype.is_complex else real[..., 0]).to(dtype)

    tensors = [
        fresh(37),
        fresh(4, 6).t(),
        fresh(2, 3, 2, 2).to(memory_format=torch.channels_last),
        fresh(10)[::2],
        fresh(),
        fresh(0, 3),
    ]
    return [x.detach().requires_grad_() for x in tensors]


def twin(p: torch.Tensor) -> torch.Tensor:
    """A copy in a storage of the same form."""
    if p.shape == (5,):
        copied = torch.zeros(10, dtype=p.dtype)[::2]
        return copied.copy_(p.detach()).requires_grad_()
    return torch.empty_like(p).copy_(p.detach()).requires_grad_()


def gradient(p: torch.Tensor, source: torch.Generator) -> torch.Tensor:
    real = torch.randn(*p.shape, 2, generator=source, dtype=torch.float64)
    g = (torch.view_as_complex(real) if p.is_complex() else real[..., 0]).to(p.dtype)
    return g if p.dim() != 2 else torch.empty_like(p).copy_(g)


def groups_of(params: list[torch.Tensor]) -> list[dict[str, Any]]:
    return [{"params": params[:3]}, {"params": params[3:], "lr": 0.0125}]


def configurations(info: Any, dtype: torch.dtype) -> list[dict[str, Any]]:
    found = [deepcopy(case.kwargs) for case in info.optim_inputs_func(device="cpu", dtype=dtype)]
    if dtype == torch.float16 and info.optim_cls.__name__ not in ("SGD", "ASGD", "Rprop"):
        for kwargs in found:
            kwargs["eps"] = max(kwargs.get("eps", 0.0), 1e-3)  # 1e-8 is zero there, and torch divides by it
    return found


@pytest.fixture
def counts(dtype: torch.dtype) -> Iterator[None]:
    """torch keeps scalar states in its default dtype; in float32 they would spoil a float64 step."""
    kept = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if dtype in (torch.float64, torch.complex128) else torch.float32)
    yield
    torch.set_default_dtype(kept)


@pytest.mark.usefixtures("counts")
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("info", TABLE, ids=lambda info: info.name)
def test_a_step_is_torchs(info: Any, dtype: torch.dtype) -> None:
    """From torch's state, every step; two groups; a parameter sits the third step out."""
    for kwargs in configurations(info, dtype):
        source = torch.Generator().manual_seed(7)
        theirs_p = parameters(dtype, source)
        ours_p = [twin(p) for p in theirs_p]
        theirs = info.optim_cls(groups_of(theirs_p), **kwargs)
        ours = ours_of(info)(groups_of(ours_p), **kwargs)
        for step in range(STEPS):
            for p, q in zip(theirs_p, ours_p, strict=True):
                p.grad = gradient(p, source)
                q.grad = twin(p.grad).detach()
            if step == 2:
                theirs_p[0].grad = ours_p[0].grad = None
            before = [
                (numbers(p), None if p.grad is None else numbers(p.grad), dict(saved(theirs, p)))
                for p in theirs_p
            ]
            theirs.step()
            ours.step()
            for group in ours.param_groups:
                for q in group["params"]:
                    k = next(i for i, x in enumerate(ours_p) if x is q)
                    p, (start, g, kept) = theirs_p[k], before[k]
                    if g is None:
                        torch.testing.assert_close(p, q, rtol=0, atol=0)
                        continue
                    states = {key: value for key, value in kept.items() if key != "step"}
                    t = 1 + int(kept.get("step", min(step, 1)))
                    apart, wrong = distance(
                        ours, group, (start, g, t, states), (q, ours.state[q]), (p, theirs.state[p])
                    )
                    assert apart <= LIMIT or (dtype.itemsize == 2 and wrong <= 1), (kwargs, k, step, apart)
            with torch.no_grad():
                for p, q in zip(theirs_p, ours_p, strict=True):
                    q.copy_(p)
            ours.load_state_dict(theirs.state_dict())


def saved(optimizer: torch.optim.Optimizer, p: torch.Tensor) -> dict[str, Any]:
    """A parameter's state as arrays and numbers."""
    found = optimizer.state.get(p, {})
    return {
        key: float(value) if key in ("step", "eta", "mu", "mu_product") else numbers(value)
        for key, value in found.items()
        if value is not None
    }


@pytest.mark.parametrize("info", TABLE, ids=lambda info: info.name)
def test_every_error_is_torchs(info: Any) -> None:
    for case in info.optim_error_inputs_func(device="cpu", dtype=torch.float32):
        given = case.optimizer_error_input
        params = given.params if given.params is not None else [torch.nn.Parameter(torch.randn(3))]
        kind = ours_of(info)
        if issubclass(case.error_type, Warning):
            with pytest.warns(case.error_type, match=case.error_regex):
                kind(params, **given.kwargs)
            continue
        if case.error_on is OptimizerErrorEnum.CONSTRUCTION_ERROR:
            with pytest.raises(case.error_type, match=case.error_regex):
                kind(params, **given.kwargs)
        else:
            optimizer = kind(params, **given.kwargs)
            with pytest.raises(case.error_type, match=case.error_regex):
                optimizer.step()
