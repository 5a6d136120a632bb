"""The algebra that staging is allowed: four identities, each of which loses fewer digits than it saves.

1. Scalar factors of a product are collected: lr * (m / c) is (lr / c) * m, and lr / c is computed on
   the host in float64; where every term of a sum has one already, lr * (a*x + b*y) is (lr*a)*x + (lr*b)*y.
   m * (1 / d) is m / d.
2. A weighted mean b*x + (1-b)*y is x + (1-b)*(y - x), written from the nearer end: the rounding of b to
   the element's precision no longer drifts (0.999 in float32 is wrong by 1.3e-8, every step).
3. a*b + c is one fused multiply-add, which rounds once.
4. p - a - b is p - (a + b): what changes p is summed first, so p, by far the largest, rounds once a step.

Powers with a small whole exponent become products. Nothing else is reordered.
"""

from __future__ import annotations

from collections.abc import Mapping

from .nodes import Node, const, is_matrix, is_random, is_reduction, name, node, scope

ONE = const(1)
MINUS_ONE = const(-1)


SIDES = {
    "element": ("rows", "columns"),
    "turned": ("columns", "rows"),
    "left": ("rows", "rows"),
    "right": ("columns", "columns"),
}
"""What the two sides of a matrix are as long as; "turned" is the transpose of one shaped like p."""


class ShapeError(ValueError):
    """Matrices in a formula that do not fit together; `node` is the operation on them."""

    def __init__(self, why: str, node: Node) -> None:
        super().__init__(why)
        self.node = node


def _matrix_domain(n: Node, given: list[str]) -> str:
    """The domain of a matrix word, from those of its arguments."""
    op = n.op
    matrices = 2 if op in ("matmul", "eigenbasis") else 1
    whole = given[2:] if op == "every" else given[:matrices]
    if op == "every" and (len({*whole}) > 1 or whole[0] not in SIDES):
        raise ShapeError(
            "the last two arguments of 'every' are matrices of one shape; zeros like Q are 0 * Q", n
        )
    wrong = [x for x in whole if x not in SIDES]
    if wrong or any(x != "scalar" for x in given[matrices:] if op != "every"):
        raise ShapeError(f"{op!r} takes {len(whole)} whole matrices first, then numbers", n)
    if op == "transpose":
        return {"element": "turned", "turned": "element"}.get(whole[0], whole[0])
    if op in ("inverse_root", "eigenbasis") and (whole[0] not in ("left", "right") or len({*whole}) > 1):
        raise ShapeError(f'{op!r} takes square matrices, State(shape="left") or "right", not one like p', n)
    if op != "matmul":
        return whole[0]
    (height, inner), (other, width) = SIDES[whole[0]], SIDES[whole[1]]
    if inner != other:
        raise ShapeError(
            f"'matmul' of a matrix with {inner} on the right with one with {other} on the left", n
        )
    return next(domain for domain, sides in SIDES.items() if sides == (height, width))


