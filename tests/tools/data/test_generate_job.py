"""generate and what comes of its rows: they are whole, judged as they were hashed, and ordinary ones are greedy."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.fixtures import FIXTURES
from tests.fixtures.scripted_writer import GYM
from tests.fixtures.steps import requests_sent, say_yes
from tunesmith.memory.errors import BadInput
from tunesmith.memory.files import verify
from tunesmith.memory.records import Step
from tunesmith.memory.store import Store
from tunesmith.tools.data.behaviour import spec_of, spec_text, write_behaviour
from tunesmith.tools.data.rows import read_rows
from tunesmith.tools.pipeline.run_step import price, run_step
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace
from tunesmith.tools.serving import servers
from tunesmith.tools.suites.loading import read_suite

pytestmark = pytest.mark.heavy

SPEC = spec_of(GYM, "test")
STUB, RUN = str(FIXTURES / "stub_gym.py"), "r1"
ROWS, NEAR, REHEARSAL = 100, 6, 10
ORDINARY, ORDINARY_TOKENS = NEAR + REHEARSAL, 487
FIELDS = {"rows": ROWS, "near_miss_rows": NEAR, "rehearsal_rows": REHEARSAL, "ordinary_tokens": ORDINARY_TOKENS,
          "concurrency": 4}  # fmt: skip


def by_origin(origins: Iterable[str]) -> bool:
    """Whether every prompt for rehearsal was answered, and of the others there are at least as many as asked for."""
    counts = Counter(origins)
    return counts["near_miss"] >= NEAR and counts["rehearsal"] == REHEARSAL and counts["generated"] >= ROWS


@pytest.fixture
def ws(stub_home: Path) -> Workspace:
    return Workspace(Store(stub_home), STUB, lambda event, **data: None)


@pytest.fixture(scope="module")
def folder(based: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to take copies of: `home`, whose run had its rows written, and the `requests` that this took; its
    `behaviours` stay where they are."""
    folder = tmp_path_factory.mktemp("written")
    home = Path(shutil.copytree(based / "home", folder / "home"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUB_REQUESTS", str(folder / "requests"))
        patch.setenv("STUB_ANSWERS", str(folder / "answers"))
        (folder / "answers").write_text("1000")
        ws = Workspace(Store(home), STUB, lambda event, **data: None)
        behaviour = str(write_behaviour(SPEC, folder / "behaviours"))
        run_step(ws, StepRequest("generate", {**FIELDS, "behaviour": behaviour}, RUN), say_yes).done()
        ws.store.close()
        servers.stop_all(home)
    return folder


@pytest.fixture
def fields(folder: Path) -> dict[str, object]:
    return {**FIELDS, "behaviour": str(next((folder / "behaviours").iterdir()))}


@pytest.fixture
def written(folder: Path, stub_home: Path) -> Workspace:
    """A run of one's own that had its rows written."""
    shutil.rmtree(stub_home)
    shutil.copytree(folder / "home", stub_home)
    shutil.copy(folder / "requests", stub_home.parent)
    return Workspace(Store(stub_home), STUB, lambda event, **data: None)


def generated(ws: Workspace) -> list[Step]:
    """The steps that wrote rows."""
    return [step for step in ws.store.steps(RUN) if step.stage == "generate"]


def test_the_published_rows_are_whole_and_equal_those_of_the_store(written: Workspace) -> None:
    [step] = generated(written)
    artifact = written.store.artifacts(RUN, "rows")[0]
    verify(artifact.path, artifact.sha256)
    lines = [json.loads(line) for line in (artifact.path / "rows.jsonl").read_text().splitlines()]
    assert {line["row_id"] for line in lines} == {row.row_id for row in written.store.rows(step.id)}
    assert artifact.meta["rows"] == len(lines) and by_origin(line["origin"] for line in lines)
    assert (step.result or {})["rehearsal_rows"] == REHEARSAL


def test_fewer_rows_than_a_run_has_are_priced_as_taking_their_place(
    written: Workspace, fields: dict[str, object]
) -> None:
    """Who asks for some more means an addition, which a second writing is not."""
    notes = {
        rows: " ".join(price(written, StepRequest("generate", {**fields, "rows": rows}, RUN)).notes)
        for rows in (12, ROWS)
    }
    assert f"these 12 rows take the place of the {ROWS} asked for before" in notes[12] and "rows=112" in notes[12]
    assert "take the place" not in notes[ROWS]


def test_rehearsal_is_greedy_and_no_request_carries_a_seed(written: Workspace) -> None:
    bodies = requests_sent(written)
    ordinary = [body for body in bodies if body["max_tokens"] == ORDINARY_TOKENS]  # as no other request has
    assert len(ordinary) >= ORDINARY and {body["temperature"] for body in ordinary} == {0.0}
    assert not any("seed" in body for body in bodies)


def test_critique_keeps_what_generate_wrote_and_its_dataset_is_what_training_reads(written: Workspace) -> None:
    [made] = generated(written)
    result = run_step(written, StepRequest("critique", {"on_leak": "drop"}, RUN), say_yes).done().result
    assert result is not None
    assert result["kept"] + result["dropped"] == result["candidates"] >= ROWS + ORDINARY
    assert sum(result["reasons"].values()) == result["dropped"] and result["kept"] >= 90
    dataset = written.store.artifacts(RUN, "dataset")[0]
    train = read_rows(dataset.path / "train.jsonl")
    assert len(train) == result["train_rows"] == dataset.meta["train_rows"]
    held = [row for row in train if row.origin in ("rehearsal", "near_miss")]
    assert len(held) == dataset.meta["held_rows"] and not any(row.attributes.values_at for row in held)
    valued = [row for row in train if row.attributes.values_at]
    assert len(valued) == dataset.meta["valued_rows"] == len(train) - len(held) > 0
    judged = written.store.rows(made.id)
    assert all(row.usable != row.dropped and bool(row.verdict and row.verdict.reason) == row.dropped for row in judged)
    assert {row.split for row in judged if row.usable} == {"train", "valid"}
    assert [row.row_id for row in train] == sorted(row.row_id for row in judged if row.usable and row.split == "train")


def test_the_rows_that_were_hashed_are_the_rows_that_are_judged(written: Workspace) -> None:
    [made] = generated(written)
    with written.store.write() as conn:
        conn.execute("UPDATE rows SET completion = replace(completion, 'content\": \"', 'content\": \"x')")
        conn.execute("DELETE FROM rows WHERE row_id = (SELECT max(row_id) FROM rows)")
    tampered = {row.completion[0]["content"] for row in written.store.rows(made.id) if row.origin == "generated"}
    result = run_step(written, StepRequest("critique", {"on_leak": "drop"}, RUN), say_yes).done().result or {}
    assert result["candidates"] >= ROWS + ORDINARY and result["kept"] >= 90
    published = {row.row_id: row for row in read_rows(written.store.artifacts(RUN, "rows")[0].path / "rows.jsonl")}
    train = read_rows(written.store.artifacts(RUN, "dataset")[0].path / "train.jsonl")
    assert train and all(row.completion == published[row.row_id].completion for row in train)
    assert tampered.isdisjoint(row.completion[0]["content"] for row in train)


def test_a_behaviour_without_rehearsal_prompts_is_refused_before_anything_starts(ws: Workspace) -> None:
    run = RUN
    lonely = ws.store.home.parent / "behaviour.yaml"
    lonely.write_text(spec_text(SPEC))
    with pytest.raises(BadInput, match=r"no rehearsal.txt; write one, or set rehearsal_rows=0"):
        price(ws, StepRequest("generate", {"behaviour": str(lonely)}, run))
    assert price(ws, StepRequest("generate", {"behaviour": str(lonely), "rehearsal_rows": 0}, run)).refusals == ()


def test_rows_whose_answers_code_composed_of_what_was_read_are_put_to_no_judge(written: Workspace) -> None:
    strict: dict[str, object] = {"on_leak": "drop", "suites": []}
    plain = run_step(written, StepRequest("critique", strict, RUN), say_yes).done().result or {}
    wanted = StepRequest("critique", {**strict, "judge": "base"}, RUN)
    assert any("no judge is asked" in step for step in price(written, wanted).steps)
    judged = run_step(written, wanted, say_yes).done().result or {}
    assert judged["kept"] == plain["kept"] and judged["judge"] is None is plain["judge"]


def test_what_critique_holds_out_is_asked_by_the_baseline_and_never_trained_on(written: Workspace) -> None:
    for _ in range(2):  # the second time its own cases are in the run's suite, and are no leak
        wanted = StepRequest("critique", {"on_leak": "refuse", "suites": [], "held_out": 12}, RUN)
        result = run_step(written, wanted, say_yes).done().result or {}
        assert result["cases"] >= 12 and result["reasons"]["held out"] >= 12
        dataset = written.store.artifacts(RUN, "dataset")[-1].path
        wanted = StepRequest("baseline", {"suites": ["general"], "held_out": True}, RUN)
        run_step(written, wanted, say_yes).done()
    suite = read_suite(written.store.artifacts(RUN, "suite")[-1].path)
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
