"""Lines of Python kept to a width, broken where formatters break them."""

from __future__ import annotations

from collections.abc import Iterator

WIDTH = 88
"""What formatters take where nobody says otherwise."""

_SEPARATORS = ((", ",), (" if ", " else "), (" + ", " - "), (" * ", " / "))


def laid_out(statement: str, indent: int) -> list[str]:
    """A statement on one line, or on as few as it needs.

    >>> for line in laid_out("p.sub_(" + " + ".join(["rate * u"] * 7) + ")", 8):
    ...     print(line.strip())
    p.sub_(
    rate * u + rate * u + rate * u + rate * u + rate * u + rate * u + rate * u
    )
    """
    space = " " * indent
    if len(space + statement) <= WIDTH or statement.startswith("#"):
        return [space + statement]
    target, equals, value = statement.partition(" = ")
    opened = _opened(statement)
    if equals and not statement.startswith("def ") and _split(value)[1] not in ("", ", "):
        opened = _last_opened(statement, value) or (f"{target} = (", value, ")")
    if opened is None:
        return [space + statement]
    head, body, tail = opened
    return [space + head, *_inside(body, indent + 4, head.endswith("[")), space + tail]


def _opened(code: str) -> tuple[str, str, str] | None:
    """A call, a list or a definition as what stands before, in and after its brackets; None of a sum."""
    ending = next((tail for tail in (")", "]", "):", "},", "}") if code.endswith(tail)), None)
    if code.startswith("def "):
        ending = code[code.rindex(") -> ") :]
    if ending is None:
        return None
    last = len(code) - len(ending)
    starts = [place for place, depth in _depths(code) if depth == 0 and code[place] in "(["]
    if not starts or any(starts[0] < place < last for place in _closed(code)):
        return None
    return code[: starts[0] + 1], code[starts[0] + 1 : last], ending


def _last_opened(statement: str, value: str) -> tuple[str, str, str] | None:
    """The brackets at the end of a sum or product of two, which are broken before others are put around."""
    parts, separator = _split(value)
    if len(parts) != 2 or separator == " if " or not value.endswith(")"):
        return None
    start = max(place for place, depth in _depths(statement) if depth == 0 and statement[place] == "(")
    return statement[: start + 1], statement[start + 1 : -1], ")"


def _closed(code: str) -> list[int]:
    """Where brackets close at the outermost level."""
    return [place for place, depth in _depths(code) if depth == 0 and code[place] in ")]"]


def _inside(body: str, indent: int, each: bool) -> list[str]:
    """What stands in brackets: on one line, or a line for each of its parts, as always in a list."""
    space = " " * indent
    if len(space + body) <= WIDTH and not each:
        return [space + body]
    parts, separator = _split(body)
    if separator == "":
        return laid_out(body, indent)
    lines: list[str] = []
    for part in parts:
        lines += laid_out(part, indent)
        lines[-1] += "," if separator == ", " else ""
    return lines


def _split(code: str) -> tuple[list[str], str]:
    """Code cut at its loosest operators outside brackets; later parts keep theirs in front."""
    outside = [place for place, depth in _depths(code) if depth == 0]
    for group in _SEPARATORS:
        found = [(place, s) for place in outside for s in group if code.startswith(s, place)]
        if found:
            parts, start = [], 0
            for place, separator in found:
                parts.append(code[start:place])
                start = place + (2 if separator == ", " else 1)
            return [*parts, code[start:]], group[0]
    return [code], ""


def _depths(code: str) -> Iterator[tuple[int, int]]:
    """Every place outside strings, and how many brackets stand around it; none of its own."""
    depth, quote = 0, ""
    for place, letter in enumerate(code):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        else:
            depth -= letter in ")]}"
            yield place, depth
            depth += letter in "([{"
