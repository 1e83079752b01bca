"""Looking leaves no step: a finished run is what it was, whatever was looked at, asked about, priced and declined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.stored_runs import finished_run
from tests.fixtures.terminal import Terminal, Tunesmith
from tunesmith.memory.store import Store

PRICED = ("evaluate", "--arm", "adapter")
UNASKED = {"TUNESMITH_VLLM": "/bin/true"}


@pytest.fixture
def finished(tmp_path: Path) -> Tunesmith:
    store, run = finished_run(tmp_path / "home")
    store.set_run_status(run, "done")
    store.announce([step.id for step in store.steps(run)])
    store.close()
    return Tunesmith(tmp_path / "home")


def seen(tunesmith: Tunesmith) -> dict[str, Any]:
    """What people see of the run: the list, the run, its report, what it explains."""
    return {
        "list": tunesmith.json("runs", "list"),
        "show": tunesmith.json("runs", "show", "r1"),
        "report": tunesmith.json("report", "r1"),
        "explain": tunesmith.json("explain", "r1"),
    }


def at_the_price(tunesmith: Tunesmith, *answers: str) -> None:
    """Ask for a price at a terminal and answer it."""
    terminal = Terminal(PRICED, {**tunesmith.env, **UNASKED}, size=(40, 120))
    place = 0
    for answer in answers:
        terminal.expect("Start?", after=place)
        place = len(terminal.text)
        terminal.type(answer)
    terminal.end()
    terminal.close()


@pytest.mark.heavy
def test_ten_looks_at_a_finished_run_leave_it_as_it_was(finished: Tunesmith) -> None:
    before = seen(finished)
    store = Store(finished.home)
    events = store.read("SELECT count(*) FROM events")[0][0]
    for argv, exit_code in (
        (["inspect"], 0),
        (["fits", "7b"], 0),
        ([*PRICED], 3),
        ([*PRICED, "--max_tokens", "64"], 3),
        (["deploy"], 3),
        (["base", "--model", "bundled"], 3),
        (["-p", "what would it cost to evaluate the adapter again?"], 0),
        (["-p", "what does my machine have?"], 0),
    ):
        done = finished(*argv, **UNASKED)
        assert done.returncode == exit_code, (argv, done.stderr[-500:])
    at_the_price(finished, "no, not now\n")
    at_the_price(finished, "max_tokens=32\n", "no\n")
    at_the_price(finished, "\x03")
    assert seen(finished) == before
    assert store.run("r1").status == "done" and [run.id for run in store.runs()] == ["r1"]
    assert store.read("SELECT count(*) FROM events")[0][0] > events, "each of them is an event"
    assert {row["decision"] for row in store.read("SELECT decision FROM approvals WHERE decision = 'no'")} == {"no"}
    # Only what nobody has answered waits: the newest price of each step.
    waits = [(job["stage"], job["run"]) for job in finished.json("jobs", "list")["jobs"]]
    assert waits == [("deploy", "r1"), ("base", "r2")]


@pytest.mark.heavy
def test_of_two_prices_the_newest_can_be_approved_and_the_older_says_why_not(finished: Tunesmith) -> None:
    older, newest = (finished.json(*PRICED, "--max_tokens", tokens, "--json")["plan_hash"] for tokens in ("32", "64"))
    gone = finished("evaluate", "--approve", older[:12], **UNASKED)
    assert gone.returncode == 2 and "its run has gone on since, so `tunesmith evaluate` plans it anew" in gone.stderr
    approved = finished("evaluate", "--approve", newest[:12], **UNASKED)
    assert approved.returncode == 1, "its worker begins, and finds that the fixture's model is no model"
    assert [row["decision"] for row in Store(finished.home).read("SELECT decision FROM approvals ORDER BY rowid")][-1]
