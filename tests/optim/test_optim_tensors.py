"""Parameters and gradients of every kind, and what may happen to them between two steps."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from optim_runs import CASES, copies, fresh, ours, same, theirs, walk

import descend

Change = Callable[[torch.Tensor], None]


def backend(optimizer: descend.FormulaOptimizer) -> set[str]:
    return {plan.backend for plan in optimizer._plans}


@pytest.mark.parametrize("case", CASES)
def test_every_parameter_counts_its_own_steps(case: str) -> None:
    params, mirror = fresh(), fresh()
    for optimizer, tensors in ((ours(case)(params), params), (theirs(case)(mirror), mirror)):
        for step in range(8):
            walk(optimizer, tensors, step, step + 1, skip=step % 4)
    same(params, mirror, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", ["Adam", "SGD momentum", "NAdam"])
def test_a_parameter_that_wakes_late(case: str) -> None:
    params, mirror = fresh(), fresh()
    for optimizer, tensors in ((ours(case)(params), params), (theirs(case)(mirror), mirror)):
        for step in range(6):
            walk(optimizer, tensors, step, step + 1, skip=0 if step < 3 else None)
    same(params, mirror)


@pytest.mark.parametrize("case", CASES)
def test_a_frozen_model_stays(case: str) -> None:
    params = fresh()
    optimizer = ours(case)(params)
    before = copies(params)
    optimizer.step()
    same(params, before, rtol=0, atol=0)
    walk(optimizer, params, 0, 1)
    for p in params:
        p.grad = None
    before = copies(params)
    optimizer.step()
    same(params, before, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (1, 1, 1)])
def test_small_shapes(shape: tuple[int, ...]) -> None:
    params, mirror = fresh(shapes=(shape, (4,))), fresh(shapes=(shape, (4,)))
    optimizer = descend.AdamW(params)
    walk(optimizer, params, 0, 2)
    walk(optimizer, params, 2, 4, skip=1)
    other = torch.optim.AdamW(mirror)
    walk(other, mirror, 0, 2)
    walk(other, mirror, 2, 4, skip=1)
    same(params, mirror)
    assert optimizer.state[params[0]]["step"] == 4


CHANGES: dict[str, Change] = {
    "data": lambda p: setattr(p, "data", p.data.clone() + 1),
    "view": lambda p: setattr(p, "data", torch.cat([p.data, p.data])[: len(p)] + 1),
    "channels last": lambda p: setattr(p, "data", p.data.to(memory_format=torch.channels_last)),
    "strided": lambda p: setattr(p, "data", p.data.repeat_interleave(2, dim=1)[:, ::2]),
    "float64": lambda p: setattr(p, "data", p.data.double()),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("case", ["Adam", "SGD momentum"])
def test_data_that_is_swapped_between_steps(case: str, change: str) -> None:
    """The new memory is stepped, never the old."""
    shapes = ((2, 4, 3, 2), (3,))
    params, mirror = fresh(shapes=shapes), fresh(shapes=shapes)
    optimizer, other = ours(case)(params), theirs(case)(mirror)
    walk(optimizer, params, 0, 2)
    walk(other, mirror, 0, 2)
    old = params[0].data
    kept = old.clone()
    params[0].grad = mirror[0].grad = None
    CHANGES[change](params[0])
    if change in ("data", "view"):
        mirror[0].data += 1
    walk(optimizer, params, 2, 4)
    walk(other, mirror, 2, 4)
    assert torch.equal(old, kept)
    same([p.float() for p in params], mirror, rtol=1e-5, atol=1e-6)


def test_a_changed_shape_is_refused() -> None:
    params = fresh()
    optimizer = descend.Adam(params)
    walk(optimizer, params, 0, 1)
    params[0].grad = None
    params[0].data = torch.zeros(3)
    with pytest.raises(ValueError, match="'exp_avg' has shape"):
        walk(optimizer, params, 1, 2)


def test_state_tensors_that_are_swapped() -> None:
    params, mirror = fresh(), fresh()
    for optimizer, tensors in ((descend.Adam(params), params), (torch.optim.Adam(mirror), mirror)):
        walk(optimizer, tensors, 0, 2)
        kept = optimizer.state[tensors[0]]["exp_avg"]
        kept.data = kept.data.clone() * 2
        walk(optimizer, tensors, 2, 3)
        kept.data = torch.empty(3, 5).t().copy_(kept.data)
        walk(optimizer, tensors, 3, 4)
    same(params, mirror)


@pytest.mark.parametrize("kind", ["transposed", "expanded", "strided", "other type", "lazily negated"])
def test_gradients_of_other_layouts(kind: str) -> None:
    p = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    q = p.detach().clone().requires_grad_()
    optimizer, other = descend.Adam([p]), torch.optim.Adam([q])
    base = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    for step in range(3):
        g = base * (step + 1)
        if kind == "transposed":
            g = g.t().contiguous().t()
        elif kind == "expanded":
            g = g[:, :1].expand(4, 6)
        elif kind == "strided":
            g = g.repeat_interleave(2, dim=1)[:, ::2]
        elif kind == "lazily negated":
            g = torch.complex(torch.zeros(4, 6), -g).conj().imag
            assert g.is_neg()
        q.grad = g.clone()
        if kind == "other type":
            p.grad_dtype = None
            g = g.double()
        p.grad = base.clone() if step == 1 else g
        if step == 1:
            q.grad = base.clone()
        optimizer.step()
        other.step()
    same([p], [q])
    assert backend(optimizer) == {"torch" if kind == "other type" else "cpu"}


def test_a_gradient_that_is_part_of_a_graph() -> None:
    w = torch.tensor([2.0], requires_grad=True)
    (w.grad,) = torch.autograd.grad((w**3).sum(), w, create_graph=True)
    optimizer = descend.SGD([w], lr=0.5)
    optimizer.step()
    assert w.item() == -4.0


def test_late_backward_raises_as_with_torch() -> None:
    """The step wrote what the graph had kept: autograd must know."""
    for kind in (torch.optim.SGD, descend.SGD):
        w = torch.tensor([2.0, 3.0], requires_grad=True)
        optimizer = kind([w], lr=0.5)
        late = (w**2).sum()
        w.grad = torch.ones(2)
        version = w._version
        optimizer.step()
        assert w._version > version
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            late.backward()


def test_states_count_their_versions() -> None:
    params = fresh()
    optimizer = descend.Adam(params)
    walk(optimizer, params, 0, 2)
    kept = optimizer.state[params[0]]
    before = [x._version for x in (params[0], kept["exp_avg"], kept["exp_avg_sq"])]
    walk(optimizer, params, 2, 3)
    after = [x._version for x in (params[0], kept["exp_avg"], kept["exp_avg_sq"])]
    assert all(a > b for a, b in zip(after, before, strict=True))


def test_an_expanded_parameter_raises_and_changes_nothing() -> None:
    p = torch.ones(1).expand(4).requires_grad_()
    q = torch.ones(3, requires_grad=True)
    p.grad = torch.ones(4)
    q.grad = torch.ones(3)
    optimizer = descend.Adam([p])
    with pytest.raises(RuntimeError, match="single memory location"):
        optimizer.step()
    assert optimizer.state[p]["step"] == 0


def test_meta_parameters_are_refused() -> None:
    p = torch.nn.Parameter(torch.empty(3, device="meta"))
    p.grad = torch.empty(3, device="meta")
    with pytest.raises(RuntimeError, match="meta device"):
        descend.SGD([p]).step()


class Tagged(torch.Tensor):
    pass


@pytest.mark.parametrize(
    "case", ["Adam", "SGD momentum", "NAdam", "Rprop", "ASGD", "RAdam", "RMSprop centred"]
)
def test_the_torch_back_end_agrees_with_the_kernel(case: str) -> None:
    """A tensor subclass takes it."""
    params = fresh()
    tagged = [p.detach().clone().as_subclass(Tagged).requires_grad_() for p in params]
    optimizer, other = ours(case)(params), ours(case)(tagged)
    walk(optimizer, params, 0, 4, skip=1)
    walk(other, tagged, 0, 4, skip=1)
    walk(optimizer, params, 4, 5)
    walk(other, tagged, 4, 5)
    same(params, [p.as_subclass(torch.Tensor) for p in tagged], rtol=1e-5, atol=1e-6)
    assert backend(optimizer) == {"cpu"}
    assert backend(other) == {"torch"}


def test_duplicate_parameters_warn_and_step_twice() -> None:
    runs = []
    for module in (descend, torch.optim):
        p = torch.ones(3, requires_grad=True)
        with pytest.warns(UserWarning, match="duplicate parameters"):
            optimizer = module.Adam([p, p], lr=0.1)
        for step in range(3):
            p.grad = torch.full((3,), 1.0 + step)
            optimizer.step()
        runs.append(p)
        assert optimizer.state[p]["step"] == 6
    same(runs[:1], runs[1:])


class Other(torch.Tensor):
    """A kind of tensor that the kernels know nothing of."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64])
