"""The reader: what it accepts, and that every wrong formula gets an answer one can act on."""

import re
from pathlib import Path

import pytest

from descend import FormulaError
from descend.formula import Hyper, State, expression, rule_of
from descend.formula.nodes import text
from descend.formula.reader import read_expression
from descend.formula.vocabulary import abs, matmul, maximum, newton_schulz, norm, sqrt, where

lines = str.splitlines


def loop(p, g, lr=0.1):
    for _ in range(3):
        p = p - lr * g
    return p


def branch(p, g, lr=0.1):
    if g > 0:
        p = p - lr * g
    return p


def conditional(p, g, lr=0.1):
    p = p - lr if g > 0 else p
    return p


def unknown_name(p, g, lr=0.1):
    p = p - lrr * g  # noqa: F821
    return p


def unknown_word(p, g, lr=0.1):
    p = p - lr * sqr(g)  # noqa: F821
    return p


def attribute(p, g, lr=0.1):
    p = p - lr * g.sqrt()
    return p


def module_word(p, g, lr=0.1):
    import math

    p = p - lr * math.sqrt(g)
    return p


def no_return(p, g, lr=0.1):
    p = p - lr * g


def returns_expression(p, g, lr=0.1):
    return p - lr * g


def returns_twice(p, g, m, lr=0.1):
    m = m + g
    return p, m, m


def forgets_state(p, g, m, lr=0.1):
    p = p - lr * (m + g)
    return p


def forgets_parameter(g, m, lr=0.1):
    m = m + lr * g
    return m


def returns_stranger(p, g, lr=0.1):
    u = lr * g
    p = p - u
    return p, u


def assigns_step(p, g, t, lr=0.1):
    t = t + 1
    p = p - lr * g / t
    return p


def assigns_hyper(p, g, lr=0.1):
    lr = lr / 2
    p = p - lr * g
    return p


def assigns_word(p, g, lr=0.1):
    sqrt = g
    p = p - lr * sqrt
    return p


def two_targets(p, g, m, lr=0.1):
    p, m = p - lr * g, g
    return p, m


def chained_comparison(p, g, lr=0.1):
    p = where(0 < g < 1, p, p - lr * g)
    return p


def number_as_condition(p, g, lr=0.1):
    p = where(g, p, p - lr * g)
    return p


def condition_as_number(p, g, lr=0.1):
    p = p - lr * (g > 0)
    return p


def and_or(p, g, lr=0.1):
    p = where(g > 0 and p > 0, p, p - lr * g)
    return p


def negation(p, g, lr=0.1):
    p = where(not g > 0, p, p - lr * g)
    return p


def modulo(p, g, lr=0.1):
    p = p - lr * (g % 2)
    return p


def matrix_product(p, g, lr=0.1):
    p = p - lr * (g @ g)
    return p


def indexed(p, g, lr=0.1):
    p = p - lr * g[0]
    return p


def text_constant(p, g, lr=0.1):
    p = p - lr * "g"
    return p


def truth_constant(p, g, lr=0.1):
    p = p - lr * True
    return p


def from_torch(p, g, lr=0.1):
    p = p - lr * clamp(g, -1, 1)  # noqa: F821
    return p


def method_of_torch(p, g, lr=0.1):
    p = p - lr * g / g.std()
    return p


def shape_of_torch(p, g, lr=0.1):
    p = p - lr * matmul(g, matmul(g.T, g))
    return p


def larger_of_two(p, g, lr=0.1):
    p = p - lr * g / max(1, norm(g))
    return p


def arguments_of_matrix_word(p, g, lr=0.1):
    p = p - lr * newton_schulz(g)
    return p


def step_by_another_name(p, g, step, lr=0.1):
    p = p - lr / step * g
    return p


def wrong_arity(p, g, lr=0.1):
    p = p - lr * maximum(g)
    return p


def keyword(p, g, lr=0.1):
    p = p - lr * sqrt(x=g)
    return p


def bare_word(p, g, lr=0.1):
    p = p - lr * sqrt
    return p


