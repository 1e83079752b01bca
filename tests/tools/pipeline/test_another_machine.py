"""What goes to another machine and what comes back: settings, files by their hash, records of one step."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.stored_runs import Builder
from tests.fixtures.tables import table
from tunesmith.memory.bundles import bring_back, new_records, put_down, records_for
from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.files import sha256_file
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Estimate, Plan
from tunesmith.tools.evaluation.judge import find_models
from tunesmith.tools.models.bundled import BUNDLED
from tunesmith.tools.pipeline.executor import go_on, run_pipeline
from tunesmith.tools.pipeline.guest import MARK, inside
from tunesmith.tools.pipeline.plan_file import PipelinePlan, StepSpec, placed
from tunesmith.tools.pipeline.ray_settings import RaySettings
from tunesmith.tools.pipeline.storage import Storage
from tunesmith.tools.pipeline.there import check_place, returned, words
from tunesmith.tools.pipeline.workspace import Decision, Workspace
from tunesmith.tools.suites.case import Assertion, Case

WHOLE = {"address": "127.0.0.1:8265", "token_file": "token", "storage": "/srv/shared"}


@table(
    ("changed", "told"),
    [
        ({"address": ""}, "no address"),
        ({"token_file": ""}, "127.0.0.1:8265 has no token_file; who reaches a head without a token"),
        ({"storage": ""}, "no storage; name a folder"),
        ({"address": "10.0.0.2:8265"}, "the key would go to 10.0.0.2:8265 over plain http"),
        ({"address": "ray://10.0.0.2:10001"}, "cannot be used; write http:// or https://"),
        ({"address": "user:pw@10.0.0.2:8265"}, "cannot be used"),
        ({"overridden_by": "RAY_ADDRESS"}, "RAY_ADDRESS is set, and Ray's client would go there instead"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_before_anything_is_asked(changed: dict[str, str], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        RaySettings(**{**WHOLE, **changed}).head()  # type: ignore[arg-type]
    assert RaySettings(**WHOLE).head().place == "127.0.0.1:8265"  # type: ignore[arg-type]


@table("content", [b"", b"two words", "schlüssel".encode(), b"\xff\xfe"])
def test_a_token_file_that_holds_no_token_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    (tmp_path / "token").chmod(0o600)
    with pytest.raises(BadInput, match=r"token_file \S*token holds no key"):
        RaySettings(**WHOLE).token(tmp_path)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=f"cannot read token_file {tmp_path}/elsewhere/token: No such file"):
        RaySettings(**WHOLE).token(tmp_path / "elsewhere")  # type: ignore[arg-type]


def test_a_file_on_the_storage_is_what_was_sent_or_nothing(tmp_path: Path) -> None:
    storage = Storage(f"file://{tmp_path}/storage")
    (tmp_path / "a").write_bytes(b"content")
    sha256 = sha256_file(tmp_path / "a")
    assert storage.put(tmp_path / "a", sha256)
    blob = tmp_path / "storage" / "blobs" / sha256
    blob.write_bytes(b"changed")
    assert storage.has(sha256, 7) and not storage.has(sha256, 6)
    with pytest.raises(StepFailed, match="was changed on its way"):
        storage.get(sha256, tmp_path / "b" / "a")
    assert not storage.has(sha256, 7) and not list((tmp_path / "b").iterdir()), "the next one sends it again"
    assert storage.put(tmp_path / "a", sha256) and not storage.put(tmp_path / "a", sha256)
    storage.get(sha256, tmp_path / "b" / "a")
    assert (tmp_path / "b" / "a").read_bytes() == b"content"
    with pytest.raises(StepFailed, match=r"does not hold 000000000000….*see the same one"):
        storage.get_bytes("0" * 64)


def test_a_storage_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for url in (f"{tmp_path}/file", "nothing-known://x"):
        with pytest.raises(BadInput, match=r"the storage .* cannot be used"):
            Storage(url)


@table("stored", ["/etc/passwd", "$TUNESMITH_HOME/../x", "runs/r1/x", "$TUNESMITH_HOMEx/y"])
def test_a_path_from_elsewhere_that_leads_out_of_the_home_is_refused(tmp_path: Path, stored: str) -> None:
    with pytest.raises(StepFailed, match="does not lie in the step's home"):
        inside(tmp_path, stored)


def test_what_the_other_end_said_is_taken_apart_however_it_was_cut() -> None:
    text = f'Ray: begins\n{MARK}{{"progress": [1, 2, "a"]}}\nwork\n{MARK}{{"progress": [2, 2, "b"]}}\n{MARK}{{"ret'
    said = words(text)
    assert said.last == {"progress": [2, 2, "b"]} and said.log == ("Ray: begins", "work")
    with pytest.raises(StepFailed, match="on h:1 the step's process ended without a result: work"):
        returned(said, "h:1")
    with pytest.raises(StepFailed, match=r"^on h:1: no room$"):
        returned(words(f'{MARK}{{"failed": "no room"}}'), "h:1")


def test_a_plan_holds_for_the_machine_that_it_was_priced_for() -> None:
    plan = Plan(stage="train", run="r1", summary="", steps=(), request={"on": "ray"}, on="10.0.0.2:8265, one card",
                estimate=Estimate(seconds=1, basis=""))  # fmt: skip
    here = plan.model_copy(update={"on": "", "request": {}})
    with pytest.raises(BadInput, match=r"priced for 10.0.0.2:8265, one card, and settings.toml names 127.0.0.1:8265"):
        check_place(plan, RaySettings(**WHOLE))  # type: ignore[arg-type]
    check_place(here, RaySettings())
    assert plan.hash != here.hash == here.model_copy(update={"request": {"on": "here"}}).hash, (
        "as before there was `on`"
    )


def refused_by(approved: list[str]) -> Any:
    """Who is asked: nobody should be."""
    return lambda plan, step: approved.append(step) or Decision(True, "test")


def test_a_plan_of_which_no_step_can_go_is_refused_by_name_and_nothing_of_it_is_carried_out_here(
    tmp_path: Path,
) -> None:
    ws, asked = Workspace(Store(tmp_path), None, lambda event, **data: None), list[str]()
    spec = StepSpec(stage="base", fields={"model": "bundled"})
    plan, told = PipelinePlan(name="p", steps=(spec,)), "`on: ray` is followed nowhere, for base can be done only here"
    with pytest.raises(BadInput, match=told):
        run_pipeline(ws, plan, refused_by(asked), on="ray")
    assert ws.store.runs() == [] and placed(plan, "here") == placed(plan, "") == plan
    ws = replace(ws, ray=RaySettings(**WHOLE))  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=told):
        run_pipeline(ws, plan, refused_by(asked), on="ray")
    assert ws.store.priced_steps() == [] and asked == []


def test_what_is_left_of_a_run_and_cannot_go_is_not_carried_out_here(tmp_path: Path) -> None:
    """With a plan and without one; of a plan what is done does not count."""
    ws, asked = Workspace(Store(tmp_path), None, lambda event, **data: None), list[str]()
    steps = ({"stage": "inspect"}, {"stage": "base", "fields": {"model": "bundled"}})
    build = Builder(ws.store, ws.store.new_run("p", plan={"name": "p", "steps": list(steps)}))
    build.end(build.step("inspect"), 1.0, 1)
    plan = PipelinePlan.model_validate(ws.store.run(build.run).plan)
    with pytest.raises(BadInput, match="followed nowhere, for base can be done only here"):
        run_pipeline(ws, plan, refused_by(asked), resume_run=build.run, on="ray")
    without = Builder(ws.store, ws.store.new_run("q"))
    without.end(without.step("base", request={"model": "bundled"}), 1.0, 1, error="killed")
    with pytest.raises(BadInput, match="followed nowhere, for base can be done only here"):
        go_on(ws, without.run, refused_by(asked), on="ray")
    assert len(ws.store.priced_steps()) == 2 and asked == []


def test_cases_that_ask_a_judge_are_not_asked_where_there_is_none(tmp_path: Path) -> None:
    judged = Case(case_id="c", block="target", suite="s", messages=(), assertions=(Assertion(type="llm-rubric"),))
    coming = {BUNDLED["bundled-driver"].title}
    with pytest.raises(BadInput, match="1 llm-rubric assertions ask a judge, which stays here; say `on: here` of"):
        find_models([judged], "", tmp_path, coming, "ray")
    assert find_models([judged], "", tmp_path, coming, "here").judge
    assert find_models([], "", tmp_path, coming, "ray").judge is None


@pytest.fixture
def sent(tmp_path: Path) -> tuple[Store, Store, str]:
    """A store with a running step, and one on another machine in which the step was done."""
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    build = Builder(here, here.new_run("test"))
    build.step("base")
    step = here.propose(build.run, "critique", plan={"on": "h:1, no card"}, plan_hash="p", request={"run": build.run})
    here.decide(step, "yes", by="test", reason="", price={})
    put_down(there, step, records_for(here, here.step(step)))
    there.claim(step, needs_approval=True, pid=1, pid_started=1.0, boot_id="b")
    here.claim(step, needs_approval=True, pid=2, pid_started=2.0, boot_id="b")
    return here, there, step


def worked(here: Store, there: Store, step: str) -> dict[str, Any]:
    before = records_for(here, here.step(step))
    there.event("told", run="r1", step=step, artifact="a1")
    there.metric(step, "loss", 1, 0.5)
    there.finish(step, {"artifact": "a1", "text": "x"})
    return new_records(there, there.step(step), before)


def test_the_yes_goes_along_once_and_the_records_come_back_once(sent: tuple[Store, Store, str]) -> None:
    here, there, step = sent
    records = worked(here, there, step)
    assert there.step(step).on == "", "there it is at home"
    for _ in range(2):
        result = bring_back(here, here.step(step), json.loads(json.dumps(records)), submission="n", later_s=3600.0)
    assert result == {"artifact": "a1", "text": "x"} and len(here.metrics(step, "loss")) == 1
    rows = here.read("SELECT at FROM events WHERE event = 'told'")
    there_at = there.read("SELECT at FROM events WHERE event = 'told'")[0]["at"]
    assert [round(row["at"] - there_at) for row in rows] == [3600], "times go by the clock here"
    with pytest.raises(Exception, match="was used already"):
        put_down(there, step, records_for(here, here.step(step)))
        there.claim(step, needs_approval=True, pid=3, pid_started=3.0, boot_id="b")


@pytest.mark.parametrize(
    "forged", [{"metrics": [{"step": "s1"}]}, {"rows": [{"run": "r9", "step": "s1"}]}, {"approvals": []}]
)
def test_records_of_anything_else_are_refused(sent: tuple[Store, Store, str], forged: dict[str, Any]) -> None:
    here, there, step = sent
    records = {**worked(here, there, step), **forged}
    with pytest.raises(StepFailed, match="holds records of something else; nothing of it was recorded"):
        bring_back(here, here.step(step), records, submission="n", later_s=0.0)
    assert here.metrics(step, "loss") == []


@pytest.mark.parametrize("name", ["at, note) SELECT 'r1', 's1', 0, '' --", "sql", 'value"'])
@pytest.mark.parametrize("table", ["events", "metrics", "artifacts"])
def test_no_name_in_a_document_that_came_back_becomes_a_part_of_a_statement(
    sent: tuple[Store, Store, str], table: str, name: str
) -> None:
    here, there, step = sent
    records = worked(here, there, step)
    records[table] = [{**row, name: 1} for row in records[table] or [{"run": "r1", "step": step}]]
    with pytest.raises(StepFailed, match=f"which {table} do not have; nothing of it was recorded"):
        bring_back(here, here.step(step), records, submission="n", later_s=0.0)
    assert here.metrics(step, "loss") == [] and not here.read("SELECT 1 FROM events WHERE event = 'told'")
