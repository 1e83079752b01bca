"""The queue: plans are carried out once each, within one budget, whatever kills whoever carries them out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.disks import Mount, disk, fill
from tests.fixtures.tiny_model import make_tiny_model
from tunesmith.memory import queue as plans
from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.locks import lock_file, locked
from tunesmith.memory.queue import Budget
from tunesmith.memory.records import DONE, WAITING
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline import queue
from tunesmith.tools.pipeline.workspace import Workspace

pytestmark = pytest.mark.heavy

__all__ = ["disk"]

_CARRY_OUT = """
import os, signal, sys
from pathlib import Path
from tunesmith.memory import queue as plans
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline import queue, executor, start_step
from tunesmith.tools.pipeline.workspace import Workspace

home, at = Path(sys.argv[1]), sys.argv[2]
store = Store(home)

def die_after(module, name):
    real = getattr(module, name)
    def call(*args, **kwargs):
        real(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(module, name, call)

if at == "begun":
    die_after(plans, "begin")
elif at == "at work":
    die_after(start_step, "_go_past")
elif at == "done":
    die_after(executor, "_carry_out")
ws = Workspace(store, None, lambda event, **data: None)
budget = plans.agreed_budget(store)
for entry in queue.carry_out(ws, budget, queue.BudgetApprover(store, budget)):
    print(entry.id, entry.status, entry.note, flush=True)
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "home")
    yield opened
    opened.close()


def plan_of(folder: Path, number: int, *, weight_bytes: int = 64) -> dict[str, object]:
    model = make_tiny_model(folder / f"tiny{number}", weight_bytes=weight_bytes + 2 * number)
    return {"name": f"p{number}", "steps": [{"stage": "base", "fields": {"model": str(model)}}]}


def carry_out(store: Store, budget: Budget) -> list[tuple[int, str]]:
    ws = Workspace(store, None, lambda event, **data: None)
    ended = queue.carry_out(ws, budget, queue.BudgetApprover(store, budget))
    return [(entry.id, entry.status) for entry in ended]


def carry_out_and_die(store: Store, at: str) -> None:
    died = subprocess.run([sys.executable, "-c", _CARRY_OUT, str(store.home), at], capture_output=True, timeout=120)
    assert died.returncode == -9, died.stderr.decode()


def made_once(store: Store, count: int) -> None:
    """Every plan has one run, and every run one step that was agreed to once for each time it was begun."""
    entries = plans.entries(store)
    assert [entry.status for entry in entries] == [DONE] * count
    assert len({entry.run for entry in entries}) == count == len(store.runs())
    assert all(len(store.artifacts(entry.run, "base")) == 1 for entry in entries)
    assert all(len(store.steps(entry.run)) == 1 for entry in entries)


@pytest.mark.parametrize("at", ["begun", "at work", "done"])
def test_a_kill_loses_nothing_and_begins_nothing_twice(store: Store, tmp_path: Path, at: str) -> None:
    for number in range(2):
        plans.add(store, plan_of(tmp_path, number))
    budget = plans.agree(store, Budget(max_hours=1), "test")
    carry_out_and_die(store, at)
    open_ = plans.agreed_budget(store)
    assert open_ == budget, "a later start goes on within what was agreed to"
    assert carry_out(store, open_) == [(1, DONE), (2, DONE)]
    made_once(store, 2)
    assert plans.agreed_budget(store) is None, "no plan is left that it was agreed to for"


def test_what_does_not_fit_into_the_budget_waits_and_the_next_has_its_turn(store: Store, tmp_path: Path) -> None:
    plans.add(store, plan_of(tmp_path, 0, weight_bytes=64 << 20))
    plans.add(store, plan_of(tmp_path, 1))
    small = plans.agree(store, Budget(max_disk_bytes=32 << 20), "test")
    assert carry_out(store, small) == [(1, WAITING), (2, DONE)]
    first = plans.entry(store, 1)
    assert not first.run and "of disk" in first.note and "left of 32.0 MiB" in first.note
    larger = plans.agree(store, Budget(max_disk_bytes=1 << 30), "test")
    assert carry_out(store, larger) == [(1, DONE)]


