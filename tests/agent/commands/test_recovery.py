"""What a start finds: a run that stopped half-way is told, and one that another terminal carries out is left alone."""

from __future__ import annotations

from pathlib import Path

from tests.fixtures import stored_runs
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


def test_a_start_after_a_night_of_work_names_the_newest_and_the_failed_and_counts_the_rest(tmp_path: Path) -> None:
    build = stored_runs.new_builder(tmp_path)
    for stage in ("base", "baseline", "generate", "critique"):
        build.end(build.step(stage), 1.0, 1)
    build.end(build.step("train"), 1.0, 1, error="the worker was killed (signal 9)")
    build.end(build.step("merge"), 1.0, 1)
    count, failed, newest = [line for line in recover(build.store) if "nobody watched" in line]
    assert count.startswith("4 more steps ended")
    assert "✗ train" in failed and "signal 9" in failed
    assert "✓ merge" in newest
    assert not [line for line in recover(build.store) if "nobody watched" in line], "it is told once"
