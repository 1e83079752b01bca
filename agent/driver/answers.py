"""Questions about the history, answered from the store: a table for the screen, and the same facts for the driver.

The driver gets numbers, names and ids, with the run cited; never a prompt, an output or a row that somebody wrote.
"""

from __future__ import annotations

import difflib
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from rich.console import Group, RenderableType

from tunesmith.agent.commands import render
from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.questions import show_run, what_made
from tunesmith.memory.records import (
    APPROVED,
    DONE,
    DRIVER_RUN,
    FAILED,
    PLANNED,
    RUNNING,
    STOPPED,
    Run,
    Step,
    TrainingRow,
)
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import duration
from tunesmith.tools.pipeline import catalog

if TYPE_CHECKING:
    from tunesmith.agent.commands.summary import Scores

Topic = Literal["runs", "run", "compare_runs", "setting", "served", "jobs", "rows"]
TOPICS: tuple[str, ...] = get_args(Topic)

_DAY_S = 86400.0
_ALIASES = {
    "rank": "lora_rank",
    "alpha": "lora_alpha",
    "lr": "learning_rate",
    "learning rate": "learning_rate",
    "batch": "batch_size",
    "epoch": "epochs",
    "precision": "precision",
    "bits": "scheme",
    "quantization": "scheme",
}
_BEGUN = (RUNNING, FAILED, STOPPED)
_ROWS_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Told:
    """An answer: what the user sees, what the driver is told, and the same in words for a driver that is too small."""

    shown: RenderableType
    facts: dict[str, Any]
    words: str


def answer(store: Store, topic: str, *, run: str, other_run: str, setting: str, current: Run | None) -> Told:
    """Answer one question. Raises BadInput or NotFound with what there is instead."""
    if topic == "runs":
        return _runs(store)
    if topic == "jobs":
        return _jobs(store)
    if topic == "served":
        return _served(store)
    chosen = find_run(store, run, current)
    if topic == "compare_runs":
        return _compare(store, *_pair(store, chosen, other_run))
    by_topic: Mapping[str, Callable[[], Told]] = {
        "run": lambda: _run(store, chosen),
        "setting": lambda: _setting(store, chosen, setting),
        "rows": lambda: _rows(store, chosen),
    }
    if topic not in by_topic:
        raise BadInput(f"no topic {topic!r}; the topics are {', '.join(TOPICS)}")
    return by_topic[topic]()


def find_run(store: Store, words: str, current: Run | None) -> Run:
    """The run that somebody means: an id, a time such as `yesterday`, part of a name; empty: the current one.

    Raises NotFound, naming the newest runs.
    """
    text = " ".join(words.lower().split())
    runs = [run for run in store.runs() if run.name != DRIVER_RUN]
    if not runs:
        raise NotFound("there is no run yet")
    if number := re.fullmatch(r"(?:run )?r?(\d+)", text):
        return store.run(f"r{number[1]}")
    if text in ("", "null", "none", "this", "current", "the current run", "this run"):
        return current or runs[0]
    if text in ("last", "latest", "newest", "last run", "the last run", "latest run"):
        return runs[0]
    if window := _window(text):
        inside = [run for run in runs if window[0] <= run.created_at < window[1]]
        if inside:
            return inside[0]
        raise NotFound(f"no run was begun {text}; the newest are: {', '.join(run.id for run in runs[:5])}")
    named = [run for run in runs if text in run.name.lower()]
    if named:
        return named[0]
    return store.run(words)


def _window(text: str) -> tuple[float, float] | None:
    """From and to, in seconds since the epoch, of a span that people name."""
    now = time.localtime()
    midnight = time.mktime((now.tm_year, now.tm_mon, now.tm_mday, 0, 0, 0, 0, 0, -1))
    if "yesterday" in text:
        return midnight - _DAY_S, midnight
    if "today" in text or "this morning" in text:
        return midnight, midnight + _DAY_S
    monday = midnight - now.tm_wday * _DAY_S
    if "last week" in text:
        return monday - 7 * _DAY_S, monday
    if "this week" in text:
        return monday, midnight + _DAY_S
    return None


