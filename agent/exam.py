"""The examination of a driver: six requests on the records of a made-up home, and what is right to do about each."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

from tunesmith.agent.queries.registry import TOOLS
from tunesmith.memory.records import EvalResult
from tunesmith.memory.store import Store

Level = Literal["native", "fallback"]
"""Who answers: the model, with a tool loop of its own, or code, which reads the words itself."""
_NEEDED = 5
"""Tasks of the six that a native driver passes. One may go wrong by chance."""
# The records of a made-up home: figures that are no other's, so that an answer shows where it was read.
TRAINED_S = {"r1": 611.0, "r2": 1322.0, "r3": 480.0}
PASSED = {"r1": 60, "r2": 71, "r3": 52}
CASES = 90
LEARNING_RATE = {"r1": 0.0002, "r2": 0.0003, "r3": 0.0007}


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a driver did with one task: its calls in order, and its last words."""

    calls: tuple[tuple[str, Mapping[str, object]], ...]
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
    right: Callable[[Attempt], bool]
    alone: bool = False
    """Whether failing it alone keeps a driver from being native."""


def _two_steps(attempt: Attempt) -> bool:
    acts = [(name, given.get("run")) for name, given in attempt.calls if name not in attempt.reads]
    return acts[:1] == [("evaluate", "r2")] and attempt.calls[0][0] in attempt.reads


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
EXAM = sha256(json.dumps([[task.name, task.asked, task.alone] for task in TASKS]).encode()).hexdigest()[:16]
"""Which examination this is: what another one found says nothing."""


def level_of(passed: Mapping[str, bool]) -> Level:
    """The level that the passed tasks stand for."""
    alone = all(passed.get(task.name, False) for task in TASKS if task.alone)
    return "native" if alone and sum(passed.values()) >= _NEEDED else "fallback"


def exam_store(home: Path) -> Store:
    """Three runs that trained and evaluated an adapter, the second the best and the slowest."""
    store = Store(home)
    for run in TRAINED_S:
        run_id = store.new_run(f"exam-{run}", goal="answer questions about a shop")
        rate = LEARNING_RATE[run]
        _done(store, run_id, "train", TRAINED_S[run], {"learning_rate": rate, "lora_rank": 16, "epochs": 2.0})
        step = _done(store, run_id, "evaluate", 45.0, {"arm": "adapter"})
        for number in range(CASES):
            passed = number < PASSED[run]
            case = f"target-{number:03}"
            store.add_results(run_id, step, [EvalResult("adapter", "target", case, "key", "{}", passed, float(passed))])
    return store


def _done(store: Store, run: str, stage: str, seconds: float, request: dict[str, object]) -> str:
    step = store.propose(
        run, stage, arm="adapter", request={**request, "run": run}, plan={}, plan_hash=sha256(run.encode()).hexdigest()
    )
    with store.write() as conn:
        conn.execute(
            "UPDATE steps SET status = 'done', result = '{}', seconds = ?, estimated_seconds = ?, started_at = ?, "
            "finished_at = ? WHERE step = ?",
            # another figure than what it took: a price is not to be told as that
            (seconds, seconds * 0.9, 1.8e9, 1.8e9 + seconds, step),
        )
    return step
