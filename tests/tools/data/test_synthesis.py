"""Rows of a described behaviour: held to its rules, apart from its cases, whole after a break, and right to the end."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.fixtures import FIXTURES
from tests.fixtures.descriptions import COOKING, HOSTILE
from tests.fixtures.steps import requests_sent, say_yes
from tests.fixtures.tables import table
from tunesmith.memory.errors import ApprovalPending, BadInput, StepFailed
from tunesmith.memory.records import KEEP, TrainingRow, Verdict
from tunesmith.memory.row_attributes import RowAttributes
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.data.balance import balance_of, why_dropped
from tunesmith.tools.data.behaviour import SPEC_FILE, write_behaviour
from tunesmith.tools.data.critique import CritiqueRequest
from tunesmith.tools.data.critique_job import Critic
from tunesmith.tools.data.rows import read_rows
from tunesmith.tools.data.spec_suites import SUITE
from tunesmith.tools.pipeline import executor
from tunesmith.tools.pipeline.behaviour_plan import plan_for
from tunesmith.tools.pipeline.run_step import price, resume_step, run_step
from tunesmith.tools.pipeline.workspace import Decision, StepRequest, Workspace
from tunesmith.tools.serving import servers
from tunesmith.tools.suites.loading import load_suites, read_suite

pytestmark = pytest.mark.heavy

STUB, RUN = str(FIXTURES / "stub_described.py"), "r1"
ROWS, NEAR, REHEARSAL = 60, 8, 5
BEHAVIOUR = COOKING
GOOD = "- Read.\n- Cook.\n- Eat."


@pytest.fixture
def ws(stub_home: Path) -> Workspace:
    return Workspace(Store(stub_home), STUB, lambda event, **data: None)


def fields(folder: Path, **changes: object) -> dict[str, object]:
    return {
        "behaviour": str(folder), "rows": ROWS, "near_miss_rows": NEAR, "rehearsal_rows": REHEARSAL, "concurrency": 4,
        **changes,
    }  # fmt: skip


def generated(row_id: str, prompt: str, answer: str = GOOD) -> TrainingRow:
    return TrainingRow(
        row_id,
        "generated",
        [{"role": "user", "content": prompt}],
        [{"role": "assistant", "content": answer}],
        RowAttributes(text=prompt, finish_reason="stop"),
    )


def reasons(folder: Path, *rows: TrainingRow) -> list[str]:
    critic = Critic(
        BEHAVIOUR,
        load_suites([folder / SUITE, Path("general")], models=("judge",)).cases,
        CritiqueRequest(embeddings=False),
    )
    return [why(row) for row in critic.judge(rows)]


def why(row: TrainingRow) -> str:
    return str(row.verdict) if row.dropped else ""


def test_what_is_kept_obeys_the_rules_and_what_is_dropped_says_which_it_broke(ws: Workspace, tmp_path: Path) -> None:
    run, folder = RUN, write_behaviour(COOKING, tmp_path / "behaviours")
    made = run_step(ws, StepRequest("generate", fields(folder), run), say_yes).done()
    result = (
        run_step(ws, StepRequest("critique", {"suites": [str(folder / SUITE), "general"]}, run), say_yes).done().result
    )
    assert made.result and result and result["candidates"] >= ROWS + NEAR + REHEARSAL
    rows = [row for row in ws.store.rows(made.id) if row.origin == "generated"]
    for row in (row for row in rows if row.completion[0]["content"]):  # some messages were none: nobody answered them
        points = row.completion[0]["content"].count("\n- ") + 1
        assert points == 3 or row.dropped
        assert (points == 3) == (row.verdict != Verdict("rule", "not kept: exactly 3 lines"))
    salty = [row for row in rows if " salt " in f" {row.prompt[0]['content']} "]
    assert salty and all(row.dropped for row in salty)
    odd = [row for row in rows if "mint tea" in row.prompt[0]["content"].lower()]
    assert odd and {row.verdict.kind for row in odd if row.verdict} <= {"kind", "duplicate"}
    assert made.result["reader"]["kind_no"] >= 0.75 and made.result["near_miss_rows"] == NEAR
    assert len({row.prompt[0]["content"] for row in rows if row.usable}) >= 30
    dataset = ws.store.artifacts(run, "dataset")[0]
    assert len(read_rows(dataset.path / "train.jsonl")) == result["train_rows"]


def test_a_step_that_broke_off_asks_only_for_what_is_not_there(ws: Workspace, tmp_path: Path) -> None:
    run, folder = RUN, write_behaviour(COOKING, tmp_path / "behaviours")
    for limit, made in ((60, 0), (200, 0)):  # amid the messages, then amid the answers
        (tmp_path / "answers").write_text(str(limit))
        servers.stop_all(ws.store.home)
        waiting = ws.store.steps(run)[-1]
        with pytest.raises(StepFailed, match=r"no more answers.*--resume"):
            if waiting.stage == "generate":
                resume_step(ws, waiting.id, say_yes).done()
            else:
                run_step(ws, StepRequest("generate", fields(folder), run), say_yes).done()
        assert len(ws.store.rows(ws.store.steps(run)[-1].id)) >= made
    step = ws.store.steps(run)[-1].id
    job_folder = ws.store.home / "runs" / run / step
    answered = (job_folder / "writer.jsonl").read_text()
    kept = {row.row_id: row.completion for row in ws.store.rows(step)}
    (tmp_path / "answers").write_text("1000")
    servers.stop_all(ws.store.home)
    assert resume_step(ws, step, say_yes).done().status == "done"
    rows = {row.row_id: row.completion for row in ws.store.rows(step)}
    assert len(rows) >= ROWS + NEAR + REHEARSAL and kept.items() <= rows.items()
    assert (job_folder / "writer.jsonl").read_text().startswith(answered)
    ids = [json.loads(line)["id"] for line in (job_folder / "writer.jsonl").read_text().splitlines() if line]
    assert len(ids) == len(set(ids)), "nothing that was answered is asked again"


def test_the_writer_never_gets_a_tool_or_a_seed_and_hostile_text_only_as_text(ws: Workspace, tmp_path: Path) -> None:
    hostile = COOKING.model_copy(
        update={"when": HOSTILE[0], "examples": (*COOKING.examples[:2], COOKING.examples[2].model_copy(
            update={"prompt": HOSTILE[6]}))}
    )  # fmt: skip
    run, folder = RUN, write_behaviour(hostile, tmp_path / "behaviours")
    run_step(ws, StepRequest("generate", fields(folder, rows=6), run), say_yes).done()
    bodies = requests_sent(ws)
    assert bodies and not any("tools" in body or "seed" in body for body in bodies)
    assert {body["model"] for body in bodies} == {bodies[0]["model"]}
    assert [step.stage for step in ws.store.steps(run)] == ["base", "generate"]
    texts = [message["content"] for body in bodies for message in body["messages"]]  # type: ignore[attr-defined]
    assert HOSTILE[6] in texts


def test_a_writer_that_takes_everything_for_the_kind_is_not_asked(
    ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_ALWAYS_YES", "1")
    run, folder = RUN, write_behaviour(COOKING, tmp_path / "behaviours")
    result = run_step(ws, StepRequest("generate", fields(folder, rows=20), run), say_yes).done().result
    step = ws.store.steps(run)[-1].id
    assert result and result["reader"]["kind_no"] == 0
    assert all(row.attributes.of_kind is None for row in ws.store.rows(step))


def test_the_price_and_the_plan_say_how_rows_come_about(ws: Workspace, tmp_path: Path) -> None:
    run, folder = RUN, write_behaviour(COOKING, tmp_path / "behaviours")
    plan = price(ws, StepRequest("generate", fields(folder), run))
    assert f"held to {len(COOKING.rules)} rules" in " ".join(plan.steps)
    assert (
        plan.estimate.seconds < price(ws, StepRequest("generate", fields(folder, rows=10 * ROWS), run)).estimate.seconds
    )
    (folder / SPEC_FILE).write_text("kind: examples\nname: x\n")
    with pytest.raises(BadInput, match=r"behaviour.yaml has 0 examples"):
        price(ws, StepRequest("generate", fields(folder), run))


def test_a_spec_changed_after_its_rows_were_made_is_told(ws: Workspace, tmp_path: Path) -> None:
    run, folder = RUN, write_behaviour(COOKING, tmp_path / "behaviours")
    run_step(ws, StepRequest("generate", fields(folder, rows=4), run), say_yes).done()
    path = folder / SPEC_FILE
    path.write_text(path.read_text().replace("greet, or", "greet or"))
    with pytest.raises(BadInput, match="changed since its rows were made"):
        run_step(ws, StepRequest("critique", {"suites": []}, run), say_yes).done()


@table(
    ("prompt", "answer", "kind"),
    [
        ("Why is my soup too thin?", GOOD, ""),
        ("How do I boil an egg so the yolk stays soft??", GOOD, "leak"),
        ("What toppings go on a tarte?", GOOD, "leak"),
        ("What is the capital of Canada?", GOOD, "leak"),
        ("Sorry, but I can't assist with that request.", GOOD, "role"),
        ("", GOOD, "empty"),
        ("soup " * 300, GOOD, "loop"),
        ("Why is my soup too thin?", "", "empty"),
        ("Why is my soup too thin?", "- Cook it.\n- Eat it.", "rule"),
        ("Why is my soup too thin?", COOKING.examples[0].answer, "copy"),
        ("Why is my soup too thin?", "- a b c d e a b c d e\n- a b c d e\n- x", "loop"),
    ],
)
def test_a_bad_row_is_dropped_with_its_kind(prompt: str, answer: str, kind: str, tmp_path: Path) -> None:
    folder = write_behaviour(COOKING, tmp_path)
    suite = yaml.safe_load((folder / SUITE).read_text())
    suite["tests"].append({"metadata": {"case_id": "tart"}, "vars": {"message": "What toppings go on a tart?"}})
    (folder / SUITE).write_text(yaml.safe_dump(suite))
    assert reasons(folder, generated("w1", prompt, answer))[0].partition(":")[0] == kind


def test_one_answer_to_two_messages_is_no_answer_and_two_like_messages_are_one(tmp_path: Path) -> None:
    folder = write_behaviour(COOKING, tmp_path)
    long = "- Read the whole recipe first.\n- Cook it as it says there.\n- Eat it while it is hot."
    first, second = generated("w1", "Why is my soup thin?", long), generated("w2", "What goes with roast duck?", long)
    assert reasons(folder, first, second) == ["", "copy: the answer is that of row w1"]
    again = replace(first, row_id="w3", completion=[{"role": "assistant", "content": GOOD}])
    assert reasons(folder, first, again)[1].startswith("duplicate")


def test_an_ordinary_answer_is_not_held_to_the_rules(tmp_path: Path) -> None:
    row = replace(generated("r1", "Name an ocean.", "The Pacific."), origin="rehearsal")
    assert reasons(write_behaviour(COOKING, tmp_path), row) == [""]


def test_a_dataset_without_a_row_of_the_behaviour_fails_the_step_with_the_commonest_reasons() -> None:
    kept = replace(generated("r1", "Name an ocean.", "The Pacific."), origin="rehearsal", verdict=Verdict(KEEP))
    told = [Verdict("rule", "not kept: exactly 3 items")] * 4
    told += [Verdict("leak", "90 of 100 like case x"), Verdict("leak", "88 of 100 like case y")]
    told += [Verdict("rule", "not kept: no greeting")] * 3 + [Verdict("copy", "the answer is that of row w1")]
    dropped = [replace(kept, row_id=f"w{n}", verdict=verdict) for n, verdict in enumerate(told)]
    with pytest.raises(StepFailed, match="no row of the behaviour is left: 10 of 11 rows were dropped") as failed:
        balance_of(BEHAVIOUR, [kept], why_dropped([kept, *dropped], "r7"))
    said = str(failed.value)
    assert "rule: not kept: exactly 3 items (4); rule: not kept: no greeting (3); leak (2)." in said
    assert "copy" not in said and "case x" not in said and "`tunesmith report r7`" in said


def test_the_plan_of_a_described_behaviour_asks_its_own_held_out_rows(
    ws: Workspace, based: Path, tmp_path: Path
) -> None:
    folder = write_behaviour(COOKING, tmp_path / "behaviours", judged=False)  # no judge is in this home
    (tmp_path / "answers").write_text("9000")
    plan = plan_for(folder, "fast", model=str(based / "model"), teacher="", judged=False)

    told: dict[str, str] = {}

    def until_preflight(plan: Plan, step: str) -> Decision:
        told[plan.stage] = plan.summary
        if plan.stage == "preflight":
            raise ApprovalPending("so far and no further")
        return say_yes(plan, step)

    with pytest.raises(ApprovalPending):
        executor.run_pipeline(ws, plan, until_preflight)
    run = next(run for run in ws.store.runs() if run.name == COOKING.name)
    done = [step.stage for step in ws.store.steps(run.id, status="done")]
    assert done == ["inspect", "base", "generate", "critique", "baseline"]
    told_rows = re.search(r"write (\d+) rows of \S+ \((\d+) to train on, (\d+) for test cases\)", told["generate"])
    assert told_rows is not None, told["generate"]
    rows, taught, tested = map(int, told_rows.groups())
    assert rows == taught + tested and tested > 0
    suite = read_suite(ws.store.artifacts(run.id, "suite")[-1].path)
    held = {str(case.messages[-1]["content"]) for case in suite.cases if case.suite.startswith("held-out")}
    dataset = ws.store.artifacts(run.id, "dataset")[-1].path
    trained = {str(row.prompt[-1]["content"]) for row in read_rows(dataset / "train.jsonl")}
    assert len(held) >= 25 and len(trained) >= 40 and held.isdisjoint(trained)
