"""What to write instead, for what a formula does not have."""

from __future__ import annotations

import ast
import inspect

from . import vocabulary

INSTEAD: dict[type[ast.AST], tuple[str, str]] = {
    ast.If: ("`if`", "a formula has no branches: write name = where(condition, x, y)"),
    ast.IfExp: ("`x if condition else y`", "write where(condition, x, y)"),
    ast.For: ("`for`", "a formula has no loops: it says what happens to one element in one step"),
    ast.While: ("`while`", "a formula has no loops: it says what happens to one element in one step"),
    ast.BoolOp: ("`and`, as `or`,", "write one where() inside another"),
    ast.Subscript: ("an index", "a formula speaks of one element, so nothing has an index"),
    ast.Attribute: ("a dot", "write the word alone, sqrt(x) instead of torch.sqrt(x)"),
    ast.Import: ("`import`", "import at the top of the file, outside the formula"),
    ast.ImportFrom: ("`import`", "import at the top of the file, outside the formula"),
    ast.AugAssign: ("an assignment such as `+=`", "write it out, as in p = p - lr * g"),
    ast.Lambda: ("`lambda`", "write the expression in place"),
    ast.FunctionDef: ("a function", "write the expression in place"),
}
"""How a reader calls a part of Python, and what to write instead of it."""

_CLAMP = "minimum(maximum(x, low), high)"
_VARIANCE = "mean((x - mean(x))**2)"
_PRODUCT = "matmul(x, y), of whole matrices"
_SIZE = "rows * columns, both arguments of the formula"
_UNIFORM = "uniform(seed, t, k)"
_NORMAL = "normal(seed, t, k)"
_WRITTEN: dict[str, str] = {
    "clamp": _CLAMP,
    "clip": _CLAMP,
    "std": f"sqrt({_VARIANCE})",
    "var": _VARIANCE,
    "square": "x**2",
    "pow": "x**k",
    "rsqrt": "1 / sqrt(x)",
    "sigmoid": "1 / (1 + exp(-x))",
    "relu": "maximum(x, 0)",
    "min": "minimum(x, y) for the smaller of two, -max(-x) for the smallest of all elements",
    "amax": "max(x)",
    "dot": "sum(x * y)",
    "lerp": "x + weight * (y - x)",
    "numel": _SIZE,
    "size": _SIZE,
    "len": _SIZE,
    "shape": "rows and columns, both arguments of the formula",
    "zeros_like": "0",
    "ones_like": "1",
    "mm": _PRODUCT,
    "T": "transpose(x), inside another matrix word",
    "mT": "transpose(x), inside another matrix word",
    "rand": _UNIFORM,
    "rand_like": _UNIFORM,
    "randn": _NORMAL,
    "randn_like": _NORMAL,
}


def written_as(word: str) -> str:
    """What a formula writes for a word of torch or NumPy: "; write …", or "" where that is not known.

    >>> written_as("clamp")
    '; write minimum(maximum(x, low), high)'
    """
    return f"; write {_WRITTEN[word]}" if word in _WRITTEN else ""


def usage(word: str) -> str:
    """A word of the vocabulary with its arguments.

    >>> usage("inverse_root")
    'inverse_root(x, root, eps)'
    """
    return f"{word}({', '.join(inspect.signature(getattr(vocabulary, word)).parameters)})"
