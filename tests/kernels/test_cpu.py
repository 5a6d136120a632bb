"""The CPU back end: strict arithmetic, every dtype, every length, any number of threads."""

import ctypes

import numpy as np
import pytest
import torch

import descend
from descend import rules
from descend.formula import chain, rule_of, stage
from descend.formula.vocabulary import (
    abs,
    cos,
    exp,
    floor,
    log,
    maximum,
    minimum,
    sign,
    sin,
    sqrt,
    tanh,
    where,
)
from descend.kernels import cpu
from descend.kernels.cpu import compiler, gather, team

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
EDGES = [0.0, -0.0, 1.0, -1.0, 1e-40, -1e-40, 3e38, -3e38, np.inf, -np.inf, np.nan, 0.5, 2.5, 1e-3]


def row_of(program, t, **hypers):
    kept = [1.0 for s in program.rule.states if s.scalar]
    return program.scalars(t, *(hypers.get(h.name, h.default) for h in program.rule.hypers), *kept)[0]


def run(rule, operands, t=1, threads=None, **hypers):
    """One launch over plain tensors, without an optimizer; operands are changed in place."""
    program = stage(rule_of(rule))
    assert set(operands) == set(program.operands)
    tensors = [operands[word] for word in program.operands]
    kernel = cpu.kernel(program, tuple(cpu.storage_name(x.dtype) for x in tensors))
    table = cpu.Table(kernel, [tensors[0].numel()])
    addresses = np.array([[x.data_ptr() for x in tensors]], np.int64)
    row = row_of(program, t, **hypers)
    rows = kernel.rows(1)
    rows[0 : len(row)] = row
    table.bind(addresses, rows, np.zeros(1, np.int64))
    table.launch(threads=threads)
    return operands


def as_numpy(program, row, operands):
    """The staged program in NumPy float32, one rounding per operation: what strict IEEE arithmetic gives."""
    values = {n: np.float32(x) for n, x in zip(program.scalars.row, row, strict=True)}
    ops = {
        "add": np.add,
        "sub": np.subtract,
        "mul": np.multiply,
        "div": np.divide,
        "neg": np.negative,
        "sqrt": np.sqrt,
        "abs": np.abs,
        "sign": np.sign,
        "maximum": np.maximum,
        "minimum": np.minimum,
        "lt": np.less,
        "le": np.less_equal,
        "gt": np.greater,
        "ge": np.greater_equal,
        "eq": np.equal,
        "ne": np.not_equal,
        "where": lambda c, x, y: np.where(c != 0, x, y),
        # the product of two float32 is exact in float64; only the sum rounds, once more than it should
        "fma": lambda a, b, c: (np.float64(a) * np.float64(b) + np.float64(c)).astype(np.float32),
    }

    def value(n):
        if n.op == "const":
            return np.float32(n.number)
        return values[n] if n in values else operands[n.word]

    with np.errstate(all="ignore"):
        for n in program.passes[0].body:
            values[n] = ops[n.op](*(value(a) for a in n.args))
    return {word: value(n) for word, n in program.passes[0].written.items()}


def samples(rule, size, dtype=torch.float32, seed=0):
    random = torch.Generator().manual_seed(seed)
    program = stage(rule_of(rule))
    made = {w: torch.randn(size, generator=random, dtype=torch.float64) for w in program.operands}
    for word in program.operands[2:]:
        made[word] = made[word].abs()
    return {w: x.to(dtype) for w, x in made.items()}


PLAIN = [rule for rule in map(rules.get, rules.built_in()) if not rule.reduces]


