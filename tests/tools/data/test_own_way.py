"""The way of a person's rows from their file to a baseline, with a scripted server: none is lost, none is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fixtures import FIXTURES
from tests.fixtures.own_rows import written
from tests.fixtures.steps import say_yes
from tests.tools.data.test_own_rows import SAID, TOPICS
from tunesmith.memory.errors import StepFailed
from tunesmith.memory.store import Store
from tunesmith.tools.data.behaviour import write_behaviour
from tunesmith.tools.data.rows import read_rows
from tunesmith.tools.evaluation.blind import hidden_cases
from tunesmith.tools.pipeline.behaviour_plan import plan_for
from tunesmith.tools.pipeline.brought_rows import Wanted, bring, settle, spec_of_rows
from tunesmith.tools.pipeline.run_step import run_step
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace
from tunesmith.tools.suites.loading import read_suite

pytestmark = pytest.mark.heavy
RUN = "r1"


@pytest.fixture
def ws(stub_home: Path) -> Workspace:
    return Workspace(Store(stub_home), str(FIXTURES / "stub_writer.py"), lambda event, **data: None)


def test_every_row_of_a_persons_is_trained_on_or_asked_blind(ws: Workspace, tmp_path: Path) -> None:
    pairs = [(form.format(topic), f"Arr, {topic}!") for topic in TOPICS for form in SAID]
    found = bring(Wanted((str(written(tmp_path / "mine.jsonl", pairs)),), {}, 1000, 0.05), lambda question: None)
    settled = settle(found, spec_of_rows(found, "mine"), ())
    folder = write_behaviour(settled.spec, tmp_path / "behaviours", trained=settled.trained_examples, judged=False)
    plan = plan_for(folder, "fast", model="bundled", teacher="", judged=False, own=settled.own)
    for step in plan.steps:
        if step.stage in ("import", "generate", "critique", "baseline"):
            done = run_step(ws, StepRequest(step.stage, step.fields, RUN), say_yes).done()
            assert done.result
    dataset = ws.store.artifacts(RUN, "dataset")[-1].path
    trained = [row for split in ("train", "valid") for row in read_rows(dataset / f"{split}.jsonl")]
    own = {row.prompt[-1]["content"] for row in trained if row.origin == "imported"}
    suite = read_suite(ws.store.artifacts(RUN, "suite")[-1].path)
    blind = [case for case in suite.cases if case.is_blind]
    asked = {case.messages[-1]["content"] for case in blind}
    assert len(blind) == 10 and all(case.of_people and case.block == "target" for case in blind)
    assert not own & asked and len(own | asked) >= len(pairs) - 2, "but for what is like a case"
    assert 40 <= sum(row.origin == "rehearsal" for row in trained) <= 50
    assert {row.origin for row in trained} == {"imported", "rehearsal"}
    assert hidden_cases(ws.store, RUN) == {case.case_id for case in blind}
    shown = json.dumps([row.prompt for row in ws.store.rows(ws.store.artifacts(RUN, "rows")[-1].step)
                        if not row.attributes.hidden])  # fmt: skip
    assert not any(str(message) in shown for message in asked)


def test_rows_that_contradict_each_other_end_a_critique_that_nobody_was_asked_about(
    ws: Workspace, tmp_path: Path
) -> None:
    pairs = [*((f"{topic} today", topic) for topic in TOPICS), (f"{TOPICS[0]} today", "another answer")]
    run_step(ws, StepRequest("import", {"source": str(written(tmp_path / "mine.jsonl", pairs))}, RUN), say_yes).done()
    with pytest.raises(StepFailed, match=r"2 rows answer a message .* i-000001 and i-000013; .*contradictory=drop"):
        run_step(ws, StepRequest("critique", {}, RUN), say_yes).done()
    done = run_step(ws, StepRequest("critique", {"contradictory": "drop"}, RUN), say_yes).done()
    assert done.result and (done.result["kept"], done.result["reasons"]) == (11, {"contradiction": 2})
    done = run_step(ws, StepRequest("critique", {"contradictory": "drop", "held_out": 4}, RUN), say_yes).done()
    assert done.result and (done.result["cases"], done.result["kept"]) == (4, 7), "their own answers are right ones"


CALL = {"type": "function", "function": {"name": "find", "arguments": {"what": "boots"}}}
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}


def test_conversations_with_a_system_prompt_turns_and_tools_are_trained_on_as_they_are(
    ws: Workspace, tmp_path: Path
) -> None:
    records = [
        {"tools": [TOOL], "messages": [
            {"role": "system", "content": f"You sell {topic}."}, {"role": "user", "content": f"Have you {topic}?"},
            {"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": "two of them"},
            {"role": "assistant", "content": f"Two: {topic}."}, {"role": "user", "content": "Thanks"},
            {"role": "assistant", "content": "Gladly."}]}
        for topic in TOPICS
    ]  # fmt: skip
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    run_step(ws, StepRequest("import", {"source": str(path)}, RUN), say_yes).done()
    run_step(ws, StepRequest("critique", {"valid_share": 0}, RUN), say_yes).done()
    rows = read_rows(ws.store.artifacts(RUN, "dataset")[-1].path / "train.jsonl")
    assert [[*row.prompt, *row.completion] for row in rows] == [record["messages"] for record in records]
    assert all(list(row.attributes.tools) == [TOOL] for row in rows)
