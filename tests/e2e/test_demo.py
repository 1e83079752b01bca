"""The whole arc on the real model, through the command line: every stage of the short demo, on few rows and cases.

Asserted is what holds on any machine and whatever a training learned: that every stage ran, was priced, agreed to and
recorded, and that the end is one of two, a model that answers or a gate that says why not. What the demo's own rows and
cases teach, and in what time, is `make check-demo`'s.
"""

from __future__ import annotations

import json
import sqlite3
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.fixtures.demo_run import CASES, HANG_S, Demo, as_json, tunesmith
from tests.fixtures.stages import stages_that_need_no_file
from tunesmith.agent.commands.run_steps import demo_plan
from tunesmith.memory.errors import GateRefused
from tunesmith.memory.files import sha256_file, verify
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline import catalog

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.xdist_group("demo"), pytest.mark.timeout(HANG_S + 600)]

GIB = 1 << 30
BLOCKS = ("target", "general", "over-trigger")
PLANNED = [(spec.stage, spec.fields.get("arm", "")) for spec in demo_plan(fast=True).steps]


def carried_out(demo: Demo) -> list[tuple[str, object]]:
    """The steps of the plan that are due: a gate that refuses comes before the last."""
    return PLANNED[:-1] if demo.refused else PLANNED


def test_every_stage_ran_to_its_end_and_is_recorded(demo: Demo) -> None:
    code = GateRefused.exit_code if demo.refused else 0
    assert demo.done.returncode == code, demo.done.stderr[-3000:]
    assert (demo.events[-1]["event"], demo.events[-1]["exit_code"]) == ("done", code)
    assert {stage for stage, _ in PLANNED} == stages_that_need_no_file() | {"import"}
    steps = demo.show["steps"]
    print("\n".join(f"{s['stage']:>10} {s['arm']:>9} {s['seconds']:6.1f} s" for s in steps))
    assert [step["stage"] for step in steps] == [stage for stage, _ in carried_out(demo)]
    arms = [(step["stage"], step["arm"]) for step in steps if step["stage"] in ("evaluate", "deploy")]
    assert arms == [step for step in carried_out(demo) if step[0] in ("evaluate", "deploy")]
    for step in steps:
        assert step["status"] == "done" and step["seconds"] is not None and step["error"] is None
        assert step["peak_rss_bytes"] and step["peak_rss_bytes"] < 6 * GIB


def test_every_expensive_step_was_priced_and_agreed_to_before_it_started(demo: Demo) -> None:
    [whole] = [event for event in demo.events if event["event"] == "plan.priced"]
    assert [step["stage"] for step in whole["steps"]] == [stage for stage, _ in PLANNED]
    assert all(step["estimated_seconds"] > 0 for step in whole["steps"])
    order = [(e["event"], e.get("step")) for e in demo.events if e["event"] != "step.progress"]
    shown = {event["step"]: event["plan"]["estimate"] for event in demo.events if event["event"] == "plan.shown"}
    for step in demo.show["steps"]:
        started = order.index(("step.started", step["step"]))
        assert order.index(("plan.shown", step["step"])) < started
        assert shown[step["step"]]["seconds"] > 0 and shown[step["step"]]["basis"]
        if catalog.BY_NAME[step["stage"]].expensive:
            assert step["approval"]
            asked, decided = (order.index((event, step["step"])) for event in ("approval.required", "approval.decided"))
            assert asked < decided < started


def test_everything_that_was_made_is_whole_and_the_base_is_nobodys_to_write(demo: Demo) -> None:
    store = Store(demo.home)
    made = [artifact for entry in catalog.STAGES if entry.makes for artifact in store.artifacts(demo.run, entry.makes)]
    assert {"base", "suite", "rows", "dataset", "adapter", "merged", "quantized"} <= {one.kind for one in made}
    for artifact in made:
        if artifact.path.is_dir():
            verify(artifact.path, artifact.sha256)
        else:
            assert sha256_file(artifact.path) == artifact.sha256, artifact.path
    [base] = store.artifacts(demo.run, "base")
    assert all(file.stat().st_mode & 0o222 == 0 for file in base.path.iterdir() if file.name != "manifest.json")


def test_which_steps_led_to_the_last_model_is_one_query(demo: Demo) -> None:
    with sqlite3.connect(demo.home / "tunesmith.db") as db:
        line = db.execute(
            "SELECT made_by_stage, made_by_run FROM v_lineage WHERE artifact = (SELECT max(artifact) FROM artifacts"
            " WHERE kind = 'quantized' AND run = ?) ORDER BY depth",
            (demo.run,),
        ).fetchall()
    assert [line[0][0], *{run for _, run in line}] == ["quantize", demo.run]
    assert {"quantize", "merge", "train", "critique", "generate", "import", "base"} <= {stage for stage, _ in line}


@pytest.mark.parametrize("arm", ["adapter", "quantized"])
def test_both_arms_are_compared_with_the_base_block_by_block(demo: Demo, arm: str) -> None:
    compared = demo.compare("base", arm)
    assert compared["comparable"] and not compared["differs_in"]
    assert set(BLOCKS) <= set(compared["blocks"]), "and no block of tools: this base cannot call any"
    assert "tools" not in compared["blocks"]
    for name, block in compared["blocks"].items():
        assert 0 <= block["passed"][arm] <= block["judged"] <= block["cases"] and block["verdict"], name
    assert all(compared["blocks"][name]["cases"] == CASES for name in BLOCKS)


def test_the_claim_rests_on_blind_cases_and_was_held_against_its_controls(demo: Demo) -> None:
    compared = demo.compare("base", "adapter")
    assert compared["claim"] and compared["claim_sentence"]
    blind = Store(demo.home).artifacts(demo.run, "suite")[-1].meta["blind"]
    assert 0 < compared["people"]["cases"] <= len(blind) < compared["blocks"]["target"]["cases"]
    assert compared["people"]["opening"] == 1
    controls = ("shuffle", "constant", "echo", "repeat", "triggers")
    assert all(compared["controls"][name] is not None for name in controls)


def test_it_ends_with_a_model_that_answers_or_with_the_gates_sentence(demo: Demo) -> None:
    deployed = Store(demo.home).artifacts(demo.run, "deployment")
    served = as_json(tunesmith(demo.home, "serve", "status", "--json"))["servers"]
    print(demo.refused or "deployed")
    if demo.refused:
        assert demo.refused.startswith("deploy quantized: ") and any(
            block in demo.refused for block in (*BLOCKS, "nats")
        )
        assert demo.refused in demo.done.stderr
        assert not deployed and demo.show["status"] == "waiting" and demo.events[-1]["endpoint"] is None
        again = tunesmith(demo.home, "deploy", "--run", demo.run, "--arm", "quantized", "--yes")
        assert again.returncode == 4 and demo.refused in again.stderr
        return
    assert len(deployed) == len(served) == 1 and demo.show["status"] == "done"
    body = {"model": served[0]["model"], "max_tokens": 8, "messages": [{"role": "user", "content": "Hello"}]}
    key = Path(served[0]["key_file"]).read_text().strip()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    request = urllib.request.Request(f"{served[0]['url']}/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        assert json.load(answer)["choices"][0]["message"]


def test_the_report_is_one_self_contained_file(demo: Demo) -> None:
    html = (demo.home / "runs" / demo.run / "report.html").read_text()
    assert "<script src" not in html and "http://" not in html.replace("http://www.w3.org", "").replace(
        "http://127", ""
    )
    for word in (*BLOCKS, "adapter", "quantized"):
        assert word in html
