"""`tunesmith -p` as a real process against endpoints that answer, and endpoints that do not."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import stored_runs
from tests.fixtures.stub_driver import Script, StubDriver
from tests.fixtures.terminal import Grace, Terminal, Tunesmith
from tunesmith.memory.conversations import Conversations
from tunesmith.memory.store import Store

pytestmark = pytest.mark.heavy

LOOK = ("read_runs", {"about": "all"})


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
    is_asked(tunesmith.home)
    one = driver(lambda body: "Hello. What shall the model learn?")
    done = tunesmith("-p", "let us think about this together", "--json", TUNESMITH_DRIVER=one.url)
    assert done.returncode == 0, done.stderr
    told = events(done.stdout)
    assert [event["event"] for event in told] == ["message", "done"]
    assert told[0]["text"] == "Hello. What shall the model learn?" and told[1]["exit_code"] == 0
    held = Conversations(Store(tunesmith.home)).load(told[1]["conversation"])
    assert held.turns[0].prompt == "let us think about this together" and held.turns[0].reply == told[0]["text"]
    plain = tunesmith("-p", "let us think about this together", TUNESMITH_DRIVER=one.url)
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
    goal = {"behaviour": "demo", "goal": "support tickets to JSON", "pace": "fast"}
    one = driver(call_then(("plan_fine_tune", goal), "Shall I start?"))
    done = tunesmith("-p", "make it answer support tickets as JSON", "--json", TUNESMITH_DRIVER=one.url)
    assert done.returncode == 3, done.stderr
    told = events(done.stdout)
    shown = next(event for event in told if event["event"] == "plan.shown")
    assert shown["plan"]["steps"][:2] == ["inspect", "base"] and shown["estimated_seconds"] > 100
    assert [e["stage"] for e in told if e["event"] == "approval.required"] == ["base"]
    assert not [step for step in Store(tunesmith.home).steps() if step.stage != "inspect" and step.started_at]


def test_the_driver_that_is_not_here_is_a_priced_step_too(tunesmith: Tunesmith) -> None:
    is_asked(tunesmith.home)
    done = tunesmith("-p", "let us think about this together", "--json")
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
    is_asked(tunesmith.home)
    done = tunesmith("-p", "let us think about this together", "--json", TUNESMITH_DRIVER=driver(mode=mode).url)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("tunesmith: ")]
    assert len(errors) == 1 and told in errors[0] and "Traceback" not in done.stderr, done.stderr
    assert (
        Store(tunesmith.home).read("SELECT content FROM conversations WHERE role = 'user'")[0][0]
        == "let us think about this together"
    )


def down_url() -> str:
    """Where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


def test_a_driver_that_is_down_is_one_clear_line(tunesmith: Tunesmith) -> None:
    is_asked(tunesmith.home)
    done = tunesmith("-p", "let us think about this together", TUNESMITH_DRIVER=down_url())
    assert done.returncode == 1 and "cannot be reached" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_driver_that_is_too_slow_is_one_clear_line(tunesmith: Tunesmith, driver: Callable[..., StubDriver]) -> None:
    is_asked(tunesmith.home, 0.5)
    one = driver(mode="slow")
    done = tunesmith("-p", "let us think about this together", TUNESMITH_DRIVER=one.url)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "did not answer in time" in done.stderr and "timeout_s" in done.stderr and one.requests
    is_asked(tunesmith.home, 30)
    assert tunesmith("-p", "let us think about this together", TUNESMITH_DRIVER=one.url).stdout == "Hello.\n", (
        "slow, but in time"
    )


def unexamined(home: Path) -> None:
    """A level that is set, so that nobody is asked whether the driver may be tried out."""
    home.mkdir(exist_ok=True)
    (home / "settings.toml").write_text("[driver]\nrouting = true\n")


def is_asked(home: Path, timeout_s: float = 30) -> None:
    """Let the driver, which nobody examined, choose tools: below that level no words reach it."""
    home.mkdir(exist_ok=True)
    (home / "settings.toml").write_text(f"[driver]\nrouting = false\ntimeout_s = {timeout_s}\n")


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        ("down", "cannot be reached"),
        ("slow", "did not answer in time"),
        ("garbage", "could not be read"),
        ("cut", "broke off"),
        ("short", "does not fit into the driver's context; /new starts"),
    ],
)
def test_the_repl_lives_on_when_the_driver_misbehaves(
    tunesmith: Tunesmith,
    terminal: Callable[..., Terminal],
    driver: Callable[..., StubDriver],
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    told: str,
) -> None:
    is_asked(tunesmith.home, 0.5 if mode == "slow" else 30)
    monkeypatch.setenv("TUNESMITH_DRIVER", down_url() if mode == "down" else driver(mode=mode).url)
    repl = terminal()
    repl.expect("tunesmith ❯")
    place = repl.line("let us think about this together")
    repl.expect(told, after=place)
    place = repl.line("/help")
    repl.expect("I fine-tune a language model with you", after=place)
    rows = Store(tunesmith.home).read("SELECT role, content FROM conversations")
    kept = {row["role"]: row["content"] for row in rows}
    assert kept["user"] == "let us think about this together" and told in kept["assistant"]
    assert "Traceback" not in repl.text


