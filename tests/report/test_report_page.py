from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_runs import content, descent_1d, descent_2d, fit_run, make_run, visible

import descend.report
from descend.errors import StorageError, UsageError

NASTY = '</script><script>alert("x")</script><img src=x onerror=alert(1)>&amp;'


class Loads(HTMLParser):
    """Collects whatever would make a browser fetch something, and checks that tags are closed in order."""

    VOID = ("meta", "input", "img", "br", "link")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.open: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            fetches = ("src", "srcset", "href", "data", "poster", "action")
            if name in fetches and not (value or "").startswith(("data:", "#")):
                self.found.append(f"{tag} {name}={value}")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        # In a style sheet; "@import" and "url(" fetch. In a script, only our own few words would.
        if self.open and self.open[-1] == "style":
            self.found += re.findall(r"@import[^;]*|url\((?!data:)[^)]*\)", data)
        if self.open and self.open[-1] == "script":
            self.found += re.findall(
                r"\bfetch\(|XMLHttpRequest|\bimport\s*\(|WebSocket|EventSource|sendBeacon", data
            )


def loads(page: Path) -> Loads:
    reader = Loads()
    reader.feed(page.read_text("utf-8"))
    reader.close()
    assert not reader.open
    return reader


def test_one_run_says_what_happened_and_why(digits: Path) -> None:
    page = descend.report.write([digits])
    assert page == digits / "report.html"
    text = visible(page)
    for said in (
        "Epoch limit",
        "Stopped after 50 epochs, as asked.",
        "Held-out accuracy",
        "0.9778",
        "Best held-out loss",
        "The loss of a batch went from",
        "Training loss",
        "step 920",
        "1,797 images of 8 × 8 pixels, 10 classes.",
        "ten classes of small images",
        "Kingma and Ba 2015, Algorithm 1",
        "m_hat = m / (1 - beta1**t)",
        f"descend predict {digits} new.csv",
        'source = "digits"',
        "How to read this",
    ):
        assert said in text, said
    assert page.stat().st_size < 150_000


def test_the_charts_are_those_there_is_something_to_draw_for(digits: Path) -> None:
    found = content(descend.report.write(digits))
    assert [chart["key"] for chart in found["charts"]] == ["loss", "validation_accuracy", "lr", "grad_norm"]
    assert [each["role"] for each in found["charts"][0]["series"]] == ["train", "held"]
    assert found["charts"][0]["log"]
    assert found["smooth"] > 0
    assert found["runs"][0]["marks"] == [{"step": 920, "text": "best held-out", "kind": "best"}]


def test_a_scheduled_hyper_parameter_gets_a_chart_and_a_constant_one_does_not(tmp_path: Path) -> None:
    history = [
        {"step": k, "loss": 1 / k, "momentum": 0.5 + k / 100, "weight_decay": 0.1} for k in range(1, 20)
    ]
    found = content(descend.report.write(fit_run(tmp_path / "run", history=history)))
    assert [chart["key"] for chart in found["charts"]] == ["loss", "momentum"]


def test_the_page_loads_nothing(tmp_path: Path, digits: Path) -> None:
    runs = [descent_2d(tmp_path / "a"), descent_2d(tmp_path / "b", momentum=0.5), digits]
    page = descend.report.write(runs, tmp_path / "all.html")
    assert loads(page).found == []
    assert "default-src 'none'" in page.read_text("utf-8")
    assert "Copyright (c) 2022 Leon Sorokin" in page.read_text("utf-8")


@pytest.mark.parametrize(
    "attack", ['<img src="http://e/x">', "<style>@import 'x';</style>", "<script>fetch(1)</script>"]
)
def test_the_check_for_loads_sees_them(tmp_path: Path, attack: str) -> None:
    page = tmp_path / "page.html"
    page.write_text(f"<main>{attack}</main>")
    assert loads(page).found


