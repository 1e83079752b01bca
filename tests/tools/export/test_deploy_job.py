"""Deploying: a deployment that fails leaves the one before it in service."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import FIXTURES
from tests.fixtures.steps import say_yes
from tests.fixtures.tiny_model import make_tiny_model
from tests.fixtures.waiting import wait_for
from tunesmith.agent.commands.parser import parse
from tunesmith.agent.commands.run_steps import stage_request
from tunesmith.memory.errors import BadInput, GateRefused, StepFailed
from tunesmith.memory.files import seal
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.core.machine import Machine
from tunesmith.tools.core.stage import GIB
from tunesmith.tools.evaluation.gate import Gate
from tunesmith.tools.export import deploy
from tunesmith.tools.export import deploy_job as deploy_work
from tunesmith.tools.export.deploy import previous_deployment
from tunesmith.tools.pipeline import launcher, worker
from tunesmith.tools.pipeline.run_step import decide, price, propose, resume_step, run_step
from tunesmith.tools.pipeline.start_step import start
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace
from tunesmith.tools.serving import eviction, servers
from tunesmith.tools.serving.context_settings import ContextSettings
from tunesmith.tools.serving.model_server import measuring_spec, served_name
from tunesmith.tools.serving.servers import Server
from tunesmith.tools.suites.case import Case, Suite
from tunesmith.tools.suites.grading import Assertion

pytestmark = pytest.mark.heavy

STUB = FIXTURES / "stub_chat.py"
# Ends before it is ready for a model that lies beside a file named `broken`; `silent`: answers no chat; `stubborn`:
# does not end when asked to.
VLLM = f"""#!{sys.executable}
import os, signal, sys
from pathlib import Path
if Path(sys.argv[2], "broken").exists():
    raise SystemExit("ValueError: this model cannot be served")
if Path(sys.argv[2], "silent").exists():
    os.environ["STUB_REQUESTS"] = "/dev/null"
    os.environ["STUB_DELAY_S"] = "-1"
