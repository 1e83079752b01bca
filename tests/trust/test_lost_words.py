"""What people said and decided outlives the store: what comes back is what was there, and what does not is counted."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.tables import table
from tests.trust.test_lost_store import done_step, job_of
from tunesmith.agent.commands.output import Output
from tunesmith.agent.commands.recover import recover
from tunesmith.memory import ratings
from tunesmith.memory.conversations import Conversations
from tunesmith.memory.errors import ApprovalPending, BadInput, NotFound
from tunesmith.memory.files import append
from tunesmith.memory.marks import Mark, add_mark, marks_in
from tunesmith.memory.ratings import Pair
from tunesmith.memory.step_records import RECORD, bring_back, damage, keep_record, left_steps, take_back
from tunesmith.memory.store import Store

NO_WORDS: dict[str, int] = {}


def lose(home: Path) -> None:
    for path in home.glob("tunesmith.db*"):
        path.unlink()


def pair_of(store: Store, run: str) -> Pair:
    base, adapter = store.artifacts(run)
    return Pair(run, "base", base.id, "adapter", adapter.id, adapter.id)


def mark(store: Store, run: str, step: str, text: str) -> None:
    add_mark(store, Mark("triage", run, step, "row1", "relabel", text, "right", "wrong"))


def asked(store: Store, pair: Pair, text: str) -> ratings.Rating:
    """A message that both models answered."""
    assert ratings.add_messages(store, pair, [(text, "typed")]) == 1
    (one,) = [one for one in ratings.ratings_in(store, pair.run) if one.message == text]
    for arm in pair.arms:
        ratings.keep_answer(store, one.id, arm, f"{arm} of {text}", cut_at_tokens=7)
    return next(other for other in ratings.ratings_in(store, pair.run) if other.id == one.id)


def judge(store: Store, pair: Pair) -> None:
    """One message for each state that one can be in, and words in every language."""
    run = pair.run
    ratings.add_messages(store, pair, [(f"waits in {run}", "file")])
    asked(store, pair, f"answered in {run}")
    assert ratings.rate(store, asked(store, pair, f"judged in {run}\n退款 \u2028 שלום"), (True, False), "anna here")
    again = asked(store, pair, f"judged twice in {run}")
    assert ratings.rate(store, again, (False, False), "anna here") and ratings.take_back(store, again)
    (again,) = [one for one in ratings.ratings_in(store, run) if one.message == again.message and not one.taken_back]
    assert ratings.rate(store, again, (True, True), "bo on the page")


def talk(store: Store, text: str) -> str:
    conversations = Conversations(store)
    identity = conversations.new()
    for n in range(3):
        turn = conversations.begin(identity, f"{text} {n}")
        conversations.draft(identity, turn, {"path": str(store.home / "runs" / "x")})
        conversations.finish(identity, turn, "done", [{"kind": "request", "n": n}])
    conversations.undo(identity)
    conversations.wait(identity, conversations.begin(identity, "go on"), [], {"call": "s9"})
    return identity


def a_life(home: Path, text: str) -> str:
    """A run whose two steps were agreed to, and words said before, between and after their ends."""
    with closing(Store(home)) as store:
        run = store.new_run(f"life {text}")
        talk(store, f"before {text}")
        base = done_step(store, run, "base", "base", text)
        mark(store, run, store.steps(run)[0].id, f"of the base of {text}")
        done_step(store, run, "train", "adapter", text, {"base": base})
        judge(store, pair_of(store, run))
        mark(store, run, store.steps(run)[1].id, f"after the end of {text}")
        talk(store, f"after {text}")
    return run


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    a_life(home := tmp_path_factory.mktemp("template"), "a")
    return home


@pytest.fixture
def home(template: Path, tmp_path: Path) -> Path:
    """A home after one life, r1."""
    return Path(shutil.copytree(template, tmp_path / "home"))


def words(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """Every word and decision; artifacts and approvals by what they are, for their ids are the store's own."""
    names = {row["artifact"]: f"{row['step']}/{row['kind']}" for row in store.read("SELECT * FROM artifacts")}
    of = {"approvals": "SELECT * FROM approvals ORDER BY step, decided_at"}
    of |= {name: f"SELECT * FROM {name} ORDER BY id" for name in ("marks", "ratings")}
    of["conversations"] = "SELECT * FROM conversations WHERE at > 0 ORDER BY id"  # without what closes one
    rows = {name: [dict(row) | {"approval": ""} for row in store.read(sql)] for name, sql in of.items()}
    return {name: [tuple(names.get(one, one) for one in row.values()) for row in those] for name, those in rows.items()}


