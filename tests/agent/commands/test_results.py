"""Finished runs as the command line tells them: documented shapes, numbers of the store, and text that is only data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fixtures.stored_runs import baseline_run, failed_run, finished_run, server_record
from tests.fixtures.terminal import Tunesmith
from tunesmith.agent.commands.summary import summarise
from tunesmith.tools.report.page import gather

pytestmark = pytest.mark.heavy

ESCAPES = "\x1b]0;owned\x07\x1b[2J\u202eevil[bold red]"


@pytest.fixture
def finished(tunesmith: Tunesmith) -> Tunesmith:
    finished_run(tunesmith.home)
    return tunesmith


def test_compare_has_its_documented_shape(finished: Tunesmith) -> None:
    compared = finished.json("compare", "r1", "--arms", "base,adapter")
    assert (compared["run"], compared["arms"], compared["comparable"]) == ("r1", ["base", "adapter"], True)
    assert compared["differs_in"] == [] or set(compared["differs_in"]) <= {"adapter"}
    target = compared["blocks"]["target"]
    assert (target["cases"], target["passed"]) == (60, {"base": 2, "adapter": 59})
    assert target["errors"] == {"base": 0, "adapter": 0}
    assert (target["fail_to_pass"], target["pass_to_fail"], target["verdict"]) == (57, 0, "better")
    assert target["p_value"] < 1e-9
    assert len([flip for flip in compared["flips"] if flip["block"] == "target"]) == 57


@pytest.mark.parametrize("arms", ["base", "base,base", "base,other", "base,adapter,merged", ""])
def test_arms_that_cannot_be_compared_are_refused(finished: Tunesmith, arms: str) -> None:
    done = finished("compare", "r1", "--arms", arms)
    assert done.returncode == 2 and "arm" in done.stderr


def test_a_summary_counts_what_the_store_holds(tmp_path: Path) -> None:
    store, run = finished_run(tmp_path)
    summary = summarise(store, run)
    assert {arm: s.passed for arm, s in summary.blocks["target"].items()} == {
        "base": 2, "adapter": 59, "merged": 59, "quantized": 57,
    }  # fmt: skip
    assert [list(c.arms) for c in summary.comparisons] == [
        ["base", "adapter"], ["base", "merged"], ["base", "quantized"], ["adapter", "merged"], ["merged", "quantized"],
    ]  # fmt: skip
    assert summary.endpoint and summary.endpoint["served_now"] is False, "its server is gone"


def test_a_run_is_served_now_only_while_its_own_model_is_whatever_answers_at_its_address(tmp_path: Path) -> None:
    store, run = finished_run(tmp_path)
    deployed = next(artifact for artifact in store.artifacts(run, "deployment"))
    was = {"url": "http://127.0.0.1:8411", "key_file": "/gone/v1.key"}
    with store.write() as conn:
        conn.execute("UPDATE steps SET result = ? WHERE step = ?", (json.dumps(was), deployed.step))
    record = server_record("a99")
    (tmp_path / "servers").mkdir()
    (tmp_path / "servers" / "v2.json").write_text(json.dumps(record))
    told = summarise(store, run).endpoint
    assert told and told["served_now"] is False, "another run's model has its port"
    assert told["key_file"] == was["key_file"]
    assert gather(store, run).served.now is False
    record |= {"port": 8500, "meta": {"artifact": deployed.meta["serves"]}}
    (tmp_path / "servers" / "v2.json").write_text(json.dumps(record))
    told, page = summarise(store, run).endpoint, gather(store, run).served
    assert told["served_now"] is page.now is True
    assert told["url"] == page.url == "http://127.0.0.1:8500"
    assert told["key_file"] == str(tmp_path / "servers" / "v2.key")


def test_runs_are_told_in_their_documented_shapes(finished: Tunesmith) -> None:
    assert [run["run"] for run in finished.json("runs")["runs"]] == ["r1"]
    shown = finished.json("runs", "show", "r1")
    assert (shown["run"], shown["status"], len(shown["steps"])) == ("r1", "done", 13)
    assert [a["kind"] for s in shown["steps"] if s["stage"] == "quantize" for a in s["artifacts"]] == ["quantized"]
    asked = finished.json("runs", "sql", "SELECT stage, seconds FROM v_steps WHERE stage = 'merge'")
    assert asked["rows"] == [{"stage": "merge", "seconds": 17.8}]


def test_a_report_goes_where_it_is_told(finished: Tunesmith, tmp_path: Path) -> None:
    told = finished.json("report", "r1", "-o", str(tmp_path / "my.html"))
    assert told["report"] == str(tmp_path / "my.html") and (tmp_path / "my.html").is_file()
    assert "59" in told["verdict"]


@pytest.mark.parametrize("make", [baseline_run, failed_run])
def test_an_unfinished_run_is_told_too(tunesmith: Tunesmith, make: type) -> None:
    make(tunesmith.home)
    for command in (("runs",), ("runs", "show", "r1"), ("report", "r1")):
        done = tunesmith(*command)
        assert done.returncode == 0 and done.stdout.strip(), done.stderr


def test_what_others_wrote_sends_nothing_to_the_terminal(tunesmith: Tunesmith) -> None:
    finished_run(tunesmith.home, hostile=ESCAPES)
    for command in (
        ("runs",),
        ("runs", "show", "r1"),
        ("jobs",),
        ("compare", "r1"),
        ("report", "r1"),
        ("runs", "sql", "SELECT name, goal, run FROM runs"),
        ("runs", "show", ESCAPES),
    ):
        done = tunesmith(*command)
        told = done.stdout + done.stderr
        assert told and not set(told) & {"\x1b", "\x07", "\u202e"}, command
        if "owned" in told:
            assert "[bold red]" in told.replace("\n", "") or "[bold" in told, "markup is text"


def test_json_keeps_what_others_wrote_as_it_is(tunesmith: Tunesmith) -> None:
    finished_run(tunesmith.home, hostile=ESCAPES)
    done = tunesmith("runs", "show", "r1", "--json")
    assert ESCAPES in json.loads(done.stdout)["name"] and "\x1b" not in done.stdout


def test_nothing_served_is_said(finished: Tunesmith) -> None:
    assert finished.json("serve", "status") == {"servers": []}
    assert finished("serve", "stop").returncode == 0