@pytest.mark.parametrize("cut", [slice(None, None, 2), slice(1, 7)])
def test_parameters_with_gaps_take_the_kernel_and_leave_the_gaps_alone(
    dtype: torch.dtype, cut: slice
) -> None:
    whole, plain = torch.ones(6, 8, dtype=dtype), torch.ones(6, 8, dtype=dtype)
    p, q = whole[:, cut].requires_grad_(), plain[:, cut].contiguous().requires_grad_()
    optimizer, other = descend.Adam([p], lr=0.1), descend.Adam([q], lr=0.1)
    for step in range(3):
        p.grad = torch.full_like(p, 0.5 - step)
        q.grad = p.grad.clone()
        before = p._version
        optimizer.step()
        other.step()
        assert p._version > before
    assert backend(optimizer) == {"cpu"}
    assert torch.equal(p.detach(), q.detach())
    untouched = torch.ones(6, 8, dtype=torch.bool)
    untouched[:, cut] = False
    assert torch.equal(whole.detach()[untouched], plain[untouched])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_compute_in_float32(dtype: torch.dtype) -> None:
    """Both back ends; a step below half precision's smallest number is not lost on the way."""
    p = torch.full((8,), 1.0, dtype=dtype, requires_grad=True)
    q = torch.full((8,), 1.0, dtype=dtype).as_subclass(Other).requires_grad_()
    optimizer = descend.Adam([p, q], lr=2**-7)
    for x in (p, q):
        x.grad = torch.full((8,), 1e-4, dtype=dtype)  # its square is 0 in float16
    optimizer.step()
    for x in (p, q):
        assert x.tolist() == [1 - 2**-7] * 8
    assert backend(optimizer) == {"cpu", "torch"}


