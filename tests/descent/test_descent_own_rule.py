"""A run keeps a rule of one's own as text: resumed to the bit when the file has changed, moved or gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import descend
from descend import StorageError, UsageError, rules
from descend.descent import prepare, prepare_minimum, resume, run
from descend.rules.kept import from_text

FORMULA = """
def mine(p, g, t, m, lr=0.05, beta=0.9):
    m = beta * m + (1 - beta) * g
    p = p - lr * m / (1 - beta**t)
    return p, m
"""


def bare(p, g, t, m, lr=0.05, beta=0.9):
    m = beta * m + (1 - beta) * g
    p = p - lr * m / (1 - beta**t)
    return p, m


CHAIN = descend.chain(descend.modifiers.clip_value, bare)
OPTIONS: dict[str, Any] = {
    "epochs": 6,
    "checkpoint_every": 2,
    "seed": 3,
    "schedule": {"beta": "cosine(end=0.5)"},
}


def outcome(path: Path) -> tuple[bytes, bytes]:
    return (path / "final.safetensors").read_bytes(), (path / "history.jsonl").read_bytes()


def stopped(rule: Any, path: Path) -> None:
    """A run that is killed after four steps."""
    descent = prepare("softmax", "iris", rule=rule, out=path, **OPTIONS)
    events = iter(descent)
    for event in events:
        if event.step >= 4:
            break
    events.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("happens", ["nothing", "changed", "gone"])
def test_a_rule_in_a_file(tmp_path: Path, happens: str) -> None:
    file = tmp_path / "my_rule.py"
    file.write_text(FORMULA)
    run(prepare("softmax", "iris", rule=str(file), out=tmp_path / "whole", **OPTIONS))
    stopped(file, tmp_path / "run")
    if happens == "changed":
        file.write_text(FORMULA.replace("lr *", "3 * lr *"))
    if happens == "gone":
        file.unlink()
    heard: list[str] = []
    resume(tmp_path / "run", listener=lambda event: heard.append(event.message))
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    said = {"nothing": [], "changed": ["has changed since the run began"], "gone": ["is no longer there"]}
    found = [message for message in heard if "goes on with the rule as it was" in message]
    assert len(found) == len(said[happens])
    for message, part in zip(found, said[happens], strict=True):
        assert part in message
        assert str(tmp_path / "run" / "rule.py") in message
    assert json.loads((tmp_path / "run" / "resumes.json").read_text())["resumes"][0]["exact"]


@pytest.mark.parametrize(
    "rule",
    [bare, descend.optimizer(bare), CHAIN, rules.get("momentum", "keras")],
    ids=["bare", "class", "chain", "keras"],
)
def test_a_rule_as_an_object_is_not_needed_again(tmp_path: Path, rule: Any) -> None:
    options = {"schedule": None} if rule is not bare else {}
    whole = prepare("softmax", "iris", rule=rule, out=tmp_path / "whole", **{**OPTIONS, **options})
    run(whole)
    descent = prepare("softmax", "iris", rule=rule, out=tmp_path / "run", **{**OPTIONS, **options})
    events = iter(descent)
    for event in events:
        if event.step >= 4:
            break
    events.close()  # type: ignore[attr-defined]
    resume(tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_what_is_kept_says_the_same(tmp_path: Path) -> None:
    prepared = prepare("softmax", "iris", rule=CHAIN, out=tmp_path / "run", epochs=1)
    run(prepared)
    assert from_text((tmp_path / "run" / "rule.py").read_text()).outputs == CHAIN.outputs
    run(prepare("softmax", "iris", rule="adam", out=tmp_path / "other", epochs=1))
    assert not (tmp_path / "other" / "rule.py").exists()


def test_the_report_shows_the_formula_and_runs_no_code(tmp_path: Path) -> None:
    from descend import report

    file = tmp_path / "my_rule.py"
    file.write_text(FORMULA)
    run(prepare("softmax", "iris", rule=str(file), out=tmp_path / "run", epochs=1))
    file.write_text("raise SystemExit('the report ran this')")
    page = report.write([tmp_path / "run"]).read_text()
    assert "m = beta * m + (1 - beta) * g" in page
    assert "my_rule.py" in page
    (tmp_path / "run" / "rule.py").write_text("raise SystemExit('or this')")
    assert "no formula to show" in report.write([tmp_path / "run"]).read_text()


def test_an_altered_text_is_refused(tmp_path: Path) -> None:
    stopped(bare, tmp_path / "run")
    text = (tmp_path / "run" / "rule.py").read_text()
    (tmp_path / "run" / "rule.py").write_text(text.replace("lr *", "3 * lr *"))
    with pytest.raises(StorageError, match="is not the rule that the run was made with"):
        resume(tmp_path / "run")
    (tmp_path / "run" / "rule.py").unlink()
    with pytest.raises(StorageError, match=r"rule\.py: cannot be read"):
        resume(tmp_path / "run")


def test_minimize_keeps_it_too(tmp_path: Path) -> None:
    options: dict[str, Any] = {"rule": bare, "steps": 40, "checkpoint_every": 10, "lr": 0.01}
    run(prepare_minimum("rosenbrock", out=tmp_path / "whole", **options))
    events = iter(prepare_minimum("rosenbrock", out=tmp_path / "run", **options))
    for event in events:
        if event.step >= 25:
            break
    events.close()  # type: ignore[attr-defined]
    resume(tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_a_maker_of_optimizers_is_still_needed_again(tmp_path: Path) -> None:
    def maker(params: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=0.1)

    descent = prepare("softmax", "iris", rule=maker, out=tmp_path / "run", epochs=3, checkpoint_every=1)
    events = iter(descent)
    for event in events:
        if event.step >= 2:
            break
    events.close()  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="give it again"):
        resume(tmp_path / "run")
    with pytest.raises(UsageError, match=r"was given in Python; its run keeps it as rule.py"):
        descend.fit("softmax", "iris", rule="own:mine")