def augmented(p, g, lr=0.1):
    p -= lr * g
    return p


def comprehension(p, g, lr=0.1):
    p = p - lr * sum([g for _ in range(2)])
    return p


def early_return(p, g, lr=0.1):
    return p
    p = p - lr * g
    return p


def too_large(p, g, lr=0.1):
    p = p - lr * 1e999
    return p


def membership(p, g, lr=0.1):
    p = where(g in p, p, g)
    return p


def scalar_from_element(p, g, s=State(scalar=True), lr=0.1):
    s = s + g
    p = p - lr * s
    return p, s


def default_text(p, g, lr="fast"):
    p = p - lr * g
    return p


def stars(p, g, *rest):
    p = p - g
    return p


def init_of_nothing(p, g, m=State(init="speed"), lr=0.1):
    m = m + g
    p = p - lr * m
    return p, m


WRONG = [
    (loop, "`for` is not part of a formula", "one element"),
    (branch, "`if` is not part of a formula", "where(condition, x, y)"),
    (conditional, "`x if condition else y` is not part of a formula", "where(condition, x, y)"),
    (unknown_name, "unknown name 'lrr' (did you mean 'lr'?)", "argument"),
    (unknown_word, "unknown word 'sqr' (did you mean 'sqrt'?)", "the words are"),
    (attribute, "write the word alone: sqrt", ""),
    (module_word, "`import` is not part of a formula", "at the top of the file"),
    (no_return, "the last line must return what changed: return p", ""),
    (returns_expression, "return names, as in: return p, m, v", ""),
    (returns_twice, "'m' is returned twice", ""),
    (forgets_state, "the state 'm' must be returned", ""),
    (forgets_parameter, "a rule must return p", ""),
    (returns_stranger, "'u' is returned but is neither p, g, u nor a state", ""),
    (assigns_step, "'t' is given to the formula", "cannot be assigned"),
    (assigns_hyper, "'lr' is given to the formula", "cannot be assigned; a state, which can, has no default"),
    (assigns_word, "'sqrt' is a word of the vocabulary", "cannot be assigned"),
    (two_targets, "assign to one plain name at a time", ""),
    (chained_comparison, "two comparisons", "where()"),
    (number_as_condition, "where() chooses by a comparison", "t == 1"),
    (condition_as_number, "a comparison is not a number", "where(condition, x, y)"),
    (and_or, "`and`, as `or`, is not part of a formula", "one where() inside another"),
    (negation, "turn the comparison round", ""),
    (modulo, "this operator is not part of a formula", "allowed are"),
    (matrix_product, "`@` is not part of a formula", "write matmul(x, y)"),
    (indexed, "an index is not part of a formula", "nothing has an index"),
    (text_constant, "'g' is not a number", ""),
    (truth_constant, "True is not a number", ""),
    (from_torch, "unknown word 'clamp'", "; write minimum(maximum(x, low), high)"),
    (method_of_torch, "no word is called 'std'", "; write sqrt(mean((x - mean(x))**2))"),
    (shape_of_torch, ".T is not part of a formula", "; write transpose(x)"),
    (larger_of_two, "write max(x)", "the larger of two is maximum(x, y)"),
    (arguments_of_matrix_word, "takes 7", "newton_schulz(x, steps, a, b, c, eps, bits)"),
    (step_by_another_name, "the state 'step' must be returned", "the step is the argument t"),
    (wrong_arity, "'maximum' takes 2 plain argument(s)", "maximum(x, y)"),
    (keyword, "'sqrt' takes 1 plain argument(s)", ""),
    (bare_word, "'sqrt' takes 1 argument(s)", ""),
    (augmented, "an assignment such as `+=` is not part of a formula", "p = p - "),
    (comprehension, "'listcomp' is not part of a formula", "allowed are"),
    (early_return, "only the last line returns", ""),
    (too_large, "the number is too large", ""),
    (membership, "compare with one of", "<"),
    (scalar_from_element, "is one number for a whole parameter", "differs by element"),
    (default_text, "the default of 'lr' is 'fast'", "give a number"),
    (stars, "write 'rest' as a plain argument", ""),
    (init_of_nothing, "starts at 'speed', no hyper-parameter", ""),
]


