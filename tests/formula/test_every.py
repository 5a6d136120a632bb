"""`every`: words for whole matrices that run now and then, and states that are kept between them."""

import pytest
from matrix_checks import check, line_refused

from descend.formula import State, rule_of, stage
from descend.formula.vocabulary import eigenbasis, every, inverse_root, matmul, newton_schulz, norm, transpose

L = State(shape="left")


def turning(p, g, t, m=State(), Q=L, S=State(shape="left"), k=3.0, lr=0.1):
    """m lives in the basis Q, which is renewed now and then; S remembers what it was."""
    S = S + matmul(g, transpose(g))
    m = m + matmul(transpose(Q), g)
    p = p - lr * matmul(Q, m)
    back = matmul(Q, m)
    Q = every(k, t, eigenbasis(S, Q), Q)
    m = every(k, t, matmul(transpose(Q), back), m)
    return p, m, Q, S


def handed_on(p, g, t, Q=L, S=State(shape="left"), D=State(shape="left"), k=2.0, lr=0.1):
    """A state that is kept from what another one was before that one is renewed."""
    S = S + matmul(g, transpose(g))
    D = every(k, t, matmul(Q, Q), D)
    Q = every(k, t, inverse_root(S, 4, 1e-2), Q)
    p = p - lr * matmul(D, matmul(Q, g))
    return p, Q, S, D


def between(p, g, t, D=L, k=2.0, lr=0.1):
    """A state that a pass writes in every step and a word every k steps."""
    D = every(k, t, matmul(g, transpose(g)), 0.5 * D)
    p = p - lr * matmul(D, g)
    return p, D


def two_names(p, g, t, D=L, E=State(shape="left"), k=2.0, lr=0.1):
    """Two states with one value: the second is a copy."""
    D = every(k, t, matmul(g, transpose(g)), 0.5 * D)
    p = p - lr * matmul(D, g)
    E = D
    return p, D, E


def two_kept(p, g, t, D=L, E=State(shape="left"), k=2.0, lr=0.1):
    """The same where one of the two is kept as it is."""
    E = every(k, t, matmul(g, transpose(g)), E)
    D = E
    p = p - lr * matmul(E, g)
    return p, D, E


def also_summed(p, g, t, S=L, D=State(shape="left"), k=2.0, lr=0.1):
    """A word that a state keeps now and then and another one sums up in every step."""
    s = matmul(g, transpose(g))
    S = 0.9 * S + s
    D = every(k, t, s, D)
    p = p - lr * matmul(D, g)
    return p, S, D


def also_taken(p, g, t, S=L, Q=State(shape="left"), k=2.0, lr=0.1):
    """A word that a state keeps now and then and another word takes in every step."""
    S = S + matmul(g, transpose(g))
    root = inverse_root(S, 4, 1e-2)
    Q = every(k, t, root, Q)
    p = p - lr * matmul(matmul(Q, root), g)
    return p, S, Q


def handed_late(p, g, t, Q=L, S=State(shape="left"), D=State(shape="left"), k=2.0, lr=0.1):
    """D is made of the old Q, and p still takes the old D."""
    S = S + matmul(g, transpose(g))
    old = D
    D = every(k, t, matmul(Q, Q), D)
    Q = every(k, t, inverse_root(S, 4, 1e-2), Q)
    p = p - lr * matmul(Q, matmul(old, g))
    return p, Q, S, D


def scaled(p, g, t, m=State(), Q=L, S=State(shape="left"), k=2.0, lr=0.1, beta=0.9):
    """What m is between the words stands in a sum, where its factor could be drawn into another."""
    S = S + matmul(g, transpose(g))
    m = beta * m
    p = p - lr * (2 * m + matmul(Q, m))
    Q = every(k, t, inverse_root(S, 4, 1e-2), Q)
    m = every(k, t, matmul(Q, g), m)
    return p, m, Q, S


def exchanged(p, g, t, Q=L, S=State(shape="left"), k=2.0, lr=0.1):
    """Two states that each take what the other one was."""
    old = S
    S = every(k, t, matmul(Q + matmul(g, transpose(g)), Q), S)
    Q = every(k, t, matmul(old, old), Q)
    p = p - lr * matmul(matmul(S, Q), g)
    return p, Q, S


def own_old(p, g, t, m=State(), Q=L, k=2.0, lr=0.1):
    """What m becomes by the word and what it becomes otherwise both take what it was."""
    Q = 0.5 * Q + matmul(g, transpose(g))
    p = p - lr * matmul(Q, m)
    m = every(k, t, matmul(Q, m), 0.9 * m + g)
    return p, m, Q


