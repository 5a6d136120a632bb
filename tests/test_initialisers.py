from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from descend import initialisers
from descend.errors import UsageError

PAGE = Path(__file__).parents[1] / "docs" / "initialisation.md"


def weight(name: str, out: int = 600, into: int = 300, seed: int = 0) -> torch.Tensor:
    layer = nn.Linear(into, out)
    initialisers.apply(name, layer, seed)
    return layer.weight.detach()


@pytest.mark.parametrize(
    ("name", "variance"),
    [
        ("small_random", 1e-4),
        ("xavier_uniform", 2 / 900),
        ("xavier_normal", 2 / 900),
        ("he_uniform", 2 / 300),
        ("he_normal", 2 / 300),
        ("lecun_uniform", 1 / 300),
        ("lecun_normal", 1 / 300),
        ("orthogonal", 1 / 600),
    ],
)
def test_the_variance_is_the_papers(name: str, variance: float) -> None:
    w = weight(name).double()
    # 180,000 draws: a sample variance is off by 0.3% (one deviation) for a normal, less for a uniform.
    assert float(w.square().mean()) == pytest.approx(variance, rel=0.015)
    assert abs(float(w.mean())) < 4 * math.sqrt(variance / w.numel())
    bound = math.sqrt(3 * variance)
    assert (float(w.abs().max()) <= bound * (1 + 1e-6)) == name.endswith("uniform")


def test_orthogonal_and_zeros() -> None:
    w = weight("orthogonal")
    assert torch.allclose(w.T @ w, torch.eye(300), atol=1e-5)
    assert not weight("zeros").any()


def test_every_name_and_alias_is_known() -> None:
    assert set(initialisers.ALIASES.values()) <= set(initialisers.names())
    for name in [*initialisers.names(), *initialisers.ALIASES]:
        assert initialisers.get(name).summary
        assert initialisers.get(name).source
    assert initialisers.get("He-Normal") is initialisers.get("kaiming")
    with pytest.raises(UsageError, match=r"no initialiser 'xaver'.*did you mean 'xavier'"):
        initialisers.get("xaver")


def test_the_seed_alone_decides() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = weight("he_normal", seed=5)
    torch.rand(9)
    assert torch.equal(weight("he_normal", seed=5), first)
    assert not torch.equal(weight("he_normal", seed=6), first)
    layer = nn.Linear(300, 600)
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    initialisers.apply("he_normal", layer, generators[0])
    assert torch.equal(layer.weight, nn.init.kaiming_normal_(torch.empty(600, 300), generator=generators[1]))
    torch.set_rng_state(before)
    initialisers.apply("he_normal", layer, 5)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_are_not_the_numbers_of_data_drawn_from_the_same_seed() -> None:
    drawn = torch.randn(600, 300, generator=torch.Generator().manual_seed(0))
    both = torch.stack([drawn.flatten(), weight("he_normal", seed=0).flatten()])
    assert abs(float(torch.corrcoef(both)[0, 1])) < 0.02


def test_what_is_set_and_what_is_left() -> None:
    model = nn.Sequential(
        nn.Embedding(9, 4),
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.GRU(4, 4, batch_first=True),
        nn.Linear(4, 2, bias=False),
    )
    embedding = model[0].weight.clone()
    done = initialisers.apply("he", model)
    assert torch.equal(model[0].weight, embedding)
    assert torch.equal(model[2].weight, torch.ones(8))
    assert not model[1].bias.any()
    assert done == [
        "1.weight",
        "1.bias",
        "2.bias",
        *(f"3.{kind}_l0" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")),
        "4.weight",
    ]


def test_tied_and_half_precision_weights() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    assert initialisers.apply("he", model) == ["0.weight", "0.bias", "1.bias"]
    half = nn.Linear(8, 8, dtype=torch.bfloat16)
    initialisers.apply("orthogonal", half)
    assert torch.allclose(half.weight.float() @ half.weight.float().T, torch.eye(8), atol=0.03)


def test_a_layer_without_a_size_is_refused() -> None:
    with pytest.raises(UsageError, match=r"has no size yet: run the model once"):
        initialisers.apply("he", nn.LazyLinear(3))


def test_the_pages_example_prints_what_the_page_says() -> None:
    text = PAGE.read_text(encoding="utf-8")
    code, printed = re.findall(r"```(?:python|text)\n(.*?)```", text, flags=re.DOTALL)[:2]
    lines: list[str] = []
    exec(compile(code, str(PAGE), "exec"), {"print": lambda *words: lines.append(" ".join(map(str, words)))})
    claimed = {name: [float(v) for v in rest] for name, *rest in map(str.split, printed.splitlines())}
    measured = {name: [float(v) for v in rest] for name, *rest in map(str.split, lines)}
    assert measured.keys() == claimed.keys()
    for name, values in measured.items():
        # The rounding of a matrix product differs between machines, and thirty layers carry it on.
        assert values == pytest.approx(claimed[name], rel=0.02)
    assert all(0.4 < value < 2.5 for value in measured["he_normal"])
    assert all(0.45 < value < 0.55 for value in measured["halving"])


def test_the_page_names_every_initialiser() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in initialisers.names())
