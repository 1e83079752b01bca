"""Settings: which value was used, who set it, and what it is where nobody does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.asking import asked
from tests.fixtures.stored_runs import Builder, digest
from tests.fixtures.tables import table
from tunesmith.agent.queries.answer import Context
from tunesmith.agent.queries.settings import SettingQuery, answer, differing, value_in
from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline.plan_file import PipelinePlan
from tunesmith.tools.pipeline.workspace import Workspace

PLAN = {"steps": [{"stage": "train", "fields": {"learning_rate": "0.0009", "lora_rank": 16}}]}


@pytest.fixture
def build(tmp_path: Path) -> Builder:
    store = Store(tmp_path / "home")
    return Builder(store, store.new_run("tickets", plan=PLAN))


def trained(build: Builder, *, ended: bool = True, error: str = "", **request: object) -> str:
    step = build.step("train", arm="adapter", request={"run": build.run, **request})
    if ended:
        build.end(step, 10.0, 1, error=error)
    return step


def proposed(build: Builder, by: str = "", reason: str = "", **request: object) -> str:
    """A plan that was shown, and where `by` says so declined."""
    step = build.store.propose(build.run, "train", request=request, plan={}, plan_hash=digest(str(request)))
    if by:
        build.store.decide(step, "no", by=by, reason=reason, price={})
    with build.store.write() as conn:
        conn.execute("UPDATE steps SET created_at = ? WHERE step = ?", (build.now, step))
    build.now += 1
    return step


def told(build: Builder, setting: str) -> tuple[object, ...]:
    """The value, its step, and who set it."""
    [fact] = asked(build.store, "setting", run=build.run, fields=(setting,)).facts
    return fact["value"], fact["step"], fact["set_by"]


def test_the_value_that_was_used_comes_before_one_that_was_only_proposed(build: Builder) -> None:
    proposed(build, lora_rank=4)
    [fact] = asked(build.store, "setting", run=build.run, fields=("lora_rank",)).facts
    assert (fact["value"], fact["status"]) == (4, "planned")
    trained(build, lora_rank=8, error="out of memory")
    proposed(build, "terminal", "too slow", lora_rank=64)
    assert told(build, "lora_rank")[:2] == (8, "s2")
    trained(build, lora_rank=16)
    proposed(build, "terminal", "too slow", lora_rank=64)
    trained(build, ended=False, lora_rank=32)
    assert told(build, "lora_rank")[:2] == (16, "s4")


def test_the_plan_is_the_reason_only_for_the_value_that_it_holds(build: Builder) -> None:
    trained(build, learning_rate=0.0009)
    assert told(build, "learning_rate")[2] == "the plan of the run"
    trained(build, learning_rate=0.0002, lora_alpha=77)
    assert told(build, "learning_rate") == (0.0002, "s2", "whoever asked for the step")
    assert told(build, "lora_alpha")[2] == "whoever asked for the step"


def test_an_edit_is_the_reason_only_for_the_step_that_it_led_to(build: Builder) -> None:
    proposed(build, "edit", "edited: lora_rank=8", lora_rank=16)
    proposed(build, "edit", "edited: epochs=2", lora_rank=8)
    trained(build, lora_rank=8)
    assert told(build, "lora_rank")[2] == "the user, at the price"
    trained(build, lora_rank=16)
    assert told(build, "lora_rank")[2] == "the plan of the run"


def test_every_setting_that_is_asked_for_has_its_reason_default_and_value_elsewhere(two_runs: Store) -> None:
    found = asked(two_runs, "setting", run="r1", fields=("lora_rank", "epochs", "rows"))
    rank, epochs, rows = found.facts
    assert rank["value"] == 16 and rank["default"] == "chosen by the rows" and rank["in_other_runs"] == {"r2": 16}
    assert epochs["set_by"] and str(epochs["meaning"]).startswith("How often every row")
    assert rows["set_by"] == "nobody yet" and rows["default"], "no step of r1 was given it"


@table(
    ("given", "says"),
    [
        ({"fields": ("lora_rang",)}, "There is no setting lora_rang; the nearest are lora_rank and lora_alpha"),
        ({"fields": ("lora_rank",), "stage": "merge"}, "merge has no setting lora_rank; these .*: preflight and train"),
        ({"fields": ("model",), "role": "driver"}, "There is no driver; the models are: base"),
        ({"fields": ("model",), "role": "teacher", "run": "r1"}, "There is no teacher in r1; the models are: base"),
    ],
)
def test_what_is_not_there_is_not_answered_with_something_else(
    two_runs: Store, given: dict[str, object], says: str
) -> None:
    with pytest.raises(NotFound, match=says):
        asked(two_runs, "setting", **given)


def test_whose_model_is_no_argument_of_another_setting(two_runs: Store) -> None:
    with pytest.raises(BadInput, match="read_setting takes no role"):
        asked(two_runs, "setting", fields=("epochs",), role="teacher")


def test_a_model_is_told_with_what_its_name_came_to(build: Builder) -> None:
    for role, name in (("base", "small"), ("driver", "clever")):
        step = build.step("base", request={"model": f"me/{name}", "role": role})
        build.artifact(step, role, name=name, parameters=5, license="MIT", revision="ab12")
        build.end(step, 1.0, 1)
        [fact] = asked(build.store, "setting", fields=("model",), role=role).facts
        assert fact["value"] == f"me/{name}" and fact["model_name"] == name and fact["model_license"] == "MIT"
        assert fact["model_revision"] == "ab12" and fact["model_parameters"] == 5
    with pytest.raises(NotFound, match="There is no teacher; the models are: base and driver"):
        asked(build.store, "setting", fields=("model",), role="teacher")


def test_a_value_is_set_beside_what_the_rule_chooses_and_where_it_cannot_be_asked_that_is_said(
    two_runs: Store,
) -> None:
    found = asked(two_runs, "setting", run="r1", fields=("seed",), value=34)
    assert found.facts[0]["rule_chooses"] == 17 and found.facts[0]["times_the_rule"] == 2
    refused = asked(two_runs, "setting", run="r1", fields=("lora_rank",), value=64).facts[0]
    assert refused["value"] and "train cannot be priced" in str(refused["rule"]) and "rule_chooses" not in refused


def test_the_bits_of_a_gguf_are_told_beside_those_of_the_quantized_model(build: Builder) -> None:
    build.end(build.step("quantize", request={"scheme": "W8A8"}), 1.0, 1)
    assert [one["setting"] for one in asked(build.store, "setting", fields=("scheme",)).facts] == ["scheme"]
    build.end(build.step("release", request={"tensor_type": "Q4_0"}), 1.0, 1)
    facts = asked(build.store, "setting", fields=("scheme",)).facts
    assert [(one["setting"], one["value"]) for one in facts] == [("scheme", "W8A8"), ("tensor_type", "Q4_0")]


def test_a_plan_that_is_open_is_told_with_its_value(build: Builder) -> None:
    draft = PipelinePlan.model_validate({"name": "p", "steps": [{"stage": "train", "fields": {"epochs": 7}}]})
    context = Context(Workspace(build.store, None, lambda event, **data: None), draft=draft)
    [fact] = answer(SettingQuery(fields=("epochs",)), context).facts
    assert fact["in_the_proposed_plan"] == 7 and "value" not in fact


def test_a_run_is_told_by_what_differs_from_the_defaults_and_a_stage_by_all(two_runs: Store) -> None:
    run, stage = asked(two_runs, "settings", run="r1"), asked(two_runs, "settings", run="r1", stage="train")
    assert "train.seed" not in [one["setting"] for one in run.facts] and run.left_out == {"defaults": 1}
    assert stage.facts[-1] == {"setting": "train.seed", "value": 17, "default": "17", "set_by": "the default"}
    unused = asked(two_runs, "settings", run="r1", stage="quantize")
    assert unused.of["ran"] is False and {"setting": "scheme", "default": "auto"} in unused.facts
    with pytest.raises(NotFound, match="There is no stage training; the stages are inspect, base"):
        asked(two_runs, "settings", stage="training")


def test_two_evaluations_of_a_run_are_told_apart(build: Builder) -> None:
    for arm in ("adapter", "merged"):
        build.end(build.step("evaluate", arm=arm, request={"arm": arm, "repeats": 2}), 1.0, 1)
    facts = asked(build.store, "settings", run=build.run, stage="evaluate").facts
    assert [one["setting"] for one in facts] == ["evaluate adapter.repeats", "evaluate merged.repeats"]


def test_two_runs_differ_in_what_their_newest_steps_were_given(build: Builder) -> None:
    one, two = build.run, build.store.new_run("other")
    trained(build, lora_rank=8, seed=17)
    build.run = two
    trained(build, lora_rank=16, seed=17)
    store = build.store
    assert differing(store, store.run(one), store.run(two)) == {"train.lora_rank": ("8", "16")}
    assert value_in(store, store.run(two), "lora_rank") == 16 and value_in(store, store.run(one), "scheme") is None