@pytest.mark.parametrize(("formula", "says", "advice"), WRONG, ids=[f.__name__ for f, _, _ in WRONG])
def test_a_wrong_formula_is_named_with_its_line_and_what_to_write(formula, says, advice):
    from descend.formula import stage

    with pytest.raises(FormulaError) as caught:
        stage(rule_of(formula))
    message = str(caught.value)
    assert says in message
    assert advice in message
    if "\n" in message:  # an error inside the formula points at its line
        where_, shown, caret = message.splitlines()[:3]
        number = int(re.search(r"test_reader\.py:(\d+):", where_).group(1))
        assert Path(__file__).read_text().splitlines()[number - 1].strip() == shown.strip()
        assert caret.strip() == "^"
    else:
        assert formula.__name__ in message


def test_a_right_formula_keeps_its_lines_and_names():
    def right(p, g, m=State("buffer", init="start"), lr=Hyper(0.1, "(0, 1]", "rate"), start=2.0):
        """A page."""
        m = m + abs(g)  # a comment
        u = m * 2
        p = p - lr * u
        return p, m

    rule = rule_of(right)
    assert rule.formula_text == "m = m + abs(g)  # a comment\nu = m * 2\np = p - lr * u"
    assert {name: text(n) for name, n in rule.outputs.items()} == {
        "m": "m + abs(g)",
        "p": "p - lr * ((m + abs(g)) * 2)",
    }
    assert sorted(rule.names.values()) == ["m", "p", "u"]
    assert rule.states[0].key == "buffer"
    assert rule.states[0].init == "start"
    assert rule.hyper("lr").high == 1.0
    with pytest.raises(Exception, match=r"no hyper-parameter 'lrr'.*did you mean 'lr'"):
        rule.hyper("lrr")


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        ("a - (b - c)", "a - (b - c)"),
        ("a - b - c", "a - b - c"),
        ("a / (b * c)", "a / (b * c)"),
        ("-a**2", "-a**2"),
        ("(-a)**2", "(-a)**2"),
        ("a**b**c", "a**b**c"),
        ("(a**b)**c", "(a**b)**c"),
        ("2**-a", "2**(-a)"),
        ("a * (b + c)", "a * (b + c)"),
        ("a / b / c * 0.5", "a / b / c * 0.5"),
        ("sqrt(a) + 3", "sqrt(a) + 3"),
    ],
)
def test_an_expression_prints_as_it_was_written(written, printed):
    assert text(read_expression(written)[0]) == printed
    assert read_expression(printed)[0] == read_expression(written)[0]


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("__import__('os').system('true')", "the words are|only words"),
        ("x.__class__", "is not part of a formula"),
        ("x if x > 0 else -x", "where"),
        ("[x]", "is not part of a formula"),
        ("x +", "is not an expression"),
        ("", "is not an expression"),
        ("x = 2", "is not an expression"),
        ("lambda: x", "is not part of a formula"),
    ],
)
def test_an_expression_is_never_run_as_python(written, says):
    with pytest.raises(FormulaError, match=says):
        read_expression(written)


def test_an_expression_is_a_function_of_its_names():
    import torch

    f = expression("where(y > 0, x**2, abs(x)) + 10*y**2")
    assert f.names == ["y", "x"]
    x = torch.tensor([3.0, -3.0], requires_grad=True)
    value = f(x=x, y=torch.tensor([1.0, 0.0]))
    assert value.tolist() == [19.0, 3.0]
    value.sum().backward()
    assert x.grad.tolist() == [6.0, -1.0]
    with pytest.raises(ValueError, match="is a function of y, x; given: x"):
        f(x=x)
    with pytest.raises(ValueError, match="has no variable"):
        expression("1 + 2")
