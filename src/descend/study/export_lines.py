"""The lines of a formula as a careful person writes them in torch: states in place, scalars as floats."""

from __future__ import annotations

import ast
import re
from collections import Counter
from dataclasses import replace

from ..errors import UsageError
from ..formula import Formula, Range, Rule
from ..formula.vocabulary import MATRIX
from .export_layout import laid_out
from .export_pieces import (
    REDUCTIONS,
    Piece,
    binary,
    condition_of,
    inside,
    joined_kind,
    negative,
    refined,
    tensor,
)
from .export_trees import OPERATORS, complement, factors, is_call, is_name, product, terms, total

_OWN = frozenset({"torch", "math", "Any", "Callable", "Tensor"})
"""What the file itself calls by name."""

_SAFE = {"sqrt": 0.0, "log": 5e-324}
"""The smallest argument at which Python's own function does not raise."""


class Lines:
    """Writes the body of `update` for a rule.

    `body` are the lines, `joins` how each sum over all tensors is joined ("sum" or "_maximum"), in order.
    A sum that `repeated` counts more than once gets a name; `counts` is for the next writing.
    """

    def __init__(self, rule: Rule, repeated: Counter[str]) -> None:
        self.rule = rule
        self.repeated = repeated
        self.counts: Counter[str] = Counter()
        self._sums: dict[str, Piece] = {}
        self._changed: Counter[str] = Counter()
        self.body: list[str] = []
        self.joins: list[str] = []
        scalars = {s.name for s in rule.states if s.scalar}
        self.tensors = {"p", *(s.name for s in rule.states if not s.scalar)}
        self.optional = {s.name for s in rule.states if s.limit}
        self.known: dict[str, Piece] = {word: tensor(word) for word in [*self.tensors, "g"]}
        self.known |= {word: replace(self.known[word], optional=True) for word in self.optional}
        self.known |= {word: Piece(word, 9, "float") for word in scalars}
        self.known["t"] = Piece("t", 9, "float", 1.0, 2.0**53)
        self.known |= {word: Piece(word, 9, "float", 1.0, 2.0**53) for word in rule.shape_words}
        self._numbers = {h.name for h in rule.hypers}
        for h in rule.hypers:
            allowed = Range(h.sensible or h.allowed)
            ends = inside(allowed.low, allowed.high, allowed.written[0] == "[", allowed.written[-1] == "]")
            self.known[h.name] = Piece(h.name, 9, "float", *ends)
        self.arguments = frozenset(self.known)
        self._part: dict[str, str] = {}
        self._changes: str | None = None
        self._moved = False
        self._totals: dict[str, Piece] = {}
        self._write()

    @property
    def along(self) -> bool:
        """Whether it sums along rows or columns of every parameter."""
        return any("_along(" in line and not line.startswith(" ") for line in self.body)

    def text(self) -> list[str]:
        """The body, indented."""
        found: list[str] = []
        for line in self.body:
            found += laid_out(line.lstrip(), 4 + len(line) - len(line.lstrip()))
        return found

    # -- parts of a chain -----------------------------------------------------------------------------

    def _write(self) -> None:
        formulas = self.rule.formulas
        after = [k for k, formula in enumerate(formulas) if formula.takes_update]
        main = next((k for k, formula in enumerate(formulas) if formula.place == "rule"), 0)
        self._taken = self.arguments | _OWN | ({"u"} if after else set())
        for k, formula in enumerate(formulas):
            if len(formulas) > 1:
                self.body.append(f"# {formula.name}")
            start, self._sums = len(self.body), {}
            self._formula(formula, apart=k == main and bool(after))
            if formula.masks:
                conditions = " and ".join(condition_of(mask) for mask in formula.masks)
                inner = [f"    {line}" for line in self.body[start:]]
                self.body[start:] = [f"if {conditions}:", *inner]
                self._sums = {}
            if after and k == after[-1]:
                self.body.append(f"p.sub_({self._changes})")
                self._changes = None

    def _formula(self, formula: Formula, apart: bool) -> None:
        """The lines of one part; `apart`: its update is kept apart from p, for the parts after it."""
        called = dict(formula.called)
        own = {called.get(word, word) for word in formula.arguments}
        definition = ast.parse(formula.reading.source.text).body[0]
        assert isinstance(definition, ast.FunctionDef)
        statements = [s for s in definition.body if isinstance(s, ast.Assign)]
        targets = [s.targets[0].id for s in statements if isinstance(s.targets[0], ast.Name)]
        self._part = dict(called)
        for word in targets:
            if word in formula.arguments:
                continue
            if word in self._taken - own:
                self._part[word] = f"{word}_{formula.name}"
            elif word in ("l", "O", "I"):
                self._part[word] = f"{word}_"  # linters take it for a digit
        last_p = max((k for k, word in enumerate(targets) if word == "p"), default=-1)
        self._moved = False
        for k, (target, statement) in enumerate(zip(targets, statements, strict=True)):
            self._totals = {}
            if target == "p" and apart and k == last_p:
                self._update(statement.value)
            else:
                self._assign(target, statement.value)

    def _name(self, word: str) -> str:
        return self._part.get(word, word)

    # -- statements -----------------------------------------------------------------------------------

    def _assign(self, target: str, value: ast.expr) -> None:
        word = self._name(target)
        if word == "p" and self._changes is not None:
            raise UsageError(f"{self.rule.name} cannot be exported: a part after its rule changes p itself")
        if word in self.tensors:
            conditions = [f"{word} is not None"] if word in self.optional else []
            if isinstance(value, ast.Call) and is_call(value, "every") and self._refers(value.args[3], word):
                k, t, value, _ = value.args
                conditions.append(self._due(k, t))
            line = self._in_place(word, value)
            self.body += [f"if {' and '.join(conditions)}:", f"    {line}"] if conditions else [line]
            self._changed[word] += 1
            return
        piece = self.piece(value)
        if word == "u" and self._changes is not None:
            word = self._changes
        if piece.text != word:
            text = f"{piece.at(9)}.clone()" if piece.alias else piece.text
            if self.body and self.body[-1].startswith(f"{text} = yield "):
                self.body[-1] = self.body[-1].replace(text, word, 1)
            else:
                self.body.append(f"{word} = {text}")
        self._changed[word] += 1
        self.known[word] = replace(piece, text=word, level=9, alias=False)

    def _update(self, value: ast.expr) -> None:
        """`p = base - update`: base in place, the update under a name."""
        if not (isinstance(value, ast.BinOp) and isinstance(value.op, ast.Sub)):
            value = ast.BinOp(ast.Name("p"), ast.Sub(), ast.BinOp(ast.Name("p"), ast.Sub(), value))
        if not is_name(value.left, "p"):
            self.body.append(self._in_place("p", value.left))
        word = "u" if "u" not in self.arguments else "update_of_p"
        self.body.append(f"{word} = {self.piece(value.right).text}")
        self.known["u"] = tensor(word, alias=False)
        self._changes = word

    def _in_place(self, word: str, value: ast.expr) -> str:
        """A new value of a tensor that is kept."""
        parts = terms(value)
        first = parts[0][1]
        if self._refers(first, word) and len(parts) > 1:
            change = self.piece(total(parts[1:]))
            return f"{word}.{'add_' if parts[1][0] == '+' else 'sub_'}({change.text})"
        mean = self._mean(value)
        if mean is not None and mean[0].text == word:
            return f"{word}.lerp_({mean[1].text}, {mean[2].text})"
        if len(parts) == 2 and parts[1][0] == "+":
            for one, other in ((first, parts[1][1]), (parts[1][1], first)):
                kept = factors(one)
                if len(kept) == 2 and not self._mentions(other, word):
                    scale, start = sorted(kept, key=lambda part: self._refers(part, word))
                    if self._refers(start, word) and self.piece(scale).is_float:
                        return f"{word}.mul_({self.piece(scale).text}).add_({self.piece(other).text})"
        piece = self.piece(value)
        return f"{word}.fill_({piece.text})" if piece.is_float else f"{word}.copy_({piece.text})"

    def _refers(self, at: ast.expr, word: str) -> bool:
        return isinstance(at, ast.Name) and self._name(at.id) == word

    def _mentions(self, at: ast.expr, word: str) -> bool:
        return any(self._refers(part, word) for part in ast.walk(at) if isinstance(part, ast.expr))

    # -- expressions ----------------------------------------------------------------------------------

    def piece(self, at: ast.expr) -> Piece:
        """The Python of an expression."""
        if isinstance(at, ast.Constant):
            number = float(at.value)  # type: ignore[arg-type]
            return Piece(repr(at.value), 9, "float", number, number)
        if isinstance(at, ast.Name):
            return self._named(at.id)
        if isinstance(at, ast.UnaryOp):
            x = self.piece(at.operand)
            return negative(x) if isinstance(at.op, ast.USub) else x
        if isinstance(at, ast.Compare):
            x, y = self.piece(at.left), self.piece(at.comparators[0])
            return Piece(f"{x.at(2)} {OPERATORS[type(at.ops[0])]} {y.at(2)}", 1, joined_kind(x, y))
        if isinstance(at, ast.BinOp):
            mean = self._mean(at)
            if mean is not None:
                start, end, weight = (piece.text for piece in mean)
                return Piece(f"torch.lerp({start}, {end}, {weight})", 9, "tensor")
            return binary(OPERATORS[type(at.op)], self.piece(at.left), self.piece(at.right))
        assert isinstance(at, ast.Call)
        assert isinstance(at.func, ast.Name)
        return self._call(at.func.id, at.args)

    def _named(self, word: str) -> Piece:
        word = self._name(word)
        if word == "p" and self._changes is not None:
            if not self._moved:
                self.body.append(f"moved = p - {self._changes}")
                self._moved = True
            return tensor("moved", alias=False)
        return self.known[word]

    def _mean(self, at: ast.expr) -> tuple[Piece, Piece, Piece] | None:
        """A weighted mean w*x + (1 - w)*y as its start, its end and the weight of the end."""
        parts = terms(at)
        if len(parts) != 2 or parts[1][0] != "+":
            return None
        for one, other in ((parts[0][1], parts[1][1]), (parts[1][1], parts[0][1])):
            kept, shared = factors(one), factors(other)
            for keep in kept:
                for share in shared:
                    if not (complement(keep, share) or complement(share, keep)):
                        continue
                    start = product([part for part in kept if part is not keep])
                    end = product([part for part in shared if part is not share])
                    if start is None or end is None:
                        continue
                    found = self.piece(start), self.piece(end), self.piece(share)
                    if [piece.kind for piece in found] == ["tensor", "tensor", "float"]:
                        return found
        return None

    def _call(self, word: str, given: list[ast.expr]) -> Piece:
        if word == "where":
            return self._where(given)
        if word in ("minimum", "maximum"):
            return self._bounded(word, given)
        if word in REDUCTIONS:
            over = given[1].value if len(given) > 1 and isinstance(given[1], ast.Constant) else "tensor"
            return self._reduced(word, self.piece(given[0]), str(over))
        if word in MATRIX:
            return self._matrix(word, given)
        if word not in ("sqrt", "abs", "sign", "exp", "log", "tanh", "sin", "cos", "floor"):
            raise UsageError(f"{self.rule.name} cannot be exported: it uses the word {word!r}")
        x = self.piece(given[0])
        if not x.is_float:
            return Piece(f"{'_sign' if word == 'sign' else f'torch.{word}'}({x.text})", 9, x.kind)
        if word == "abs":
            return Piece(f"abs({x.text})", 9, "float", 0.0)
        if word == "sign":
            return Piece(f"_sign_of({x.text})", 9, "float", -1.0, 1.0)
        if word == "floor":
            return Piece(f"float(math.floor({x.text}))", 9, "float")
        safe = x.high < 709 if word == "exp" else x.low >= _SAFE.get(word, x.low)
        low = 0.0 if word in ("sqrt", "exp") else float("-inf")
        if word == "sqrt" and safe:
            return Piece(f"math.sqrt({x.text})", 9, "float", x.low**0.5, x.high**0.5)
        return Piece(f"{'math.' if safe else '_'}{word}({x.text})", 9, "float", low)

    def _matrix(self, word: str, given: list[ast.expr]) -> Piece:
        """A word for whole matrices; of what may be left out, a function that knows of it."""
        pieces = [self.piece(a) for a in given]
        optional = any(piece.optional for piece in pieces)
        if word == "every":
            made, old = pieces[2:]
            text = f"{made.at(1)} if {self._due(*given[:2])} else {old.at(0)}"
            return Piece(text, 0, "tensor", optional=optional, alias=made.alias or old.alias)
        if word == "transpose":
            text = f"_turned({pieces[0].text})" if optional else f"{pieces[0].at(9)}.mT"
            return Piece(text, 9, "tensor", optional=optional)
        if word == "matmul":
            x, y = pieces
            if optional:
                both = x.optional and y.optional
                return Piece(f"_product({x.text}, {y.text})", 9, "tensor", optional=both)
            return Piece(f"{x.at(3)} @ {y.at(4)}", 3, "tensor")
        return Piece(f"_{word}({', '.join(piece.text for piece in pieces)})", 9, "tensor", optional=optional)

    def _due(self, k: ast.expr, t: ast.expr) -> str:
        """Whether this is a step in which `every` takes what is new."""
        return f"({self.piece(t).text} - 1) % {self.piece(k).at(4)} == 0"

    def _where(self, given: list[ast.expr]) -> Piece:
        test = given[0]
        condition = self.piece(test)
        assert isinstance(test, ast.Compare)
        if condition.is_float:
            left, right = self.piece(test.left), self.piece(test.comparators[0])
            kept, op = self.known, OPERATORS[type(test.ops[0])]
            self.known = refined(kept, left, op, right, True)
            x = self.piece(given[1])
            self.known = refined(kept, left, op, right, False)
            y = self.piece(given[2])
            self.known = kept
            kind = joined_kind(x, y)
            x, y = (self._filled(one, other, kind) for one, other in ((x, given[2]), (y, given[1])))
            low, high = min(x.low, y.low), max(x.high, y.high)
            text = f"{x.at(1)} if {condition.text} else {y.at(0)}"
            return Piece(text, 0, kind, low, high, alias=x.alias or y.alias)
        x, y = self.piece(given[1]), self.piece(given[2])
        if x.is_float and y.is_float:
            like = self._example(test, condition.kind)
            x = Piece(f"{like}.new_tensor({x.text})", 9, "number")
        kind = joined_kind(condition, x, y)
        return Piece(f"torch.where({condition.text}, {x.text}, {y.text})", 9, kind)

    def _filled(self, x: Piece, other: ast.expr, kind: str) -> Piece:
        """A branch as a tensor, where the other branch is one."""
        if kind != "tensor" or not x.is_float:
            return x
        like = self._example(other, kind)
        zero = x.low == x.high == 0
        return Piece(f"torch.zeros_like({like})" if zero else f"torch.full_like({like}, {x.text})", 9, kind)

    def _example(self, at: ast.expr, kind: str) -> str:
        """A tensor of the kind that stands in an expression."""
        names = [part.id for part in ast.walk(at) if isinstance(part, ast.Name)]
        found = [self.known[self._name(w)] for w in names if self._name(w) in self.known]
        return next((piece.text for piece in found if piece.kind == kind), "g")

    def _bounded(self, word: str, given: list[ast.expr]) -> Piece:
        inner, outer = given[0], self.piece(given[1])
        if word == "minimum" and is_call(inner, "maximum") and outer.is_float:
            assert isinstance(inner, ast.Call)
            x, low = map(self.piece, inner.args)
            if not x.is_float and low.is_float:
                return Piece(f"torch.clamp({x.text}, {low.text}, {outer.text})", 9, x.kind)
        x, y = self.piece(given[0]), outer
        if x.is_float and y.is_float:
            choose = max if word == "maximum" else min
            ends = choose(x.low, y.low), choose(x.high, y.high)
            if x.text in self._numbers or x.low == x.high:
                x, y = y, x  # Python's min and max keep a NaN only in front
            return Piece(f"{choose.__name__}({x.text}, {y.text})", 9, "float", *ends)
        if x.is_float or y.is_float:
            x, y = (y, x) if x.is_float else (x, y)
            end = "min" if word == "maximum" else "max"
            return Piece(f"torch.clamp({x.text}, {end}={y.text})", 9, x.kind)
        return Piece(f"torch.{word}({x.text}, {y.text})", 9, joined_kind(x, y))

    def _reduced(self, word: str, x: Piece, over: str) -> Piece:
        if x.is_float:
            raise UsageError(f"{self.rule.name} cannot be exported: {word}({x.text}) is of a single number")
        if over in ("rows", "columns"):
            dim = -1 if over == "rows" else -2
            return self._once(Piece(f"{REDUCTIONS[word]}_along({x.text}, {dim})", 9, "tensor"))
        if not word.startswith("global"):
            return self._once(Piece(f"{REDUCTIONS[word]}({x.text})", 9, "number"))
        if word == "global_norm":
            return Piece(f"math.sqrt({self._everywhere(f'_norm({x.text}) ** 2').text})", 9, "float", 0.0)
        total = self._everywhere(f"{REDUCTIONS[word]}({x.text})", "max" in word)
        if word != "global_mean":
            return total
        return binary("/", total, self._everywhere(f"{x.at(9)}.numel()"))

    def _once(self, piece: Piece) -> Piece:
        """A sum; under a name where the lines need it several times before what is summed changes."""
        words = re.findall(r"[A-Za-z_]\w*", piece.text)
        key = " ".join([piece.text, *(f"{word}:{self._changed[word]}" for word in words)])
        self.counts[key] += 1
        if self.repeated[key] < 2:
            return piece
        if key not in self._sums:
            simple = re.fullmatch(r"_(\w+)\((\w+)(, -[12])?\)", piece.text)
            word = f"{simple[1]}_{simple[2]}" if simple else f"sum_{len(self._sums) + 1}"
            while word in self._taken or word in self.known:
                word += "_"
            self.body.append(f"{word} = {piece.text}")
            self._sums[key] = self.known[word] = replace(piece, text=word)
        return self._sums[key]

    def _everywhere(self, text: str, largest: bool = False) -> Piece:
        """What all tensors give, joined: the generator stops here and is told."""
        if text in self._totals:
            return self._totals[text]
        self.joins.append("_maximum" if largest else "sum")
        word = f"total_{len(self.joins)}"
        self.body.append(f"{word} = yield {text}")
        self._totals[text] = Piece(word, 9, "float")
        return self._totals[text]


def lines_of(rule: Rule) -> Lines:
    """The body of `update`, with a name for every sum that it needs twice."""
    return Lines(rule, Lines(rule, Counter()).counts)
