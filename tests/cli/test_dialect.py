"""`--dialect`: whose form of a rule, on the command line and in a run's record and report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import descend as package
from conftest import Command
from descend import record


def rule_of(run: str) -> dict[str, Any]:
    return dict(record.read(Path(run)).config["rule"])


def test_show_prints_the_form_of_a_dialect(descend: Command) -> None:
    said = descend("show momentum --dialect keras")
    assert said.code == 0
    assert "Momentum as in Keras" in said.out
    assert "b = momentum * b + lr * g" in said.out
    assert "b = where(t == 1" in descend("show momentum").out


def test_rules_lists_whose_forms_there_are(descend: Command) -> None:
    rows = {line.split()[0]: line for line in descend("rules").out.splitlines() if line}
    assert "  torch optax paper  " in rows["radam"]
    assert "  torch keras optax paper  " in rows["nadam"]
    assert "keras" not in rows["stable_adamw"]


def test_a_run_records_the_dialect_and_its_report_shows_that_formula(descend: Command) -> None:
    assert descend("fit iris --rule nadam --dialect keras --epochs 2 --seed 1 --out one").code == 0
    assert rule_of("one") == {
        "name": "nadam",
        "dialect": "keras",
        "lr": 1e-3,
        "beta1": 0.9,
        "beta2": 0.999,
        "eps": 1e-7,
        "momentum_decay": 1.0,
    }
    assert not Path("one", "rule.py").exists()
    assert "NAdam as in Keras" in Path("one", "report.html").read_text(encoding="utf-8")
    assert descend("fit --config one/config.toml --epochs 3 --out two").code == 0
    assert rule_of("two")["dialect"] == "keras"
    assert descend("fit --config one/config.toml --rule adam --out three").code == 0
    assert "dialect" not in rule_of("three")


def test_minimize_goes_the_dialect_s_way(descend: Command) -> None:
    assert descend("minimize rosenbrock --rule rmsprop --dialect keras --steps 3 --out one").code == 0
    assert rule_of("one")["dialect"] == "keras"
    assert "sqrt(v + eps)" in package.rules.get("rmsprop", "keras").formula_text


def test_a_rule_object_in_a_dialect_is_recorded_by_its_name(descend: Command, tmp_path: Path) -> None:
    rule = package.rules.get("adam", "keras")
    result = package.fit("softmax", "iris", rule=rule, epochs=1, out=tmp_path / "one")
    assert result.steps > 0
    assert (rule_of("one")["name"], rule_of("one")["dialect"]) == ("adam", "keras")


def test_a_dialect_that_there_is_not_is_a_usage_error(descend: Command) -> None:
    said = descend("fit iris --rule radam --dialect keras --out one")
    assert (said.code, "radam has no dialect 'keras': it has torch, optax, paper" in said.err) == (2, True)
    said = descend("fit iris --rule torch.optim.Adam --dialect keras --out one")
    assert (said.code, "is for rules of descend" in said.err) == (2, True)
    assert descend("show asgd --dialect optax").code == 2
