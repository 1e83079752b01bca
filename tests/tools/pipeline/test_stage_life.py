"""A stage declares its whole life, so that a plan is priced, checked and talked about without knowing it by name."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.fixtures.tables import table
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.agent.commands.run_steps import demo_plan
from tunesmith.memory.errors import BadInput
from tunesmith.memory.store import Store
from tunesmith.tools.core.machine import Machine
from tunesmith.tools.core.stage import GIB, Inputs, is_expected
from tunesmith.tools.machine.cards import Card
from tunesmith.tools.models.bundled import BUNDLED
from tunesmith.tools.models.model_names import named_model
from tunesmith.tools.pipeline import catalog, executor, plan_file
from tunesmith.tools.pipeline import forecast as forecast_module
from tunesmith.tools.pipeline.fits import facts_here
from tunesmith.tools.pipeline.forecast import check_ahead, forecast, looked_ahead
from tunesmith.tools.pipeline.plan_file import PipelinePlan, StepSpec
from tunesmith.tools.pipeline.workspace import Workspace
from tunesmith.tools.serving import servers

ROOT = Path(str(plan_file.__file__)).parents[2]
KNOW_NO_STAGE = [
    *(
        f"tools/pipeline/{name}.py"
        for name in ("executor", "forecast", "plan_file", "progress", "run_step", "runs", "start_step")
    ),
    "agent/driver/stages.py",
    "agent/driver/state_summary.py",
    "agent/repl/step_ended.py",
]


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return Workspace(Store(tmp_path / "home"), "/bin/true", lambda event, **data: None)


def steps(*given: str | tuple[str, dict[str, object]]) -> PipelinePlan:
    specs = [StepSpec(stage=s) if isinstance(s, str) else StepSpec(stage=s[0], fields=s[1]) for s in given]
    return PipelinePlan(name="p", steps=tuple(specs))


@table("module", KNOW_NO_STAGE)
def test_what_carries_out_any_stage_names_none(module: str) -> None:
    tree = ast.parse((ROOT / module).read_text())
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert not words & set(catalog.BY_NAME)


@table("entry", catalog.STAGES)
def test_what_a_stage_declares_of_its_fields_and_kinds_exists(entry: catalog.Entry) -> None:
    declared, kinds = entry.load(), {other.makes for other in catalog.STAGES}
    named = {*declared.settable, *declared.identified_by, *declared.tries_settings_of[1]}
    assert named <= set(declared.request.model_fields)
    assert {*declared.measures, *declared.usually_after} <= kinds
    assert not declared.tries_settings_of[0] or declared.tries_settings_of[0] in catalog.BY_NAME


@pytest.mark.parametrize("fast", [True, False])
def test_every_step_of_the_demo_has_a_price_before_the_first(ws: Workspace, fast: bool) -> None:
    prices = forecast(ws, demo_plan(fast=fast))
    assert [price.stage for price in prices if price.estimate is None] == []
    assert all(price.estimate and price.estimate.seconds > 0 for price in prices)


def test_what_a_stage_leads_to_expect_is_what_it_makes(ws: Workspace) -> None:
    artifacts = {}
    for spec in demo_plan(fast=True).steps_to_run:
        entry = catalog.BY_NAME[spec.stage]
        request = plan_file.parse_request(spec.stage, spec.fields)
        context = entry.load().inspect_inputs(request, Inputs(ws.store, "", artifacts))
        assert context is None or type(context).__dataclass_params__.frozen  # type: ignore[attr-defined]
        artifact = entry.load().expected_artifact(request, artifacts)
        if artifact is not None:
            assert is_expected(artifact) and artifact.kind in (entry.makes, getattr(request, "role", ""))
            artifacts[artifact.kind] = artifact
    assert {"base", "suite", "rows", "dataset", "adapter", "merged", "quantized"} <= set(artifacts)


def test_a_prompted_arm_is_priced_by_the_behaviour_that_the_plan_generates(ws: Workspace, tmp_path: Path) -> None:
    model = {"model": str(make_tiny_model(tmp_path / "tiny"))}
    prompted = ("evaluate", {"arm": "prompted"})
    prices = check_ahead(ws, steps(("base", model), ("baseline", {"suites": ["demo"]}), "generate", prompted))
    assert prices[-1].estimate is not None and prices[-1].estimate.like.startswith("prompted")
    with pytest.raises(BadInput, match=r"step 3 \(evaluate\): .*which behaviour"):
        check_ahead(ws, steps(("base", model), ("baseline", {"suites": ["general"]}), prompted))


def test_a_rollback_without_anything_to_go_back_to_opens_no_run(ws: Workspace, tmp_path: Path) -> None:
    model = {"model": str(make_tiny_model(tmp_path / "tiny"))}
    with pytest.raises(BadInput, match=r"step 2 \(deploy\): nothing to roll back to"):
        check_ahead(ws, steps(("base", model), ("deploy", {"rollback": True})))


def here_is(ram: tuple[float, float], monkeypatch: pytest.MonkeyPatch, *, disk_gib: float = 1000) -> None:
    """This machine has so much RAM in all, and so much of it free."""
    total, free = (int(gib * GIB) for gib in ram)
    there = Machine("a processor", 2, total, free, 0, int(disk_gib * GIB))
    monkeypatch.setattr(forecast_module, "machine_for_a_step", lambda home: there)


def test_a_step_that_cannot_fit_is_refused_before_any_step_and_what_is_held_now_is_not(
    ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = {"model": str(make_tiny_model(tmp_path / "tiny"))}
    plan = steps(("base", model), ("baseline", {"suites": ["demo"]}))
    here_is((64, 1), monkeypatch)
    held = check_ahead(ws, plan)[-1]
    assert not held.lacks and "other programs hold memory" in held.held[0], "a warning"
    here_is((64, 60), monkeypatch)
    assert not any(price.lacks or price.held for price in check_ahead(ws, plan))
    here_is((1, 1), monkeypatch)
    with pytest.raises(
        BadInput, match=r"^step 2 \(baseline\) needs [\d.]+ GiB of RAM and swap, there is room for .*; try "
    ):
        executor.run_pipeline(ws, plan, lambda *_: pytest.fail("nobody is asked about a plan that cannot be"))
    assert ws.store.runs() == []
    prices, why_not = looked_ahead(ws, plan)
    assert len(prices) == 2 and why_not.endswith(str(prices[-1].never))
    here_is((64, 60), monkeypatch, disk_gib=0)
    with pytest.raises(BadInput, match="of disk in all, 0 B free; make room"):
        check_ahead(ws, plan)


def test_a_machine_that_is_only_asked_about_has_nothing_of_this_one(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No copy of a model, no server and no memory: all of it is the other machine's."""
    folder = ws.store.home / "models" / BUNDLED["bundled"].name
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text('{"sha256": "", "bytes": 0, "files": {}}')
    elsewhere = facts_here(ws.store, vllm=None, card=Card("a card", 20))
    monkeypatch.setattr(servers, "list_servers", lambda *_, **__: pytest.fail("this machine is not asked"))
    plan = demo_plan(fast=True)
    prices = {price.stage: price for price in forecast(ws, plan, facts=elsewhere)}
    fetched = prices["base"].estimate
    assert fetched and "here already" not in fetched.like and not any(price.refused for price in prices.values())
    served = prices["deploy"].estimate
    assert served and served.peak_vram_bytes and not prices["deploy"].lacks
    monkeypatch.undo()
    here = {price.stage: price.estimate for price in forecast(ws, plan)}
    assert (here["base"] or fetched).like.endswith("here already"), "here it is"


def test_the_step_that_needs_the_smallest_other_base_tells_what_would_do(ws: Workspace) -> None:
    model = {"model": "meta-llama/Llama-3.3-70B-Instruct"}
    plan = steps(("base", model), ("baseline", {"suites": ["demo"]}), "generate", "critique", "preflight", "train")
    prices, why_not = looked_ahead(ws, plan, facts_here(ws.store, vllm=None, card=Card("a card", 6)))
    named = [price.fitting[0].settings.removeprefix("a base such as ") for price in prices if price.fitting]
    smallest = min(filter(None, map(named_model, named)), key=lambda one: one.parameters)
    assert len({*named}) > 1 and f"try a base such as {smallest.name} (" in why_not, (named, why_not)


@table("entry", catalog.STAGES)
def test_what_a_stage_declares_of_its_fields_are_fields(entry: catalog.Entry) -> None:
    stage = entry.load()
    asked = {*stage.settable, *stage.lasting, *stage.takes_from, *stage.identified_by}
    assert asked <= set(stage.request.model_fields)
    assert set(stage.headline) <= set(stage.result.model_fields)
    for name, other in stage.takes_from.items():
        assert name in catalog.BY_NAME[other].load().request.model_fields
