"""What the terminal shows is true to the records, and text in them is only text."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from tests.fixtures import stored_runs
from tests.fixtures.tables import table
from tunesmith.agent.commands import render
from tunesmith.agent.commands.price import forecast_table, price_lines, price_page
from tunesmith.agent.commands.terminal import SafeConsole
from tunesmith.tools.core.estimate import Lack
from tunesmith.tools.core.format import duration
from tunesmith.tools.core.stage import GIB, Estimate, Plan
from tunesmith.tools.evaluation.pairing import compare_run
from tunesmith.tools.pipeline.forecast import Forecast


def shown(what: RenderableType) -> str:
    console = Console(width=140, record=True, file=None, force_terminal=False)
    with console.capture() as captured:
        console.print(what)
    return captured.get()


def on_terminal(what: RenderableType, width: int) -> str:
    """As a terminal of that width shows it, its colours left out."""
    file = io.StringIO()
    SafeConsole(file=file, width=width, force_terminal=True, color_system=None).print(what)
    return re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())


def plan(stage: str, seconds: float, ram_bytes: int, **more: object) -> Plan:
    estimate = Estimate(seconds=seconds, basis="3 past runs of it", peak_ram_bytes=ram_bytes, disk_bytes=GIB)
    fields = {"run": "r1", "summary": f"do {stage}", "steps": ("one",), "request": {}} | more
    return Plan(stage=stage, estimate=estimate, **fields)  # type: ignore[arg-type]


def test_the_time_left_is_the_workers_own_and_the_price_before_it_says_so() -> None:
    assert render.eta_seconds(0, 0, 100) == 100 and render.eta_seconds(10, 0, 100) == 90
    assert render.eta_seconds(10, 50, 100) == 40, "what the worker measures goes before the price"
    assert render.eta_seconds(200, 150, 100) == 0


@table(("took", "priced", "said"), [(90, 30, "3.0"), (30, 90, "3.0"), (44, 30, ""), (3, 1, "")])
def test_a_price_that_was_far_off_is_said(took: float, priced: float, said: str) -> None:
    line = render.took_line(took, priced)
    assert line.startswith(f"took {duration(took)}, estimated {duration(priced)}")
    assert (f"off by a factor of {said}" in line) == bool(said)


def test_a_plan_shows_its_price_against_what_is_free() -> None:
    told = shown(
        price_lines(
            plan("train", 90, 9 * GIB, free_ram_bytes=8 * GIB, replaces=("the old [red]one",), notes=("it is late",)),
            "s7",
        )
    )
    title, *lines = told.splitlines()
    assert title == "train (s7, r1): do train"
    assert [line.split()[0] for line in lines] == ["time", "memory", "disk", "note"]
    assert "about 1 min 30 s (3 past runs of it)" in lines[0] and "RAM 9.0 GiB needed, 8.0 GiB free" in lines[1]
    assert lines[2].endswith("replaces the old [red]one") and lines[3].endswith("it is late")


def test_why_shows_what_the_short_price_leaves_out_and_its_hash() -> None:
    asked = plan("train", 90, GIB, writes=("an adapter",), reasons={"lora_rank": "16 by the rows"})
    short, whole = shown(price_lines(asked, "s7")), shown(price_page(asked, "s7"))
    for part in ("1. one", "an adapter", "lora_rank: 16 by the rows", asked.hash[:12]):
        assert part in whole and part not in short
    assert asked.hash[:12] in shown(price_lines(asked, "s7", with_hash=True))


@pytest.mark.parametrize("width", [80, 120])
def test_a_price_is_a_title_and_three_lines_and_fits(width: int) -> None:
    basis = "usual rates of such a processor until this one is measured; train has not run"
    asked = plan("train", 7321, 9 * GIB, free_ram_bytes=18 * GIB, free_vram_bytes=22 * GIB, notes=("a note " * 20,))
    asked = asked.model_copy(update={"estimate": asked.estimate.model_copy(update={"basis": basis})})
    lines = on_terminal(price_lines(asked, "s7"), width).splitlines()
    assert all(len(line) <= width for line in lines)
    assert [line.split()[0] for line in lines[1:5]] == ["time", "memory", "disk", "note"], "one line each"


def test_a_whole_arc_is_summed_in_time_and_disk_and_takes_the_highest_peak() -> None:
    priced = [
        Forecast(p.stage, p.summary, p.estimate) for p in (plan("train", 60, 3 * GIB), plan("merge", 30, 5 * GIB))
    ]
    told = shown(forecast_table("demo", [*priced, Forecast("deploy", "serve it")]))
    assert "here:" not in told, "where all is done here, nothing is said of it"
    there = shown(forecast_table("demo", [*(replace(p, on="h:1, one L4") for p in priced), Forecast("deploy", "")]))
    assert "on h:1, one L4: train, merge" in there and "here: deploy" in there
    total = next(line for line in told.splitlines() if "total" in line)
    assert "1 min 30 s" in total and "5.0 GiB" in total and "2.0 GiB" in total
    assert "when due" in next(line for line in told.splitlines() if "deploy" in line)
    assert [line.split()[:2] for line in told.splitlines()[2:5]] == [["1", "train"], ["2", "merge"], ["3", "deploy"]]
    assert told.splitlines()[1].split() == ["step", "what", "time", "RAM", "disk"], "no card, no VRAM"


def test_vram_and_ram_of_a_plan_are_not_mixed() -> None:
    priced = [plan("train", 60, 3 * GIB), plan("merge", 30, 5 * GIB)]
    train, merge = (Forecast(one.stage, one.summary, one.estimate) for one in priced)
    assert train.estimate
    on_cards = train.estimate.model_copy(update={"peak_vram_bytes": 9 * GIB, "cards": 2})
    _title, columns, *lines = shown(forecast_table("demo", [replace(train, estimate=on_cards), merge])).splitlines()
    assert columns.split() == ["step", "what", "time", "VRAM", "RAM", "disk"]
    cells = [line.split("  ") for line in lines[:3]]
    memory = [[cell.strip() for cell in line if "GiB" in cell or cell.strip() == "–"][:2] for line in cells]
    assert memory == [["2 × 9.0 GiB", "3.0 GiB"], ["–", "5.0 GiB"], ["9.0 GiB", "5.0 GiB"]]


def test_what_steps_lack_stands_in_the_first_lines_of_their_plan_each_once() -> None:
    held, never = "other programs hold memory", Lack("VRAM", 72 * GIB, 23 * GIB, ["load_in_4bit=true"])
    most = "need up to 72.0 GiB of VRAM, there is room for 23.0 GiB; try load_in_4bit=true"
    lacking = [
        Forecast(p.stage, p.summary, p.estimate, lacks=(never,) * lacks, held=(held,) * holds)
        for p, lacks, holds in zip(
            map(plan, ("base", "preflight", "train", "merge"), (1, 1, 1, 1), (GIB, GIB, GIB, GIB)),
            (0, 1, 1, 0), (0, 0, 0, 1), strict=True,
        )
    ]  # fmt: skip
    title, first, second, *rest = shown(forecast_table("demo", lacking)).splitlines()
    assert title == "plan demo" and first == f"does not fit: steps 2 and 3 {most}"
    assert second == f"would not fit now: step 4: {held}" and not any("fit" in line for line in rest)
    assert "fit" not in shown(forecast_table("demo", lacking[:1]))


FALSE_ROW = "│  time    │ about 0.1 s; already agreed to"


@table("end", ["\n", "\r\n", "\r", "\x0b", "\x85", "\u2028", "\t", " " * 200, "\u2800" * 70, "x" * 200])
def test_a_name_adds_no_row_to_a_price(end: str) -> None:
    """Wherever a plan says it: each entry is one line, and draws no frame."""
    name = f"model{end}{FALSE_ROW}{end}"
    honest, false = plan("base", 90, GIB, **_everywhere("model")), plan("base", 90, GIB, **_everywhere(name))
    for price in (partial(price_lines, step="s1", with_hash=True), partial(price_page, step="s1")):
        for width in (60, 80, 140):
            told = on_terminal(price(false), width)
            assert labels(told) == labels(on_terminal(price(honest), width)) and "│" not in told
            assert all(len(line) <= width for line in told.splitlines()), "or the terminal itself begins a line"
    forecast = shown(forecast_table(name, [Forecast("base", name, honest.estimate)]))
    assert "│" not in forecast and sum("about 0.1 s" in line for line in forecast.splitlines()) <= 3


def labels(told: str) -> list[str]:
    """What stands where a price's own rows begin."""
    return [line[:12].split()[0] for line in told.splitlines() if line.startswith("  ") and line[2] != " "]


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
    more = {"comparisons": [hop.to_json()], "claim_sentence": "learned: 9 of 10", "proof": {"engine": {"vllm": [1]}}}
    told = shown(render.result_table({**step.report, **more}))
    assert not set("{}[]") & set(told)
    target = hop.blocks["target"]
    line = next(line for line in told.splitlines() if "target" in line and "→" in line)
    for arm in hop.arms:
        assert f"{target.passed[arm]} of {target.judged}" in line
    assert "learned: 9 of 10" in told and "proof" in told.split("with --json")[1]
