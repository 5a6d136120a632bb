"""Adam, as torch.optim has it, over the rules of this library."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from torch import Tensor

from ..errors import UsageError
from ..formula import Rule
from .base import BETAS, FormulaOptimizer, Params
from .parts import decoupled, modified


class Adam(FormulaOptimizer):
    """Adam divides an average of the gradients by the root of an average of their squares.

    For every element p with gradient g; t counts the parameter's steps from 1.

    Adam, as it stands (Kingma and Ba 2015, Algorithm 1, arXiv:1412.6980):

        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        p = p - lr * m_hat / (sqrt(v_hat) + eps)

    AMSGrad, with amsgrad (Reddi, Kale and Kumar 2018, Algorithm 2, arXiv:1904.09237):

        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        v_max = maximum(v_max, v)
        m_hat = m / (1 - beta1**t)
        v_hat = v_max / (1 - beta2**t)
        p = p - lr * m_hat / (sqrt(v_hat) + eps)

    Args:
        params: the parameters, as tensors, as (name, tensor) pairs, or as dicts of parameter groups.
        lr: learning rate: the size of a step. In [0, inf). Default 0.001.
        betas: the pair (beta1, beta2). Default (0.9, 0.999).
            beta1: how much of m is kept each step; remembers about 1/(1 - beta1) steps. In [0, 1).
            beta2: how much of v is kept each step. In [0, 1).
        eps: keeps the division finite where v is zero. In [0, inf). Default 1e-08.
        weight_decay: strength of the L2 penalty. In [0, inf). Default 0.
        amsgrad: divide by the largest average of the squared gradients so far.
        foreach: torch's choice of an implementation; every step is fused here, whatever it says.
        maximize: climb instead of descend.
        capturable: must stay False: the scalars of a step are computed on the host.
        differentiable: let autograd record the step (on the torch back end, which is slower).
        fused: torch's choice of an implementation; every step is fused here, whatever it says.
        decoupled_weight_decay: let the weights decay by themselves, p = p - lr * weight_decay * p, instead of
            through the gradient.
        strict: refuse values that are allowed but make no sense, instead of warning.

    Raises:
        UsageError: (a ValueError) a value out of range, or a group key that is nearly an option's.

    Example:
        >>> import torch, descend
        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = descend.Adam(model.parameters(), lr=0.001)
        >>> model(torch.ones(2, 3)).sum().backward()
        >>> optimizer.step()
        >>> optimizer.zero_grad()
    """

    hyper_keys = BETAS
    family = ("adam", "amsgrad")

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        strict: bool = False,
    ) -> None:
        check_tensors(lr, betas, foreach)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "foreach": foreach,
            "maximize": maximize,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults, strict=strict)

    def _variant(self, group: Mapping[str, Any]) -> Hashable:
        return (
            group["maximize"],
            group["differentiable"],
            bool(group["weight_decay"]),
            group["decoupled_weight_decay"],
            group["amsgrad"],
        )

    def _rule(self, group: Mapping[str, Any]) -> Rule:
        if group["amsgrad"]:
            return modified(group, "amsgrad", decoupled(group))
        return modified(group, "adam", decoupled(group))

    def _sparse(self, group: Mapping[str, Any]) -> str:
        raise RuntimeError("Adam does not support sparse gradients, please consider SparseAdam instead")


def check_tensors(lr: Any, betas: Any, foreach: Any) -> None:
    """Refuse the tensors that torch refuses as a learning rate or as betas."""
    if isinstance(lr, Tensor) and foreach:
        raise UsageError("lr as a Tensor is not supported for capturable=False and foreach=True")
    if not all(isinstance(b, float) for b in betas) and not all(isinstance(b, Tensor) for b in betas):
        raise UsageError("betas must be either both floats or both Tensors")
    if isinstance(betas[0], Tensor) and foreach:
        raise UsageError("betas[0] as a Tensor is not supported for capturable=False and foreach=True")
