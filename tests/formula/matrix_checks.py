"""What the tests of whole matrices share: a program in words, and a formula beside the reference."""

import numpy as np
import pytest
import torch

import descend
from descend.errors import FormulaError
from descend.formula import rule_of, stage
from descend.kernels import reference


def described(program):
    """Every pass as its domain and what it writes, with the matrix words between them."""
    found = []
    for routines, one in zip(program.routines, [*program.passes, None], strict=True):
        found += [f"{r.out} <- {r.op}({', '.join(w for w, _ in r.arguments)})" for r in routines]
        found += [f"{one.domain}: {' '.join(one.written)}"] if one else []
    return found


def check(formula, steps, signs=True):
    """Assert that p and the states are the reference's after every step from the same start.

    Without `signs` only the sizes of what the states hold: the vectors of a basis may point either way.
    """
    rule = rule_of(formula)
    source = torch.Generator().manual_seed(0)
    w = torch.randn(4, 6, generator=source, dtype=torch.float64).requires_grad_()
    hypers = {h.name: h.default for h in rule.hypers}
    p, kept = w.detach().numpy().copy(), reference.initial_states(rule, w.detach().numpy(), hypers)
    opt = descend.optimizer(formula)([w])
    for t in range(1, steps + 1):
        w.grad = torch.randn(4, 6, generator=source, dtype=torch.float64)
        p, kept = reference.step(rule, p, w.grad.numpy(), t, kept, hypers)
        opt.step()
        np.testing.assert_allclose(w.detach().numpy(), p, rtol=1e-10, atol=1e-12)
        for state in rule.states:
            own, name = opt.state[w][state.key].numpy(), f"{state.name}, step {t}"
            both = (own, kept[state.name]) if signs else (abs(own), abs(kept[state.name]))
            np.testing.assert_allclose(*both, rtol=1e-10, atol=1e-12, err_msg=name)


def line_refused(formula, says):
    """The line of a formula that staging refuses with these words."""
    with pytest.raises(FormulaError, match=says) as raised:
        stage(rule_of(formula))
    return raised.value.args[0].splitlines()[1].strip()
