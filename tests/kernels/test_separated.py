"""Means of squares that are taken by column first: where they may be, and what they come to."""

import pytest
import torch

import descend
from descend import rules
from descend.formula import State, chain, in_dialect, rule_of, stage
from descend.formula.vocabulary import maximum, mean, minimum, norm, sqrt, sum
from descend.kernels.cpu import team
from descend.modifiers import clip_global_norm
from descend.optim import ways

ADAFACTOR = rules.get("adafactor")
SHAPES = ((130, 700), (64, 64), (1, 40), (40, 1), (513, 33), (0, 4), (3, 0))


@pytest.fixture(params=["small", "cached", "least", "past"])
def keep(request, monkeypatch):
    """Take tensors of any size for such as are small, lie in the cache, in memory, or between."""
    stages_as(request.param, monkeypatch)
    return request.param


def stages_as(keep, monkeypatch):
    monkeypatch.setattr(ways, "APART", 1 << 60 if keep == "small" else 0)
    monkeypatch.setattr(ways, "LOW", 0)
    monkeypatch.setattr(ways, "CACHED", 1 << 60 if keep in ("small", "cached") else 0)
    monkeypatch.setattr(ways, "UNCACHED", 0 if keep == "past" else 1 << 60)


def parameters(shapes=SHAPES, scale=1.0, seed=0):
    random = torch.Generator().manual_seed(seed)
    params = [torch.randn(s, generator=random).requires_grad_() for s in shapes]
    for p in params:
        p.grad = scale * torch.randn(p.shape, generator=random)
    return params


def stepped(rule, params, steps=3, **options):
    """The parameters after some steps, and what the program of the plan is."""
    optimizer = descend.optimizer(rule, **options)(params)
    for k in range(steps):
        optimizer.step()
        for p in params:
            p.grad *= 0.5 + k
    (plan,) = optimizer._staged
    return [p.detach().clone() for p in params], plan


def both(monkeypatch, rule, change=lambda params: None, **options):
    """With and without means by column."""
    found = []
    for keep in ("small", "past"):
        stages_as(keep, monkeypatch)
        params = parameters(**options)
        change(params)
        found.append(stepped(rule, params))
    (least, before), (past, after) = found
    assert sum_of(before) is None
    assert sum_of(after) is not None
    return least, past, after


def sum_of(plan):
    """Of every tensor the mean as it is written, as the last step has left it; None where there is none."""
    written = [n for one in plan.program.passes if one.unless is not None for n in one.reductions]
    if not written:
        return None
    return plan.table._kept["records"][:, plan.table._records.sums[written[0]]]


@pytest.mark.parametrize("name", ["torch", "keras", "optax", "paper"])
def test_the_mean_by_column_is_the_mean(name, monkeypatch):
    rule = ADAFACTOR if name == "torch" else in_dialect(ADAFACTOR, name)
    least, past, plan = both(monkeypatch, rule)
    for a, b in zip(least, past, strict=True):
        assert torch.allclose(a, b, rtol=2e-6, atol=2e-6)
    full = [k for k, p in enumerate(past) if p.numel()]
    assert not sum_of(plan)[full].any()  # nobody has taken the mean as it is written


def zero_row(params):
    params[0].grad[3] = 0


def zero_column(params):
    params[0].grad[:, 3] = 0


def tiny(params):
    params[0].grad *= 1e-9


def tiny_column(params):
    params[0].grad[:, 5] *= 1e-12