def _runs(store: Store) -> Told:
    runs = [run for run in store.runs() if run.name != DRIVER_RUN]
    if not runs:
        return Told(render.plain("there is no run yet"), {"runs": []}, "There is no run yet.")
    lines = [
        {"run": run.id, "name": run.name, "status": run.status, "begun": _date(run.created_at)} | _target(store, run)
        for run in runs[:8]
    ]
    columns = ["run", "name", "status", "begun", "target passed"]
    table = render.rows_table(
        columns, [[line.get(column.replace(" ", "_"), "–") for column in columns] for line in lines]
    )
    newest = f"{runs[0].id} ({runs[0].name}), {runs[0].status}"
    words = f"There are {len(runs)} runs; the newest is {newest}." if len(runs) > 1 else f"There is one run: {newest}."
    return Told(table, {"runs": lines, "runs_in_all": len(runs)}, words)


def _run(store: Store, run: Run) -> Told:
    from tunesmith.agent.commands.summary import summarise, summary_view
    from tunesmith.tools.report.page import verdict_of

    summary = summarise(store, run.id)
    steps = store.steps(run.id)
    facts: dict[str, Any] = {
        "run": run.id,
        "name": run.name,
        "status": run.status,
        "begun": _date(run.created_at),
        "steps": {step.stage if not step.arm else f"{step.stage} {step.arm}": _step_words(step) for step in steps},
        "took": duration(summary.seconds),
        "passed": _passed(summary.blocks),
        "verdicts": [render.hop_line(compared).plain for compared in summary.comparisons],
    }
    shown = Group(render.run_table(show_run(store, run.id)), summary_view(summary))
    return Told(shown, facts, f"{run.id}: {verdict_of(store, run.id)}")


def _step_words(step: Step) -> str:
    took = f" in {duration(step.seconds)}" if step.seconds is not None else ""
    return f"{step.status}{took} ({step.id})"


def _passed(blocks: Scores) -> dict[str, dict[str, str]]:
    return {
        block: {arm: render.passed_text(score, of=True) for arm, score in scores.items()}
        for block, scores in blocks.items()
    }


def _target(store: Store, run: Run) -> dict[str, Any]:
    from tunesmith.agent.commands.summary import comparisons, pass_rates

    arms = _passed(pass_rates(comparisons(store, run.id))).get("target", {})
    return {"target_passed": ", ".join(f"{arm} {passed}" for arm, passed in arms.items()) or "–"}


def _pair(store: Store, chosen: Run, other_run: str) -> tuple[Run, Run]:
    if other_run.strip().lower() in ("", "null", "none"):
        others = [run for run in store.runs() if run.id != chosen.id and run.name != DRIVER_RUN]
        if not others:
            raise NotFound(f"there is no run beside {chosen.id} to compare with")
        return others[0], chosen
    return chosen, find_run(store, other_run, None)


def _compare(store: Store, one: Run, two: Run) -> Told:
    from tunesmith.agent.commands.summary import comparisons, pass_rates

    if one.id == two.id:
        raise BadInput(f"{one.id} and {two.id} are the same run; name two")
    settings = {run.id: _settings(store, run) for run in (one, two)}
    names = dict.fromkeys([*settings[one.id], *settings[two.id]])
    differing = {
        name: {run: values.get(name, "–") for run, values in settings.items()}
        for name in names
        if settings[one.id].get(name) != settings[two.id].get(name)
    }
    passed = {run.id: _passed(pass_rates(comparisons(store, run.id))) for run in (one, two)}
    seconds = {run.id: duration(sum(step.seconds or 0 for step in store.steps(run.id))) for run in (one, two)}
    rows = [[name, str(values[one.id]), str(values[two.id])] for name, values in differing.items()]
    for block in dict.fromkeys([*passed[one.id], *passed[two.id]]):
        cells = [passed[run.id].get(block, {}) for run in (one, two)]
        rows += [
            [f"{block}, {arm}", cells[0].get(arm, "–"), cells[1].get(arm, "–")]
            for arm in dict.fromkeys([*cells[0], *cells[1]])
        ]
    rows.append(["took", seconds[one.id], seconds[two.id]])
    facts = {"runs": [one.id, two.id], "settings_that_differ": differing, "passed": passed, "took": seconds}
    words = f"{one.id} and {two.id} differ in {len(differing)} settings; they and what passed are on your screen."
    return Told(render.rows_table(["", one.id, two.id], rows, exact=True), facts, words)


