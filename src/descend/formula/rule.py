"""An update rule as data: its formula, its hyper-parameters with their ranges, its states, its source.

    @rule(title="Momentum", source="Polyak 1964, ...")
    def momentum(p, g, b=State("momentum_buffer"), lr=Hyper(1e-3, "[0, inf)", "learning rate"), ...):
        b = momentum * b + g
        p = p - lr * b
        return p, b

`p`, `g` and `t` are the parameter, its gradient and the step (from 1), `rows` and `columns` the shape of the
matrix. An argument without a default is a state that starts at zero; one with a number is a hyper-parameter.
A modifier is a formula that changes `g` or `p` for the rule after it, or `u`, the update that the rule before
it subtracts from p.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

from ..errors import FormulaError, UsageError, nearest
from .declared import Hyper, State
from .masks import Mask
from .nodes import Node, is_matrix, is_reduction, substitute, walk
from .reader import Reading, read_function

GIVEN = ("p", "g", "t", "u", "rows", "columns")


@dataclass(frozen=True, eq=False)
class Formula:
    """One formula as it was written, with its arguments sorted into states and hyper-parameters."""

    name: str
    function: Callable[..., Any]
    states: tuple[State, ...]
    hypers: tuple[Hyper, ...]
    masks: tuple[Mask, ...] = ()
    """To which parameters it applies; see `only`."""
    called: tuple[tuple[str, str], ...] = ()
    """What states and hyper-parameters are called in its source, and what here; see `renamed`."""
    otherwise: tuple[Formula, ...] = ()
    """What stands in its place for a parameter of fewer than two dimensions, where it works on matrices."""

    @staticmethod
    def of(function: Callable[..., Any]) -> Formula:
        """Sort the arguments of a formula; FormulaError where one cannot be understood."""
        states: list[State] = []
        hypers: list[Hyper] = []
        for word, argument in inspect.signature(function).parameters.items():
            default = argument.default
            if word in GIVEN and default is argument.empty:
                continue
            if argument.kind is not argument.POSITIONAL_OR_KEYWORD:
                raise FormulaError(f"{function.__name__}: write {word!r} as a plain argument")
            if default is argument.empty:
                states.append(State(word, name=word))
            elif isinstance(default, State):
                states.append(replace(default, key=default.key or word, name=word))
            elif isinstance(default, Hyper):
                hypers.append(replace(default, name=word))
            elif isinstance(default, (int, float)) and not isinstance(default, bool):
                hypers.append(Hyper(float(default), name=word))
            else:
                raise FormulaError(
                    f"{function.__name__}: the default of {word!r} is {default!r}; give a number, "
                    "Hyper(…) or State(…), or none for a state that starts at zero"
                )
        formula = Formula(function.__name__, function, tuple(states), tuple(hypers))
        for state in states:
            for word in filter(None, (state.block, state.limit)):
                if word not in {h.name for h in hypers}:
                    raise FormulaError(
                        f"{function.__name__}: {state.name!r} is bounded by {word!r}, no hyper-parameter"
                    )
            starts = {"place" if state.scalar else "p", *(h.name for h in hypers)}
            if isinstance(state.init, str) and state.init not in starts:
                raise FormulaError(
                    f"{function.__name__}: {state.name!r} starts at {state.init!r}, no hyper-parameter"
                    f"{nearest(state.init, starts)}; a state starts at a number, at one of "
                    f"{', '.join(sorted(starts))}"
                )
        return formula

    @cached_property
    def arguments(self) -> dict[str, str]:
        """The kind of every argument: "element", "state", "number" (a state of one number) or "scalar"."""
        given = {**dict.fromkeys(GIVEN, "scalar"), "p": "element", "g": "element", "u": "element"}
        kinds = {word: kind for word, kind in given.items() if word in self.arguments_taken}
        kinds |= {s.name: "number" if s.scalar else "state" for s in self.states}
        return kinds | {h.name: "scalar" for h in self.hypers}

    @cached_property
    def arguments_taken(self) -> frozenset[str]:
        """The names of all arguments."""
        return frozenset(inspect.signature(self.function).parameters)

    @cached_property
    def takes_update(self) -> bool:
        """Whether `u` is an argument without a default: the update of the rule before, and no state."""
        return "u" in self.arguments_taken and "u" not in {s.name for s in self.states}

    @property
    def place(self) -> str:
        """Where in a chain the formula belongs: "before" the rule, the "rule" itself, or "after" it."""
        taken, returned = self.arguments_taken, set(self.reading.outputs)
        if self.takes_update or not returned & {"p", "g"}:
            return "after"
        return "rule" if "p" in returned and "g" in taken else "before"

    @cached_property
    def reading(self) -> Reading:
        """The formula as read from its source; FormulaError with file and line."""
        if self.called:
            return Formula.of(self.function).reading.renamed(dict(self.called))
        reading = read_function(self.function, self.arguments)
        for state in self.states:
            if state.name not in reading.outputs:
                known = "; an argument without a default is a state"
                if state.name in ("step", "n", "i"):
                    known = "; the step is the argument t"
                reading.source.refuse(None, f"the state {state.name!r} must be returned{known}")
        for word in reading.outputs:
            if (
                word not in ("p", "g")
                and (word, self.arguments.get(word)) != ("u", "element")
                and self.arguments.get(word) not in ("state", "number")
            ):
                reading.source.refuse(
                    None,
                    f"{word!r} is returned but is neither p, g, u nor a state{nearest(word, self.arguments)}",
                )
        return reading

    def run(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What the formula's own Python returns, by name, for values of its arguments."""
        called = dict(self.called)
        words = inspect.signature(self.function).parameters
        result = self.function(**{word: values[called.get(word, word)] for word in words})
        result = result if isinstance(result, tuple) else (result,)
        return dict(zip(self.reading.outputs, result, strict=True))

    @property
    def text(self) -> str:
        """Its lines as they stand in its file, under a line on whatever was said about it elsewhere."""
        notes = [*map(str, self.masks), *(f"{old} is called {new}" for old, new in self.called)]
        return "\n".join([*([f"# {'; '.join(notes)}"] if notes else []), *self.reading.lines])

    def __reduce__(self) -> Any:
        # a decorated function is found under the name of its rule
        where = (self.function.__module__, self.function.__qualname__)
        return _found, (*where, self.states, self.hypers, self.masks, self.called)


