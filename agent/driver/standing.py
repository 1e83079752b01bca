"""Where somebody stands and what comes next, from the records: said where the words could not be answered."""

from __future__ import annotations

from tunesmith.agent.driver.look_ups import moment, remember
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.queries.answer import cite, clip, reached
from tunesmith.agent.queries.findings import FindingsQuery
from tunesmith.agent.queries.following import next_stages
from tunesmith.agent.queries.machine import ServedQuery, at_work
from tunesmith.agent.queries.registry import answer
from tunesmith.agent.queries.scores import verdict_lines
from tunesmith.memory.errors import TunesmithError
from tunesmith.memory.records import RUNNING, Run
from tunesmith.tools.evaluation.verdict import LEARNED


def standing(deps: TurnDeps) -> str:
    """A line or two; empty where the records say nothing. Raises nothing: it stands beside a question back.

    Without an open plan, a step at work, or a model that is served it is about the run that is talked about.
    """
    try:
        return " ".join(line for line in _lines(deps) if line)
    except TunesmithError:
        return ""


def _lines(deps: TurnDeps) -> list[str]:
    store, run = deps.store, deps.focused_run()
    match moment(deps):
        case "planned" if deps.draft is not None:
            steps = [spec.stage for spec in deps.draft.steps]
            each = ", ".join(dict.fromkeys(steps))
            return [f"The plan {deps.draft.name} is open and not started, {len(steps)} steps ({each}): “start it” "
                    f"begins it, “drop it” gives it up."]  # fmt: skip
        case "running":
            return [at_work(step) for step in store.steps(status=RUNNING)]
        case "empty":
            return ["There is no run yet: say what a model should learn, or `/import FILE` takes rows of your own."]
        case "broken_off" if run is not None and (ended := store.broken_off(run.id)) is not None:
            why = f": {clip(ended.error, 160)}" if ended.error else ""
            return [f"{ended.stage} ({cite(ended)}) {ended.status}{why}.{reached(ended)} “Go on” prices it again, from "
                    f"its newest checkpoint where there is one."]  # fmt: skip
        case "served":
            first, *_ = answer(ServedQuery(), deps.records()).lines
            earlier = len(store.newest_of_kind("deployment")) > 1
            return [first, "“Roll back” prices what was served before it." if earlier else ""]
        case "midway" if run is not None:
            following = next_stages(store, run)[0]
            return [*_measured(deps, run), f"Next in {run.id} is {following}: “go on” shows its price."]
        case _ if run is not None:
            released = "" if store.artifacts(run.id, "release") else ", “release” making files of it"
            return [*_measured(deps, run), f"“Deploy” prices serving it{released}."]
    return []


def _measured(deps: TurnDeps, run: Run) -> list[str]:
    """The verdict on what was tuned, and what the findings propose."""
    verdict = verdict_lines(deps.store, run)[:1]
    query = FindingsQuery(about="next", run=run.id)
    reply = answer(query, deps.records())
    learned = any(f": {LEARNED};" in line for line in verdict)
    proposal = [] if learned else [line for line in reply.lines if line.startswith("To try next")][:1]
    if proposal:
        remember(deps, query, reply)  # “do that” means it
    return [*verdict, *proposal]