def test_names_from_the_user_are_text_wherever_they_stand(tmp_path: Path, digits: Path) -> None:
    names = {"fingerprint": NASTY, "name": NASTY, "task": NASTY, "features": [NASTY] * 20, "classes": [NASTY]}
    nasty = fit_run(
        tmp_path / "run <b> & co",
        data={**names, "summary": [NASTY], "notices": [NASTY], "input_shape": [NASTY], "outputs": NASTY},
        history=[{"step": k, "loss": 1.0 / k, NASTY: k, f"validation_{NASTY}": k} for k in range(1, 9)],
        settings={
            "rule": {"name": NASTY, NASTY: NASTY},
            "model": {"name": NASTY},
            "batch": {"size": NASTY, "taken": NASTY, "reason": NASTY},
        },
        surface={"names": [NASTY], "axes": [[0, 1]], "loss": [0, 1], "path": []},
        result={
            "reason": NASTY,
            "explanation": NASTY,
            "metrics": {NASTY: 1.0},
            "notices": [NASTY],
            "best": {"step": NASTY, "validation_loss": 1.0},
            "diverged": {NASTY: NASTY},
        },
    )
    plain = loads(descend.report.write(digits))
    for page in (descend.report.write(nasty), descend.report.write([nasty, digits])):
        found = loads(page)
        assert found.tags.count("script") == plain.tags.count("script")
        assert "img" not in found.tags
        assert NASTY in visible(page)
        content(page)


def test_a_diverged_run_names_where_and_draws_what_was_finite(tmp_path: Path) -> None:
    losses = [1.0, 5.0, 80.0, math.inf, math.nan]
    history = [
        {"step": k, "epoch": k / 10, "loss": loss, "lr": 9.0, "grad_norm": loss}
        for k, loss in enumerate(losses, 1)
    ]
    run = fit_run(
        tmp_path / "run",
        history=history,
        result={
            "reason": "diverged",
            "explanation": "The loss became infinite at step 4.",
            "loss": math.inf,
            "steps": 5,
            "diverged": {"step": 4, "epoch": None, "batch": 3, "loss": math.inf, "samples": [17, 4]},
            "best": None,
        },
    )
    page = descend.report.write(run)
    found = content(page)["runs"][0]
    assert found["series"]["loss"]["v"] == [1, 5, 80, None, None]
    assert found["marks"] == [{"step": 4, "text": "diverged at step 4", "kind": "bad"}]
    text = visible(page)
    assert "Diverged" in text
    assert "From step 4 on record it is not a finite number, after values up to 80." in text
    assert "Where it broke: step 4, batch 3, loss infinite. The 2 samples of that batch 17, 4" in text


def test_where_a_loss_stops_being_a_number_is_marked_without_a_result_too(tmp_path: Path) -> None:
    history = [{"step": k, "loss": loss} for k, loss in ((1, 1.0), (2, math.nan), (3, 2.0))]
    found = content(descend.report.write(fit_run(tmp_path / "run", history=history, result=None)))
    assert found["runs"][0]["marks"] == [{"step": 2, "text": "not finite from here", "kind": "bad"}]


def test_only_a_loss_that_jumps_about_is_smoothed(tmp_path: Path, digits: Path) -> None:
    even = [{"step": k, "loss": 1 / k} for k in range(1, 400)]
    found = content(descend.report.write([digits, fit_run(tmp_path / "even", history=even)]))
    assert [run["noisy"] for run in found["runs"]] == [True, False]
    assert content(descend.report.write(descent_2d(tmp_path / "f")))["smooth"] == 0


def test_a_run_in_progress_can_be_read(tmp_path: Path) -> None:
    run = fit_run(tmp_path / "run", steps=40, result=None, tail='{"step": 41, "lo')
    text = visible(descend.report.write(run))
    assert "No result yet" in text
    assert "The record ends at step 40." in text
    assert f"descend fit --resume {run}" in text


def test_a_run_without_a_step_can_be_read(tmp_path: Path) -> None:
    page = descend.report.write(make_run(tmp_path / "run", {"run": {"kind": "fit"}}, []))
    assert "No step is on record yet." in visible(page)
    assert content(page)["runs"][0]["step"] == []


