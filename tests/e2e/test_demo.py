"""The whole arc on the real model, through the command a stranger types: `tunesmith demo --fast --yes`."""

from __future__ import annotations

import json
import socket
import sqlite3
import urllib.request
from pathlib import Path

import pytest

from tests.fixtures.demo_run import Demo, as_json, tunesmith
from tests.fixtures.stages import stages_that_need_no_file

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

GIB = 1 << 30
LIMIT_S = 6 * 60


def test_the_arc_ends_well_with_every_stage_done(demo: Demo) -> None:
    assert demo.done.returncode == 0, demo.done.stderr[-3000:]
    assert demo.events[-1]["event"] == "done"
    show = demo.show
    assert show["status"] == "done" and {step["status"] for step in show["steps"]} == {"done"}
    assert {step["stage"] for step in show["steps"]} == stages_that_need_no_file()
    for step in show["steps"]:
        assert step["stage"] == "inspect" or step["approval"], f"{step['stage']} ran without an approval"
        assert step["peak_rss_bytes"] and step["peak_rss_bytes"] < 6 * GIB
    print("\n".join(f"{s['stage']:>10} {s['arm']:>9} {s['seconds']:6.1f} s" for s in show["steps"]))


def test_the_fast_arc_fits_into_six_minutes(demo: Demo) -> None:
    print(f"fast arc: {demo.seconds:.0f} s")
    assert demo.seconds <= LIMIT_S


def test_every_expensive_step_was_priced_and_agreed_to_before_it_started(demo: Demo) -> None:
    order = [(e["event"], e.get("step")) for e in demo.events if e["event"] != "step.progress"]
    for step in {e["step"] for e in demo.events if e["event"] == "step.started"}:
        started = order.index(("step.started", step))
        assert order.index(("plan.shown", step)) < started
        if ("approval.required", step) in order:
            assert order.index(("approval.required", step)) < order.index(("approval.decided", step)) < started


def test_the_baseline_fails_and_the_adapter_passes(demo: Demo) -> None:
    compared = demo.compare("base", "adapter")
    assert compared["comparable"] and not compared["differs_in"]
    target = compared["blocks"]["target"]
    assert target["passed"]["base"] <= 0.10 * target["cases"]
    # How much is learned is the full arc's figure; the short one has a third of the rows, and must prove a gain.
    assert target["p_value"] < 0.001 and target["verdict"] == "better"


@pytest.mark.parametrize("arm", ["adapter", "quantized"])
def test_nothing_general_was_forgotten(demo: Demo, arm: str) -> None:
    general = demo.compare("base", arm)["blocks"]["general"]
    assert general["passed"][arm] >= general["passed"]["base"] - 0.05 * general["cases"]
    assert general["verdict"] != "worse"


def test_the_quantized_model_still_passes(demo: Demo) -> None:
    target = demo.compare("base", "quantized")["blocks"]["target"]
    assert target["verdict"] == "better" and target["p_value"] < 0.001


def test_the_gain_in_likelihood_is_kept_as_served(demo: Demo) -> None:
    """The served models' own figures: the adapter's are those that training measured on the very same rows."""
    adapter, quantized = demo.compare("base", "quantized")["likelihood_retained"]
    trained = next(event["result"] for event in demo.events if event.get("stage") == "train" and event.get("result"))
    assert adapter["nll_per_token"]["base"] == pytest.approx(trained["validation_loss_before"], rel=0.05)
    assert adapter["nll_per_token"]["adapter"] == pytest.approx(trained["validation_loss"], rel=0.05)
    assert quantized["share"] >= 0.9 and quantized["interval"][0] < quantized["share"] < quantized["interval"][1]
    assert 0 < quantized["kl_per_token"]["adapter"] < quantized["kl_per_token"]["base"] < 0.5
    print(f"likelihood: {quantized['share']:.1%} kept, KL {quantized['kl_per_token']}")


