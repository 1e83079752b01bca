"""The REPL on a real terminal, with real workers, real keys and real signals."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import psutil
import pytest
from prompt_toolkit import PromptSession
from prompt_toolkit.application import create_app_session
from prompt_toolkit.output import DummyOutput

from tests.fixtures.terminal import Grace, Terminal, Tunesmith
from tests.fixtures.waiting import HANG_S
from tunesmith.agent.repl import repl as repl_
from tunesmith.agent.repl.repl import _Repl
from tunesmith.memory.records import Step
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline import catalog

pytestmark = pytest.mark.heavy

Open = Callable[..., Terminal]
PROMPT = "tunesmith ❯"
HEAVY = ("torch", "transformers", "trl", "peft", "vllm", "llmcompressor", "datasets", "pandas", "bitsandbytes")


def ready(terminal: Terminal) -> Terminal:
    terminal.expect(PROMPT)
    return terminal


def wait_for(store: Store, step: str, status: str) -> Step:
    deadline = time.monotonic() + HANG_S
    while (found := store.step(step)).status != status:
        assert time.monotonic() < deadline, f"{step} is {found.status}: {found.error}"
        time.sleep(0.02)
    return found


class Held(NamedTuple):
    """A REPL at its prompt, and a worker that is at work until it is let go."""

    repl: Terminal
    store: Store
    step: Step
    at_work: Path

    def let_go(self) -> None:
        """Let the worker go on with its work."""
        self.at_work.unlink()


@pytest.fixture
def held(terminal: Open, tunesmith: Tunesmith, model_folder: Path, at_work: Path) -> Iterator[Held]:
    """A step that was told yes at the prompt."""
    repl = ready(terminal())
    repl.line(f"/base model={model_folder}")
    repl.expect("Start?")
    repl.line("yes please")
    repl.expect("runs; /attach s1")
    repl.at_prompt()
    store = Store(tunesmith.home)
    step = repl.wait(lambda: (found := store.step("s1")).note and found)
    assert step.status == "running" and step.pid
    yield Held(repl, store, step, at_work)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(step.pid, signal.SIGKILL)


READY = """
import json, os, sys
import tunesmith.agent.repl.repl
from tunesmith.agent.repl.shell import Shell
shell = Shell.open(wake=lambda: None)
shell.begin()
agent = shell.talk.chat()._agent
tools = [name for toolset in agent.toolsets for name in getattr(toolset, "tools", {})]
print(json.dumps({"tools": tools, "modules": list(sys.modules)}), flush=True)
os._exit(0)
"""


def test_the_agent_has_all_its_tools_and_nothing_heavy(tunesmith: Tunesmith) -> None:
    done = subprocess.run([sys.executable, "-c", READY], env=tunesmith.env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])  # the greeting comes first
    assert {"read_runs", "plan_fine_tune", "start_plan", *(entry.name for entry in catalog.STAGES)} <= {*found["tools"]}
    assert not {*found["modules"]} & {*HEAVY}


def test_the_repl_loads_nothing_heavy(terminal: Open) -> None:
    repl = ready(terminal(cold=True))
    repl.line("/inspect")
    repl.expect("disk free")
    repl.line("/help train")
    repl.expect("lora_rank")
    libraries = set(re.findall(r"site-packages/([\w-]+)", Path(f"/proc/{repl.pid}/maps").read_text()))
    assert "pydantic_core" in libraries, "or the test sees nothing"
    assert not libraries & set(HEAVY)


def test_a_step_gives_the_prompt_back_and_tells_its_end(
    terminal: Open, model_folder: Path, tunesmith: Tunesmith
) -> None:
    repl = ready(terminal())
    repl.line(f"/base model={model_folder}")
    repl.expect("needed")
    repl.expect("Start?")
    repl.line("yes")
    repl.expect("✓ base (s1): took")
    step = Store(tunesmith.home).step("s1")
    assert step.status == "done" and step.approval
    assert Store(tunesmith.home).run("r1").status == "done"


def test_enter_and_other_words_are_no_answer_and_what_follows_a_no_is_its_reason(
    terminal: Open, model_folder: Path, tunesmith: Tunesmith
) -> None:
    repl = ready(terminal())
    repl.line(f"/base model={model_folder}")
    repl.expect("Start?")
    repl.answer("")
    place = repl.answer("/jobs")
    repl.expect("planned", after=place)
    place = repl.answer("rather the bundled one")
    repl.expect("neither a yes nor a no", after=place)
    place = repl.line("no, rather the bundled one")
    repl.expect("declined", after=place)
    row = Store(tunesmith.home).read("SELECT decision, reason FROM approvals")[0]
    assert tuple(row) == ("no", "no, rather the bundled one")
    assert Store(tunesmith.home).step("s1").pid is None
    assert Store(tunesmith.home).runs() == [], "a price that was declined leaves no run"


def test_a_slip_in_an_edit_is_told_and_asked_again(terminal: Open, model_folder: Path, tunesmith: Tunesmith) -> None:
    repl = ready(terminal())
    place = repl.line(f"/base model={model_folder}")
    for answer, told in (
        ("rol=teacher", "did you mean 'role'?"),
        ("role = teecher", "role is 'teecher'"),
        ("role=", "'role=' sets nothing in this step"),
        ("yes, role = teacher", "teacher"),
    ):
        repl.expect("Start?", after=place)
        place = repl.line(answer)
        repl.expect(told, after=place)
        place = repl.text.index(told, place)  # the question before it is drawn again with every key
    store = Store(tunesmith.home)
    repl.wait(lambda: len(store.priced_steps()) == 2)
    assert [(step.status, step.request["role"]) for step in store.priced_steps()] == [
        ("declined", "base"),
        ("planned", "teacher"),
    ]
    assert [row["reason"] for row in store.read("SELECT reason FROM approvals")] == ["edited: role=teacher"]


def test_ctrl_c_in_the_grace_leaves_a_question_undecided(
    terminal: Open, model_folder: Path, tunesmith: Tunesmith, grace: Grace
) -> None:
    """Asked by a slash command, and by a plan in the background."""
    plan = model_folder.parent / "plan.yaml"
    plan.write_text(f"name: two\nsteps:\n  - inspect\n  - stage: base\n    model: {model_folder}\n")
    assert tunesmith("run", str(plan)).returncode == 3
    repl = ready(terminal())
    for command in (f"/base model={model_folder}", "/resume r1"):
        place = repl.line(command)
        grace.await_next()
        repl.type("\x03")
        repl.expect("waits for a yes to plan", after=place)
        assert "Start?" not in repl.text[place:]
        place = repl.line("/sql SELECT 6 * 7 AS answer")
        repl.expect("42", after=place)
    store = Store(tunesmith.home)
    assert {run.status for run in store.runs()} == {"waiting"}
    assert not store.read("SELECT 1 FROM approvals WHERE step != 's1' AND decision = 'yes'")


def test_a_yes_typed_ahead_of_the_question_is_not_taken(
    terminal: Open, model_folder: Path, tunesmith: Tunesmith, grace: Grace
) -> None:
    """One that comes while the price stands there and its question does not."""
    repl = ready(terminal())
    repl.line(f"/base model={model_folder}")
    grace.await_next()
    repl.line("yes")
    grace.end()
    repl.expect("Start?")
    repl.answer("/jobs")
    repl.expect("Start?", after=repl.text.rindex("planned"))
    assert Store(tunesmith.home).step("s1").status == "planned"


def test_an_error_is_one_line_and_the_repl_lives_on(terminal: Open) -> None:
    repl = ready(terminal())
    for line, told in (
        ("/trian", "did you mean /train?"),
        ("/train lora_rnk=8", "did you mean 'lora_rank'?"),
        ("/train", "no run yet"),
        ("/show r9", "no run 'r9'"),
        ("/sql DROP TABLE runs", "only reading is allowed"),
        ("/attach", "no step is at work"),
        ("/base model='open", "quotation"),
        ("/base model=bundled on=ray", "no field 'on' here"),
        ("/demo --slow", "takes --fast, --on ray"),
        ("/demo --on mars", "takes --fast, --on ray"),
        ("/resume c1", "no conversation 'c1'"),
        ("/undo", "no turn to take back"),
    ):
        place = repl.line(line)
        repl.expect(told, after=place)
    assert "Traceback" not in repl.text


def test_run_resume_show_and_serve_mean_what_they_mean_at_the_shell(
    terminal: Open, model_folder: Path, tunesmith: Tunesmith
) -> None:
    """A plan is carried out by its file; a run is gone on with, and shown, by its name or as the newest."""
    plan = model_folder.parent / "plan.yaml"
    plan.write_text(f"name: named\nsteps:\n  - inspect\n  - stage: base\n    base_model: {model_folder}\n")
    repl = ready(terminal())
    place = repl.line(f"/run {plan}")
    repl.expect("base_model is model here", after=place)
    repl.expect("Start?", after=place)
    repl.answer("no")
    repl.expect("was declined", after=place)
    repl.at_prompt()
    for line, told in (
        ("/show", "r1 named: "),
        ("/run r1", "r1 named: "),
        ("/resume c1", "no conversation 'c1'"),
        ("/conversations resume c1", "no conversation 'c1'"),
        ("/serve", "nothing is served"),
        ("/serve r1", "no tuned model yet"),
        ("/serve --arm merged r1", "no tuned model yet"),
        ("/run nofile.yaml", "nofile.yaml is not there"),
    ):
        place = repl.line(line)
        repl.expect(told, after=place)
    place = repl.line("/resume")
    repl.expect("Start?", after=place)
    repl.answer("yes")
    store = Store(tunesmith.home)
    repl.wait(lambda: store.run("r1").status == "done")
    assert [run.name for run in store.runs()] == ["named"]


def test_ctrl_c_clears_the_line_and_ctrl_d_leaves(terminal: Open) -> None:
    repl = ready(terminal())
    repl.type("/trian\x03")
    place = repl.line("/sql SELECT 6 * 7 AS answer")
    repl.expect("42", after=place)
    assert "no command" not in repl.text
    repl.at_prompt()
    repl.type("\x04")
    assert repl.end() == 0


def test_ctrl_c_between_two_prompts_is_an_interrupt_and_the_second_one_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No prompt is there to read the key, so it comes as a signal; it must not end the REPL as a killed command."""
    keys: list[type[BaseException] | str] = [KeyboardInterrupt, "", KeyboardInterrupt, KeyboardInterrupt]

    now = [0.0]

    def prompt(*_: object, **__: object) -> str:
        key = keys.pop(0)
        if isinstance(key, str):
            now[0] += 1.1
            return key
        raise key

    monkeypatch.setattr(repl_, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(PromptSession, "prompt", prompt)
    with create_app_session(output=DummyOutput()):
        assert _Repl().run() == 0
    assert not keys, "the second Ctrl-C within a second left; the first ones did not"


def test_history_is_kept_from_one_start_to_the_next(terminal: Open) -> None:
    first = ready(terminal())
    place = first.line("/sql SELECT 41 + 1 AS answer")
    first.expect("42", after=place)
    first.line("/quit")
    first.end()
    second = ready(terminal())
    second.wait(lambda: second.type("\x1b[A") and "SELECT 41 + 1" in second.text)  # it is read behind the prompt
    place = second.type("\r")
    second.expect("42", after=place)


def test_a_killed_repl_leaves_its_worker_and_the_next_start_reports_it(held: Held, terminal: Open) -> None:
    held.repl.kill()
    held.let_go()
    wait_for(held.store, held.step.id, "done")
    assert terminal().expect("ended while nobody watched: ✓ base (s1)") > 0
    again = ready(terminal())
    time.sleep(1.0)
    assert "nobody watched" not in again.text, "it is told once"


def test_a_killed_worker_is_told_with_the_reason(held: Held) -> None:
    repl, store, step, _ = held
    assert step.pid
    os.killpg(step.pid, signal.SIGKILL)
    repl.expect("✗ base (s1) failed")
    assert "died without recording an end" in (store.step(step.id).error or "")
    assert not list((store.home / "models").glob("[!.]*")), "nothing half-written stands under a model's name"


def test_a_worker_killed_while_nobody_looked_is_found_by_the_next_command(held: Held, tunesmith: Tunesmith) -> None:
    step = held.step
    held.repl.kill()
    assert step.pid
    os.killpg(step.pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(step.pid)] if psutil.pid_exists(step.pid) else [])
    done = tunesmith("runs", "show", "r1", "--json")
    assert done.returncode == 0 and "died without recording an end" in done.stderr
    assert '"status": "failed"' in done.stdout


