"""Strangers' sentences put to the real shell: what its screen showed and what happened, for readers to judge.

    python -m tests.bench.strangers FILE.yaml OUT [ID ...] [--driver [--level native|fallback]]

FILE holds items `{id, state, say, before}` (tests/heldout). `say` is typed in a home made for `state`, after `before`
(a line or several) where that is given; where a price waits, it is the answer to it. Every other question is answered
with a no. All is done in one process, and no worker is started: that one would be is recorded. There is no driver;
with --driver that of TUNESMITH_HOME is served beside. At the fallback level it is asked what code leaves, at the
native level everything, with tools of its own; no driver is examined. OUT gets `ID.txt`, the transcript, and
`ID.json`. Homes lie in a temporary folder; only the user's file that some sentences name is written where they name
it, /tmp/exam/tickets.jsonl, and stays there. Ends with 1 where a sentence could not be put.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from unittest.mock import patch

from prompt_toolkit import PromptSession
from prompt_toolkit.input import DummyInput
from prompt_toolkit.output import DummyOutput

from tests.driver.run_answers import NO
from tests.driver.stranger_states import home_of_state
from tests.fixtures import yaml_of
from tunesmith.agent.commands import approvals, settings
from tunesmith.agent.commands.run_steps import demo_plan
from tunesmith.agent.commands.terminal import SafeConsole
from tunesmith.agent.driver.endpoint import Driver
from tunesmith.agent.exam import Level
from tunesmith.agent.repl import shell as repl
from tunesmith.agent.repl.talk import Talk
from tunesmith.memory.errors import StepFailed
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline import launcher
from tunesmith.tools.pipeline.plan_file import PipelinePlan
from tunesmith.tools.release import release
from tunesmith.tools.serving.endpoint import Endpoint

NOBODY = {"TUNESMITH_DRIVER": "http://127.0.0.1:9/v1", "TUNESMITH_DRIVER_NAME": "none"}
PATIENCE_S = 10.0
"""For a plan that is carried out behind the prompt; what it waits for longer is a step that never ends here."""


class Answers(PromptSession[str]):
    """Who sits at the prompt when the shell asks: gives the answers there are, then a no."""

    def __init__(self, screen: io.StringIO) -> None:
        super().__init__(input=DummyInput(), output=DummyOutput())
        self.left: list[str] = []
        self.asked: list[tuple[str, str]] = []
        self._screen = screen

    def prompt(self, *args: Any, **more: Any) -> str:
        answer = self.left.pop(0) if self.left else NO
        self.asked.append((args[0], answer))
        self._screen.write(f"\n?? {args[0]}\n?> {answer}\n")
        return answer


class Shell(repl.Shell):
    """The shell on a screen of text. `idle` is unset while a plan is carried out."""

    def __init__(self, chosen: settings.Settings, store: Store, screen: io.StringIO) -> None:
        super().__init__(chosen, store, lambda: None)
        self.screen = screen
        self._asking = self.answers = Answers(screen)
        self.idle = threading.Event()
        self.idle.set()

    def main_console(self) -> SafeConsole:
        return SafeConsole(file=self.screen, width=150, height=60)

    def start_plan(self, plan: PipelinePlan | None, resume_run: str | None = None) -> None:
        self.idle.clear()
        super().start_plan(plan, resume_run)

    def _carry_out(self, plan: PipelinePlan | None, resume_run: str | None) -> None:
        try:
            super()._carry_out(plan, resume_run)
        finally:
            self.idle.set()

    def type(self, line: str) -> bool:
        """Carry out a line and the plan that it began; False where it leaves."""
        self.screen.write(f"\n❯ {line[:2000]}{'…' if len(line) > 2000 else ''}\n")
        alive, until = self.handle(line), time.monotonic() + PATIENCE_S
        self.answer_questions()
        while not self.idle.wait(0.1) and time.monotonic() < until:
            self.answer_questions()
        self.answer_questions()
        return alive


class Asked(NamedTuple):
    """A driver that is served, with what is known of it, and the level that it is asked at."""

    endpoint: Endpoint
    context_tokens: int
    level: Level


@contextmanager
def shell_in(home: Path, launched: list[tuple[str, dict[str, Any]]], driver: Asked | None) -> Iterator[Shell]:
    """A shell with no pause before a question, and workers recorded in `launched`; a model reads only as `driver`."""

    def launch(store: Store, step: str, **_: object) -> NoReturn:
        record = store.step(step)
        launched.append((record.stage, dict(record.request)))
        raise StepFailed(f"(harness) the worker of {record.stage} would run now")

    def no_model(talk: Talk) -> NoReturn:
        raise StepFailed("the driver cannot be reached (harness)")

    with ExitStack() as stack:
        stack.enter_context(patch.dict(os.environ, {**NOBODY, "TUNESMITH_HOME": str(home)}))
        chosen, there = settings.load(), dict[str, object](routing=True)
        if driver:
            there |= {"endpoint": driver.endpoint.url, "name": driver.endpoint.model, "key": driver.endpoint.key}
            there |= {"routing": driver.level == "fallback", "context_tokens": driver.context_tokens}
        chosen = chosen.model_copy(update={"driver": chosen.driver.model_copy(update=there)})
        store = Store(chosen.home)
        stack.callback(store.close)
        shell = Shell(chosen, store, io.StringIO())
        stack.callback(shell.talk.close)
        for owner, name, stand_in in (
            (approvals, "GRACE_S", 0.0),
            (repl, "_console", shell.main_console),
            *([] if driver else [(Talk, "_model", no_model)]),
            (launcher, "launch", launch),
            (release, "unwritable", lambda path: ""),  # the models are too small to be written as a GGUF
        ):
            stack.enter_context(patch.object(owner, name, stand_in))
        shell.monitor.look()
        shell.talk._load()  # here and now: what it says comes first
        yield shell


def plan_of(state: str) -> PipelinePlan | None:
    """The plan that is open in a state."""
    if "is open" not in state:
        return None
    epochs = next((n for n in (2.0, 4.0) if f"rank 16, {n:.0f} epochs" in state), 3.0)
    rows = next((n for n in (300, 400) if f"{n} rows" in state), 0)
    changed: dict[str, dict[str, Any]] = {
        "train": {"lora_rank": 16, "epochs": epochs},
        "generate": {"rows": rows} if rows else {},
    }
    plan = demo_plan(fast=False)
    steps = (s.model_copy(update={"fields": {**s.fields, **changed.get(s.stage, {})}}) for s in plan.steps)
    return plan.with_steps(tuple(steps))


_PRICED = {"a training step": "train again with rank 8", "quantizing": "quantize it again with 8 bits",
           "writing 400 rows": "generate 400 rows"}  # fmt: skip
"""What a price waits for → the order that shows it."""


def converse(shell: Shell, item: Mapping[str, Any]) -> tuple[bool, float]:
    """Type what comes before, then the sentence, unless it was an answer; whether the shell lives, the last seconds."""
    say, before, state = item["say"], item.get("before"), item["state"]
    at_price = state.startswith("a price waits")
    lines = [before] if isinstance(before, str) else [*(before or ())]
    if "just changed it to rank 64" in state:
        lines.append("rank 64")
    lines.append(_PRICED.get(state.split(":")[1].split(",")[0].strip(), "") if at_price else say)
    shell.answers.left = [say] if at_price or before else []
    alive, took = True, 0.0
    for line in lines:
        if line == say:
            if any(answer == say for _, answer in shell.answers.asked):
                break
            shell.answers.left.clear()
        began = time.monotonic()
        alive = shell.type(line)
        took = time.monotonic() - began
    return alive, took


def put(item: Mapping[str, Any], home: Path, driver: Asked | None) -> tuple[str, dict[str, Any]]:
    """Put a sentence in a new home: the transcript, and what happened."""
    state, launched = item["state"], list[tuple[str, dict[str, Any]]]()
    with home_of_state(home, state) as process, shell_in(home, launched, driver) as shell:
        before = {step.id: step.status for step in shell.store.steps()}
        served = (home / "servers").is_dir()
        deps, plan = shell.talk.chat().deps, plan_of(state)
        if plan:
            deps.draft = plan
        alive, took = converse(shell, item)
        steps, draft = shell.store.steps(), deps.draft
        moved = [(s.id, s.stage, s.status, dict(s.request)) for s in steps if s.status != before.get(s.id)]
        fate = None if plan is None else "dropped" if draft is None else "unchanged" if draft == plan else "changed"
        happened = {
            "took": round(took, 2),
            "launched": launched,
            "asked": shell.answers.asked,
            "steps": [step for step in moved if step[1] != "inspect"],
            "plan": fate,
            "draft": [(step.stage, step.fields) for step in draft.steps] if draft and fate == "changed" else None,
            "alive": alive,
            "killed": [process.poll() is not None] if process else [],
            "servers": sorted(path.name for path in (home / "servers").glob("*.json")) if served else None,
            "description": (home / "behaviours" / "draft.json").exists(),
        }
        return shell.screen.getvalue(), happened


def main() -> int:
    """Put the sentences, each in a home of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("ids", nargs="*", help="only these")
    parser.add_argument("--driver", action="store_true", help="serve the driver of TUNESMITH_HOME, and ask it")
    parser.add_argument("--level", choices=("native", "fallback"), default="fallback", help="who answers first")
    args = parser.parse_args()
    with ExitStack() as served:
        asked = None
        if args.driver:
            driver = Driver(settings.load())
            served.callback(driver.end)
            asked = Asked(driver.ensure(), driver.seen()[1], args.level)
        elif args.level == "native":
            parser.error("--level native needs --driver: no model answers without one")
        return put_all(args, asked)


def put_all(args: argparse.Namespace, driver: Asked | None) -> int:
    """Put the sentences; 1 where one could not be put."""
    args.out.mkdir(parents=True, exist_ok=True)
    failed = False
    for item in yaml_of(args.file.read_text(encoding="utf-8")):
        name, began = item["id"], time.monotonic()
        if args.ids and name not in args.ids:
            continue
        with tempfile.TemporaryDirectory(prefix="strangers-", ignore_cleanup_errors=True) as folder:
            try:
                shown, happened = put(item, Path(folder) / name, driver)
            except Exception:
                failed = True
                traceback.print_exc()
                continue
        told = "\n".join(f"{key}: {value}" for key, value in happened.items())
        (args.out / f"{name}.txt").write_text(f"STATE {item['state']}\n{shown}\n---\n{told}\n", encoding="utf-8")
        (args.out / f"{name}.json").write_text(json.dumps({"id": name, **happened}, default=str), encoding="utf-8")
        print(name, f"{time.monotonic() - began:.1f}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
