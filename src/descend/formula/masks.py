"""To which parameters a part of a chain applies: by their number of dimensions, or by their names."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ..errors import UsageError


@dataclass(frozen=True)
class Mask:
    """Parameters of so many dimensions, with names of such patterns; or with `out`, all but those.

    A mask lets a parameter through where every condition holds, and with `out` where none does.
    """

    ndim: frozenset[int] | None
    names: tuple[str, ...]
    out: bool = False

    @staticmethod
    def of(ndim: int | Collection[int] | None, names: str | Collection[str] | None, out: bool) -> Mask:
        """A mask as `only` and `except_for` are given it; UsageError for what is none."""
        word = "except_for" if out else "only"
        if ndim is None and names is None:
            raise UsageError(
                f"{word}() needs to know which parameters: {word}(part, ndim=2) goes by the number of "
                f'dimensions, {word}(part, names="*.weight") by the name'
            )
        dims = None if ndim is None else frozenset([ndim] if isinstance(ndim, int) else ndim)
        if dims is not None and not (dims and all(isinstance(d, int) and d >= 0 for d in dims)):
            raise UsageError(
                f"{word}(ndim={ndim!r}): give numbers of dimensions, as in ndim=2 or ndim=(0, 1)"
            )
        patterns = (names,) if isinstance(names, str) else tuple(names or ())
        if names is not None and not (patterns and all(isinstance(p, str) and p for p in patterns)):
            raise UsageError(
                f'{word}(names={names!r}): give patterns of names, as in names="*.weight" or a list of them'
            )
        return Mask(dims, patterns, out)

    def lets(self, ndim: int, name: str) -> bool:
        """Whether the part applies to a parameter of so many dimensions and this name."""
        holds = [] if self.ndim is None else [ndim in self.ndim]
        holds += [any(fnmatchcase(name, pattern) for pattern in self.names)] if self.names else []
        return not any(holds) if self.out else all(holds)

    def __str__(self) -> str:
        said = []
        if self.ndim is not None:
            said.append(f"of {' or '.join(map(str, sorted(self.ndim)))} dimensions")
        if self.names:
            said.append(f"named {' or '.join(self.names)}")
        if self.out:
            return f"not for parameters {', nor '.join(said)}"
        return f"only for parameters {' and '.join(said)}"
