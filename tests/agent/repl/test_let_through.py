"""A strong driver is let through: asked about once, tried out behind a turn, and native from the next words on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from tests.agent.test_probe import ALL, served, task_of
from tests.fixtures.stub_driver import StubDriver
from tests.fixtures.tables import table
from tests.fixtures.terminal import Terminal, Tunesmith
from tunesmith.agent.repl.talk import Talk
from tunesmith.memory.store import Store

pytestmark = pytest.mark.heavy

WORDS = "let us think about Rex and this together"


def of_the_user(stub: StubDriver) -> list[dict[str, Any]]:
    """The requests that are of no task."""
    return [body for body in stub.requests if not task_of(body)]


def test_a_driver_that_passes_its_tasks_answers_the_next_words_itself(
    terminal: Callable[..., Terminal], tunesmith: Tunesmith, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.closing(served(*ALL)) as stub:
        stub.models = [{"id": "default", "max_model_len": 65536}]
        monkeypatch.setenv("TUNESMITH_DRIVER", stub.url)
        repl = terminal()
        repl.expect("tunesmith ❯")
        place = repl.line(WORDS)
        repl.expect("Try it out now? [yes / no]", after=place)
        assert len(stub.requests) == len(of_the_user(stub)), "no task before the yes"
        place = repl.line("yes")
        repl.expect("default passed 6 of 6 tasks", after=place)
        repl.at_prompt()
        before = len(of_the_user(stub))
        place = repl.line(WORDS)
        repl.expect("I do not know.", after=place)
        own = of_the_user(stub)[before:]
        assert own and all(body["tools"] for body in own), "with tools of its own"
        said = Store(tunesmith.home).read("SELECT content FROM conversations WHERE role = 'user'")
        assert [row["content"] for row in said] == [WORDS, WORDS], "no task is a turn of the user's"
        repl.type("\x04")
        assert repl.end() == 0
        again = terminal()
        again.expect("tunesmith ❯")
        place = again.line(WORDS)
        again.expect("I do not know.", after=place)
        again.at_prompt()
        assert "Try it out" not in again.text


@table(
    ("before", "draft", "description", "plan", "asks"),
    [
        (None, None, "", False, True),
        ("a plan", None, "", False, False),  # which these words started, or dropped
        (None, "a plan", "", False, False),
        (None, None, "a description is open", False, False),
        (None, None, "", True, False),
    ],
)
def test_nobody_is_asked_about_a_driver_in_the_midst_of_a_plan_or_a_description(
    before: object, draft: object, description: str, plan: bool, asks: bool
) -> None:
    asked: list[bool] = []
    screen = SimpleNamespace(carries_a_plan=lambda: plan, answer_questions=lambda: None, say=print)
    talk = Talk(screen)  # type: ignore[arg-type]
    talk._trial = SimpleNamespace(behind_a_turn=lambda *, may_ask: asked.append(may_ask))  # type: ignore[assignment]
    answer: Future[None] = Future()
    answer.set_result(None)
    deps = SimpleNamespace(draft=before)

    def begin(*given: object) -> Future[None]:
        deps.draft = draft
        return answer

    talk.chat = lambda: SimpleNamespace(begin=begin, deps=deps, open_description=lambda: description)  # type: ignore
    talk.turn(WORDS)
    assert asked == [asks]


def test_with_words_of_a_script_nothing_is_tried_out_and_nobody_is_asked(tunesmith: Tunesmith) -> None:
    with contextlib.closing(served(*ALL)) as stub:
        stub.models = [{"id": "default", "max_model_len": 65536}]
        done = tunesmith("-p", WORDS, TUNESMITH_DRIVER=stub.url)
        assert done.returncode == 0 and "tasks" not in done.stdout + done.stderr
        assert len(stub.requests) == len(of_the_user(stub)) and not (tunesmith.home / "driver-probe.json").exists()