def unusual(value):
    def change(params):
        params[0].grad[2, 1] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        *(tiny, tiny_column),
        *map(unusual, (float("inf"), -float("inf"), float("nan"), 1e30)),
    ],
    ids=["tiny", "tiny column", "inf", "-inf", "nan", "large"],
)
def test_where_it_may_not_be_the_mean_is_taken_as_it_is_written(change, monkeypatch):
    least, past, plan = both(monkeypatch, ADAFACTOR, change, shapes=((130, 700), (70, 33)))
    assert torch.equal(least[0].isnan(), past[0].isnan())
    assert sum_of(plan)[0] != 0
    assert sum_of(plan)[1] == 0
    assert torch.equal(least[0].nan_to_num(), past[0].nan_to_num())
    assert torch.allclose(least[1], past[1], rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(
    "change",
    [None, zero_row, zero_column, tiny, tiny_column, *map(unusual, (float("inf"), float("nan"), 1e30))],
    ids=["usual", "row", "column", "tiny", "tiny column", "inf", "nan", "large"],
)
def test_a_bound_that_nothing_reaches_may_be_left_out_to_the_same_bits(change, monkeypatch):
    found = []
    stages_as("small", monkeypatch)
    for bounded in (True, False):
        if bounded:
            monkeypatch.setattr(ways, "stage", lambda rule, keep="least", apart=False: stage(rule))
        else:
            monkeypatch.setattr(ways, "stage", stage)
        params = parameters(((130, 700), (70, 33)))
        if change is not None:
            change(params)
        new, plan = stepped(ADAFACTOR, params)
        found.append(new)
        conditions = [n for n in plan.program.passes[-1].scalars.row if n.op == "le"]
        assert len(conditions) == (not bounded)
    for a, b in zip(*found, strict=True):
        assert torch.equal(a.isnan(), b.isnan())
        assert torch.equal(a.nan_to_num(), b.nan_to_num())


def test_it_follows_torch(keep):
    ours, theirs = parameters(SHAPES[:5], 0.1), parameters(SHAPES[:5], 0.1)
    mine, other = descend.optimizer(ADAFACTOR)(ours), torch.optim.Adafactor(theirs)
    for k in range(5):
        for optimizer, params in ((mine, ours), (other, theirs)):
            optimizer.step()
            for p in params:
                p.grad.mul_(-0.9 if k % 2 else 1.3)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_bits_are_the_same_with_any_number_of_threads(keep, monkeypatch):
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        monkeypatch.setattr(team, "SHARE", 1)
        found.append(stepped(ADAFACTOR, parameters(((700, 900), (64, 64))))[0])
    torch.set_num_threads(2)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_it_goes_with_clipping_by_everything_and_with_groups(keep):
    rule = chain(clip_global_norm, ADAFACTOR)
    ours, alone = parameters(SHAPES[:3]), parameters(SHAPES[:3])
    groups = [{"params": ours[:1]}, {"params": ours[1:], "lr": 1e-2}]
    mine, other = descend.optimizer(rule)(groups), descend.optimizer(ADAFACTOR)(alone)
    for _ in range(3):
        torch.nn.utils.clip_grad_norm_(alone, 1.0)
        other.step()
        mine.step()
    for a, b in zip(ours, alone, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def separates(rule):
    return any(one.unless is not None for one in stage(rule_of(rule), apart=True).passes)


def test_what_is_separated_and_what_is_not():
    def by_norm(p, g, r=State(shape="rows"), c=State(shape="columns"), lr=0.1):
        r = r + mean(g**2, "rows")
        c = c + mean(g**2, "columns")
        x = g / sqrt(r * c / mean(r))
        p = p - lr * x / norm(x)
        return p, r, c

    def no_square(p, g, r=State(shape="rows"), c=State(shape="columns"), lr=0.1):
        r = r + mean(g**2, "rows")
        c = c + mean(g**2, "columns")
        x = g / sqrt(r) / sqrt(c)
        p = p - lr * x / sum(x)
        return p, r, c

    def one_sided(p, g, r=State(shape="rows"), lr=0.1):
        r = r + mean(g**2, "rows")
        x = g / sqrt(r)
        p = p - lr * x / norm(x)
        return p, r

    def in_a_sum(p, g, r=State(shape="rows"), c=State(shape="columns"), lr=0.1):
        r = r + mean(g**2, "rows")
        c = c + mean(g**2, "columns")
        x = g / (sqrt(r) * sqrt(c)) + p
        p = p - lr * x / norm(x)
        return p, r, c

    def late_rows(p, g, r=State(shape="rows"), c=State(shape="columns"), lr=0.1):
        r = r + mean(g**2, "rows")
        c = c + mean(g**2, "columns")
        x = g / sqrt(r + mean(r)) / sqrt(c)
        p = p - lr * x / norm(x)
        return p, r, c

    def bounded_below(p, g, r=State(shape="rows"), c=State(shape="columns"), lr=0.1):
        r = r + mean(g**2, "rows")
        c = c + mean(g**2, "columns")
        x = g * maximum(1 / sqrt(r) / sqrt(c), 1e-3)
        p = p - lr * x / norm(x)
        return p, r, c

    def old_columns(p, g, r=State(shape="rows"), c=State(shape="columns"), lr=0.1):
        r = r + mean(g**2, "rows")
        x = g / sqrt(r) / (1 + c)
        c = c + mean(g**2, "columns")
        p = p - lr * x / norm(x)
        return p, r, c

    def bounded_altogether(p, g, r=State(shape="rows"), c=State(shape="columns"), lr=0.1):
        r = r + mean(g**2, "rows")
        c = c + mean(g**2, "columns")
        x = minimum(g / sqrt(r) / sqrt(c), 3)
        p = p - lr * x / norm(x)
        return p, r, c

    assert separates(by_norm)
    for rule in (no_square, one_sided, in_a_sum, late_rows, bounded_below, old_columns, bounded_altogether):
        assert not separates(rule), rule.__name__
    assert not any(one.unless is not None for one in stage(ADAFACTOR).passes)


def test_all_that_a_row_needs_of_itself_is_done_while_it_is_in_the_cache():
    program = stage(ADAFACTOR, "past", apart=True)
    assert [one.domain for one in program.passes] == [
        *("element", "rows", "element"),
        *("columns", "element", "element"),
    ]
    assert program.leaders == (0, 0, 0, 3, 4, 5)
    assert [one.unless is not None for one in program.passes] == [False] * 4 + [True, False]


@pytest.mark.parametrize("scale", [1e15, 1e-15, 1.0])
def test_squares_that_float32_would_lose_are_taken_as_they_are_written(keep, scale):
    def crooked(p, g, r=State(shape="rows"), c=State(shape="columns"), lr=0.1):
        r = r + mean(g**2, "rows")
        c = c + mean(g**2, "columns")
        x = g * sqrt(r) / sqrt(c)
        p = p - lr * x / norm(x)
        return p, r, c

    params = parameters(((64, 300),), scale)
    p, g = params[0].detach().double(), params[0].grad.double()
    (new,), plan = stepped(rule_of(crooked), params, steps=1)
    x = g * (g**2).mean(1, keepdim=True).sqrt() / (g**2).mean(0, keepdim=True).sqrt()
    assert torch.allclose(new.double(), p - 0.1 * x / x.norm(), rtol=1e-6, atol=1e-6)
    if keep != "small":
        assert (sum_of(plan)[0] != 0) == (scale != 1)


def test_a_root_of_what_is_negative_stays_no_number(keep):
    def imaginary(p, g, r=State(shape="rows"), c=State(shape="columns"), lr=0.1):
        r = r + mean(g**2, "rows")
        c = c + mean(g**2, "columns")
        p = p - lr * g / norm(g / sqrt(-r) / sqrt(c))
        return p, r, c

    (new,), _ = stepped(rule_of(imaginary), parameters(((64, 300),)), steps=1)
    assert new.isnan().all()


def test_a_norm_by_column_first_and_a_bound_of_two_factors(keep):
    def bounded(p, g, r=State(shape="rows"), c=State(shape="columns"), lr=0.1, top=5.0):
        r = r + mean(g**2, "rows")
        c = c + mean(g**2, "columns")
        x = -(g * minimum(top, 2 / sqrt(r) / sqrt(c)))
        p = p - lr * x / norm(x)
        return p, r, c

    for scale, reached in ((1.0, False), (0.5, True)):
        params = parameters(((64, 300),), scale)
        p, g = params[0].detach().double(), params[0].grad.double()
        (new,), plan = stepped(rule_of(bounded), params, steps=1)
        x = -g * (2 / (g**2).mean(1, keepdim=True).sqrt() / (g**2).mean(0, keepdim=True).sqrt()).clamp(max=5)
        assert torch.allclose(new.double(), p - 0.1 * x / x.norm(), rtol=1e-6, atol=1e-6)
        if keep != "small":
            assert (sum_of(plan)[0] != 0) == reached


def trust(p, u):
    u = u * norm(p) / norm(u)
    return u


def mirrored(p, g, r=State(shape="rows"), c=State(shape="columns"), lr=0.1):
    r = 0.5 * r + mean(g**2, "rows")
    c = 0.5 * c + mean(g**2, "columns")
    x = g / (sqrt(r) * sqrt(c / mean(c)))
    p = p - lr * x / norm(x)
    return p, r, c


def late_columns(p, g, r=State(shape="rows"), c=State(shape="columns"), q=State(shape="columns"), lr=0.1):
    r = 0.5 * r + mean(g**2, "rows")
    c = 0.5 * c + mean(g**2, "columns")
    q = 0.5 * q + c * mean(c)
    x = g / sqrt(r) / sqrt(c)
    p = p - lr * x / norm(x) * mean(q)
    return p, r, c, q


def one_in_the_other(p, g, r=State(shape="rows"), c=State(shape="columns"), lr=0.1):
    r = 0.5 * r + mean(g**2, "rows")
    c = 0.5 * c + mean(g**2, "columns")
    x = g / sqrt(r) / sqrt(c)
    u = x / maximum(1, sqrt(mean(x**2)) / 0.1)
    p = p - lr * norm(p) / norm(u) * u
    return p, r, c


def growing(p, g, r=State(shape="rows"), c=State(shape="columns"), lr=0.1):
    r = mean(g**2, "rows") + 0 * r
    c = mean(g**2, "columns") + 0 * c
    x = g / sqrt(r) * c
    p = p - lr * x / norm(x)
    return p, r, c


@pytest.mark.parametrize("scale", [1.0, 1e-11])
@pytest.mark.parametrize(
    "rule",
    [
        chain(in_dialect(ADAFACTOR, "keras"), rule_of(trust)),
        *map(rule_of, (mirrored, late_columns, one_in_the_other, growing)),
    ],
    ids=lambda rule: rule.name,
)
def test_what_hangs_on_such_a_mean_or_on_the_columns_waits_for_it(rule, scale, keep, monkeypatch):
    new, _ = stepped(rule, parameters(((70, 300), (64, 33)), scale))
    stages_as("small", monkeypatch)
    least, _ = stepped(rule, parameters(((70, 300), (64, 33)), scale))
    start = parameters(((70, 300), (64, 33)), scale)
    for a, b, p in zip(new, least, start, strict=True):
        assert (a - b).norm() <= 1e-5 * (b - p.detach()).norm()
        assert scale < 1 or (b - p.detach()).norm() > 0