class Rewriter:
    """Rewrites the expressions of a rule.

    `domains` says of each name that is no scalar whether it is one number an "element", one of the "rows" or
    "columns" of a matrix, or one of the square matrices of its rows ("left") or columns ("right"). The nodes
    in `whole` stay nodes of their own, so that a later pass can read them from memory; those in `shared` are
    wanted by more than one other. `start` is the name that stands for p in the fourth identity.
    """

    def __init__(
        self,
        domains: Mapping[str, str],
        whole: frozenset[Node] = frozenset(),
        shared: frozenset[Node] = frozenset(),
        start: str = "p",
    ) -> None:
        self.domains = domains
        self.whole = whole
        self.shared = shared
        self.start = name(start)
        self._domain: dict[Node, str] = {}
        self._done: dict[Node, Node] = {}
        self._kept: set[Node] = set()

    def domain(self, n: Node) -> str:
        """What a node is one number of: a domain as above, or "scalar" (of the host).

        Raises ShapeError where matrices do not fit.
        """
        if n not in self._domain:
            if n.op == "name":
                found = self.domains.get(n.word, "scalar")
            elif is_reduction(n):
                found = self._reduced(n)
            elif is_random(n):
                found = "element"
            elif is_matrix(n):
                found = _matrix_domain(n, [self.domain(a) for a in n.args])
            else:
                inside = {self.domain(a) for a in n.args} - {"scalar"}
                if len(inside) > 1 and inside & {"left", "right", "turned"}:
                    raise ShapeError(
                        f"{n.op!r} mixes matrices of different shapes; matmul(x, y) multiplies them", n
                    )
                found = "element" if len(inside) > 1 else inside.pop() if inside else "scalar"
            self._domain[n] = found
        return self._domain[n]

    def _reduced(self, n: Node) -> str:
        """What a sum is one number of, for what can be summed so."""
        over, inside = scope(n), self.domain(n.args[0])
        if over not in ("rows", "columns"):
            return "scalar"
        if over not in SIDES.get(inside, (over,)):
            raise ShapeError(f"this matrix is {' x '.join(SIDES[inside])}; it has no sums by {over}", n)
        return over

    def is_element(self, n: Node) -> bool:
        """Whether a node differs within a tensor (else it is a scalar of the host)."""
        return self.domain(n) != "scalar"

    def __call__(self, n: Node) -> Node:
        """The rewritten node; scalars stay as they are written."""
        if not self.is_element(n) or not n.args or is_reduction(n) or is_matrix(n):
            return n
        if n not in self._done:
            self._done[n] = self._rewrite(n)
            if n in self.shared:
                self._kept.add(self._done[n])
        return self._done[n]

    def _rewrite(self, n: Node) -> Node:
        if n.op in ("mul", "div", "neg"):
            return self._product(*self._factors(n, inside=True))
        if n.op in ("add", "sub"):
            return self._sum(n)
        if n.op == "pow":
            return self._power(n)
        return node(n.op, *(self(a) for a in n.args))

    def _factors(self, n: Node, inside: bool = False) -> tuple[Node, Node | None]:
        """A product as (scalar factor, element factor); the element factor of a scalar is None.

        A product that several want and that spreads over a sum stays one for all of them.
        """
        scalar, element = self._collected(n, inside)
        if (
            not inside
            and n in self.shared
            and element is not None
            and self._spread(scalar, element)[0] != scalar
        ):
            return ONE, self(n)
        return scalar, element

    def _collected(self, n: Node, inside: bool = False) -> tuple[Node, Node | None]:
        """The factors as they stand."""
        if not self.is_element(n):
            return n, None
        if n in self.whole and not inside:
            return ONE, self(n)
        if n.op == "neg":
            scalar, element = self._factors(n.args[0])
            return _negative(scalar), element
        if n.op not in ("mul", "div"):
            return ONE, self(n)
        (s, x), (r, y) = map(self._spread_factors, n.args)
        if n.op == "mul":
            return _times(s, r), x if y is None else y if x is None else self._product_of(x, y)
        return _over(s, r), x if y is None else node("div", x or ONE, y)

    def _spread_factors(self, n: Node) -> tuple[Node, Node | None]:
        scalar, element = self._factors(n)
        return (scalar, element) if element is None else self._spread(scalar, element)

    def _spread(self, scalar: Node, element: Node) -> tuple[Node, Node]:
        """Where every term of a sum that nobody else wants has a scalar factor, the sum's own joins those."""
        terms = [element]
        while terms[-1].op == "fma":
            terms.append(terms[-1].args[2])
        scaled = all(t.op in ("fma", "mul") and not self.is_element(t.args[0]) for t in terms)
        if len(terms) < 2 or not scaled or element in self._kept or scalar in (ONE, MINUS_ONE):
            return scalar, element
        total: tuple[Node, ...] = ()
        for term in reversed(terms):
            total = (node(term.op, _times(scalar, term.args[0]), term.args[1], *total),)
        return ONE, total[0]

    def _product(self, scalar: Node, element: Node | None) -> Node:
        if element is None:
            return scalar
        scalar, element = self._spread(scalar, element)
        if element.op == "div" and element.args[0] == ONE:
            return node("div", scalar, element.args[1])
        if scalar == ONE:
            return element
        if scalar == MINUS_ONE:
            return node("neg", element)
        return node("mul", scalar, element)

    def _product_of(self, x: Node, y: Node) -> Node:
        """x * y; a reciprocal becomes a division, but one by row or column is made once for all elements."""
        for factor, other in ((x, y), (y, x)):
            if (
                factor.op == "div"
                and factor.args[0] == ONE
                and self.domain(factor) in ("element", self.domain(other))
            ):
                return node("div", other, factor.args[1])
        return node("mul", x, y)

    def _sum(self, n: Node) -> Node:
        n = self._changes_first(n)
        (s, x), (r, y) = map(self._collected, n.args)
        if n.op == "add" and x is not None and y is not None:
            for (keep, start), (share, end) in (((s, x), (r, y)), ((r, y), (s, x))):
                rest = _divided(share, node("sub", ONE, keep))
                if rest is not None:
                    return self._mean(start, self._product(rest, end), node("sub", ONE, keep))
        (s, x), (r, y) = map(self._factors, n.args)
        if n.op == "sub":
            r = _negative(r)
        left, right = (s, x), (r, y)
        for (scale, element), other in ((left, right), (right, left)):
            if element is not None and scale not in (ONE, MINUS_ONE):
                if element.op == "div" and element.args[0] == ONE:
                    continue
                return node("fma", scale, element, self._product(*other))
        for (scale, element), other in ((left, right), (right, left)):
            if element is not None and element.op == "mul":
                a, b = element.args
                return node("fma", a if scale == ONE else node("neg", a), b, self._product(*other))
        if r == MINUS_ONE and y is not None:
            return node("sub", self._product(*left), y)
        if s == MINUS_ONE and x is not None:
            return node("sub", self._product(*right), x)
        return node("add", self._product(*left), self._product(*right))

    def _mean(self, start: Node, end: Node, weight: Node) -> Node:
        near = node("lt", weight, const(0.5))
        change = node("where", near, weight, node("sub", weight, ONE))
        apart = node("fma", *end.args, node("neg", start)) if end.op == "mul" else node("sub", end, start)
        return node("fma", change, apart, node("where", near, start, end))

    def _changes_first(self, n: Node) -> Node:
        """p - a + b … as p + (b - a …); any other sum as it is."""
        changes: list[tuple[str, Node]] = []
        left = n
        while left.op in ("add", "sub") and (left is n or left not in self.whole):
            changes.append((left.op, left.args[1]))
            left = left.args[0]
        if left != self.start or len(changes) < 2:
            return n
        op, total = changes.pop()
        for other, change in reversed(changes):
            total = node("add" if other == op else "sub", total, change)
        return node(op, left, total)

    def _power(self, n: Node) -> Node:
        base, exponent = self(n.args[0]), n.args[1]
        if exponent.op != "const":
            return node("pow", base, self(exponent))
        k = exponent.number
        if k in (2, 3, 4):
            square = node("mul", base, base)
            return {2: square, 3: node("mul", square, base), 4: node("mul", square, square)}[int(k)]
        if k == 0.5:
            return node("sqrt", base)
        if k in (-1, -2):
            return node("div", ONE, base if k == -1 else node("mul", base, base))
        return ONE if k == 0 else base if k == 1 else node("pow", base, exponent)


def _negative(scalar: Node) -> Node:
    if scalar.op == "const":
        return const(-scalar.number)
    return scalar.args[0] if scalar.op == "neg" else node("neg", scalar)


def _times(a: Node, b: Node) -> Node:
    if a == ONE:
        return b
    if b == ONE:
        return a
    if b.op == "div" and b.args[0] == ONE:
        return node("div", a, b.args[1])
    return node("mul", a, b)


def _divided(product: Node, factor: Node) -> Node | None:
    """What is left of a product without one of its factors, or None where it is no factor."""
    if product == factor:
        return ONE
    if product.op == "mul":
        for one, other in (product.args, product.args[::-1]):
            rest = _divided(one, factor)
            if rest is not None:
                return _times(rest, other)
    return None


def _over(a: Node, b: Node) -> Node:
    return a if b == ONE else node("div", a, b)