def test_hours_that_steps_took_are_spent(store: Store, tmp_path: Path) -> None:
    plans.add(store, plan_of(tmp_path, 0))
    plans.add(store, plan_of(tmp_path, 1))
    enough = plans.agree(store, Budget(max_hours=1), "test")
    assert carry_out(store, enough)[0] == (1, DONE)
    took = store.steps(plans.entry(store, 1).run)[0].seconds
    assert took and plans.spent(store, enough).seconds >= took
    [why] = {queue.over(store, enough, 3600, 0)}
    assert "takes about 1 h 00 min" in why and "of 1 h 00 min" in why
    assert not queue.over(store, enough, 60, 0)


def test_a_full_disk_makes_a_plan_wait_and_room_lets_it_go_on(disk: Mount, tmp_path: Path) -> None:
    place = disk(64 << 20)
    store = Store(place / "home")
    plans.add(store, plan_of(tmp_path, 0))
    budget = plans.agree(store, Budget(max_hours=1), "test")
    filling = fill(place, leave=2 << 20)
    assert carry_out(store, budget) == [(1, WAITING)]
    assert "of disk" in plans.entry(store, 1).note and not store.runs()
    filling.unlink()
    assert carry_out(store, budget) == [(1, DONE)]
    store.close()


def test_one_process_carries_the_queue_out(store: Store, tmp_path: Path) -> None:
    plans.add(store, plan_of(tmp_path, 0))
    budget = plans.agree(store, Budget(max_hours=1), "test")
    with (
        locked(lock_file(store.home, "queue"), holder="another `tunesmith queue`"),
        pytest.raises(BadInput, match="queue is held by another `tunesmith queue`"),
    ):
        carry_out(store, budget)
    assert plans.entry(store, 1).status == WAITING


def test_a_plan_is_removed_before_it_begins_and_stays_once_it_has(store: Store, tmp_path: Path) -> None:
    plans.add(store, plan_of(tmp_path, 0))
    plans.add(store, plan_of(tmp_path, 1))
    assert plans.remove(store, 1).status == plans.REMOVED
    budget = plans.agree(store, Budget(max_hours=1), "test")
    assert carry_out(store, budget) == [(2, DONE)]
    with pytest.raises(BadInput, match="plan 2 of the queue has begun as r1"):
        plans.remove(store, 2)
    with pytest.raises(NotFound, match="the queue has no plan 7"):
        plans.remove(store, 7)


def command(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tunesmith.agent.cli", "queue", *words],
        env={"TUNESMITH_HOME": str(home), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_the_command_asks_once_and_tells_one_table(tmp_path: Path) -> None:
    home, model = tmp_path / "home", make_tiny_model(tmp_path / "tiny")
    written = tmp_path / "plan.yaml"
    written.write_text(f"name: night\nsteps:\n- stage: base\n  model: {model}\n")
    added = json.loads(command(home, "add", str(written), "--json").stdout)
    assert added["plan"] == 1 and added["estimated_seconds"] > 0
    unasked = command(home, "--max-hours", "1", "--json")
    assert unasked.returncode == 3 and json.loads(unasked.stdout)["plan"]["request"]["plans"] == [1]
    assert Store(home).runs() == []
    done = command(home, "--max-hours", "1", "--yes", "--json")
    [line] = json.loads(done.stdout)["plans"]
    assert (done.returncode, line["status"], line["run"], line["name"]) == (0, "done", "r1", "night")
    assert command(home, "--max-hours", "1", "--yes").returncode == 2, "no plan waits"
    with Store(home).write() as conn:
        yes = conn.execute("SELECT decided_by, reason FROM approvals").fetchall()
    assert [tuple(row) for row in yes] == [("queue", "within 1 h 00 min of work")]
