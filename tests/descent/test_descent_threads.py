"""On how many threads a descent runs, and that it leaves torch as it was."""

import pytest
import torch

import descend
from descend import descent, record
from descend.descent import threads


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def seen(**options):
    found = []
    run = descent.prepare("softmax", "iris", steps=2, **options)
    for _ in run:
        found.append(torch.get_num_threads())
    assert torch.get_num_threads() == 2, "torch is left as it was"
    return set(found)


def test_the_library_leaves_torch_alone_unless_asked():
    assert seen() == {2}
    assert seen(threads=1) == {1}
    assert seen(threads="auto") == {1}


def test_a_large_step_keeps_all_threads(monkeypatch):
    monkeypatch.setattr(threads, "SMALL", 10.0)
    assert seen(threads="auto") == {2}


def test_who_has_said_how_many_threads_is_obeyed(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert seen(threads="auto") == {2}


def test_operations_are_counted_without_a_trace():
    data = descend.data.load("digits")
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(64), torch.nn.Linear(64, 10))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    # a product of [B, 64] and [64, 10] is 2*64*10 operations a sample; backward costs twice forward
    assert threads._operations(model, data, 32) == 2 * 64 * 10 * 32 * 3
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "two"])
def test_another_number_of_threads_is_refused(wrong):
    with pytest.raises(descend.UsageError, match=r'threads=.*give a whole number from 1, or "auto"'):
        descent.prepare("softmax", "iris", steps=2, threads=wrong)


def test_the_choice_is_recorded_and_a_resumed_run_keeps_it(tmp_path):
    run = descent.prepare(
        "softmax", "iris", steps=40, threads="auto", out=tmp_path / "run", checkpoint_every=10
    )
    for event in run:
        if event.kind == "checkpoint" and event.step >= 20:
            break
    del run
    config = record.read(tmp_path / "run").config
    assert config["run"]["threads"] == 1
    assert any(choice["what"] == "threads" for choice in config["choices"])
    result = descent.resume(tmp_path / "run")
    assert result.steps == 40
    assert record.read(tmp_path / "run").result["resumes"][0]["exact"]
