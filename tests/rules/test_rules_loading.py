"""Rules in files of one's own: which one a file holds, what is said where it holds none, and pickles."""

from __future__ import annotations

import copy
import linecache
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import descend
from descend.errors import FormulaError, UsageError
from descend.formula import stage
from descend.rules import loading

BARE = """
def mine(p, g, m, lr=0.1, beta=0.9):
    m = beta * m + (1 - beta) * g
    p = p - lr * m
    return p, m
"""
DECORATED = """
from descend.formula import Hyper, rule
from descend.rules.adam import adam

@rule(title="Mine", source="nobody, nowhere")
def mine(p, g, lr=Hyper(0.5, "[0, inf)", "learning rate")):
    p = p - lr * g
    return p
"""
CHAINED = """
import descend
from descend.modifiers import clip_value

def halve(g):
    g = 0.5 * g
    return g

def mine(p, g, lr=0.1):
    p = p - lr * g
    return p

both = descend.chain(clip_value, halve, mine)
"""


def written(folder: Path, text: str, name: str = "my_rule.py") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "name", "lr"),
    [
        (BARE, "mine", 0.1),
        (DECORATED, "mine", 0.5),
        (CHAINED, "clip_value + halve + mine", 0.1),
        (BARE + "\n\ndef plot(rows):\n    return rows\n\n\ndef _old(p, g):\n    return p\n", "mine", 0.1),
    ],
)
def test_the_only_rule_of_a_file(tmp_path: Path, text: str, name: str, lr: float) -> None:
    source = written(tmp_path, text)
    rule = descend.rules.get(source)
    assert rule.name == name
    assert rule.hyper("lr").default == lr
    assert descend.rules.get(source) is rule
    w = torch.nn.Parameter(torch.ones(3))
    for given in (source, tmp_path / "my_rule.py"):
        optimizer = descend.optimizer(given)([w])
        assert optimizer.rule is rule
        w.grad = torch.ones(3)
        optimizer.step()
    assert (w < 1).all()


def test_a_chain_from_a_file_clips_and_halves(tmp_path: Path) -> None:
    w = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    w.grad = torch.tensor([7.0], dtype=torch.float64)
    descend.optimizer(written(tmp_path, CHAINED))([w], clip=2.0, lr=1.0).step()
    assert w.item() == -1.0


def test_one_of_several_is_named(tmp_path: Path) -> None:
    other = BARE + BARE.replace("mine", "other").replace("0.9", "0.5")
    source = written(tmp_path, other)
    with pytest.raises(
        UsageError, match=r"defines several rules \(mine, other\): say which one, as in .*:mine"
    ):
        loading.load(source)
    assert loading.load(f"{source}:other").hyper("beta").default == 0.5
    with pytest.raises(UsageError, match=r"has no 'othr' \(did you mean 'other'\?\); it defines mine, other"):
        loading.load(f"{source}:othr")


def test_a_changed_file_is_read_anew_and_what_was_read_stays(tmp_path: Path) -> None:
    source = written(tmp_path, BARE)
    before = loading.load(source)
    written(tmp_path, "# a line more\n" + BARE.replace("0.9", "0.7").replace("lr * m", "2 * lr * m"))
    after = loading.load(source)
    assert (before.hyper("beta").default, after.hyper("beta").default) == (0.9, 0.7)
    assert "2 * lr" in after.formula_text
    assert "2 * lr" not in before.formula_text
    assert source not in linecache.cache


