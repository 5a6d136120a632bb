"""A chain by the names of its parts, on the command line: shown, trained with, run again."""

from __future__ import annotations

from pathlib import Path

from conftest import Command

TABLE = "x,y\n" + "".join(f"{i},{3 * i + 1}\n" for i in range(20))


def test_a_chain_is_shown_as_one_program_with_its_passes_and_bytes(descend: Command) -> None:
    said = descend(["show", "clip_global_norm + adamw + ema_weights"])
    assert said.code == 0, said.err
    assert "formula: clip_global_norm + adamw + ema_weights" in said.out
    assert (
        "staged: 2 passes over memory, 10 values read or written for an element: 40 bytes in float32"
        in said.out
    )
    assert "define void @run" in said.out


def test_a_run_follows_a_chain_and_its_configuration_runs_again(descend: Command) -> None:
    Path("table.csv").write_text(TABLE)
    chain = "clip_norm + gradient_noise + adamw"
    said = descend(
        ["fit", "table.csv", "--target", "y", "--rule", chain, "--epochs", "2", "--set", "rule.max_norm=0.5"]
    )
    assert said.code == 0, said.err
    config = Path("runs/table/config.toml").read_text()
    assert f'name = "{chain}"' in config
    assert "max_norm = 0.5" in config
    said = descend(["fit", "--config", "runs/table/config.toml", "--epochs", "3"])
    assert said.code == 0, said.err


def test_a_part_that_does_not_exist_is_named(descend: Command) -> None:
    said = descend(["show", "clip_nrm + adamw"])
    assert said.code == 2
    assert "unknown part 'clip_nrm' of a chain (did you mean 'clip_norm'?)" in said.err
