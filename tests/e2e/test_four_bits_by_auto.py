"""The whole way of a 0.5B at 4 bits, where nobody typed them: plans see a machine with little memory, work is real.

On a processor a server needs more than the training of the same base, so no single amount of memory makes both choose 4
bits; each step that chooses is planned with an amount of its own, and everything else with what there is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.steps import say_yes
from tunesmith.memory.store import Store
from tunesmith.tools.core.machine import Machine
from tunesmith.tools.core.stage import GIB
from tunesmith.tools.data.behaviour import behaviour_folder
from tunesmith.tools.machine.vllm_program import find_vllm
from tunesmith.tools.models.measuring import QUANTIZED_BASE
from tunesmith.tools.pipeline import run_step as stepping
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace
from tunesmith.tools.serving import servers

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(3600)]

MEMORY_GIB = {"base": 4.9, "train": 1.9}
"""A server of the 0.5B takes 3.8 at 4 bits, 4.4 at 16, each with 0.9 beside it; its training 1.6 and 2.1."""
STEPS: list[tuple[str, dict[str, Any]]] = [
    ("base", {"model": "bundled-0.5b"}),
    ("baseline", {"suites": ["demo"], "cases_per_block": 6, "max_tokens": 64}),
    ("import", {"source": str(behaviour_folder("demo") / "rows.jsonl"), "behaviour": "demo", "limit": 48}),
    ("critique", {"on_leak": "drop"}),
    ("preflight", {"rows": 2}),
    ("train", {"epochs": 1, "batch_size": 4}),
    ("evaluate", {"arm": "adapter", "max_tokens": 64}),
    ("merge", {}),
    ("quantize", {"calibration_samples": 16, "max_seq_len_tokens": 160}),
    ("evaluate", {"arm": "quantized", "max_tokens": 64}),
]


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    yield Workspace(Store(tmp_path / "home"), find_vllm(None), lambda event, **data: None)
    servers.stop_all(tmp_path / "home")


def test_a_small_memory_chooses_four_bits_and_the_whole_way_goes(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, real = {"gib": 0.0}, stepping.machine_for_a_step

    def emulated(home: Path) -> Machine:
        bytes_ = int(seen["gib"] * GIB)
        small = {"ram_total_bytes": bytes_, "ram_free_bytes": bytes_, "swap_free_bytes": 0} if bytes_ else {}
        return replace(real(home), **small)

    monkeypatch.setattr(stepping, "machine_for_a_step", emulated)
    run = ws.store.new_run("at 4 bits by itself")
    for stage, fields in STEPS:
        seen["gib"] = MEMORY_GIB.get(stage, 0.0)
        request = StepRequest(stage, fields, run)
        plan = stepping.price(ws, request)
        step = stepping.run_step(ws, request, say_yes).done()
        told = {
            "stage": stage,
            "status": step.status,
            "wall_s": step.seconds,
            "ram_gib": (step.peak_rss_bytes or 0) / GIB,
        }
        chosen = {name: plan.request[name] for name in ("measuring", "load_in_4bit", "scheme") if name in plan.request}
        reasons = {name: plan.reasons[name] for name in chosen if name in plan.reasons}
        print(json.dumps(told | chosen | {"reasons": reasons}))
    requests = {step.stage: step.request for step in ws.store.steps(run)}
    assert requests["base"]["measuring"] == "4" and requests["train"]["load_in_4bit"] is True
    assert ws.store.artifacts(run, QUANTIZED_BASE) and ws.store.artifacts(run, "quantized")
    evaluated = [step.result or {} for step in ws.store.steps(run) if step.stage == "evaluate"]
    assert all(one["comparisons"][0]["comparable"] for one in evaluated), "every arm at the same bits"
    assert all("4 bits" in key["precision"] for key in evaluated[0]["keys"].values())