def rows_of(store: Store) -> list[tuple[object, ...]]:
    return [tuple(row) for name in ("conversations", "ratings", "marks") for row in store.read(f"SELECT * FROM {name}")]


def said(store: Store, capsys: pytest.CaptureFixture[str], *runs: str) -> tuple[dict[str, Any], str]:
    """What `runs recover RUN… --json` says of words, and its line."""
    recover(argparse.Namespace(runs=[*runs]), store, Output(as_json=True))
    captured = capsys.readouterr()
    return json.loads(captured.out).get("said", {}), " ".join(captured.err.split())


@pytest.mark.heavy
def test_what_was_said_and_decided_comes_back_as_it_was_through_three_stores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = a_life(tmp_path, "a")
    with closing(Store(tmp_path)) as store:
        before = words(store)
    lose(tmp_path)
    second = a_life(tmp_path, "b")  # its artifacts have the ids that the first run's had
    with closing(Store(tmp_path)) as store:
        of_second = words(store)
        counts, line = said(store, capsys, first)
        brought = {"approvals": 2, "conversations": 2, "marks": 2, "ratings": 5}
        assert counts == {"brought_back": brought, "not_brought_back": NO_WORDS}
        assert "brought back: 2 approvals, 2 conversations, 2 marks, 5 ratings; not brought back: none" in line
        together = words(store)
        assert {name: sorted(rows, key=str) for name, rows in together.items()} == {
            name: sorted(rows + of_second[name], key=str) for name, rows in before.items()
        }
        base, adapter = store.artifacts(first)
        assert {(one.pair.first_artifact, one.pair.last_artifact) for one in ratings.ratings_in(store, first)} == {
            (base.id, adapter.id)
        }
        assert base.id == "a3" and {one.pair.first_artifact for one in ratings.ratings_in(store, second)} == {"a1"}
        judged = ratings.ratings_in(store, first)[1]
        assert ratings.rate(store, judged, (True, True), "cleo here")  # said in one store of what another one held
        mark(store, first, "s2", "said in the second store")
        together = words(store)
    lose(tmp_path)
    with closing(Store(tmp_path)) as store:
        counts, _ = said(store, capsys, second, first)
        assert counts["brought_back"] == {"approvals": 4, "conversations": 4, "marks": 5, "ratings": 10}
        assert words(store) == together


