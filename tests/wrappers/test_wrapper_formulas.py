"""Every wrapper against its paper's algorithm, written once more in float64 NumPy, and in its limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from wrapper_cases import BASES, Arrays, Problem, Sgd, equal, furthest

from descend.wrappers import ASAM, EMA, SAM, SWA, Accumulate, Lookahead, ScheduleFree

STEPS = 12
CLOSE = 1e-13  # some hundred roundings of float64, on numbers of about 1


def length(vectors: Arrays) -> float:
    return float(np.sqrt(sum(np.sum(v * v) for v in vectors)))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("rho", [0.05, 1.0])
def test_sam(rho: float, momentum: float) -> None:
    """Foret et al. 2021, Algorithm 1."""
    problem = Problem()
    problem.steps(SAM(torch.optim.SGD(problem.params, lr=0.1, momentum=momentum), rho=rho), 0, STEPS)
    ws, base = problem.start, Sgd(0.1, momentum)
    for t in range(STEPS):
        g = problem.gradient(ws, t)
        moved = [w + rho * x / length(g) for w, x in zip(ws, g, strict=True)]
        ws = base(ws, problem.gradient(moved, t))
    assert furthest(problem.weights(), ws) < 1e-11  # 1e-12 is added to the norm


@pytest.mark.parametrize("eta", [0.0, 0.01, 0.5])
def test_asam(eta: float) -> None:
    """Kwon et al. 2021, Algorithm 1; only what is called a weight is scaled."""
    problem = Problem()
    problem.steps(ASAM(torch.optim.SGD(problem.named, lr=0.1), rho=0.5, eta=eta), 0, STEPS)
    ws, base = problem.start, Sgd(0.1)
    scaled = ["weight" in name for name, _ in problem.named]
    assert scaled == [True, False, False, True]
    for t in range(STEPS):
        g = problem.gradient(ws, t)
        scale = [np.abs(w) + eta if s else np.ones_like(w) for w, s in zip(ws, scaled, strict=True)]
        size = length([s * x for s, x in zip(scale, g, strict=True)])
        moved = [w + 0.5 * s * s * x / size for w, s, x in zip(ws, scale, g, strict=True)]
        ws = base(ws, problem.gradient(moved, t))
    assert furthest(problem.weights(), ws) < CLOSE


def test_asam_takes_the_names_from_the_model() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 2))
    ends = []
    for named in (True, False):
        copy = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 2))
        copy.load_state_dict(model.state_dict())
        params = copy.named_parameters() if named else copy.parameters()
        opt = ASAM(torch.optim.SGD(params, lr=0.1), model=None if named else copy)
        torch.nn.functional.mse_loss(copy(torch.ones(2, 3)), torch.ones(2, 2)).backward()
        opt.first_step()
        ends.append([p.detach().clone() for p in copy.parameters()])
    assert equal(*ends)


@pytest.mark.parametrize(("k", "alpha"), [(1, 0.3), (3, 0.5), (5, 0.8)])
def test_lookahead(k: int, alpha: float) -> None:
    """Zhang et al. 2019, Algorithm 1: an outer loop of slow steps, an inner one of fast steps."""
    problem = Problem()
    opt = Lookahead(torch.optim.SGD(problem.params, lr=0.1, momentum=0.9), k=k, alpha=alpha)
    slow, base, t = problem.start, Sgd(0.1, 0.9), 0
    for _ in range(4):
        fast = slow
        for _ in range(k):
            problem.steps(opt, t, t + 1)
            fast = base(fast, problem.gradient(fast, t))
            t += 1
        slow = [s + alpha * (f - s) for s, f in zip(slow, fast, strict=True)]
        assert furthest(problem.weights(), slow) < CLOSE
    problem.steps(opt, t, t + 1)
    with opt.applied():
        inside = problem.weights()
    assert furthest(inside, problem.weights() if k == 1 else slow) < CLOSE


def weights_of_the_average(count: int, lr: float, warmup: int, r: float, power: float) -> list[float]:
    rates = [lr * min(1, t / warmup) if warmup else lr for t in range(1, count + 1)]
    return [t**r * max(rates[:t]) ** power for t in range(1, count + 1)]


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize(("warmup", "r", "power", "decay"), [(0, 0, 2, 0), (5, 0, 2, 0.1), (4, 1.5, 1, 0.3)])
def test_schedule_free_sgd(beta: float, warmup: int, r: float, power: float, decay: float) -> None:
    """Defazio et al. 2024, section 1, the average as the weighted mean of all z that it is."""
    problem = Problem()
    opt = ScheduleFree(torch.optim.SGD(problem.params, lr=0.1), beta, decay, warmup, r, power)
    problem.steps(opt, 0, STEPS)
    weights = weights_of_the_average(STEPS, 0.1, warmup, r, power)
    x = y = z = problem.start
    met: list[Arrays] = []
    for t in range(STEPS):
        rate = 0.1 * min(1, (t + 1) / warmup) if warmup else 0.1
        g = problem.gradient(y, t)
        z = [a - rate * (d + decay * b) for a, b, d in zip(z, y, g, strict=True)]
        met.append(z)
        total = sum(weights[: t + 1])
        x = [sum(w * zs[n] for w, zs in zip(weights, met, strict=False)) / total for n in range(len(z))]
        y = [(1 - beta) * a + beta * b for a, b in zip(z, x, strict=True)]
    assert furthest(problem.weights(), y) < CLOSE
    opt.eval()
    assert furthest(problem.weights(), x) < CLOSE


def test_schedule_free_weighs_by_the_largest_rate_so_far() -> None:
    problem = Problem()
    opt = ScheduleFree(torch.optim.SGD(problem.params, lr=0.1), beta=0)
    y, total, x = problem.start, 0.0, [np.zeros_like(w) for w in problem.start]
    for t, (rate, largest) in enumerate([(0.05, 0.05), (0.2, 0.2), (0.1, 0.2), (0.02, 0.2)]):
        opt.param_groups[0]["lr"] = rate
        problem.steps(opt, t, t + 1)
        y = [w - rate * g for w, g in zip(y, problem.gradient(y, t), strict=True)]
        x = [a + largest**2 * b for a, b in zip(x, y, strict=True)]
        total += largest**2
    opt.eval()
    assert furthest(problem.weights(), [a / total for a in x]) < CLOSE


@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_schedule_free_adamw(decay: float) -> None:
    """Defazio et al. 2024, Algorithm 1: AdamW without a first moment, the decay at y."""
    problem = Problem()
    adam = torch.optim.Adam(problem.params, lr=0.05, betas=(0.0, 0.95))
    opt = ScheduleFree(adam, beta=0.9, weight_decay=decay, warmup_steps=6)
    problem.steps(opt, 0, STEPS)
    weights = weights_of_the_average(STEPS, 0.05, 6, 0, 2)
    x = y = z = problem.start
    v = [np.zeros_like(w) for w in z]
    for t in range(STEPS):
        rate = 0.05 * min(1, (t + 1) / 6)
        g = problem.gradient(y, t)
        v = [0.95 * a + 0.05 * d * d for a, d in zip(v, g, strict=True)]
        hats = [np.sqrt(a / (1 - 0.95 ** (t + 1))) + 1e-8 for a in v]
        z = [a - rate * d / h - rate * decay * b for a, b, d, h in zip(z, y, g, hats, strict=True)]
        c = weights[t] / sum(weights[: t + 1])
        x = [(1 - c) * a + c * b for a, b in zip(x, z, strict=True)]
        y = [0.1 * a + 0.9 * b for a, b in zip(z, x, strict=True)]
    assert furthest(problem.weights(), y) < CLOSE


@pytest.mark.parametrize("corrected", [False, True])
def test_ema(corrected: bool) -> None:
    """From the start weights; corrected, from zero and divided by 1 - decay**t as in Adam."""
    problem = Problem()
    opt = EMA(torch.optim.SGD(problem.params, lr=0.1), decay=0.8, bias_correction=corrected)
    ws, base = problem.start, Sgd(0.1)
    average = [np.zeros_like(w) if corrected else w for w in ws]
    for t in range(STEPS):
        problem.steps(opt, t, t + 1)
        ws = base(ws, problem.gradient(ws, t))
        average = [0.8 * a + 0.2 * w for a, w in zip(average, ws, strict=True)]
        expected = [a / (1 - 0.8 ** (t + 1)) if corrected else a for a in average]
        with opt.applied():
            assert furthest(problem.weights(), expected) < CLOSE
        assert furthest(problem.weights(), ws) < CLOSE


def test_swa() -> None:
    """The plain mean of the weights after steps 5, 7, 9 and 11."""
    problem = Problem()
    opt = SWA(torch.optim.SGD(problem.params, lr=0.1), start=3, every=2)
    ws, base, met = problem.start, Sgd(0.1), []
    for t in range(STEPS):
        problem.steps(opt, t, t + 1)
        ws = base(ws, problem.gradient(ws, t))
        if t + 1 in (5, 7, 9, 11):
            met.append(ws)
    with opt.applied():
        assert furthest(problem.weights(), [np.mean([m[n] for m in met], axis=0) for n in range(4)]) < CLOSE


@pytest.mark.parametrize("base", BASES)
def test_limits_are_the_base_to_the_bit(base: str) -> None:
    ends = {}
    for name, wrap in {
        "base": lambda b: b,
        "SAM, rho 0": lambda b: SAM(b, rho=0),
        "ASAM, rho 0": lambda b: ASAM(b, rho=0),
        "Lookahead, alpha 1": lambda b: Lookahead(b, k=2, alpha=1),
        "EMA": EMA,
        "EMA corrected": lambda b: EMA(b, bias_correction=True),
        "SWA": SWA,
        "Accumulate, every 1": lambda b: Accumulate(b, every=1),
    }.items():
        problem = Problem(torch.float32)
        problem.steps(wrap(BASES[base](problem.named)), 0, STEPS)
        ends[name] = problem.bits()
    for name, weights in ends.items():
        assert equal(weights, ends["base"]), name


@pytest.mark.parametrize("base", BASES)
def test_limits_of_the_averages_to_the_bit(base: str) -> None:
    for make in (
        lambda b: EMA(b, decay=0),
        lambda b: EMA(b, decay=0, bias_correction=True),
        lambda b: SWA(b, start=STEPS - 1),
        lambda b: ScheduleFree(b, beta=1),  # primal averaging: the gradient is taken at the average itself
    ):
        problem = Problem(torch.float32)
        opt = make(BASES[base](problem.params))
        problem.steps(opt, 0, STEPS)
        before = problem.bits()
        with opt.applied():
            assert equal(problem.bits(), before)
    problem, plain = Problem(torch.float32), Problem(torch.float32)
    opt = ScheduleFree(BASES[base](problem.params), beta=0)  # Polyak-Ruppert: z is the base's own path
    problem.steps(opt, 0, STEPS)
    plain.steps(BASES[base](plain.params), 0, STEPS)
    assert equal(problem.bits(), plain.bits())


def test_schedule_free_beta_0_evaluates_the_mean_of_the_path() -> None:
    problem, plain = Problem(), Problem()
    opt = ScheduleFree(torch.optim.SGD(problem.params, lr=0.1), beta=0)
    swa = SWA(torch.optim.SGD(plain.params, lr=0.1))
    problem.steps(opt, 0, STEPS)
    plain.steps(swa, 0, STEPS)
    with opt.applied(), swa.applied():
        assert furthest(problem.weights(), plain.weights()) < CLOSE


def test_ema_decay_1_stays_where_it_started() -> None:
    problem = Problem(torch.float32)
    start = problem.bits()
    opt = EMA(torch.optim.SGD(problem.params, lr=0.1), decay=1)
    problem.steps(opt, 0, 3)
    with opt.applied():
        assert equal(problem.bits(), start)


def test_a_value_of_one_group_is_its_own() -> None:
    problem, plain = Problem(torch.float32), Problem(torch.float32)
    groups = [{"params": problem.params[:2]}, {"params": problem.params[2:]}]
    opt = Lookahead(torch.optim.SGD(groups, lr=0.1), k=2, alpha=0.5)
    opt.param_groups[1]["lookahead_alpha"] = 1.0
    problem.steps(opt, 0, 2)
    plain.steps(torch.optim.SGD(plain.params, lr=0.1), 0, 2)
    assert equal(problem.bits()[2:], plain.bits()[2:])
    assert not torch.equal(problem.bits()[0], plain.bits()[0])
