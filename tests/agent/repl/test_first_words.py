"""The first words of all, on a terminal: the driver has to be fetched and started, and the prompt is never lost."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.fixtures import FIXTURES
from tests.fixtures.stub_driver import Answer, StubDriver
from tests.fixtures.terminal import Terminal, Tunesmith
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.agent.driver.chat import Cancelled
from tunesmith.agent.repl.talk import Talk
from tunesmith.memory.files import publish_folder
from tunesmith.memory.store import Store
from tunesmith.tools.models.bundled import BUNDLED
from tunesmith.tools.serving import servers

pytestmark = pytest.mark.heavy

Open = Callable[..., Terminal]
STUB = str(FIXTURES / "stub_vllm.py")


def _asks_the_driver(home: Path) -> None:
    """Let the driver choose tools, which nobody examined."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "settings.toml").write_text("[driver]\nrouting = false\n")


@pytest.fixture
def fetching(
    at_work: Path, terminal: Open, tunesmith: Tunesmith, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Terminal]:
    """A REPL that was spoken to for the first time, told yes, and shows the bar of a download that goes on and on."""
    monkeypatch.setenv("TUNESMITH_VLLM", STUB)
    _asks_the_driver(tunesmith.home)
    repl = terminal()
    repl.expect("tunesmith ❯")
    repl.line("let us think about this together")
    repl.expect("Start?")
    place = repl.line("yes")
    repl.expect("━", after=place)
    yield repl
    for step in Store(tunesmith.home).steps():
        if step.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(step.pid, signal.SIGKILL)
    servers.stop_all(tunesmith.home)


def test_the_download_shows_a_bar_and_ctrl_c_gives_the_prompt_back(fetching: Terminal, tunesmith: Tunesmith) -> None:
    assert "/attach s1 follows it" not in fetching.text
    place = fetching.type("\x03")
    fetching.expect("the driver is fetched in the background (s1)", after=place)
    place = fetching.line("/sql SELECT 6 * 7 AS answer")
    fetching.expect("42", after=place)
    assert Store(tunesmith.home).step("s1").status == "running"


def test_words_that_waited_for_the_driver_are_taken_up_once_it_is_here(
    fetching: Terminal, tunesmith: Tunesmith, tmp_path: Path
) -> None:
    place = fetching.type("\x03")
    fetching.expect("fetched in the background", after=place)
    store = Store(tunesmith.home)
    tiny = make_tiny_model(tmp_path / "tiny")
    target = tunesmith.home / "models" / BUNDLED["bundled-driver"].name

    def fill(folder: Path) -> None:
        for file in tiny.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())

    publish_folder(target, fill, kind="driver", source="test", revision="")
    store.finish("s1", {})  # as its worker would
    fetching.expect("now to your words: let us think about this together", after=place)
    fetching.expect("It is done.", after=place)


def test_words_said_again_while_it_is_fetched_show_the_bar_again(fetching: Terminal, tunesmith: Tunesmith) -> None:
    place = fetching.type("\x03")
    fetching.expect("fetched in the background", after=place)
    place = fetching.line("let us think about this together")
    fetching.expect("━", after=place)  # the bar: the prompt's own last line tells of the download, too
    place = fetching.type("\x03")
    fetching.expect("fetched in the background", after=place)
    assert [step.id for step in Store(tunesmith.home).steps()] == ["s1"]


def test_words_that_are_typed_while_the_agent_loads_do_not_load_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that import packages which import each other wait for each other (_DeadlockError)."""
    talk = Talk(SimpleNamespace())  # type: ignore[arg-type]
    monkeypatch.setattr(talk, "chat", lambda: pytest.fail("waits", pytrace=False))
    monkeypatch.delitem(sys.modules, "tunesmith.agent.driver.chat")
    with pytest.raises(pytest.fail.Exception):
        talk.turn("hello")
    assert "tunesmith.agent.driver.chat" not in sys.modules


def test_ctrl_c_before_there_is_a_bar_shows_none_and_keeps_the_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was pressed while the download was being asked for: nobody waits for a bar any more."""
    answer: Future[None] = Future()
    said: list[str] = []

    def pressed() -> None:
        monkeypatch.setattr(screen, "answer_questions", lambda: None)
        talk._fetching = "s1"
        raise KeyboardInterrupt

    def cancel() -> None:
        if talk._waiting[0]:
            answer.set_exception(Cancelled())

    screen = SimpleNamespace(
        answer_questions=pressed, say=said.append, follow=lambda step: pytest.fail("it shows a bar"),
        store=SimpleNamespace(step=lambda step: SimpleNamespace(id=step, ended=False)), carries_a_plan=lambda: True,
    )  # fmt: skip
    talk = Talk(screen)  # type: ignore[arg-type]
    monkeypatch.setattr(talk, "chat", lambda: SimpleNamespace(begin=lambda *args: answer, cancel=cancel))
    talk.turn("let us think about this together")
    assert talk._waiting == ("s1", "let us think about this together")
    assert said == ["the driver is fetched in the background (s1); your words are taken up once it is here"]


def test_ctrl_c_while_the_driver_starts_gives_the_prompt_back_and_leaves_no_server(
    terminal: Open, tunesmith: Tunesmith, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeper = tmp_path / "vllm"
    sleeper.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(600)\n")
    sleeper.chmod(0o755)
    monkeypatch.setenv("TUNESMITH_VLLM", str(sleeper))
    monkeypatch.setenv("TUNESMITH_DRIVER", str(model_folder))
    _asks_the_driver(tunesmith.home)
    repl = terminal()
    repl.expect("tunesmith ❯")
    place = repl.line("let us think about this together")
    repl.expect("the driver is starting", after=place)
    place = repl.type("\x03")
    repl.expect("stopped; jobs go on", after=place)
    place = repl.line("/sql SELECT 6 * 7 AS answer")
    repl.expect("42", after=place)
    repl.wait(lambda: not servers.list_servers(tunesmith.home))
    assert "Traceback" not in repl.text


def test_a_plan_that_was_shown_is_not_shown_again_when_it_starts_unchanged(
    terminal: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(body: dict[str, Any]) -> Answer:
        last = body["messages"][-1]
        if last["role"] == "tool":
            return "Fine."
        if "go ahead" in str(last["content"]):
            return "start_plan", {"confirm": "start"}
        return "plan_fine_tune", {"behaviour": "demo", "goal": "tickets as JSON", "pace": "fast"}

    total = "Each step is priced again"
    with contextlib.closing(StubDriver(script)) as driver:
        monkeypatch.setenv("TUNESMITH_DRIVER", driver.url)
        repl = terminal()
        repl.expect("tunesmith ❯")
        repl.line("make it answer support tickets as JSON, just a quick try")
        repl.expect("or change something?")  # the line before it may end behind “Start it,”
        place = repl.line("go ahead")
        repl.expect("Start? [yes", after=place)
        assert repl.text.count(total) == 1
        threading.Event().wait(1.0)
        place = repl.line("not now")
        repl.expect("was declined", after=place)
        place = repl.line("/demo")
        repl.expect(total, after=place)
