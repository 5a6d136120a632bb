"""Initial weights by name, over `torch.nn.init`. Why each exists is told in docs/initialisation.md.

A strategy sets every parameter of two or more dimensions of a linear, convolutional or recurrent layer;
biases become zero. Embeddings, and the gains of normalisation layers, stay as their module made them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .data.batches import sample_seed
from .errors import UsageError, nearest

Fill = Callable[[Tensor, torch.Generator], object]


@dataclass(frozen=True)
class Initialiser:
    """A named strategy: `fill(weight, generator)` sets a weight [out, in, ...] in place."""

    name: str
    fill: Fill
    summary: str
    source: str


def _lecun_normal(w: Tensor, g: torch.Generator) -> object:
    return nn.init.kaiming_normal_(w, nonlinearity="linear", generator=g)


def _lecun_uniform(w: Tensor, g: torch.Generator) -> object:
    return nn.init.kaiming_uniform_(w, nonlinearity="linear", generator=g)


_LECUN = "LeCun, Bottou, Orr and Müller, Efficient BackProp, 1998, section 4.6"
_XAVIER = "Glorot and Bengio, AISTATS 2010, equations 12 and 16"
_HE = "He, Zhang, Ren and Sun, ICCV 2015, equation 10"

INITIALISERS = {
    i.name: i
    for i in (
        Initialiser(
            "small_random",
            lambda w, g: nn.init.normal_(w, std=0.01, generator=g),
            "normal, deviation 0.01: breaks the symmetry between units, for shallow models",
            "the classical choice; Krizhevsky, Sutskever and Hinton, NeurIPS 2012, section 5",
        ),
        Initialiser(
            "xavier_uniform",
            lambda w, g: nn.init.xavier_uniform_(w, generator=g),
            "uniform, variance 2/(in + out): keeps the scale of signals and gradients for tanh",
            _XAVIER,
        ),
        Initialiser(
            "xavier_normal",
            lambda w, g: nn.init.xavier_normal_(w, generator=g),
            "normal, variance 2/(in + out): keeps the scale of signals and gradients for tanh",
            _XAVIER,
        ),
        Initialiser(
            "he_uniform",
            lambda w, g: nn.init.kaiming_uniform_(w, nonlinearity="relu", generator=g),
            "uniform, variance 2/in: keeps the scale of signals through ReLU, which drops half of them",
            _HE,
        ),
        Initialiser(
            "he_normal",
            lambda w, g: nn.init.kaiming_normal_(w, nonlinearity="relu", generator=g),
            "normal, variance 2/in: keeps the scale of signals through ReLU, which drops half of them",
            _HE,
        ),
        Initialiser(
            "lecun_uniform",
            _lecun_uniform,
            "uniform, variance 1/in: keeps the scale of linear layers",
            _LECUN,
        ),
        Initialiser(
            "lecun_normal", _lecun_normal, "normal, variance 1/in: for linear layers, and SELU", _LECUN
        ),
        Initialiser(
            "orthogonal",
            lambda w, g: nn.init.orthogonal_(w, generator=g),
            "a random orthogonal matrix: keeps every direction's length through linear layers",
            "Saxe, McClelland and Ganguli, ICLR 2014",
        ),
        Initialiser(
            "zeros",
            lambda w, g: nn.init.zeros_(w),
            "all zero: for convex models only; units of a hidden layer would stay equal for ever",
            "the textbook's start of linear, logistic and softmax regression",
        ),
    )
}
ALIASES = {
    "xavier": "xavier_uniform",
    "glorot": "xavier_uniform",
    "glorot_uniform": "xavier_uniform",
    "glorot_normal": "xavier_normal",
    "he": "he_normal",
    "kaiming": "he_normal",
    "kaiming_uniform": "he_uniform",
    "kaiming_normal": "he_normal",
    "lecun": "lecun_normal",
    "small": "small_random",
    "normal": "small_random",
    "zero": "zeros",
}


def names() -> list[str]:
    """The initialisers' names, without the aliases (`xavier`, `he`, `kaiming`, `glorot`, `lecun`, …).

    >>> names()[:3]
    ['small_random', 'xavier_uniform', 'xavier_normal']
    """
    return list(INITIALISERS)


def get(name: str) -> Initialiser:
    """An initialiser by name or alias.

    Raises:
        UsageError: there is none of that name.
    """
    plain = name.lower().replace("-", "_").replace(" ", "_")
    plain = ALIASES.get(plain, plain)
    if plain not in INITIALISERS:
        hint = nearest(plain, [*INITIALISERS, *ALIASES])
        raise UsageError(f"there is no initialiser {name!r}{hint}; choose one of {', '.join(INITIALISERS)}")
    return INITIALISERS[plain]


def apply(name: str, model: nn.Module, seed: int | torch.Generator = 0) -> list[str]:
    """Sets a model's weights in place; returns the names of the parameters set.

    The randomness comes from `seed` (a CPU generator, or a number) alone: the global state is neither read
    nor changed, and the values are the same on every device. A number is mixed before it seeds a generator:
    otherwise data drawn after `torch.manual_seed` of the same number would be the numbers of the weights.

    Raises:
        UsageError: no such initialiser, or the model has weights without a size yet.

    >>> layer = nn.Linear(4, 4)
    >>> apply("orthogonal", layer, seed=0)
    ['weight', 'bias']
    >>> torch.allclose(layer.weight @ layer.weight.T, torch.eye(4), atol=1e-6)
    True
    """
    chosen = get(name)
    generator = seed if isinstance(seed, torch.Generator) else _generator(seed)
    done = []
    seen: set[Tensor] = set()
    with torch.no_grad():
        for path, module in model.named_modules():
            if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
                seen.update(module.parameters(recurse=False))
                continue
            for own, parameter in module.named_parameters(recurse=False):
                if parameter in seen:
                    continue
                seen.add(parameter)
                if isinstance(parameter, nn.parameter.UninitializedParameter):
                    raise UsageError(
                        f"{path}.{own} has no size yet: run the model once before it is initialised"
                    )
                if _set(chosen, module, own, parameter, generator):
                    done.append(f"{path}.{own}" if path else own)
    return done


def _set(
    chosen: Initialiser, module: nn.Module, own: str, parameter: Tensor, generator: torch.Generator
) -> bool:
    if parameter.dim() >= 2:
        value = torch.empty(parameter.shape, dtype=_drawn(parameter.dtype))
        chosen.fill(value, generator)
        parameter.copy_(value)
        return True
    if "bias" in own:
        parameter.zero_()
        return True
    return False


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(sample_seed(seed, -1, -1))


def _drawn(dtype: torch.dtype) -> torch.dtype:
    """Half-precision weights are drawn in float32 and rounded: orthogonal matrices need it."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
