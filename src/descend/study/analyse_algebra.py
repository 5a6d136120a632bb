"""A rule as algebra: its first step in closed form, and its stable range where it is linear.

torch brings SymPy; it is imported when first needed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..formula import Range, Rule, State
from ..formula.nodes import ARITHMETIC, COMPARISON, MATRIX, Node, text, walk
from .analyse_symmetry import change, feeds
from .analyse_trial import defaults, guards


class Underivable(Exception):
    """The formula has a part that algebra here does not follow; the message says which."""


class Algebra:
    """Turns nodes of a rule into SymPy, its hyper-parameters into symbols; those in `zero` are zero."""

    def __init__(self, rule: Rule, zero: Collection[str] = ()) -> None:
        import sympy

        self.sp, self.rule = sympy, rule
        self.hypers = defaults(rule)
        self.zero = set(zero) | {word for word, value in self.hypers.items() if value == 0}
        self.symbols: dict[str, Any] = {}
        for h in rule.hypers:
            positive = Range(h.sensible or h.allowed).low >= 0
            made = sympy.Symbol(f"A_{h.name}", positive=True) if positive else sympy.Symbol(h.name, real=True)
            self.symbols[h.name] = sympy.Integer(0) if h.name in self.zero else made
        self.norms: dict[Any, Node] = {}
        self.size = sympy.Symbol("Z_|g|", positive=True)
        self.side = sympy.Symbol("Z_sign(g)", real=True, nonzero=True)
        self.gradient = sympy.Symbol("Z_g", real=True)
        self._done: dict[Node, Any] = {}

    def at(self, values: Mapping[str, float]) -> dict[Any, float]:
        """The symbols' numbers, for `subs`."""
        return {self.symbols[w]: v for w, v in values.items() if w in self.symbols and w not in self.zero}

    def start(self, state: State) -> Any:
        """What a state starts at; which of the optimizer's parameters it is, is 0."""
        if isinstance(state.init, str):
            return self.symbols.get(state.init, self.sp.Integer(0))
        return self.sp.nsimplify(state.init)

    def read(self, n: Node) -> Any:
        """An expression; raises Underivable."""
        if n not in self._done:
            self._done[n] = self._read(n)
        return self._done[n]

    def _read(self, n: Node) -> Any:
        sp = self.sp
        if n.op == "const":
            return sp.Integer(int(n.number)) if n.number == int(n.number) else sp.Float(n.number)
        if n.op == "name":
            if n.word not in self.symbols:
                raise Underivable(f"it depends on {n.word}")
            return self.symbols[n.word]
        length = self._length(n)
        if length is not None:
            return length
        if n.op == "where":
            return self.read(n.args[1] if self.holds(n.args[0]) else n.args[2])
        if n.op in ("minimum", "maximum"):
            return self._bounded(n)
        if n.op in MATRIX or "_" in n.op or n.op in ("uniform", "normal", "key"):
            raise Underivable(f"it uses {text(n).split('(')[0]}(…)")
        given = [self.read(a) for a in n.args]
        if n.op in ARITHMETIC:
            return self.plain(_ARITHMETIC[n.op](*given))
        if n.op in ("sign", "abs"):
            side = self._side(given[0])
            return side if n.op == "sign" else self.plain(given[0] * side)
        return self.plain(-given[0] if n.op == "neg" else getattr(sp, n.op)(*given))

    def _side(self, x: Any) -> Any:
        """The sign of an expression: a number, or one that hangs on g's."""
        for factor in (self.sp.Integer(1), self.side):
            found = self._sign(self.plain(x * factor))
            if found is not None:
                return found * factor
        raise Underivable(f"the sign of {shown(x)} is not known")

    def plain(self, x: Any) -> Any:
        """An expression in which g's sign stands once: its square is 1."""
        sp, side = self.sp, self.side
        if not x.has(side):
            return x
        x = x.replace(
            lambda e: e.is_Pow and e.base == side and e.exp.is_Integer,
            lambda e: side if e.exp % 2 else sp.Integer(1),
        )
        return x.replace(lambda e: isinstance(e, sp.Abs) and e.has(side), self._unsigned)

    def _unsigned(self, e: Any) -> Any:
        inner = e.args[0]
        return self.sp.Abs(inner.subs(self.side, 1)) if (inner / self.side).has(self.side) is False else e

    def _length(self, n: Node) -> Any:
        """norm(x) and rms(x) as symbols: positive numbers that all elements share."""
        if n.op != "sqrt" or n.args[0].op not in ("sum_tensor", "mean_tensor"):
            return None
        inner = n.args[0].args[0]
        square = inner.op == "mul" and inner.args[0] == inner.args[1]
        square = square or (inner.op == "pow" and inner.args[1] == Node("const", (), 2.0))
        if not square:
            return None
        word = "norm" if n.args[0].op == "sum_tensor" else "rms"
        x = self.read(inner.args[0])
        made = self.sp.Symbol(f"{word}({shown(self.sp.simplify(x))})", positive=True)
        self.norms[made] = n
        return made

    def _bounded(self, n: Node) -> Any:
        x, y = (self.read(a) for a in n.args)
        if x == y:
            return x
        less = self._sign(x - y)
        if less is None:
            return self.sp.Min(x, y) if n.op == "minimum" else self.sp.Max(x, y)
        return x if (less <= 0) == (n.op == "minimum") else y

    def _sign(self, x: Any) -> int | None:
        for known in (x, self.sp.factor(x.subs(self.at(self.hypers)))):
            if known.is_zero:
                return 0
            if known.is_positive or known.is_negative:
                return 1 if known.is_positive else -1
        return None

    def holds(self, condition: Node) -> bool:
        """Whether a comparison holds, at the defaults where it speaks of hyper-parameters only."""
        assert condition.op in COMPARISON
        apart = self.read(condition.args[0]) - self.read(condition.args[1])
        found = self._sign(apart)
        if found is None and condition.op in ("eq", "ne"):
            return condition.op == "ne"  # what depends on g is not exactly zero
        if found is None:
            raise Underivable(f"it chooses by where({text(condition)}, …)")
        return {
            "lt": found < 0, "le": found <= 0, "gt": found > 0, "ge": found >= 0,
            "eq": found == 0, "ne": found != 0,
        }[condition.op]  # fmt: skip


