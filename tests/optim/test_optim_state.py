"""The state: it crosses to torch and back, is right when read or edited, survives copies, and is checked."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref
from collections import OrderedDict, defaultdict
from typing import Any

import pytest
import torch
from optim_runs import CASES, copies, fresh, ours, same, theirs, walk

import descend


def file_trip(content: Any) -> Any:
    """What torch.save and torch.load (of weights only) make of it."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("there", [True, False], ids=["from torch", "to torch"])
def test_state_crosses_mid_run(case: str, there: bool) -> None:
    """A run that changes sides after four steps ends where one that stays ends."""
    make, other = (theirs(case), ours(case)) if there else (ours(case), theirs(case))
    params = fresh()
    staying = make(params)
    walk(staying, params, 0, 3)
    walk(staying, params, 3, 4, skip=1)
    moved = copies(params)
    crossing = other(moved)
    crossing.load_state_dict(file_trip(staying.state_dict()))
    walk(staying, params, 4, 8)
    walk(crossing, moved, 4, 8)
    same(params, moved, rtol=1e-5, atol=1e-6)
    for key, kept in staying.state_dict()["state"].items():
        assert set(kept) == set(crossing.state_dict()["state"][key])


@pytest.mark.parametrize("case", CASES)
def test_state_dict_has_torchs_form(case: str) -> None:
    params, mirror = fresh(), fresh()
    a, b = ours(case)(params), theirs(case)(mirror)
    walk(a, params, 0, 2)
    walk(b, mirror, 0, 2)
    mine, torchs = a.state_dict(), b.state_dict()
    assert set(mine) == set(torchs)
    assert set(mine["state"]) == set(torchs["state"])
    for key, kept in torchs["state"].items():
        assert set(mine["state"][key]) == set(kept)
        for word, value in kept.items():
            assert mine["state"][key][word].shape == value.shape
            torch.testing.assert_close(
                mine["state"][key][word],
                value,
                rtol=1e-5,
                atol=1e-6,
                check_dtype=word not in ("mu_product", "eta", "mu"),
            )
    for mine_group, group in zip(mine["param_groups"], torchs["param_groups"], strict=True):
        extra = {"independent_weight_decay"} if "AdamW" in case else set()
        assert set(mine_group) - extra == set(group)
        assert mine_group["params"] == group["params"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch.save"])
def test_copies_go_on_alike(case: str, how: str) -> None:
    params = fresh()
    optimizer = ours(case)(params)
    walk(optimizer, params, 0, 3)
    pair = (params, optimizer)
    if how == "deepcopy":
        moved, twin = copy.deepcopy(pair)
    elif how == "pickle":
        moved, twin = pickle.loads(pickle.dumps(pair))
    else:
        buffer = io.BytesIO()
        torch.save(pair, buffer)
        buffer.seek(0)
        moved, twin = torch.load(buffer, weights_only=False)
    assert type(twin) is type(optimizer)
    assert twin.param_groups[0]["params"][0] is moved[0]
    walk(optimizer, params, 3, 6)
    walk(twin, moved, 3, 6)
    same(params, moved, rtol=0, atol=0)
    walk(twin, moved, 6, 7)
    assert not torch.equal(params[0], moved[0])


def test_a_made_class_can_be_pickled() -> None:
    params = fresh()
    optimizer = descend.optimizer("momentum", decay="independent")(params, lr=0.1, weight_decay=0.1)
    walk(optimizer, params, 0, 2)
    moved, twin = pickle.loads(pickle.dumps((params, optimizer)))
    walk(optimizer, params, 2, 4)
    walk(twin, moved, 2, 4)
    same(params, moved, rtol=0, atol=0)
    elsewhere, third = copy.deepcopy((params, optimizer))
    walk(optimizer, params, 4, 5)
    walk(third, elsewhere, 4, 5)
    same(params, elsewhere, rtol=0, atol=0)


def test_a_shallow_copy_shares_the_state() -> None:
    """As in torch: both step the same parameters with one count."""
    params = fresh()
    optimizer = descend.Adam(params)
    walk(optimizer, params, 0, 1)
    twin = copy.copy(optimizer)
    walk(twin, params, 1, 2)
    walk(optimizer, params, 2, 3)
    walk(twin, params, 3, 4)
    mirror = fresh()
    walk(torch.optim.Adam(mirror), mirror, 0, 4)
    same(params, mirror)
    assert optimizer.state[params[0]]["step"] == twin.state[params[0]]["step"] == 4


def test_state_is_right_when_read() -> None:
    params, mirror = fresh(), fresh()
    a, b = descend.NAdam(params), torch.optim.NAdam(mirror)
    for step in range(4):
        walk(a, params, step, step + 1, skip=1 if step == 2 else None)
        walk(b, mirror, step, step + 1, skip=1 if step == 2 else None)
        for p, q in zip(params, mirror, strict=True):
            assert list(a.state[p]) == sorted(b.state[q], key=list(a.state[p]).index)
            for key, value in b.state[q].items():
                torch.testing.assert_close(a.state[p][key].to(value.dtype), value)
    assert [int(a.state[p]["step"]) for p in params] == [4, 3, 4]


@pytest.mark.parametrize(
    "edit", ["in place", "replaced", "step in place", "step replaced", "whole", "removed"]
)
def test_state_is_right_when_edited(edit: str) -> None:
    params, mirror = fresh(), fresh()
    a, b = descend.Adam(params), torch.optim.Adam(mirror)
    for optimizer, tensors in ((a, params), (b, mirror)):
        walk(optimizer, tensors, 0, 3)
        kept = optimizer.state[tensors[0]]
        if edit == "in place":
            kept["exp_avg"].mul_(0.5)
        elif edit == "replaced":
            kept["exp_avg"] = kept["exp_avg"] * 0.5
        elif edit == "step in place":
            kept["step"] += 10
        elif edit == "step replaced":
            kept["step"] = torch.tensor(20.0)
        elif edit == "whole":
            optimizer.state[tensors[0]] = {
                key: value * 1 for key, value in optimizer.state[tensors[1]].items()
            }
            for key in ("exp_avg", "exp_avg_sq"):
                optimizer.state[tensors[0]][key] = torch.ones_like(tensors[0])
        else:
            del optimizer.state[tensors[0]]
        walk(optimizer, tensors, 3, 5)
    same(params, mirror)
    torch.testing.assert_close(a.state[params[0]]["step"], b.state[mirror[0]]["step"])


@pytest.mark.parametrize(
    "look",
    [
        lambda state, p: state[p],
        lambda state, p: state.get(p),
        lambda state, p: dict(state)[p],
        lambda state, p: {**state}[p],
        lambda state, p: dict(state.items())[p],
        lambda state, p: next(iter(state.values())),
        lambda state, p: state.copy()[p],
        lambda state, p: state.setdefault(p, {}),
        lambda state, p: state | {},
    ],
)
def test_whoever_looks_at_the_state_may_move_it(look: Any) -> None:
    """As long as nobody looks, the steps need not check where it lies."""
    params, mirror = fresh(), fresh()
    optimizer, other = descend.Adam(params), torch.optim.Adam(mirror)
    walk(optimizer, params, 0, 2)
    walk(other, mirror, 0, 2)
    found = look(optimizer.state, params[0])
    kept = found.get(params[0], found)["exp_avg"]
    kept.data = kept.data * 2
    other.state[mirror[0]]["exp_avg"].mul_(2)
    walk(optimizer, params, 2, 4)
    walk(other, mirror, 2, 4)
    same(params, mirror)


def test_a_state_of_ones_own() -> None:
    """torch's `state` is a plain attribute, which may be set; who set it may still move its tensors."""
    params, mirror = fresh(), fresh()
    optimizer, other = descend.Adam(params), torch.optim.Adam(mirror)
    walk(optimizer, params, 0, 2)
    walk(other, mirror, 0, 2)
    mine = {p: {"step": 1.0, "exp_avg": torch.ones_like(p), "exp_avg_sq": torch.ones_like(p)} for p in params}
    optimizer.state = defaultdict(dict, mine)
    for q in mirror:
        other.state[q]["step"].fill_(1)
        other.state[q]["exp_avg"].fill_(1)
        other.state[q]["exp_avg_sq"].fill_(1)
    walk(optimizer, params, 2, 3)
    walk(other, mirror, 2, 3)
    for p, q in zip(params, mirror, strict=True):
        mine[p]["exp_avg"].data = mine[p]["exp_avg"].data * 2
        other.state[q]["exp_avg"].mul_(2)
    walk(optimizer, params, 3, 4)
    walk(other, mirror, 3, 4)
    same(params, mirror)


def test_nothing_keeps_a_dropped_optimizer() -> None:
    """Not even until the next collection: its state may be most of the memory."""
    params = fresh()
    for name in descend.optim.CLASSES:
        optimizer = descend.optimizer(name)(params)
        walk(optimizer, params, 0, 2)
        gone = weakref.ref(optimizer)
        gc.disable()
        try:
            del optimizer
            assert gone() is None, name
        finally:
            gc.enable()


def test_adagrad_has_its_state_from_the_start() -> None:
    params = fresh()
    optimizer = descend.Adagrad(params, initial_accumulator_value=0.25)
    assert torch.equal(optimizer.state[params[0]]["sum"], torch.full((5, 3), 0.25))
    optimizer.state[params[0]]["sum"].fill_(4.0)
    mirror = fresh()
    other = torch.optim.Adagrad(mirror, initial_accumulator_value=0.25)
    other.state[mirror[0]]["sum"].fill_(4.0)
    walk(optimizer, params, 0, 2)
    walk(other, mirror, 0, 2)
    same(params, mirror)
    optimizer.share_memory()
    assert optimizer.state[params[0]]["sum"].is_shared()


def test_float32_state_beside_half_parameters_stays() -> None:
    """torch rounds it to bfloat16 (pytorch#43706)."""
    params = fresh(torch.bfloat16)
    wide = descend.Adam(fresh())
    walk(wide, wide.param_groups[0]["params"], 0, 3)
    optimizer = descend.Adam(params)
    optimizer.load_state_dict(wide.state_dict())
    exact = wide.state[wide.param_groups[0]["params"][0]]["exp_avg"]
    assert torch.equal(optimizer.state[params[0]]["exp_avg"], exact)
    walk(optimizer, params, 3, 5)
    assert optimizer.state[params[0]]["exp_avg"].dtype == torch.float32
    halves = descend.Adam(fresh(torch.bfloat16))
    halves.load_state_dict(torch.optim.Adam(fresh(torch.bfloat16)).state_dict())
    walk(halves, halves.param_groups[0]["params"], 0, 1)
    assert halves.state[halves.param_groups[0]["params"][0]]["exp_avg"].dtype == torch.bfloat16


def test_loading_copies() -> None:
    params = fresh()
    a = descend.Adam(params)
    walk(a, params, 0, 2)
    mirror = copies(params)
    b = descend.Adam(mirror)
    b.load_state_dict(a.state_dict())
    kept = a.state[params[0]]["exp_avg"].clone()
    walk(b, mirror, 2, 4)
    assert torch.equal(a.state[params[0]]["exp_avg"], kept)


def test_old_state_dicts_load() -> None:
    """Without the flags that came later, and with a step that is a number."""
    params, mirror = fresh(), fresh()
    a, b = descend.Adam(params), descend.Adam(mirror)
    walk(a, params, 0, 2)
    walk(b, mirror, 0, 2)
    old = copy.deepcopy(a.state_dict())
    for group in old["param_groups"]:
        for key in ("amsgrad", "maximize", "foreach", "capturable", "differentiable", "fused"):
            del group[key]
    for kept in old["state"].values():
        kept["step"] = kept["step"].item()
    a.load_state_dict(old)
    assert a.state[params[0]]["step"].item() == 2
    walk(a, params, 2, 4)
    walk(b, mirror, 2, 4)
    same(params, mirror, rtol=0, atol=0)


def loaded(kind: type, saved: dict[str, Any], **kwargs: Any) -> None:
    kind(fresh(), **kwargs).load_state_dict(saved)


def state_of(kind: type, **kwargs: Any) -> dict[str, Any]:
    params = fresh()
    optimizer = kind(params, **kwargs)
    walk(optimizer, params, 0, 2)
    return copy.deepcopy(optimizer.state_dict())


def test_state_of_another_rule_is_refused() -> None:
    adam = state_of(torch.optim.Adam)
    with pytest.raises(ValueError, match="not one of RMSprop: its parameter group 0 has no 'alpha'"):
        loaded(descend.RMSprop, adam)
    with pytest.raises(
        ValueError, match="not one of Adamax: it holds 'exp_avg_sq', Adamax keeps 'exp_avg', 'exp_inf'"
    ):
        loaded(descend.Adamax, adam)
    with pytest.raises(ValueError, match="not one of SGD"):
        loaded(descend.SGD, adam, momentum=0.9)
    with pytest.raises(ValueError, match="not one of Adam"):
        loaded(descend.Adam, state_of(torch.optim.SGD, momentum=0.9))
    other_tools = state_of(torch.optim.Adam)
    other_tools["state"][0]["noise_scale"] = 3.0
    loaded(descend.Adam, other_tools)


def test_state_of_other_shapes_is_refused() -> None:
    saved = state_of(torch.optim.Adam)
    saved["state"][0]["exp_avg"] = torch.zeros(3, 5)
    with pytest.raises(ValueError, match=r"saved state 'exp_avg' has shape \(3, 5\), its parameter \(5, 3\)"):
        loaded(descend.Adam, saved)
    params = fresh()
    optimizer = descend.Adam(params)
    walk(optimizer, params, 0, 1)
    before = params[1].detach().clone()
    optimizer.state[params[0]]["exp_avg"] = torch.zeros(2)
    with pytest.raises(ValueError, match="'exp_avg' has shape"):
        walk(optimizer, params, 1, 2)
    assert torch.equal(params[1], before)
    fewer = state_of(torch.optim.Adam)
    fewer["param_groups"][0]["params"].pop()
    with pytest.raises(ValueError, match="doesn't match the size of optimizer's group"):
        loaded(descend.Adam, fewer)
    fewer["param_groups"].append(fewer["param_groups"][0])
    with pytest.raises(ValueError, match="a different number of parameter groups"):
        loaded(descend.Adam, fewer)


def test_state_dict_hooks() -> None:
    params = fresh()
    optimizer = descend.Adam(params)
    walk(optimizer, params, 0, 1)
    seen: list[str] = []
    optimizer.register_state_dict_pre_hook(lambda o: seen.append("before"))
    optimizer.register_state_dict_post_hook(lambda o, d: OrderedDict(d, tag=1))
    saved = optimizer.state_dict()
    assert saved["tag"] == 1
    optimizer.register_load_state_dict_pre_hook(lambda o, d: seen.append("loading"))
    optimizer.register_load_state_dict_post_hook(lambda o: seen.append("loaded"))
    optimizer.load_state_dict(saved)
    assert seen == ["before", "loading", "loaded"]


def test_names_of_parameters_travel() -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = descend.AdamW(model.named_parameters())
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
    saved = optimizer.state_dict()
    assert saved["param_groups"][0]["param_names"] == ["weight", "bias"]
    del saved["param_groups"][0]["param_names"]
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]


@pytest.mark.filterwarnings("ignore")
def test_distributed_checkpoints() -> None:
    """torch.distributed's own way to take and give state: by names, states made by a step at rate 0."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    model, twin = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    optimizer, other = descend.AdamW(model.parameters(), lr=0.1), descend.AdamW(twin.parameters(), lr=0.3)
    before = [p.detach().clone() for p in model.parameters()]
    get_optimizer_state_dict(model, optimizer)
    same(list(model.parameters()), before, rtol=0, atol=0)
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    set_optimizer_state_dict(twin, other, get_optimizer_state_dict(model, optimizer))
    assert other.param_groups[0]["lr"] == 0.1
    kept, found = optimizer.state[model.weight], other.state[twin.weight]
    for key in ("step", "exp_avg", "exp_avg_sq"):
        assert torch.equal(kept[key], found[key])