def _settings(store: Store, run: Run) -> dict[str, Any]:
    """`stage.field` → value of the newest finished step of each stage."""
    found: dict[str, Any] = {}
    for step in store.steps(run.id, status=DONE):
        name = f"{step.stage} {step.arm}" if step.stage == "evaluate" else step.stage
        found |= {f"{name}.{field}": value for field, value in step.request.items() if field not in ("run", "arm")}
    return found


def _setting(store: Store, run: Run, setting: str) -> Told:
    steps = [step for step in store.steps(run.id) if step.request]
    names = dict.fromkeys(name for step in steps for name in step.request if name != "run")
    wanted = setting.strip().lower().removeprefix("the ")
    wanted = _ALIASES.get(wanted, wanted.replace(" ", "_").replace("-", "_"))
    near = difflib.get_close_matches(wanted, names, 1, 0.5) or [name for name in names if wanted and wanted in name]
    if not near:
        known = ", ".join(names) or "none yet"
        raise BadInput(f"no setting {setting!r} in {run.id}; its settings are: {known}")
    name = near[0]
    step = _that_counts([step for step in steps if name in step.request])
    model = catalog.BY_NAME[step.stage].load().request
    info = model.model_fields[name]
    default = info.get_default(call_default_factory=True)
    facts = {
        "run": run.id,
        "step": step.id,
        "stage": step.stage,
        "status": _ran(step),
        "setting": name,
        "value": step.request[name],
        "default": default,
        "why": _why(store, run, step, name, default),
        "what_it_is": info.description or "",
    }
    stood = "" if step.status == DONE else f", {_ran(step)}"
    words = f"{name} is {facts['value']} in {step.stage} ({step.id} of {run.id}{stood}): {facts['why']}."
    rows = [[key, str(value)] for key, value in facts.items()]
    return Told(render.rows_table(["", ""], rows, exact=True), facts, words)


def _that_counts(steps: Sequence[Step]) -> Step:
    """The newest step that is done, else that was begun, else that was proposed: what was used, as far as any was."""
    begun = [step for step in steps if step.status in _BEGUN]
    return next(iter([step for step in reversed(steps) if step.status == DONE] or begun[-1:] or steps[-1:]))


def _ran(step: Step) -> str:
    return step.status if step.status in (DONE, *_BEGUN) else "proposed, not run"


def _why(store: Store, run: Run, step: Step, name: str, default: Any) -> str:
    """Who set a field, as far as the records say."""
    if any(re.search(rf"\b{name}=", edit) for edit in _edits_before(store, step)):
        return f"the user set it when {step.stage} was priced"
    if any(_as_read(step.stage, fields, name) == step.request[name] for fields in _planned(run, step.stage, name)):
        return f"it is written in the plan of {run.id} ({run.name})"
    if step.request[name] == default:
        return "nobody chose another value: it is the default"
    return f"it was given when {step.stage} was asked for"


def _edits_before(store: Store, step: Step) -> list[str]:
    """The edits that led to a step: each declined the plan before it, and the next one of its stage took its place."""
    asked = "SELECT reason FROM approvals WHERE step = ? AND decided_by = 'edit'"
    same_stage = [other.id for other in store.steps(step.run) if other.stage == step.stage]
    found: list[str] = []
    for before in reversed(same_stage[: same_stage.index(step.id)]):
        edits = [row["reason"] for row in store.read(asked, before)]
        if not edits:
            break
        found += edits
    return found


def _planned(run: Run, stage: str, name: str) -> list[dict[str, Any]]:
    planned = [spec.get("fields", {}) for spec in run.plan.get("steps", []) if spec.get("stage") == stage]
    return [fields for fields in planned if name in fields]


