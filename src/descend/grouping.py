"""Parameter groups of a model by the names of its parameters: rates by layer, no decay for some."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch

from .errors import UsageError
from .optim.checks import check_pattern

Named = Iterable[tuple[str, torch.Tensor]]
Patterns = str | tuple[str, ...]


def groups(
    model: torch.nn.Module | Named,
    settings: Mapping[Patterns, Mapping[str, Any]] | None = None,
    *,
    no_decay: bool | Collection[str] = False,
    layer_decay: float | None = None,
    lr: float | None = None,
) -> list[dict[str, Any]]:
    """Parameter groups for any optimizer, torch's too, with the names that masks of a chain go by.

    Every parameter takes the settings of the first pattern that fits its name; what fits none, and what a
    pattern does not say, is as the optimizer's defaults are. Parameters that need no gradient are left out.

    Args:
        model: a module, or its `named_parameters()`.
        settings: shell patterns of names, each (or a tuple of several) with what a group of those is to have.
        no_decay: True gives `weight_decay` 0 to all parameters of fewer than two dimensions (biases and
            norms); patterns do so for what they fit, too.
        layer_decay: the rate of a layer, as a share of the rate of the layer above it, in (0, 1]. A layer is
            what has the same first number in its name (`blocks.3.`), or stands between such numbers: what
            comes before the first is the lowest layer, what comes after the last the highest.
        lr: the rate of the highest layer. Without it the share itself is set, as `rate`, for a chain with
            `descend.modifiers.layer_rate`.

    Returns:
        One group for every set of settings, in the order of the parameters.

    Raises:
        UsageError: a pattern that fits no parameter, or none that an earlier one has left.

    Example:
        >>> import descend
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 2))
        >>> made = groups(model, {"2.*": {"lr": 0.01}}, no_decay=True)
        >>> [[name for name, _ in group["params"]] for group in made]
        [['0.weight'], ['0.bias', '1.weight', '1.bias'], ['2.weight'], ['2.bias']]
        >>> optimizer = descend.AdamW(made, lr=0.1)
    """
    named = list(model.named_parameters() if isinstance(model, torch.nn.Module) else model)
    if not named or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in named):
        raise UsageError("groups() takes a model with parameters, or its named_parameters()")
    named = [(name, p) for name, p in named if p.requires_grad]
    names = [name for name, _ in named]
    chosen = _by_pattern(names, settings or {})
    bare = () if isinstance(no_decay, bool) else tuple(no_decay)
    for pattern in bare:
        check_pattern(pattern, names, "of no_decay")
    if no_decay is not False:
        for name, p in named:
            if p.dim() < 2 or any(fnmatchcase(name, pattern) for pattern in bare):
                chosen[name]["weight_decay"] = 0.0
    if layer_decay is not None:
        if not 0 < layer_decay <= 1:
            raise UsageError(f"layer_decay={layer_decay!r}: a share of the layer above, in (0, 1]")
        depths = _depths(names)
        for name, depth in depths.items():
            share = layer_decay ** (max(depths.values()) - depth)
            base = chosen[name].get("lr", lr)
            chosen[name] |= {"rate": share} if base is None else {"lr": base * share}
    elif lr is not None:
        raise UsageError(
            "lr is the rate of the highest layer, for layer_decay; else give it to the optimizer"
        )
    found: dict[str, dict[str, Any]] = {}
    for name, p in named:
        group = found.setdefault(repr(sorted(chosen[name].items())), {"params": [], **chosen[name]})
        group["params"].append((name, p))
    return list(found.values())


def _by_pattern(
    names: list[str], settings: Mapping[Patterns, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """For every name what the first pattern that fits it says."""
    chosen: dict[str, dict[str, Any]] = {}
    for patterns, values in settings.items():
        if not isinstance(values, Mapping):
            raise UsageError(
                f'groups(…, {{{patterns!r}: {values!r}}}): give settings, as in {{"*.bias": {{"lr": 0.01}}}}'
            )
        for pattern in (patterns,) if isinstance(patterns, str) else patterns:
            check_pattern(pattern, names, "of groups()")
            left = [name for name in names if fnmatchcase(name, pattern) and name not in chosen]
            if not left:
                raise UsageError(
                    f"everything that {pattern!r} fits was taken by patterns before it; put it before them"
                )
            chosen |= {name: dict(values) for name in left}
    return {name: chosen.get(name, {}) for name in names}


def _depths(names: list[str]) -> dict[str, int]:
    """Which layer each parameter belongs to, from the input's, 0, up."""
    layers: dict[str, int] = {}
    depths: dict[str, int] = {}
    between = ""
    for name in names:
        parts = name.split(".")
        number = next((k for k, part in enumerate(parts) if part.isdigit()), None)
        if number is None:
            layer = between = between or f"before {name}"
        else:
            layer, between = ".".join(parts[: number + 1]), ""
        depths[name] = layers.setdefault(layer, len(layers))
    return depths
