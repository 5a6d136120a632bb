"""Products of matrices have the same bits on any number of threads, of torch's team or of Python's."""

import pytest
import torch

from descend.kernels import steady

SHAPES = [((3, 600, 500), (3, 500, 400)), ((1, 150, 1001), (1, 1001, 150)), ((70, 64, 64), (70, 64, 64))]


def drawn(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("left", "right"), SHAPES, ids=str)
def test_products_do_not_depend_on_the_threads(
    left: tuple[int, ...], right: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = drawn(left, 0), drawn(right, 1)
    torch.set_num_threads(1)  # the fixture of all tests puts it back
    alone = steady.matmul(x, y)
    torch.testing.assert_close(alone, x @ y, rtol=1e-4, atol=1e-3)
    torch.set_num_threads(2)
    assert torch.equal(steady.matmul(x, y), alone)
    monkeypatch.setattr(steady, "openmp", lambda: None)
    assert torch.equal(steady.matmul(x, y), alone)


def test_what_a_piece_raises_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ValueError("no such matrix")

    torch.set_num_threads(2)
    for team in (steady.openmp(), None):
        monkeypatch.setattr(steady, "openmp", lambda team=team: team)
        with pytest.raises(ValueError, match="no such matrix"):
            steady.share([fail, lambda: None])
