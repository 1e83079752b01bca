"""What a driver can really do, tried out: its abilities, and how much it is let do by itself."""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as TooLong
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunesmith.agent.commands.settings import DriverSettings
from tunesmith.agent.driver.abilities import keep
from tunesmith.agent.driver.chat import Chat
from tunesmith.agent.driver.endpoint import Endpoint, model_of, refusal_in
from tunesmith.agent.driver.history import Window
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.queries.registry import TOOLS
from tunesmith.memory.json_values import as_object
from tunesmith.memory.records import EvalResult
from tunesmith.memory.store import Store
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.pipeline.workspace import Decision, Workspace
from tunesmith.tools.serving.client import response_format_of

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletion, ChatCompletionUserMessageParam
    from openai.types.chat.chat_completion import Choice

_TIMEOUT_S = 120.0
"""A driver on a CPU thinks for a minute or two."""
_ANSWER_TOKENS = 768
"""One that thinks has thought by then."""
_CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "kelvin"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
_WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "The weather now.", "parameters": _CITY},
}
_ASKED: list[ChatCompletionUserMessageParam] = [
    {"role": "user", "content": "What is the weather in Oslo, in celsius? Use the tool."}
]


def probe(endpoint: Endpoint, home: Path, chosen: DriverSettings) -> dict[str, object]:
    """Try the driver out, in at most two minutes, and keep what was found.

    Every ability is true, false, or the words of its refusal; `level` is how much it is let do by itself.
    """
    abilities = asyncio.run(_abilities_of(endpoint))
    if abilities["auto"] is True:
        context = abilities.get("context_tokens")
        abilities |= examine(endpoint, Window(context) if isinstance(context, int) else Window())
    else:
        abilities |= {"level": "routed", "tasks_passed": "none: it calls no tool"}
    keep(home, endpoint.model, chosen, abilities)
    return abilities


async def _abilities_of(endpoint: Endpoint) -> dict[str, object]:
    checks: dict[str, tuple[Callable[[Choice], bool], dict[str, object]]] = {
        "auto": (_called, {"tools": [_WEATHER]}),
        "json_schema": (_is_city, {"response_format": response_format_of(_CITY, "w")}),
    }
    abilities: dict[str, object] = {"model": endpoint.model, "url": endpoint.url}
    async with endpoint.client(timeout_s=_TIMEOUT_S) as client:
        for name, (check, options) in checks.items():
            try:
                abilities[name] = check(await _ask(client, endpoint, **options))
            except Exception as error:  # whatever it is: this ability is not there
                abilities[name] = f"refused: {' '.join(str(refusal_in(error) or error).split())[:160]}"
        return abilities | await _context(client, endpoint)


async def _ask(client: AsyncOpenAI, endpoint: Endpoint, **options: Any) -> Choice:
    answer: ChatCompletion = await client.chat.completions.create(
        model=endpoint.model, messages=_ASKED, max_tokens=_ANSWER_TOKENS, temperature=0.0, **options
    )
    return answer.choices[0]


def _called(choice: Choice) -> bool:
    """Whether the tool is called first, with arguments that are JSON."""
    call = next(iter(choice.message.tool_calls or ()), None)
    if call is None or call.type != "function":
        return False
    return call.function.name == "weather" and isinstance(json.loads(call.function.arguments), dict)


def _is_city(choice: Choice) -> bool:
    value = json.loads(choice.message.content or "")
    return isinstance(value, dict) and set(value) == {"city", "unit"} and value["unit"] in ("celsius", "kelvin")


async def _context(client: AsyncOpenAI, endpoint: Endpoint) -> dict[str, object]:
    try:
        listed = [model for model in (await client.models.list()).data if model.id == endpoint.model]
        return {"context_tokens": getattr(listed[0], "max_model_len", None) if listed else None}
    except Exception:  # not every server says it
        return {"context_tokens": None}


Level = Literal["routed", "native"]
_DEADLINE_S = 100.0
"""For all six tasks: a person waits, and a driver that takes longer is none for a conversation."""
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


def examine(endpoint: Endpoint, window: Window) -> dict[str, object]:
    """The level of a served driver, and which tasks it passed; what the time did not reach counts as failed."""
    begun, passed = time.monotonic(), {}
    with tempfile.TemporaryDirectory() as home:
        store = exam_store(Path(home))
        for task in TASKS:
            left = _DEADLINE_S - (time.monotonic() - begun)
            try:
                passed[task.name] = left > 0 and task.right(_attempt_at(store, endpoint, window, task.asked, left))
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


def _attempt_at(store: Store, endpoint: Endpoint, window: Window, asked: str, left_s: float) -> Attempt:
    """Hold one turn of the agent. Raises what the endpoint raises, and TimeoutError."""
    calls: list[tuple[str, Mapping[str, object]]] = []

    def emit(event: str, /, **data: object) -> None:
        if event == "tool.called":
            calls.append((str(data["tool"]), as_object(data["arguments"])))

    def nobody_agrees(plan: Plan, step: str) -> Decision:
        return Decision(False, "examination", "this is an examination")

    deps = TurnDeps(
        ws=Workspace(store, None, emit),
        approver=nobody_agrees,
        show=lambda renderable: None,
        start_pipeline=lambda plan: "not started: this is an examination",
        window=window,
    )
    chat = Chat(deps)
    try:
        turn = chat.begin(asked, lambda: model_of(endpoint), lambda words: None)
        reply = turn.result(left_s)
        return Attempt(tuple(calls), " ".join([reply.text, *reply.left_out]))  # a figure that was marked was said
    except TooLong:
        chat.cancel()
        raise
    finally:
        chat.close()


def exam_store(home: Path) -> Store:
    """Three runs that trained and evaluated an adapter, the second the best and the slowest."""
    store = Store(home)
    for run in TRAINED_S:
        run_id = store.new_run(f"exam-{run}", goal="answer questions about a shop")
        rate = LEARNING_RATE[run]
        _done(
            store, run_id, "train", "adapter", TRAINED_S[run], {"learning_rate": rate, "lora_rank": 16, "epochs": 2.0}
        )
        step = _done(store, run_id, "evaluate", "adapter", 45.0, {"arm": "adapter"})
        for number in range(CASES):
            passed = number < PASSED[run]
            case = f"target-{number:03}"
            store.add_results(run_id, step, [EvalResult("adapter", "target", case, "key", "{}", passed, float(passed))])
    return store


def _done(store: Store, run: str, stage: str, arm: str, seconds: float, request: dict[str, object]) -> str:
    step = store.propose(
        run, stage, arm=arm, request={**request, "run": run}, plan={}, plan_hash=sha256(run.encode()).hexdigest()
    )
    with store.write() as conn:
        conn.execute(
            "UPDATE steps SET status = 'done', result = '{}', seconds = ?, estimated_seconds = ?, started_at = ?, "
            "finished_at = ? WHERE step = ?",
            # another figure than what it took: a price is not to be told as that
            (seconds, seconds * 0.9, 1.8e9, 1.8e9 + seconds, step),
        )
    return step
