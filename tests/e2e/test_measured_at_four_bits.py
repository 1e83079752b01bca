"""A short demo's base at 4 bits under the real vLLM, and its adapter on it: proven, better, and another key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.demo_run import Demo
from tests.fixtures.steps import say_yes
from tunesmith.memory.store import Store
from tunesmith.tools.machine.vllm_program import find_vllm
from tunesmith.tools.models.measuring import QUANTIZED_BASE
from tunesmith.tools.pipeline.run_step import run_step
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace
from tunesmith.tools.serving import servers

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.slow]

CASES = 3
"""Of each block."""


@pytest.fixture
def demo(tmp_path: Path) -> Demo:
    """All of it: the proof of an adapter wants one that has learned something."""
    return Demo(tmp_path / "home", "demo", "--fast")


@pytest.fixture
def ws(demo: Demo) -> Iterator[Workspace]:
    yield Workspace(Store(demo.home), find_vllm(None), lambda event, **data: None)
    servers.stop_all(demo.home)


def test_base_and_adapter_are_compared_at_4_bits_once_the_adapter_is_proven(ws: Workspace, demo: Demo) -> None:
    def done(stage: str, **fields: Any) -> dict[str, Any]:
        return run_step(ws, StepRequest(stage, fields, run), say_yes).done().result or {}

    run = ws.store.new_run("at 4 bits")
    trained = ws.store.artifacts(demo.run, "adapter")[-1]
    base = done("base", model="bundled", measuring="4")
    assert "210 layers quantized" in base["quantized_audit"] and base["quantized_bytes"] < base["bytes"] / 2
    done("baseline", suites=["demo"], cases_per_block=CASES, max_tokens=72)
    [own] = ws.store.artifacts(run, "base")
    [quantized] = ws.store.artifacts(run, QUANTIZED_BASE)
    # Made on the very same bytes in the demo's own run; to train it again here would take a minute.
    assert own.sha256 == ws.store.artifact(trained.parents[0]).sha256
    ws.store.add_artifact(replace(trained, id="", run=run, step=own.step, parents=(own.id, trained.parents[1])))
    result = done("evaluate", arm="adapter")
    proof = result["proof"]["liveness"]
    assert "vllm_refused" not in result["proof"] and len(proof["kinds"]) == 7
    assert min(proof["kinds"].values()) > 10 * max(proof["base_afterwards"], 0.005)
    [compared] = result["comparisons"]
    assert compared["comparable"] and compared["blocks"]["target"]["passed"]["base"] == 0
    steps = [
        step.result or {} for step in ws.store.steps(demo.run) if step.arm == "adapter" and step.stage == "evaluate"
    ]
    keys, at_sixteen = result["keys"], steps[-1]["keys"]["adapter"]
    assert keys["base"]["precision"] == keys["adapter"]["precision"] != at_sixteen["precision"]
    assert quantized.sha256[:12] in keys["adapter"]["precision"] and "4 bits" in keys["adapter"]["precision"]
    assert keys["base"]["weights"] == own.sha256 == at_sixteen["weights"]
