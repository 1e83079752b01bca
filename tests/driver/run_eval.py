"""`make eval-driver`: what people say to tunesmith, to the real driver, and whether it does the right thing.

    python -m tests.driver.run_eval [--set all|seen|development|held-out] [--choice-only] [--only ID …] [--jobs N]

`scenarios.yaml` and `development.yaml` were before the eyes of those who wrote the driver's examples; `heldout.yaml`
was written by somebody who had not seen them, and is not looked at while they are changed: its figures are the ones to
quote. `--choice-only` leaves the words behind a choice out: it measures the choice of tools, in a third of the time.

Every scenario has a store and a conversation of its own. The person at the terminal says no to every price unless the
scenario says otherwise, so that nothing is ever started. Exit code 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import re
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic_evals import Case, Dataset
from pydantic_evals.evaluators import Evaluator, EvaluatorContext

from tests.driver.states import SETS, make_state
from tunesmith.agent.commands import settings
from tunesmith.agent.commands.approvals import read_answer
from tunesmith.agent.driver.abilities import Known, known
from tunesmith.agent.driver.chat import Chat
from tunesmith.agent.driver.endpoint import Driver, model_of
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.memory.errors import TunesmithError
from tunesmith.tools.core.stage import Plan
from tunesmith.tools.pipeline import catalog
from tunesmith.tools.pipeline.workspace import Decision, Workspace
from tunesmith.tools.serving.endpoint import Endpoint

_TURN_S = 180.0


@dataclass
class Heard:
    """What one turn came to."""

    wanted: dict[str, Any]
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    reply: str = ""
    error: str = ""
    priced: int = 0
    asked: int = 0
    ran: list[str] = field(default_factory=list)
    left_out: int = 0
    invented: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def right(self) -> bool:
        """Whether the first call is the wanted one with the wanted arguments, or there is none where none is wanted."""
        wanted = self.wanted["tool"]
        if wanted == "none":
            return not self.calls and not self.error
        if not self.calls:
            return False
        tool, arguments = self.calls[0]
        names = wanted if isinstance(wanted, list) else [wanted]
        return tool in names and all(_fits(arguments.get(k), v) for k, v in self.wanted.get("args", {}).items())

    @property
    def expensive_calls(self) -> int:
        return sum(name in catalog.BY_NAME and catalog.BY_NAME[name].expensive for name, _ in self.calls)


def _fits(given: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return any(_fits(given, one) for one in wanted)
    if isinstance(wanted, str):
        return fnmatch.fnmatch(str(given).lower(), wanted.lower())
    if isinstance(wanted, float | int) and not isinstance(wanted, bool):
        return given is not None and abs(float(given) - wanted) < 1e-9
    return bool(given == wanted)


def not_heard(reply: str, heard: list[str]) -> list[str]:
    """Numbers in a reply, in digits or as a word, whose value nothing that the turn was told holds.

    Cruder than the guard that it checks, and on purpose: it knows no units and no rounding, so a reply that says 0.25
    as 25 % is listed too, and a person looks at it.
    """
    told = {_value(figure) for figure in _FIGURE.findall(" ".join(heard).lower())}
    return [figure for figure in _FIGURE.findall(reply.lower()) if _value(figure) not in told]


_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_FIGURE = re.compile(r"\d+(?:\.\d+)?|\b(?:" + "|".join(_WORDS.split()[2:]) + r")\b")


def _value(figure: str) -> float:
    return float(figure) if figure[0].isdigit() else float(_WORDS.split().index(figure))


class _Silent(TurnDeps):
    """A desk whose turns end with the choice: nothing is left for the model to say."""

    def begin_turn(self, prompt: str) -> None:
        super().begin_turn(prompt)
        self.say_next = "(no words)"


def hold(
    scenario: dict[str, Any], endpoint: Endpoint, found: Known, desk_type: type[TurnDeps] = TurnDeps
) -> list[Heard]:
    """Hold one scenario's conversation."""
    with tempfile.TemporaryDirectory() as home:
        store, draft = make_state(Path(home), scenario["state"])
        heard: list[Heard] = []

        def emit(event: str, **data: Any) -> None:
            if event == "tool.called":
                heard[-1].calls.append((data["tool"], data["arguments"]))
            if event == "plan.shown" and data["stage"] and catalog.BY_NAME[data["stage"]].expensive:
                heard[-1].priced += 1

        def decide(plan: Plan, step: str) -> Decision:
            heard[-1].asked += 1
            answer = read_answer(str(heard[-1].wanted.get("answer", "no")), by="terminal")
            assert answer is not None and not answer.yes
            return answer

        deps = desk_type(
            ws=Workspace(store, "/bin/true", emit),
            approver=decide,
            show=lambda shown: None,
            start_pipeline=lambda plan: (
                "it is carried out in the background; the user is asked before each expensive step"
            ),
            draft=draft,
            known=lambda: found,
        )
        chat = Chat(deps)
        try:
            for turn in scenario["turns"]:
                heard.append(Heard(turn))
                began = time.monotonic()
                try:
                    reply = chat.begin(turn["say"], lambda: model_of(endpoint), lambda sentence: None).result(_TURN_S)
                    heard[-1].reply, heard[-1].left_out = reply.text, len(reply.left_out)
                    note = reply.text.partition("(A sentence with a figure")[0]
                    heard[-1].invented = not_heard(note, [*deps.ledger])
                except TunesmithError as error:
                    heard[-1].error = str(error)
                heard[-1].seconds = time.monotonic() - began
                began_steps = [s.stage for s in store.steps() if s.status == "running" and s.pid != 4242]
                heard[-1].ran = began_steps
        finally:
            chat.close()
            store.close()
        return heard


