"""A base whose chat template refuses system messages: it is never sent one, and reads its text all the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import FIXTURES
from tests.fixtures.steps import requests_sent, say_yes
from tests.fixtures.tiny_model import TEMPLATE, make_tiny_model
from tunesmith.memory.store import Store
from tunesmith.tools.evaluation.asking import Arm, Question
from tunesmith.tools.evaluation.local_model import LocalModel
from tunesmith.tools.evaluation.protocol import Sampling
from tunesmith.tools.models.chat_template import NO_SYSTEM
from tunesmith.tools.pipeline.run_step import price, run_step
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace
from tunesmith.tools.serving import servers
from tunesmith.tools.serving.client import ChatRequest
from tunesmith.tools.serving.requests import Tally, ask
from tunesmith.tools.serving.spec import ServerSpec
from tunesmith.tools.suites.case import Case

pytestmark = pytest.mark.heavy

REFUSING = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + TEMPLATE
)
"""As Gemma 2's."""
PROMPTED = {"arm": "prompted", "system_prompt": "Be brief."}
MESSAGES = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "{{q}}"}]


@pytest.fixture
def ws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.setenv("STUB_REQUESTS", str(tmp_path / "requests"))
    yield Workspace(Store(tmp_path / "home"), str(FIXTURES / "stub_chat.py"), lambda event, **data: None)
    servers.stop_all(tmp_path / "home")


def based_on(ws: Workspace, template: str) -> str:
    """A run whose base has such a template."""
    model = make_tiny_model(ws.store.home.parent / "model")
    (model / "chat_template.jinja").write_text(template)
    run = ws.store.new_run("test")
    run_step(ws, StepRequest("base", {"model": str(model)}, run), say_yes).done()
    return run


def suite(ws: Workspace, *prompts: Any) -> str:
    path = ws.store.home.parent / "suite.json"
    tests = [{"vars": {"q": "why"}, "metadata": {"case_id": "c", "block": "target"}}]
    asserted = {"assert": [{"type": "contains", "value": "yes"}]}
    path.write_text(json.dumps({"prompts": [*map(json.dumps, prompts)], "defaultTest": asserted, "tests": tests}))
    return str(path.rename(path.with_suffix(".yaml")))


def asked(ws: Workspace) -> list[list[tuple[str, str]]]:
    return [[(m["role"], m["content"]) for m in body["messages"]] for body in requests_sent(ws)]


def steps_of(ws: Workspace, run: str, stage: str, **fields: Any) -> tuple[str, ...]:
    return price(ws, StepRequest(stage, fields, run)).steps


def test_what_is_sent_has_no_system_message_and_says_its_text(ws: Workspace) -> None:
    run = based_on(ws, REFUSING)
    suites = (suite(ws, MESSAGES),)
    assert NO_SYSTEM in steps_of(ws, run, "baseline", suites=suites)
    run_step(ws, StepRequest("baseline", {"suites": suites}, run), say_yes).done()
    assert asked(ws) == [[("user", "Be kind.\n\nwhy")]]
    assert NO_SYSTEM in steps_of(ws, run, "evaluate", **PROMPTED)
    run_step(ws, StepRequest("evaluate", {**PROMPTED, "fresh": True}, run), say_yes).done()
    assert asked(ws)[1:] == [[("user", "Be kind.\n\nwhy")], [("user", "Be brief.\n\nBe kind.\n\nwhy")]]


def test_a_template_that_takes_them_gets_them_as_they_are(ws: Workspace) -> None:
    run = based_on(ws, TEMPLATE)
    suites = (suite(ws, MESSAGES),)
    assert NO_SYSTEM not in steps_of(ws, run, "baseline", suites=suites)
    run_step(ws, StepRequest("baseline", {"suites": suites}, run), say_yes).done()
    assert NO_SYSTEM not in steps_of(ws, run, "evaluate", **PROMPTED)
    run_step(ws, StepRequest("evaluate", {**PROMPTED, "fresh": True}, run), say_yes).done()
    said = [("system", "Be kind."), ("user", "why")]
    assert asked(ws) == [said, said, [("system", "Be brief.\n\nBe kind."), ("user", "why")]]


def test_a_plan_of_cases_without_a_system_message_says_nothing_of_it(ws: Workspace) -> None:
    run = based_on(ws, REFUSING)
    assert NO_SYSTEM not in steps_of(ws, run, "baseline", suites=(suite(ws, MESSAGES[1:]),))


def test_a_prompt_of_the_behaviour_is_used_without_a_system_message(ws: Workspace) -> None:
    run = based_on(ws, REFUSING)
    run_step(ws, StepRequest("baseline", {"suites": (suite(ws, MESSAGES[1:]),)}, run), say_yes).done()
    fields = {"arm": "prompted", "behaviour": "demo"}
    assert NO_SYSTEM in steps_of(ws, run, "evaluate", **fields)
    run_step(ws, StepRequest("evaluate", fields, run), say_yes).done()
    assert sum("strict JSON" in messages[0][1] for messages in asked(ws)) == 1
    assert {role for messages in asked(ws) for role, _ in messages} == {"user"}


@pytest.mark.parametrize("template", [REFUSING, TEMPLATE])
def test_whoever_asks_a_server_asks_as_its_template_takes_it(
    ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    """The way of generate, critique and judges: the questions of a step to one server."""
    said = [{"role": "system", "content": "A"}, {"role": "user", "content": "q"}]
    model = make_tiny_model(tmp_path / "model")
    (model / "chat_template.jinja").write_text(template)
    spec = ServerSpec(model_dir=str(model), served_name="m")
    server = servers.ensure(ws.store.home, spec, vllm=str(ws.vllm), log_path=tmp_path / "log", owner="test")
    request = ChatRequest("r", server.model, said, 8)
    ask(server, [request], lambda response: None, Tally(), concurrency=1)
    monkeypatch.setattr(servers, "_call", lambda server, path, body, **_: {"tokens": body["messages"]})
    rendered: Any = servers.template_tokens(server, said)
    taken = [("user", "A\n\nq")] if template == REFUSING else [("system", "A"), ("user", "q")]
    assert asked(ws) == [taken] == [[(message["role"], message["content"]) for message in rendered]]
    assert request.messages == said and said[0]["role"] == "system", "what is asked for is not changed"


@pytest.mark.lab
@pytest.mark.parametrize("template", [REFUSING, TEMPLATE])
def test_the_process_that_answers_where_vllm_cannot_asks_the_same(
    tmp_path: Path, tiny_llama: Path, template: str
) -> None:
    from transformers import AutoTokenizer

    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    (folder / "chat_template.jinja").write_text(template)
    local: Any = object.__new__(LocalModel)
    local.tokenizer = AutoTokenizer.from_pretrained(folder)
    case = Case(case_id="c", suite="s", messages=({"role": "user", "content": "q"},))
    arm = Arm("prompted", "m", {}, [{"role": "system", "content": "A"}])
    said = [{"role": "user", "content": "A\n\nq"}] if template == REFUSING else arm.messages(case)
    prompt = local.tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    assert local._prompt(Question(arm, case), Sampling(8)) == prompt
