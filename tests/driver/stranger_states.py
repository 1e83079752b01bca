"""The homes that strangers' sentences are typed in (tests/heldout): each from the words that its state is told in.

Stored runs whose files are there, dated back from now. What is told as running or as served is a process that sleeps.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest.mock import patch

from tests.driver.exam_home import make_exam_home
from tests.driver.states import make_state, priceable
from tests.fixtures import stored_runs
from tests.fixtures.stored_runs import BEGAN_AT, FAILS, MIB, Builder
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.memory.files import atomic_write, seal
from tunesmith.memory.locks import lock_file, locked
from tunesmith.memory.records import RUNNING
from tunesmith.memory.store import Store
from tunesmith.tools.data.rows import write_rows
from tunesmith.tools.machine.processes import ProcessId

TICKETS = Path("/tmp/exam/tickets.jsonl")
"""The user's own rows, where the sentences say that they lie."""
_ROWS = (
    ("My parcel 70011 was due on Monday and nobody can tell me where it is.", "shipping", "normal", "Parcel late"),
    ("hi, you took 19.90 twice for order #70012!! please fix", "billing", "high", "Charged twice"),
    ("The kettle from ord. 70013 arrived broken, I want to send it back.", "returns", "normal", "Broken kettle"),
)
_MODELS = ("base", "adapter", "merged", "quantized")


def _one(home: Path) -> Store:
    store, _ = stored_runs.finished_run(home)
    priceable(store)
    return store


def _two(home: Path) -> Store:
    store = Store(make_exam_home(home))
    priceable(store)
    return _trained_less(store, "r2")


def _trained_less(store: Store, run: str) -> Store:
    changed = "json_set(request, '$.lora_rank', 8, '$.epochs', 2.0)"
    with store.write() as conn:
        conn.execute(f"UPDATE steps SET request = {changed} WHERE run = ? AND stage = 'train'", (run,))
    return store


def _served(home: Path) -> Store:
    """The second run's model after the first one's."""
    store = _two(home)
    build = Builder(store, "r2", now=BEGAN_AT + 95_000)
    stored_runs.add_deployment(build, "quantized", store.artifacts("r2", "quantized")[-1].id)
    return store


def _training(home: Path, *, failed: bool) -> Store:
    build = stored_runs.new_builder(home)
    base, _ = stored_runs.add_baseline(build)
    stored_runs.add_rows(build, base)
    step = build.step("preflight", estimated=(75.0, 3900 * MIB))
    build.end(step, 83.0, 3600 * MIB, {"artifact": build.artifact(step, "preflight", "", base)})
    step = stored_runs.start_training(build, 31 if failed else 38)
    done = 31 if failed else 38
    build.store.progress(step, 2.1 * done, 160.0, f"step {done} of 75, {75 - done} to go, 2.10 s each")
    kept = home / "runs" / build.run / step / "checkpoints" / "checkpoint-25"
    kept.mkdir(parents=True)
    seal(kept, step=25, fingerprint="as it was")
    if failed:
        build.end(step, 131.0, 2100 * MIB, error="the worker was killed (signal 9)")
    build.store.set_run_status(build.run, "failed" if failed else "running")
    priceable(build.store)
    return build.store


def _at_work(home: Path, done: str, stage: str, arm: str, share: float) -> Store:
    """The run up to one of `make_state`'s states, and the next stage at work."""
    store = make_state(home, done)[0] if done else _one(home)
    build = Builder(store, "r1", now=BEGAN_AT + 6000)
    request = {"quantize": {"scheme": "w4a16-g64"}, "generate": {"rows": 400}}.get(stage, {"arm": arm})
    step = build.step(stage, arm=arm, estimated=(240.0, 3000 * MIB), request=request)
    store.progress(step, 100 * share, 100, "")
    store.set_run_status("r1", "running")
    return store


def _stopped(home: Path) -> Store:
    """A training that its user stopped half-way."""
    store = _training(home, failed=True)
    with store.write() as conn:
        conn.execute("UPDATE steps SET status = 'stopped', error = '' WHERE stage = 'train'")
    return store