def _as_read(stage: str, fields: Mapping[str, Any], name: str) -> Any:
    """A planned field as the stage's request reads it: a plan that was changed in words holds `8` as text."""
    from tunesmith.tools.pipeline.plan_file import parse_fields

    try:
        return parse_fields(stage, fields)[name]
    except BadInput:
        return fields[name]


def _served(store: Store) -> Told:
    from tunesmith.agent.commands import served_models

    lines = [line for line in served_models.status(store) if line["role"] != "driver"]
    deployed = [line for line in lines if line["role"] == "deployed"]
    if not deployed:
        nothing = "nothing is deployed now"
        return Told(render.plain(nothing), {"deployed": nothing}, "Nothing is deployed now.")
    line = deployed[0]
    facts = {key: line[key] for key in ("url", "model", "healthy", "run", "step", "artifact")}
    if line["artifact"]:
        made = what_made(store, line["artifact"])
        facts["made_from"] = [
            f"{up['kind']} {up['artifact']} by {up['stage']} ({up['step']} of {up['run']})" for up in made["lineage"]
        ]
    rows = [[key, ", ".join(value) if isinstance(value, list) else str(value)] for key, value in facts.items()]
    made_by = f"{facts['run']} made it, in {facts['step']}" if facts["run"] else "no record says which run made it"
    words = f"{facts['model']} is served at {facts['url']}: {made_by}."
    return Told(render.rows_table(["", ""], [*rows, ["key file", line["key_file"]]], exact=True), facts, words)


def _jobs(store: Store) -> Told:
    from tunesmith.agent.commands.queries import job_line

    steps = [step for status in (RUNNING, APPROVED, PLANNED) for step in store.steps(status=status)]
    if not steps:
        nothing = {"jobs": [], "note": "nothing is running"}
        return Told(render.plain("no step runs, and none waits"), nothing, "Nothing is running, and nothing waits.")
    lines = []
    for step in steps:
        line = job_line(step)
        left = {"about_left": duration(line["eta_seconds"])} if line["eta_seconds"] is not None else {}
        share = {"share_done": f"{step.done / step.total:.0%}"} if step.total else {}
        lines.append({"step": step.id, "stage": step.stage, "run": step.run, "status": step.status} | share | left)
    columns = list(dict.fromkeys(name for line in lines for name in line))
    rows = [[line.get(column, "–") for column in columns] for line in lines]
    told = [f"{line['stage']} ({line['step']}) {_standing(line)}" for line in lines]
    return Told(render.rows_table(columns, rows), {"jobs": lines}, f"{'; '.join(told)}.")


def _standing(line: Mapping[str, Any]) -> str:
    if line["status"] == PLANNED:
        return "waits for your yes"
    left = f", about {line['about_left']} left" if "about_left" in line else ""
    return f"is {line['status']}, {line['share_done']} done{left}" if "share_done" in line else f"is {line['status']}"


def _decided(row: TrainingRow) -> str:
    return "" if row.verdict is None else "keep" if row.kept else "drop"


def _rows(store: Store, run: Run) -> Told:
    steps = [step for step in store.steps(run.id, status=DONE) if step.stage == "generate"]
    if not steps:
        raise NotFound(f"{run.id} has no training rows yet; generate makes them")
    rows = store.rows(steps[-1].id)
    verdicts = Counter(_decided(row) or "not judged yet" for row in rows)
    reasons = Counter(row.verdict.kind for row in rows if row.verdict and not row.verdict.keeps)
    cells = [
        [row.row_id, _decided(row), row.prompt[-1]["content"], row.completion[0]["content"]]
        for row in rows
        if row.origin == "generated"
    ][:_ROWS_SHOWN]
    table = render.rows_table(["row", "verdict", "prompt", "completion"], cells, exact=True)
    # What is in the rows goes to the screen alone: it is data that somebody else wrote.
    facts = {
        "run": run.id,
        "rows": len(rows),
        "verdicts": dict(verdicts),
        "reasons_for_dropping": dict(reasons),
        "note": f"{len(cells)} of them are on the user's screen now",
    }
    judged = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
    return Told(table, facts, f"{run.id} has {len(rows)} rows ({judged}); {len(cells)} of them are on your screen.")


def _date(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
