"""Judged assertions in an evaluation: who judges, when, at what price, what is kept, and what a silent judge costs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import FIXTURES
from tests.fixtures.steps import requests_sent, say_yes
from tests.fixtures.thinking import OPENS, SWITCH, think
from tests.fixtures.waiting import until_served, wait_for
from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.marks import Mark, add_mark
from tunesmith.memory.records import Artifact, Step
from tunesmith.memory.store import Store
from tunesmith.tools.evaluation.judge_agreement import judge_agreement
from tunesmith.tools.evaluation.pairing import compare_run
from tunesmith.tools.pipeline import launcher
from tunesmith.tools.pipeline.run_step import decide, price, propose, resume_step, run_step
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.listeners import free_port
from tunesmith.tools.suites.grading.embedding import model_folder

pytestmark = pytest.mark.heavy

STUB, RUN = str(FIXTURES / "stub_chat.py"), "r1"
RUBRIC = {"type": "llm-rubric", "value": "It agrees", "metric": "agrees"}


@pytest.fixture
def ws(based: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.setenv("STUB_REQUESTS", str(tmp_path / "requests"))
    shutil.copytree(based / "home", tmp_path / "home")
    shutil.copytree(based / "model", tmp_path / "judge")
    yield Workspace(Store(tmp_path / "home"), STUB, lambda event, **data: None)
    servers.stop_all(tmp_path / "home")


def judged(ws: Workspace) -> list[str]:
    return [body["messages"][0]["content"] for body in requests_sent(ws) if body["model"].startswith("judge-")]


def fields(ws: Workspace, count: int, *expect: dict[str, Any], **more: Any) -> dict[str, Any]:
    path = ws.store.home.parent / "suite.yaml"
    tests = [{"vars": {"q": f"q{n}"}, "metadata": {"case_id": f"c{n}"}} for n in range(count)]
    path.write_text(json.dumps({"prompts": ["{{q}}"], "defaultTest": {"assert": expect}, "tests": tests}))
    return {"suites": (str(path),), "judge": str(ws.store.home.parent / "judge"), **more}


def baseline(ws: Workspace, given: dict[str, Any]) -> Step:
    return run_step(ws, StepRequest("baseline", given, RUN), say_yes).done()


def test_the_judge_decides_once_every_answer_is_in_on_a_server_that_took_the_arms_place(ws: Workspace) -> None:
    step = baseline(ws, fields(ws, 12, {"type": "regex", "value": "."}, RUBRIC))
    results = ws.store.results(step.id)
    assert [r.passed for r in results] == [r.output.startswith("yes") for r in results]
    assert {r.score for r in results} == {(1 + 0.9) / 2, (1 + 0.1) / 2}
    bodies = [body["model"].startswith("judge-") for body in requests_sent(ws)]
    assert bodies == [False] * 12 + [True] * 12
    assert all(body["response_format"]["type"] == "json_schema" for body in requests_sent(ws)[12:])
    assert [server.model for server in servers.list_servers(ws.store.home)] == ["judge-judge"]
    key = (step.result or {})["key"]
    assert key["judge"].startswith("judge, weights ") and {"judge_prompts", "judge_template", "judge_engine"} <= set(
        key
    )


@pytest.mark.parametrize(("marks", "kappa"), [(20, 1.0), (19, 0.0)])
def test_a_judge_is_held_against_what_a_person_marked(ws: Workspace, marks: int, kappa: float) -> None:
    shown = [{"prompt": f"question {n}", "answer": f"yes, {n} it is"} for n in "abc"]
    file = ws.store.home.parent / "polite.yaml"
    file.write_text(
        json.dumps({"name": "polite", "when": "w", "what": "a kind answer", "never": "n", "examples": shown})
    )
    step = ws.store.steps(RUN)[0].id
    ws.store.add_artifact(Artifact("", RUN, step, "rows", file, "0" * 64, 1, (), {"behaviour": str(file)}))
    for n in range(marks):
        answer = "yes, gladly" if n % 2 else "no"
        add_mark(ws.store, Mark("polite", RUN, step, f"w{n}", "keep" if n % 2 else "drop", f"m {n}", answer, answer))
    baseline(ws, fields(ws, 2, RUBRIC))
    worth = judge_agreement(ws.store, RUN)
    assert (worth.kappa, worth.grades_alone, worth.marks) == (kappa, kappa == 1, marks if kappa else 0)
    asked = [text for text in judged(ws) if "a kind answer" in text]
    assert len(asked) == (marks if kappa else 0), "in the very words that the cases are graded by"


def test_a_judge_whose_chat_template_takes_too_much_is_not_served(ws: Workspace) -> None:
    template = ws.store.home.parent / "judge" / "chat_template.jinja"
    template.write_text("{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}")
    with pytest.raises(StepFailed, match="judge: its chat template writes over 200,000 characters"):
        baseline(ws, fields(ws, 2, RUBRIC))
    assert judged(ws) == [] and not any(s.model.startswith("judge") for s in servers.list_servers(ws.store.home))


@pytest.mark.parametrize("template", [SWITCH, OPENS])
def test_a_judge_with_a_switch_for_thoughts_grades_without_them(ws: Workspace, template: str) -> None:
    """Its reply is held to JSON, before which no thought can stand."""
    think(ws.store.home.parent / "judge", template)
    baseline(ws, fields(ws, 2, RUBRIC))
    [server] = servers.list_servers(ws.store.home)
    assert server.model == "judge-judge" and server.spec.without_thoughts == (template == SWITCH)


def test_a_g_eval_writes_its_steps_once_for_all_cases(ws: Workspace) -> None:
    step = baseline(ws, fields(ws, 6, {"type": "g-eval", "value": "It agrees"}))
    assert len(judged(ws)) == 1 + 6
    assert [r.passed for r in ws.store.results(step.id)] == [
        r.output.startswith("yes") for r in ws.store.results(step.id)
    ]


def test_what_the_same_judge_said_to_the_same_answer_is_not_asked_again(ws: Workspace) -> None:
    baseline(ws, fields(ws, 5, RUBRIC))
    again = baseline(ws, fields(ws, 5, RUBRIC))
    assert len(requests_sent(ws)) == 10 and (again.result or {})["taken_over"] == 5
    baseline(ws, fields(ws, 5, RUBRIC, fresh=True))
    assert len(judged(ws)) == 10


def test_killed_while_judging_it_asks_the_judge_for_the_rest_and_the_arm_for_nothing(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = baseline(ws, fields(ws, 60, RUBRIC))
    table = sorted((r.case_id, r.output, r.passed, r.score) for r in ws.store.results(whole.id))
    plan = price(ws, StepRequest("baseline", fields(ws, 60, RUBRIC, fresh=True), RUN))
    step = propose(ws, plan)
    assert decide(ws, step, plan, say_yes).yes
    servers.stop_all(ws.store.home)
    monkeypatch.setenv("STUB_DELAY_S", "0.1")
    pid = launcher.launch(ws.store, step, vllm=STUB).pid
    assert pid
    replies = ws.store.home / "runs" / RUN / step / "judge.jsonl"
    wait_for(lambda: replies.exists() and replies.read_text().count('"reply"') >= 20, timeout_s=60, every_s=0.005)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not launcher.is_alive(ws.store, ws.store.step(step)))
    launcher.reconcile(ws.store)
    [server] = servers.list_servers(ws.store.home)
    until_served(server.port)
    kept, before = replies.read_text().count('"reply"'), len(requests_sent(ws))
    assert kept < 60, "killed too late to prove anything"
    assert resume_step(ws, step, say_yes).done().status == "done"
    assert len(judged(ws)) and len(requests_sent(ws)) - before == 60 - kept
    assert sorted((r.case_id, r.output, r.passed, r.score) for r in ws.store.results(step)) == table


@pytest.mark.parametrize(
    ("criterion", "told"), [("mute", "did not answer.*no judge today"), ("mumble", "no verdict in")]
)
def test_a_judge_that_gives_no_verdict_makes_errors_and_no_failures(ws: Workspace, criterion: str, told: str) -> None:
    with pytest.raises(StepFailed, match=rf"10 of 10 cases of base have no verdict \(bound 5%\).*{told}"):
        baseline(ws, fields(ws, 10, {"type": "llm-rubric", "value": criterion}))
    failed = ws.store.steps(RUN)[-1]
    assert {(r.passed, bool(r.error), bool(r.output)) for r in ws.store.results(failed.id)} == {(None, True, True)}
    before = len(requests_sent(ws))
    with pytest.raises(StepFailed, match="10 of 10"):
        resume_step(ws, failed.id, say_yes).done()
    assert len(requests_sent(ws)) - before == len(judged(ws)[10:]), (
        "the arm is not asked again for what the judge left open"
    )


def test_without_a_judge_nothing_starts_and_the_next_thing_to_try_is_said(ws: Workspace) -> None:
    given = fields(ws, 2, RUBRIC) | {"judge": ""}
    with pytest.raises(BadInput, match=r"2 llm-rubric assertions ask a judge: .*base --model bundled-driver"):
        price(ws, StepRequest("baseline", given, RUN))
    for named in ("http://127.0.0.1:9/v1", "endpoint"):
        with pytest.raises(BadInput, match="no endpoint that settings"):
            price(ws, StepRequest("baseline", given | {"judge": named}, RUN))
    with pytest.raises(BadInput, match="ask a judge, which stays here; say `on: here` of the step"):
        price(ws, StepRequest("baseline", fields(ws, 2, RUBRIC) | {"on": "ray"}, RUN))
    with pytest.raises(BadInput, match="is no folder here"):
        price(ws, StepRequest("baseline", given | {"judge": "some/model"}, RUN))
    assert requests_sent(ws) == []


def test_the_settings_name_a_judge_and_the_plan_stores_which_it_was(ws: Workspace) -> None:
    (ws.store.home / "settings.toml").write_text('[judge]\nmodel = "../judge"\n')
    plan = price(ws, StepRequest("baseline", fields(ws, 2, RUBRIC) | {"judge": ""}, RUN))
    assert plan.request["judge"] == str(ws.store.home.parent / "judge")
    assert any("judge judges 2 llm-rubric" in step for step in plan.steps)
    own = {"judge": str(ws.store.artifacts(RUN, "base")[0].path)}
    assert any(
        "its own answers" in step for step in price(ws, StepRequest("baseline", fields(ws, 2, RUBRIC) | own, RUN)).steps
    )
    plain = price(ws, StepRequest("baseline", fields(ws, 2, {"type": "regex", "value": "."}), RUN))
    assert plan.estimate.calibrated_seconds > plain.estimate.calibrated_seconds + 30
    (ws.store.home / "settings.toml").write_text('[judge]\nendpoint = "http://127.0.0.1:9/v1"\nname = "big"\n')
    plan = price(ws, StepRequest("baseline", fields(ws, 2, RUBRIC) | {"judge": ""}, RUN))
    assert plan.request["judge"] == "endpoint" and any("big judges" in step for step in plan.steps)


def test_an_endpoint_of_the_settings_judges_and_the_arms_server_stays(ws: Workspace) -> None:
    port = free_port()
    argv = [STUB, "--served-model-name", "judge-big", "--host", "127.0.0.1", "--port", str(port)]
    endpoint = subprocess.Popen([sys.executable, *argv])
    try:
        (ws.store.home / "judge.key").write_text("secret\n")
        (ws.store.home / "judge.key").chmod(0o600)
        (ws.store.home / "settings.toml").write_text(
            f'[judge]\nendpoint = "http://127.0.0.1:{port}/v1"\nname = "judge-big"\nkey_file = "judge.key"\n'
        )
        step = baseline(ws, fields(ws, 4, RUBRIC) | {"judge": ""})
    finally:
        endpoint.terminate()
        endpoint.wait()
    assert [r.passed for r in ws.store.results(step.id)] == [
        r.output.startswith("yes") for r in ws.store.results(step.id)
    ]
    assert (step.result or {})["key"]["judge"] == f"judge-big at http://127.0.0.1:{port}, weights unknown"
    assert len(servers.list_servers(ws.store.home)) == 1
    assert "secret" not in json.dumps([step.request, step.plan, step.result])


def test_two_judges_make_two_arms_that_may_not_be_compared(ws: Workspace) -> None:
    given = fields(ws, 4, RUBRIC)
    baseline(ws, given)
    asked = {"arm": "prompted", "system_prompt": "Agree."}
    with pytest.raises(BadInput, match="ask a judge, which stays here; say `on: here` of the step"):
        price(ws, StepRequest("evaluate", asked | {"on": "ray"}, RUN))
    ended = run_step(ws, StepRequest("evaluate", asked, RUN), say_yes).done()
    assert ended.request["judge"] == given["judge"], "the baseline's own judge"
    found = compare_run(ws.store, RUN, "base", "prompted")
    assert found.comparable and found.metrics["agrees"].cases == 4
    other = shutil.copytree(given["judge"], ws.store.home.parent / "other")
    again = run_step(
        ws, StepRequest("evaluate", {"arm": "prompted", "system_prompt": "Agree.", "judge": str(other)}, RUN), say_yes
    ).done()
    keys = (again.result or {})["keys"]["base"], (ended.result or {})["keys"]["base"]
    assert keys[0]["judge"] != keys[1]["judge"] and keys[0]["weights"] == keys[1]["weights"]


@pytest.mark.skipif(model_folder() is not None, reason="the embedding model is installed")
def test_similar_without_the_extra_is_refused_by_the_extras_name(ws: Workspace) -> None:
    with pytest.raises(BadInput, match=r"3 similar assertions need an embedding model.*tunesmith\[similar\]"):
        price(ws, StepRequest("baseline", fields(ws, 3, {"type": "similar", "value": "Paris"}), RUN))


@pytest.mark.lab
@pytest.mark.skipif(model_folder() is None, reason="pip install 'tunesmith[similar]'")
def test_similar_is_decided_by_the_installed_model_which_the_key_names(ws: Workspace) -> None:
    near, far = {"type": "similar", "value": "yes, indeed"}, {"type": "not-similar", "value": "a train to Rome"}
    step = baseline(ws, fields(ws, 4, {**near, "threshold": 0.0}, far))
    results = ws.store.results(step.id)
    assert [r.passed for r in results] == [True] * 4 and all(0 < (r.score or 0) < 1 for r in results)
    assert (step.result or {})["key"]["embedder"].startswith("all-MiniLM-L6-v2, weights ")
    assert judged(ws) == []