def _adapter_tested(build: Builder) -> None:
    """A run from its baseline to the test of its adapter."""
    base, suite = stored_runs.add_baseline(build)
    rows = stored_runs.add_rows(build, base)
    train = stored_runs.start_training(build)
    adapter = build.artifact(train, "adapter", "", base, rows, bytes_=19 * MIB)
    build.end(train, 148.0, 2310 * MIB, {"artifact": adapter, "steps": 75})
    stored_runs.add_evaluation(build, "adapter", base, suite, adapter)


def _three(home: Path) -> Store:
    store = _two(home)
    run = store.new_run("invoice-fields", goal="the fields of an invoice as JSON")
    build = Builder(store, run, now=BEGAN_AT + 180_000)
    _adapter_tested(build)
    store.set_run_status(run, "done")
    with store.write() as conn:
        conn.execute("UPDATE runs SET created_at = ? WHERE run = ?", (BEGAN_AT + 180_000, run))
    priceable(store)
    return store


def _one_and_a_failed_one(home: Path) -> Store:
    store = _one(home)
    stored_runs.failed_run(home)
    priceable(store)
    return store


def _declined(home: Path) -> Store:
    store, _ = stored_runs.baseline_run(home)
    priceable(store)
    return store


def _released(home: Path) -> Store:
    store = _one(home)
    build = Builder(store, "r1", now=BEGAN_AT + 5000)
    step = build.step("release", arm="merged", request={"format": "gguf", "arm": "merged", "tensor_type": "Q8_0"})
    merged = store.artifacts("r1", "merged")[-1].id
    made = build.artifact(step, "release", "", merged, bytes_=145 * MIB, format="gguf", tensor_type="Q8_0")
    path = f"{home}/runs/r1/{step}/release"
    build.end(step, 20.0, 900 * MIB, {"artifact": made, "path": path, "format": "gguf", "bytes": 145 * MIB})
    return store


def _failing(home: Path, count: int, make: Callable[[Path], Store]) -> Store:
    """Runs whose tuned models fail the first `count` target cases."""
    tuned = {arm: {**FAILS[arm], "target": set(range(count))} for arm in _MODELS[1:]}
    with patch.object(stored_runs, "FAILS", {**FAILS, **tuned}):
        return make(home)


def _second_not_learned(home: Path) -> Store:
    store = _one(home)
    run = store.new_run("release-notes", goal="one line of release notes")
    build = Builder(store, run, now=BEGAN_AT + 90_000)

    def second(home: Path) -> Store:
        _adapter_tested(build)
        return store

    _failing(home, 40, second)
    store.set_run_status(run, "done")
    with store.write() as conn:
        conn.execute("UPDATE runs SET created_at = ? WHERE run = ?", (BEGAN_AT + 90_000, run))
    return store


def _write_tickets() -> None:
    rows = []
    for number, (ticket, category, urgency, summary) in enumerate(_ROWS, start=70011):
        answer = {"category": category, "urgency": urgency, "order": str(number), "summary": summary}
        rows.append(json.dumps({"prompt": ticket, "completion": json.dumps(answer)}))
    TICKETS.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(TICKETS, "".join(f"{row}\n" for row in rows))


_STATES: dict[str, Callable[[Path], Store]] = {
    "no run yet": Store,
    "an earlier run r1": _one,
    "a plan is open": Store,
    "r1 was trained with rank 8": lambda home: _trained_less(_one(home), "r1"),
    "r1 has rows": _one,
    "a model of one of them is served": _served,
    "r1's model is served now": _one,
    "a model is being quantized": lambda home: _at_work(home, "merged and tested", "quantize", "quantized", 0.4),
    "an evaluation of the quantized": lambda home: _at_work(home, "", "evaluate", "quantized", 0.55),
    "rows are being written": lambda home: _at_work(home, "suite", "generate", "", 0.33),
    "the user stopped the training": _stopped,
    "three finished runs": _three,
    "at least two finished runs": _two,
    "a run whose training step failed": lambda home: _training(home, failed=True),
    "a training step is running": lambda home: _training(home, failed=False),
    "nothing tested after the merge": lambda home: make_state(home, "merged")[0],
    "merged and not quantized": lambda home: make_state(home, "merged and tested")[0],
    "merged, not quantized": lambda home: make_state(home, "merged and tested")[0],
    "merged, not yet quantized": lambda home: make_state(home, "merged and tested")[0],
    "some steps were approved": _declined,
    "several runs or steps": _one_and_a_failed_one,
    "r2 is tested and only partly": _second_not_learned,
    "r1 was released": _released,
    "its tuned model fails": lambda home: _failing(home, 9, _one),
    "a run is planned or begun": lambda home: make_state(home, "dataset")[0],
    str(TICKETS): _one,
    "a price waits": _one,
    "one finished run": _one,
    "any": _two,
}
"""Words of a state → how its home is made; the first that fit count."""