def test_a_conversation_is_left_gone_back_to_and_exported(
    tunesmith: Tunesmith,
    terminal: Callable[..., Terminal],
    driver: Callable[..., StubDriver],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = driver(lambda body: "I see.")
    is_asked(tunesmith.home)
    monkeypatch.setenv("TUNESMITH_DRIVER", one.url)

    def sent() -> str:
        return json.dumps([body["messages"] for body in one.requests[-1:]])

    repl = terminal()
    repl.expect("tunesmith ❯")
    place = repl.line("let us think about Rex and this together")
    repl.expect("I see.", after=place)
    place = repl.line("/new")
    repl.expect("a new conversation: c", after=place)
    place = repl.line("let us think about this together")
    repl.expect("I see.", after=place)
    assert "Rex" not in sent()
    place = repl.line("/conversations resume")
    repl.expect("going on with c", after=place)
    place = repl.line("and my cat")
    repl.expect("I see.", after=place)
    assert "Rex" in sent()
    target = tunesmith.home / "talk.md"
    place = repl.line(f"/export {target}")
    repl.expect("written", after=place)
    assert "let us think about Rex and this together" in target.read_text() and "and my cat" in target.read_text()


def test_a_whole_conversation_on_a_terminal(
    tunesmith: Tunesmith,
    terminal: Callable[..., Terminal],
    driver: Callable[..., StubDriver],
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Words, a call, its price, a no, a yes, the end of the job; then /undo, /export and Ctrl-C twice."""
    one = driver(call_then(("base", {"model": str(model_folder), "run": None}), "That is that."))
    unexamined(tunesmith.home)
    monkeypatch.setenv("TUNESMITH_DRIVER", one.url)
    repl = terminal()
    repl.expect("tunesmith ❯")
    place = repl.line(f"take {model_folder} as the base")
    repl.expect("Start?", after=place)
    place = repl.line("not now")
    repl.expect("nothing was started", after=place)
    place = repl.line(f"take {model_folder} as the base, please")
    repl.expect("Start?", after=place)
    place = repl.line("yes")
    repl.expect("✓ base", after=place)
    place = repl.line("/undo")
    repl.expect("taken back: take", after=place)
    target = tunesmith.home / "talk.md"
    place = repl.line(f"/export {target}")
    repl.expect("written", after=place)
    assert "the user said no: not now; nothing was started" in target.read_text()
    repl.at_prompt()
    repl.type("\x03\x03")
    assert repl.end() == 0


def in_turn(*calls: tuple[str, dict[str, Any]], words: str = "That is that.") -> Script:
    """One call after the other, then words."""

    def script(body: dict[str, Any]) -> Any:
        made = sum(message["role"] == "tool" for message in body["messages"])
        return calls[made] if made < len(calls) else words

    return script


@pytest.fixture
def broken_model_folder(model_folder: Path) -> Path:
    """A base that is planned like any other and whose worker fails, for its chat template cannot be rendered."""
    (model_folder / "chat_template.jinja").write_text("{% for message in messages %}")
    return model_folder


def test_a_failed_step_is_exit_code_1_and_its_run_has_failed(
    tunesmith: Tunesmith, driver: Callable[..., StubDriver], broken_model_folder: Path
) -> None:
    call = ("base", {"model": str(broken_model_folder), "run": None})
    one = driver(in_turn(call, LOOK, words="The base is here."))
    done = tunesmith("-p", f"take {broken_model_folder} as the base", "--yes", "--json", TUNESMITH_DRIVER=one.url)
    assert done.returncode == 1, done.stderr
    told = {event["event"]: event for event in events(done.stdout)}
    assert told["step.finished"]["status"] == "failed" and "its chat template" in told["message"]["text"]
    assert "base (s1) failed" in told["error"]["message"] and told["done"]["exit_code"] == 1
    assert Store(tunesmith.home).run("r1").status == "failed"


def test_a_gate_that_refuses_is_exit_code_4(tunesmith: Tunesmith, driver: Callable[..., StubDriver]) -> None:
    build = stored_runs.new_builder(tunesmith.home)
    base, _ = stored_runs.add_baseline(build)
    step = build.step("train", arm="adapter")
    build.artifact(step, "adapter", "", base)
    build.end(step, 1.0, 1)
    one = driver(in_turn(("deploy", {"arm": "adapter", "rollback": None, "run": None}), words="It is served."))
    done = tunesmith("-p", "deploy it", "--yes", "--json", TUNESMITH_DRIVER=one.url, TUNESMITH_VLLM="/bin/true")
    assert done.returncode == 4, done.stderr
    told = {event["event"]: event for event in events(done.stdout)}
    assert told["error"]["exit_code"] == told["done"]["exit_code"] == 4 and "step.started" not in told


def test_a_gate_is_told_though_the_driver_never_comes_to_an_end(
    tunesmith: Tunesmith, driver: Callable[..., StubDriver]
) -> None:
    build = stored_runs.new_builder(tunesmith.home)
    base, _ = stored_runs.add_baseline(build)
    build.artifact(build.step("train", arm="adapter"), "adapter", "", base)
    one = driver(in_turn(*[("deploy", {"arm": "adapter", "rollback": None, "run": None})] * 20))
    (tunesmith.home / "settings.toml").write_text("[driver]\nrouting = false\n")
    done = tunesmith("-p", "deploy it", "--yes", TUNESMITH_DRIVER=one.url, TUNESMITH_VLLM="/bin/true")
    assert done.returncode == 4 and "stopped after 16 requests" in done.stderr, done.stderr


def test_a_turn_that_ends_with_bad_input_is_exit_code_2(
    tunesmith: Tunesmith, driver: Callable[..., StubDriver]
) -> None:
    one = driver(in_turn(("merge", {"run": None}), LOOK, words="There is nothing to merge."))
    done = tunesmith("-p", "merge it", "--yes", TUNESMITH_DRIVER=one.url)
    assert done.returncode == 2 and "no run yet to merge in" in done.stdout, done.stderr
    assert "`tunesmith base` opens one" in done.stderr


def test_bad_input_that_the_driver_put_right_itself_is_exit_code_0(
    tunesmith: Tunesmith, driver: Callable[..., StubDriver], model_folder: Path
) -> None:
    right = ("base", {"model": str(model_folder), "run": None})
    tunesmith.home.mkdir()
    (tunesmith.home / "settings.toml").write_text("[driver]\nrouting = false\n")
    one = driver(in_turn(("base", {"model": "/nowhere/at/all", "run": None}), right))
    done = tunesmith("-p", f"take {model_folder} as the base", "--yes", "--json", TUNESMITH_DRIVER=one.url)
    assert done.returncode == 0, done.stderr
    calls = [event["arguments"]["model"] for event in events(done.stdout) if event["event"] == "tool.called"]
    assert calls == ["/nowhere/at/all", str(model_folder)] and Store(tunesmith.home).run("r1").status == "done"


def test_a_no_at_a_terminal_is_exit_code_1_and_nothing_is_left_running(
    tunesmith: Tunesmith,
    terminal: Callable[..., Terminal],
    driver: Callable[..., StubDriver],
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TUNESMITH_DRIVER", driver(in_turn(("base", {"model": str(model_folder), "run": None}))).url)
    one = terminal("-p", f"take {model_folder} as the base")
    one.expect("Start?")
    one.line("not today")
    assert one.end() == 1, one.text
    assert "not today; nothing was started" in one.text
    assert Store(tunesmith.home).runs() == [], "a price that was declined leaves no run"


def test_ctrl_c_in_the_grace_of_a_turns_question_ends_the_turn_and_not_the_repl(
    tunesmith: Tunesmith,
    terminal: Callable[..., Terminal],
    driver: Callable[..., StubDriver],
    model_folder: Path,
    grace: Grace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = driver(call_then(("base", {"model": str(model_folder), "run": None}), "That is that."))
    unexamined(tunesmith.home)
    monkeypatch.setenv("TUNESMITH_DRIVER", one.url)
    repl = terminal()
    repl.expect("tunesmith ❯")
    place = repl.line(f"take {model_folder} as the base")
    grace.await_next()
    repl.type("\x03")
    repl.expect("waits for a yes to plan", after=place)
    assert "Start?" not in repl.text[place:]
    store = Store(tunesmith.home)
    assert [step.status for step in store.priced_steps()] == ["planned"] and store.run("r1").status == "waiting"
    grace.end()
    place = repl.line(f"take {model_folder} as the base, please")
    repl.expect("Start?", after=place)
    place = repl.line("yes")
    repl.expect("✓ base", after=place)
