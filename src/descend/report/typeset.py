"""A formula's lines as MathML: read with Python's own reader, set as a paper sets them."""

from __future__ import annotations

import ast
import html

_GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "eps": "ε", "epsilon": "ε", "eta": "η",
    "kappa": "κ", "lambda": "λ", "mu": "μ", "nu": "ν", "phi": "φ", "psi": "ψ", "rho": "ρ", "sigma": "σ",
    "tau": "τ", "theta": "θ", "xi": "ξ", "zeta": "ζ", "omega": "ω", "pi": "π", "chi": "χ",
}  # fmt: skip
_ACCENTS = {"hat": "^", "bar": "¯", "tilde": "~"}
_COMPARE = {ast.Lt: "<", ast.LtE: "≤", ast.Gt: ">", ast.GtE: "≥", ast.Eq: "=", ast.NotEq: "≠"}
_SUM, _PRODUCT, _UNARY, _POWER, _ATOM = range(1, 6)


def lines(text: str) -> str:
    """The formula as HTML, line by line but for what it returns; what cannot be set stands as written."""
    shown = [
        _line(line)
        for line in text.strip().splitlines()
        if line.strip() and not line.strip().startswith("return")
    ]
    return "\n".join(f'<div class="formula-line">{line}</div>' for line in shown)


def _line(line: str) -> str:
    code, _, comment = line.partition("#")
    note = f' <span class="formula-note">{html.escape(comment.strip())}</span>' if comment.strip() else ""
    if not code.strip():
        return note
    try:
        (statement,) = ast.parse(code.strip()).body
        return f'<math display="block">{_statement(statement)}</math>{note}'
    except (SyntaxError, ValueError):
        return f"<code>{html.escape(code.strip())}</code>{note}"


def _statement(node: ast.stmt) -> str:
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        return f"<mrow>{_set(node.targets[0])[0]}<mo>←</mo>{_set(node.value)[0]}</mrow>"
    raise ValueError("not a line of a formula")


def _set(node: ast.expr) -> tuple[str, int]:
    """(MathML, how tightly it binds)."""
    if isinstance(node, ast.Name):
        return _name(node.id), _ATOM
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return f"<mn>{html.escape(repr(node.value))}</mn>", _ATOM
    if isinstance(node, ast.Constant) and node.value in ("rows", "columns"):
        return f"<mtext>{node.value}</mtext>", _ATOM
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return f"<mrow><mo>−</mo>{_at_least(node.operand, _UNARY)}</mrow>", _UNARY
    if isinstance(node, ast.BinOp):
        return _binary(node)
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARE:
        sign = html.escape(_COMPARE[type(node.ops[0])])
        return f"<mrow>{_set(node.left)[0]}<mo>{sign}</mo>{_set(node.comparators[0])[0]}</mrow>", 0
    if isinstance(node, ast.Tuple):
        return "<mrow>" + "<mo>,</mo>".join(_set(each)[0] for each in node.elts) + "</mrow>", 0
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        return _call(node.func.id, [_set(each)[0] for each in node.args])
    raise ValueError("not an expression of a formula")


def _binary(node: ast.BinOp) -> tuple[str, int]:
    if isinstance(node.op, ast.Div):
        return f"<mfrac><mrow>{_set(node.left)[0]}</mrow><mrow>{_set(node.right)[0]}</mrow></mfrac>", _PRODUCT
    if isinstance(node.op, ast.Pow):
        base, power = _at_least(node.left, _ATOM), f"<mrow>{_set(node.right)[0]}</mrow>"
        if base.startswith("<msub>"):
            return f"<msubsup>{base[len('<msub>') : -len('</msub>')]}{power}</msubsup>", _POWER
        return f"<msup>{base}{power}</msup>", _POWER
    if isinstance(node.op, ast.Mult):
        left, right = _at_least(node.left, _PRODUCT), _at_least(node.right, _PRODUCT)
        dot = "<mo>·</mo>" if isinstance(node.right, ast.Constant) else '<mspace width="0.17em"/>'
        return f"<mrow>{left}{dot}{right}</mrow>", _PRODUCT
    if isinstance(node.op, (ast.Add, ast.Sub)):
        sign, least = ("+", _SUM) if isinstance(node.op, ast.Add) else ("−", _PRODUCT)
        return f"<mrow>{_at_least(node.left, _SUM)}<mo>{sign}</mo>{_at_least(node.right, least)}</mrow>", _SUM
    raise ValueError("not an operator of a formula")


def _at_least(node: ast.expr, tightness: int) -> str:
    text, binds = _set(node)
    return text if binds >= tightness else f"<mrow><mo>(</mo>{text}<mo>)</mo></mrow>"


def _call(name: str, arguments: list[str]) -> tuple[str, int]:
    if name == "sqrt" and len(arguments) == 1:
        return f"<msqrt>{arguments[0]}</msqrt>", _ATOM
    if name == "abs" and len(arguments) == 1:
        return f'<mrow><mo stretchy="false">|</mo>{arguments[0]}<mo stretchy="false">|</mo></mrow>', _ATOM
    if name == "norm" and len(arguments) == 1:
        return f'<mrow><mo stretchy="false">‖</mo>{arguments[0]}<mo stretchy="false">‖</mo></mrow>', _ATOM
    if name == "exp" and len(arguments) == 1:
        return f"<msup><mi>e</mi><mrow>{arguments[0]}</mrow></msup>", _POWER
    shown = {"maximum": "max", "minimum": "min"}.get(name, name)
    called = html.escape(shown.replace("_", " "))
    inside = "<mo>,</mo>".join(arguments)
    return f'<mrow><mi mathvariant="normal">{called}</mi><mo>(</mo>{inside}<mo>)</mo></mrow>', _ATOM


def _name(name: str) -> str:
    base, _, tail = name.partition("_")
    if tail in _ACCENTS:
        return f'<mover accent="true">{_symbol(base)}<mo>{_ACCENTS[tail]}</mo></mover>'
    stem = base.rstrip("0123456789")
    digits = base[len(stem) :]
    if stem and digits and (stem in _GREEK or len(stem) == 1):
        below = f"<mn>{digits}</mn>" + (f"<mi>{html.escape(tail)}</mi>" if tail else "")
        return f"<msub>{_symbol(stem)}<mrow>{below}</mrow></msub>"
    if tail and (base in _GREEK or len(base) == 1):
        return (
            f'<msub>{_symbol(base)}<mi mathvariant="normal">{html.escape(tail.replace("_", " "))}</mi></msub>'
        )
    return _symbol(name)


def _symbol(name: str) -> str:
    if name in _GREEK:
        return f"<mi>{_GREEK[name]}</mi>"
    return f"<mi>{html.escape(name.replace('_', ' '))}</mi>"