if Path(sys.argv[2], "stubborn").exists():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.execv({str(STUB)!r}, [{str(STUB)!r}, *sys.argv[1:]])
"""


@pytest.fixture
def ws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.setenv("STUB_REQUESTS", str(tmp_path / "requests"))
    program = tmp_path / "vllm"
    program.write_text(VLLM)
    program.chmod(0o755)
    yield Workspace(Store(tmp_path / "home"), str(program), lambda event, **data: None)
    servers.stop_all(tmp_path / "home")


def unused_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def model(ws: Workspace, run: str, name: str, **meta: Any) -> Artifact:
    """A model that was deployed once; its folder holds a file of its own name."""
    store, step = ws.store, ws.store.propose(run, "quantize", plan_hash=name)
    folder = make_tiny_model(store.home / name)
    (folder / name).write_text("")
    sha256 = str(seal(folder, kind="quantized", step=step)["sha256"])
    made = store.add_artifact(Artifact("", run, step, "quantized", folder, sha256, 64, (), {"parameters": 32, **meta}))
    record = store.home / f"{name}.json"
    record.write_text("{}")
    deployed = {"serves": made.id, "arm": "quantized"}
    store.add_artifact(Artifact("", run, step, "deployment", record, name, 2, (made.id,), deployed))
    return made


def serve(ws: Workspace, made: Artifact) -> Server:
    server = servers.start(
        ws.store.home, measuring_spec(made), vllm=str(ws.vllm), log_path=ws.store.home / "vllm.log", owner="s0"
    )
    return servers.promote(server, servers.ServerFacts(made.id, "quantized", model=served_name(made)))


@pytest.mark.parametrize("fault", ["broken", "silent"])
def test_a_deployment_that_fails_on_the_port_of_another_brings_that_one_back(ws: Workspace, fault: str) -> None:
    run = ws.store.new_run("test")
    model(ws, run, fault)
    before = serve(ws, model(ws, run, "good"))
    key = before.key
    with pytest.raises(StepFailed, match=r"cannot be served|did not answer"):
        run_step(ws, StepRequest("deploy", {"rollback": True, "port": before.port}, run), say_yes).done()
    [now] = servers.list_servers(ws.store.home)
    assert (now.role, now.port, now.key, now.spec, now.facts) == (
        "deployed",
        before.port,
        key,
        before.spec,
        before.facts,
    )
    assert servers.healthy(now)


def test_a_deployment_that_fails_elsewhere_leaves_the_one_before_alone(ws: Workspace) -> None:
    run = ws.store.new_run("test")
    model(ws, run, "broken")
    before = serve(ws, model(ws, run, "good"))
    with pytest.raises(StepFailed, match="cannot be served"):
        run_step(ws, StepRequest("deploy", {"rollback": True, "port": unused_port()}, run), say_yes).done()
    assert servers.list_servers(ws.store.home) == [before] and servers.healthy(before)


def test_a_deployment_on_the_port_of_another_takes_its_place(ws: Workspace) -> None:
    run = ws.store.new_run("test")
    older = model(ws, run, "older")
    before = serve(ws, model(ws, run, "good"))
    run_step(ws, StepRequest("deploy", {"rollback": True, "port": before.port}, run), say_yes).done()
    [now] = servers.list_servers(ws.store.home)
    assert (now.role, now.port, now.facts.artifact) == ("deployed", before.port, older.id)


def test_a_kill_while_the_earlier_deployment_is_let_go_leaves_the_new_one_in_service(ws: Workspace) -> None:
    run = ws.store.new_run("test")
    older = model(ws, run, "older")
    before = serve(ws, model(ws, run, "stubborn"))
    plan = price(ws, StepRequest("deploy", {"rollback": True, "port": unused_port()}, run))
    step = propose(ws, plan)
    assert decide(ws, step, plan, say_yes).yes
    pid = start(ws, step).pid
    assert pid

    def in_service() -> list[str]:
        return [server.facts.artifact for server in servers.deployed(ws.store.home)]

    try:
        wait_for(lambda: "asking it" in ws.store.step(step).note)
        wait_for(lambda: older.id in in_service())  # the earlier one takes 20 s to end
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not launcher.is_alive(ws.store, ws.store.step(step)))
        assert [dead.id for dead in launcher.reconcile(ws.store)] == [step], "it was killed while it was at work"
        assert older.id in in_service()
        assert older.id != previous_deployment(ws.store).meta["serves"], "that one is served, recorded or not"
    finally:
        os.killpg(before.pid, signal.SIGKILL)


def test_a_rollback_answers_where_its_clients_ask_already(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    run = ws.store.new_run("test")
    older = model(ws, run, "older")
    before = serve(ws, model(ws, run, "good"))
    port, key = before.port, before.key
    plan = price(ws, StepRequest("deploy", {"rollback": True}, run))
    assert f"127.0.0.1:{port}" in plan.summary
    run_step(ws, StepRequest("deploy", {"rollback": True}, run), say_yes).done()
    [now] = servers.list_servers(ws.store.home)
    assert (now.facts.artifact, now.port, now.key) == (older.id, port, key)
    monkeypatch.setattr(deploy, "gate_of", lambda *_: Gate())
    assert f"127.0.0.1:{port}" in price(ws, StepRequest("deploy", {}, run)).summary, "and so does any other"


def test_a_deployment_that_is_down_is_what_a_rollback_leaves_and_never_comes_back(ws: Workspace) -> None:
    run = ws.store.new_run("test")
    older = model(ws, run, "older")
    before = serve(ws, model(ws, run, "good"))
    port, key = before.port, before.key
    os.killpg(before.pid, signal.SIGKILL)
    wait_for(lambda: not before.process.alive())
    run_step(ws, StepRequest("deploy", {"rollback": True}, run), say_yes).done()
    [now] = servers.list_servers(ws.store.home)
    assert (now.facts.artifact, now.port) == (older.id, port) and servers.down(ws.store.home) == []
    assert now.key != key, "whoever had the port meanwhile may have been sent it"


def test_a_deployment_that_was_never_recorded_is_what_a_rollback_leaves(ws: Workspace) -> None:
    run = ws.store.new_run("test")
    model(ws, run, "first")
    second = model(ws, run, "second")
    servers.promote(serve(ws, second), servers.ServerFacts("a99", "quantized", model="unrecorded"))
    assert previous_deployment(ws.store).meta["serves"] == second.id


def test_a_longer_context_is_priced_served_and_no_longer_than_the_model_takes(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ws.store.new_run("test")
    config = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096}
    made = model(ws, run, "good", config={**config, "max_position_embeddings": 32768})
    monkeypatch.setattr(deploy, "gate_of", lambda *_: Gate())
    usual = price(ws, StepRequest("deploy", {}, run))
    longer = price(ws, StepRequest("deploy", {"context_tokens": 32768}, run))
    assert "take conversations of up to 2048 tokens, as it was measured" in usual.steps
    assert "take conversations of up to 32768 tokens" in longer.steps
    # 2 (key and value) × 32 layers × 8 heads × 128 × 2 bytes a token: 4 GiB for all of them, 1 GiB for the usual
    assert longer.estimate.peak_ram_bytes - usual.estimate.peak_ram_bytes == 3 * GIB
    spec = measuring_spec(made, context_settings=ContextSettings(context_tokens=32768))
    assert (spec.max_model_len_tokens, spec.kv_cache_gib) == (32768, 4)
    with pytest.raises(BadInput, match="context_tokens=40000 is more than this model takes; give at most 32768"):
        price(ws, StepRequest("deploy", {"context_tokens": 40000}, run))


def test_a_model_is_served_as_its_run_was_measured(ws: Workspace) -> None:
    run = ws.store.new_run("test")
    model(ws, run, "earlier")
    serve(ws, model(ws, run, "good"))
    kept, meta = ws.store.home / "suite.json", {"context_tokens": 4096, "thinking": "off", "thinking_tokens": 0}
    kept.write_text(Suite(cases=()).to_json())
    step = ws.store.propose(run, "baseline", plan_hash="suite")
    ws.store.add_artifact(Artifact("", run, step, "suite", kept, "suite", 2, (), meta))
    plan = price(ws, StepRequest("deploy", {"rollback": True}, run))
    assert {"take conversations of up to 4096 tokens, as it was measured"} <= set(plan.steps)
    assert any("without a thought" in step for step in plan.steps)
    run_step(ws, StepRequest("deploy", {"rollback": True}, run), say_yes).done()
    [now] = servers.deployed(ws.store.home)
    assert (now.spec.max_model_len_tokens, now.spec.without_thoughts) == (4096, True)


def test_what_was_measured_since_the_yes_closes_the_gate(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the worker starts, and before a deployment that failed is tried again."""
    run, worse = ws.store.new_run("test"), Gate(refused=("general: worse (63 → 47 of 63 passed)",))
    model(ws, run, "good")
    monkeypatch.setattr(deploy, "gate_of", lambda *_: Gate())
    plan = price(ws, StepRequest("deploy", {}, run))
    step = propose(ws, plan)
    assert decide(ws, step, plan, say_yes).yes
    ws.store.claim(step, needs_approval=True, pid=1, pid_started=0.0, boot_id="")
    monkeypatch.setattr(deploy_work, "gate_of", lambda *_, **__: worse)
    with pytest.raises(GateRefused, match="47 of 63"):
        deploy_work.run(worker.open_job(ws.store, step, ws.vllm))
    assert not servers.list_servers(ws.store.home)
    ws.store.fail(step, "vLLM did not start")
    monkeypatch.setattr(deploy, "gate_of", lambda *_: worse)
    with pytest.raises(GateRefused, match="47 of 63"):
        resume_step(ws, step, say_yes).done()