def rotation(p, g, t, m=State(), Q=L, S=State(shape="left"), k=2.0, lr=0.1):
    """m moves from the old basis to the new one: it takes the Q before and the Q after."""
    S = S + matmul(g, transpose(g))
    m = m + matmul(transpose(Q), g)
    p = p - lr * matmul(Q, m)
    old = Q
    Q = every(k, t, eigenbasis(S, Q), Q)
    m = every(k, t, matmul(matmul(transpose(Q), old), m), m)
    return p, m, Q, S


def both(p, g, t, Q=L, lr=0.1):
    """A word that takes a state before and after a pass writes it."""
    old = Q
    Q = 0.5 * Q + matmul(g, transpose(g))
    p = p - lr * matmul(matmul(Q, old), g)
    return p, Q


CROSSED = [exchanged, own_old, rotation]
"""No order of writing in place does: a pass copies one of the states from a temporary."""

FORMULAS = [
    *CROSSED,
    both,
    turning,
    handed_on,
    between,
    two_names,
    two_kept,
    also_summed,
    also_taken,
    handed_late,
    scaled,
]


@pytest.mark.parametrize("formula", FORMULAS, ids=lambda f: f.__name__)
def test_states_of_words_that_run_now_and_then(formula):
    check(formula, steps=8, signs=formula not in (turning, rotation))


def test_a_word_whose_state_a_pass_copies_runs_as_seldom_too():
    for formula in CROSSED:
        routines = [r for words in stage(rule_of(formula)).routines for r in words]
        assert any(r.repeats and r.out not in ("S", "Q", "m") for r in routines), formula


def test_a_word_reads_a_plain_state_rather_than_one_that_a_word_overwrites():
    def shared(p, g, t, D=L, E=State(shape="left"), k=2.0, lr=0.1):
        E = 0.5 * D + E
        D = every(k, t, matmul(g, transpose(g)), E)
        p = p - lr * matmul(D, matmul(E, g))
        return p, D, E

    routines = [r for words in stage(rule_of(shared)).routines for r in words]
    assert (("E", False), ("g", False)) in [r.arguments for r in routines]
    check(shared, steps=4)


def no_matrix(p, g, t, Q=L, k=2.0):
    Q = every(k, t, matmul(g, transpose(g)), 0)
    p = p - matmul(Q, g)
    return p, Q


def k_an_element(p, g, t, m=State()):
    m = every(p, t, newton_schulz(g, 5, 3.0, -3.0, 1.0, 1e-7, 64), 0.9 * m + g)
    p = p - m
    return p, m


def k_a_sum(p, g, t, m=State()):
    m = every(norm(g), t, newton_schulz(g, 5, 3.0, -3.0, 1.0, 1e-7, 64), 0.9 * m + g)
    p = p - m
    return p, m


def a_sum_for_a_root(p, g, t, Q=L, k=2.0):
    Q = every(k, t, inverse_root(matmul(g, transpose(g)), 4, norm(g)), Q)
    p = p - matmul(Q, g)
    return p, Q


def turned_between(p, g, t, Q=L, k=2.0):
    Q = every(k, t, matmul(g, transpose(g)), transpose(Q))
    p = p - matmul(Q, g)
    return p, Q


def turned_in_a_sum(p, g, Q=L):
    Q = Q + transpose(Q)
    p = p - matmul(Q, g)
    return p, Q


def turned_alone(p, g, Q=L):
    Q = transpose(Q)
    p = p - matmul(Q, g)
    return p, Q


WRONG = [
    (no_matrix, "the last two arguments of 'every' are matrices of one shape"),
    (k_an_element, "the k of 'every' is known before the step"),
    (k_a_sum, "the k of 'every' is known before the step"),
    (a_sum_for_a_root, "every number of 'inverse_root' is known before the step"),
    (turned_between, "'transpose' stands only inside another matrix word"),
    (turned_in_a_sum, "'transpose' stands only inside another matrix word"),
    (turned_alone, "'transpose' stands only inside another matrix word"),
]


@pytest.mark.parametrize(("formula", "says"), WRONG, ids=lambda x: getattr(x, "__name__", ""))
def test_what_cannot_be_done_is_refused_with_its_line(formula, says):
    assert line_refused(formula, says).startswith(("Q =", "m ="))
