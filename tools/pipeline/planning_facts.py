"""Gather what a plan may know: the machine as it is now, a run's artifacts, past durations.

The only part of planning that touches the world, so that plans themselves stay pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from sqlite3 import Row

from tunesmith.memory.json_values import as_float, as_object
from tunesmith.memory.records import DONE, Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.core.machine import Machine
from tunesmith.tools.core.pace import Past
from tunesmith.tools.core.rates import COMPUTE, START
from tunesmith.tools.core.stage import SERVING, TRAINING, UNMEASURED, Facts, Inputs
from tunesmith.tools.machine.gpus import serves_on_cpu, trains_on_cpu
from tunesmith.tools.machine.measure import measure_machine
from tunesmith.tools.machine.probe import measured_rates
from tunesmith.tools.serving import servers

_MOST_MARGIN = 1.3
"""More is no margin of arithmetic: something else was in the way."""
_PAST_STEPS = 60
"""A few whole runs: what older ones took says little of the versions and settings of today."""


def gather(
    store: Store,
    run: str,
    *,
    vllm: str | None,
    vllm_from: str = "",
    machine: Machine | None = None,
) -> Facts:
    """Everything a plan for `run` may know, measured now; `machine` is the one to plan for where it is not as it is."""
    machine = machine or measure_machine(store.home)
    return Facts(
        home=store.home,
        machine=machine,
        run=run,
        vllm=vllm,
        vllm_from=vllm_from,
        cpu_builds=cpu_builds(vllm),
        artifacts=newest_artifacts(store, run),
        past=past_steps(store, machine),
        measured=measured_rates(store.home),
        margin=margin_of(store, machine, cpu_builds(vllm)),
        served=frozenset(server.spec.weights_sha256 for server in servers.list_servers(store.home, role=servers.BENCH)),
    )


def margin_of(store: Store, machine: Machine, builds: frozenset[str]) -> float:
    """What a training on a card reserves, in times of what arithmetic says: what the newest measured one of this
    machine took of it, within bounds."""
    if not machine.gpus or TRAINING in builds:
        return 1.0
    rows = store.read(
        "SELECT json_extract(s.result, '$.peak_vram_bytes') AS peak, e.data AS seen,"
        " json_extract(s.result, '$.expected_vram_bytes') AS expected FROM steps s"
        " JOIN events e ON e.step = s.step AND e.event = 'step.done' WHERE s.status = ? AND peak > 0 AND expected > 0"
        " ORDER BY s.rowid DESC LIMIT ?",
        DONE,
        _PAST_STEPS,
    )
    mine = (row for row in rows if json.loads(row["seen"]).get("machine") == machine.fingerprint)
    newest = next(mine, None)
    return min(max(newest["peak"] / newest["expected"], 1.0), _MOST_MARGIN) if newest else UNMEASURED


def cpu_builds(vllm: str | None) -> frozenset[str]:
    """Which of SERVING and TRAINING are installed for the CPU, and leave a GPU alone."""
    builds = {SERVING: serves_on_cpu(vllm), TRAINING: trains_on_cpu()}
    return frozenset(name for name, on_cpu in builds.items() if on_cpu)


def inputs_of(store: Store, run: str) -> Inputs:
    """What a stage may inspect in a run; empty for a run that is not opened yet."""
    return Inputs(store, run, newest_artifacts(store, run))


def newest_artifacts(store: Store, run: str) -> dict[str, Artifact]:
    """The newest artifact of each kind in a run."""
    return {artifact.kind: artifact for artifact in store.artifacts(run)} if run else {}


def past_steps(store: Store, machine: Machine) -> tuple[Past, ...]:
    """The newest finished steps of this machine, the oldest first, with what each kind of work took where its worker
    measured that. A resumed one is left out: its time is not one run's."""
    rows = store.read(
        "SELECT s.run, s.stage, s.seconds, json_extract(s.plan, '$.estimate') AS price, e.data AS seen FROM steps s"
        " LEFT JOIN events e ON e.step = s.step AND e.event = 'step.done'"
        " WHERE s.status = ? AND json_extract(s.plan, '$.estimate.calibrated_seconds') > 0 AND s.seconds > 0"
        " AND (SELECT count(*) FROM approvals a WHERE a.step = s.step) = 1 ORDER BY s.rowid DESC LIMIT ?",
        DONE,
        _PAST_STEPS,
    )
    past = [_past(row, json.loads(row["price"]), json.loads(row["seen"] or "{}"), machine) for row in rows]
    return tuple(step for step in reversed(past) if step)


def _past(row: Row, price: Mapping[str, object], seen: Mapping[str, object], machine: Machine) -> Past | None:
    """A finished step as its successors' prices see it; None where another machine carried it out."""
    if seen.get("machine", machine.fingerprint) != machine.fingerprint:
        return None
    fixed, total = as_float(price.get("fixed_seconds", 0.0)), as_float(price["calibrated_seconds"])
    usual = {START: fixed, COMPUTE: total - fixed}  # of a version that priced no kinds
    took = {kind: as_float(seconds) for kind, seconds in as_object(seen.get("took", {})).items()}
    like, work = str(price.get("like", "")), as_object(price.get("work") or usual)
    on_gpu = "GPU" in like.split(", ")
    return Past(
        stage=row["stage"],
        like=", ".join(word for word in like.split(", ") if word != "GPU"),
        run=row["run"],
        priced=tuple((kind, seconds) for kind, one in work.items() if (seconds := as_float(one)) > 0),
        seconds=sum(took.values()) or row["seconds"],
        took=tuple(took.items()),
        spread=as_float(price.get("rates_spread", 1.0)),
        device="GPU" if on_gpu else "",
    )
