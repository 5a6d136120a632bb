"""Rules that sum over tensors, as optimizers: against torch, over groups and dtypes, with lasting state."""

import copy

import pytest
import torch

import descend
from descend import rules
from descend.formula import State, chain, stage
from descend.formula.vocabulary import global_norm, global_sum, maximum, mean, minimum, norm, sqrt
from descend.kernels.cpu import render
from descend.kernels.cpu.compiler import is_x86
from descend.kernels.cpu.driver import Driver
from descend.modifiers import agc, cautious, clip_global_norm
from descend.optim import ways


def lamb_like(p, g, t, m, v, lr=1e-2, beta1=0.9, beta2=0.99, eps=1e-6):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    u = m / (1 - beta1**t) / (sqrt(v / (1 - beta2**t)) + eps)
    p = p - lr * norm(p) / norm(u) * u
    return p, m, v


def clip_all(g, most=1.0):
    g = g * minimum(1, most / (global_norm(g) + 1e-6))
    return g


def along(p, g, d=State(scalar=True, init=1e-3), start=State(init="p"), lr=0.1):
    d = maximum(d, global_sum(g * (start - p)))
    p = p - lr * d * g
    return p, d, start


def factored(
    p, g, t, r=State("row_var", shape="rows"), c=State("col_var", shape="columns"), lr=1e-2, eps=1.1920929e-07
):
    w = t**-0.8
    alpha = maximum(1e-3, sqrt(mean(p**2))) * minimum(lr, 1 / sqrt(t))
    r = (1 - w) * r + w * mean(g**2, "rows")
    c = (1 - w) * c + w * mean(g**2, "columns")
    u = g / sqrt(maximum(r * c / maximum(mean(r), eps), eps * eps))
    p = p - alpha / maximum(1, sqrt(mean(u**2))) * u
    return p, r, c


SHAPES = ((33, 40), (64,), (5, 7, 3), (), (0,), (40_000,))


def parameters(shapes=SHAPES, dtype=torch.float32, seed=1):
    random = torch.Generator().manual_seed(seed)
    return [
        torch.nn.Parameter(torch.randn(s, generator=random, dtype=torch.float64).to(dtype)) for s in shapes
    ]


