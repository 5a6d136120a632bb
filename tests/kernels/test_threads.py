"""Every rule, and every modifier around one, gives the same bits on one thread and on two."""

import pytest
import torch

import descend
from descend import chains, rules
from descend.kernels.cpu import team

SHAPES = ((150, 1001), (64, 64), (7,), (2 * team.SHARE + 5,))


def run(name: str, threads: int) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    rule = rules.get(name)
    matrices = any(state.shape != "element" for state in rule.states)
    shapes = SHAPES[:2] if matrices else SHAPES
    params = [torch.nn.Parameter(torch.randn(s, generator=random)) for s in shapes]
    optimizer = descend.optimizer(rule)(params)
    torch.set_num_threads(threads)  # the fixture of all tests puts it back
    for _ in range(3):
        for p in params:
            p.grad = torch.randn(p.shape, generator=random)
        optimizer.step()
    assert torch.get_num_threads() == threads
    states = [x for p in params for x in optimizer.state[p].values()]
    return [p.detach() for p in params] + states


# adafactor_stack is for three dimensions and more: it runs on torch, which shares its sums out by itself
NAMES = [name for name in rules.built_in() if name != "adafactor_stack"]


CHAINS = [
    f"{name} + adam" if part.formulas[0].place == "before" else f"adam + {name}"
    for name, part in chains.parts().items()
]
CHAINS.append("centralise + clip_global_norm + gradient_noise + adam + cautious + langevin + ema_weights")


@pytest.mark.parametrize("name", [*NAMES, *CHAINS])
def test_one_thread_and_two_give_the_same_bits(name: str) -> None:
    for one, two in zip(run(name, 1), run(name, 2), strict=True):
        assert torch.equal(one, two)


def test_every_thread_takes_denormal_numbers_as_the_caller_does():
    """torch.set_flush_denormal is for one thread; what several share must not come out in stripes."""
    size = 4 * team.SHARE
    p = torch.nn.Parameter(torch.zeros(size))
    p.grad = torch.full_like(p, 1e-39)
    optimizer = descend.SGD([p], lr=1.0)
    torch.set_num_threads(2)
    if torch.set_flush_denormal(True):
        try:
            for _ in range(20):
                optimizer.step()
                assert not p.detach().view(torch.int32).any()
        finally:
            torch.set_flush_denormal(False)
    optimizer.step()
    assert p.detach().view(torch.int32).all()