_ARITHMETIC: dict[str, Any] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "pow": lambda x, y: x**y,
}


def shown(expression: Any) -> str:
    """An expression as a formula is written, rates first: `lr*g/(|g| + eps)`."""
    import sympy as sp

    expression = sp.sympify(expression)
    size, side, g = sp.Symbol("Z_|g|", positive=True), *_sides(sp)
    over, under = sp.fraction(expression)
    if over.could_extract_minus_sign() and any(a.is_negative for a in under.args if a.is_number):
        expression = sp.factor(-over) / -under
    expression = expression.replace(
        lambda e: e.is_Mul and size in e.args and side in e.args,
        lambda e: sp.Mul(*(a for a in e.args if a not in (size, side)), g),
    )
    written = sp.StrPrinter({"full_prec": False}).doprint(expression)
    written = re.sub(r"^-(\S+) \+ (\S+)$", r"\2 - \1", written)
    written = re.sub(r" - ([^()+-]*)\((\w+) - 1\)", r" + \1(1 - \2)", written)
    written = re.sub(r"\d+\.\d{6,}", lambda found: f"{float(found[0]):.6g}", written)
    return re.sub(r"\b[AZ]_", "", written)


def _sides(sp: Any) -> tuple[Any, Any]:
    return sp.Symbol("Z_sign(g)", real=True, nonzero=True), sp.Symbol("Z_g", real=True)


@dataclass(frozen=True)
class FirstStep:
    """What the first step takes from p, as a formula, and as another one for large g.

    `formula` or `limit` is empty where there is none that a person would want to read; `zero` names the
    hyper-parameters that are zero by default and left out. `values` is the step where p = 1 for gradients
    that were asked for; None where sums over the tensor stand in the formula.
    """

    formula: str
    limit: str
    zero: tuple[str, ...]
    values: Any


