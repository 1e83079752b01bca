"""What is here now: this machine, what a work needs of it or of a card, what is served, what is at work or waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tunesmith.agent.queries.answer import Answer, Context, cite, clip, day, decided_by, find, named, span, within
from tunesmith.agent.queries.arguments import Query, RunName, Since, Until
from tunesmith.agent.queries.curves import loss_so_far
from tunesmith.agent.queries.scores import in_short
from tunesmith.agent.queries.steps import at_work as at_work
from tunesmith.agent.queries.steps import facts_of, free_memory, memory_of
from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.questions import provenance_of
from tunesmith.memory.records import APPROVED, PLANNED, RUNNING, Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.core.format import count, size
from tunesmith.tools.core.machine import Machine, cores_text
from tunesmith.tools.machine.gpus import left_out_gpus, serves_on_cpu
from tunesmith.tools.machine.measure import measure_machine


class MachineQuery(Query):
    """This computer, measured now: its cards, memory, disk and cores."""

    kind: Literal["machine"] = "machine"
    part: Literal["all", "gpu", "ram", "disk", "cpu"] = "all"
    """What is told first."""


@dataclass(frozen=True, slots=True)
class Here:
    """This machine, and where vLLM would serve on it."""

    machine: Machine
    vllm: str
    """Its program; empty: none."""
    serves_on: Literal["cpu", "gpu"]


def answer(query: MachineQuery, context: Context) -> Answer:
    """What was asked of the machine first, the rest of it below."""
    home, vllm = context.store.home, context.ws.vllm or ""
    machine = measure_machine(home)
    here = Here(machine, vllm, "cpu" if not machine.gpus or serves_on_cpu(vllm or None) else "gpu")
    line_of = {
        "gpu": _gpu(machine),
        "ram": free_memory(machine),
        "disk": f"Disk: {size(machine.disk_free_bytes)} free where tunesmith keeps its models and runs ({home}).",
        "cpu": f"Processor: {machine.cpu}, {cores_text(machine.cores, machine.cores_allowed)}.",
    }
    # what was asked for first
    lines = [text for _, text in sorted(line_of.items(), key=lambda part: part[0] != query.part)]
    where = "the processor" if here.serves_on == "cpu" else "the graphics card"
    lines.append(f"vLLM serves on {where} ({vllm})." if vllm else "No vLLM was found; `tunesmith setup` installs it.")
    return Answer(tuple([*lines, *left_out_gpus()][:6]), (here,))  # a screen's worth: what was asked for is first


def _gpu(machine: Machine) -> str:
    if not machine.gpus:
        return "No GPU was found here: there is no VRAM, and everything is computed on the processor."
    cards = [f"{g.name}: {size(g.free_bytes)} of {size(g.total_bytes)} VRAM free" for g in machine.gpus]
    return f"{count(len(machine.gpus), 'GPU')}: {'; '.join(cards)}."


# What answers now and what did before, and what is at work or waits


class ServedQuery(Query):
    """Which model is served now, its address and where its key lies; or what was deployed before, when and by whose
    yes."""

    kind: Literal["served"] = "served"
    about: Literal["now", "history", "before"] = "now"
    run: RunName = ""
    since: Since = None
    until: Until = None


class JobsQuery(Query):
    """What is running with the time left, and what waits for a yes."""

    kind: Literal["jobs"] = "jobs"
    about: Literal["all", "running", "waiting"] = "all"


def served(query: ServedQuery, context: Context) -> Answer:
    """What is deployed now, which run made it, and what was deployed before."""
    store = context.store
    past = store.newest_of_kind("deployment")
    if query.about == "before":
        return _before(store, past)
    if query.about == "history" and past:
        return _history(query, store, past)
    deployed = deployed_now(store)
    before = [
        f"  {day(store.step(one.step).finished_at)}: {one.meta.get('arm', 'a')} model {one.meta.get('serves', '')} of "
        f"{one.run} ({one.step})"
        for one in past[:4]  # the newest
    ]
    run = query.run and find(store, query.run).id
    of_it = next((line for line in deployed if line["run"] == run), None)
    no_longer = [f"No: nothing of {run} is served now."] if run and of_it is None else []
    if not deployed:
        if not past:
            return Answer(("Nothing is served now, and nothing was deployed before.",))
        return Answer(("Nothing is served now: no server of a deployed model runs. Deployed before:", *before))
    line = of_it or deployed[0]
    state = "it is down" if line["down"] else "it does not answer at the moment"
    health = "" if line["healthy"] else f" ({state}; `tunesmith serve status` says more)"
    lines = [
        *no_longer,
        f"{clip(line['model'], 60)} is served at {line['url']}{health}; it was made in "
        f"{line['run'] or 'an unknown run'} ({line['step'] or '–'}).",
        f"Its key lies in {line['key_file']}; “how do I call it?” shows a call.",
        _lineage_line(store, str(line["artifact"])) if line["artifact"] else "",
    ]
    at = len(no_longer) + 1
    lines[at:at] = [_came_to(store, str(line["run"] or ""), str(line["artifact"] or "")), served_before(store)]
    # an answer stays on a screen
    lines += [f"{count(len(past), 'deployment')} in all:", *before[:3]] if len(past) > 2 else []
    return Answer(tuple(one for one in lines if one), run=str(line["run"] or ""))


def _before(store: Store, past: Sequence[Artifact]) -> Answer:
    """What was served before what is served now, or before what was last, and how it comes back."""
    if len(past) < 2:
        return Answer(("Nothing was deployed before that.",))
    last, before = past[:2]
    ended, is_down = (day(store.step(one.step).finished_at) for one in (before, last)), not deployed_now(store)
    at_first, then = ended
    model, newest = (f"the {one.meta.get('arm', '')} model {one.meta.get('serves', '')} of {one.run}"
                     for one in (before, last))  # fmt: skip
    lines = (
        f"Before {'the last one' if is_down else 'it'} {model} was served, deployed {at_first} ({before.step}); "
        f"{newest} took its place {then}.",
        "“Roll back” shows the price of bringing it back; nothing is switched without a yes.",
    )
    return Answer(lines)


def _came_to(store: Store, run: str, artifact: str) -> str:
    """What came of the model that is served, in a line; empty where its run is not known or its arm was not tested."""
    try:
        short = in_short(store, store.run(run), store.artifact(artifact).kind)
    except NotFound:
        return ""
    return f"Of {run} {short}." if short else ""


def _previous(store: Store) -> Artifact | None:
    """The deployment that a rollback goes back to; None where there is none."""
    from tunesmith.tools.export.deploy import previous_deployment

    try:
        return previous_deployment(store)
    except BadInput:
        return None


def served_before(store: Store) -> str:
    """What was served before the model that is served now, or was last, with its results; empty where nothing was."""
    if (one := _previous(store)) is None:
        return ""
    arm, run = str(one.meta.get("arm", "")), store.run(one.run)
    short = in_short(store, run, arm)
    return (
        f"Before it: the {arm} model {one.meta.get('serves', '')} of {named(run)}"
        f"{f' ({short})' if short else ''}; “roll back” prices serving it again."
    )


def _history(query: ServedQuery, store: Store, past: Sequence[Artifact]) -> Answer:
    """Every deployment that is asked about with its time and who agreed to it, the newest first."""
    chosen = [
        (one, step) for one in past
        if query.run in ("", one.run) and (step := store.step(one.step))
        and (within(step.finished_at, query.since, query.until) or not (query.since or query.until))
    ]  # fmt: skip
    if not chosen:
        about = f"{f' of {query.run}' if query.run else ''}{span(query.since, query.until)}"
        return Answer((f"Nothing{about} was deployed; in all {count(len(past), 'deployment')} happened.",))
    now = {str(line["artifact"]) for line in deployed_now(store) if not line["down"]}
    lines = []
    if now and past[0] not in [one for one, _ in chosen] and past[0].meta.get("serves") in now:
        short = in_short(store, store.run(past[0].run), str(past[0].meta.get("arm", "")))
        came_to = f" ({short})" if short else ""
        lines = [f"Served now: the {past[0].meta.get('arm', '')} model of {past[0].run}{came_to}."]
    # Five, as other lists here; the count says how many more there are.
    for one, step in chosen[:5]:
        by = store.read("SELECT decided_by FROM approvals WHERE step = ? AND decision = 'yes'", step.id)
        who = f", agreed to by {decided_by(by[0]['decided_by'])}" if by else ""
        model = f"the {one.meta.get('arm', '')} model {one.meta.get('serves', '')} of {one.run}"
        short = in_short(store, store.run(one.run), str(one.meta.get("arm", "")))
        came_to = f" Of {one.run} {short}." if short else ""
        when = "Served now, since " if one.meta.get("serves") in now and one is past[0] else ""
        lines.append(f"{when}{day(step.finished_at)}: {model} was deployed ({step.id}){who}.{came_to}")
    lines += [f"{len(chosen) - 5} more before."] if len(chosen) > 5 else []
    if now and (back := _previous(store)):
        model = f"the {back.meta.get('arm', '')} model {back.meta.get('serves', '')} of {back.run}"
        lines.append(f"“Roll back” prices serving {model} again.")
    return Answer(tuple(line for line in lines if line))


def _lineage_line(store: Store, artifact: str) -> str:
    try:
        lineage = provenance_of(store, artifact)["lineage"]
    except NotFound:
        return ""
    # a line or two
    each = [f"{up['kind']} {up['artifact']} ({up['stage']} {up['step']} of {up['run']})" for up in lineage[:4]]
    return f"Made from: {' ← '.join(each)}."


def jobs(query: JobsQuery, context: Context) -> Answer:
    """What runs now with the time left, and what waits for a yes."""
    store = context.store
    running = store.steps(status=RUNNING)
    waiting = [step for status in (APPROVED, PLANNED) for step in store.steps(status=status)]
    lines = [line for step in running for line in (at_work(step), loss_so_far(store, step), memory_of(step)) if line]
    if not running:
        ended = [step for run in store.runs() for step in store.steps(run.id) if step.finished_at]
        last = max(ended, key=lambda step: step.finished_at or 0.0, default=None)
        newest = f"; the last step to end was {last.stage} ({cite(last)}), {last.status} {day(last.finished_at)}" \
            if last else ""  # fmt: skip
        lines = [f"Nothing is running{newest}."]  # what is served answers all the same
        lines += [
            f"{clip(line['model'], 60)} of {line['run'] or 'an unknown run'} is served at {line['url']}."
            for line in deployed_now(store) if not line["down"]
        ]  # fmt: skip
    if query.about == "waiting":
        lines = []
    if query.about == "running" and running:
        waiting = []
    if waiting:
        # the newest: older ones seldom are meant
        names = ", ".join(f"{step.stage} ({cite(step)})" for step in waiting[-4:])
        lines.append(f"{len(waiting)} wait{'s' if len(waiting) == 1 else ''} for a yes: {names}.")
    elif not running or not lines:
        lines.append("Nothing waits for a yes.")
    return Answer(tuple(lines), tuple(facts_of(step) for step in [*running, *waiting[-4:]]))  # as many as are named


def deployed_now(store: Store) -> list[dict[str, object]]:
    """The servers of deployed models, those that are down too."""
    from tunesmith.agent.commands import served_models

    return [line for line in served_models.status(store) if line["role"] == "deployed"]
