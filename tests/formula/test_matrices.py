"""Words for whole matrices: where they run, what lies in memory for them, and what is refused."""

import pytest
import torch
from matrix_checks import check, described, line_refused

import descend
from descend import rules
from descend.errors import FormulaError
from descend.formula import State, rule_of, stage
from descend.formula.vocabulary import (
    eigenbasis,
    every,
    inverse_root,
    matmul,
    newton_schulz,
    norm,
    sum,
    transpose,
)

L = State(shape="left")
R = State(shape="right")


def test_muon_is_two_passes_with_the_iterations_between_them():
    program = stage(rules.get("muon"))
    assert described(program) == ["element: m u", "o <- newton_schulz(u)", "element: p"]
    assert set(program.temporaries) == {"u", "o"}
    assert program.bytes_moved == 4 + 3


def test_shampoo_s_squares_are_passes_of_their_own_and_need_no_copies():
    program = stage(rules.get("shampoo"))
    assert described(program) == [
        "w_1 <- matmul(g, g)",
        "w_3 <- matmul(g, g)",
        "left: L",
        "right: R",
        "L_root <- inverse_root(L)",
        "R_root <- inverse_root(R)",
        "w_2 <- matmul(L_root, g)",
        "w_4 <- matmul(w_2, R_root)",
        "element: p",
    ]


def test_a_state_is_overwritten_when_nothing_needs_its_old_value_and_bases_are_made_together():
    program = stage(rules.get("soap"))
    order = described(program)
    expected = [
        *("w_2 <- matmul(Q_L, w_8)", "w_3 <- matmul(w_2, Q_R)"),
        *("w_5 <- matmul(Q_L, m)", "m_back <- matmul(w_5, Q_R)"),
        *("Q_L <- eigenbasis(L, Q_L)", "Q_R <- eigenbasis(R, Q_R)"),
        *("element: p", "w_6 <- matmul(Q_L, m_back)", "m <- matmul(w_6, Q_R)"),
    ]
    assert order[order.index("element: v m w_8") + 1 :] == expected


def test_what_only_repeated_words_take_is_made_as_seldom():
    routines = [r for words in stage(rules.get("soap")).routines for r in words]
    seldom = [r.out for r in routines if r.repeats]
    assert seldom == ["w_5", "m_back", "Q_L", "Q_R", "w_6", "m"]
    assert {str(r.numbers.row[-1].word) for r in routines if r.repeats} == {"precondition_frequency"}


def test_a_word_of_an_old_value_is_not_put_off():
    def early(p, g, t, L=L, Q=L, lr=0.1):
        Q = every(1, t, eigenbasis(L, Q), Q)
        L = L + matmul(g, transpose(g))
        p = p - lr * matmul(matmul(L, g), matmul(transpose(g), matmul(L, g)))
        return p, L, Q

    order = described(stage(rule_of(early)))
    assert order.index("Q <- eigenbasis(L, Q)") < order.index("left: L")


def test_a_pass_waits_for_a_word_that_takes_the_old_state():
    def late(p, g, m, lr=0.1):
        o = matmul(matmul(m, transpose(g)), g)
        m = m + g
        p = p - lr * (o + m)
        return p, m

    order = described(stage(rule_of(late)))
    assert next(line for line in order if "matmul" in line).endswith("(m, g)")
    writing = next(k for k, line in enumerate(order) if line == "element: p m" or line.endswith(" m"))
    assert writing > next(k for k, line in enumerate(order) if "(m, g)" in line)
    check(late, steps=3)


def test_what_a_word_made_can_be_summed():
    def grafted(p, g, lr=0.1):
        o = newton_schulz(g, 5, 1.5, -0.5, 0, 1e-7, 64)
        p = p - lr * norm(g) / norm(o) * o
        return p

    check(grafted, steps=2)


def mixed(p, g, L=L):
    L = L + g
    p = p - g
    return p, L


def other_side(p, g, L=L):
    L = matmul(transpose(g), g)
    p = p - g
    return p, L


def both_sides(p, g, L=L, R=R):
    L = L + R
    p = p - g
    return p, L, R


def inner(p, g, lr=0.1):
    p = p - lr * matmul(g, g)
    return p


