"""Terminals that carry out the same run at once, are killed and are stopped: each step is done once, and by one yes."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from tests.fixtures import warm
from tests.fixtures.terminal import Tunesmith
from tests.fixtures.tiny_model import make_tiny_model
from tests.fixtures.waiting import HANG_S
from tunesmith.memory.files import verify
from tunesmith.memory.store import Store

pytestmark = pytest.mark.heavy
STAGES = ["base", "inspect"]
ROUNDS_QUICK, ROUNDS, PARTS = 3, 50, 4
_ENDS_S = 120.0


@dataclass
class Started:
    """A command at work, and what it says."""

    process: warm.Process
    told: IO[bytes]

    def end(self) -> tuple[int, str]:
        code = self.process.wait(_ENDS_S)
        self.told.seek(0)
        return code, self.told.read().decode()

    def send(self, what: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, what)


@contextmanager
def started(tunesmith: Tunesmith, *args: str) -> Iterator[Started]:
    with tempfile.TemporaryFile() as told, Path(os.devnull).open("rb") as nothing:
        process = warm.start(args, tunesmith.env, [nothing.fileno(), told.fileno(), told.fileno()])
        try:
            yield Started(process, told)
        finally:
            process.kill()


def run_of(store: Store, known: set[str], first: Started) -> str:
    """The run that the first terminal has opened; empty where it ended before it had."""
    deadline = time.monotonic() + HANG_S
    while time.monotonic() < deadline:
        new = [run.id for run in store.runs() if run.id not in known]
        if new or first.process._code is not None:
            return new[0] if new else ""
        with contextlib.suppress(Exception):
            first.process.wait(0.01)
    return ""


def one_round(tunesmith: Tunesmith, store: Store, plan: Path, rng: random.Random) -> str:
    """Three terminals at one run, one of them disturbed; what is wrong in the end, empty: nothing."""
    known = {run.id for run in store.runs()}
    with started(tunesmith, "run", str(plan), "--yes") as first:
        run = run_of(store, known, first)
        time.sleep(rng.uniform(0, 1.2))
        disturbed = rng.choice((signal.SIGKILL, signal.SIGSTOP, signal.SIGINT, 0))
        first.send(disturbed)
        if not run:
            return f"no run was opened: {first.end()}"
        resume = ("run", "--resume", run, "--yes")
        with started(tunesmith, *resume) as second, started(tunesmith, *resume) as third:
            time.sleep(rng.uniform(0, 0.8))
            first.send(signal.SIGCONT)
            ends = [one.end() for one in (second, third)]
        first.end()
    last = tunesmith(*resume)
    odd = [end for end in ends if end[0] not in (0, 1, 2) or "Traceback" in end[1]]
    wrong = [f"ends {odd}"] if odd else []
    if last.returncode or store.run(run).status != "done":
        wrong.append(f"{run} is {store.run(run).status}: {last.returncode} {last.stderr[-400:]}")
    return "; ".join([*wrong, *wrong_in(store, run)])


def wrong_in(store: Store, run: str) -> list[str]:
    """What of a run that is done does not hold: each stage once, each yes for one start, each artifact whole."""
    wrong = []
    done = [step.stage for step in store.steps(run) if step.status == "done"]
    if sorted(done) != sorted(STAGES):
        wrong.append(f"done are {done}")
    events = Counter((row["step"], row["event"]) for row in store.read("SELECT * FROM events WHERE run = ?", run))
    wrong += [f"{step} was done {n} times" for (step, event), n in events.items() if event == "step.done" and n > 1]
    asked = store.read(
        "SELECT a.step, a.decision, a.used_at FROM approvals a JOIN steps s ON s.step = a.step WHERE s.run = ?", run
    )
    used = Counter(row["step"] for row in asked if row["decision"] == "yes" and row["used_at"])
    for step in store.steps(run):
        starts = events[step.id, "lease.taken"]  # written by the worker: who started it may be dead before it says so
        if step.stage == "base" and starts != used[step.id]:
            wrong.append(f"{step.id} was started {starts} times by {used[step.id]} yes")
    wrong += [f"{a.id} is not whole" for a in store.artifacts(run) if not verify(a.path, a.sha256)]
    return wrong


@pytest.mark.parametrize(
    ("part", "rounds"),
    [(0, ROUNDS_QUICK), *(pytest.param(n, ROUNDS, marks=pytest.mark.slow) for n in range(1, PARTS + 1))],
)
def test_three_terminals_at_one_run_do_each_step_once(tmp_path: Path, part: int, rounds: int) -> None:
    tunesmith = Tunesmith(tmp_path / "home")
    model = make_tiny_model(tmp_path / "tiny", weight_bytes=200_000)
    plan = tmp_path / "plan.yaml"
    plan.write_text(f"name: twice\nsteps:\n- inspect\n- stage: base\n  model: {model}\n")
    assert tunesmith("runs", "list").returncode == 0
    store = Store(tunesmith.home)
    wrong = [f"round {n}: {found}" for n in range(rounds)
             if (found := one_round(tunesmith, store, plan, random.Random(f"{part}/{n}")))]  # fmt: skip
    print(f"ROUNDS {rounds}, wrong: {len(wrong)}")
    assert not wrong, "\n".join(wrong)
