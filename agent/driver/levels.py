"""How much a driver is let do by itself, found out in at most two minutes by talking to it as a user would.

`routed`: a schema-bound request chooses each step. `native`: the model's own tool loop, every tool of the moment, reads
at once, plans over several steps. Neither changes what may start: a price and a yes stand before every expensive step
at either level. The tasks are held through the agent itself, on made-up records, and judged by what it called and what
was left of its answer once its figures were held to the records; nobody there says yes to anything.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as TooLong
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from tunesmith.agent.driver.chat import Chat
from tunesmith.agent.driver.endpoint import Endpoint, model_of
from tunesmith.agent.driver.history import Window
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.queries.registry import TOOLS
from tunesmith.memory.records import EvalResult
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.pipeline.workspace import Decision, Workspace

Level = Literal["routed", "native"]
_DEADLINE_S = 100.0
_NEEDED = 5
"""Tasks of the six that a native driver passes."""
TRAINED_S = {"r1": 611.0, "r2": 1322.0, "r3": 480.0}
PASSED = {"r1": 60, "r2": 71, "r3": 52}
CASES = 90
LEARNING_RATE = {"r1": 0.0002, "r2": 0.0003, "r3": 0.0007}


@dataclass(frozen=True, slots=True)
class Told:
    """What a driver did with one task: its calls in order, and its last words."""

    calls: tuple[tuple[str, Mapping[str, Any]], ...]
    answer: str

    @property
    def reads(self) -> list[str]:
        """The reads among the calls."""
        return [name for name, _ in self.calls if name in TOOLS or name == "query_records"]

    @property
    def only_read(self) -> bool:
        """Whether something was looked up and nothing was ordered."""
        return bool(self.reads) and len(self.reads) == len(self.calls)

    def says(self, pattern: str) -> bool:
        """Whether the answer holds it."""
        return re.search(pattern, self.answer) is not None


@dataclass(frozen=True, slots=True)
class Task:
    """A request, and whether what was done about it is right."""

    name: str
    asked: str
    right: Callable[[Told], bool]
    alone: bool = False
    """Whether failing it alone keeps a driver from being native."""


def _two_steps(told: Told) -> bool:
    acts = [(name, given.get("run")) for name, given in told.calls if name not in told.reads]
    return acts[:1] == [("evaluate", "r2")] and told.calls[0][0] in told.reads


TASKS: tuple[Task, ...] = (
    Task("choice", "How long did training take in r1?", lambda t: t.only_read and t.says(r"10 min 11|\b611\b")),
    Task("arguments", "How many target cases does r2's adapter pass?", lambda t: t.only_read and t.says(r"\b71\b")),
    Task("abstention", "Thanks, that is all for today.", lambda t: not t.calls and bool(t.answer)),
    Task(
        "setting", "With which learning rate was r3 trained?", lambda t: t.only_read and t.says(r"0?\.0007|7e-0?4")
    ),
    Task("two steps", "Find the run that passes most target cases, then evaluate its adapter again.", _two_steps, True),
    Task(
        "three reads",
        "Which of r1, r2 and r3 took longest to train, and by how much more than the second?",
        lambda t: t.only_read and t.says(r"\br2\b") and t.says(r"11 min 51|\b711\b|11\.9|\b12 min"),
        True,
    ),
)  # fmt: skip


def examine(endpoint: Endpoint, window: Window, *, deadline_s: float = _DEADLINE_S) -> dict[str, Any]:
    """The level of a served driver, and which tasks it passed; what the time did not reach counts as failed."""
    begun, passed = time.monotonic(), {}
    with tempfile.TemporaryDirectory() as home:
        store = exam_store(Path(home))
        for task in TASKS:
            left = deadline_s - (time.monotonic() - begun)
            try:
                passed[task.name] = left > 0 and task.right(_held(store, endpoint, window, task.asked, left))
            except Exception:  # whatever an endpoint does instead of an answer, the task is not passed
                passed[task.name] = False
        store.close()
    return {
        "level": level_of(passed),
        "tasks_passed": f"{sum(passed.values())} of {len(passed)}",
        "tasks_failed": ", ".join(name for name, good in passed.items() if not good) or "none",
        "thinks": window.thinks,
        "examined_seconds": round(time.monotonic() - begun, 1),
    }


def level_of(passed: Mapping[str, bool]) -> Level:
    """The level that the passed tasks stand for."""
    alone = all(passed.get(task.name, False) for task in TASKS if task.alone)
    return "native" if alone and sum(passed.values()) >= _NEEDED else "routed"


def _held(store: Store, endpoint: Endpoint, window: Window, asked: str, left_s: float) -> Told:
    """Hold one turn of the agent. Raises what the endpoint raises, and TimeoutError."""
    calls: list[tuple[str, Mapping[str, Any]]] = []

    def emit(event: str, /, **data: Any) -> None:
        if event == "tool.called":
            calls.append((data["tool"], data["arguments"]))

    def nobody_agrees(plan: Plan, step: str) -> Decision:
        return Decision(False, "examination", "this is an examination")

    deps = TurnDeps(
        ws=Workspace(store, None, emit),
        approver=nobody_agrees,
        show=lambda shown: None,
        start_pipeline=lambda plan: "not started: this is an examination",
        window=window,
    )
    chat = Chat(deps)
    try:
        turn = chat.begin(asked, lambda: model_of(endpoint), lambda words: None)
        answer = turn.result(left_s).text
        return Told(tuple(calls), answer)
    except TooLong:
        chat.cancel()
        raise
    finally:
        chat.close()


def exam_store(home: Path) -> Store:
    """Three runs that trained and evaluated an adapter, the second the best and the slowest."""
    store = Store(home)
    for run in TRAINED_S:
        made = store.new_run(f"exam-{run}", goal="answer questions about a shop")
        rate = LEARNING_RATE[run]
        _done(store, made, "train", "adapter", TRAINED_S[run], {"learning_rate": rate, "lora_rank": 16, "epochs": 2.0})
        step = _done(store, made, "evaluate", "adapter", 45.0, {"arm": "adapter"})
        for number in range(CASES):
            passed = number < PASSED[run]
            case = f"target-{number:03}"
            store.add_result(made, step, EvalResult("adapter", "target", case, "key", "{}", passed, float(passed)))
    return store


def _done(store: Store, run: str, stage: str, arm: str, seconds: float, request: dict[str, object]) -> str:
    step = store.propose(
        run, stage, arm=arm, request={**request, "run": run}, plan={}, plan_hash=sha256(run.encode()).hexdigest()
    )
    with store.write() as conn:
        conn.execute(
            "UPDATE steps SET status = 'done', result = '{}', seconds = ?, estimated_seconds = ?, started_at = ?, "
            "finished_at = ? WHERE step = ?",
            (seconds, seconds * 0.9, 1.8e9, 1.8e9 + seconds, step),
        )
    return step
