"""A base is tried on made-up rows as soon as it is there, where that says more than a plan's arithmetic."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fixtures import stored_runs
from tests.fixtures.descriptions import COOKING
from tests.fixtures.tables import table
from tests.gpu_rehearsal.tables import machine, model_of
from tests.tools.models.test_decisions import known, planned
from tunesmith.memory.errors import BadInput
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import GIB, Facts
from tunesmith.tools.data.behaviour import write_behaviour
from tunesmith.tools.pipeline import progress
from tunesmith.tools.pipeline.base_choice import plan_here, with_arm_of_base
from tunesmith.tools.pipeline.behaviour_plan import smoked
from tunesmith.tools.pipeline.catalog import BY_NAME
from tunesmith.tools.pipeline.fits import with_card
from tunesmith.tools.pipeline.following import lacking_before, next_stages
from tunesmith.tools.pipeline.forecast import looked_ahead
from tunesmith.tools.pipeline.plan_file import PipelinePlan, StepSpec, check_pipeline
from tunesmith.tools.pipeline.workspace import Workspace

SMOKE = StepSpec(stage="preflight", fields={"made_up": True})
BASE, TRAIN = StepSpec(stage="base"), StepSpec(stage="train")


class Here:
    """A behaviour, a home, and a machine that is asked about."""

    def __init__(self, folder: Path) -> None:
        self.folder = write_behaviour(COOKING, folder)
        self.ws = Workspace(Store(folder / "home"), "/bin/true", lambda event, **data: None)

    def facts(self, card: float) -> Facts:
        ram = Facts(Path(), replace(machine(), ram_free_bytes=48 * GIB), "", "vllm", here=False)
        return replace(with_card(machine(), card), here=False) if card else ram

    def plan(self, model: str, card: float) -> PipelinePlan:
        return plan_here(self.ws, self.folder, "fast", model=model, writer="bundled-1.5b", facts=self.facts(card))


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


@pytest.fixture
def newcomer(tmp_path: Path) -> str:
    """A folder with the config of a family that nobody tried."""
    folder = tmp_path / "newcomer"
    folder.mkdir()
    config = {**model_of("qwen2.5-0.5b").config, "model_type": "newcomer"}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.mark.heavy
@table(
    ("model", "card", "wanted"),
    [("Qwen/Qwen3-4B", 24, True), ("bundled", 24, True), ("bundled", 0, False), ("newcomer", 0, True)],
)
def test_a_plan_tries_the_base_first_on_a_card_or_where_its_family_is_untried(
    model: str, card: float, wanted: bool, here: Here, newcomer: str
) -> None:
    plan = here.plan(newcomer if model == "newcomer" else model, card)
    assert plan.steps.count(SMOKE) == wanted
    if wanted:
        at = plan.steps.index(SMOKE)
        assert plan.steps[at - 1].fields["model"] in (model, newcomer), "before the writer is fetched"
        assert "preflight" in [spec.stage for spec in plan.steps[at + 1 :]], "rows are tried all the same"
    check_pipeline(plan, have=())


@pytest.mark.heavy
def test_what_a_card_cannot_train_is_refused_by_the_step_before_rows_are_paid_for(here: Here) -> None:
    plan = here.plan("Qwen/Qwen3-30B-A3B", 12)
    prices, why_not = looked_ahead(here.ws, plan, here.facts(12))
    lacking = [number for number, price in enumerate(prices) if price.never]
    assert why_not and plan.steps[lacking[0]] == SMOKE
    prices, why_not = looked_ahead(here.ws, here.plan("Qwen/Qwen3-4B", 24), here.facts(24))
    assert not why_not and not any(price.lacks for price in prices)
    [price] = [one for one, spec in zip(prices, here.plan("Qwen/Qwen3-4B", 24).steps, strict=True) if spec == SMOKE]
    assert price.estimate is not None and "8 made-up rows of 512 tokens" in price.summary


@pytest.mark.heavy
def test_another_card_or_none_decides_again_whether_the_base_is_tried(here: Here) -> None:
    plan = here.plan("bundled", 24)
    without = with_arm_of_base(here.ws, plan, facts=here.facts(0))
    assert SMOKE in plan.steps and SMOKE not in without.steps
    assert with_arm_of_base(here.ws, without, facts=here.facts(24)).steps == plan.steps


@table(
    ("before", "after"),
    [
        ((BASE, TRAIN), (BASE, SMOKE, TRAIN)),
        ((BASE, SMOKE, TRAIN), (BASE, SMOKE, TRAIN)),
        ((BASE,), (BASE,)),
        ((TRAIN,), (TRAIN,)),
    ],
)
def test_what_is_trained_alone_is_tried_and_only_once(
    before: tuple[StepSpec, ...], after: tuple[StepSpec, ...]
) -> None:
    assert smoked(before, True) == after
    assert SMOKE not in smoked(before, False)


def test_it_is_tried_where_it_will_be_trained() -> None:
    there = StepSpec(stage="train", fields={"on": "ray", "epochs": 2})
    assert smoked((BASE, there), True)[1].fields == {"made_up": True, "on": "ray"}


def test_made_up_rows_need_a_base_alone() -> None:
    check_pipeline(PipelinePlan(name="p", steps=(BASE, SMOKE)), have=())
    with pytest.raises(BadInput, match=r"step 2 \(preflight\) has no dataset"):
        check_pipeline(PipelinePlan(name="p", steps=(BASE, StepSpec(stage="preflight"))), have=())
    facts = known("qwen3-4b", "16")
    bare = replace(facts, artifacts={"base": facts.artifacts["base"]})
    assert [*planned("preflight", bare, made_up=True).inputs] == ["base"]
    with pytest.raises(BadInput, match="has no dataset yet"):
        planned("preflight", bare)


@table(("name", "card"), [("qwen3-4b", "16"), ("qwen3-8b", "16"), ("qwen3-30b-a3b", "24"), ("llama-3.2-1b", "24")])
def test_made_up_rows_are_full_length_at_the_bits_and_on_the_rows_of_the_training(name: str, card: str) -> None:
    facts = known(name, card, tokens=512)
    made_up, train = planned("preflight", facts, made_up=True), planned("train", facts)
    fields = ("load_in_4bit", "precision", "activation_checkpointing", "lora_rank", "max_seq_len_tokens")
    assert [made_up.request[field] for field in fields] == [train.request[field] for field in fields]
    at_once = train.request["batch_size"] if train.request["micro_batch"] == "auto" else train.request["micro_batch"]
    assert made_up.request["micro_batch"] == at_once and not made_up.refusals
    longer = planned("preflight", facts, made_up=True, max_seq_len_tokens=2048)
    assert longer.estimate.calibrated_seconds > made_up.estimate.calibrated_seconds
    assert "of 2048 tokens" in longer.summary and "600 rows" not in str(made_up.reasons)


def test_the_two_preflights_of_a_run_are_not_taken_for_each_other(tmp_path: Path) -> None:
    build = stored_runs.new_builder(tmp_path)
    specs = [one.model_dump() for one in (BASE, SMOKE, StepSpec(stage="preflight"))]
    build.run = build.store.new_run("planned", plan={"name": "planned", "steps": specs})
    base = build.step("base")
    build.artifact(base, "base")
    build.end(base, 1.0, 1)
    store, run = build.store, build.store.run(build.run)
    assert not lacking_before(store, run, "preflight", {"made_up": True})[0]
    assert lacking_before(store, run, "preflight", {})[0] == ["the dataset"]
    too_early = build.step("preflight")
    build.end(too_early, 1.0, 1)
    assert [*progress.done_positions(store, run.id)] == [0], "nobody tried the base on made-up rows"
    smoke = build.step("preflight", request={"made_up": True})
    preflight = BY_NAME["preflight"].load()
    build.artifact(smoke, preflight.makes(preflight.request.model_validate({"made_up": True})) or "preflight")
    build.end(smoke, 1.0, 1)
    assert {at: step.id for at, step in progress.done_positions(store, run.id).items()} == {0: base, 1: smoke}
    critique = build.step("critique")
    build.artifact(critique, "dataset")
    build.end(critique, 1.0, 1)
    assert "preflight" in next_stages(store, run), "the rows are still to be tried"
    real = build.step("preflight")
    build.end(real, 1.0, 1)
    assert progress.done_positions(store, run.id)[2].id == real and progress.is_complete(store, run.id)
