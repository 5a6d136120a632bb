"""Parameter groups by name: the first pattern that fits, no decay for vectors, rates by layer as in BEiT."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import descend
from descend.errors import UsageError
from descend.formula import chain, only
from descend.grouping import groups
from descend.modifiers import decoupled_decay, layer_rate
from descend.rules import get


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(4)
        self.attn = torch.nn.ModuleList([torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)])


class Vision(torch.nn.Module):
    """The names of a vision transformer, in their order."""

    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        self.cls_token = torch.nn.Parameter(torch.zeros(1, 1, 4))
        self.pos_embed = torch.nn.Parameter(torch.zeros(1, 5, 4))
        self.patch_embed = torch.nn.Module()
        self.patch_embed.proj = torch.nn.Linear(3, 4)
        self.blocks = torch.nn.ModuleList([Block() for _ in range(depth)])
        self.norm = torch.nn.LayerNorm(4)
        self.head = torch.nn.Linear(4, 2)


def layer_of(name: str, layers: int) -> int:
    """get_layer_id_for_vit, as BEiT and MAE have it."""
    if name in ("cls_token", "pos_embed") or name.startswith("patch_embed"):
        return 0
    return int(name.split(".")[1]) + 1 if name.startswith("blocks") else layers


def said(made: list[dict[str, Any]], key: str) -> dict[str, Any]:
    return {name: group.get(key) for group in made for name, _ in group["params"]}


def test_the_rates_by_layer_are_those_of_beit_and_mae() -> None:
    model = Vision()
    layers = len(model.blocks) + 1
    found = said(groups(model, lr=0.1, layer_decay=0.75), "lr")
    wanted = {n: 0.1 * 0.75 ** (layers - layer_of(n, layers)) for n, _ in model.named_parameters()}
    assert found == pytest.approx(wanted)
    assert len(set(found.values())) == 5


def test_no_decay_is_timm_s() -> None:
    """`param_groups_weight_decay`: vectors, and the names of a list."""
    found = said(groups(Vision(), no_decay=["cls_token", "pos_embed"]), "weight_decay")
    kept = {name for name, decay in found.items() if decay is None}
    assert kept == {n for n, p in Vision().named_parameters() if p.dim() == 2}
    assert said(groups(Vision(), no_decay=True), "weight_decay")["cls_token"] is None


def test_the_first_pattern_that_fits_decides_and_the_rest_is_as_the_defaults() -> None:
    model = Vision()
    made = groups(model, {("head.*", "norm.*"): {"lr": 1.0}, "*.bias": {"lr": 2.0, "weight_decay": 0.5}})
    optimizer = descend.AdamW(made, lr=3.0, weight_decay=0.1)
    rates = {n: g["lr"] for g in optimizer.param_groups for n in g["param_names"]}
    assert rates["head.bias"] == rates["norm.weight"] == 1.0
    assert rates["blocks.0.norm.bias"] == 2.0
    assert rates["blocks.0.norm.weight"] == rates["cls_token"] == 3.0
    held = [p for g in optimizer.param_groups for p in g["params"]]
    assert sorted(map(id, held)) == sorted(map(id, model.parameters()))
    assert len(made) == 3


def test_everything_together_and_torch_takes_it() -> None:
    made = groups(Vision(), {"head.*": {"lr": 0.5}}, no_decay=True, layer_decay=0.5, lr=0.1)
    rates, decays = said(made, "lr"), said(made, "weight_decay")
    assert rates["head.weight"] == 0.5, "the highest layer"
    assert rates["norm.weight"] == 0.1
    assert rates["blocks.2.norm.weight"] == 0.05
    assert decays["head.bias"] == 0.0
    assert len(torch.optim.AdamW(made, lr=9.0).param_groups) == len(made)


def test_a_share_of_the_rate_goes_with_a_chain_and_masks_see_the_names() -> None:
    model = Vision()
    rule = chain(only(decoupled_decay, names="*.weight"), get("adam"), layer_rate)
    optimizer = descend.optimizer(rule)(groups(model, layer_decay=0.5), lr=0.1)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer.step()
    moved = {n: float((before[n] - p.detach()).mean()) for n, p in model.named_parameters()}
    assert moved["head.bias"] == pytest.approx(0.1, rel=1e-4)
    assert moved["blocks.0.norm.bias"] == pytest.approx(0.1 * 0.5**3, rel=1e-4)


def test_the_frozen_are_left_out_and_pairs_do_as_well() -> None:
    model = Vision()
    model.head.requires_grad_(False)
    assert "head.weight" not in said(groups(model.named_parameters()), "lr")


def test_layers_without_a_stem_and_with_parts_between() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    found = said(groups(model, layer_decay=0.5, lr=1.0), "lr")
    assert found == {"0.weight": 0.5, "0.bias": 0.5, "2.weight": 1.0, "2.bias": 1.0}
    names = ["encoder.0.w", "middle.w", "middle.v", "decoder.0.w", "out.w"]
    named = [(n, torch.zeros(1, requires_grad=True)) for n in names]
    found = said(groups(named, layer_decay=0.5, lr=1.0), "lr")
    assert list(found.values()) == [0.125, 0.25, 0.25, 0.5, 1.0]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (({"*.wieght": {}},), r"no parameter has a name like '\*.wieght'.*for example, .*\.weight"),
        (
            ({"*": {}, "*.bias": {"lr": 1}},),
            r"everything that '\*.bias' fits was taken by patterns before it",
        ),
        (({"*": 0.1},), r"give settings, as in"),
    ],
)
def test_wrong_patterns_are_named(given: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        groups(Vision(), *given)


def test_wrong_rates_and_models_are_named() -> None:
    for keys, says in (
        ({"no_decay": ["bn*"]}, "no parameter has a name like 'bn"),
        ({"layer_decay": 1.5}, r"in \(0, 1\]"),
        ({"lr": 0.1}, "for layer_decay"),
    ):
        with pytest.raises(UsageError, match=says):
            groups(Vision(), **keys)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="takes a model with parameters"):
        groups(Vision().parameters())  # type: ignore[arg-type]
