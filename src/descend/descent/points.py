"""What `minimize` is asked for: a function by name, expression or object, and the point it starts from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UsageError
from . import surfaces

Start = float | Sequence[Any] | Tensor | Mapping[str, Any]
Window = tuple[tuple[float, float], ...]
_LETTERS = ("x", "y", "z")
_RECORDED = 1000  # numbers of a start that a configuration holds; of a longer one it keeps the shapes


class Point(nn.Module):
    """A point as parameters; its forward is the function's value there.

    Args:
        function: called with the tensors of `values`, by name where `named`.
        values: the start.
        named: whether the tensors are passed by name.
        single: whether the point is one tensor, and not a tuple of one.
    """

    def __init__(
        self, function: Callable[..., Any], values: Mapping[str, Tensor], named: bool, single: bool
    ) -> None:
        super().__init__()
        self.function = function
        self.named = named
        self.single = single
        self.names: dict[str, str] = {}
        for name, value in values.items():
            held = f"{name}_" if hasattr(self, name) or "." in name else name
            self.names[held.replace(".", "_")] = name
            self.register_parameter(held.replace(".", "_"), nn.Parameter(value.clone()))

    def forward(self) -> Tensor:
        value = self.call(list(self.parameters()))
        if not isinstance(value, Tensor) or value.numel() != 1 or not value.is_floating_point():
            what = f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else repr(value)
            raise UsageError(
                f"the function gives {what}: it must give one floating-point number, as a tensor"
            )
        return value.reshape(())

    def call(self, values: Sequence[Tensor]) -> Any:
        """The function at `values`, tensors in the order of the parameters."""
        if self.named:
            return self.function(**dict(zip(self.names.values(), values, strict=True)))
        return self.function(*values)

    def as_given(self, state: Mapping[str, Tensor]) -> Tensor | tuple[Tensor, ...] | dict[str, Tensor]:
        """A state dict in the form of the start."""
        if self.named:
            return {name: state[held] for held, name in self.names.items()}
        values = tuple(state[held] for held in self.names)
        return values[0] if self.single else values


@dataclass(frozen=True)
class Problem:
    """A function and its start, understood.

    Attributes:
        module: the point.
        name: the function's name, or "own:" and that of a Python function.
        start: what a configuration holds of the start.
        axes: a name for each number of the point, where there are at most two.
        window: the ranges it is usually drawn in, or None.
    """

    module: Point
    name: str
    start: dict[str, Any]
    axes: list[str]
    window: Window | None

    def check(self) -> None:
        """Tries the function once.

        Raises:
            UsageError: it gives no number, has no gradient, or is not finite at the start.
        """
        with torch.random.fork_rng(devices=[]):
            try:
                value = self.module()
            except UsageError:
                raise
            except (RuntimeError, TypeError, ValueError, IndexError) as error:
                raise UsageError(f"{self.name} cannot be evaluated at the start: {error}") from error
        if not value.requires_grad:
            raise UsageError(f"{self.name} does not depend on its point through torch: nothing to descend on")
        if not bool(torch.isfinite(value)):
            raise UsageError(f"{self.name} is {value.item()} at the start: start where it is finite")


def problem(f: str | Callable[..., Any], x0: Start | None) -> Problem:
    """What `minimize` is asked for.

    Raises:
        UsageError: an unknown function, or a start that does not suit it.
    """
    if isinstance(f, str):
        if f in surfaces.SURFACES:
            return _of_surface(surfaces.get(f), x0)
        if f.isidentifier() and len(f) > 2:
            surfaces.get(f)  # a single word is a misspelt surface: its error names the nearest one
        return _of_expression(f, x0)
    if isinstance(f, surfaces.Surface):
        return _of_surface(f, x0)
    if not callable(f):
        raise UsageError(f"{f!r} cannot be descended: give a function, a surface's name or an expression")
    name = f"own:{getattr(f, '__name__', type(f).__name__)}"
    if x0 is None:
        raise UsageError("a function of your own needs a start: give x0, such as [1.0, 2.0]")
    if isinstance(x0, Mapping):
        values = {key: _tensor(value) for key, value in x0.items()}
        return _made(f, name, values, named=True, single=False)
    if isinstance(x0, tuple):
        names = _LETTERS if len(x0) <= len(_LETTERS) else [f"x{place + 1}" for place in range(len(x0))]
        values = {key: _tensor(value) for key, value in zip(names, x0, strict=False)}
        return _made(f, name, values, named=False, single=False)
    return _made(f, name, {"x": _tensor(x0)}, named=False, single=True)


def _of_surface(surface: surfaces.Surface, x0: Start | None) -> Problem:
    given = surface.start if x0 is None else x0
    if isinstance(given, Mapping):
        given = list(given.values())
    values = {"x": _tensor(list(given) if isinstance(given, tuple) else given)}
    if values["x"].dim() != 1 or len(values["x"]) != len(surface.start):
        raise UsageError(
            f"{surface.name} takes a point of {len(surface.start)} numbers, such as {list(surface.start)}; "
            f"given: {x0!r}"
        )
    return _made(surface, surface.name, values, named=False, single=True, window=surface.window)


def _of_expression(text: str, x0: Start | None) -> Problem:
    from ..formula.expression import expression

    function = expression(text)
    names = list(function.names)
    if x0 is None:
        raise UsageError(f"{text!r} needs a start: a number for each of {', '.join(names)}")
    if isinstance(x0, Mapping):
        given = dict(x0)
        if set(given) != set(names):
            raise UsageError(
                f"{text!r} is a function of {', '.join(names)}; the start is of {', '.join(given)}"
            )
        given = {name: given[name] for name in names}
    else:
        numbers = list(x0) if isinstance(x0, (Sequence, Tensor)) and _length(x0) is not None else [x0]
        if len(numbers) != len(names):
            raise UsageError(
                f"{text!r} is a function of {', '.join(names)}: give {len(names)} numbers as its start, "
                f"not {len(numbers)}"
            )
        given = dict(zip(names, numbers, strict=True))
    values = {name: _tensor(value) for name, value in given.items()}
    return _made(function, text, values, named=True, single=False)


def _length(value: Any) -> int | None:
    return None if isinstance(value, Tensor) and value.dim() == 0 else len(value)


def _tensor(value: Any) -> Tensor:
    try:
        tensor = value.detach() if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise UsageError(f"start {value!r}: give numbers, as in [-1.2, 1]") from None
    if not tensor.is_floating_point():
        tensor = tensor.to(torch.float64)
    if tensor.numel() == 0 or not bool(torch.isfinite(tensor).all()):
        raise UsageError(f"start {value!r}: give finite numbers, at least one")
    return tensor


def _made(
    function: Callable[..., Any],
    name: str,
    values: dict[str, Tensor],
    *,
    named: bool,
    single: bool,
    window: Window | None = None,
) -> Problem:
    numbers = sum(value.numel() for value in values.values())
    form = "names" if named else "tensor" if single else "tuple"
    start: dict[str, Any] = {"form": form}
    dtypes = {str(value.dtype).removeprefix("torch.") for value in values.values()}
    if dtypes != {"float64"}:
        start["dtype"] = dtypes.pop()
    if numbers > _RECORDED:
        start["shapes"] = {key: list(value.shape) for key, value in values.items()}
        start["start"] = f"{numbers} numbers"
    elif form == "tensor":
        start["start"] = values["x"].tolist()
    else:
        start["start"] = {key: value.tolist() for key, value in values.items()}
        if name[:4] != "own:" and all(value.dim() == 0 for value in values.values()):
            start["start"] = list(start["start"].values())
    if numbers == len(values):
        axes = list(values)
    else:
        axes = list(_LETTERS[:numbers]) if numbers <= len(_LETTERS) else []
    return Problem(Point(function, values, named, single), name, start, axes, window)


def start_again(recorded: Mapping[str, Any]) -> Start:
    """The start that a configuration holds; of a long one zeros, which the checkpoint then fills."""
    dtype = getattr(torch, recorded.get("dtype", "float64"))
    if "shapes" in recorded:
        values = {key: torch.zeros(shape, dtype=dtype) for key, shape in recorded["shapes"].items()}
    elif isinstance(recorded["start"], Mapping):
        values = {key: torch.tensor(value, dtype=dtype) for key, value in recorded["start"].items()}
    elif recorded["form"] == "names":
        return [torch.tensor(value, dtype=dtype) for value in recorded["start"]]
    else:
        values = {"x": torch.tensor(recorded["start"], dtype=dtype)}
    if recorded["form"] == "names":
        return values
    return values["x"] if recorded["form"] == "tensor" else tuple(values.values())
