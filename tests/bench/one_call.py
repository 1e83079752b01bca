"""How far the tools carry a driver without any wit: one fixed call for each question, and the first facts of it.

    python tests/bench/one_call.py [ID ...]

The questions are the 76 about steps, results and records of `tests/driver/answers.yaml`, judged as there by what the
screen shows; the calls stand in `one_call.yaml`. The driver is a script at the native level. What it gets right, a
model that chooses the same tool gets right, so a change of a query or of a tool's result shows here without any model.
Arguments that a tool does not have are left out; a tool that is gone is a wrong answer. Goal: 85 in a hundred.
"""

from __future__ import annotations

import datetime
import io
import json
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml
from pydantic_ai.messages import ModelMessage, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel
from rich.console import Console

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.driver.exam_home import make_exam_home  # noqa: E402
from tests.driver.facts_shown import NOWHERE, Facts  # noqa: E402
from tests.driver.run_answers import FIRST_LINES, PAGE_LINES, load  # noqa: E402
from tunesmith.agent.driver.chat import Chat  # noqa: E402
from tunesmith.agent.driver.history import Window  # noqa: E402
from tunesmith.agent.driver.turn_deps import TurnDeps  # noqa: E402
from tunesmith.memory.errors import TunesmithError  # noqa: E402
from tunesmith.memory.store import Store  # noqa: E402
from tunesmith.tools.pipeline.workspace import Decision, Workspace  # noqa: E402

GOAL = 0.85
CALLS = Path(__file__).with_name("one_call.yaml")
GROUPS = ("history", "results", "records")
REPEATED = 2
"""Lines, or facts, of a result that the driver says."""
LIMIT_S = 60.0


def questions() -> list[dict[str, Any]]:
    """What is asked, in its file's order."""
    return [item for item in load(no_model=True) if item.get("group") in GROUPS and not item.get("asks")]


def said_of(result: str) -> str:
    """The first lines of a result; of facts, what they are of and the first ones, each as its names and values."""
    try:
        told = json.loads(result)
    except ValueError:
        return "\n".join(result.splitlines()[:REPEATED])
    if not isinstance(told, dict):
        told = {"facts": told}
    facts = [*filter(None, [told.get("of")]), *told.get("facts", told.get("rows", []))[:REPEATED]]
    return "\n".join([*map(_line, facts or [told]), *map(str, told.get("says", ())[:REPEATED])])


def _line(fact: object) -> str:
    if not isinstance(fact, dict):
        return str(fact)
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in fact.items())


def script(tool: str, arguments: Mapping[str, Any]) -> FunctionModel:
    """The driver: its one call, then the first of what came back."""

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[Any]:
        results = [part for part in messages[-1].parts if isinstance(part, ToolReturnPart)]
        schema = next((one.parameters_json_schema for one in info.function_tools if one.name == tool), None)
        if results or schema is None:
            yield said_of(str(results[-1].content)) if results else f"There is no {tool}."
            return
        given = {name: value for name, value in arguments.items() if name in schema["properties"]}
        yield {0: DeltaToolCall(tool, json.dumps(given), tool_call_id="c1")}

    return FunctionModel(stream_function=stream)


def answered(home: Path, facts: Facts, item: Mapping[str, Any], call: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the screen shows for a question."""
    [(tool, arguments)] = call.items()
    today = datetime.datetime.combine(datetime.date.today(), datetime.time()).astimezone()
    days = {"<today>": today.isoformat(), "<yesterday>": (today - datetime.timedelta(days=1)).isoformat()}
    given = {name: days.get(one, facts.said(one)) if isinstance(one, str) else one for name, one in arguments.items()}
    screen = Console(file=io.StringIO(), record=True, width=4000)
    with closing(Store(home)) as store:
        deps = TurnDeps(
            ws=Workspace(store, None, lambda event, **data: None),
            approver=lambda plan, step: Decision(False, "bench"),
            show=screen.print,
            start_pipeline=lambda plan: "not started: this is a measurement",
            window=Window(131072),
        )
        with closing(Chat(deps)) as chat:
            turn = chat.begin(facts.said(item["say"]), lambda: script(tool, given), screen.print)
            try:
                turn.result(LIMIT_S)
            except TunesmithError as error:
                screen.print(str(error))
    return [line for line in screen.export_text().splitlines() if line.strip()]


def wrong_with(facts: Facts, item: Mapping[str, Any], lines: list[str]) -> list[str]:
    """What is missing in the first lines, or false anywhere."""
    first, whole = "\n".join(lines[: item.get("lines", FIRST_LINES)]), "\n".join(lines)
    missing = [f"not shown: {fact}" for fact in item.get("must", []) if not facts.shown(fact, first)]
    false = [pattern for pattern in item.get("not", []) if facts.shown(pattern, whole)]
    false += [pattern for pattern in NOWHERE if re.search(pattern, whole)]
    long = [f"{len(lines)} lines"] if len(lines) > item.get("page", PAGE_LINES) else []
    return missing + [f"shown: {pattern}" for pattern in false] + long


def main() -> int:
    """Print what is wrong, and how many are right; 1 below the goal."""
    calls = yaml.safe_load(CALLS.read_text(encoding="utf-8"))
    asked = [item for item in questions() if not sys.argv[1:] or item["id"] in sys.argv[1:]]
    right = 0
    with tempfile.TemporaryDirectory(prefix="one-call-") as folder:
        home = make_exam_home(Path(folder) / "home")
        facts = Facts.of(home)
        for item in asked:
            lines = answered(home, facts, item, calls[item["id"]])
            wrong = wrong_with(facts, item, lines)
            right += not wrong
            if wrong:
                print(f"NO {item['id']}: {'; '.join(wrong)}", *[f"   | {line[:160]}" for line in lines[:8]], sep="\n")
    reached = right >= GOAL * len(asked)
    print(json.dumps({"questions": len(asked), "right": right, "goal": GOAL, "reached": reached}))
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
