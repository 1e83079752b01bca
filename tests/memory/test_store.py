"""The store: ids, the life of a step, and an approval that is good for one start of one plan."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tunesmith.memory.errors import ApprovalPending, BadInput, NotFound
from tunesmith.memory.records import KEEP, Artifact, EvalResult, TrainingRow, Verdict
from tunesmith.memory.store import Store

WORKER = {"pid": 4242, "pid_started": 1.0, "boot_id": "boot"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def planned(store: Store, plan_hash: str = "h1") -> str:
    run = store.new_run("test")
    return store.propose(run, "train", plan_hash=plan_hash, request={"lora_rank": 8}, plan={"stage": "train"})


def say_yes(store: Store, step: str) -> str:
    return store.decide(step, "yes", by="test", reason="", price={"seconds": 1})


def test_a_step_without_a_yes_cannot_be_claimed(store: Store) -> None:
    step = planned(store)
    with pytest.raises(ApprovalPending):
        store.claim(step, needs_approval=True, **WORKER)
    assert store.step(step).status == "planned"


def test_a_no_cannot_be_claimed(store: Store) -> None:
    step = planned(store)
    store.decide(step, "no", by="test", reason="too long", price={})
    with pytest.raises(ApprovalPending):
        store.claim(step, needs_approval=True, **WORKER)


def test_an_approval_is_good_for_one_start_only(store: Store) -> None:
    step = planned(store)
    say_yes(store, step)
    store.claim(step, needs_approval=True, **WORKER)
    with pytest.raises(ApprovalPending):
        store.claim(step, needs_approval=True, **WORKER)
    store.fail(step, "broke")
    with pytest.raises(ApprovalPending):
        store.claim(step, needs_approval=True, **WORKER)


def test_a_yes_to_one_plan_does_not_start_another(store: Store) -> None:
    step = planned(store)
    say_yes(store, step)
    with store.write() as conn:
        conn.execute("UPDATE steps SET plan_hash = 'another' WHERE step = ?", (step,))
    with pytest.raises(ApprovalPending):
        store.claim(step, needs_approval=True, **WORKER)


def test_two_workers_race_for_one_step_and_one_wins(store: Store) -> None:
    step = planned(store)
    say_yes(store, step)
    won: list[int] = []

    def contend(pid: int) -> None:
        other = Store(store.home)
        try:
            other.claim(step, needs_approval=True, pid=pid, pid_started=1.0, boot_id="b")
            won.append(pid)
        except ApprovalPending:
            pass

    threads = [threading.Thread(target=contend, args=(pid,)) for pid in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_a_resumed_step_needs_a_new_yes_and_adds_up_its_time(store: Store) -> None:
    step = planned(store)
    say_yes(store, step)
    store.claim(step, needs_approval=True, **WORKER)
    store.fail(step, "broke")
    first = store.step(step).seconds or 0
    store.reopen(step)
    say_yes(store, step)
    store.claim(step, needs_approval=True, **WORKER)
    store.finish(step, {"ok": True})
    ended = store.step(step)
    assert ended.status == "done" and ended.error is None and (ended.seconds or 0) >= first


def running(store: Store) -> str:
    step = planned(store)
    say_yes(store, step)
    store.claim(step, needs_approval=True, **WORKER)
    return step


@pytest.mark.parametrize("word", ["yes", "no"])
def test_a_decision_that_comes_too_late_changes_nothing(store: Store, word: str) -> None:
    step = running(store)
    before = store.step(step)
    with pytest.raises(BadInput, match=f"step {step} runs already"):
        store.decide(step, word, by="the other terminal", reason="", price={})
    assert store.step(step) == before
    assert len(store.read("SELECT * FROM approvals")) == 1


def test_what_runs_or_is_done_is_not_reopened(store: Store) -> None:
    step = running(store)
    with pytest.raises(BadInput, match="runs already"):
        store.reopen(step)
    assert store.step(step).status == "running"
    store.finish(step, {})
    with pytest.raises(BadInput, match="is done already"):
        store.reopen(step)


def test_a_free_step_is_taken_once(store: Store) -> None:
    step = planned(store)
    store.claim(step, needs_approval=False, **WORKER)
    with pytest.raises(BadInput, match="runs already"):
        store.claim(step, needs_approval=False, pid=1, pid_started=1.0, boot_id="b")
    assert store.step(step).pid == WORKER["pid"]


def test_an_end_is_recorded_once(store: Store) -> None:
    step = running(store)
    store.finish(step, {"ok": True})
    store.fail(step, "stopped by the user", status="stopped")
    ended = store.step(step)
    assert (ended.status, ended.result, ended.error) == ("done", {"ok": True}, None)


@pytest.mark.heavy
def test_ids_are_unique_when_processes_write_at_once(tmp_path: Path) -> None:
    code = textwrap.dedent(f"""
        from pathlib import Path
        from tunesmith.memory.store import Store
        store = Store(Path({str(tmp_path)!r}))
        for _ in range(25):
            print(store.new_run("x"))
    """)
    children = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    ids = [line for child in children for line in child.communicate()[0].split()]
    assert all(child.returncode == 0 for child in children)
    assert len(ids) == len(set(ids)) == 100


def test_what_was_reported_survives_kill_9(tmp_path: Path) -> None:
    code = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from tunesmith.memory.store import Store
        store = Store(Path({str(tmp_path)!r}))
        print(store.new_run("kept"), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    told = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False)
    assert told.returncode == -9
    assert Store(tmp_path).run(told.stdout.strip()).name == "kept"


def test_an_error_is_replaced_by_an_answer_but_an_answer_by_nothing(store: Store) -> None:
    step = planned(store)

    def result(passed: bool | None, output: str) -> EvalResult:
        return EvalResult("base", "target", "c1", "k", output, passed, None, error=None if output else "timeout")

    store.add_results("r1", step, [result(None, "")])
    store.add_results("r1", step, [result(True, "first")])
    store.add_results("r1", step, [result(False, "second")])
    assert [(r.output, r.passed) for r in store.results(step)] == [("first", True)]
    store.add_results("r1", step, [result(False, "third")], replaces_other_keys=True)
    assert [(r.output, r.passed) for r in store.results(step)] == [("first", True)], "its key is the same"
    other = replace(result(False, "other"), key_hash="k2")
    store.add_results("r1", step, [other])
    assert [(r.output, r.passed) for r in store.results(step)] == [("first", True)], "nobody asked for that"
    store.add_results("r1", step, [other], replaces_other_keys=True)
    assert [(r.output, r.key_hash) for r in store.results(step)] == [("other", "k2")]


def test_flips_and_lineage_are_views(store: Store) -> None:
    store.new_run("test")
    step = store.propose("r1", "evaluate", plan_hash="h1")
    for arm, passed in (("base", False), ("adapter", True)):
        store.add_results("r1", step, [EvalResult(arm, "target", "c1", "k", "text", passed, None)])
    store.finish(step, {"keys": {"base": {}, "adapter": {"adapter": "a"}}})
    flips = store.read("SELECT arm_a, arm_b, flip FROM v_flips WHERE arm_a = 'base'")
    assert [tuple(row) for row in flips] == [("base", "adapter", "fail_to_pass")]
    base = store.add_artifact(Artifact("", "r1", step, "base", Path("/m"), "aa", 1))
    adapter = store.add_artifact(Artifact("", "r1", step, "adapter", Path("/a"), "bb", 1, (base.id,)))
    merged = store.add_artifact(Artifact("", "r1", step, "merged", Path("/mm"), "cc", 1, (base.id, adapter.id)))
    line = store.read("SELECT ancestor FROM v_lineage WHERE artifact = ? ORDER BY depth, ancestor", merged.id)
    assert {row["ancestor"] for row in line} == {merged.id, base.id, adapter.id}


def test_an_evaluation_that_did_not_end_makes_no_flip(store: Store) -> None:
    store.new_run("test")
    first, second = (store.propose("r1", "evaluate", arm=arm, plan_hash=arm) for arm in ("adapter", ""))
    for step, passed in ((first, True), (second, False)):
        store.add_results("r1", step, [EvalResult("adapter", "target", "c1", "k", "text", passed, None)])
    store.add_results("r1", first, [EvalResult("base", "target", "c1", "k", "text", False, None)])
    store.finish(first, {"keys": {"base": {}, "adapter": {}}})
    counted = "SELECT flip FROM v_flips WHERE arm_a = 'base'"
    assert [row["flip"] for row in store.read(counted)] == ["fail_to_pass"], "the finished one counts"
    store.finish(second, {"keys": {"adapter": {}}})
    assert store.read(counted) == []


def answered(store: Store, arm: str, suite: str, **results: list[bool | None]) -> str:
    """A finished evaluation of an arm alone: every answer of each case, None for one that could not be had."""
    step = store.propose("r1", "evaluate", arm=arm, plan_hash=f"{arm}{suite}")
    for case, passes in results.items():
        for repeat, passed in enumerate(passes):
            error = "late" if passed is None else None
            result = EvalResult(arm, "target", case, "k", "text", passed, None, repeat=repeat, error=error)
            store.add_results("r1", step, [result])
    store.finish(step, {"keys": {arm: {"suite": suite, "sampling": "greedy"}}})
    return step


def flips(store: Store) -> set[tuple[str, str, str, str]]:
    rows = store.read("SELECT arm_a, arm_b, case_id, flip FROM v_flips")
    return {(row["arm_a"], row["arm_b"], row["case_id"], row["flip"]) for row in rows}


def test_a_repeat_that_erred_is_dropped_and_its_case_is_not(store: Store) -> None:
    store.new_run("test")
    answered(store, "base", "s", c1=[False, None, False], c2=[True, True, False], c3=[None])
    answered(store, "merged", "s", c1=[None, True, True], c2=[False, None, True], c3=[True])
    assert flips(store) == {
        ("base", "merged", "c1", "fail_to_pass"),
        ("merged", "base", "c1", "pass_to_fail"),
        ("base", "merged", "c2", "pass_to_fail"),
        ("merged", "base", "c2", "fail_to_pass"),
    }


def test_answers_to_two_suites_make_no_flip(store: Store) -> None:
    store.new_run("test")
    answered(store, "base", "old", c1=[False])
    answered(store, "merged", "old", c1=[True])
    answered(store, "base", "new", c1=[True])
    assert {flip[3] for flip in flips(store) if flip[0] == "base"} == {"fail_to_pass"}, "the base's own old answers"
    answered(store, "merged", "newer", c1=[False])
    assert flips(store) == set()


def test_rows_keep_their_verdicts_when_generation_resumes(store: Store) -> None:
    step = planned(store)
    row = TrainingRow("row1", "generated", [{"role": "user", "content": "a"}], [{"role": "assistant", "content": "b"}])
    store.add_rows("r1", step, [row])
    store.judge_rows(step, [replace(row, verdict=Verdict("duplicate", "of row0"))])
    store.add_rows("r1", step, [row])
    assert [r.verdict for r in store.rows(step)] == [Verdict("duplicate", "of row0")]
    store.judge_rows(step, [replace(row, verdict=Verdict(KEEP))])
    assert [(r.verdict, r.usable, r.dropped) for r in store.rows(step)] == [(Verdict(KEEP), True, False)]


def test_the_store_is_wal_with_full_sync_and_known_tables(store: Store) -> None:
    assert store.read("PRAGMA journal_mode")[0][0] == "wal"
    assert store.read("PRAGMA synchronous")[0][0] == 2
    names = {row[0] for row in store.read("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")}
    tables = "runs steps approvals events metrics artifacts eval_results rows conversations"
    assert names >= {*tables.split(), "v_runs", "v_steps", "v_flips", "v_lineage"}
    for view in ("v_runs", "v_steps", "v_flips", "v_lineage"):
        store.read(f"SELECT * FROM {view}")


def test_an_unknown_id_is_named_with_what_there_is(store: Store) -> None:
    run = store.new_run("one", plan={"steps": [{"stage": "base"}]})
    with pytest.raises(NotFound, match=run):
        store.run("r99")


def test_a_failed_transaction_leaves_nothing(store: Store) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        store.propose("no-such-run", "train", plan_hash="h")
    assert store.steps() == []
    with pytest.raises(KeyboardInterrupt), store.write() as conn:
        conn.execute("INSERT INTO runs (run, name, status, created_at) VALUES ('r1', 'half', 'running', 0)")
        raise KeyboardInterrupt
    assert store.runs() == [] and store.read("SELECT * FROM runs") == []


@pytest.mark.heavy
def test_a_new_store_waits_for_who_writes_to_the_file_before_it_is_wal(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "tunesmith.db", isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE another (one)")
    other.execute("BEGIN IMMEDIATE")
    leaves = threading.Timer(0.5, other.rollback)
    leaves.start()
    assert Store(tmp_path).read("PRAGMA journal_mode")[0][0] == "wal"
    leaves.join()


@pytest.mark.heavy
def test_processes_that_create_a_store_at_once_all_get_it(tmp_path: Path) -> None:
    code = textwrap.dedent("""
        import os, sys
        from pathlib import Path
        from tunesmith.memory.store import Store
        Store(Path(sys.argv[1], f"warm-{os.getpid()}"))
        print("ready", flush=True)
        for line in sys.stdin:
            print(Store(Path(line.strip())).new_run("x"), flush=True)
    """)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], **pipes) for _ in range(8)]
    try:
        assert [child.stdout.readline() for child in children] == ["ready\n"] * 8
        for home in (tmp_path / str(number) for number in range(6)):
            for child in children:
                child.stdin.write(f"{home}\n")
                child.stdin.flush()
            assert {child.stdout.readline().strip() for child in children} == {f"r{n}" for n in range(1, 9)}
    finally:
        for child in children:
            child.kill()
            child.communicate()