LONGEST = 84
"""Characters of a formula that a person would still read."""


def first_step(rule: Rule, gradients: Any) -> FirstStep:
    """The first step in closed form, and its value for each gradient where p = 1 throughout.

    Raises Underivable.
    """
    try:
        algebra, moved = _moved(rule, ())
        limit = _at_large(rule, algebra, moved)
        zero = tuple(sorted(word for word in algebra.zero if word in defaults(rule)))
        full, large = (_readable(algebra, x) for x in (moved, limit))
        values = _evaluated(algebra, moved, gradients)
        return FirstStep(full, "" if large == full else large, zero, values)
    except (ArithmeticError, AttributeError, NotImplementedError, TypeError, ValueError) as error:
        raise Underivable(f"SymPy does not follow it ({type(error).__name__})") from error


def _moved(rule: Rule, zero: Collection[str]) -> tuple[Algebra, Any]:
    """What the first step takes from p."""
    algebra = Algebra(rule, zero)
    sp = algebra.sp
    algebra.symbols |= {"g": algebra.size * algebra.side, "p": sp.Symbol("Z_p", real=True)}
    algebra.symbols["t"] = sp.Integer(1)
    for s in rule.states:
        if s.shape != "element":
            raise Underivable(f"{s.name} is shared by many elements")
        algebra.symbols[s.name] = algebra.start(s)
    parts = change(rule)
    if len(parts) > 1 and parts[-1] == Node("name", (), "p"):
        raise Underivable("p is not what it was less an update")
    moved = algebra.symbols["p"] - algebra.read(rule.outputs["p"])
    moved = sp.simplify(moved)
    if moved.has(sp.nan, sp.zoo):
        raise Underivable("it divides zero by zero")
    return algebra, algebra.plain(moved)


def _at_large(rule: Rule, algebra: Algebra, moved: Any) -> Any:
    """The first step where g is far above what guards its divisions; None where that is no simpler."""
    sp = algebra.sp
    if algebra.norms:
        try:
            return _moved(rule, guards(rule))[1]
        except Underivable:
            return None
    if moved.has(sp.Max, sp.Min):
        return None
    found = sp.limit(moved.subs(algebra.side, 1), algebra.size, sp.oo)
    if found.is_infinite or found.has(sp.oo, sp.nan) or not moved.has(algebra.side):
        return None
    weight = sp.limit(moved.subs(algebra.side, -1), algebra.size, sp.oo)
    even, odd = sp.simplify((found + weight) / 2), sp.simplify((found - weight) / 2)
    return even + odd * algebra.side


def _readable(algebra: Algebra, expression: Any) -> str:
    """An expression, with numbers for all but lr where it is long; empty where that is long, too."""
    if expression is None:
        return ""
    numbers = {x: value for x, value in algebra.at(algebra.hypers).items() if x.name != "A_lr"}
    for form in (expression, expression.subs(numbers)):
        written = shown(algebra.sp.factor_terms(form))
        if len(written) <= LONGEST:
            return written
    return ""


def _evaluated(algebra: Algebra, moved: Any, gradients: Any) -> Any:
    if algebra.norms:
        return None
    numbers = {**algebra.at(algebra.hypers), algebra.symbols["p"]: 1.0, algebra.side: 1}
    at = moved.subs(numbers)
    return np.array([float(at.subs(algebra.size, float(g))) for g in gradients])


@dataclass(frozen=True)
class Linear:
    """The stable range of a rule that is linear in p, g and its states.

    lr*h may go from 0 to `limit` at the default hyper-parameters, which is `formula` of them where a closed
    form was found. `changing` names scalar states that are taken at their start.
    """

    limit: float
    formula: str
    of_product: bool
    changing: tuple[str, ...]
    zero: tuple[str, ...]


