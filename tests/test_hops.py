"""A question becomes an answer, an order a record, a case a verdict in few hops, as `fixtures/hops.py` counts them."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.bench._harness import KEY, new_job, stub, write_suite
from tests.fixtures.hops import Way
from tests.fixtures.stored_runs import finished_run
from tunesmith.agent.commands import settings
from tunesmith.agent.driver.turn_deps import Call, TurnAnswer, TurnDeps
from tunesmith.agent.queries.facts import Query, Result
from tunesmith.agent.repl.shell import Shell
from tunesmith.agent.words.acts import Order
from tunesmith.agent.words.reading import Reading, reader
from tunesmith.memory.records import EvalResult, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.evaluation.asking import Arm, Keep, Question, run_arms
from tunesmith.tools.evaluation.comparison import CaseOutcome, Comparison
from tunesmith.tools.evaluation.pairing import compare_run
from tunesmith.tools.evaluation.protocol import Sampling
from tunesmith.tools.pipeline.workspace import Decision, StepRequest
from tunesmith.tools.serving.client import ChatClient, ChatRequest, ChatResponse
from tunesmith.tools.suites.case import Case, Suite
from tunesmith.tools.suites.expand import RawTest
from tunesmith.tools.suites.grading import Grade
from tunesmith.tools.suites.loading import load_named_suites


def talk(store: Store, sentence: str, *forms: type) -> tuple[Way, list[str]]:
    """The way of a sentence that is typed at the prompt, and what the screen shows; every price is declined."""
    way, shown = Way(TurnDeps, Reading, *forms, words=sentence), []
    shell = Shell(settings.load(), store, lambda: None)

    def say(text: str) -> None:
        shown.append(text)
        way.end()

    def no(plan: Plan, step: str) -> Decision:
        way.end()
        return Decision(False, "test")

    shell.say, shell.approver = say, no  # type: ignore[method-assign]
    shell.talk.load()
    chat = shell.talk.chat()
    reader()
    with way.traced():
        chat._loop.call_soon_threadsafe(way.trace_this_thread)
        shell.handle(sentence)
        chat._loop.call_soon_threadsafe(sys.setprofile, None)
    shell.leave()
    return way, shown


def test_a_question_becomes_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    store, _ = finished_run(tmp_path / "home")
    way, shown = talk(store, "which cases did the adapter fail?", Query, Result, TurnAnswer)
    assert "cases 15 · passed 90 of 105" in shown[0]
    assert 0 < way.hops <= 8, way.modules


@pytest.mark.heavy
def test_an_order_becomes_a_record(based: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(based / "home", tmp_path / "home")
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TUNESMITH_VLLM", sys.executable)
    store = Store(tmp_path / "home")
    way, shown = talk(store, "run the baseline", Order, Call, StepRequest, Plan, Step)
    assert shown == ["baseline: the user said no; nothing was started. “baseline” shows its price again."]
    assert 0 < way.hops <= 9, way.modules


def test_a_case_becomes_a_verdict(tmp_path: Path) -> None:
    way = Way(RawTest, Case, Suite, Question, ChatRequest, ChatResponse, Grade, EvalResult, CaseOutcome, Comparison)
    job = new_job(tmp_path)
    path = write_suite(tmp_path / "suite.yaml", 3)
    sampling = Sampling(64, 0.0)
    with stub(0.0) as port, way.traced():
        suite = load_named_suites([str(path)])
        (job.dir / "suite.json").write_text(suite.to_json())
        job.publish("suite", job.dir / "suite.json", meta={"suite_sha256": suite.sha256})
        keys = {name: {"suite": suite.sha256} for name in ("base", "adapter")}
        arms = [Arm(name, "stub", key) for name, key in keys.items()]

        def answer(questions: Sequence[Question], keep: Keep) -> None:
            """`server_answers` of a server that nobody registered."""
            asked = {question.id: question for question in questions}

            async def ask() -> None:
                async with ChatClient(f"http://127.0.0.1:{port}", KEY) as client:
                    requests = [question.request(sampling) for question in questions]
                    await client.complete_many(requests, concurrency=2, on_result=lambda r: keep(asked[r.id], r))

            asyncio.run(ask())

        run_arms(job, suite, arms, sampling, answer)
        compared = compare_run(job.store, job.run, "base", "adapter", at_work=(job.step.id, keys))
    assert compared.blocks["target"].passed == {"base": 3, "adapter": 3}
    assert 0 < way.hops <= 8, way.modules
