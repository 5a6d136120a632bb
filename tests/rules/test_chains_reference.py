"""Every modifier around Adam, and many at once, in every storage type against the float64 reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import descend
from descend import chains, rules
from descend.kernels import reference
from descend.optim import ways

SHAPES = ((33, 70), (5, 3), (4, 2, 3, 3), (16,))
NAMES = [
    f"{name} + adam" if part.formulas[0].place == "before" else f"adam + {name}"
    for name, part in chains.parts().items()
]
NAMES.append("centralise + clip_global_norm + gradient_noise + adam + cautious + langevin + ema_weights")

# an element of p is 1 to 4 in size, and each of five steps rounds it: half a unit of its last place
CLOSE = {torch.float64: 5e-15, torch.float32: 3e-6, torch.bfloat16: 5e-2}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("dtype", CLOSE, ids=str)
def test_a_chain_is_its_formulas_in_float64(
    name: str, backend: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == "torch":
        monkeypatch.setattr(ways, "cpu_takes", lambda member, rule: False)
    source = torch.Generator().manual_seed(0)
    params = [
        torch.randn(s, generator=source, dtype=torch.float64).to(dtype).requires_grad_() for s in SHAPES
    ]
    rule = rules.get(name)
    hypers = {h.name: h.default for h in rule.hypers} | {"lr": 0.01}
    hypers |= {word: 0.1 for word in ("weight_decay",) if word in hypers}
    optimizer = descend.optimizer(rule)(params, **hypers)
    parts = [optimizer._rule_of(optimizer.param_groups[0], p) for p in params]
    wanted = [p.detach().double().numpy().copy() for p in params]
    states = [
        reference.initial_states(own, p, hypers, k)
        for k, (own, p) in enumerate(zip(parts, wanted, strict=True))
    ]
    for t in range(1, 6):
        for p in params:
            p.grad = torch.randn(p.shape, generator=source, dtype=torch.float64).to(dtype)
        given = [p.grad.double().numpy() for p in params if p.grad is not None]
        found = reference.step_together(parts, wanted, given, t, states, hypers)
        wanted, states = [new for new, _ in found], [kept for _, kept in found]
        optimizer.step()
    for p, q in zip(params, wanted, strict=True):
        assert np.abs(p.detach().double().numpy() - q).max() < CLOSE[dtype]
