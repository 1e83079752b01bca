"""The check as a step: priced, asked about, each task in a process, all of it recorded; and nobody's newest run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.planted_gpus import gpu, plant
from tunesmith.agent.commands.approvals import nobody
from tunesmith.agent.commands.gpu_check import tell, view
from tunesmith.agent.commands.output import Output
from tunesmith.memory.errors import ApprovalPending, BadInput
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.pipeline import launcher, planning_facts, worker
from tunesmith.tools.pipeline.gpu_check import run_job
from tunesmith.tools.pipeline.gpu_check.findings import Finding, compared, stated
from tunesmith.tools.pipeline.gpu_check.stage import PARTS, GpuCheckResult
from tunesmith.tools.pipeline.plan_file import load_pipeline
from tunesmith.tools.pipeline.run_step import run_step
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace

pytestmark = pytest.mark.heavy
SCHEMA = {"name", "state", "expected", "measured", "ratio", "seconds", "why", "unit", "within"}


@pytest.fixture
def ws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A home on a machine with a card and torch for it."""
    plant(monkeypatch, gpu(0))
    monkeypatch.setattr(planning_facts, "trains_on_cpu", lambda: False)
    return Workspace(Store(tmp_path / "home"), None, lambda event, **data: None)


def proposed(ws: Workspace, **fields: Any) -> str:
    with pytest.raises(ApprovalPending, match="tunesmith doctor --approve"):
        run_step(ws, StepRequest("doctor", fields, ""), nobody)
    [step] = ws.store.priced_steps()[-1:]
    return step.id


def test_it_waits_for_a_yes_and_is_nobodys_newest_run(ws: Workspace) -> None:
    step = ws.store.step(proposed(ws))
    assert ws.store.run(step.run).name == "checks" and ws.store.newest_run() is None
    plan = Plan.model_validate(step.plan)
    assert plan.estimate.seconds <= 600 and plan.estimate.peak_vram_bytes
    assert "preflight" in plan.notes[0] and not any("vLLM" in line for line in plan.steps)


def test_without_a_card_nothing_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    store = Store(tmp_path / "home")
    with pytest.raises(BadInput, match="no NVIDIA GPU"):
        run_step(Workspace(store, None, lambda event, **data: None), StepRequest("doctor", {}, ""), nobody)
    assert store.runs() == [] and store.steps() == []


def test_a_torch_for_the_cpu_is_told(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning_facts, "trains_on_cpu", lambda: True)
    with pytest.raises(BadInput, match="torch is installed for the CPU, and Card 0 is here"):
        run_step(ws, StepRequest("doctor", {}, ""), nobody)


def test_it_is_no_step_of_a_written_plan(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("name: p\nsteps: [doctor]\n")
    with pytest.raises(BadInput, match="no stage 'doctor'"):
        load_pipeline(tmp_path / "plan.yaml")


def test_its_worker_sees_one_card_and_nothing_of_the_cpus(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "trains_on_cpu", lambda: False)
    env = launcher.worker_environment(worker.catalog.ENTRIES["doctor"].load(), {}, [gpu(0), gpu(1, free=22)])
    assert env["CUDA_VISIBLE_DEVICES"] == "GPU-1f00" and "GLIBC_TUNABLES" not in env


def broken(home: Path) -> Iterator[Finding]:
    yield stated("driver", expected="a", measured="a", holds=True)
    yield compared("compute capability", expected=1.0, measured=3.0, within=(0.5, 2.0), unit="seconds")
    raise RuntimeError("CUDA error:\nan illegal memory access was encountered")


def sound(home: Path) -> Iterator[Finding]:
    for name in PARTS["rates"].gives:
        yield compared(name, expected=100.0, measured=104.0, within=(0.9, 1.1), unit="bytes")


def test_whatever_one_part_comes_to_the_next_is_carried_out_and_all_items_are_recorded(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_job, "WORK", {"card": broken, "rates": sound})
    step = proposed(ws)
    ws.store.decide(step, "yes", by="test", reason="", price={})
    with worker.claimed(ws.store, step, needs_approval=True):
        job = worker.open_job(ws.store, step, None)
        worker.record(job, worker.work(job))
    ended = ws.store.step(step)
    result = GpuCheckResult.of(ended)
    assert result is not None and ended.status == "done"
    found = {item.name: (item.state, item.why) for item in result.items}
    assert list(found) == [name for part in PARTS.values() for name in part.gives]
    assert found["driver"] == ("ok", "") and found["disk rate"] == ("ok", "")
    assert (
        found["compute capability"][0] == "failed" and "measured ÷ expected is 3.00" in found["compute capability"][1]
    )
    assert found["free memory"] == ("failed", "RuntimeError: CUDA error: an illegal memory access was encountered")
    assert (result.ok, result.failed, result.skipped) == (5, 4, 0) and result.device == "Card 0"

    assert tell(ended, Output(as_json=True)) == 1, "an item failed"
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"run", "step", *GpuCheckResult.model_fields}
    assert all(set(item) == SCHEMA for item in document["items"])
    Output().document(None, view(result))
    shown = capsys.readouterr().out
    assert "Card 0: 5 as predicted, 4 not, 0 left out" in shown and "! free memory: RuntimeError" in shown


def test_what_an_earlier_version_measured_still_shows(ws: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    served = {"name": "server start", "state": "skipped", "why": "out of time"}
    step = ws.store.propose(ws.store.new_run("checks"), "doctor", plan_hash="h")
    ws.store.claim(step, needs_approval=False, pid=1, pid_started=0.0, boot_id="")
    report = {"device": "Card 0", "minutes": 30, "took_seconds": 9.0, "ok": 0, "failed": 0, "skipped": 1}
    ws.store.finish(step, {**report, "items": [served]})
    assert tell(ws.store.step(step), Output()) == 0 and "server start" in capsys.readouterr().out
