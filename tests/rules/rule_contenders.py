"""One rule as several implementations run it, behind one interface: step by step, on one tensor.

`Ours` is a back end of ours, `Torch` a path of torch.optim, `Reference` the formula itself. Each has
`step(gradient)`, `p` and `states` (under the rule's names).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from rule_lines import Line

from descend.formula import stage
from descend.kernels import cpu, torch_ops


class Reference:
    """The formula's own Python on NumPy arrays; float64, or `wide` for more digits than float64 has.

    In float64 it is `descend.kernels.reference`, which a test holds it to.
    """

    def __init__(self, line: Line, p: Any, wide: Any = np.float64) -> None:
        self.line = line
        self.wide = wide
        self.values = {k: wide(v) for k, v in line.values.items()}
        self.p = self.widened(p)
        self.t = 0
        self.states: dict[str, Any] = {}
        for s in line.rule.states:
            start = self.values[s.init] if isinstance(s.init, str) else wide(s.init)
            self.states[s.name] = start if s.scalar else np.full_like(self.p, start)

    def widened(self, x: Any) -> Any:
        """A tensor, array or number in the reference's precision."""
        if isinstance(x, torch.Tensor):
            x = x.double().numpy()
        return np.asarray(x).astype(self.wide)[()]

    def put(self, p: Any, states: Mapping[str, Any], t: int) -> None:
        """Continue from another contender's state after `t` steps."""
        self.p, self.t = self.widened(p), t
        self.states = {word: self.widened(x) for word, x in states.items()}

    def step(self, g: Any) -> None:
        """Take a step; `g` is an array or a tensor of any float type."""
        self.t += 1
        known = {**self.values, **self.states, "p": self.p, "g": self.widened(g), "t": self.wide(self.t)}
        with np.errstate(all="ignore"):
            for formula in self.line.rule:
                code = formula.function.__code__
                result = formula.function(**{w: known[w] for w in code.co_varnames[: code.co_argcount]})
                result = result if isinstance(result, tuple) else (result,)
                known |= dict(zip(formula.reading.outputs, result, strict=True))
        self.p, self.states = known["p"], {w: known[w] for w in self.states}


class Ours:
    """A back end of ours on one tensor: "cpu" (the fused kernel) or "torch"."""

    def __init__(self, line: Line, p: torch.Tensor, backend: str = "cpu") -> None:
        self.rule = line.rule
        self.values = line.values
        self.program = stage(line.rule)
        self.backend = backend
        self.p = p.detach().clone()
        self.t = 0
        self.states: dict[str, Any] = {}
        for s in self.rule.states:
            start = self.values[s.init] if isinstance(s.init, str) else s.init
            self.states[s.name] = start if s.scalar else torch.full_like(self.p, start)
        if backend == "cpu":
            name = cpu.storage_name(p.dtype)
            self.kernel = cpu.kernel(self.program, (name,) * len(self.program.operands))
            self.table = cpu.Table(self.kernel, [p.numel()])
            self.rows = self.kernel.rows(1)

    def put(self, p: torch.Tensor, states: Mapping[str, Any], t: int) -> None:
        """Continue from another contender's state after `t` steps."""
        self.p, self.t = p.detach().clone(), t
        self.states = {w: x.clone() if isinstance(x, torch.Tensor) else x for w, x in states.items()}

    def step(self, g: torch.Tensor) -> None:
        """Take a step in place."""
        self.t += 1
        scalars = [s.name for s in self.rule.states if s.scalar]
        row, new = self.program.scalars(
            self.t, *(self.values[h.name] for h in self.rule.hypers), *(self.states[w] for w in scalars)
        )
        self.states |= dict(zip(scalars, new, strict=True))
        operands = {"p": self.p, "g": g, **{w: self.states[w] for w in self.program.operands[2:]}}
        if self.backend == "torch":
            for word, value in torch_ops.step(self.program, row, operands).items():
                operands[word].copy_(value)
            return
        addresses = np.array([[x.data_ptr() for x in operands.values()]], np.int64)
        self.rows[0 : len(row)] = row
        self.table.bind(addresses, self.rows, np.zeros(1, np.int64))
        self.table.launch(threads=1)


class Torch:
    """torch.optim's class for a rule; `path` is "forloop", "foreach" or "fused"."""

    def __init__(self, line: Line, p: torch.Tensor, path: str = "forloop") -> None:
        self.rule = line.rule
        self.param = torch.nn.Parameter(p.detach().clone())
        flags = {"fused": True} if path == "fused" else {"foreach": path == "foreach"}
        self.optimizer = line.optimizer([self.param], **flags)

    @property
    def p(self) -> torch.Tensor:
        """The parameter."""
        return self.param.detach()

    @property
    def states(self) -> dict[str, Any]:
        """torch's state under our names; empty before the first step."""
        kept = self.optimizer.state[self.param]
        found = {s.name: kept.get(s.key) for s in self.rule.states}
        scalar = {s.name for s in self.rule.states if s.scalar}
        return {w: float(x) if w in scalar else x for w, x in found.items() if x is not None}

    def put(self, p: torch.Tensor, states: Mapping[str, Any], t: int) -> None:
        """Continue from another contender's state after `t` steps; torch must have stepped before."""
        self.param.data.copy_(p)
        kept = self.optimizer.state[self.param]
        for s in self.rule.states:
            value = states[s.name]
            kept[s.key].copy_(torch.as_tensor(value, dtype=kept[s.key].dtype))
        if "step" in kept:
            kept["step"].fill_(float(t))

    def step(self, g: torch.Tensor) -> None:
        """Take a step in place."""
        self.param.grad = g
        self.optimizer.step()
