"""`tunesmith -p` as a real process against endpoints that answer, and endpoints that do not."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.stub_driver import Script, StubDriver
from tests.agent.terminal import Terminal, Tunesmith
from tunesmith.memory.conversations import Conversations
from tunesmith.memory.store import Store

BASE = ("base", {"model": None, "run": None})


@pytest.fixture
def driver() -> Iterator[Callable[..., StubDriver]]:
    opened: list[StubDriver] = []

    def open_(script: Script = lambda body: "Hello.", mode: str = "fine") -> StubDriver:
        opened.append(StubDriver(script, mode=mode))
        return opened[-1]

    yield open_
    for one in opened:
        one.close()


def events(stdout: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stdout.splitlines()]


def last_is_result(body: dict[str, Any]) -> bool:
    return bool(body["messages"][-1]["role"] == "tool")


def call_then(call: tuple[str, dict[str, Any]], words: str) -> Script:
    return lambda body: words if last_is_result(body) else call


def test_words_are_answered_and_kept(tunesmith: Tunesmith, driver: Callable[..., StubDriver]) -> None:
    one = driver(lambda body: "Hello. What shall the model learn?")
    done = tunesmith("-p", "hi there", "--json", TUNESMITH_DRIVER=one.url)
    assert done.returncode == 0, done.stderr
    told = events(done.stdout)
    assert [event["event"] for event in told] == ["message", "done"]
    assert told[0]["text"] == "Hello. What shall the model learn?" and told[1]["exit_code"] == 0
    held = Conversations(Store(tunesmith.home)).load(told[1]["conversation"])
    assert held.turns[0].prompt == "hi there" and held.turns[0].reply == told[0]["text"]
    plain = tunesmith("-p", "hi there", TUNESMITH_DRIVER=one.url)
    assert plain.stdout == "Hello. What shall the model learn?\n"


def test_without_a_yes_the_step_waits_and_the_exit_code_is_3(
    tunesmith: Tunesmith, driver: Callable[..., StubDriver], model_folder: Path
) -> None:
    one = driver(call_then(("base", {"model": str(model_folder), "run": None}), "It waits."))
    done = tunesmith("-p", f"take {model_folder} as the base", "--json", TUNESMITH_DRIVER=one.url)
    assert done.returncode == 3, done.stderr
    told = {event["event"]: event for event in events(done.stdout)}
    assert told["tool.called"]["tool"] == "base" and told["done"]["exit_code"] == 3
    assert "step.started" not in told
    plan_hash = told["approval.required"]["plan_hash"]
    approved = tunesmith("base", "--approve", plan_hash[:12])
    assert approved.returncode == 0, approved.stderr
    assert Store(tunesmith.home).artifacts("r1", "base")


def test_a_yes_beforehand_carries_the_step_out_and_follows_it_to_its_end(
    tunesmith: Tunesmith, driver: Callable[..., StubDriver], model_folder: Path
) -> None:
    one = driver(call_then(("base", {"model": str(model_folder), "run": None}), "The base is here."))
    done = tunesmith("-p", f"take {model_folder} as the base", "--yes", "--json", TUNESMITH_DRIVER=one.url)
    assert done.returncode == 0, done.stderr
    names = [event["event"] for event in events(done.stdout)]
    order = ["tool.called", "plan.shown", "approval.required", "approval.decided", "step.started", "step.finished"]
    assert [name for name in names if name in order] == order and names[-2:] == ["message", "done"]


def test_a_proposed_plan_that_nobody_agreed_to_waits_at_its_first_price(
    tunesmith: Tunesmith, driver: Callable[..., StubDriver]
) -> None:
    goal = {"goal": "support tickets to JSON", "pace": "fast", "quantize": True}
    one = driver(call_then(("plan_fine_tune", goal), "Shall I start?"))
    done = tunesmith("-p", "make it answer support tickets as JSON", "--json", TUNESMITH_DRIVER=one.url)
    assert done.returncode == 3, done.stderr
    told = events(done.stdout)
    shown = next(event for event in told if event["event"] == "plan.shown")
    assert shown["plan"]["steps"][:2] == ["inspect", "base"] and shown["estimated_seconds"] > 100
    assert [e["stage"] for e in told if e["event"] == "approval.required"] == ["base"]
    assert not [step for step in Store(tunesmith.home).steps() if step.stage != "inspect" and step.started_at]


def test_the_driver_that_is_not_here_is_a_priced_step_too(tunesmith: Tunesmith) -> None:
    done = tunesmith("-p", "hello", "--json")
    assert done.returncode == 3, done.stderr
    required = next(event for event in events(done.stdout) if event["event"] == "approval.required")
    assert required["stage"] == "base" and required["estimated_seconds"] > 10


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        ("garbage", "could not be read"),
        ("failing", "status 500: "),
        ("cut", "broke off"),
        ("short", "/new starts a fresh one"),
    ],
)
def test_a_driver_that_misbehaves_is_one_clear_line(
    tunesmith: Tunesmith, driver: Callable[..., StubDriver], mode: str, told: str
) -> None:
    done = tunesmith("-p", "hello", "--json", TUNESMITH_DRIVER=driver(mode=mode).url)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("tunesmith: ")]
    assert len(errors) == 1 and told in errors[0] and "Traceback" not in done.stderr, done.stderr
    assert Store(tunesmith.home).read("SELECT content FROM conversations WHERE role = 'user'")[0][0] == "hello"


def test_a_driver_that_is_down_is_one_clear_line(tunesmith: Tunesmith) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    done = tunesmith("-p", "hello", TUNESMITH_DRIVER=url)
    assert done.returncode == 1 and "cannot be reached" in done.stderr and len(done.stderr.splitlines()) == 1


def test_the_repl_lives_on_when_the_driver_misbehaves(
    tunesmith: Tunesmith,
    terminal: Callable[..., Terminal],
    driver: Callable[..., StubDriver],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TUNESMITH_DRIVER", driver(mode="cut").url)
    repl = terminal()
    repl.expect("tunesmith ❯")
    place = repl.line("hello there")
    repl.expect("broke off", after=place)
    place = repl.line("/sql SELECT content FROM conversations WHERE role = 'user'")
    repl.expect("hello there", after=place)


def test_a_conversation_is_left_gone_back_to_compacted_and_exported(
    tunesmith: Tunesmith,
    terminal: Callable[..., Terminal],
    driver: Callable[..., StubDriver],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = driver(lambda body: "I see.")
    monkeypatch.setenv("TUNESMITH_DRIVER", one.url)

    def sent() -> str:
        return json.dumps([body["messages"] for body in one.requests[-1:]])

    repl = terminal()
    repl.expect("tunesmith ❯")
    place = repl.line("my dog is called Rex")
    repl.expect("I see.", after=place)
    place = repl.line("/new")
    repl.expect("a new conversation: c", after=place)
    place = repl.line("hello there")
    repl.expect("I see.", after=place)
    assert "Rex" not in sent()
    place = repl.line("/resume")
    repl.expect("going on with c", after=place)
    place = repl.line("and my cat")
    repl.expect("I see.", after=place)
    assert "Rex" in sent()
    place = repl.line("/compact")
    repl.expect("compacted to", after=place)
    target = tunesmith.home / "talk.md"
    place = repl.line(f"/export {target}")
    repl.expect("written", after=place)
    assert "my dog is called Rex" in target.read_text() and "and my cat" in target.read_text()


def test_a_whole_conversation_on_a_terminal(
    tunesmith: Tunesmith,
    terminal: Callable[..., Terminal],
    driver: Callable[..., StubDriver],
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Words, a call, its price, a no, a yes, the end of the job; then /undo, /export and Ctrl-C twice."""
    one = driver(call_then(("base", {"model": str(model_folder), "run": None}), "That is that."))
    monkeypatch.setenv("TUNESMITH_DRIVER", one.url)
    repl = terminal()
    repl.expect("tunesmith ❯")
    place = repl.line(f"take {model_folder} as the base")
    repl.expect("Start?", after=place)
    place = repl.line("not now")
    repl.expect("That is that.", after=place)
    place = repl.line(f"take {model_folder} as the base, please")
    repl.expect("Start?", after=place)
    place = repl.line("yes")
    repl.expect("✓ base", after=place)
    place = repl.line("/undo")
    repl.expect("taken back: take", after=place)
    target = tunesmith.home / "talk.md"
    place = repl.line(f"/export {target}")
    repl.expect("written", after=place)
    assert "That is that." in target.read_text()
    repl.type("\x03\x03")
    assert repl.end() == 0
