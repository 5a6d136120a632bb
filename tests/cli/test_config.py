"""Settings: where they come from, who wins, and what is said about a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from descend.cli.config import FIT, MINIMIZE, Settings
from descend.errors import UsageError


def fit_settings() -> Settings:
    return Settings("fit", FIT)


def written(folder: Path, content: str) -> Path:
    path = folder / "c.toml"
    path.write_text(content, encoding="utf-8")
    return path


def test_flags_win_over_overrides_and_overrides_over_the_file(tmp_path: Path) -> None:
    settings = fit_settings()
    settings.read(written(tmp_path, '[rule]\nname = "sgd"\nlr = 0.1\n[stop]\nepochs = 3\n[run]\nseed = 1\n'))
    settings.override("rule.lr=0.2")
    settings.override("run.seed=2")
    settings.flag("rule.lr", 0.3, "--lr")
    settings.flag("stop.epochs", None, "--epochs")
    assert settings.values == {"rule.name": "sgd", "rule.lr": 0.3, "stop.epochs": 3, "run.seed": 2}
    assert settings.origin["run.seed"] == "--set"
    assert settings.table("rule") == {"name": "sgd", "lr": 0.3}


@pytest.mark.parametrize(
    ("assignment", "key", "value"),
    [
        ("rule.lr=1e-2", "rule.lr", 0.01),
        ("rule.nesterov=true", "rule.nesterov", True),
        ("batch.size=full", "batch.size", "full"),
        ("schedule.lr=cosine(0.1, 100)", "schedule.lr", "cosine(0.1, 100)"),
        ("model.hidden=[64, 32]", "model.hidden", [64, 32]),
        ("data.target='a = b'", "data.target", "a = b"),
        ("rule={lr = 0.5}", "rule.lr", 0.5),
    ],
)
def test_an_override_is_toml_or_plain_text(assignment: str, key: str, value: object) -> None:
    settings = fit_settings()
    settings.override(assignment)
    assert settings.values == {key: value}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[stop]\nepoch = 3\n", "unknown key 'stop.epoch' (did you mean 'stop.epochs'?)"),
        ("[rul]\nname = 'adam'\n", "unknown key 'rul.name' (did you mean 'rule.name'?)"),
        ("seed = 3\n", "unknown key 'seed' (did you mean 'run.seed'?)"),
        ("lr = 3\n", "unknown key 'lr'. Allowed here: rule.lr"),
        ("[optimizers]\nx = 1\n", "unknown key 'optimizers.x'. Allowed here: batch, checkpoint, data"),
        ("[run]\nkind = 'minimize'\n", "is the configuration of a minimize: descend minimize --config"),
        ("[run\n", "is not TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_advice(tmp_path: Path, content: str, message: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(UsageError) as caught:
        fit_settings().read(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_what_a_run_records_for_reading_only_is_ignored(tmp_path: Path) -> None:
    settings = fit_settings()
    settings.read(
        written(
            tmp_path,
            '[run]\nkind = "fit"\nseed = 5\ndescend = "0.1.0"\ntorch = "2.13.0"\npython = "3.11.7"\n'
            '[batch]\nsize = "auto"\ntaken = 64\nreason = "r"\n[[choices]]\nwhat = "lr"\nwhy = "w"\n',
        )
    )
    assert settings.values == {"run.seed": 5, "batch.size": "auto"}


def test_what_belongs_to_another_rule_model_or_seed_is_left_behind(tmp_path: Path) -> None:
    settings = fit_settings()
    settings.read(
        written(
            tmp_path,
            '[rule]\nlr = 0.1\nname = "adam"\nbeta1 = 0.8\n[run]\nseed = 1\n[data]\nseed = 1\ntarget = "y"\n',
        )
    )
    settings.override("rule.momentum=0.9")
    settings.flag("rule.name", "momentum", "--rule")
    settings.flag("run.seed", 2, "--seed")
    assert settings.values == {
        "rule.momentum": 0.9,
        "rule.name": "momentum",
        "run.seed": 2,
        "data.target": "y",
    }


def test_a_missing_file_and_a_missing_equals_sign() -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        fit_settings().read(Path("nowhere.toml"))
    with pytest.raises(UsageError, match="wanted KEY=VALUE"):
        fit_settings().override("rule.lr")


def test_a_value_of_the_wrong_type_names_its_origin() -> None:
    settings = Settings("minimize", MINIMIZE)
    settings.override("stop.steps=many")
    settings.override("rule.lr=1")
    with pytest.raises(UsageError, match=r"--set: stop\.steps is 'many', wanted a whole number"):
        settings.get("stop.steps", int, "a whole number")
    assert settings.get("rule.lr", float, "a number") == 1.0
    assert isinstance(settings.get("rule.lr", float, "a number"), float)
    settings.override("stop.steps=true")
    with pytest.raises(UsageError, match="is True"):
        settings.get("stop.steps", int, "a whole number")
    assert settings.get("run.seed", int, "a whole number") is None