@pytest.mark.parametrize("rule", PLAIN, ids=lambda r: r.name)
def test_the_kernel_rounds_every_operation_once_and_fuses_only_what_staging_fused(rule):
    operands = samples(rule, 20_001)
    program = stage(rule)
    wanted = as_numpy(program, row_of(program, 2), {w: x.numpy().copy() for w, x in operands.items()})
    run(rule, operands, t=2)
    for word, x in wanted.items():
        got = operands[word].numpy()
        same = (got.view(np.int32) == x.view(np.int32)) | (np.isnan(got) & np.isnan(x))
        assert same.mean() > 0.9999, word  # the few others are the emulation's double rounding
        assert np.allclose(got, x, rtol=2e-7, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [0, 1, 2, 7, 8, 15, 16, 17, 31, 33, 1000])
def test_an_element_has_the_same_bits_wherever_it_stands(size, dtype):
    """The remainder of a tensor, under a mask, against the same elements inside whole vectors."""
    rule = rules.get("adam")
    long = samples(rule, 1024, dtype)
    short = {w: x[:size].clone() for w, x in long.items()}
    guard = {w: torch.full((size + 64,), 7.0, dtype=dtype) for w in long}
    for w, x in guard.items():
        x[:size] = short[w]
    run(rule, long, t=3)
    run(rule, {w: x[:size] for w, x in guard.items()}, t=3)
    for w in long:
        assert torch.equal(guard[w][:size], long[w][:size]), w
        assert torch.equal(guard[w][size:], torch.full((64,), 7.0, dtype=dtype)), "wrote past the end"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_same_bits_with_any_number_of_threads(dtype, monkeypatch):
    rule, size = rules.get("adam"), 5 * team.SHARE + 77
    start = samples(rule, size, dtype)
    results = []
    for threads, openmp in [(1, True), (2, True), (3, True), (2, False)]:
        if not openmp:
            monkeypatch.setattr(team, "openmp", lambda: None)
        results.append(run(rule, {w: x.clone() for w, x in start.items()}, t=5, threads=threads))
    for other in results[1:]:
        assert all(torch.equal(results[0][w], other[w]) for w in start)


