"""The random numbers of formula/chance.py as LLVM instructions on vectors of elements."""

from __future__ import annotations

from ...formula import chance
from .emit import Lanes, Lines

_LOG = (
    0.070376836292,
    -0.11514610310,
    0.11676998740,
    -0.12420140846,
    0.14249322787,
    -0.16668057665,
    0.20000714765,
    -0.24999993993,
    0.33333331174,
)
"""log(1 + f) = f - f**2/2 + f**3 * this in f, for 1 + f from sqrt(1/2) to sqrt(2): Cephes, logf."""

_LN2 = (0.693359375, -2.12194440e-4)
"""log(2) as a short number, whose products with exponents are exact, and the rest."""

_SINE = (-14.394135475, 42.009807587, -76.704284668, 81.605224609, -41.341701508, 6.2831854820)
"""sin(2*pi*z) = z * this in z**2, for z from -1/4 to 1/4: fitted at Chebyshev's places, to 2.7e-11."""


def uniform(out: Lines, lanes: Lanes, key: str, stream: int, place: str, note: str = "") -> str:
    """`chance.fractions` under a key (i64) for the elements from a place (i64)."""
    ints = f"<{lanes.width} x i32>"

    def spread(value: str) -> str:
        return lanes.splat(out, value, "i32")

    def do(op: str, x: str, y: str) -> str:
        return out.emit(f"{op} {ints} {x}, {y}")

    def all_(number: int) -> str:
        return f"<{', '.join([f'i32 {number}'] * lanes.width)}>"

    apart = stream * chance.WEYL & 0xFFFFFFFF
    low = spread(out.emit(f"xor i32 {out.emit(f'trunc i64 {key} to i32')}, {apart}"))
    high = out.emit(f"trunc i64 {out.emit(f'lshr i64 {key}, 32')} to i32")
    high = spread(out.emit(f"add i32 {high}, {apart}"))
    first = spread(out.emit(f"trunc i64 {place} to i32"))
    x = do("add", first, f"<{', '.join(f'i32 {k}' for k in range(lanes.width))}>")
    over = out.emit(f"icmp ult {ints} {x}, {first}")  # the next 2**32 elements begin among the lanes
    block = spread(out.emit(f"trunc i64 {out.emit(f'lshr i64 {place}, 32')} to i32"))
    block = do("add", block, out.emit(f"zext {lanes.truth} {over} to {ints}"))
    x = do("xor", do("xor", x, low), do("mul", block, all_(chance.WEYL)))
    for number, (shift, factor) in enumerate(chance.ROUNDS):
        x = do("xor", x, do("lshr", x, all_(shift)))
        x = do("add", x, high) if number == 1 else x
        x = do("mul", x, all_(factor))
    x = do("xor", x, do("lshr", x, all_(chance.LAST)))
    x = out.emit(f"uitofp {ints} {do('lshr', x, all_(chance.UNUSED))} to {lanes.vector}")
    x = out.emit(f"fadd {lanes.vector} {x}, {lanes.constant(0.5)}")
    return out.emit(f"fmul {lanes.vector} {x}, {lanes.constant(2.0 ** (chance.UNUSED - 32))}", note)


def normal(out: Lines, lanes: Lanes, key: str, place: str, note: str = "") -> str:
    """`chance.gaussian` under a key for the elements from a place; in float32 without calls of a library."""
    first, second = (uniform(out, lanes, key, stream, place) for stream in chance.PAIR)
    if lanes.precision == "float64":
        logarithm = lanes.operation(out, "log", [first])
        turn = lanes.operation(out, "mul", [lanes.constant(chance.TURN), second])
        cosine = lanes.operation(out, "cos", [turn])
    else:
        logarithm, cosine = _logarithm(out, lanes, first), _cosine(out, lanes, second)
    square = lanes.operation(out, "mul", [lanes.constant(-2), logarithm])
    return lanes.operation(out, "mul", [lanes.operation(out, "sqrt", [square]), cosine], note)


def _polynomial(out: Lines, lanes: Lanes, x: str, numbers: tuple[float, ...]) -> str:
    value = lanes.constant(numbers[0])
    for number in numbers[1:]:
        value = lanes.operation(out, "fma", [value, x, lanes.constant(number)])
    return value


def _logarithm(out: Lines, lanes: Lanes, x: str) -> str:
    """Of float32 numbers in (0, 1), none of them denormal."""
    ints, half = f"<{lanes.width} x i32>", lanes.constant(-0.5)

    def all_(number: int) -> str:
        return f"<{', '.join([f'i32 {number}'] * lanes.width)}>"

    bits = out.emit(f"bitcast {lanes.vector} {x} to {ints}")
    above = out.emit(f"sub {ints} {bits}, {all_(0x3F3504F3)}")  # sqrt(1/2)
    power = out.emit(f"ashr {ints} {above}, {all_(23)}")
    rest = out.emit(f"sub {ints} {bits}, {out.emit(f'shl {ints} {power}, {all_(23)}')}")
    f = lanes.operation(out, "sub", [out.emit(f"bitcast {ints} {rest} to {lanes.vector}"), lanes.constant(1)])
    e = out.emit(f"sitofp {ints} {power} to {lanes.vector}")
    square = lanes.operation(out, "mul", [f, f])
    y = lanes.operation(
        out, "mul", [lanes.operation(out, "mul", [square, f]), _polynomial(out, lanes, f, _LOG)]
    )
    y = lanes.operation(out, "fma", [e, lanes.constant(_LN2[1]), y])
    y = lanes.operation(out, "fma", [half, square, y])
    return lanes.operation(out, "fma", [e, lanes.constant(_LN2[0]), lanes.operation(out, "add", [f, y])])


def _cosine(out: Lines, lanes: Lanes, x: str) -> str:
    """cos(2*pi*x) for x in (0, 1): minus the sine of what x lies from the nearer of 1/4 and 3/4."""
    middle = lanes.operation(out, "abs", [lanes.operation(out, "sub", [x, lanes.constant(0.5)])])
    z = lanes.operation(out, "sub", [middle, lanes.constant(0.25)])  # exact, as the line before
    sine = _polynomial(out, lanes, lanes.operation(out, "mul", [z, z]), _SINE)
    return lanes.operation(out, "mul", [z, sine])
