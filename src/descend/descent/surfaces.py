"""Named test surfaces: functions of a point [..., n] that optimizers are tried on, and what is known of them.

Sources: Surjanovic and Bingham, "Virtual Library of Simulation Experiments"; Jamil and Yang (2013), "A
    literature
survey of benchmark functions for global optimisation problems", numbers 6, 10, 16, 65, 88, 105; De Jong
(1975).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UsageError, nearest

Point = tuple[float, ...]


@dataclass(frozen=True)
class Surface:
    """A function of points [..., n] -> [...] with its usual start, its minima and the window it is drawn in.

    `lowest` is the value at `minima`; both are empty or -inf for a surface without a minimum.
    """

    name: str
    function: Callable[[Tensor], Tensor]
    start: Point
    minima: tuple[Point, ...]
    lowest: float
    window: tuple[tuple[float, float], ...]
    about: str

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x)


def _rosenbrock(x: Tensor) -> Tensor:
    head, tail = x[..., :-1], x[..., 1:]
    return (100.0 * (tail - head**2) ** 2 + (1.0 - head) ** 2).sum(-1)


def _himmelblau(x: Tensor) -> Tensor:
    a, b = x[..., 0], x[..., 1]
    return (a**2 + b - 11.0) ** 2 + (a + b**2 - 7.0) ** 2


def _beale(x: Tensor) -> Tensor:
    a, b = x[..., 0], x[..., 1]
    return (1.5 - a + a * b) ** 2 + (2.25 - a + a * b**2) ** 2 + (2.625 - a + a * b**3) ** 2


def _booth(x: Tensor) -> Tensor:
    a, b = x[..., 0], x[..., 1]
    return (a + 2.0 * b - 7.0) ** 2 + (2.0 * a + b - 5.0) ** 2


def _quadratic(x: Tensor) -> Tensor:
    return x[..., 0] ** 2 + 10.0 * x[..., 1] ** 2


def _saddle(x: Tensor) -> Tensor:
    return x[..., 0] ** 2 - x[..., 1] ** 2


def _rastrigin(x: Tensor) -> Tensor:
    return 10.0 * x.shape[-1] + (x**2 - 10.0 * torch.cos(2.0 * math.pi * x)).sum(-1)


def _ackley(x: Tensor) -> Tensor:
    spread = torch.exp(-0.2 * (x**2).mean(-1).sqrt())
    waves = torch.exp(torch.cos(2.0 * math.pi * x).mean(-1))
    return -20.0 * spread - waves + 20.0 + math.e


def _three_hump_camel(x: Tensor) -> Tensor:
    a, b = x[..., 0], x[..., 1]
    return 2.0 * a**2 - 1.05 * a**4 + a**6 / 6.0 + a * b + b**2


_HIMMELBLAU = (
    (3.0, 2.0),
    (-2.805118086952745, 3.131312518250573),
    (-3.779310253377747, -3.283185991286170),
    (3.584428340330492, -1.848126526964404),
)

SURFACES = {
    surface.name: surface
    for surface in (
        Surface(
            "rosenbrock",
            _rosenbrock,
            (-1.2, 1.0),
            ((1.0, 1.0),),
            0.0,
            ((-2.0, 2.0), (-1.0, 3.0)),
            "a narrow curved valley: easy to reach, slow to follow",
        ),
        Surface(
            "himmelblau",
            _himmelblau,
            (0.0, 0.0),
            _HIMMELBLAU,
            0.0,
            ((-5.0, 5.0), (-5.0, 5.0)),
            "four minima of equal depth",
        ),
        Surface(
            "beale",
            _beale,
            (1.0, 1.0),
            ((3.0, 0.5),),
            0.0,
            ((-4.5, 4.5), (-4.5, 4.5)),
            "flat, with steep walls at the corners",
        ),
        Surface(
            "booth",
            _booth,
            (-8.0, -6.0),
            ((1.0, 3.0),),
            0.0,
            ((-10.0, 10.0), (-10.0, 10.0)),
            "a tilted quadratic",
        ),
        Surface(
            "quadratic",
            _quadratic,
            (9.0, 2.0),
            ((0.0, 0.0),),
            0.0,
            ((-10.0, 10.0), (-4.0, 4.0)),
            "x**2 + 10 y**2: ten times as steep along y as along x",
        ),
        Surface(
            "saddle",
            _saddle,
            (1.0, 1e-3),
            (),
            -math.inf,
            ((-1.5, 1.5), (-1.5, 1.5)),
            "x**2 - y**2: no minimum, the way out is along y",
        ),
        Surface(
            "rastrigin",
            _rastrigin,
            (2.3, -1.7),
            ((0.0, 0.0),),
            0.0,
            ((-5.12, 5.12), (-5.12, 5.12)),
            "a grid of local minima",
        ),
        Surface(
            "ackley",
            _ackley,
            (1.7, -1.2),
            ((0.0, 0.0),),
            0.0,
            ((-5.0, 5.0), (-5.0, 5.0)),
            "nearly flat outside, a hole with a kink in the middle",
        ),
        Surface(
            "camel",
            _three_hump_camel,
            (-1.8, 1.2),
            ((0.0, 0.0),),
            0.0,
            ((-2.5, 2.5), (-2.5, 2.5)),
            "three valleys, one of them deepest",
        ),
    )
}


def names() -> list[str]:
    """The names of all surfaces."""
    return list(SURFACES)


def get(name: str) -> Surface:
    """The surface of this name.

    >>> float(get("booth")(torch.tensor([1.0, 3.0])))
    0.0

    Raises:
        UsageError: there is none.
    """
    if name not in SURFACES:
        raise UsageError(
            f"unknown surface {name!r}{nearest(name, SURFACES)}; give one of {', '.join(SURFACES)}, or an "
            'expression, as in "x**2 + 10*y**2"'
        )
    return SURFACES[name]