@cache
def _found(module: str, path: str, states: Any, hypers: Any, masks: Any, called: Any) -> Formula:
    """The formula that a file of Python's own format names."""
    there: Any = importlib.import_module(module)
    for step in path.split("."):
        there = getattr(there, step)
    plain = rule_of(there).formulas[0]
    return replace(plain, states=states, hypers=hypers, masks=masks, called=called)


@dataclass(frozen=True, eq=False)
class Rule:
    """A whole update rule: one formula, or several that run one after the other on p and g."""

    name: str
    formulas: tuple[Formula, ...]
    title: str = ""
    source: str = ""
    doc: str = ""
    dialect: str = ""
    """Whose form of the rule this is, where that is said: "torch", "keras", "optax" or "paper"."""
    dialects: dict[str, Rule] = field(default_factory=dict, repr=False)
    """The forms of the rule by their dialects; the same of each of them."""
    start: str = "p"
    """Where the point lies that the rule steps: p, or the state that holds another one; see `detoured`."""

    @property
    def inner(self) -> Rule:
        """The rule itself, of one that is detoured."""
        return self

    @property
    def kind(self) -> str:
        """Which of the kinds the rule is: "element", "reduction" where it sums over tensors, or "matrix"."""
        return "matrix" if self.has_matrices else "reduction" if self.reduces else "element"

    @cached_property
    def reduces(self) -> bool:
        """Whether what an element becomes depends on other elements."""
        return self.has_matrices or any(is_reduction(n) for n in walk(self.outputs.values()))

    @cached_property
    def has_matrices(self) -> bool:
        """Whether the formula works on whole matrices."""
        return any(is_matrix(n) for n in walk(self.outputs.values()))

    @cached_property
    def is_flat(self) -> bool:
        """Whether a tensor of more dimensions is a matrix: its first one the rows, all others together a row.

        So it is for a rule of whole matrices. So it is for others unless a state has a number for every row
        or column; those go by the last two dimensions.
        """
        return self.has_matrices or not any(s.shape in ("rows", "columns") for s in self.states)

    @cached_property
    def shape_words(self) -> tuple[str, ...]:
        """Which of `rows` and `columns` the formulas take."""
        own = {s.name for s in self.states} | {h.name for h in self.hypers}
        taken = {word for formula in self.formulas for word in formula.arguments_taken}
        return tuple(word for word in ("rows", "columns") if word in taken - own)

    @property
    def summary(self) -> str:
        """The first sentence of the rule's page."""
        return self.doc.strip().split("\n\n")[0].replace("\n", " ") or self.title or self.name

    @cached_property
    def hypers(self) -> tuple[Hyper, ...]:
        """The hyper-parameters of all parts; parts share those of one name, which is as the rule has it."""
        found: dict[str, Hyper] = {}
        for formula in self.formulas:
            others = (hyper for other in formula.otherwise for hyper in other.hypers)
            for hyper in (*formula.hypers, *others):
                if hyper.name not in found or (formula.place == "rule" and hyper in formula.hypers):
                    found[hyper.name] = hyper
        return tuple(found.values())

    @cached_property
    def states(self) -> tuple[State, ...]:
        """The states of all parts."""
        return tuple(state for formula in self.formulas for state in formula.states)

    def hyper(self, word: str) -> Hyper:
        """The hyper-parameter of that name; UsageError with the nearest one."""
        for hyper in self.hypers:
            if hyper.name == word:
                return hyper
        names = [h.name for h in self.hypers]
        raise UsageError(
            f"{self.name} has no hyper-parameter {word!r}{nearest(word, names)}; it has {', '.join(names)}"
        )

    @cached_property
    def is_masked(self) -> bool:
        """Whether a part of it applies to some parameters only."""
        return any(formula.masks or formula.otherwise for formula in self.formulas)

    @property
    def formula_text(self) -> str:
        """The lines of the formula as they stand in its file."""
        return "\n".join(formula.text for formula in self.formulas)

    @cached_property
    def _composed(self) -> tuple[dict[str, Node], dict[Node, str]]:
        """Every value after the last part, and the names that the authors gave to parts on the way."""
        current: dict[str, Node] = {}
        names: dict[Node, str] = {}
        for formula in self.formulas:
            read = formula.reading
            known = dict(current)
            if formula.takes_update:
                base, known["u"] = _parted(current.get("p"), formula, self.name)
            for root, word in read.names.items():
                names.setdefault(substitute(root, known), word)
            new = {word: substitute(root, known) for word, root in read.outputs.items()}
            if formula.takes_update and "u" in new:
                new["p"] = Node("sub", (base, new.pop("u")))
            current |= new
        if "p" not in current:
            self.formulas[-1].reading.source.refuse(
                None,
                "a rule must return p, as in: return p, m. What changes only g or u is a part of a chain: "
                f"descend.chain({self.name}, …)",
            )
        kept = {"p", *(s.name for s in self.states)}
        return {word: root for word, root in current.items() if word in kept}, names

    @property
    def outputs(self) -> dict[str, Node]:
        """The new value of p and of every state, as expressions in the old ones."""
        return self._composed[0]

    @property
    def names(self) -> dict[Node, str]:
        """The names that the author gave to parts of the expressions."""
        return self._composed[1]

    def __iter__(self) -> Iterator[Formula]:
        return iter(self.formulas)

    def __reduce__(self) -> Any:
        return _again, (self.name, self.formulas, self.title, self.source, self.doc)