def test_a_reason_opens_the_gate_for_what_was_measured_and_is_kept(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, lost = ws.store.new_run("test"), "general: worse (63 → 47 of 63 passed)"
    model(ws, run, "good")
    for module in (deploy, deploy_work):
        monkeypatch.setattr(module, "gate_of", lambda *_, **__: Gate(refused=(lost,), warnings=("no decision: few",)))
    for reason in ("", "  "):
        with pytest.raises(GateRefused, match=r"47 of 63 passed\); `--accept REASON` serves it all the same"):
            price(ws, StepRequest("deploy", {"accept": reason}, run))
    typed = stage_request(*parse(["deploy", "--run", run, "--accept", "a demo for two people"]), ws.store)
    plan = price(ws, typed)
    assert plan.notes == (f"accepted although the gate refuses it: {lost}", "warning: no decision: few")
    step = propose(ws, plan)
    assert decide(ws, step, plan, say_yes).yes
    ws.store.claim(step, needs_approval=True, pid=1, pid_started=0.0, boot_id="")
    monkeypatch.setattr(deploy_work, "audit_refusals", lambda *_: ["a fault no reason excuses"])
    with pytest.raises(GateRefused, match="a fault no reason excuses"):
        deploy_work.run(worker.open_job(ws.store, step, ws.vllm))
    [row] = ws.store.read("SELECT run, step, data FROM events WHERE event = ?", deploy.GATE_ACCEPTED)
    kept = json.loads(row["data"])
    assert (row["run"], row["step"], kept["reason"], kept["refused"]) == (run, step, "a demo for two people", [lost])
    monkeypatch.setattr(deploy, "gate_of", lambda *_: Gate(unmeasured=("no finished evaluation",)))
    with pytest.raises(GateRefused, match="no finished evaluation"):
        price(ws, StepRequest("deploy", {"accept": "anything"}, run))


TOOLS = ({"type": "function", "function": {"name": "find_order", "parameters": {"type": "object"}}},)


@pytest.mark.parametrize(
    ("check", "passed"),
    [
        (Assertion(type="regex", value="."), True),
        (Assertion(type="equals", value="never said"), False),
        (Assertion(type="llm-rubric", value="It agrees"), None),
        (None, None),
    ],
    ids=["right", "wrong", "awaits a judge", "no suite"],
)
def test_the_first_case_is_asked_as_an_evaluation_asks_it_and_what_is_not_graded_has_not_failed(
    ws: Workspace, check: Assertion | None, passed: bool | None
) -> None:
    run = ws.store.new_run("test")
    model(ws, run, "older")
    serve(ws, model(ws, run, "good"))
    if check:
        plain = Case(case_id="c", suite="s", messages=({"role": "user", "content": "q"},), assertions=(check,))
        offers = {"tools": TOOLS, "tool_choice": "required", "sampling": {"top_p": 0.5}}
        others = plain.model_copy(update={"case_id": "b", "arms": ("base",)})
        kept = Suite(cases=(others, plain.model_copy(update=offers)))
        path = ws.store.home / "suite.json"
        path.write_text(kept.to_json())
        drawn = {"max_tokens": 7, "temperature": 0.3}
        step = ws.store.propose(run, "baseline", arm="base", plan_hash="b", request=drawn)
        ws.store.add_artifact(Artifact("", run, step, "suite", path, kept.sha256, 2, (), {}))
        ws.store.finish(step, {"key": {}})
    result = run_step(ws, StepRequest("deploy", {"rollback": True}, run), say_yes).done().result or {}
    assert (result["first_case"], result["passed"]) == ("c" if check else "", passed)
    [asked] = map(json.loads, (ws.store.home.parent / "requests").read_text().splitlines())
    if check:
        assert (asked["tools"], asked["tool_choice"], asked["top_p"]) == (list(TOOLS), "required", 0.5)
        assert (asked["max_tokens"], asked["temperature"], asked["seed"]) == (7, 0.3, 0)


# --- beside what is deployed, or in its place

SMALL = Machine("cpu", 2, 8 * GIB, 2 * GIB, 0, 50 * GIB)


@pytest.mark.parametrize(("free", "there"), [(2, []), (6, ["deployed"])], ids=["small", "roomy"])
def test_what_is_deployed_gives_way_first_only_where_both_do_not_fit(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch, free: int, there: list[str]
) -> None:
    run = ws.store.new_run("test")
    older = model(ws, run, "older")
    serve(ws, model(ws, run, "good"))
    machine = replace(SMALL, ram_free_bytes=free * GIB)
    for module in (eviction, deploy_work):
        monkeypatch.setattr(module, "measure_machine", lambda folder: machine)
    monkeypatch.setattr(eviction, "tree_own_bytes", lambda pids: 3 * GIB if pids else 0)
    found: list[list[str]] = []

    def start(*args: Any, **options: Any) -> Server:
        found.append([server.role for server in servers.list_servers(ws.store.home)])
        return real_start(*args, **options)

    real_start = servers.start
    plan = price(ws, StepRequest("deploy", {"rollback": True, "port": unused_port()}, run))
    assert any("since both do not fit" in step for step in plan.steps) == (there == [])
    monkeypatch.setattr(servers, "start", start)
    step = propose(ws, plan)
    assert decide(ws, step, plan, say_yes).yes
    ws.store.claim(step, needs_approval=True, pid=1, pid_started=0.0, boot_id="")
    job = worker.open_job(ws.store, step, ws.vllm)
    worker.record(job, worker.work(job, ws.ray))
    assert found == [there]
    [now] = servers.list_servers(ws.store.home)
    assert (now.role, now.facts.artifact) == ("deployed", older.id)


def test_a_model_that_does_not_fit_alone_now_is_priced_with_what_would_be_free(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ws.store.new_run("test")
    model(ws, run, "older")
    serve(ws, model(ws, run, "good"))
    monkeypatch.setattr(eviction, "measure_machine", lambda folder: SMALL)
    monkeypatch.setattr(eviction, "tree_own_bytes", lambda pids: GIB if pids else 0)
    notes = price(ws, StepRequest("deploy", {"rollback": True}, run)).notes
    assert any("it needs 3.2 GiB of RAM and swap, 3.0 GiB free; try stopping" in note for note in notes), notes
