"""Sparse gradients: taken where torch takes them, and refused in its words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from optim_runs import same

import descend


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
@pytest.mark.parametrize("case", ["SGD", "Adagrad", "SGD sparse momentum", "SGD up"])
def test_sparse_gradients(case: str, dtype: torch.dtype) -> None:
    """SGD and Adagrad take them, alone or by turns with dense ones."""
    kwargs: dict[str, Any] = {
        "SGD": {"lr": 0.1},
        "Adagrad": {"lr": 0.1, "lr_decay": 0.1},
        "SGD sparse momentum": {"lr": 0.1, "momentum": 0.9, "dampening": 0.1},
        "SGD up": {"lr": 0.1, "maximize": True},
    }[case]
    runs = []
    for module in (descend, torch.optim):
        p = torch.ones(5, 2, dtype=dtype).requires_grad_()
        optimizer = getattr(module, case.split()[0])([p], **kwargs)
        for step in range(6):
            rows = torch.tensor([[0, 3, 3]]) if step % 2 else torch.tensor([[1, 3, 4]])
            values = torch.arange(6.0).reshape(3, 2).to(dtype) * (step + 1)
            g = torch.sparse_coo_tensor(rows, values, (5, 2), check_invariants=True)
            p.grad = g.to_dense() if step == 3 and "momentum" not in case else g
            optimizer.step()
        runs.append(p)
    same(runs[:1], runs[1:])


def test_sparse_gradients_are_refused_as_by_torch() -> None:
    sparse = torch.sparse_coo_tensor(torch.tensor([[0]]), torch.ones(1), (3,), check_invariants=True)
    for name, words in [
        ("Adam", "Adam does not support sparse gradients, please consider SparseAdam instead"),
        ("AdamW", "please consider SparseAdam instead"),
        ("RMSprop", "RMSprop does not support sparse gradients"),
        ("ASGD", "ASGD does not support sparse gradients"),
    ]:
        p = torch.ones(3, requires_grad=True)
        p.grad = sparse
        optimizer = getattr(descend, name)([p])
        with pytest.raises(RuntimeError, match=words):
            optimizer.step()
        p.grad = torch.ones(3)
        optimizer.step()
        p.grad = None
        p.grad = sparse
        with pytest.raises(RuntimeError, match=words):
            optimizer.step()
    for name in ("SGD", "Adagrad"):
        p = torch.ones(3, requires_grad=True)
        p.grad = sparse
        with pytest.raises(RuntimeError, match="weight_decay option is not compatible with sparse gradients"):
            getattr(descend, name)([p], weight_decay=0.1).step()


def test_embedding_with_sparse_gradients() -> None:
    runs = []
    for module in (descend, torch.optim):
        torch.manual_seed(0)
        table, head = torch.nn.Embedding(9, 4, sparse=True), torch.nn.Linear(4, 1)
        optimizer = module.SGD([*table.parameters(), *head.parameters()], lr=0.1)
        for step in range(3):
            optimizer.zero_grad()
            head(table(torch.tensor([1, 2, 2, step]))).sum().backward()
            optimizer.step()
        runs.append([*table.parameters(), *head.parameters()])
    same(*runs)