def linear(rule: Rule) -> Linear:
    """The stable range on h/2 * p**2, from the spectral radius of the iteration.

    Raises Underivable where the rule is not linear, or not for a fixed reason.
    """
    algebra = Algebra(rule)
    sp = algebra.sp
    words = ["p", *(s.name for s in rule.states if not s.scalar and feeds(rule, s.name))]
    if rule.reduces:
        raise Underivable("it sums over tensors")
    scalars = [s for s in rule.states if s.scalar and feeds(rule, s.name)]
    for s in scalars:
        algebra.symbols[s.name] = algebra.start(s)
    variables = {word: sp.Symbol(f"Z_{word}", real=True) for word in [*words, "g"]}
    algebra.symbols |= variables
    t = algebra.symbols["t"] = sp.Symbol("t", positive=True, integer=True)
    algebra.hypers["t"] = 1e9
    rows = []
    for word in words:
        new = sp.expand(_late(sp, _linear(algebra, rule.outputs[word], variables), t))
        row = [new.coeff(variables[w]) for w in [*words, "g"]]
        rest = new - sum(c * variables[w] for c, w in zip(row, [*words, "g"], strict=True))
        if sp.simplify(rest) != 0 or any(set(variables.values()) & c.free_symbols for c in row):
            raise Underivable(f"{word} is not linear")
        rows.append(row)
    h, lr = sp.Symbol("h", positive=True), algebra.symbols.get("lr", sp.Integer(1))
    x = sp.Symbol("x", positive=True)
    matrix = sp.Matrix(rows)
    matrix = matrix[:, :-1] + matrix[:, -1] * sp.Matrix([[h] + [0] * (len(words) - 1)])
    matrix = matrix.subs(h, x / lr).applyfunc(sp.simplify)
    numbers = algebra.at(algebra.hypers)
    limit = _largest(sp.lambdify(x, matrix.subs(numbers), "numpy"))
    scaled = {symbol: 3 * v if symbol == lr else v for symbol, v in numbers.items()}
    of_product = abs(_largest(sp.lambdify(x, matrix.subs(scaled), "numpy")) - limit) < 1e-9 * limit
    formula = ""
    for edge in (-1, 1):
        for root in sp.solve((edge * sp.eye(len(words)) - matrix).det(), x):
            value = root.subs(numbers)
            if value.is_number and value.is_real and abs(float(value) - limit) < 1e-6 * limit:
                formula = formula or shown(sp.factor(root))
    zero = tuple(sorted(word for word in algebra.zero if word in defaults(rule)))
    changing = tuple(s.name for s in scalars if rule.outputs[s.name] != Node("name", (), s.name))
    return Linear(limit, formula, of_product, changing, zero)


def _linear(algebra: Algebra, n: Node, variables: Mapping[str, Any]) -> Any:
    for part in walk([n]):
        if part.op in ("minimum", "maximum", "abs", "sign", "sqrt", "floor", "tanh", "sin", "cos") and any(
            leaf.op == "name" and leaf.word in variables for leaf in walk([part])
        ):
            raise Underivable(f"it is not linear: it takes {part.op}(…)")
    return algebra.read(n)


def _late(sp: Any, expression: Any, t: Any) -> Any:
    """An expression after many steps: what is raised to the power of t has gone."""
    found = expression.replace(
        lambda e: e.is_Pow and e.exp.has(t) and not e.base.has(t), lambda e: sp.Integer(0)
    )
    if found.has(t):
        raise Underivable("its weights go on changing with t")
    return found


def _largest(matrix_at: Any) -> float:
    """The first lr*h at which the iteration stops to shrink, by bisection."""

    def shrinks(x: float) -> bool:
        found = np.atleast_2d(np.array(matrix_at(x), np.float64))
        return bool(np.max(np.abs(np.linalg.eigvals(found))) < 1)

    low, high = 1e-4, 1e-4
    if not shrinks(low):
        raise Underivable("it does not shrink even at a small rate")
    while shrinks(high):
        low, high = high, high * 1.1
        if high > 1e8:
            raise Underivable("no limit was found")
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if shrinks(middle) else (low, middle)
    return high