def gradients(params, seed):
    random = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = 3 * torch.randn(p.shape, generator=random, dtype=torch.float64).to(p.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "formula", [rules.get("lamb"), chain(clip_global_norm, rules.get("lamb")), lamb_like]
)
def test_what_fits_the_cache_or_goes_past_it_comes_to_the_same_bits(formula, dtype, monkeypatch):
    found = []
    much = 1 << 30
    for keep, *limits in (
        ("cached", much, 0, 0),
        ("past", 0, 0, much),
        ("least", 0, much, much),
        ("least", 0, 0, 0),
    ):
        for name, limit in zip(("CACHED", "UNCACHED", "SPARE"), limits, strict=True):
            monkeypatch.setattr(ways, name, limit)
        params = parameters(((300, 301), (7,), (40_000,)), dtype)
        optimizer = descend.optimizer(formula)(params)
        for k in range(3):
            gradients(params, k)
            optimizer.step()
        states = [x for p in params for x in optimizer.state[p].values() if torch.is_tensor(x)]
        found.append([*params, *states])
        (plan,) = optimizer._staged
        assert len(plan.program.temporaries) == (keep != "least" and dtype.itemsize > 2)
        assert bool(plan.program.past) == (keep == "past" and dtype.itemsize > 2)
    for others in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(found[0], others, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_what_is_kept_anyway_goes_past_the_cache_too_however_much_it_is(dtype, monkeypatch):
    monkeypatch.setattr(ways, "CACHED", 0)
    monkeypatch.setattr(ways, "SPARE", 0)
    found = []
    for limit in (0, 1 << 30):
        monkeypatch.setattr(ways, "UNCACHED", limit)
        params = parameters(((300, 301), (7,), (40_000,)), dtype)
        optimizer = descend.optimizer(chain(rules.get("adamw"), cautious))(params)
        for k in range(3):
            gradients(params, k)
            optimizer.step()
        (plan,) = optimizer._staged
        assert len(plan.program.kept) == 1
        assert plan.program.past == (set() if limit else {*plan.program.kept})
        found.append([*params, *(optimizer.state[p]["exp_avg_sq"] for p in params)])
    assert all(torch.equal(x, y) for x, y in zip(*found, strict=True))


def test_temporaries_that_are_written_past_the_cache_begin_a_line_wherever_parameters_lie(monkeypatch):
    monkeypatch.setattr(ways, "CACHED", 0)
    monkeypatch.setattr(ways, "UNCACHED", 0)
    found = []
    for first in (0, 1, 5):
        memory = torch.linspace(-1, 1, 40_000)
        p = torch.empty(40_000 + first)[first:].copy_(memory).requires_grad_()
        p.grad = torch.empty(40_003)[3:].copy_(memory.flip(0) ** 3)
        optimizer = descend.optimizer("lamb")([p])
        optimizer.step()
        (plan,) = optimizer._staged
        assert plan.program.past
        found.append(p.detach())
    assert all(torch.equal(found[0], x) for x in found)


def test_rows_keep_nothing_for_what_would_go_past_the_cache(monkeypatch):
    monkeypatch.setattr(ways, "CACHED", 0)
    monkeypatch.setattr(ways, "UNCACHED", 0)
    for rule, past in (("lamb", True), (chain(agc, rules.get("lamb")), False)):
        params = parameters(((30, 40),), torch.float32)
        optimizer = descend.optimizer(rule)(params)
        gradients(params, 0)
        optimizer.step()
        (plan,) = optimizer._staged
        assert bool(plan.program.past) == past


def test_what_goes_past_the_cache_is_not_fetched(monkeypatch):
    monkeypatch.setattr(render, "prefetches_far", lambda: False)
    program = stage(rules.get("lamb"), "past")
    text = Driver(program, ("float32",) * len(program.operands), 16).module()
    (kept,) = program.kept
    lines = text.split("define internal void @either0")[1].split("define internal")[0].splitlines()
    ahead = {line.split(", ptr ")[1].split(",")[0] for line in lines if "getelementptr i8," in line}
    places = {word: at(lines, word) for word in program.operands}
    assert places["p"] & ahead
    assert places["m"] & ahead
    assert places[kept]
    assert not places[kept] & ahead


def at(lines, word):
    """The names of the addresses of an operand's elements."""
    return {line.split(" = ")[0].strip() for line in lines if f"ptr %of.{word}, i64" in line}


def test_past_the_cache_go_temporaries_alone_and_a_fence_follows():
    def of(keep):
        program = stage(rules.get("lamb"), keep)
        return Driver(program, ("float32",) * len(program.operands), 16).module()

    first, second = of("past").split("define internal void @body1")
    stored = [line for line in first.splitlines() if "!nontemporal" in line]
    assert stored
    assert "!nontemporal !0" not in second
    assert all("align 64" in line for line in stored)
    assert of("past").count("call void @llvm.x86.sse.sfence()") == is_x86()
    assert "nontemporal" not in of("cached") + of("least")


def test_clipping_by_the_norm_of_everything_is_clip_grad_norm_and_adamw():
    ours, theirs = parameters(), parameters()
    mine = descend.optimizer(chain(clip_all, descend.rules.get("adamw")))(ours[:3])
    mine.add_param_group({"params": ours[3:], "lr": 1e-2})
    other = torch.optim.AdamW([{"params": theirs[:3]}, {"params": theirs[3:], "lr": 1e-2}])
    for step in range(5):
        gradients(ours, step)
        gradients(theirs, step)
        if step == 2:
            ours[1].grad = theirs[1].grad = None
        torch.nn.utils.clip_grad_norm_(theirs, 1.0)
        other.step()
        mine.step()
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("shape", [(64, 48), (33, 700), (1, 5), (5, 1)])
def test_a_factored_rule_is_torchs_adafactor(shape):
    (a,), (b,) = parameters([shape]), parameters([shape])
    mine, other = descend.optimizer(factored)([a]), torch.optim.Adafactor([b], lr=1e-2, weight_decay=0.0)
    for step in range(20):
        gradients([a], step)
        gradients([b], step)
        mine.step()
        other.step()
    assert torch.allclose(a, b, rtol=2e-6, atol=1e-6)
    assert mine.state[a]["row_var"].shape == (shape[0], 1)
    assert mine.state[a]["col_var"].shape == (1, shape[1])
    assert "back end: cpu" in repr(mine)


def test_a_matrix_that_does_not_lie_row_by_row_takes_the_torch_back_end():
    (a,), b = parameters([(6, 9)]), torch.nn.Parameter(torch.empty(9, 6).t())
    b.data.copy_(a.data)
    one, two = descend.optimizer(factored)([a]), descend.optimizer(factored)([b])
    for step in range(3):
        gradients([a], step)
        gradients([b], step)
        one.step()
        two.step()
    assert "back end: torch" in repr(two)
    assert torch.allclose(a, b, rtol=1e-6)
    vector = parameters([(4,)])
    gradients(vector, 0)
    opt = descend.optimizer(factored)(vector)
    with pytest.raises(descend.UsageError, match="one number for each of the rows of a matrix"):
        opt.step()


def test_a_sum_over_everything_goes_over_dtypes_layouts_and_back_ends():
    whole = torch.arange(1.0, 13.0)
    params = [
        torch.nn.Parameter(torch.zeros(4)),
        torch.nn.Parameter(torch.zeros(3, dtype=torch.float64)),
        torch.nn.Parameter(torch.zeros(10)[::2]),
    ]
    for p, g in zip(params, (whole[:4], whole[4:7].double(), whole[7:]), strict=True):
        p.grad = g

    def plain(p, g, lr=1.0):
        p = p - lr * g / global_norm(g)
        return p

    descend.optimizer(plain)(params).step()
    found = torch.cat([p.detach().float() for p in params])
    assert torch.allclose(found, -whole / whole.norm(), rtol=1e-6)


@pytest.mark.parametrize("formula", [lamb_like, along])
@pytest.mark.parametrize("how", ["state dict", "deepcopy"])
def test_a_run_goes_on_to_the_bit_from_its_state(formula, how):
    made = descend.optimizer(formula)
    first, second = parameters(), parameters()
    one = made(first)
    for step in range(3):
        gradients(first, step)
        one.step()
    if how == "deepcopy":
        second, two = copy.deepcopy((first, one))
    else:
        for p, q in zip(first, second, strict=True):
            q.data.copy_(p.data)
        two = made(second)
        two.load_state_dict(copy.deepcopy(one.state_dict()))
    for step in range(3, 6):
        gradients(first, step)
        gradients(second, step)
        one.step()
        two.step()
    for p, q in zip(first, second, strict=True):
        assert torch.equal(p, q)
        assert all(torch.equal(x, two.state[q][key]) for key, x in one.state[p].items())


def test_a_scalar_state_that_hangs_on_a_sum_is_one_number_for_all():
    params = parameters([(3,), (2, 2)])
    opt = descend.optimizer(along)(params)
    before = [p.detach().double().clone() for p in params]
    for step in range(4):
        gradients(params, step)
        parts = [
            (p.grad.double() * (b - p.detach().double())).sum() for p, b in zip(params, before, strict=True)
        ]
        wanted = max(float(opt.state[params[0]]["d"]) if step else 1e-3, float(sum(parts)))
        opt.step()
        assert [float(opt.state[p]["d"]) for p in params] == pytest.approx([wanted] * 2, rel=1e-6)


def test_differentiable_is_refused_where_a_rule_sums():
    params = parameters([(3,)])
    opt = descend.optimizer(lamb_like)(params, differentiable=True)
    gradients(params, 0)
    with pytest.raises(descend.UsageError, match="has no differentiable form"):
        opt.step()
