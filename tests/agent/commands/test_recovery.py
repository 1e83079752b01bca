"""What a start finds: a run that stopped half-way is told, and one that another terminal carries out is left alone."""

from __future__ import annotations

from pathlib import Path

from tunesmith.agent.commands.recovery import recover
from tunesmith.memory.locks import carrying_out
from tunesmith.memory.records import RUNNING, WAITING
from tunesmith.memory.store import Store


def test_a_run_that_waits_at_its_question_in_another_terminal_did_not_stop(tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    run = store.new_run("asked", plan={"steps": [{"stage": "base"}]})
    with store.write() as conn:
        conn.execute("UPDATE runs SET created_at = created_at - 3600")
    with carrying_out(store.home, run):
        assert recover(store) == [] and store.run(run).status == RUNNING
    [line] = recover(store)
    assert f"{run} (asked) stopped half-way" in line and store.run(run).status == WAITING
