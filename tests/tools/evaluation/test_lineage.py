"""What was trained on one base is merged into, measured beside and served on that base, never on another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.tiny_model import CONFIG
from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline.run_step import quote
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace
from tunesmith.tools.suites.case import Case, Suite


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return Workspace(Store(tmp_path), "/bin/true", lambda event, **data: None)


def made(store: Store, run: str, kind: str, digest: str, *parents: str, **meta: Any) -> str:
    """An artifact in a run, as its stage would have recorded it."""
    step = store.propose(run, kind, plan_hash=digest)
    meta = {"name": digest, "parameters": 32, "config": CONFIG, "lora_rank": 16, **meta}
    path = store.home / kind / digest
    return store.add_artifact(Artifact("", run, step, kind, path, digest, 64, parents, meta)).id


def trained(store: Store, run: str, digest: str) -> tuple[str, str]:
    base = made(store, run, "base", digest)
    dataset = made(store, run, "dataset", f"rows of {digest}")
    return base, made(store, run, "adapter", f"adapter of {digest}", base, dataset)


def add_suite(store: Store, run: str, base: str) -> None:
    case = Case(case_id="c", suite="s", messages=({"role": "user", "content": "hello"},))
    path = store.home / "suite.json"
    path.write_text(Suite(cases=(case,)).to_json())
    step = store.propose(run, "baseline", plan_hash="b")
    store.add_artifact(Artifact("", run, step, "suite", path, "5c", 1, (base,)))


@pytest.mark.parametrize(("stage", "fields"), [("merge", {}), ("evaluate", {"arm": "adapter"})])
def test_an_adapter_of_another_base_than_the_runs_is_refused(ws: Workspace, stage: str, fields: dict[str, Any]) -> None:
    run = ws.store.new_run("test")
    base, adapter = trained(ws.store, run, "first")
    add_suite(ws.store, run, base)
    assert quote(ws, StepRequest(stage, fields, run)).inputs["base"].artifact == base
    other = made(ws.store, run, "base", "second")
    with pytest.raises(BadInput, match=f"{adapter} was made from base {base} .*is now {other}"):
        quote(ws, StepRequest(stage, fields, run))


def test_the_same_base_fetched_again_is_no_other_base(ws: Workspace) -> None:
    run = ws.store.new_run("test")
    base, _ = trained(ws.store, run, "first")
    made(ws.store, run, "base", "first")
    assert quote(ws, StepRequest("merge", {}, run)).inputs["base"].artifact == base


def test_a_merged_model_of_another_base_is_not_evaluated_against_it(ws: Workspace) -> None:
    run = ws.store.new_run("test")
    base, adapter = trained(ws.store, run, "first")
    add_suite(ws.store, run, base)
    made(ws.store, run, "merged", "merged", base, adapter)
    made(ws.store, run, "base", "second")
    with pytest.raises(BadInput, match=f"was made from base {base}"):
        quote(ws, StepRequest("evaluate", {"arm": "merged"}, run))


def test_a_rollback_serves_the_adapter_on_its_own_base(ws: Workspace) -> None:
    first, second = ws.store.new_run("first"), ws.store.new_run("second")
    base, adapter = trained(ws.store, first, "first")
    _, later = trained(ws.store, second, "second")
    for run, model in ((first, adapter), (second, later)):
        made(ws.store, run, "deployment", f"serving {model}", model, serves=model, arm="adapter")
    plan = quote(ws, StepRequest("deploy", {"rollback": True}, second))
    assert (plan.inputs["model"].artifact, plan.inputs["base"].artifact) == (adapter, base)
