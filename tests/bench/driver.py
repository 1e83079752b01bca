"""From the user's words to the first thing on the screen, with the real driver on a warm prefix.

Two turns that are not the first ones: small talk, whose answer is words, and a question about the history, whose
answer is a table. Goal: 3 s each, the median of five.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.fixtures.stored_runs import finished_run
from tunesmith.agent.commands import settings
from tunesmith.agent.driver.abilities import known
from tunesmith.agent.driver.chat import Chat
from tunesmith.agent.driver.endpoint import Driver, model_of
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.tools.pipeline.workspace import Decision, Workspace

GOAL_S = 3.0
_SAID = {
    "words": [
        "hello again",
        "you are quick today",
        "what does rank mean?",
        "nice weather, no?",
        "are you still there?",
    ],
    "table": ["how did it go?", "why rank 16?", "what is served?", "which runs are there?", "what was the scheme?"],
}


def main() -> int:
    """Print the medians; 1 where one of them misses the goal."""
    found = settings.load()
    driver = Driver(found)
    began = time.perf_counter()
    endpoint = driver.ensure(lambda seconds: None)
    figures: dict[str, float] = {"driver_up_s": round(time.perf_counter() - began, 1)}
    with tempfile.TemporaryDirectory() as home:
        store, _ = finished_run(Path(home))
        seen: list[float] = []
        deps = TurnDeps(
            ws=Workspace(store, None, lambda event, **data: None),
            approver=lambda plan, step: Decision(False, "terminal"),
            show=lambda shown: seen.append(time.perf_counter()),
            start_pipeline=lambda plan: "",
            known=lambda: known(driver),
        )
        chat = Chat(deps)

        def first_seen(words: str) -> tuple[float, float]:
            seen.clear()
            start = time.perf_counter()
            said = lambda text: seen.append(time.perf_counter())  # noqa: E731
            chat.begin(words, lambda: model_of(endpoint), said).result(180)
            return seen[0] - start, time.perf_counter() - start

        figures["first_turn_s"] = round(first_seen("hi")[1], 1)
        for kind, said in _SAID.items():
            took = [first_seen(words) for words in said]
            figures[f"{kind}_first_seen_s"] = round(statistics.median(first for first, _ in took), 2)
            figures[f"{kind}_whole_turn_s"] = round(statistics.median(whole for _, whole in took), 2)
        chat.close()
        store.close()
    driver.close()
    reached = all(value <= GOAL_S for name, value in figures.items() if name.endswith("first_seen_s"))
    print(json.dumps({"driver": endpoint.model, **figures, "goal_s": GOAL_S, "reached": reached}))
    return 0 if reached else 1


if __name__ == "__main__":
    raise SystemExit(main())
