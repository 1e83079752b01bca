"""An evaluation draws its answers as the baseline did, or says before it is paid for that nothing could be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fixtures import stored_runs
from tests.fixtures.tiny_model import CONFIG
from tunesmith.memory.errors import BadInput
from tunesmith.memory.files import atomic_write
from tunesmith.tools.evaluation.protocol import Sampling
from tunesmith.tools.pipeline import forecast
from tunesmith.tools.pipeline.plan_file import PipelinePlan, StepSpec
from tunesmith.tools.pipeline.run_step import quote
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace
from tunesmith.tools.suites.case import Case, Suite

SAMPLING: dict[str, Any] = {"max_tokens": 72, "temperature": 0.7, "repeats": 3}
SUITE = Suite(cases=(Case(case_id="c", suite="s", messages=({"role": "user", "content": "hello"},)),))


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    """A run whose base answered under SAMPLING, with an adapter and its merge."""
    build = stored_runs.new_builder(tmp_path)
    ids: list[str] = []
    for kind in ("base", "adapter", "merged"):
        step = build.step(kind)
        meta = {"parameters": 32, "config": CONFIG, "lora_rank": 16}
        ids.append(build.artifact(step, kind, "", *ids, **meta))
        build.end(step, 1.0, 1)
        if kind == "base":
            step = build.step("baseline", arm="base", request=SAMPLING)
            atomic_write(tmp_path / "suite.json", SUITE.to_json())
            build.artifact(step, "suite", str(tmp_path / "suite.json"), suite_sha256=SUITE.sha256)
            build.end(step, 1.0, 1, {"key": {"suite": SUITE.sha256, **Sampling(**SAMPLING).key}})
    return Workspace(build.store, "/bin/true", lambda event, **data: None)


def planned(ws: Workspace, arm: str, **fields: Any) -> dict[str, Any]:
    request = quote(ws, StepRequest("evaluate", {"arm": arm, **fields}, "r1")).request
    return {name: request[name] for name in SAMPLING}


@pytest.mark.parametrize("arm", ["adapter", "merged"])
def test_what_is_left_out_is_as_in_the_baseline(ws: Workspace, arm: str) -> None:
    assert planned(ws, arm) == SAMPLING
    assert planned(ws, arm, **SAMPLING) == SAMPLING


def test_an_arm_that_answers_without_the_base_beside_it_is_not_asked_otherwise(ws: Workspace) -> None:
    for name, value in {"max_tokens": 96, "temperature": 0.0, "repeats": 1}.items():
        with pytest.raises(BadInput, match=rf"merged could not be compared .*{name}={value} against {SAMPLING[name]}"):
            planned(ws, "merged", **{name: value})
        assert planned(ws, "adapter", **{name: value}) == {**SAMPLING, name: value}, "the base answers beside it"


def test_an_arm_may_be_asked_as_the_base_was_in_another_step(ws: Workspace) -> None:
    step = ws.store.propose("r1", "evaluate", arm="adapter", plan_hash="h")
    key = {"suite": SUITE.sha256, **Sampling(96, 0.7, 3).key}
    ws.store.finish(step, {"keys": {"base": key, "adapter": key}})
    assert planned(ws, "merged", max_tokens=96)["max_tokens"] == 96
    assert planned(ws, "merged") == SAMPLING


def test_a_plan_as_it_was_priced_is_a_plan_that_can_be_edited(ws: Workspace) -> None:
    fields = quote(ws, StepRequest("evaluate", {"arm": "merged"}, "r1")).request
    again = {name: value for name, value in fields.items() if name != "run"} | {"concurrency": 8}
    assert quote(ws, StepRequest("evaluate", again, "r1")).request == {**fields, "concurrency": 8}


def test_a_written_plans_price_counts_the_baselines_tokens(ws: Workspace) -> None:
    def price(tokens: int) -> float:
        steps = (
            StepSpec(stage="base", fields={"model": "bundled"}),
            StepSpec(stage="baseline", fields={"suites": ["demo"], "max_tokens": tokens}),
            StepSpec(stage="evaluate", fields={"arm": "prompted", "system_prompt": "p"}),
        )
        found = forecast.forecast(ws, PipelinePlan(name="n", steps=steps))[-1].estimate
        assert found
        return found.seconds

    assert price(400) > price(40)


def test_a_written_plans_price_counts_the_context_that_the_baseline_will_choose(ws: Workspace, tmp_path: Path) -> None:
    def price(words: int) -> int:
        suite = tmp_path / f"long-{words}.yaml"
        test = {"assert": [{"type": "contains", "value": "x"}]}
        suite.write_text(yaml.safe_dump({"prompts": ["word " * words], "tests": [test]}))
        steps = (
            StepSpec(stage="base", fields={"model": "bundled"}),
            StepSpec(stage="baseline", fields={"suites": [str(suite)]}),
            StepSpec(stage="evaluate", fields={"arm": "prompted", "system_prompt": "p"}),
        )
        found = forecast.forecast(ws, PipelinePlan(name="n", steps=steps))
        assert found[1].estimate and found[2].estimate
        assert found[1].estimate.peak_ram_bytes == found[2].estimate.peak_ram_bytes
        return found[2].estimate.peak_ram_bytes

    assert price(20_000) > price(100)
