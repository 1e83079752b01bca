"""Rows whose labels nothing could read back are trained on only where a person's marks or a person's word allow it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tunesmith.agent.cli import main
from tunesmith.agent.commands.review import Review
from tunesmith.memory.errors import ApprovalPending, Declined
from tunesmith.memory.files import seal
from tunesmith.memory.marks import Mark, add_mark
from tunesmith.memory.records import WAITING, Artifact, TrainingRow, Verdict
from tunesmith.memory.row_attributes import Draw, RowAttributes
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Plan, PlanQuestion
from tunesmith.tools.data.behaviour import load_behaviour, spec_of, write_behaviour
from tunesmith.tools.data.undecided import Unverified, unverified_of
from tunesmith.tools.pipeline import executor
from tunesmith.tools.pipeline.plan_file import PipelinePlan, StepSpec
from tunesmith.tools.pipeline.run_step import run_step
from tunesmith.tools.pipeline.workspace import Decision, Edited, StepRequest, Workspace

SAID = {
    "name": "gate",
    "say": "is the garden gate open or shut",
    "what": "one word, OPEN or SHUT",
    "attributes": [
        {"name": "label", "values": {"OPEN": {"means": "one can walk in"}, "SHUT": {"means": "one cannot"}}}
    ],
    "answer": {"form": "text", "template": "{label}"},
    "examples": [
        {"prompt": "it swings in the wind", "answer": "OPEN"},
        {"prompt": "the bolt is in", "answer": "SHUT"},
        {"prompt": "the dog got out through it", "answer": "OPEN"},
        {"prompt": "I had to climb", "answer": "SHUT"},
    ],
}
CONFIG = {
    "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
    "vocab_size": 49152, "max_position_embeddings": 2048,
}  # fmt: skip
ROWS = 30
BAD = Decision(False, "test", "enough seen")


def row(number: int, problem: str = "") -> TrainingRow:
    message = f"note {number}: somebody said something of the gate near house {number * 7}"
    answer = [{"role": "assistant", "content": "SHUT"}]
    asked = [{"role": "user", "content": message}]
    return TrainingRow(f"w{number:05d}", "generated", asked, answer, RowAttributes(text=message, problem=problem))


def artifact(store: Store, run: str, step: str, kind: str, *parents: Artifact, **meta: object) -> Artifact:
    folder = store.home / f"{run}-{kind}-{step}"
    folder.mkdir()
    (folder / "reader.json").write_text(json.dumps({"trust": {"labels": {"label": 0.25}, "answers": 0.0}}))
    made_of = tuple(parent.id for parent in parents)
    return store.add_artifact(Artifact("", run, step, kind, folder, str(seal(folder)), 1, made_of, meta))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    made = Store(tmp_path / "home")
    folder = write_behaviour(spec_of(SAID, "test"), tmp_path)
    run = made.new_run("gate")
    base = artifact(made, run, made.propose(run, "base", plan_hash="b"), "base", parameters=135_000_000, config=CONFIG)
    step = made.propose(run, "generate", plan_hash="g", inputs={"base": base.id})
    made.add_rows(run, step, [*(row(number) for number in range(ROWS)), row(ROWS, problem="reading: no label")])
    meta = {"behaviour": str(folder), "behaviour_sha256": load_behaviour(str(folder)).sha256}
    rows = artifact(made, run, step, "rows", rows=ROWS + 1, ordinary=0, unverified=["label"], **meta)
    step = made.propose(run, "critique", plan_hash="c", inputs={"rows": rows.id})
    artifact(made, run, step, "dataset", rows, train_rows=80, tokens_per_row=90)
    yield made
    made.close()


def mark(store: Store, right: int, wrong: int) -> None:
    step = store.artifacts("r1", "rows")[-1].step
    for number in range(right + wrong):
        now, was = ("SHUT" if number < right else "OPEN"), "SHUT"
        decision = "keep" if number < right else "relabel"
        add_mark(store, Mark("gate", "r1", step, f"w{number:05d}", decision, f"note {number}", now, was))


@pytest.mark.parametrize(
    ("right", "wrong", "stops"),
    [
        (0, 0, True),
        (14, 0, True),
        (15, 0, False),
        (14, 1, True),
        (19, 1, False),
        (18, 2, True),
        (13, 7, True),
        (10, ROWS - 10, False),
    ],
    ids=["none", "too few", "enough", "one wrong of few", "one wrong of many", "two", "a third", "all were looked at"],
)
@pytest.mark.parametrize("kind", ["rows", "dataset"])
def test_marks_decide_from_fifteen_on_by_the_lower_bound_of_right_ones(
    store: Store, right: int, wrong: int, stops: bool, kind: str
) -> None:
    mark(store, right, wrong)
    known = unverified_of(store, store.artifacts("r1", kind)[-1])
    refusals, questions = known.stop(accepted=False)
    assert bool(refusals) == bool(questions) == stops and known.stop(accepted=True) == ((), ())
    if stops:
        assert "right in 1 of your 4 examples" in refusals[0] and "rows review --run r1" in refusals[0]
        assert (f"marked {right + wrong} of them and found {right} right" in questions[0].text) == bool(right + wrong)
        assert not questions[0].cautious and questions[0].needs_person
    else:
        assert f"found {right} right" in known.notes(accepted=False)[0], "the figure is at the price"


def test_a_mark_of_a_row_that_is_left_out_anyway_says_nothing_of_the_others(store: Store) -> None:
    step = store.artifacts("r1", "rows")[-1].step
    add_mark(store, Mark("gate", "r1", step, f"w{ROWS:05d}", "drop", "a bad one", "SHUT", "SHUT"))
    assert unverified_of(store, store.artifacts("r1", "rows")[-1]).marked == 0


def test_marks_of_rows_that_are_written_beyond_those_asked_for_say_nothing_and_come_last(store: Store) -> None:
    step = store.propose("r1", "generate", plan_hash="more", inputs={"base": store.artifacts("r1", "base")[-1].id})
    rows = [row(number) for number in range(40)]
    sure = {one.row_id for one in rows[::4]}
    drawn = [Draw(one.row_id, ({"label": "SHUT"},), ({},), 0) for one in rows]
    margins = [
        replace(one.attributes, draw=of, margin=3.0 if one.row_id in sure else 0.5)
        for one, of in zip(rows, drawn, strict=True)
    ]
    store.add_rows("r1", step, [replace(one, attributes=of) for one, of in zip(rows, margins, strict=True)])
    meta = store.artifacts("r1", "rows")[-1].meta
    made = artifact(store, "r1", step, "rows", **{**meta, "rows": 40, "asked": 10})
    review = Review.of(store, made, load_behaviour(str(meta["behaviour"])))
    assert {suspect.row.row_id for suspect in review.suspects[:10]} == sure and len(review.suspects) == 40
    for suspect in review.suspects[:20]:
        review.mark(suspect, "drop" if suspect is review.suspects[0] else "keep")
    known = unverified_of(store, made)
    assert (known.rows, known.marked, known.marked_right) == (10, 10, 9)
    store.judge_rows(step, [replace(review.suspects[0].row, verdict=Verdict("dropped", "by a person"))])
    assert unverified_of(store, made).marked == 10, "what was found wrong is not forgotten once it is dropped"


def test_rows_whose_behaviour_is_gone_are_still_counted(store: Store) -> None:
    made = store.artifacts("r1", "rows")[-1]
    mark(store, 15, 0)
    before = unverified_of(store, made)
    shutil.rmtree(str(made.meta["behaviour"]))
    after = unverified_of(store, made)
    assert (after.rows, after.marked, after.borne_out) == (before.rows, before.marked, True)


def test_what_is_still_to_be_marked_is_said_by_what_was_marked(store: Store) -> None:
    made = store.artifacts("r1", "rows")[-1]
    assert "mark 20 of them (19 right are enough)" in unverified_of(store, made).stop(accepted=False)[0][0]
    mark(store, 8, 1)
    known = unverified_of(store, made)
    assert "mark 9 more of them (enough if all of these are right)" in known.stop(accepted=False)[0][0]
    more = replace(known, marked=known.marked + 9, marked_right=known.marked_right + 9)
    less = replace(known, marked=known.marked + 8, marked_right=known.marked_right + 8)
    assert more.borne_out and not less.borne_out


@pytest.mark.parametrize("stage", ["critique", "train"])
def test_nobody_there_is_an_exit_of_three_and_a_request_may_say_it(
    store: Store, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([stage, "--run", "r1", "--yes", "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert told["event"] == "approval.required" and told["stage"] == stage and "all the same?" in told["question"]
    assert [step.stage for step in store.priced_steps() if step.started_at] == []
    assert main([stage, "--run", "r1", "--unverified-rows", "--json"]) == 3, "its price waits as any other"
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert plan["request"]["unverified_rows"] and any("right in 1 of your 4" in note for note in plan["notes"])


def test_what_a_person_said_before_the_rows_were_judged_is_not_asked_again(store: Store) -> None:
    rows = store.artifacts("r1", "rows")[-1]
    step = store.propose("r1", "critique", plan_hash="again", inputs={"rows": rows.id})
    known = unverified_of(store, artifact(store, "r1", step, "dataset", rows, unverified_rows=1))
    assert known.stop(accepted=False) == ((), ()) and known.notes(accepted=False)
    assert unverified_of(store, None) == Unverified()


def test_rows_that_were_marked_instead_of_an_answer_are_counted_before_it_is_asked_again(store: Store) -> None:
    asked: list[str] = []

    def ask(question: PlanQuestion) -> bool:
        asked.append(question.text)
        assert question.rows_of == "r1"
        if len(asked) == 1:
            mark(store, 2, 1)
            raise Edited({})
        mark(store, 20, 0)
        raise Edited({})

    ws = Workspace(store, None, lambda event, **data: None, "", ask)
    assert run_step(ws, StepRequest("critique", {}, "r1"), lambda plan, step: BAD).declined
    assert ["found" in text for text in asked] == [False, True] and "found 2 right" in asked[1]


def test_a_plan_stops_before_training_loses_nothing_and_goes_on_once_rows_are_marked(store: Store) -> None:
    ws = Workspace(store, None, lambda event, **data: None)
    plan = PipelinePlan(name="gate", steps=(StepSpec(stage="critique"), StepSpec(stage="train")))
    asked: list[str] = []

    def agrees(plan: Plan, step: str) -> Decision:
        asked.append(plan.stage)
        return BAD

    with pytest.raises(ApprovalPending, match=r"critique waits for a person: .*tunesmith resume r1"):
        executor.run_pipeline(ws, plan, agrees, resume_run="r1")
    assert store.run("r1").status == WAITING and asked == [] and store.artifacts("r1", "rows")
    mark(store, 20, 0)
    with pytest.raises(Declined):
        executor.run_pipeline(ws, plan, agrees, resume_run="r1")
    assert asked == ["critique"], "its price is asked about now, as any other"