def test_what_came_back_once_does_not_come_again(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lose(home)
    with closing(Store(home)) as store:
        said(store, capsys, "r1")
        everything = rows_of(store)
        counts, line = said(store, capsys, "r1")
        assert counts == {"brought_back": NO_WORDS, "not_brought_back": NO_WORDS} and "brought back: no words" in line
        assert rows_of(store) == everything


def test_words_go_on_from_an_older_copy_of_the_store(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = {path: path.read_bytes() for path in home.glob("tunesmith.db*")}
    with closing(Store(home)) as store:
        waiting = ratings.ratings_in(store, "r1")[1]
        assert ratings.rate(store, waiting, (True, True), "anna here") and ratings.take_back(store, waiting)
        mark(store, "r1", "s2", "after the copy")
        then = words(store)
    lose(home)
    for path, content in copy.items():
        path.write_bytes(content)
    with closing(Store(home)) as store:
        mark(store, "r1", "s2", "after the loss")  # takes the place of none
        assert said(store, capsys, "r1")[0]["brought_back"] == {"marks": 1, "ratings": 2}
        assert words(store)["ratings"] == then["ratings"]
        assert [one.message for one in marks_in(store, "s2")] == [
            "after the end of a", "after the copy", "after the loss",
        ]  # fmt: skip


def test_words_on_what_is_not_whole_are_counted_and_wait_for_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(Store(home)) as store:
        before = words(store)
    lose(home)
    weights = home / "runs" / "r1" / "s2" / "adapter" / "bytes"
    weights.write_text("b")
    with closing(Store(home)) as store:
        counts, line = said(store, capsys, "r1")
        assert counts == {
            "brought_back": {"approvals": 1, "conversations": 2, "marks": 2},
            "not_brought_back": {"approvals": 1, "ratings": 5},
        }
        assert "not brought back: 1 approval (s2 is not whole), 5 ratings (s2 is not whole)" in line
        weights.write_text("a")
        assert said(store, capsys, "r1")[0]["brought_back"] == {"approvals": 1, "ratings": 5}
        assert words(store) == before
    with closing(Store(home)) as store, pytest.raises(NotFound, match=r"runs/ holds nothing of '\.\./r1'"):
        said(store, capsys, "../r1")


@pytest.mark.heavy
@table(
    ("name", "change"),
    [
        ("marks", lambda line: line[: len(line) // 2]),
        ("marks", lambda line: line[len(line) // 2 :]),
        ("marks", lambda line: json.dumps({**json.loads(line), "run": "r2"})),
        ("marks", lambda line: json.dumps({**json.loads(line), "id": None})),
        ("marks", lambda line: json.dumps({**json.loads(line), "id": 1 << 70})),
        ("marks", lambda line: json.dumps({**json.loads(line), "decision": "whatever"})),
        ("marks", lambda line: json.dumps({**json.loads(line), "message": ["a"]})),
        ("marks", lambda line: json.dumps({**json.loads(line), "message": "\ud800"})),
        ("marks", lambda line: json.dumps({**json.loads(line), "at) SELECT 1; --": 1})),
        ("marks", lambda line: json.dumps([line])),
        ("marks", lambda line: "[" * 100_000),
        ("ratings", lambda line: json.dumps({**json.loads(line), "shown_first": 1.5, "source": "whoever"})),
        ("conversations", lambda line: line[:-1]),
        ("conversations", lambda line: "\x00\x01"),
    ],
)
def test_a_line_that_is_damaged_is_counted_and_spoils_no_other(
    template: Path, tmp_path: Path, name: str, change: Callable[[str], str]
) -> None:
    shutil.copytree(template, home := tmp_path / "home")
    file = (home if name == "conversations" else home / "runs" / "r1") / f"{name}.jsonl"
    first, *others = file.read_text().split("\n")[1:]
    file.write_text("\n" + "\n".join([*others, change(first)]))  # the last one, as after a kill
    with closing(Store(home)) as store:
        before = words(store)
        mark(store, "r1", "s2", "said after the kill")
        Conversations(store).begin("c1", "said after the kill")
    lose(home)
    with closing(Store(home)) as store:
        take_back(store, left_steps(store))
        _, missed = bring_back(store, ["r1"])
        assert [(kind, why) for kind, _, why in missed] == [("lines", f"damaged, in {file.name}")]
        after = words(store)
        assert [row for row in before[name] if row not in after[name]] == before[name][:1]
        assert all(after[other][: len(rows)] == rows for other, rows in before.items() if other != name)
        assert "said after the kill" in [one.message for one in marks_in(store, "s2")]
        assert Conversations(store).load("c1", whole=True).turns[0].prompt == "said after the kill"


def test_a_journal_that_cannot_be_written_is_told_once_and_takes_no_word_from_the_store(tmp_path: Path) -> None:
    told: list[str] = []
    with closing(Store(tmp_path)) as store:
        run = store.new_run("a")
        base = done_step(store, run, "base", "base", "a")
        done_step(store, run, "train", "adapter", "a", {"base": base})
        for name in ("marks", "ratings"):
            (tmp_path / "runs" / run / f"{name}.jsonl").mkdir()
        (tmp_path / "conversations.jsonl").mkdir()
        store.tell = told.append
        mark(store, run, "s2", "a word")
        judge(store, pair_of(store, run))
        talk(store, "and more")
        assert [one.message for one in marks_in(store, "s2")] == ["a word"]
        assert len(ratings.ratings_in(store, run)) == 5 and len(Conversations(store).list()) == 1
    assert len(told) == 1 and "marks.jsonl takes nothing (Is a directory): what you say is in " in told[0]


@pytest.mark.heavy
def test_the_first_line_of_a_journal_is_all_that_an_earlier_version_left_in_the_store(tmp_path: Path) -> None:
    run, other = a_life(tmp_path, "a"), a_life(tmp_path, "b")
    for file in (tmp_path / "conversations.jsonl", *tmp_path.glob("runs/*/*.jsonl")):
        file.unlink()
    with closing(Store(tmp_path)) as store:
        mark(store, run, "s1", "in this version")
        judged = ratings.ratings_in(store, run)[1]
        assert ratings.rate(store, judged, (True, True), "anna here")
        Conversations(store).begin("c1", "in this version")
        before = words(store)
    lose(tmp_path)
    with closing(Store(tmp_path)) as store:
        take_back(store, left_steps(store))
        bring_back(store, [run, other])
        assert words(store) == {
            **before,
            **{name: [row for row in before[name] if run in row] for name in ("marks", "ratings")},
        }


def test_a_journal_is_its_users_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with closing(Store(tmp_path)) as store:
            mark(store, store.new_run("a"), "s1", "a word")
            Conversations(store).begin("c1", "a word")
    finally:
        os.umask(before)
    files = [tmp_path / "conversations.jsonl", tmp_path / "runs" / "r1" / "marks.jsonl"]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_a_conversation_that_came_back_waits_for_nothing_and_is_read_as_it_was(tmp_path: Path) -> None:
    with closing(Store(tmp_path)) as store:
        identity = talk(store, "old")
        before = Conversations(store).load(identity, whole=True)
        assert Conversations(store).waiting() == identity
    lose(tmp_path)
    with closing(Store(tmp_path)) as store:
        newer = talk(store, "new")
        for _ in range(2):
            bring_back(store, [])
        back = Conversations(store).load(identity, whole=True)
        assert back.turns == before.turns and back.draft == before.draft
        now = Conversations(store).load(identity)
        assert now.waiting is None and now.turns == () and "may be another step's" in now.summary
        assert Conversations(store).load(newer).waiting and not Conversations(store).load(newer).summary
        assert len(store.read("SELECT * FROM conversations WHERE role = 'summary'")) == 1
        turn = Conversations(store).begin(identity, "go on")
        assert [one.number for one in Conversations(store).load(identity).turns] == [turn]


def test_a_yes_that_came_back_starts_nothing(tmp_path: Path) -> None:
    price: dict[str, object] = {"seconds": 1.0}
    started = {"needs_approval": True, "pid": 1, "pid_started": 1.0, "boot_id": "b"}
    with closing(Store(tmp_path)) as store:
        run = store.new_run("a")
        step = store.propose(run, "base", plan={"n": 1}, plan_hash="h")
        store.decide(step, "no", by="anna", reason="too long", price=price)
        store.reopen(step)
        store.decide(step, "yes", by="anna", reason="never started", price=price)
        store.reopen(step)
        store.decide(step, "yes", by="anna", reason="started", price=price)
        store.claim(step, **started)  # type: ignore[arg-type]
        store.finish(step, {})
        job = job_of(store, step)
        keep_record(store, step, job.dir)
        waits = store.propose(run, "train", plan={"n": 1}, plan_hash="h")
        store.decide(waits, "yes", by="anna", reason="agreed, not begun", price=price)
        decided = [(row["decision"], row["reason"], row["used_at"]) for row in store.read("SELECT * FROM approvals")]
    lose(tmp_path)
    with closing(Store(tmp_path)) as store:
        assert take_back(store, left_steps(store)) == [step]
        approvals = store.read("SELECT * FROM approvals")
        assert [(row["decision"], row["reason"]) for row in approvals] == [one[:2] for one in decided[:3]]
        assert [row["used_at"] for row in approvals] == [None, approvals[1]["decided_at"], decided[2][2]]
        assert store.read("SELECT approval FROM steps")[0]["approval"] == approvals[2]["approval"]
        with pytest.raises(BadInput):
            store.reopen(step)
        with pytest.raises(ApprovalPending):
            store.claim(step, **started)  # type: ignore[arg-type]
        with store.write() as conn:  # were it taken for one that waits, each yes is used up all the same
            conn.execute("UPDATE steps SET status = 'approved'")
        for row in approvals:
            with store.write() as conn:
                conn.execute("UPDATE steps SET approval = ?", (row["approval"],))
            with pytest.raises(ApprovalPending):
                store.claim(step, **started)  # type: ignore[arg-type]
        # The step that waited left nothing: its number is given anew, and waits for a yes of its own.
        again = store.propose(run, "train", plan={"n": 1}, plan_hash="h")
        assert again == waits
        with pytest.raises(ApprovalPending):
            store.claim(again, **started)  # type: ignore[arg-type]


def rewrite(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(gzip.decompress(file.read_bytes()))
    change(document["records"])
    file.write_bytes(gzip.compress(json.dumps(document).encode()))


def test_a_record_brings_no_yes_for_another_step(home: Path) -> None:
    lose(home)
    rewrite(home / "runs" / "r1" / "s1" / RECORD, lambda records: records["approvals"][0].update(step="s3"))
    with closing(Store(home)) as store:
        store.propose(run := store.new_run("b"), "train", plan={}, plan_hash="h")
        assert run == "r2" and damage(store, left_steps(store)[0]) == f"its {RECORD} is damaged"


def test_what_an_earlier_version_kept_nowhere_is_said_and_the_rest_comes_back(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lose(home)
    for file in (home / "conversations.jsonl", *home.glob("runs/*/*.jsonl")):
        file.unlink()
    for step in ("s1", "s2"):
        rewrite(home / "runs" / "r1" / step / RECORD, lambda records: records.pop("approvals"))
    with closing(Store(home)) as store:
        counts, line = said(store, capsys, "r1")
        assert counts == {"brought_back": NO_WORDS, "not_brought_back": NO_WORDS}
        assert "approvals of s1 and s2, and words of before this version, were in the lost store alone" in line
        assert [step.id for step in store.steps("r1")] == ["s1", "s2"]


@pytest.mark.heavy
def test_a_long_conversation_is_written_once_and_comes_back_in_one_pass(tmp_path: Path) -> None:
    with closing(Store(tmp_path)) as store:
        Conversations(store).begin("c1", "the first")
        written = (tmp_path / "conversations.jsonl").stat().st_size
        line = (tmp_path / "conversations.jsonl").read_text()[1:]
        number = json.loads(line)["id"]
        append(tmp_path / "conversations.jsonl", [line.replace(str(number), str(number + n)) for n in range(1, 20_000)])
        before = (tmp_path / "conversations.jsonl").stat().st_size
        Conversations(store).begin("c1", "the last!")
        assert (tmp_path / "conversations.jsonl").stat().st_size - before < 2 * written  # however long it is
    lose(tmp_path)
    with closing(Store(tmp_path)) as store:
        bring_back(store, [])
        assert store.read("SELECT count(*) AS n FROM conversations")[0]["n"] == 20_002