def test_torchs_own_thread_team_is_used_where_there_is_one():
    import sys

    assert (team.openmp() is not None) == (
        sys.platform.startswith("linux") and torch.backends.openmp.is_available()
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_types_round_to_nearest_even_as_torch_does(dtype):
    def copy(p, g):
        p = g * 1.0 + 0.0
        return p

    bits = torch.arange(0, 1 << 16, dtype=torch.int32)
    near = (bits << 16) | torch.tensor([0x7FFF, 0x8000, 0x8001, 0x0000] * (1 << 14), dtype=torch.int32)
    g = near.view(torch.float32)
    program = stage(rule_of(copy))
    kernel = cpu.kernel(program, (cpu.storage_name(dtype), "float32"))
    p = torch.empty(len(g), dtype=dtype)
    table = cpu.Table(kernel, [len(g)])
    table.bind(np.array([[p.data_ptr(), g.data_ptr()]], np.int64), kernel.rows(1), np.zeros(1, np.int64))
    table.launch()
    wanted = (g * 1.0 + 0.0).to(dtype)
    assert torch.equal(p.isnan(), wanted.isnan())
    keep = ~wanted.isnan()
    assert torch.equal(p.view(torch.int16)[keep], wanted.view(torch.int16)[keep])


def words(p, g, k=0.0):
    p = where(
        k == 0,
        sign(g),
        where(k == 1, minimum(p, g), where(k == 2, maximum(p, g), where(k == 3, abs(g), sqrt(g)))),
    )
    return p


@pytest.mark.parametrize(("k", "word"), list(enumerate([np.sign, np.minimum, np.maximum, np.abs, np.sqrt])))
def test_words_treat_nan_infinity_and_zero_as_numpy_does(k, word):
    a, b = (x.ravel().astype(np.float32) for x in np.meshgrid(EDGES, EDGES))
    operands = {"p": torch.from_numpy(a.copy()), "g": torch.from_numpy(b.copy())}
    run(words, operands, k=float(k))
    with np.errstate(all="ignore"):
        wanted = word(a, b) if word.nin == 2 else word(b)
    assert np.array_equal(operands["p"].numpy(), wanted, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_words_of_the_mathematical_library(dtype):
    def library(p, g, m, v, k=0.0):
        m = where(k == 0, exp(g), where(k == 1, log(abs(g)), where(k == 2, tanh(g), sin(g))))
        v = where(k == 0, cos(g), where(k == 1, floor(g), where(k == 2, abs(g) ** 1.7, 2**g)))
        return p, m, v

    oracles = [
        (np.exp, np.cos),
        (lambda x: np.log(np.abs(x)), np.floor),
        (np.tanh, lambda x: np.abs(x) ** 1.7),
        (np.sin, np.exp2),
    ]
    for k, (first, second) in enumerate(oracles):
        operands = {w: torch.linspace(-5, 5, 997, dtype=dtype) for w in "pgmv"}
        run(library, operands, k=float(k))
        g = operands["g"].numpy()
        eps = torch.finfo(dtype).eps
        assert np.allclose(operands["m"].numpy(), first(g), rtol=4 * eps, atol=4 * eps)
        assert np.allclose(operands["v"].numpy(), second(g), rtol=4 * eps, atol=4 * eps)


def test_the_machine_code_is_vector_code_all_through():
    """Adam in float32 must come out as packed instructions: one square root and one division a vector."""
    code = compiler.assembly(cpu.Kernel(stage(rules.get("adam")), ("float32",) * 4).source)
    if compiler.vector_width() == 4:
        return
    assert "vsqrtps" in code
    assert "vdivps" in code
    assert "vfmadd" in code
    lines = [line.split("#")[0] for line in code.splitlines() if not line.startswith(".")]
    # calls for the thread's number, and before others' last batches are taken
    for scalar, times in (("sqrtss", 0), ("divss", 0), ("call", 2)):
        assert sum(scalar in line for line in lines) == times, scalar


def test_a_kernel_is_compiled_once_for_all_values_and_shapes(monkeypatch):
    compiled = []
    real = compiler.compile_functions
    monkeypatch.setattr(cpu, "compile_functions", lambda *a: compiled.append(a) or real(*a))
    cpu.kernel.cache_clear()
    w = [torch.nn.Parameter(torch.randn(n)) for n in (3, 70)]
    opt = descend.Adam(w, lr=0.1)
    schedule = torch.optim.lr_scheduler.ExponentialLR(opt, 0.5)
    for step in range(6):
        for p in w:
            p.grad = torch.randn_like(p)
        if step == 2:
            opt.param_groups[0]["betas"] = (0.5, 0.6)
        if step == 3:
            w.append(torch.nn.Parameter(torch.randn(5, 5)))
            opt.add_param_group({"params": [w[-1]], "lr": 7.0})
        opt.step()
        schedule.step() if step < 3 else None
    assert len(compiled) == 1


def test_machine_code_is_cached_on_disk_and_a_damaged_file_is_compiled_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("DESCEND_CACHE_DIR", str(tmp_path / "kernels"))
    ir = "define i64 @f(i64 %x) {\n %y = add i64 %x, 41\n ret i64 %y\n}\n"

    def call():
        return compiler.c_function(compiler.compile_function(ir, "f"), ctypes.c_int64, ctypes.c_int64)(1)

    runs = []
    real = compiler.optimised
    monkeypatch.setattr(compiler, "optimised", lambda source: runs.append(1) or real(source))
    assert call() == 42
    assert len(runs) == 1
    assert call() == 42
    assert len(runs) == 1, "the second time comes from disk"
    (kept,) = (tmp_path / "kernels").iterdir()
    kept.write_bytes(kept.read_bytes()[:-20])
    assert call() == 42
    assert len(runs) == 2
    monkeypatch.setenv("DESCEND_CACHE_DIR", str(tmp_path / "kernels" / kept.name))  # a file, not a directory
    assert call() == 42


def test_addresses_read_by_the_compiled_loop_are_those_that_torch_gives():
    base = torch.randn(4, 6)
    params = [
        torch.nn.Parameter(x)
        for x in (
            torch.randn(3),
            torch.randn(2, 3).t(),
            base[1:].clone(),
            torch.randn(()),
            torch.empty(0),
            torch.randn(1, 5, 1),
        )
    ]
    for p in params[:-1]:
        p.grad = torch.randn_like(p)
    states = [[torch.zeros_like(p) for p in params]]
    reader = gather.Gatherer(params, [p.grad for p in params], states)
    assert reader.read() == gather.FINE
    quick, missing = reader.addresses.copy(), reader.missing
    assert reader.read_slowly() == gather.FINE
    assert np.array_equal(quick, reader.addresses)
    assert missing == reader.missing == 1

    params[0].grad = torch.randn(6)[::2]
    assert reader.read() == gather.OTHER_GRADIENT
    assert reader.read_slowly() == gather.FINE, "copied into the parameter's layout"
    assert len(reader.kept) == 1
    assert torch.equal(reader.kept[0], params[0].grad)
    z = torch.randn(3, dtype=torch.complex64)
    params[0].grad = z.conj().imag
    assert params[0].grad.is_neg()
    assert reader.read() == gather.OTHER_GRADIENT, "a lazily negated gradient must not be read as it lies"
    assert reader.read_slowly() == gather.FINE
    assert torch.equal(reader.kept[0], -z.imag)
    params[0].grad = None
    params[0].data = torch.randn(4)
    assert reader.read() == gather.CHANGED
    params[0].data = torch.randn(3)
    states[0][0].data = torch.zeros(4)
    assert reader.read() == gather.STATE_CHANGED


def test_a_chain_costs_no_more_launches_than_its_rule():
    from descend.modifiers import coupled_decay

    joined = chain(coupled_decay, rules.get("adam"))
    operands = samples(joined, 333)
    other = {w: x.clone() for w, x in operands.items()}
    run(joined, operands, t=1, weight_decay=0.1)
    other["g"] += 0.1 * other["p"]
    run(rules.get("adam"), other, t=1)
    for w in ("p", "m", "v"):
        assert torch.allclose(operands[w], other[w], rtol=1e-6)


def test_addresses_follow_a_parameter_that_changes_its_inside():
    """swap_tensors gives a Python tensor another C++ tensor; what was read before must not be used again."""
    p, q = torch.nn.Parameter(torch.randn(8)), torch.nn.Parameter(torch.randn(8))
    p.grad = torch.randn(8)
    q.grad = torch.randn(8)
    reader = gather.Gatherer([p], [p.grad], [])
    assert reader.read() == gather.FINE
    torch.utils.swap_tensors(p, q)
    assert reader.read() == gather.FINE
    assert reader.addresses.tolist() == [[p.data_ptr(), p.grad.data_ptr()]]
    p.grad = p.grad.to_sparse()
    assert reader.read() == gather.OTHER_GRADIENT
    p.grad = None
    assert reader.read() == gather.FINE
    assert reader.missing == 1


def test_without_torchs_c_functions_everything_is_read_in_python(monkeypatch):
    monkeypatch.setattr(gather, "native", lambda: None)
    params = [
        torch.nn.Parameter(torch.randn(3, 5)),
        torch.nn.Parameter(torch.randn(7, dtype=torch.complex64)),
    ]
    other = [torch.nn.Parameter(p.detach().clone()) for p in params]
    for p, q in zip(params, other, strict=True):
        p.grad = torch.randn_like(p)
        q.grad = p.grad.clone()
    descend.Adam(params, lr=0.1).step()
    monkeypatch.undo()
    descend.Adam(other, lr=0.1).step()
    assert all(torch.equal(p, q) for p, q in zip(params, other, strict=True))
