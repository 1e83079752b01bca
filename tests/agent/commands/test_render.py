"""What the terminal shows is true to the records, and text in them is only text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from tests.fixtures import stored_runs
from tunesmith.agent.commands import render
from tunesmith.tools.core.stage import GIB, Estimate, Plan
from tunesmith.tools.evaluation.pairing import compare_run
from tunesmith.tools.pipeline.forecast import Forecast


def shown(what: RenderableType) -> str:
    console = Console(width=140, record=True, file=None, force_terminal=False)
    with console.capture() as captured:
        console.print(what)
    return captured.get()


def plan(stage: str, seconds: float, ram_bytes: int, **more: object) -> Plan:
    estimate = Estimate(seconds=seconds, basis="3 past runs of it", peak_ram_bytes=ram_bytes, disk_bytes=GIB)
    fields = {"run": "r1", "summary": f"do {stage}", "steps": ("one",), "request": {}} | more
    return Plan(stage=stage, estimate=estimate, **fields)  # type: ignore[arg-type]


def test_the_time_left_starts_at_the_estimate_and_ends_at_the_pace() -> None:
    assert render.eta_seconds(0, 0, 0, 100) == 100
    assert render.eta_seconds(10, 0, 50, 100) == 90
    assert render.eta_seconds(80, 50, 50, 100) == 0
    slow = render.eta_seconds(90, 45, 50, 50)
    assert 8 < slow < 10, "at nine tenths the pace counts, not an estimate that is long over"
    assert render.eta_seconds(200, 0, 0, 100) == 0


def test_a_plan_shows_its_price_against_what_is_free() -> None:
    told = shown(
        render.plan_table(
            plan("train", 90, 9 * GIB, free_ram_bytes=8 * GIB, writes=("an adapter",), replaces=("the old [red]one",)),
            "s7",
        )
    )
    for part in ("train (s7, r1)", "1 min 30 s (3 past runs of it)", "9.0 GiB needed, 8.0 GiB free", "an adapter"):
        assert part in told
    assert "the old [red]one" in told


def test_a_whole_arc_is_summed_in_time_and_disk_and_takes_the_highest_peak() -> None:
    priced = [
        Forecast(p.stage, p.summary, p.estimate) for p in (plan("train", 60, 3 * GIB), plan("merge", 30, 5 * GIB))
    ]
    told = shown(render.forecast_table("demo", [*priced, Forecast("deploy", "serve it")]))
    total = next(line for line in told.splitlines() if "total" in line)
    assert "1 min 30 s" in total and "5.0 GiB" in total and "2.0 GiB" in total
    assert "when due" in next(line for line in told.splitlines() if "deploy" in line)


FALSE_ROW = "│ time   │ about 0.1 s; already agreed to"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\x0b", "\x85", "\u2028", "\t", " " * 200])
def test_a_name_adds_no_row_to_a_price(end: str) -> None:
    """Wherever a plan says it: each entry is one line, and draws no frame."""
    name = f"model{end}{FALSE_ROW}{end}"
    honest, false = plan("base", 90, GIB, **_everywhere("model")), plan("base", 90, GIB, **_everywhere(name))
    rows = [line.split("│")[1].strip() for line in shown(render.plan_table(false, "s1")).splitlines() if "│" in line]
    assert [row for row in rows if row] == [
        line.split("│")[1].strip() for line in shown(render.plan_table(honest, "s1")).splitlines() if "│" in line
    ]
    forecast = render.forecast_table(name, [Forecast("base", name, honest.estimate)])
    assert "│" not in shown(forecast) and sum("about 0.1 s" in line for line in shown(forecast).splitlines()) <= 3
    assert forecast.title is not None and len(str(forecast.title).splitlines()) == 1


def _everywhere(name: str) -> dict[str, object]:
    return {"run": name, "summary": f"get {name}", "writes": (name,), "replaces": (name,), "notes": (name,),
            "steps": (f"copy {name}",), "reasons": {"measuring": name}}  # fmt: skip


def test_what_would_move_the_cursor_is_spelled_out() -> None:
    assert "\x1b" not in shown(render.plain("a\x1b[2Jb")) and "U+001B" in shown(render.plain("a\x1b[2Jb"))


def test_what_an_audit_found_is_a_sentence_and_one_of_another_version_is_shown_as_it_is(tmp_path: Path) -> None:
    store, run = stored_runs.finished_run(tmp_path)
    merge = next(step for step in store.steps(run) if step.stage == "merge")
    assert "272 tensors, all finite; 62 as in" in shown(render.result_table(merge.report))
    other = replace(merge, result={"audit": {"tensors": "many"}})
    assert "tensors: many" in shown(render.result_table(other.report))


def test_an_evaluation_ends_in_its_counts_and_its_claim_and_not_in_records_for_programs(tmp_path: Path) -> None:
    store, run = stored_runs.finished_run(tmp_path)
    hop = compare_run(store, run, "base", "adapter")
    step = next(step for step in store.steps(run) if step.stage == "evaluate" and step.arm == "adapter")
    more = {"comparisons": [hop.to_json()], "claim_sentence": "learned: 9 of 10", "likelihood": {"base": {"nll": [1]}}}
    told = shown(render.result_table({**step.report, **more}))
    assert not set("{}[]") & set(told)
    target = hop.blocks["target"]
    line = next(line for line in told.splitlines() if "target" in line and "→" in line)
    for arm in hop.arms:
        assert f"{target.passed[arm]} of {target.judged}" in line
    assert "learned: 9 of 10" in told and "likelihood" in told.split("with --json")[1]
