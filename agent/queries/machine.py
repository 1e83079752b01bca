"""What is here now: this machine, what a work needs of it or of a card, what is served, what is at work or waits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from tunesmith.agent.queries import scores
from tunesmith.agent.queries.answer import Context, decided_by, find, within
from tunesmith.agent.queries.facts import Fact, Query, Result, RunName, Since, Until
from tunesmith.agent.queries.steps import progress, timed
from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.json_values import picked
from tunesmith.memory.records import APPROVED, PLANNED, RUNNING, Artifact, Step
from tunesmith.memory.store import Store
from tunesmith.tools.core.machine import cores_text
from tunesmith.tools.machine.gpus import left_out_gpus, serves_on_cpu
from tunesmith.tools.machine.measure import measure_machine
from tunesmith.tools.suites.case import PRIMARY_BLOCK


class MachineQuery(Query):
    """This computer now: cards, memory, disk, cores."""

    kind: Literal["machine"] = "machine"


def answer(query: MachineQuery, context: Context) -> Result:
    """The machine as it is now, with why a card that is there is not used."""
    home, vllm = context.store.home, context.ws.vllm
    machine = measure_machine(home)
    on_cpu = not machine.gpus or serves_on_cpu(vllm)
    fact = {
        "gpus": len(machine.gpus),
        **{
            f"gpu_{at}": {"name": gpu.name, "free_vram_bytes": gpu.free_bytes, "vram_bytes": gpu.total_bytes}
            for at, gpu in enumerate(machine.gpus)
        },
        "free_ram_bytes": machine.ram_free_bytes,
        "ram_bytes": machine.ram_total_bytes,
        "free_swap_bytes": machine.swap_free_bytes,
        "free_disk_bytes": machine.disk_free_bytes,
        "models_and_runs_in": str(home),
        "cpu": machine.cpu,
        "cores": cores_text(machine.cores, machine.cores_allowed).removesuffix(" cores"),
        "models_are_served_on": "no vLLM program was found" if not vllm else "CPU" if on_cpu else "GPU",
        "vllm": vllm,
    }
    return Result((fact,), says=left_out_gpus())


# What answers now and what did before, and what is at work or waits


class ServedQuery(Query):
    """Deployments: which is served now, address, key file, who agreed, what a rollback brings."""

    kind: Literal["served"] = "served"
    run: RunName = ""
    since: Since = None
    until: Until = None


class JobsQuery(Query):
    """What runs, time left, losses so far; what waits for a yes."""

    kind: Literal["jobs"] = "jobs"


def served(query: ServedQuery, context: Context) -> Result:
    """The deployments that are meant; none is no error."""
    store, run = context.store, find(context.store, query.run).id if query.run else ""
    now = {str(line["artifact"]): line for line in deployed_now(store)}
    facts = list[Fact]()
    for one in store.newest_of_kind("deployment"):
        step, line = store.step(one.step), now.pop(str(one.meta.get("serves")), None)  # its newest one is what answers
        if run in ("", one.run) and within(step.finished_at or step.created_at, query.since, query.until):
            facts.append({**_deployment(store, one, step), **_now(line)})
    if not (run or query.since or query.until):  # of another home's records
        facts += [{"run": line["run"], "model": line["model"], **_now(line)} for line in now.values()]
    return Result(tuple(facts), {"run": run, "deployments": len(facts), "served_now": sum(map(_is_served, facts))})


def _is_served(deployment: Fact) -> bool:
    return bool(deployment["served_now"])


def _deployment(store: Store, one: Artifact, step: Step) -> Fact:
    """A deployment as it is recorded."""
    arm = str(one.meta.get("arm", ""))
    yes = store.read("SELECT decided_by FROM approvals WHERE step = ? AND decision = 'yes'", step.id)
    passed = [s for s in scores.of_run(store, one.run) if s.arm == arm and s.block == PRIMARY_BLOCK]
    return {
        "run": one.run,
        "arm": arm,
        "model": one.meta.get("model", ""),
        "address": one.meta.get("url", ""),
        "step": step.id,
        "deployed_at": step.finished_at,
        "agreed_by": decided_by(yes[0]["decided_by"]) if yes else "",
        "target_passed": f"{passed[0].passed} of {passed[0].judged}" if passed else "",
        "rollback_brings_back": one == _previous(store),
    }


def _now(line: Mapping[str, object] | None) -> Fact:
    """How a deployment answers now."""
    if line is None:
        return {"served_now": False}
    state = "answers" if line["healthy"] else line["down"] or "does not answer at the moment"
    return {
        "served_now": not line["down"],
        "address": f"{line['url']}/v1",
        "state": state,
        "key_file": line["key_file"],
    }


def _previous(store: Store) -> Artifact | None:
    """The deployment that a rollback goes back to; None where there is none."""
    from tunesmith.tools.export.deploy import previous_deployment

    try:
        return previous_deployment(store)
    except (BadInput, NotFound):
        return None


def jobs(query: JobsQuery, context: Context) -> Result:
    """The steps that run or wait, what is served, and the step that ended last."""
    store = context.store
    running = [{**timed(step), **progress(store, step)} for step in store.steps(status=RUNNING)]
    waiting = [timed(step) for status in (APPROVED, PLANNED) for step in store.steps(status=status)]
    ended = [step for run in store.runs() for step in store.steps(run.id) if step.finished_at]
    last = max(ended, key=lambda step: step.finished_at or 0.0, default=None)
    of = {
        "running": len(running),
        "waiting_for_a_yes": len(waiting),
        "served": [f"{line['model']} at {line['url']}" for line in deployed_now(store) if not line["down"]],
        "free_ram_bytes": measure_machine(store.home).ram_free_bytes if running else None,
        "ended_last": {"step": last.id, **picked(last, "run", "stage", "status", "finished_at")} if last else {},
    }
    return Result((*running, *reversed(waiting)), of)


def deployed_now(store: Store) -> list[dict[str, object]]:
    """The servers of deployed models, those that are down too."""
    from tunesmith.agent.commands import served_models

    return [line for line in served_models.status(store) if line["role"] == "deployed"]
