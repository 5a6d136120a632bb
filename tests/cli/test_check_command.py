"""`descend check`, `rules` and `show` on files of one's own, and what they answer with."""

from __future__ import annotations

from pathlib import Path

from conftest import Command

GOOD = """
def mine(p, g, m, lr=0.05, beta=0.9):
    m = beta * m + g
    p = p - lr * m
    return p, m
"""


def test_a_file_is_checked_and_the_exit_code_says_it(descend: Command) -> None:
    Path("my_rule.py").write_text(GOOD)
    said = descend("check my_rule.py --quick")
    assert said.code == 0
    assert said.out.startswith("check of my_rule.py")
    assert "none fails" in said.out.splitlines()[-1]
    Path("my_rule.py").write_text(GOOD.replace("p - lr", "p + lr"))
    said = descend("check my_rule.py:mine --quick")
    assert said.code == 1
    assert "FAILS  direction" in said.out
    assert "-> turn the sign round" in said.out


def test_mistakes_in_asking(descend: Command) -> None:
    said = descend("check no_rule.py")
    assert (said.code, said.out) == (2, "")
    assert "no_rule.py: there is no such file" in said.err
    Path("my_rule.py").write_text(GOOD.replace("beta * m", "betta * m"))
    said = descend("check my_rule.py")
    assert said.code == 2
    assert "my_rule.py:3: unknown name 'betta' (did you mean 'beta'?)" in said.err
    assert descend("chek adam").code == 2


def test_show_takes_a_file(descend: Command) -> None:
    Path("my_rule.py").write_text(GOOD)
    said = descend("show my_rule.py")
    assert said.code == 0
    assert "m = beta * m + g" in said.out


def test_fit_and_minimize_take_a_file(descend: Command) -> None:
    Path("my_rule.py").write_text(GOOD)
    said = descend(
        [
            "fit",
            "iris",
            "--rule",
            "my_rule.py",
            "--set",
            "rule.beta=0.5",
            "--schedule",
            "beta=cosine",
            "--epochs",
            "2",
        ]
    )
    assert said.code == 0
    assert "my_rule.py at rate 0.05" in said.out
    config = Path("runs/iris/config.toml").read_text()
    assert "beta = 0.5" in config
    assert "file_sha256" in config
    assert (Path("runs/iris/rule.py").read_text()).startswith("# The rule mine, as descend keeps it.")
    assert descend("fit --config runs/iris/config.toml --out runs/again").code == 0
    kept = ["fit", "iris", "--rule", "runs/iris/rule.py", "--epochs", "1", "--out", "runs/kept"]
    assert descend(kept).code == 0
    assert descend("minimize rosenbrock --rule my_rule.py:mine --lr 0.001 --steps 20").code == 0
    said = descend("fit iris --rule my_rule.py --set rule.gamma=1")
    assert said.code == 2
    assert "takes no 'gamma'" in said.err


def test_rules_lists_costs(descend: Command) -> None:
    lines = descend("rules").out.splitlines()
    assert lines[0].split()[:5] == ["rule", "kind", "state", "passes", "what"]
    rows = {line.split()[0]: line.split()[1:4] for line in lines[1:]}
    assert rows["adam"] == ["element", "8", "1"]
    assert rows["lamb"] == ["reduction", "8", "2"]
