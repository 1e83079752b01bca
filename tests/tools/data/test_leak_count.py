"""A person is asked what becomes of rows that repeat a test case, before critique costs anything."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tools.data.test_critique_job import DEMO, asking, cases, generated
from tunesmith.agent.commands.output import Output
from tunesmith.agent.commands.run_steps import workspace_of
from tunesmith.agent.commands.settings import load
from tunesmith.memory.records import Artifact, TrainingRow
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Facts, Inputs, Machine, Plan, PlanQuestion
from tunesmith.tools.data import critique, undecided
from tunesmith.tools.data.critique import CritiqueRequest
from tunesmith.tools.data.rows import write_rows
from tunesmith.tools.imports.formats import inspect_records
from tunesmith.tools.imports.import_rows import questions

REPEATED = [str(case.vars[DEMO.slot]) for case in cases() if case.block == "target"][:3]


@pytest.fixture
def rows(tmp_path: Path) -> list[TrainingRow]:
    fresh = [generated(index) for index in range(9)]
    return [*fresh, *(replace(asking(generated(20 + n), text), row_id=f"x{n}") for n, text in enumerate(REPEATED))]


def priced(tmp_path: Path, rows: Sequence[TrainingRow], *, sha256: str = "d" * 64, **fields: object) -> Plan:
    store = Store(tmp_path / "home")
    run = store.new_run("test")
    step = store.propose(run, "generate", plan_hash="h")
    folder = tmp_path / "rows"
    write_rows(folder / "rows.jsonl", list(rows))
    meta = {"rows": len(rows), "behaviour": "demo", "behaviour_sha256": DEMO.sha256}
    made = Artifact("a1", run, step, "rows", folder, sha256, 1, meta=meta)
    base = replace(made, id="a2", kind="base")
    request = CritiqueRequest.model_validate({"run": run, "embeddings": False, **fields})
    context = critique.inspect_inputs(request, Inputs(store, run, {"rows": made}))
    machine = Machine("a processor", 2, 1 << 34, 1 << 34, 0, 1 << 40)
    return critique.plan(request, Facts(tmp_path, machine, run, artifacts={"rows": made, "base": base}), context)


def test_rows_that_repeat_a_case_are_asked_about_and_counted_by_the_gate_itself(
    tmp_path: Path, rows: list[TrainingRow]
) -> None:
    plan = priced(tmp_path, rows)
    (question,) = plan.questions
    assert question.text == "3 of 12 rows repeat a test case: drop them?"
    assert question.yes == {"on_leak": "drop"} and question.cautious
    assert any("3 of 12 rows repeat a test case" in note and "on_leak=drop" in note for note in plan.notes)
    assert plan.hash == plan.model_copy(update={"questions": (), "notes": ()}).hash, "what is asked is no part of it"


@pytest.mark.parametrize("fields", [{"on_leak": "drop"}, {"suites": ("general",)}])
def test_what_was_settled_or_repeats_nothing_is_not_asked_about(
    tmp_path: Path, rows: list[TrainingRow], fields: dict[str, object]
) -> None:
    assert priced(tmp_path, rows, **fields).questions == ()


def test_rows_that_nobody_can_count_in_time_are_left_to_the_step(
    tmp_path: Path, rows: list[TrainingRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(undecided, "_MOST_COMPARISONS", 11)
    assert priced(tmp_path, rows).questions == ()


def test_the_same_rows_are_counted_once_and_other_rows_or_cases_anew(
    tmp_path: Path, rows: list[TrainingRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    children: list[object] = []
    monkeypatch.setattr(undecided, "confined_answer", lambda *asked: children.append(asked) or (3, 0, 12))
    counts = []
    for fields in ({}, {}, {"suites": ("general",)}, {"leak": 70.0}):
        priced(tmp_path, rows, **fields)
        counts.append(len(children))
    priced(tmp_path, rows, sha256="e" * 64)
    assert [*counts, len(children)] == [1, 1, 2, 3, 4]


def test_columns_are_proposed_as_a_question() -> None:
    records = [{"question": f"what is {n}?", "reply": f"it is {n}"} for n in range(5)]
    (question,) = questions(inspect_records(records))
    assert question.text == "the columns are question, reply: take question as user and reply as assistant?"
    assert not question.cautious, "--yes takes no guess for an answer"
    assert questions(inspect_records(records, question.yes["mapping"])) == ()


@pytest.mark.parametrize(("yes", "cautious", "answer"), [(True, True, True), (True, False, None), (False, True, None)])
def test_yes_on_the_command_line_answers_what_can_spoil_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    yes: bool, cautious: bool, answer: bool | None,
) -> None:  # fmt: skip
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path))
    ws = workspace_of(argparse.Namespace(yes=yes), load(), Store(tmp_path), Output())
    question = PlanQuestion(
        text="3 of 12 rows repeat a test case: drop them?", yes={"on_leak": "drop"}, cautious=cautious
    )
    assert ws.ask(question) is answer
    assert ("drop them? --yes says yes: on_leak=drop" in capsys.readouterr().err) is bool(answer)
