"""The first pass's scalars as a compiled function, which finds the bits that Python finds.

Powers and exponentials are the C library's, called as Python calls them: left to itself, LLVM puts others in
their place that differ in the last digit.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

from ...formula import chance
from ...formula.nodes import Node, name, text
from ...formula.scalars import ScalarProgram, below
from .compiler import announce, compile_function
from .emit import Lanes, Lines

FUNCTIONS = ("pow", "exp", "log", "tanh", "sin", "cos", "fmod")

_ROUND = """
; one round of splitmix64 over the bits of a number
define internal i64 @mixed(i64 %mixed, double %number) {
  %plain = fadd double %number, 0.0
  %bits = bitcast double %plain to i64
  %a = xor i64 %mixed, %bits
  %b = add i64 %a, GOLDEN
  %c = lshr i64 %b, SHIFT0
  %d = xor i64 %b, %c
  %e = mul i64 %d, FACTOR0
  %f = lshr i64 %e, SHIFT1
  %g = xor i64 %e, %f
  %h = mul i64 %g, FACTOR1
  %i = lshr i64 %h, 31
  %j = xor i64 %h, %i
  ret i64 %j
}
"""
_ROUND = _ROUND.replace("GOLDEN", str(chance.GOLDEN))
for _k, (_shift, _factor) in enumerate(chance.MIX):
    _ROUND = _ROUND.replace(f"SHIFT{_k}", str(_shift)).replace(f"FACTOR{_k}", str(_factor))


def render(program: ScalarProgram) -> str:
    """A module with `first(arguments, row, states)`: the scalars with the bits that Python finds for them.

    Not 0 where Python would have raised an error, and NumPy computed them after that.
    """
    out, one = Lines([], {}), Lanes("float64", 1)
    values: dict[Node, str] = {}
    for k, word in enumerate(program.arguments):
        values[name(word)] = out.load(one.vector, "%arguments", k, word)
    order = [n for n in below(program.roots, values) if n.args]
    for n in order:
        values[n] = _operation(out, one, n, [one.value(a, values) for a in n.args])
    guards = _guards(out, one, program, values)
    odd = "zeroinitializer"
    for n in order:
        raises = None
        if n.op == "div":
            raises = out.emit(f"fcmp ueq {one.vector} {one.value(n.args[1], values)}, zeroinitializer")
        elif n.op in (*FUNCTIONS, "mod", "sqrt", "floor"):  # all of them where they give no finite number
            none = one.operation(out, "sub", [values[n], values[n]])
            raises = out.emit(f"fcmp uno {one.vector} {none}, {none}")
        if raises:
            odd = out.emit(f"or {one.truth} {odd}, {out.emit(f'and {one.truth} {raises}, {guards[n]}')}")
    for to, nodes in (("row", program.row), ("states", (*program.states.values(),))):
        for k, n in enumerate(nodes):
            found = one.value(n, values)
            if n.is_condition:
                found = out.emit(f"uitofp {one.truth} {found} to {one.vector}")
            out.do(f"store {one.vector} {found}, ptr {out.at('double', f'%{to}', k)}")
    answer = out.emit(f"zext {one.truth} {odd} to <1 x i64>")
    result = out.emit(f"extractelement <1 x i64> {answer}, i64 0")
    two = ("pow", "fmod")
    declared = [f"declare double @{f}(double{', double' if f in two else ''})" for f in FUNCTIONS]
    head = "define i64 @first(ptr %arguments, ptr %row, ptr %states) {"
    body = "\n".join([head, *out.lines, f"  ret i64 {result}", "}"])
    return "\n".join([_ROUND, body, *declared, *out.declared.values(), "attributes #0 = { nobuiltin }", ""])


def _operation(out: Lines, one: Lanes, n: Node, given: list[str]) -> str:
    if n.op not in ("key", "mod", *FUNCTIONS):
        return one.operation(out, n.op, given, text(n))
    plain = [out.emit(f"extractelement {one.vector} {x}, i64 0") for x in given]
    if n.op == "key":
        mixed = "0"
        for number in plain:
            mixed = out.emit(f"call i64 @mixed(i64 {mixed}, double {number})")
        made = out.emit(f"uitofp i64 {out.emit(f'lshr i64 {mixed}, 11')} to double", text(n))
    else:
        listed = ", ".join(f"double {number}" for number in plain)
        made = out.emit(f"call double @{'fmod' if n.op == 'mod' else n.op}({listed}) #0", text(n))
    return out.emit(f"insertelement {one.vector} poison, double {made}, i64 0")


def _guards(out: Lines, one: Lanes, program: ScalarProgram, values: dict[Node, str]) -> dict[Node, str]:
    """Whether Python comes to compute every node: of a `where` it computes but one side.

    What is used more than once it computes first, wherever it stands.
    """
    guards: dict[Node, str] = {}

    def visit(n: Node, guard: str) -> None:
        if not n.args:
            return
        guards[n] = guard
        sides = [guard] * len(n.args)
        if n.op == "where":
            chosen = one.value(n.args[0], values)
            other = out.emit(f"xor {one.truth} {chosen}, <i1 true>")
            sides[1:] = [out.emit(f"and {one.truth} {guard}, {x}") for x in (chosen, other)]
        for a, side in zip(n.args, sides, strict=True):
            if a not in program.shared:
                visit(a, side)

    for n in [*program.roots, *program.shared]:
        visit(n, "<i1 true>")
    return guards


@cache
def compiled(program: ScalarProgram) -> int | None:
    """The address of `first(arguments, row, states)`; None where the C library's functions are not found."""
    return compile_function(render(program), "first") if _announced() else None


@cache
def _announced() -> bool:
    if sys.platform == "win32":  # whose Python has its functions from a library of its own
        return False
    library = ctypes.CDLL(None)
    try:
        announce({word: getattr(library, word) for word in FUNCTIONS})
    except AttributeError:
        return False
    return True
