"""Where somebody stands, for who was not understood: in at most five lines what people then need, by what goes on.

Everything is read from the records or priced as a step's own plan prices it; nothing is begun.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence

from tunesmith.agent.driver.look_ups import moment, remember
from tunesmith.agent.driver.plan_questions import training_beside, whole_price
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.queries import scores, settings
from tunesmith.agent.queries.answer import GOES_ON, cite, named, ordinary, reached, shortened
from tunesmith.agent.queries.artifacts import how_to_load
from tunesmith.agent.queries.curves import loss_so_far
from tunesmith.agent.queries.findings import FEW, FindingsQuery
from tunesmith.agent.queries.following import Ahead, chain_ahead, forecast_of, needed_by
from tunesmith.agent.queries.machine import ServedQuery, at_work
from tunesmith.agent.queries.prices import how_it_goes_on, inherited, quantized_sizes
from tunesmith.agent.queries.registry import answer
from tunesmith.agent.queries.runs import done_since
from tunesmith.memory.errors import TunesmithError
from tunesmith.memory.records import RUNNING, Run
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import count, duration, listed, size
from tunesmith.tools.evaluation.evidence import evidence_of
from tunesmith.tools.evaluation.verdict import LEARNED
from tunesmith.tools.pipeline.plan_file import PipelinePlan, StepSpec

_MOST = 5
"""Lines: a person who was not understood reads few."""
_RUNS = 3
"""The newest finished runs, a line each."""
_SETTINGS = ("lora_rank", "epochs", "batch_size", "learning_rate")
"""Of a training, what people ask of a plan."""
_WHAT_FOR: Mapping[str, str] = {
    "base": "fetches the model that is tuned", "baseline": "tests the untouched base", "import": "takes your own rows",
    "generate": "writes rows to train on", "critique": "checks the rows", "preflight": "tries every link on a few rows",
    "train": "trains the adapter", "evaluate": "tests the model", "merge": "writes base and adapter as one model",
    "quantize": "makes the model smaller", "deploy": "serves the model on a local port",
    "release": "writes files for other programs",
}  # fmt: skip


def standing(deps: TurnDeps) -> str:
    """Where somebody stands and what comes next; empty where the records say nothing. Raises nothing: it is beside a
    question back.

    Without an open plan, a step at work, or a model that is served it is about the run that is talked about.
    """
    try:
        return "\n".join([line for line in _lines(deps) if line][:_MOST])
    except TunesmithError:
        return ""


def while_it_runs(store: Store, told: str = "") -> list[str]:
    """Of each step at work how far it is and what becomes of it without its user, as far as `told` does not say so;
    none where nothing is at work."""
    lines: list[str] = []
    for step in store.steps(status=RUNNING):
        again = f"“go on” takes it up {GOES_ON[step.stage]}" if step.stage in GOES_ON else "“go on” begins it anew"
        kept = " and keeps what is written to disk" if step.stage in GOES_ON else ""
        lines += [] if f"({cite(step)}) is running" in told else [at_work(step)]
        lines += [
            loss_so_far(store, step),
            f"It goes on without you, also with this terminal closed. A computer that sleeps or is switched off halts "
            f"it; {again}. `/stop {step.id}` ends it{kept}.",
        ]
    return [line for line in lines if line and line not in told]


def _lines(deps: TurnDeps) -> list[str]:
    store, run = deps.store, deps.focused_run()
    match moment(deps):
        case "planned" if deps.draft is not None:
            return _of_plan(deps, deps.draft)
        case "running":
            return [*while_it_runs(store), *_finished(store, least=1)]
        case "empty":
            return [
                "There is no run yet: say what a model should learn, such as “answer the mails of my customers in two "
                "polite lines”, or `/import FILE` takes rows of your own.",
                "Each expensive step shows its time, memory and disk first and starts only after your yes. What you "
                "give me stays on this computer.",
            ]
        case "broken_off" if run is not None and (ended := store.broken_off(run.id)) is not None:
            why = f": {shortened(ended.error, 160)}" if ended.error else ""  # a clause of a line
            stop = "" if why.endswith(".") else "."
            first = f"{ended.stage} ({cite(ended)}) {ended.status}{why}{stop}{reached(ended)}"
            return [first, how_it_goes_on(deps.ws, ended), *_finished(store, least=1)]
        case "served":
            first, *rest = answer(ServedQuery(), deps.records()).lines
            results = [line for line in rest if line.startswith(("Of ", "Before it: "))]
            return [first, *results, *_differing(store, _tested(store)), *_released(store)]
        case _ if run is not None:
            return _of_run(deps, run)
    return []


def _of_plan(deps: TurnDeps, plan: PipelinePlan) -> list[str]:
    """An open plan: what it takes in all, and with which settings it trains."""
    from tunesmith.tools.pipeline.forecast import forecast

    steps = [spec.stage for spec in plan.steps]
    prices = forecast(deps.ws, plan)
    known = [(price.stage, price.estimate) for price in prices if price.estimate]
    takes = f"All of it takes about {whole_price(deps, known)}; each expensive step asks again before it starts."
    trains = next((price.decided for price in prices if price.stage == "train" and price.decided), {})
    values = [f"{name} {trains[name]:g}" for name in _SETTINGS if isinstance(trains.get(name), int | float)]
    written = [spec.fields.get("rows") for spec in plan.steps if spec.stage == "generate" and spec.fields.get("rows")]
    rows = "".join(f"write {many} rows and " for many in written)
    return [
        f"The plan {plan.name} is open and not started, {count(len(steps), 'step')} ({', '.join(dict.fromkeys(steps))})"
        f": “start it” begins it, “drop it” gives it up.",
        takes if known else "",
        f"It would {rows}train with {', '.join(values)}.{training_beside(deps, known)}" if values else "",
    ]


def _of_run(deps: TurnDeps, run: Run) -> list[str]:
    """A run that nothing is at work in: what was refused, what came of it or of the finished runs, what comes next."""
    store, tested = deps.store, _tested(deps.store)
    if len(tested) > 1 and run in tested:
        own = [*_finished(store), *_proposal(deps, run)]
    else:
        fails = scores.failing(store, run, FEW)
        own = [*scores.verdict_lines(store, run)[:1], _takes(store, run), fails, *_proposal(deps, run)]
    return [*_declined(store, run), *own, *_released(store), _next(deps, run)]


def _tested(store: Store) -> list[Run]:
    """The runs whose tuned model was tested, the newest first."""
    return [run for run in ordinary(store) if any(s.arm in scores.TUNED for s in scores.of_run(store, run.id))]


def _finished(store: Store, least: int = 2) -> list[str]:
    """The runs that were tested with what came of each, where there are so many, and in what the last two differ."""
    runs = _tested(store)
    if len(runs) < least:
        return []
    lines = []
    for run in runs[:_RUNS]:
        files = sum(artifact.bytes for artifact in store.artifacts(run.id))
        lines.append(f"{named(run, 30)}: {scores.in_short(store, run)}; all its files {size(files)}.")
    return [*lines, *(_differing(store, runs) or [f"{_free(store)} of disk is free."])]


def _free(store: Store) -> str:
    return size(shutil.disk_usage(store.home).free)


def _differing(store: Store, runs: Sequence[Run]) -> list[str]:
    """In what the last two tested runs differ, and how much disk is free; nothing where there is one."""
    if len(runs) < 2:
        return []
    new, old = runs[:2]
    pairs = settings.differing(store, old, new)
    each = "; ".join(f"{name} {a} / {b}" for name, (a, b) in pairs.items())
    how = f"differ in {shortened(each, 160)}" if pairs else "have the same recorded settings"
    both = f"{old.id} and {new.id}"
    return [f"{both} {how.rstrip('.')}. “Compare {both}” tells more; {_free(store)} of disk is free."]


def _takes(store: Store, run: Run) -> str:
    """What *learned* takes, where the run fell short of it, and the general block where it got worse."""
    measured = scores.of_run(store, run.id)
    arms = [s.arm for s in measured if s.arm in scores.TUNED and s.block == "target"]
    if not arms:
        return ""
    verdict = evidence_of(store, run.id, arms[-1]).verdict
    parts = [verdict.threshold] if verdict.word != LEARNED and verdict.threshold else []
    general = {s.arm: s for s in measured if s.block == "general"}
    base, tuned = general.get("base"), general.get(arms[-1])
    if base and tuned and tuned.passed < base.passed:
        parts.append(f"of the general block {tuned.passed} of {tuned.judged} pass, {base.passed} with the base")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _proposal(deps: TurnDeps, run: Run) -> list[str]:
    """What the findings propose where not all was learned."""
    if any(f": {LEARNED};" in line for line in scores.verdict_lines(deps.store, run)[:1]):
        return []
    query = FindingsQuery(about="next", run=run.id)
    reply = answer(query, deps.records())
    proposal = [line for line in reply.lines if line.startswith("To try next")][:1]
    if proposal:
        remember(deps, query, reply)  # “do that” means it
    return proposal


def _declined(store: Store, run: Run) -> list[str]:
    """The steps of a run that its user said no to and that were not done since."""
    rows = store.read(
        "SELECT DISTINCT a.step FROM approvals a JOIN steps s ON s.step = a.step"
        " WHERE s.run = ? AND a.decision = 'no' AND a.decided_by != 'edit' ORDER BY a.rowid",
        run.id,
    )
    steps = store.priced_steps(run.id)
    refused = [store.step(str(row["step"])) for row in rows]
    left = [step for step in refused if not done_since(steps, step)]
    what_for = [f"{step.stage} ({cite(step)}), which {_WHAT_FOR.get(step.stage, 'is a step')}" for step in left]
    each = listed(what_for[-_RUNS:], _RUNS)
    return [f"You said no to {each}: “{left[-1].stage}” shows its price again."] if left else []


def _released(store: Store) -> list[str]:
    """Where the newest release that is still there lies, and how it is loaded."""
    return [line for one in store.newest_of_kind("release") if (line := how_to_load(one))][:1]


def _next(deps: TurnDeps, run: Run) -> str:
    """The next step with its price and what it is for; of a run that is done how its model is used."""
    store = deps.store
    ahead = _priced(deps, run)
    if not ahead:
        released = "" if store.newest_of_kind("release") else ", “release” making files of it"
        return f"`/ask MESSAGE` puts a message to the model of {run.id}; “deploy” prices serving it{released}."
    first, *rest = ahead
    what = f"{first.stage} of the {first.arm} model, which was not tested yet" if first.arm else first.stage
    for_ = "" if first.arm else f", which {_WHAT_FOR[first.stage]}" if first.stage in _WHAT_FOR else ""
    if first.stage == "quantize" and (sizes := quantized_sizes(store, run)):
        merged = store.artifacts(run.id, "merged")[-1:]
        for_ += f" to {sizes}{f', from {size(merged[0].bytes)}' if merged else ''}"
    needs = f"{size(first.memory_bytes)} of memory and {size(first.disk_bytes)} of disk"
    price = f" It takes about {duration(first.seconds)}, {needs}." if first.seconds else ""
    seconds = [one.seconds for one in ahead if one.seconds is not None]
    known = "" if len(seconds) == len(ahead) else ", as far as that is known yet"
    takes = f"take about {duration(sum(seconds))}{known}; each expensive one asks first.{needed_by(ahead)}"
    more = f" The {len(ahead)} steps ahead {takes}" \
        if rest and seconds else ""  # fmt: skip
    return f"Next in {run.id} is {what}{for_}: “go on” shows its price.{price}{more}"


def _priced(deps: TurnDeps, run: Run) -> list[Ahead]:
    """The usual steps ahead of a run with what each will probably take; without prices where none can be made."""
    chain = chain_ahead(deps.store, run)
    try:
        specs = [
            StepSpec(stage=stage, fields=inherited(deps.ws, stage, {"arm": arm} if arm else {}, run.id))
            for stage, arm in chain
        ]
        return forecast_of(deps.records(), run, specs)
    except TunesmithError:
        return [Ahead(run.id, stage, arm, None) for stage, arm in chain]