def test_types_side_by_side() -> None:
    """One plan for each combination of types; a gradient may have a type of its own."""
    kinds = (torch.float32, torch.float64, torch.bfloat16, torch.complex64)
    params = [torch.ones(5, dtype=d).requires_grad_() for d in kinds]
    mirror = copies(params)
    optimizer, other = descend.AdamW(params, lr=0.1), torch.optim.AdamW(mirror, lr=0.1)
    for step in range(3):
        for p, q in zip(params, mirror, strict=True):
            p.grad = torch.full_like(p, 0.5 + step)
            q.grad = p.grad.clone()
        optimizer.step()
        other.step()
    same(params[:2] + params[3:], mirror[:2] + mirror[3:])
    torch.testing.assert_close(params[2], mirror[2], rtol=1e-2, atol=1e-2)
    assert [plan.backend for plan in optimizer._plans] == ["cpu"] * 4
    for own, of_gradient in ((torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)):
        p = torch.ones(5, dtype=own).requires_grad_()
        p.grad_dtype = None
        p.grad = torch.full((5,), 0.25, dtype=of_gradient)
        descend.SGD([p], lr=1.0).step()
        assert p.tolist() == [0.75] * 5


def test_a_step_in_inference_mode_or_with_another_default() -> None:
    """States are ordinary tensors on their parameters' device, wherever the first step was taken."""
    params, mirror = fresh(), fresh()
    optimizer, other = descend.NAdam(params), torch.optim.NAdam(mirror)
    with torch.inference_mode():
        walk(optimizer, params, 0, 1)
    with torch.device("meta"):
        optimizer.step()
    walk(other, mirror, 0, 1)
    other.step()
    assert not optimizer.state[params[0]]["exp_avg"].is_inference()
    walk(optimizer, params, 1, 3)
    walk(other, mirror, 1, 3)
    same(params, mirror)


def test_rates_that_are_tensors() -> None:
    """On the kernel: read at every step, also when changed in place."""
    params, mirror = fresh(), fresh()
    rate = torch.tensor(0.1)
    optimizer = descend.Adam(params, lr=rate, betas=(torch.tensor(0.8), torch.tensor(0.9)))
    other = torch.optim.Adam(mirror, lr=0.1, betas=(0.8, 0.9))
    walk(optimizer, params, 0, 2)
    walk(other, mirror, 0, 2)
    rate.fill_(0.01)
    other.param_groups[0]["lr"] = 0.01
    walk(optimizer, params, 2, 4)
    walk(other, mirror, 2, 4)
    same(params, mirror, rtol=1e-5, atol=1e-6)
    assert backend(optimizer) == {"cpu"}
    learned = torch.tensor(0.1, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        walk(descend.SGD(params, lr=learned), params, 0, 1)


def test_no_nan_where_torch_makes_one() -> None:
    """AdaMax with eps 0 at zero gradient; centred RMSProp at a constant one, where v - m**2 is rounding."""
    w = torch.ones(4, requires_grad=True)
    optimizer = descend.Adamax([w], eps=0.0)
    w.grad = torch.zeros(4)
    optimizer.step()
    assert torch.equal(w, torch.ones(4))
    w = torch.ones(1000, requires_grad=True)
    optimizer = descend.RMSprop([w], centered=True)
    g = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 1e-4 + 1
    for _ in range(1500):
        w.grad = g
        optimizer.step()
    assert w.isfinite().all()
