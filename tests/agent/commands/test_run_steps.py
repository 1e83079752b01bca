"""Plans and runs: what is known to fail starts nothing, and a run stands where its own steps left it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import FIXTURES
from tests.fixtures.terminal import Tunesmith
from tests.fixtures.tiny_model import make_tiny_model
from tests.fixtures.waiting import wait_for
from tunesmith.agent.cli import main
from tunesmith.agent.commands import run_steps
from tunesmith.memory.errors import BadInput
from tunesmith.memory.files import seal
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.pipeline import catalog, executor, launcher
from tunesmith.tools.pipeline.plan_file import PipelinePlan, StepSpec
from tunesmith.tools.pipeline.run_step import decide, price, propose, resume_step
from tunesmith.tools.pipeline.workspace import Decision, StepRequest, Workspace

pytestmark = pytest.mark.heavy

STUB = str(FIXTURES / "stub_chat.py")
CODE = "prompts: ['{{q}}']\ntests: [{vars: {q: x}, assert: [{type: javascript, value: 'true'}]}]"


def yes(plan: Plan, step: str) -> Decision:
    return Decision(True, "test")


def plan_file(folder: Path, *steps: Any) -> str:
    model = folder / "model"
    if not model.exists():
        make_tiny_model(model)
    path = folder / "plan.yaml"
    path.write_text(json.dumps({"name": "p", "steps": [{"stage": "base", "model": "model"}, *steps]}))
    return str(path)


def refused(tunesmith: Tunesmith, told: str, plan: str, *more: str, **env: str) -> None:
    done = tunesmith("run", plan, "--yes", *more, **{"TUNESMITH_VLLM": STUB, **env})
    assert done.returncode == 2, done.stderr
    assert told in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
    store = Store(tunesmith.home)
    assert store.runs() == [] and store.steps() == []


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ({"stage": "base", "model": "./gone", "role": "teacher"}, "gone"),
        ({"stage": "baseline", "suites": ["gone.yaml"]}, "gone.yaml"),
        ({"stage": "baseline", "suites": ["code.yaml"]}, "javascript"),
        ({"stage": "generate", "behaviour": "gone"}, "gone"),
    ],
)
def test_a_plan_that_names_what_is_no_good_opens_no_run(
    tunesmith: Tunesmith, tmp_path: Path, step: dict[str, Any], told: str
) -> None:
    (tmp_path / "code.yaml").write_text(CODE)
    refused(tunesmith, told, plan_file(tmp_path, step))


def test_a_plan_that_serves_without_vllm_opens_no_run(tunesmith: Tunesmith, tmp_path: Path) -> None:
    told = "step 2 (baseline): no vLLM: TUNESMITH_VLLM names /nowhere/vllm, which is not a program"
    refused(tunesmith, told, plan_file(tmp_path, "baseline"), TUNESMITH_VLLM="/nowhere/vllm")


def test_a_step_that_serves_is_not_gone_on_with_where_vllm_is_gone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    step = store.propose(store.new_run("r"), "baseline", plan_hash="0")
    ws = Workspace(store, None, lambda event, **data: None, "TUNESMITH_VLLM names vlm, which is not a program")
    with pytest.raises(BadInput, match="no vLLM: TUNESMITH_VLLM names vlm"):
        resume_step(ws, step, lambda plan, step: Decision(True, "test")).done()
    assert store.step(step).status == "planned"


def test_what_cannot_go_to_another_machine_is_refused_at_every_door_and_carried_out_nowhere(
    tunesmith: Tunesmith, tmp_path: Path
) -> None:
    """One step, a whole plan, what is left of a run, and a plan of the queue."""
    plan, nowhere = plan_file(tmp_path), "`on: ray` is followed nowhere, for base can be done only here"
    (tmp_path / "step.yaml").write_text(
        (tmp_path / "plan.yaml").read_text().replace('"model":', '"on": "ray", "model":')
    )
    (tmp_path / "all.yaml").write_text((tmp_path / "plan.yaml").read_text().replace('"name"', '"on": "ray", "name"'))
    alone = "base: no field 'on' here: it works on files or a port of this machine; to another one can go inspect"
    refused(tunesmith, nowhere, plan, "--on", "ray")
    refused(tunesmith, alone, str(tmp_path / "step.yaml"))
    refused(tunesmith, nowhere, str(tmp_path / "all.yaml"))
    assert tunesmith("run", plan).returncode == 3, "it waits for its yes here"
    model, step = ("--model", str(tmp_path / "model")), str(tmp_path / "step.yaml")
    for told, args in (
        (alone, ("base", *model, "--on", "ray", "--yes")), (alone, ("base", *model, "on=ray", "--yes")),
        (nowhere, ("resume", "r1", "--on", "ray", "--yes")), (alone, ("queue", "add", step)),
    ):  # fmt: skip
        done = tunesmith(*args)
        assert done.returncode == 2 and told in done.stderr and "Traceback" not in done.stderr, (args, done.stderr)
    assert [one.status for one in Store(tunesmith.home).priced_steps()] == ["planned"]


def test_a_plan_for_a_taken_port_opens_no_run(tunesmith: Tunesmith, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        steps = ["baseline", "generate", "critique", "train", {"stage": "evaluate", "arm": "adapter"}]
        plan = plan_file(tmp_path, *steps, {"stage": "deploy", "arm": "adapter", "port": port})
        refused(tunesmith, f"port {port}", plan)


def test_steps_that_fit_one_by_one_but_not_together_open_no_run(tunesmith: Tunesmith, tmp_path: Path) -> None:
    share = int(shutil.disk_usage(tmp_path).free * 0.6)  # each by itself fits
    for name in ("model", "other"):
        make_tiny_model(tmp_path / name, weight_bytes=share - share % 2)
    refused(
        tunesmith, "GiB of disk in all", plan_file(tmp_path, {"stage": "base", "model": "other", "role": "teacher"})
    )


def test_the_stages_that_need_vllm_are_those_that_say_so() -> None:
    only_with_a_judge = {"critique"}  # its plan asks for vllm where its request names a judge, and not before
    for entry in catalog.STAGES:
        source = Path(str(import_module(entry.declared_in).__file__)).read_text()
        assert (entry.serves or entry.name in only_with_a_judge) == ("need_vllm(facts)" in source), entry.name


def test_a_run_that_breaks_before_its_first_step_does_not_stay_running(tmp_path: Path) -> None:
    def emit(event: str, **data: Any) -> None:
        if event == "run.started":
            raise RuntimeError("a defect")

    ws = Workspace(Store(tmp_path), None, emit)
    with pytest.raises(RuntimeError):
        executor.run_pipeline(ws, PipelinePlan(name="p", steps=(StepSpec(stage="inspect"),)), yes)
    assert ws.store.run("r1").status == "failed"


def test_a_run_without_steps_that_nobody_carries_out_does_not_stay_running(tunesmith: Tunesmith) -> None:
    store = Store(tunesmith.home)
    run = store.new_run("phantom", plan={"steps": [{"stage": "inspect"}]})
    with store.write() as conn:
        conn.execute("UPDATE runs SET created_at = created_at - 120")
    tunesmith("runs", "list")
    assert store.run(run).status == "waiting"


def killed_step(tunesmith: Tunesmith, model: Path) -> Store:
    """A home whose run r1, made stage by stage, has one step: its worker was killed in the middle."""
    store = Store(tunesmith.home)
    ws = Workspace(store, None, lambda event, **data: None)
    run = store.new_run("by hand")
    plan = price(ws, StepRequest("base", {"model": str(model)}, run))
    step = propose(ws, plan)
    assert decide(ws, step, plan, yes).yes
    pid = launcher.launch(store, step, vllm=None).pid
    assert pid
    wait_for(lambda: store.step(step).note)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not launcher.is_alive(store, store.step(step)))
    assert [dead.id for dead in launcher.reconcile(store)] == [step]
    return store


def test_a_killed_step_of_a_run_without_a_plan_goes_on_as_its_error_says(
    tunesmith: Tunesmith, model_folder: Path, at_work: Path
) -> None:
    store = killed_step(tunesmith, model_folder)
    at_work.unlink()
    assert "tunesmith run --resume r1" in str(store.steps()[0].error)
    waits = tunesmith("run", "--resume", "r1", "--json")
    assert waits.returncode == 3 and store.run("r1").status == "waiting"
    done = tunesmith("run", "--resume", "r1", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["event"], last["run"], last["status"]) == ("done", "r1", "done")
    assert [step.status for step in store.steps("r1")] == ["done"]
    again = tunesmith("run", "--resume", "r1", "--yes")
    assert again.returncode == 2 and "no step of r1 is half done" in again.stderr
    assert "goes on where" not in again.stderr, "what was refused is not advised"


def test_what_is_refused_leaves_a_finished_run_as_it_was(tunesmith: Tunesmith, model_folder: Path) -> None:
    assert tunesmith("base", "--model", str(model_folder), "--yes").returncode == 0
    store = Store(tunesmith.home)
    finished = store.run("r1")
    assert finished.status == "done"
    assert tunesmith("baseline", "--suites", "/nowhere.yaml", "--yes", TUNESMITH_VLLM=STUB).returncode == 2
    assert tunesmith("deploy", "--arm", "adapter", "--yes", TUNESMITH_VLLM=STUB).returncode == 2
    made = Artifact("", "r1", store.steps("r1")[0].id, "adapter", model_folder, "0" * 64, 64)
    store.add_artifact(made)
    assert tunesmith("deploy", "--arm", "adapter", "--yes", TUNESMITH_VLLM=STUB).returncode == 4
    assert store.run("r1") == finished


def test_an_approved_step_moves_its_run(tunesmith: Tunesmith, model_folder: Path) -> None:
    asked = json.loads(tunesmith("base", "--model", str(model_folder), "--json").stdout)
    store = Store(tunesmith.home)
    assert store.run("r1").status == "waiting"
    assert tunesmith("base", "--approve", asked["plan_hash"][:12]).returncode == 0
    assert store.run("r1").status == "done"


def test_the_approved_last_step_of_a_plan_ends_its_run(tunesmith: Tunesmith, tmp_path: Path) -> None:
    assert tunesmith("run", plan_file(tmp_path)).returncode == 3
    store = Store(tunesmith.home)
    [step] = store.steps(status="planned")
    assert tunesmith("base", "--approve", step.plan_hash[:12]).returncode == 0
    assert store.run("r1").status == "done"


PLAN = PipelinePlan(name="p", steps=(StepSpec(stage="deploy", fields={"arm": "adapter"}),))


def ready_to_deploy(store: Store) -> str:
    """A run whose plan has come to its last step: it deploys an adapter of which nothing was measured."""
    run = store.new_run("p", plan=PLAN.model_dump(mode="json"))
    parents: tuple[str, ...] = ()
    for kind, by in (("base", "base"), ("adapter", "train")):
        step = store.propose(run, by, plan_hash=kind)
        folder = make_tiny_model(store.home / kind)
        sha256 = str(seal(folder, kind=kind, step=step)["sha256"])
        parents = (store.add_artifact(Artifact("", run, step, kind, folder, sha256, 64, parents)).id,)
        store.finish(step, {})
    return run


@pytest.mark.parametrize(("command", "exit_code"), [(["demo", "--fast"], 0), (["run", "--resume", "r1"], 4)])
def test_a_gate_that_refuses_ends_the_demo_well_and_no_other_plan(
    command: list[str], exit_code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    store, to_the_end = Store(tmp_path / "home"), run_steps.plan_or_rest
    if exit_code:
        ready_to_deploy(store)
    # The demo's own plan would train first; from its last step on all is as it is.
    monkeypatch.setattr(
        run_steps, "plan_or_rest", lambda ws, _, run, *rest: to_the_end(ws, PLAN, run or ready_to_deploy(store), *rest)
    )
    monkeypatch.setenv("TUNESMITH_HOME", str(store.home))
    monkeypatch.setenv("TUNESMITH_VLLM", STUB)
    assert main([*command, "--yes", "--json"]) == exit_code
    told = capsys.readouterr()
    *_, before, last = [json.loads(line) for line in told.out.splitlines()]
    assert (last["event"], last["exit_code"], last["run"], last["endpoint"]) == ("done", exit_code, "r1", None)
    sentence = before["message"] if exit_code else last["gate_refused"]
    assert sentence.startswith("deploy adapter: ") and (before["event"] == "error") == bool(exit_code)
    assert sentence in told.err and ("the gate refused, so nothing is served: " in told.err) == (not exit_code)
    assert [step.stage for step in store.steps("r1")] == ["base", "train"]
    assert store.status_words(store.run("r1")) == "done, not deployed: the gate refused"
    assert main(["runs", "list"]) == 0 and main(["runs", "show", "r1"]) == 0
    told = capsys.readouterr()
    assert "done, not deployed: the gate refused" in told.out and sentence.split(":")[-1].strip()[:20] in told.out