@cache
def _again(*parts: Any) -> Rule:
    """A rule that a pickle brought back: the same one for the same."""
    return Rule(*parts)


def _parted(p: Node | None, formula: Formula, name: str) -> tuple[Node, Node]:
    """What a rule starts from and what it subtracts, where its last line is p = p - update."""
    if p is None or p.op != "sub":
        formula.reading.source.refuse(
            None,
            f"u is the update of a rule whose last line is p = p - …, and {name!r} has none before it; "
            "put it after such a rule, or change g before the rule instead",
        )
    return p.args[0], p.args[1]


def rule(
    title: str, source: str, *, doc: str | None = None, otherwise: Rule | None = None
) -> Callable[[Callable[..., Any]], Rule]:
    """Make a formula into a rule. `source` cites paper and algorithm; the page is its file's docstring.

    `otherwise` is the rule that a formula for matrices leaves vectors and numbers to.
    """

    def decorate(function: Callable[..., Any]) -> Rule:
        module = inspect.getmodule(function)
        page = doc or function.__doc__ or (module.__doc__ if module else "") or ""
        formula = replace(Formula.of(function), otherwise=otherwise.formulas if otherwise else ())
        return Rule(function.__name__, (formula,), title, source, inspect.cleandoc(page))

    return decorate


def rule_of(given: Rule | Callable[..., Any]) -> Rule:
    """A rule from a rule or from a bare formula."""
    if isinstance(given, Rule):
        return given
    return Rule(given.__name__, (Formula.of(given),), doc=inspect.getdoc(given) or "")