@contextmanager
def home_of_state(home: Path, state: str) -> Iterator[subprocess.Popen[bytes] | None]:
    """Make the home of a state; for the time of the block, the process behind what runs or is served in it.

    Raises LookupError for a state that is not known.
    """
    words = next((words for words in _STATES if words in state), None)
    if words is None:
        raise LookupError(f"no home is known for the state {state!r}")
    if words == str(TICKETS):
        _write_tickets()
    shutil.copytree(stored_runs.kept_home(_make, words), home, dirs_exist_ok=True)
    store = Store(home)
    running = store.steps(status=RUNNING)
    served = store.artifacts("r1" if state.startswith("r1's model is served") else "r2", "deployment")
    _date_back(store, 80 if running else 3600 if "failed" in state or "hour ago" in state else 5 * 3600)
    if not running and not served:
        store.close()
        yield None
        return
    process = subprocess.Popen(["sleep", "900"], start_new_session=True)
    try:
        me = ProcessId.of(process.pid)
        if running:
            with store.write() as conn:
                values = (me.pid, me.started, me.boot_id, running[0].id)
                conn.execute("UPDATE steps SET pid = ?, pid_started = ?, boot_id = ? WHERE step = ?", values)
        else:
            made, step = str(served[0].meta["serves"]), served[0].step
            run, name = served[0].run, "release-notes" if served[0].run == "r2" else "ticket-triage"
            meta = {"artifact": made, "arm": "quantized", "run": run, "model": name}
            own = {"pid": me.pid, "pid_started": me.started, "boot_id": me.boot_id, "meta": meta, "owner": step}
            (home / "servers").mkdir(exist_ok=True)
            atomic_write(home / "servers" / "1-x.json", json.dumps(stored_runs.server_record(made) | own))
        store.close()
        with locked(lock_file(home, running[0].id)) if running else nullcontext():
            yield process
    finally:
        process.kill()
        process.wait()


def _make(home: Path, words: str) -> None:
    store = _STATES[words](home)
    _place(store)
    store.announce([step.id for step in store.steps() if step.status != RUNNING])
    store.close()


def _place(store: Store) -> None:
    """Have every artifact lie in the home, with a file or a folder of its kind."""
    for row in store.read("SELECT artifact, run, step, kind FROM artifacts"):
        kind, step = row["kind"], row["step"]
        path = store.home / "runs" / row["run"] / step / ("suite.json" if kind == "suite" else kind)
        if kind in _MODELS:
            make_tiny_model(path)
        elif kind != "suite":
            path.mkdir(parents=True)
        recorded = {"path": store.places.stored(str(path))}
        if kind == "release":
            (path / "model-Q8_0.gguf").write_bytes(b"GGUF")
        elif kind == "rows":
            write_rows(path / "rows.jsonl", store.rows(step))
        if kind not in ("release", "suite"):
            sealed = seal(path, kind=kind, step=step)["sha256"]
            recorded |= {"sha256": sealed} if kind == "rows" else {}  # what was measured names the others as they were
        with store.write() as conn:
            for column, value in recorded.items():
                conn.execute(f"UPDATE artifacts SET {column} = ? WHERE artifact = ?", (value, row["artifact"]))


def _date_back(store: Store, ago_s: float) -> None:
    """Move all that happened so that the last of it was `ago_s` seconds ago."""
    last = store.read("SELECT max(coalesce(finished_at, started_at, created_at)) AS at FROM steps")[0]["at"]
    moved = ("steps.created_at", "steps.started_at", "steps.finished_at", "approvals.decided_at", "approvals.used_at",
             "artifacts.created_at", "runs.created_at")  # fmt: skip
    if last:
        by = time.time() - last - ago_s
        with store.write() as conn:
            for table, _, column in (name.partition(".") for name in moved):
                conn.execute(f"UPDATE {table} SET {column} = {column} + ?", (by,))