def turned(p, g, lr=0.1):
    p = p - lr * transpose(g)
    return p


def outside(p, g, lr=0.1):
    p = p - lr * matmul(transpose(g) + 1, matmul(g, transpose(g)))
    return p


def not_square(p, g, lr=0.1):
    p = p - lr * inverse_root(g, 2, 1e-6)
    return p


def a_number(p, g, lr=0.1):
    p = p - lr * matmul(lr, g)
    return p


def not_kept(p, g, t, L=L, k=10.0):
    L = L + matmul(g, transpose(g))
    p = p - matmul(every(k, t, inverse_root(L, 4, 1e-6), L), g)
    return p, L


def no_step(p, g, t, L=L, Q=L, k=10.0):
    L = L + matmul(g, transpose(g))
    Q = every(k, k, eigenbasis(L, Q), Q)
    p = p - matmul(Q, g)
    return p, L, Q


def no_word(p, g, t, L=L, k=10.0):
    L = every(k, t, L + 1, L)
    p = p - matmul(L, g)
    return p, L


def old_and_new(p, g, t, L=L, Q=L, k=10.0):
    L = L + matmul(g, transpose(g))
    x = matmul(Q, g)
    Q = every(k, t, eigenbasis(L, Q), Q)
    p = p - matmul(transpose(Q), matmul(Q, x))
    return p, L, Q


def per_element(p, g, m=State(shape="rows"), lr=0.1):
    m = matmul(g, transpose(g))
    p = p - lr * g
    return p, m


WRONG = [
    (mixed, "mixes matrices of different shapes"),
    (other_side, "columns x columns"),
    (both_sides, "different shapes"),
    (inner, "'matmul' of a matrix with columns on the right with one with rows on the left"),
    (turned, "mixes matrices of different shapes"),
    (outside, "transposed|different shapes"),
    (not_square, "square"),
    (a_number, "2 whole matrices"),
    (not_kept, "kept in a state"),
    (no_step, "every.k, t"),
    (no_word, "repeats a matrix word"),
    (per_element, "'m' is"),
]


@pytest.mark.parametrize(("formula", "says"), WRONG, ids=lambda x: getattr(x, "__name__", ""))
def test_matrices_that_do_not_fit_are_refused(formula, says):
    line = line_refused(formula, says)
    assert any(word in line for word in ("matmul", "L + ", "every", "transpose", "inverse_root")), line


def no_such_side(p, g, L=L, lr=0.1):
    L = L + matmul(g, transpose(g))
    p = p - lr * sum(L, "columns") * g
    return p, L


def test_a_square_matrix_has_no_sums_along_the_other_side():
    assert "p = p - lr" in line_refused(no_such_side, "rows x rows; it has no sums by columns")


def squares_of_a_side(p, g, L=L, R=R, lr=0.1):
    L = L + matmul(g, transpose(g))
    R = R + matmul(transpose(g), g)
    p = p - lr * g * sum(L**2, "rows") / (1 + norm(R, "columns"))
    return p, L, R


def test_a_square_matrix_is_summed_along_its_own_side():
    check(squares_of_a_side, 3)


def test_a_matrix_rule_for_a_vector_needs_another_rule():
    def half(p, g, lr=0.1):
        p = p - lr * newton_schulz(g, 5, 1.5, -0.5, 0, 1e-7, 32)
        return p

    w = torch.zeros(3, requires_grad=True)
    w.grad = torch.ones(3)
    with pytest.raises(descend.UsageError, match="otherwise"):
        descend.optimizer(half)([w]).step()


def test_words_have_their_number_of_arguments():
    def short(p, g):
        p = p - matmul(g)
        return p

    with pytest.raises(FormulaError, match="'matmul' takes 2"):
        stage(rule_of(short))


def test_the_old_and_the_new_basis_side_by_side():
    """`x` needs the old basis, the products after it the new one."""
    order = described(stage(rule_of(old_and_new)))
    renewed = next(k for k, line in enumerate(order) if line.startswith("Q <-"))
    assert any("(Q, g)" in line for line in order[:renewed])
    assert any(line.startswith("w") and "Q" in line for line in order[renewed + 1 :])
