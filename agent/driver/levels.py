"""How much a driver is let do by itself, found out in at most two minutes by tasks on made-up records.

`routed`: a schema-bound request chooses each step. `native`: the model's own tool loop, every tool of the moment, reads
in parallel, plans over several steps. Neither changes what may start: a price and a yes stand before every expensive
step at either level. The tasks are asked with the model's own tool calling; a driver is native where it passes nearly
all of them, and those that show a loop of its own in any case.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tunesmith.agent.driver.endpoint import Endpoint

Level = Literal["routed", "native"]
_DEADLINE_S = 100.0
_CALL_S = 40.0
_ROUNDS = 6
_NEEDED = 5
"""Tasks of the six that a native driver passes."""
_TOOK = {"r1": 611.0, "r2": 1322.0, "r3": 480.0}
_SYSTEM = (
    "You answer from tools about fine-tuning runs r1, r2 and r3. Call a tool for every fact; never invent one. When "
    "you have the facts, answer in one short sentence. Where no tool is needed, call none."
)


@dataclass(frozen=True, slots=True)
class Told:
    """What a driver did with one task: its calls in order, and its last words."""

    calls: tuple[tuple[str, Mapping[str, Any]], ...]
    answer: str


@dataclass(frozen=True, slots=True)
class Task:
    """A request, and whether what was done about it is right."""

    name: str
    asked: str
    right: Callable[[Told], bool]
    alone: bool = False
    """Whether failing it alone keeps a driver from being native."""


def _called(told: Told, name: str, **given: Any) -> bool:
    return any(one == name and all(arguments.get(k) == v for k, v in given.items()) for one, arguments in told.calls)


def _right_three_reads(told: Told) -> bool:
    read = {str(arguments.get("run")) for name, arguments in told.calls if name == "step_time"}
    return read >= set(_TOOK) and "r2" in told.answer and not any(name == "start_evaluation" for name, _ in told.calls)


TASKS: tuple[Task, ...] = (
    Task(
        "choice",
        "How long did training take in r1?",
        lambda told: _called(told, "step_time", run="r1", stage="train") and "611" in told.answer,
    ),
    Task(
        "arguments",
        "How many target cases does the quantized model of r2 pass?",
        lambda told: _called(told, "score", run="r2", arm="quantized", block="target"),
    ),
    Task("abstention", "Thanks, that is all for today.", lambda told: not told.calls and bool(told.answer)),
    Task(
        "long result",
        "What does the log of r3 say about the learning rate?",
        lambda told: _called(told, "read_log", run="r3") and re.search(r"0?\.0007|7e-0?4", told.answer) is not None,
    ),
    Task(
        "two steps",
        "Look up which run is the best, then start an evaluation of that run.",
        lambda told: (
            [name for name, _ in told.calls][:2] == ["best_run", "start_evaluation"]
            and _called(told, "start_evaluation", run="r2")
        ),
        alone=True,
    ),
    Task("three reads", "Which of r1, r2 and r3 took longest to train?", _right_three_reads, alone=True),
)


def examine(endpoint: Endpoint, *, deadline_s: float = _DEADLINE_S) -> dict[str, Any]:
    """The level of a served driver, and which tasks it passed; what the time did not reach counts as failed."""
    begun, passed = time.monotonic(), {}
    with endpoint.client(timeout_s=_CALL_S) as client:
        for task in TASKS:
            left = deadline_s - (time.monotonic() - begun)
            try:
                passed[task.name] = left > 0 and task.right(_carried_out(client, endpoint.model, task.asked, left))
            except Exception:  # whatever an endpoint does instead of an answer, the task is not passed
                passed[task.name] = False
    return {
        "level": level_of(passed),
        "tasks_passed": f"{sum(passed.values())} of {len(passed)}",
        "tasks_failed": ", ".join(name for name, good in passed.items() if not good) or "none",
        "examined_seconds": round(time.monotonic() - begun, 1),
    }


def level_of(passed: Mapping[str, bool]) -> Level:
    """The level that the passed tasks stand for."""
    alone = all(passed.get(task.name, False) for task in TASKS if task.alone)
    return "native" if alone and sum(passed.values()) >= _NEEDED else "routed"


def _carried_out(client: Any, model: str, asked: str, left_s: float) -> Told:
    """Hold the tool loop of one task. Raises what the endpoint raises."""
    until = time.monotonic() + left_s
    messages: list[Any] = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": asked}]
    calls: list[tuple[str, Mapping[str, Any]]] = []
    for _ in range(_ROUNDS):
        reply = client.chat.completions.create(
            model=model, messages=messages, tools=_TOOLS, temperature=0.0, max_tokens=160,
            timeout=max(1.0, min(_CALL_S, until - time.monotonic())),
        ).choices[0].message  # fmt: skip
        if not reply.tool_calls:
            return Told(tuple(calls), reply.content or "")
        made = [(call.id, call.function.name, json.loads(call.function.arguments or "{}")) for call in reply.tool_calls]
        messages.append({"role": "assistant", "content": reply.content or "", "tool_calls": [
            {"id": call.id, "type": "function",
             "function": {"name": call.function.name, "arguments": call.function.arguments}}
            for call in reply.tool_calls
        ]})  # fmt: skip
        for call_id, name, arguments in made:
            calls.append((name, arguments))
            messages.append({"role": "tool", "tool_call_id": call_id, "content": _result(name, arguments)})
    return Told(tuple(calls), "")


def _result(name: str, arguments: Mapping[str, Any]) -> str:
    """What the made-up records hold."""
    run = str(arguments.get("run", ""))
    if name == "step_time":
        return f"{arguments.get('stage')} of {run} took {_TOOK.get(run, 0):g} seconds"
    if name == "score":
        return f"{arguments.get('arm')} of {run} passes 71 of 90 {arguments.get('block')} cases"
    if name == "best_run":
        return "the best run is r2: 71 of 90 target cases"
    if name == "read_log":
        filler = "\n".join(f"step {n}: loss {2.0 / n:.3f}, 84 tokens a second" for n in range(1, 60))
        return f"{filler}\nlearning rate 0.0007, cosine to 0\n{filler}"
    if name == "start_evaluation":
        return f"the evaluation of {run} is priced at 90 seconds and waits for the user's yes"
    return f"there is no tool {name}"


def _tool(name: str, description: str, **properties: Sequence[str]) -> dict[str, Any]:
    fields = {field: {"type": "string", "enum": [*values]} for field, values in properties.items()}
    parameters = {"type": "object", "properties": fields, "required": [*fields], "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


_RUNS = ("r1", "r2", "r3")
_TOOLS = [
    _tool("step_time", "How long a stage of a run took.", run=_RUNS, stage=("train", "generate", "evaluate", "merge")),
    _tool(
        "score",
        "How many cases an arm of a run passes on a block.",
        run=_RUNS,
        arm=("base", "adapter", "merged", "quantized"),
        block=("target", "general", "tools"),
    ),
    _tool("best_run", "Which run is the best."),
    _tool("read_log", "The whole training log of a run.", run=_RUNS),
    _tool("start_evaluation", "Price an evaluation of a run and ask the user for a yes.", run=_RUNS),
]
