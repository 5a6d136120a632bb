"""Products and factors have the same bits on one thread, on torch's team and on Python's threads."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
import torch

from descend.kernels import matrix, steady
from descend.kernels.cpu import products, team
from descend.kernels.cpu.products import Piece

SHAPES = [((3, 600, 500), (3, 500, 400)), ((1, 150, 1001), (1, 1001, 150)), ((70, 64, 64), (70, 64, 64))]
SHAPES += [
    ((1, 300, 700), (1, 700, 1100)),
    ((0, 5, 4), (0, 4, 3)),
    ((2, 5, 0), (2, 0, 3)),
    ((2, 0, 4), (2, 4, 3)),
]
ROOM = {torch.bfloat16: 2e-2, torch.float32: 1e-5, torch.float64: 1e-13}


def drawn(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def on_every_team(make: Callable[[], torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """What is made, after it has been found to be the same on one thread, on two, and on Python's."""
    torch.set_num_threads(1)  # the fixture of all tests puts it back
    alone = make()
    torch.set_num_threads(2)
    assert torch.equal(make(), alone)
    with monkeypatch.context() as patch:
        patch.setattr(products, "_native", dict)
        assert torch.equal(make(), alone)
        patch.setattr(steady, "openmp", lambda: None)
        assert torch.equal(make(), alone)
    return alone


@pytest.mark.parametrize("dtype", ROOM, ids=str)
@pytest.mark.parametrize(("left", "right"), SHAPES, ids=str)
def test_products_do_not_depend_on_the_threads(
    left: tuple[int, ...], right: tuple[int, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = drawn(left, 0, dtype), drawn(right, 1, dtype)
    made = on_every_team(lambda: steady.matmul(x, y), monkeypatch)
    room = ROOM[dtype] * max(1, left[-1]) ** 0.5
    torch.testing.assert_close(made, x @ y, rtol=ROOM[dtype], atol=room)


@pytest.mark.parametrize("dtype", ROOM, ids=str)
@pytest.mark.parametrize("side", [100, 400, 1100])
@pytest.mark.parametrize("turned", [False, True])
def test_half_of_a_symmetric_product_is_mirrored(
    side: int, turned: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = drawn((1, 300, side) if turned else (1, side, 300), 0, dtype)
    x = x.mT if turned else x
    made = on_every_team(lambda: steady.matmul(x, x.mT, symmetric=True), monkeypatch)
    torch.testing.assert_close(made, x @ x.mT, rtol=ROOM[dtype], atol=17 * ROOM[dtype])
    if side > 1000:
        block = torch.arange(side) // 256  # inside of a block of the diagonal both halves are computed
        apart = block[:, None] != block
        assert torch.equal(made[:, apart], made.mT[:, apart])


@pytest.mark.parametrize("dtype", ROOM, ids=str)
@pytest.mark.parametrize("side", [60, 500, 1100])
def test_a_polynomial_of_a_symmetric_matrix(
    side: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = drawn((2, side, 30), 0, dtype) / side**0.5
    a = x @ x.mT

    def polynomial() -> torch.Tensor:
        out = torch.full_like(a, torch.nan)
        steady.run([steady.pieces(out, a, a, a, -2.0, 3.0, symmetric=True)])
        return out

    made = on_every_team(polynomial, monkeypatch)
    torch.testing.assert_close(
        made, torch.baddbmm(a, a, a, beta=-2, alpha=3), rtol=ROOM[dtype], atol=ROOM[dtype]
    )


def test_half_of_a_symmetric_product_is_half_the_work() -> None:
    x = torch.empty(1, 1024, 1024)
    whole, half = (
        sum(piece.work for piece in steady.pieces(x, x, x.mT, symmetric=symmetric))
        for symmetric in (False, True)
    )
    assert whole == 1024**3
    assert half == whole * 9 / 16


def test_a_stage_waits_for_the_one_before() -> None:
    torch.set_num_threads(2)
    x = drawn((1, 300, 300), 0, torch.float64) / 300**0.5
    chain = [x, *(torch.full_like(x, torch.nan) for _ in range(30))]
    steady.run([steady.pieces(new, old, x) for old, new in pairwise(chain)])
    power = x
    for made in chain[1:]:
        power = steady.matmul(power, x)
        assert torch.equal(made, power)


def test_a_refused_product_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(2)
    x, y = torch.zeros(3, 4), torch.zeros(5, 6)
    with pytest.raises((AssertionError, RuntimeError), match="refused a product"):
        steady.run([[Piece(torch.zeros(3, 6), x, y)]])
    capfd.readouterr()


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("shape", [(1, 130, 2000), (3, 600, 500), (5, 200, 300), (70, 64, 64)], ids=str)
def test_iterations_do_not_depend_on_the_threads(
    shape: tuple[int, ...], bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, numbers = drawn(shape, 0), (3.4445, -4.7750, 2.0315)
    made = on_every_team(lambda: matrix.newton_schulz(x, 5, *numbers, 1e-7, bits), monkeypatch)
    x = x.mT if shape[1] > shape[2] else x
    by_torch = matrix._iterated(x / torch.linalg.matrix_norm(x, keepdim=True), 5, *numbers)
    by_torch = by_torch.mT if shape[1] > shape[2] else by_torch
    torch.testing.assert_close(made.float(), by_torch, rtol=0, atol=0.03 if bits == 16 else 1e-5)


def test_bases_and_roots_do_not_depend_on_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    squares = [g @ g.mT for g in (drawn((1, 200, 200), 0), drawn((40, 30, 30), 1))]
    words: list[tuple[str, Sequence[torch.Tensor], Sequence[float]]] = []
    for square in squares:
        words.append(("inverse_root", [square], (4, 1e-4)))
        words.append(("eigenbasis", [square, torch.linalg.qr(square)[0]], ()))
    on_every_team(lambda: torch.cat([made.flatten() for made in matrix.made(words)]), monkeypatch)


def test_bases_of_new_and_of_old_matrices_are_made_together() -> None:
    square = torch.diag_embed(torch.tensor([[1.0, 2.0, 3.0]] * 2))
    old = torch.stack([torch.zeros(3, 3), torch.eye(3)])
    new = torch.eye(3).flip(-1)
    basis = matrix.eigenbasis(square, old).abs()
    torch.testing.assert_close(basis, torch.stack([new, torch.eye(3)]))


def test_what_a_piece_raises_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ValueError("no such matrix")

    torch.set_num_threads(2)
    for found in (team.openmp(), None):
        monkeypatch.setattr(steady, "openmp", lambda found=found: found)
        with pytest.raises(ValueError, match="no such matrix"):
            steady.share([fail, lambda: None])