def test_neighbours_are_found_and_the_path_is_left_alone(tmp_path: Path) -> None:
    written(tmp_path, "START = 0.25\n", "neighbour_of_a_rule.py")
    kept = list(sys.path)
    source = written(
        tmp_path,
        "from neighbour_of_a_rule import START\n" + BARE.replace("0.1", "START"),
    )
    assert loading.load(source).hyper("lr").default == 0.25
    assert sys.path == kept


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("x = 1\n", UsageError, "holds no rule: write a function of p and g"),
        ("def clip(g):\n    g = 0.5 * g\n    return g\n", UsageError, "holds no rule.*it defines clip"),
        ("import descend\nfrom descend.rules.adam import adam\n", UsageError, "holds no rule"),
        (
            "x = 1\ny = x / 0\n",
            UsageError,
            r"my_rule.py:2: ZeroDivisionError: division by zero\n    y = x / 0",
        ),
        ("x = (1\n", UsageError, r"my_rule.py:1: SyntaxError: '\(' was never closed"),
        ("import no_such_module_anywhere\n", UsageError, "my_rule.py:1: ModuleNotFoundError"),
        ("raise SystemExit(3)\n", UsageError, "my_rule.py:1: SystemExit: 3"),
        ("def mine(p, g, lr='a'):\n    return p\n", FormulaError, "the default of 'lr' is 'a'"),
        (
            "def mine(p, g, lr=0.1):\n    p = p - lr * h\n    return p\n",
            FormulaError,
            r"my_rule.py:2: unknown name 'h'",
        ),
        (
            "import descend\nboth = descend.chain(\n    descend.modifiers.clip_value)\n",
            UsageError,
            r"my_rule.py:2: a chain holds exactly one rule",
        ),
    ],
)
def test_what_is_wrong_with_a_file(
    tmp_path: Path, text: str, kind: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, text)
    with pytest.raises(kind, match=rf"(?s){message}"):
        loading.load("my_rule.py")


def test_no_such_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"^my_rule.py: there is no such file; wanted FILE.py"):
        descend.optimizer("my_rule.py")
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(UsageError, match="cannot be read"):
        loading.load("folder.py")
    (tmp_path / "bytes.py").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is no Python text"):
        loading.load("bytes.py")
    written(tmp_path, BARE)
    with pytest.raises(UsageError, match=r"unknown rule 'my_rule'; the file of that name is my_rule.py"):
        descend.rules.get("my_rule")


def stepped(optimizer: torch.optim.Optimizer) -> torch.Tensor:
    (w,) = optimizer.param_groups[0]["params"]
    w.grad = torch.linspace(-1, 1, w.numel())
    optimizer.step()
    return w.detach().clone()


def test_copies_and_pickles_go_on_with_the_same_bits(tmp_path: Path) -> None:
    optimizer = descend.optimizer(written(tmp_path, BARE))([torch.nn.Parameter(torch.ones(5))], beta=0.8)
    stepped(optimizer)
    twins = [copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))]
    true = stepped(optimizer)
    for twin in twins:
        assert type(twin) is type(optimizer)
        assert torch.equal(stepped(twin), true)
    assert stage(twins[1].rule) is stage(optimizer.rule)


def test_a_pickle_needs_no_file_in_another_process(tmp_path: Path) -> None:
    source = written(tmp_path, BARE)
    optimizer = descend.optimizer(source)([torch.nn.Parameter(torch.ones(5))])
    stepped(optimizer)
    (tmp_path / "pickled").write_bytes(pickle.dumps(optimizer))
    Path(source).unlink()
    program = (
        "import pickle, sys, torch\n"
        "optimizer = pickle.load(open(sys.argv[1], 'rb'))\n"
        "(w,) = optimizer.param_groups[0]['params']\n"
        "w.grad = torch.linspace(-1, 1, 5)\n"
        "optimizer.step()\n"
        "print(w.tolist())\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "pickled")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == str(stepped(optimizer).tolist())


def cell(text: str, name: str = "<ipython-input-1-0>") -> dict[str, object]:
    """Runs text as IPython runs a cell: its source is known to linecache alone."""
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    space: dict[str, object] = {"__name__": "__main__"}
    exec(compile(text, name, "exec"), space)
    return space


@pytest.mark.parametrize("name", ["<ipython-input-1-0>", "/tmp/ipykernel_7/1234567.py", "<python-input-0>"])
def test_a_notebook_cell_holds_a_rule(name: str) -> None:
    try:
        mine = cell(BARE, name)["mine"]
        w = torch.nn.Parameter(torch.ones(2))
        optimizer = descend.optimizer(mine)([w])
        stepped(optimizer)
        assert "beta * m" in optimizer.rule.formula_text
        again = cell(BARE.replace("0.9", "0.5"), name)["mine"]
        assert descend.optimizer(again).the_rule.hyper("beta").default == 0.5
    finally:
        linecache.cache.pop(name)


def test_without_source_the_error_says_what_to_do() -> None:
    space: dict[str, object] = {}
    exec(BARE, space)
    with pytest.raises(FormulaError, match="write the formula in a file or a notebook cell"):
        descend.optimizer(space["mine"])
