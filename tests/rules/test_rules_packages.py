"""Rules that other packages register: found when asked for, and a broken one breaks nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import descend
from descend import rules
from descend.errors import UsageError
from descend.rules import packages

Install = Callable[..., None]
FORMULA = "def mine(p, g, lr=0.25):\n    p = p - lr * g\n    return p\n\nnumber = 3\n"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a package with entry points on the path, as pip would."""
    modules = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))

    def put(name: str, points: str, module: str = FORMULA) -> None:
        (tmp_path / f"{name}_rules.py").write_text(module)
        info = tmp_path / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[descend.rules]\n{points}\n")
        forget()

    yield put
    forget()
    for added in set(sys.modules) - modules:
        if added.endswith("_rules"):
            del sys.modules[added]


def forget() -> None:
    packages._found.cache_clear()
    packages.load.cache_clear()


def test_a_registered_rule_is_one_of_the_names(install: Install) -> None:
    install("theirs", "quarter = theirs_rules:mine")
    assert "quarter" in rules.names()
    assert "quarter" not in rules.built_in()
    assert "theirs_rules" not in sys.modules
    rule = rules.get("quarter")
    assert (rule.name, rule.hyper("lr").default) == ("quarter", 0.25)
    assert rules.get("quarter") is rule
    w = torch.nn.Parameter(torch.ones(1))
    w.grad = torch.ones(1)
    descend.optimizer("quarter")([w]).step()
    assert w.item() == 0.75
    assert descend.fit("softmax", "iris", rule="quarter", epochs=1).reason == "epoch_limit"


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ("broken = theirs_rules:absent", "cannot be loaded from theirs_rules:absent: AttributeError"),
        ("broken = no_such_module_at_all:mine", "cannot be loaded from .*: ModuleNotFoundError"),
        ("broken = theirs_rules:number", r"is a int \(theirs_rules:number\); an entry point"),
    ],
)
def test_a_broken_one_names_its_package_and_breaks_no_other(
    install: Install, point: str, message: str
) -> None:
    install("theirs", f"{point}\nquarter = theirs_rules:mine")
    assert {"broken", "quarter", "adam"} <= set(rules.names())
    assert rules.get("quarter").name == "quarter"
    with pytest.raises(UsageError, match=f"the rule 'broken' of the package theirs 1.2 {message}"):
        rules.get("broken")


def test_the_built_in_wins_and_a_notice_says_so(install: Install) -> None:
    install("theirs", "adam = theirs_rules:mine\nsgd = theirs_rules:mine\nnot-a-word = theirs_rules:mine")
    assert rules.get("adam").title == "Adam"
    assert rules.names() == rules.built_in()
    found = "\n".join(rules.notices())
    assert "the package theirs 1.2 registers a rule 'adam', which is the name of a built-in rule" in found
    assert "'sgd'" in found
    assert "a rule's name must be a plain word" in found


def test_two_packages_with_one_name(install: Install) -> None:
    install("theirs", "quarter = theirs_rules:mine")
    install("others", "quarter = others_rules:mine")
    assert rules.names().count("quarter") == 1
    with pytest.raises(UsageError, match=r"registered by the package others 1.2 and the package theirs 1.2"):
        rules.get("quarter")


def test_the_command_line_lists_shows_and_fits_them(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    from descend.cli import main

    install("theirs", "broken = theirs_rules:absent\nadam = theirs_rules:mine\nquarter = theirs_rules:mine")
    assert main(["rules"]) == 0
    said = capsys.readouterr()
    assert any(line.startswith("quarter ") for line in said.out.splitlines())
    assert not any(line.startswith("broken ") for line in said.out.splitlines())
    assert "note: the rule 'broken' of the package theirs 1.2 cannot be loaded" in said.err
    assert "note: the package theirs 1.2 registers a rule 'adam'" in said.err
    assert main(["show", "quarter"]) == 0
    assert "p = p - lr * g" in capsys.readouterr().out
    assert main(["show", "broken"]) == 2
    assert main(["minimize", "x**2", "--start", "1", "--rule", "broken"]) == 2
    assert "the package theirs 1.2" in capsys.readouterr().err


def test_importing_descend_looks_for_nothing() -> None:
    program = (
        "import importlib.metadata as m\n"
        "known = m.entry_points\n"
        "def watched(**asked):\n"
        "    assert asked.get('group') != 'descend.rules', 'scanned'\n"
        "    return known(**asked)\n"
        "m.entry_points = watched\n"
        "import descend, torch\n"
        "w = torch.nn.Parameter(torch.ones(1)); w.grad = torch.ones(1)\n"
        "o = descend.optimizer('adan')([w]); o.step(); o.load_state_dict(o.state_dict())\n"
        "try: descend.rules.names()\n"
        "except AssertionError: print('only now')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "only now\n"
