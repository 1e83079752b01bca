"""Gather what a plan may know: the machine as it is now, a run's artifacts, past durations.

The only part of planning that touches the world, so that plans themselves stay pure.
"""

from __future__ import annotations

from collections import Counter

from tunesmith.memory.records import DONE, Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.core.machine import Machine
from tunesmith.tools.core.stage import SERVING, TRAINING, Facts, Inputs, Past
from tunesmith.tools.machine.gpus import measure_gpus as measure_gpus
from tunesmith.tools.machine.gpus import serves_on_cpu, trains_on_cpu
from tunesmith.tools.machine.measure import measure_machine
from tunesmith.tools.machine.probe import measured_rates
from tunesmith.tools.serving import servers

_PAST_STEPS = 5


def gather(
    store: Store,
    run: str,
    *,
    vllm: str | None,
    vllm_from: str = "",
    machine: Machine | None = None,
) -> Facts:
    """Everything a plan for `run` may know, measured now; `machine` is the one to plan for where it is not as it is."""
    return Facts(
        home=store.home,
        machine=machine or measure_machine(store.home),
        run=run,
        vllm=vllm,
        vllm_from=vllm_from,
        cpu_builds=cpu_builds(vllm),
        artifacts=newest_artifacts(store, run),
        past=past_steps(store),
        measured=measured_rates(store.home),
        served=frozenset(server.spec.weights_sha256 for server in servers.list_servers(store.home, role=servers.BENCH)),
    )


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


def past_steps(store: Store) -> dict[str, tuple[Past, ...]]:
    """The newest finished steps of each stage and kind. A resumed one is left out: its time is not one run's."""
    rows = store.read(
        "SELECT stage, seconds, json_extract(plan, '$.estimate.calibrated_seconds') AS calibrated,"
        " coalesce(json_extract(plan, '$.estimate.like'), '') AS kind,"
        " coalesce(json_extract(plan, '$.estimate.fixed_seconds'), 0) AS fixed FROM steps s"
        " WHERE status = ? AND calibrated > 0 AND seconds > 0"
        " AND (SELECT count(*) FROM approvals a WHERE a.step = s.step) = 1 ORDER BY s.rowid DESC LIMIT 200",
        DONE,
    )
    by_stage: dict[str, list[Past]] = {}
    counted: Counter[tuple[str, str]] = Counter()
    for row in rows:
        counted[row["stage"], row["kind"]] += 1
        if counted[row["stage"], row["kind"]] <= _PAST_STEPS:
            by_stage.setdefault(row["stage"], []).append(
                Past(row["calibrated"], row["seconds"], row["kind"], row["fixed"])
            )
    return {stage: tuple(past) for stage, past in by_stage.items()}
