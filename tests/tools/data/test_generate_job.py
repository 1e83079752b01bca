"""generate and what comes of its rows: they are whole, judged as they were hashed, and ordinary ones are greedy."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.fixtures import FIXTURES
from tests.fixtures.scripted_writer import GYM
from tests.fixtures.steps import requests_sent, say_yes
from tunesmith.memory.errors import BadInput
from tunesmith.memory.files import verify
from tunesmith.memory.store import Store
from tunesmith.tools.data.behaviour import spec_of, spec_text, write_behaviour
from tunesmith.tools.data.rows import read_rows
from tunesmith.tools.pipeline.run_step import price, run_step
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace
from tunesmith.tools.suites.loading import read_suite

pytestmark = pytest.mark.heavy

SPEC = spec_of(GYM, "test")
STUB, RUN = str(FIXTURES / "stub_gym.py"), "r1"
ROWS, NEAR, REHEARSAL = 30, 6, 10
ORDINARY = NEAR + REHEARSAL
FIELDS = {"rows": ROWS, "near_miss_rows": NEAR, "rehearsal_rows": REHEARSAL, "concurrency": 4}


def by_origin(origins: Iterable[str]) -> bool:
    """Whether every prompt for rehearsal was answered, and of the others there are at least as many as asked for."""
    counts = Counter(origins)
    return counts["near_miss"] >= NEAR and counts["rehearsal"] == REHEARSAL and counts["generated"] >= ROWS


@pytest.fixture
def ws(stub_home: Path) -> Workspace:
    return Workspace(Store(stub_home), STUB, lambda event, **data: None)


@pytest.fixture
def fields(tmp_path: Path) -> dict[str, object]:
    return {**FIELDS, "behaviour": str(write_behaviour(SPEC, tmp_path / "behaviours"))}


def test_the_published_rows_are_whole_and_equal_those_of_the_store(ws: Workspace, fields: dict[str, object]) -> None:
    run = RUN
    step = run_step(ws, StepRequest("generate", fields, run), say_yes).done()
    artifact = ws.store.artifacts(run, "rows")[0]
    verify(artifact.path, artifact.sha256)
    lines = [json.loads(line) for line in (artifact.path / "rows.jsonl").read_text().splitlines()]
    assert {line["row_id"] for line in lines} == {row.row_id for row in ws.store.rows(step.id)}
    assert artifact.meta["rows"] == len(lines) and by_origin(line["origin"] for line in lines)
    assert (step.result or {})["rehearsal_rows"] == REHEARSAL


def test_fewer_rows_than_a_run_has_are_priced_as_taking_their_place(ws: Workspace, fields: dict[str, object]) -> None:
    """Who asks for some more means an addition, which a second writing is not."""
    run_step(ws, StepRequest("generate", fields, RUN), say_yes).done()
    notes = {
        rows: " ".join(price(ws, StepRequest("generate", {**fields, "rows": rows}, RUN)).notes) for rows in (12, 30)
    }
    assert f"these 12 rows take the place of the {ROWS} asked for before" in notes[12] and "rows=42" in notes[12]
    assert "take the place" not in notes[30]


def test_rehearsal_is_greedy_and_no_request_carries_a_seed(ws: Workspace, fields: dict[str, object]) -> None:
    run = RUN
    run_step(ws, StepRequest("generate", {**fields, "ordinary_tokens": 487}, run), say_yes).done()
    bodies = requests_sent(ws)
    ordinary = [body for body in bodies if body["max_tokens"] == 487]  # as no other request has
    assert len(ordinary) >= ORDINARY and {body["temperature"] for body in ordinary} == {0.0}
    assert not any("seed" in body for body in bodies)


def test_critique_keeps_what_generate_wrote_and_its_dataset_is_what_training_reads(
    ws: Workspace, fields: dict[str, object]
) -> None:
    run = RUN
    made = run_step(ws, StepRequest("generate", {**fields, "rows": 100}, run), say_yes).done()
    result = run_step(ws, StepRequest("critique", {"on_leak": "drop"}, run), say_yes).done().result
    assert result is not None
    assert result["kept"] + result["dropped"] == result["candidates"] >= 100 + ORDINARY
    assert sum(result["reasons"].values()) == result["dropped"] and result["kept"] >= 90
    dataset = ws.store.artifacts(run, "dataset")[0]
    train = read_rows(dataset.path / "train.jsonl")
    assert len(train) == result["train_rows"] == dataset.meta["train_rows"]
    held = [row for row in train if row.origin in ("rehearsal", "near_miss")]
    assert len(held) == dataset.meta["held_rows"] and not any(row.attributes.values_at for row in held)
    valued = [row for row in train if row.attributes.values_at]
    assert len(valued) == dataset.meta["valued_rows"] == len(train) - len(held) > 0
    judged = ws.store.rows(made.id)
    assert all(row.usable != row.dropped and bool(row.verdict and row.verdict.reason) == row.dropped for row in judged)
    assert {row.split for row in judged if row.usable} == {"train", "valid"}
    assert [row.row_id for row in train] == sorted(row.row_id for row in judged if row.usable and row.split == "train")


def test_the_rows_that_were_hashed_are_the_rows_that_are_judged(ws: Workspace, fields: dict[str, object]) -> None:
    run = RUN
    made = run_step(ws, StepRequest("generate", {**fields, "rows": 100}, run), say_yes).done()
    with ws.store.write() as conn:
        conn.execute("UPDATE rows SET completion = replace(completion, 'content\": \"', 'content\": \"x')")
        conn.execute("DELETE FROM rows WHERE row_id = (SELECT max(row_id) FROM rows)")
    tampered = {row.completion[0]["content"] for row in ws.store.rows(made.id) if row.origin == "generated"}
    result = run_step(ws, StepRequest("critique", {"on_leak": "drop"}, run), say_yes).done().result or {}
    assert result["candidates"] >= 100 + ORDINARY and result["kept"] >= 90
    published = {row.row_id: row for row in read_rows(ws.store.artifacts(run, "rows")[0].path / "rows.jsonl")}
    train = read_rows(ws.store.artifacts(run, "dataset")[0].path / "train.jsonl")
    assert train and all(row.completion == published[row.row_id].completion for row in train)
    assert tampered.isdisjoint(row.completion[0]["content"] for row in train)


def test_a_behaviour_without_rehearsal_prompts_is_refused_before_anything_starts(ws: Workspace) -> None:
    run = RUN
    lonely = ws.store.home.parent / "behaviour.yaml"
    lonely.write_text(spec_text(SPEC))
    with pytest.raises(BadInput, match=r"no rehearsal.txt; write one, or set rehearsal_rows=0"):
        price(ws, StepRequest("generate", {"behaviour": str(lonely)}, run))
    assert price(ws, StepRequest("generate", {"behaviour": str(lonely), "rehearsal_rows": 0}, run)).refusals == ()


def test_rows_whose_answers_code_composed_of_what_was_read_are_put_to_no_judge(
    ws: Workspace, fields: dict[str, object]
) -> None:
    run_step(ws, StepRequest("generate", {**fields, "rows": 60}, RUN), say_yes).done()
    strict: dict[str, object] = {"on_leak": "drop", "suites": []}
    plain = run_step(ws, StepRequest("critique", strict, RUN), say_yes).done().result or {}
    wanted = StepRequest("critique", {**strict, "judge": "base"}, RUN)
    assert any("no judge is asked" in step for step in price(ws, wanted).steps)
    judged = run_step(ws, wanted, say_yes).done().result or {}
    assert judged["kept"] == plain["kept"] and judged["judge"] is None is plain["judge"]


def test_what_critique_holds_out_is_asked_by_the_baseline_and_never_trained_on(
    ws: Workspace, fields: dict[str, object]
) -> None:
    run = RUN
    run_step(ws, StepRequest("generate", {**fields, "rows": 100}, run), say_yes).done()
    for _ in range(2):  # the second time its own cases are in the run's suite, and are no leak
        wanted = StepRequest("critique", {"on_leak": "refuse", "suites": [], "held_out": 12}, run)
        result = run_step(ws, wanted, say_yes).done().result or {}
        assert result["cases"] >= 12 and result["reasons"]["held out"] >= 12
        dataset = ws.store.artifacts(run, "dataset")[-1].path
        wanted = StepRequest("baseline", {"suites": ["general"], "held_out": True}, run)
        run_step(ws, wanted, say_yes).done()
    suite = read_suite(ws.store.artifacts(run, "suite")[-1].path)
    held = {case.messages[-1]["content"] for case in suite.cases if case.suite == "held-out"}
    trained = {row.prompt[-1]["content"] for name in ("train", "valid") for row in read_rows(dataset / f"{name}.jsonl")}
    assert len(held) == 12 and trained and held.isdisjoint(trained)
    assert {case.block for case in suite.cases if case.suite.startswith("held-out")} == {"target", "over-trigger"}


def test_without_rows_to_write_the_runs_own_stay_and_ordinary_ones_come_beside_them(ws: Workspace) -> None:
    own = ws.store.home.parent / "mine.jsonl"
    own.write_text("".join(json.dumps({"prompt": f"ticket {n}", "completion": f"note {n}"}) + "\n" for n in range(5)))
    fields: dict[str, object] = {"rows": 0, "near_miss_rows": 0, "rehearsal_rows": REHEARSAL}
    run_step(ws, StepRequest("import", {"source": str(own)}, RUN), say_yes).done()
    for _ in range(2):  # made anew, and not twice
        step = run_step(ws, StepRequest("generate", fields, RUN), say_yes).done()
    rows = read_rows(ws.store.artifacts(RUN, "rows")[-1].path / "rows.jsonl")
    origins = [row.origin for row in rows]
    assert (origins.count("imported"), origins.count("rehearsal"), len(origins)) == (5, REHEARSAL, 5 + REHEARSAL)
    assert {row.row_id for row in rows} == {row.row_id for row in ws.store.rows(step.id)}
    result = step.result or {}
    assert (result["rows"], result["rehearsal_rows"]) == (0, REHEARSAL)
    asked = (ws.store.home / "runs" / RUN / step.id / "writer.jsonl").read_text().splitlines()
    assert {json.loads(line)["id"].split("/")[0] for line in asked if line} <= {"t", "k"}, (
        "only what is of the kind is read"
    )
    with pytest.raises(BadInput, match="rows=0 leaves nothing to make"):
        price(ws, StepRequest("generate", {**fields, "rehearsal_rows": 0}, RUN))
