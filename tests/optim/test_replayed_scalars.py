"""The scalars of a replayed step: compiled, with Python's bits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from replay_runs import CHAINS, NEEDED, rule

from descend import rules
from descend.formula import rule_of, stage
from descend.formula.vocabulary import exp, floor, log, maximum, sqrt, where
from descend.kernels.cpu import replay, scalars
from descend.kernels.cpu.compiler import c_function, optimised

pytestmark = NEEDED


def odd(p, g, a=1.0, b=2.0, c=3.0):
    p = p - g * where(a < b, exp(a) / b, log(c)) * maximum(sqrt(b), a**c)
    p = p - g * (a**2 + b**0.5) - (2**c + 10**a) * floor(a) - where(a < b, 0, 1) * -where(b < c, 0, floor(c))
    return p


ODD = (0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e-300, 1e300, math.inf, -math.inf, math.nan, 1e6)


@pytest.mark.parametrize("name", [*rules.names(), *CHAINS, "odd"])
def test_compiled_scalars_have_pythons_bits_or_say_that_they_may_not(name):
    program = stage(rule_of(odd) if name == "odd" else rule(name)).scalars
    first = c_function(scalars.compiled(program), replay.ctypes.c_int64, *[replay.ctypes.c_void_p] * 3)
    source = np.random.default_rng(0)
    certain = 0
    for k in range(300):
        given = source.uniform(0.001, 0.999, len(program.arguments))
        given[0] = k + 1
        if k % 3 == 2:
            given[source.integers(len(given))] = source.choice(ODD)
        found = [np.zeros(len(program.row)), np.zeros(len(program.states))]
        if first(given.ctypes.data, *(x.ctypes.data for x in found)):
            continue
        certain += 1
        wanted = [np.array(x, np.float64) for x in program(*given.tolist())]
        for a, b in zip(found, wanted, strict=True):
            assert np.array_equal(a, b, equal_nan=True)
            assert np.array_equal(np.signbit(a), np.signbit(b)) or np.isnan(a).any()
    assert certain > 150 or name == "odd"


def test_the_c_library_is_asked_what_python_asks_it():
    code = str(optimised(scalars.render(stage(rule_of(odd)).scalars)))
    assert code.count("call double @pow(") == 5
    assert "exp2" not in code