def test_an_interrupted_run_says_how_to_go_on(tmp_path: Path) -> None:
    result = {"reason": "interrupted", "explanation": "Told to stop by SIGINT after step 7.", "resumed": 2}
    run = fit_run(tmp_path / "with space", result=result)
    text = visible(descend.report.write(run))
    assert "Interrupted Told to stop by SIGINT after step 7." in text
    assert f"descend fit --resume '{run}'" in text
    assert "continued 2 times" in text


def test_falling_no_more_is_not_called_converged(tmp_path: Path) -> None:
    result = {"reason": "no_progress", "explanation": "The held-out loss fell no more for 10 epochs."}
    text = visible(descend.report.write(fit_run(tmp_path / "run", result=result)))
    assert "Falls no more" in text
    assert "That is not convergence" in text
    assert "Converged" not in text


def test_a_rule_of_torch_has_no_formula_and_the_page_says_so(tmp_path: Path) -> None:
    text = visible(
        descend.report.write(fit_run(tmp_path / "run", settings={"rule": {"name": "torch.optim.RAdam"}}))
    )
    assert "torch.optim.RAdam is not one of descend's rules" in text
    assert "Algorithm" not in text


def test_the_best_held_out_loss_is_set_against_the_last(tmp_path: Path) -> None:
    history = [
        {"step": k, "loss": 1.0, "validation_loss": loss} for k, loss in ((1, 3.0), (2, 2.0), (3, 2.5))
    ]
    text = visible(descend.report.write(fit_run(tmp_path / "run", history=history)))
    assert "lowest at step 2, 2; the last one, 2.5, is 25 % above that" in text
    history.append({"step": 4, "loss": 1.0, "validation_loss": 9.0})
    text = visible(descend.report.write(fit_run(tmp_path / "other", history=history)))
    assert "the last one, 9, is 4.5 times that" in text


def test_the_same_run_gives_the_same_page(digits: Path) -> None:
    first = descend.report.write(digits).read_bytes()
    assert descend.report.write(digits).read_bytes() == first


def test_where_pages_go(tmp_path: Path) -> None:
    runs = [descent_1d(tmp_path / "runs" / name) for name in ("a", "b")]
    assert descend.report.write(runs) == tmp_path / "runs" / "comparison.html"
    assert descend.report.write(str(runs[0])) == runs[0] / "report.html"
    assert descend.report.write(runs[0], tmp_path / "x.html") == tmp_path / "x.html"
    assert not list(tmp_path.rglob(".*"))


def test_what_is_no_run_is_refused(tmp_path: Path, digits: Path) -> None:
    with pytest.raises(UsageError, match="no run directory was given"):
        descend.report.write([])
    with pytest.raises(StorageError, match="not a run directory"):
        descend.report.write(tmp_path)
    with pytest.raises(StorageError, match=r"nowhere.*cannot be written"):
        descend.report.write(digits, tmp_path / "nowhere" / "page.html")
    (digits / "result.json").write_text("{")
    with pytest.raises(StorageError, match=r"result\.json: damaged"):
        descend.report.write(digits)


def test_a_run_with_parts_of_the_users_own_is_continued_from_python(tmp_path: Path) -> None:
    settings = {"model": {"name": "own:Net"}, "rule": {"name": "own:RAdam"}}
    run = fit_run(tmp_path / "run", steps=40, result=None, settings=settings)
    text = visible(descend.report.write(run))
    assert f"descend.descent.resume('{run}', model=..., rule=...)" in text
    assert "Net on digits · RAdam, learning rate 0.001 · batches of 64" in text
    settings["data"] = {"source": "mine.py:make"}
    again = fit_run(tmp_path / "again", steps=40, result=None, settings=settings)
    assert f"descend fit --resume {again}" in visible(descend.report.write(again))


def test_a_schedule_stands_beside_the_hyper_parameter_it_moves(tmp_path: Path) -> None:
    history = [{"step": k, "loss": 1.0, "lr": 10.0**-k} for k in range(1, 9)]
    settings = {"schedule": {"lr": "cosine(0.1, 8)"}, "rule": {"lr": 0.1}}
    page = descend.report.write(fit_run(tmp_path / "run", history=history, settings=settings))
    assert "lr 0.1 default 0.001 then cosine(0.1, 8)" in visible(page)
    assert not content(page)["charts"][1]["log"]