def test_ctrl_c_at_a_bar_lets_go_and_never_stops_the_job(held: Held) -> None:
    repl, store, step, _ = held
    place = repl.line("/attach s1")
    repl.expect("━", after=place)  # the bar: the prompt's own last line tells of the step, too
    repl.expect("left", after=repl.text.index("━", place))
    place = repl.type("\x03")
    repl.expect("let go of s1; it goes on. /attach s1 follows it again", after=place)
    held.let_go()
    repl.expect("✓ base (s1)", after=place)
    assert store.step(step.id).status == "done"


def test_leaving_says_what_goes_on(held: Held) -> None:
    repl, store, step, _ = held
    repl.type("\x04")
    repl.expect("base (s1) goes on without me; `tunesmith jobs attach s1` follows it")
    assert repl.end() == 0
    assert store.step(step.id).status == "running"


def test_the_toolbar_shows_the_job(held: Held) -> None:
    held.repl.expect("base s1 of r1 ·")


def test_stopping_asks_first(held: Held) -> None:
    repl, store, step, _ = held
    repl.line("/stop s1")
    repl.expect("(yes or no)")
    place = repl.line("no")
    repl.expect("s1 goes on", after=place)
    assert store.step(step.id).status == "running"
    place = repl.line("/stop")
    repl.expect("(yes or no)", after=place)
    repl.line("yes")
    wait_for(store, step.id, "stopped")
    repl.expect("stopped after")


def test_a_plan_asks_at_the_prompt_and_runs_to_its_end(
    terminal: Open, tunesmith: Tunesmith, model_folder: Path
) -> None:
    plan = model_folder.parent / "plan.yaml"
    plan.write_text(f"name: two\nsteps:\n  - inspect\n  - stage: base\n    model: {model_folder}\n")
    assert tunesmith("run", str(plan)).returncode == 3
    repl = ready(terminal())
    repl.line("/resume r1")
    repl.expect("Start?")
    repl.line("ok")
    repl.expect("r1 done: took")
    assert Store(tunesmith.home).run("r1").status == "done"


def test_a_command_on_a_terminal_asks_and_detaches(
    terminal: Open, tunesmith: Tunesmith, model_folder: Path, at_work: Path
) -> None:
    command = terminal("base", "--model", str(model_folder))
    command.expect("Start?")
    command.line("yes")
    store = Store(tunesmith.home)
    command.expect("━")
    command.type("\x03")
    assert command.end() == 130
    command.expect("jobs attach s1")
    assert store.step("s1").status == "running"
    at_work.unlink()
    wait_for(store, "s1", "done")
    assert tunesmith("jobs", "attach", "s1").returncode == 0
    assert store.step("s1").status == "done"
