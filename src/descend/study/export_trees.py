"""The shapes that exported lines look for in a formula's syntax tree: sums, products, weighted means."""

from __future__ import annotations

import ast

OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**",
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
}  # fmt: skip


def is_name(at: ast.expr, word: str) -> bool:
    """Whether an expression is a name."""
    return isinstance(at, ast.Name) and at.id == word


def is_call(at: ast.expr, word: str) -> bool:
    """Whether an expression is a call of a word."""
    return isinstance(at, ast.Call) and is_name(at.func, word)


def terms(at: ast.expr) -> list[tuple[str, ast.expr]]:
    """A sum as its terms with their signs; the first has none."""
    if isinstance(at, ast.BinOp) and isinstance(at.op, (ast.Add, ast.Sub)):
        return [*terms(at.left), (OPERATORS[type(at.op)], at.right)]
    return [("+", at)]


def total(parts: list[tuple[str, ast.expr]]) -> ast.expr:
    """Terms as one expression; the sign of the first is left to the caller."""
    (sign, joined), *rest = parts
    for other, term in rest:
        joined = ast.BinOp(joined, ast.Add() if other == sign else ast.Sub(), term)
    return joined


def factors(at: ast.expr) -> list[ast.expr]:
    """A product as its factors."""
    if isinstance(at, ast.BinOp) and isinstance(at.op, ast.Mult):
        return [*factors(at.left), *factors(at.right)]
    return [at]


def product(parts: list[ast.expr]) -> ast.expr | None:
    """The product of some factors; None of none."""
    made: ast.expr | None = None
    for part in parts:
        made = part if made is None else ast.BinOp(made, ast.Mult(), part)
    return made


def complement(one: ast.expr, other: ast.expr) -> bool:
    """Whether `other` is 1 - `one`."""
    return (
        isinstance(other, ast.BinOp)
        and isinstance(other.op, ast.Sub)
        and isinstance(other.left, ast.Constant)
        and other.left.value == 1
        and ast.dump(other.right) == ast.dump(one)
    )