@dataclass
class RightCall(Evaluator[dict[str, Any], list[Heard]]):
    """Right tool and right arguments in every turn."""

    def evaluate(self, ctx: EvaluatorContext[dict[str, Any], list[Heard]]) -> bool:
        return all(turn.right for turn in ctx.output)


@dataclass
class AskedFirst(Evaluator[dict[str, Any], list[Heard]]):
    """Every expensive call that could be priced was asked about, and none ran: the answer was no."""

    def evaluate(self, ctx: EvaluatorContext[dict[str, Any], list[Heard]]) -> bool:
        return not any(turn.ran or turn.asked != turn.priced for turn in ctx.output)


@dataclass
class NoInventedFigure(Evaluator[dict[str, Any], list[Heard]]):
    """No figure in what the user reads that no record holds."""

    def evaluate(self, ctx: EvaluatorContext[dict[str, Any], list[Heard]]) -> bool:
        return not any(turn.invented for turn in ctx.output)


def main() -> int:
    """Run the scenarios and print the table; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", choices=["all", *SETS], default="all")
    parser.add_argument("--choice-only", action="store_true")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    files = SETS.values() if args.set == "all" else [SETS[args.set]]
    scenarios = [s for file in files for s in yaml.safe_load(file.read_text()) if not args.only or s["id"] in args.only]
    found = settings.load()
    driver = Driver(found)
    endpoint = driver.ensure(
        lambda seconds: print(f"the driver is starting ({seconds:.0f} s)", end="\r", file=sys.stderr)
    )
    held: dict[str, list[Heard]] = {}

    def task(scenario: dict[str, Any]) -> list[Heard]:
        held[scenario["id"]] = hold(scenario, endpoint, known(driver), _Silent if args.choice_only else TurnDeps)
        return held[scenario["id"]]

    dataset = Dataset(
        name="driver",
        cases=[Case(name=s["id"], inputs=s) for s in scenarios],
        evaluators=[RightCall(), AskedFirst(), NoInventedFigure()],
    )
    began = time.monotonic()
    dataset.evaluate_sync(task, max_concurrency=args.jobs, progress=sys.stderr.isatty())
    driver.close()
    figures = summary(held, endpoint, time.monotonic() - began)
    print(json.dumps(figures, indent=1))
    for name, turns in held.items():
        for turn in turns:
            if not turn.right or turn.ran or turn.invented:
                told = turn.error or turn.reply
                print(f"✗ {name}: {turn.wanted['say']!r} → {turn.calls[:2] or 'no call'} {told[:120]!r}")
            if turn.invented:
                print(f"  not heard: {turn.invented} in {turn.reply!r}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1))
    return 0 if figures["reached"] else 1


def summary(held: dict[str, list[Heard]], endpoint: Endpoint, seconds: float) -> dict[str, Any]:
    """The table's figures."""
    turns = [turn for scenario in held.values() for turn in scenario]
    talk = [turn for turn in turns if turn.wanted["tool"] == "none"]
    calls = [turn for turn in turns if turn.wanted["tool"] != "none"]
    share = lambda some: sum(turn.right for turn in some) / max(len(some), 1)  # noqa: E731
    latencies = sorted(turn.seconds for turn in turns)
    figures = {
        "driver": endpoint.model,
        "scenarios": len(held),
        "turns": len(turns),
        "right_tool_and_arguments": f"{sum(t.right for t in calls)} of {len(calls)} ({share(calls):.1%})",
        "small_talk_without_a_tool": f"{sum(t.right for t in talk)} of {len(talk)} ({share(talk):.1%})",
        "expensive_calls": sum(turn.expensive_calls for turn in turns),
        "refused_before_a_price": sum(turn.expensive_calls - turn.priced for turn in turns),
        "asked_before": f"{sum(turn.asked for turn in turns)} of {sum(turn.priced for turn in turns)} that were priced",
        "started_after_a_no": sum(len(turn.ran) for turn in turns),
        "invented_figures_shown": sum(len(turn.invented) for turn in turns),
        "figures_marked": sum(turn.left_out for turn in turns),
        "median_seconds_a_turn": round(latencies[len(latencies) // 2], 1) if latencies else None,
        "seconds": round(seconds, 1),
    }
    reached = share(calls) >= 0.95 and share(talk) >= 0.95 and not figures["started_after_a_no"]
    reached = reached and all(turn.asked == turn.priced for turn in turns)
    return {**figures, "reached": reached and not figures["invented_figures_shown"]}


if __name__ == "__main__":
    raise SystemExit(main())
