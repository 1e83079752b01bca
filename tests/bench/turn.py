"""From the user's words to the body of the tool, without the model: everything that is ours in a turn.

The model is a FunctionModel that answers at once. Goal: 10 ms, the median of 30 turns.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from pydantic_ai.messages import ModelMessage, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.fixtures.stored_runs import finished_run
from tunesmith.agent.driver.chat import Chat
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.tools.pipeline.workspace import Decision, Workspace

TURNS = 30
GOAL_S = 0.010
_CALL = {"about": "all"}


async def _model(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[Any]:
    if any(isinstance(part, ToolReturnPart) for part in messages[-1].parts):
        yield "Nothing runs."
    else:
        yield {0: DeltaToolCall(name="read_jobs", json_args=json.dumps(_CALL), tool_call_id=str(time.monotonic_ns()))}


def main() -> int:
    """Print the median and the worst; 1 where the goal is missed."""
    took: list[float] = []
    with tempfile.TemporaryDirectory() as home:
        store, _ = finished_run(Path(home))
        began = [0.0]
        deps = TurnDeps(
            ws=Workspace(store, None, lambda event, **data: None),
            approver=lambda plan, step: Decision(False, "terminal"),
            show=lambda shown: took.append(time.perf_counter() - began[0]),
            start_pipeline=lambda plan: "",
        )
        chat = Chat(deps)
        for _ in range(TURNS + 3):
            began[0] = time.perf_counter()
            chat.begin("is anything running?", lambda: FunctionModel(stream_function=_model), lambda text: None).result(
                30
            )
        chat.close()
        store.close()
    median = statistics.median(took[3:])
    figures = {"turns": TURNS, "median_ms": round(median * 1e3, 2), "worst_ms": round(max(took[3:]) * 1e3, 2)}
    print(json.dumps({**figures, "goal_ms": GOAL_S * 1e3, "reached": median <= GOAL_S}))
    return 0 if median <= GOAL_S else 1


if __name__ == "__main__":
    raise SystemExit(main())
