"""One context and one way of thinking for a whole run: chosen by its baseline, the same for every step after it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import FIXTURES
from tests.fixtures.steps import requests_sent, say_yes
from tests.fixtures.thinking import OPENS, SWITCH, think
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.memory.errors import BadInput, StepFailed
from tunesmith.memory.records import Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.evaluation.compare import compare_with_hops
from tunesmith.tools.pipeline.run_step import Outcome, decide, price, propose, quote, run_step
from tunesmith.tools.pipeline.start_step import follow_step, start
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.context_settings import context_settings_of_run

pytestmark = pytest.mark.heavy

RUN = "r1"
LONG = "long " * 1500
"""Its tokens are its bytes here: 7,500."""


@pytest.fixture
def ws(based: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.setenv("STUB_REQUESTS", str(tmp_path / "requests"))
    shutil.copytree(based / "home", tmp_path / "home")
    yield Workspace(Store(tmp_path / "home"), str(FIXTURES / "stub_chat.py"), lambda event, **data: None)
    servers.stop_all(tmp_path / "home")


def suite(ws: Workspace, questions: list[str], value: str = "yes") -> str:
    path = ws.store.home.parent / "suite.yaml"
    tests = [{"vars": {"q": q}, "metadata": {"case_id": f"c{n}", "block": "target"}} for n, q in enumerate(questions)]
    expect = json.dumps([{"type": "contains", "value": value}])
    path.write_text(f"prompts: ['{{{{q}}}}']\ndefaultTest: {{assert: {expect}}}\ntests: {json.dumps(tests)}\n")
    return str(path)


def carried_out(ws: Workspace, stage: str, run: str = RUN, **fields: Any) -> Step:
    return run_step(ws, StepRequest(stage, fields, run), say_yes).done()


def thinking_run(ws: Workspace, tmp_path: Path, template: str) -> str:
    run = ws.store.new_run("thinks")
    model = think(make_tiny_model(tmp_path / "thinks", vocab_size=258), template)
    carried_out(ws, "base", run, model=str(model))
    return run


def specs(ws: Workspace) -> list[tuple[int, bool]]:
    """Context, and whether thoughts are switched off, of the server that runs."""
    return [(s.spec.max_model_len_tokens, s.spec.without_thoughts) for s in servers.list_servers(ws.store.home)]


def test_a_long_case_gets_its_context_and_so_does_every_later_arm(ws: Workspace) -> None:
    plan = price(ws, StepRequest("baseline", {"suites": (suite(ws, ["a", LONG]),)}, RUN))
    assert plan.request["context_tokens"] == 8192 and "case c1 needs up to" in plan.reasons["context_tokens"]
    assert any("conversations of up to 8192 tokens" in step for step in plan.steps)
    first = carried_out(ws, "baseline", suites=(suite(ws, ["a", LONG]),))
    assert specs(ws) == [(8192, False)] and "--max-model-len=8192" in (first.result or {})["key"]["engine_arguments"]
    again = carried_out(ws, "evaluate", arm="prompted", system_prompt="Say yes.")
    assert specs(ws) == [(8192, False)] and len(requests_sent(ws)) == 2 + 4
    assert (again.result or {})["keys"]["base"]["engine_arguments"] == (first.result or {})["key"]["engine_arguments"]
    assert compare_with_hops(ws.store, RUN, "base", "prompted").whole.comparable
    rows = quote(ws, StepRequest("generate", {"rows": 5, "rehearsal_rows": 0, "near_miss_rows": 0}, RUN))
    assert any("conversations of up to 8192 tokens" in step for step in rows.steps)


def test_a_usual_run_says_and_records_nothing_of_it(ws: Workspace) -> None:
    step = carried_out(ws, "baseline", suites=(suite(ws, ["a"]),))
    assert step.request["context_tokens"] == "auto" and step.request["thinking"] == "auto"
    [made] = ws.store.artifacts(RUN, "suite")
    assert set(made.meta) == {"suite_sha256", "cases", "blind"}
    assert set((step.result or {})["key"]) == {
        "engine", "engine_arguments", "device", "lora", "weights", "precision", "template", "adapter", "suite",
        "sampling",
    }  # fmt: skip
    assert set(Plan.model_validate(step.plan).pins) == {"suite"}


def test_a_context_that_does_not_fit_the_memory_is_refused_with_the_largest_that_does(ws: Workspace) -> None:
    [base] = ws.store.artifacts(RUN, "base")
    heavy = {"num_hidden_layers": 64, "num_attention_heads": 64, "num_key_value_heads": 64, "hidden_size": 8192}
    config = json.dumps({**base.meta, "config": {**base.meta["config"], **heavy}})  # 2 MiB a token
    with ws.store.write() as conn:
        conn.execute("UPDATE artifacts SET meta = ? WHERE artifact = ?", [config, base.id])
    asked = {"suites": (suite(ws, ["a"]),), "context_tokens": 1 << 20}
    plan = quote(ws, StepRequest("baseline", asked, RUN))
    [fitting] = [one for one in plan.fitting if one.settings.startswith("context_tokens=")]
    assert f"try {fitting}" in plan.refusals[0]
    largest = int(fitting.settings.partition("=")[2])
    assert not quote(ws, StepRequest("baseline", {**asked, "context_tokens": largest}, RUN)).refusals
    assert quote(ws, StepRequest("baseline", {**asked, "context_tokens": 2 * largest}, RUN)).refusals


def test_a_prompt_that_does_not_fit_is_named_before_anything_starts(ws: Workspace) -> None:
    asked = {"suites": (suite(ws, ["a", LONG]),), "context_tokens": 4096}
    with pytest.raises(BadInput, match=r"case c1 has 7500 tokens.*context_tokens=4096 does not hold it"):
        price(ws, StepRequest("baseline", asked, RUN))
    assert not servers.list_servers(ws.store.home)
    carried_out(ws, "baseline", suites=(suite(ws, ["a"]),))
    with pytest.raises(BadInput, match=r"case c0 has 7501 tokens.*with the prompt before it.*larger context_tokens"):
        price(ws, StepRequest("evaluate", {"arm": "prompted", "system_prompt": LONG}, RUN))


def test_a_step_is_not_carried_out_under_another_bench_than_was_agreed(ws: Workspace) -> None:
    carried_out(ws, "baseline", suites=(suite(ws, ["a"]),), context_tokens=4096)
    plan = price(ws, StepRequest("evaluate", {"arm": "prompted", "system_prompt": "Yes."}, RUN))
    step = propose(ws, plan)
    assert decide(ws, step, plan, say_yes).yes
    made = ws.store.artifacts(RUN, "suite")[-1]
    with ws.store.write() as conn:
        conn.execute("UPDATE artifacts SET meta = replace(meta, '4096', '8192') WHERE artifact = ?", [made.id])
    start(ws, step)
    with pytest.raises(StepFailed, match="the way of asking was changed after its plan was approved"):
        Outcome(follow_step(ws, step)).done()


def test_thoughts_are_switched_off_on_the_server_of_every_step(ws: Workspace, tmp_path: Path) -> None:
    run = thinking_run(ws, tmp_path, SWITCH)
    rows = quote(ws, StepRequest("generate", {"rows": 5, "rehearsal_rows": 0, "near_miss_rows": 0}, run))
    assert any("switched off" in step for step in rows.steps), "before there is a baseline too"
    step = carried_out(ws, "baseline", run, suites=(suite(ws, ["a", "b"]),))
    assert specs(ws) == [(2048, True)] and step.request["thinking"] == "off"
    assert (step.result or {})["key"]["thinking"] == "off"
    assert {body["max_tokens"] for body in requests_sent(ws)} == {96}
    carried_out(ws, "evaluate", run, arm="prompted", system_prompt="Say yes.")
    assert specs(ws) == [(2048, True)]
    measured = carried_out(ws, "baseline", run, suites=(suite(ws, ["a", "b"]),), thinking="on", thinking_tokens=300)
    assert specs(ws) == [(2048, False)] and (measured.result or {})["key"]["thinking"] == "on, 300 tokens"
    assert {body["max_tokens"] for body in requests_sent(ws)[-2:]} == {396}, "and nothing was taken over"


def test_answers_are_graded_without_their_thoughts_and_a_thought_without_end_is_an_error(
    ws: Workspace, tmp_path: Path
) -> None:
    run = thinking_run(ws, tmp_path, OPENS)
    questions = ["say is it yes? no</think>no", "say hm</think>\n\nyes", "say hm, yes, but …", "say well</think>yes …"]
    plan = price(ws, StepRequest("baseline", {"suites": (suite(ws, questions),)}, run))
    assert plan.request["thinking"] == "on" and any("thinks before it answers, in up to 1024" in s for s in plan.steps)
    step = carried_out(ws, "baseline", run, suites=(suite(ws, questions),))
    results = {r.case_id: r for r in ws.store.results(step.id)}
    assert [results[f"c{n}"].passed for n in range(4)] == [False, True, None, True]
    assert results["c1"].output == "yes" and results["c0"].output == "no"
    assert (results["c2"].error or "").startswith("cut off in its thoughts after")
    assert (step.result or {})["blocks"]["target"] == {"cases": 4, "passed": 2, "errors": 1}
    advice = (step.result or {})["advice"]
    assert advice.startswith("1 of 4 target answers are cut off in their thoughts (thinking_tokens=1024)")
    assert "thinking_tokens=2048" in advice and context_settings_of_run(ws.store, run).thinking_tokens == 1024