def test_a_base_that_cannot_call_tools_has_no_tool_block(demo: Demo) -> None:
    assert "tools" not in demo.compare("base", "adapter")["blocks"]


def test_what_only_looks_like_a_ticket_is_answered_as_before(demo: Demo) -> None:
    compared = demo.compare("base", "adapter")
    near = compared["blocks"]["over-trigger"]
    assert near["cases"] >= 30 and near["passed"]["adapter"] >= 0.9 * near["passed"]["base"]
    assert compared["controls"]["triggers"]["triggered"] <= 0.1 * compared["controls"]["triggers"]["cases"]


def test_the_claim_rests_on_blind_cases_and_beats_its_controls(demo: Demo) -> None:
    """Whether enough was learned is the full arc's figure; that it is no mere form shows in the short one too."""
    compared = demo.compare("base", "adapter")
    controls = compared["controls"]
    assert compared["claim"] in ("learned", "not learned") and compared["claim_cases"]["blind"]
    assert compared["beats"]["shuffle"] and compared["beats"]["constant"]
    assert controls["shuffle"]["own"] >= controls["shuffle"]["passed"] + 0.2 * controls["shuffle"]["cases"]
    assert controls["repeat"] is not None


def test_the_deployed_endpoint_answers_a_ticket_with_valid_json_and_stops(demo: Demo) -> None:
    served = as_json(tunesmith(demo.home, "serve", "status", "--json"))["servers"][0]
    ticket = "hi, order 48213 still has not come and the tracking page has not moved since Monday. pls help asap"
    body = {
        "model": served["model"],
        "temperature": 0,
        "max_tokens": 96,
        "messages": [{"role": "user", "content": f"Triage this support ticket:\n\n{ticket}"}],
    }
    request = urllib.request.Request(
        f"{served['url']}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {Path(served['key_file']).read_text().strip()}"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = json.load(answer)["choices"][0]["message"]["content"]
    triage = json.loads(text)
    assert list(triage) == ["category", "urgency", "order", "summary"]
    assert triage["category"] in ("billing", "delivery", "returns", "account", "technical")
    assert tunesmith(demo.home, "serve", "stop").returncode == 0
    port = int(served["url"].rsplit(":", 1)[1])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_wrong_key_is_turned_away_and_the_key_is_nobody_elses_to_read(demo: Demo) -> None:
    keys = [*(demo.home / "servers").glob("*.key")]
    assert all(key.stat().st_mode & 0o077 == 0 for key in keys)
    database = (demo.home / "tunesmith.db").read_bytes()
    assert not any(key.read_bytes().strip() in database for key in keys)


def test_which_run_made_the_served_model_is_one_query(demo: Demo) -> None:
    with sqlite3.connect(demo.home / "tunesmith.db") as db:
        line = db.execute(
            "SELECT made_by_stage, made_by_run FROM v_lineage WHERE artifact = (SELECT max(artifact) FROM artifacts"
            " WHERE kind = 'deployment') ORDER BY depth"
        ).fetchall()
    assert [line[0][0], *{run for _, run in line}] == ["deploy", demo.run]
    assert {"quantize", "merge", "train", "critique", "generate", "base"} <= {stage for stage, _ in line}


def test_the_report_is_one_self_contained_file(demo: Demo) -> None:
    html = (demo.home / "runs" / demo.run / "report.html").read_text()
    assert "<script src" not in html and "http://" not in html.replace("http://www.w3.org", "").replace(
        "http://127", ""
    )
    for word in ("target", "general", "adapter", "quantized"):
        assert word in html


def test_the_base_is_still_what_it_was(demo: Demo) -> None:
    from tunesmith.memory.files import verify
    from tunesmith.memory.store import Store

    base = Store(demo.home).artifacts(demo.run, "base")[0]
    verify(base.path, base.sha256)
    assert all(file.stat().st_mode & 0o222 == 0 for file in base.path.iterdir() if file.name != "manifest.json")
