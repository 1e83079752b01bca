"""What people said of answers: judged once, bound to the answers that were shown, counted as what they are."""

from __future__ import annotations

import itertools
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fixtures.tables import table
from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.questions import ask_sql
from tunesmith.memory.ratings import Pair, Rating, Source, add_messages, keep_answer, rate, ratings_in, take_back
from tunesmith.memory.records import Artifact, TrainingRow, Verdict
from tunesmith.memory.row_attributes import RowAttributes
from tunesmith.memory.store import Store
from tunesmith.memory.views import VIEWS
from tunesmith.tools.evaluation.message_files import messages_in
from tunesmith.tools.evaluation.rated_messages import Admission
from tunesmith.tools.evaluation.ratings import earlier_messages, numbered, ratings_of, tally
from tunesmith.tools.suites.case import Case, Suite


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "home")
    run = made.new_run("test")
    add(made, run, "base")
    add(made, run, "adapter", "a1")
    add(made, run, "merged", "a1", "a2")
    yield made
    made.close()


def add(store: Store, run: str, kind: str, *parents: str) -> Artifact:
    step = store.propose(run, "train", plan_hash=f"{run}{kind}{len(store.steps())}")
    return store.add_artifact(Artifact("", run, step, kind, store.home / f"{step}-{kind}", f"{step}{kind}", 1, parents))


def pair_of(store: Store, arm: str = "adapter", run: str = "r1") -> Pair:
    made = store.artifacts(run, arm)[-1]
    adapter = store.ancestor(made, "adapter") or made
    return Pair(run, "base", store.artifacts(run, "base")[0].id, arm, made.id, adapter.id)


def answered(store: Store, pair: Pair, *messages: str, source: Source = "typed") -> list[Rating]:
    add_messages(store, pair, [(message, source) for message in messages])
    for one in numbered(store, pair).values():
        keep_answer(store, one.id, pair.first_arm, f"the base on {one.message}")
        keep_answer(store, one.id, pair.last_arm, f"the arm on {one.message}", 7)
    return [one for one in numbered(store, pair).values() if one.message in messages]


@pytest.mark.parametrize("keys", [*itertools.product([True, False], repeat=2)])
@pytest.mark.parametrize("first", ["base", "adapter"])
def test_a_key_is_for_the_answer_that_was_shown_under_it(store: Store, first: str, keys: tuple[bool, bool]) -> None:
    [one] = answered(store, pair_of(store), "where is it?")
    with store.write() as conn:
        conn.execute("UPDATE ratings SET shown_first = ?", (first,))
    [one] = numbered(store, pair_of(store)).values()
    assert one.answers_in_order[0] == (
        ("the base on where is it?", 0) if first == "base" else ("the arm on where is it?", 7)
    )
    assert rate(store, one, keys, "me at the terminal")
    [rated] = ratings_of(store, "r1", "adapter")
    assert {first: keys[0], ({"base", "adapter"} - {first}).pop(): keys[1]} == {
        "base": rated.base_right, "adapter": rated.arm_right,
    }  # fmt: skip
    assert rated.by == "me at the terminal" and rated.at.endswith("+00:00") and rated.written_by_a_person


def test_both_orders_are_drawn(store: Store) -> None:
    rated = answered(store, pair_of(store), *map(str, range(40)))
    assert {one.shown_first for one in rated} == {"base", "adapter"}, "one of them alone: 1 in 5e11"


def test_a_message_is_judged_once_whoever_comes_second(store: Store) -> None:
    [one] = answered(store, pair_of(store), "where is it?")
    other = Store(store.home)
    assert rate(store, one, (True, True), "me") and not rate(other, one, (False, False), "you")
    other.close()
    assert [(r.by, r.base_right) for r in ratings_of(store, "r1", "adapter")] == [("me", True)]


def test_two_processes_that_add_and_answer_the_same_leave_one_of_each(store: Store) -> None:
    pair, messages = pair_of(store), [f"message {n}" for n in range(10)]

    def work(name: str) -> None:
        mine = Store(store.home)
        add_messages(mine, pair, [(message, "typed") for message in messages])
        for one in numbered(mine, pair).values():
            keep_answer(mine, one.id, "base", name)
        mine.close()

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.message for one in ratings_in(store, "r1")] == messages
    before = [one.first_answer for one in ratings_in(store, "r1")]
    work("c")
    assert [one.first_answer for one in ratings_in(store, "r1")] == before, "the first answer counts"


def test_without_both_answers_nothing_is_judged(store: Store) -> None:
    add_messages(store, pair_of(store), [("where is it?", "typed")])
    [one] = ratings_in(store, "r1")
    keep_answer(store, one.id, "base", "here")
    assert not rate(store, one, (True, True), "me") and ratings_of(store, "r1", "adapter") == ()


def test_what_is_taken_back_counts_no_more_and_waits_with_its_answers_under_its_number(store: Store) -> None:
    pair = pair_of(store)
    one, two = answered(store, pair, "one", "two")
    assert rate(store, one, (True, True), "me") and rate(store, two, (True, True), "me")
    assert take_back(store, one) and not take_back(store, one)
    now = numbered(store, pair)
    assert [(n, r.message, r.rated, r.answered) for n, r in now.items()] == [
        (1, "one", False, True), (2, "two", True, True),
    ]  # fmt: skip
    assert [r.case_id for r in ratings_of(store, "r1", "adapter")] == [f"rated-{two.digest[:12]}"]
    assert rate(store, now[1], (False, False), "me") and len(ratings_of(store, "r1", "adapter")) == 2
    assert len(ratings_in(store, "r1")) == 3, "nothing is deleted"
    assert (tally(store, pair).messages, tally(store, pair).open, tally(store, pair).taken_back) == (2, 0, 1)


def test_a_judgement_is_of_the_answers_that_were_shown(store: Store) -> None:
    [one] = answered(store, pair_of(store), "one")
    rate(store, one, (True, True), "me")
    assert ratings_of(store, "r1", "merged") == () and len(ratings_of(store, "r1", "adapter")) == 1
    assert [r.message for r in earlier_messages(store, pair_of(store, "merged"))] == ["one"]
    add(store, "r1", "adapter", "a1")
    assert ratings_of(store, "r1", "adapter") == (), "the newer adapter answered nothing"
    assert ratings_of(store, "r1", "quantized") == (), "was never made"


def test_arms_of_one_training_are_one_opening_and_the_next_training_is_another(store: Store) -> None:
    def opened(run: str, arm: str, message: str) -> int:
        [one] = answered(store, pair_of(store, arm, run), message)
        assert rate(store, one, (True, True), "me")
        return ratings_of(store, run, arm)[-1].opening

    assert [opened("r1", "adapter", "one"), opened("r1", "merged", "one")] == [1, 1]
    run = store.new_run("again")
    add(store, run, "adapter", add(store, run, "base").id)
    assert [opened(run, "adapter", "one"), opened(run, "adapter", "new")] == [2, 1]
    [one] = [one for one in ratings_in(store, run) if one.message == "new"]
    take_back(store, one)
    add(store, run, "adapter", "a1")
    assert opened(run, "adapter", "new") == 2, "its answers were seen, whatever became of the judgement"


def test_generated_messages_stand_apart(store: Store) -> None:
    for source, message in (("generated", "made"), ("file", "own")):
        [one] = answered(store, pair_of(store), message, source=source)  # type: ignore[arg-type]
        rate(store, one, (True, True), "me")
    assert [r.written_by_a_person for r in ratings_of(store, "r1", "adapter")] == [False, True]
    assert (tally(store, pair_of(store)).messages, tally(store, pair_of(store), generated=True).messages) == (1, 1)


def test_a_question_in_sql_over_the_views_reaches_no_message_and_no_answer(store: Store) -> None:
    answered(store, pair_of(store), "a secret")
    columns = [row["name"] for row in store.read("PRAGMA table_info(ratings)")]
    for column in columns:
        with pytest.raises(BadInput):
            ask_sql(store.path, f"SELECT {column} FROM ratings", only=VIEWS)
    for view in VIEWS:
        assert "secret" not in str(ask_sql(store.path, f"SELECT * FROM {view}", only=VIEWS))


# Which messages count

ROWS = [
    ("w1", "My kettle from order 48213 arrived broken yesterday, please help", Verdict("keep")),
    ("w2", "Where is the parcel that I ordered on Monday", Verdict("held out", "a case of its own")),
    ("w3", "An answer to this broke a rule", Verdict("rule", "broke it")),
]


@pytest.fixture
def admission(store: Store, tmp_path: Path) -> Admission:
    step = store.propose("r1", "generate", plan_hash="g")
    rows = [
        TrainingRow(name, "generated", [{"role": "user", "content": f"Sort this:\n\n{text}"}], [],
                    RowAttributes(text=text), verdict=verdict)
        for name, text, verdict in ROWS
    ]  # fmt: skip
    store.add_rows("r1", step, rows)
    store.judge_rows(step, [replace(row, verdict=row.verdict or Verdict("keep")) for row in rows])
    case = Case(case_id="c1", suite="s", messages=({"role": "user", "content": "Sort this:\n\nCase!"},),
                vars={"note": "Case!"})  # fmt: skip
    (tmp_path / "suite.json").write_text(Suite(cases=(case,)).to_json())
    store.add_artifact(Artifact("", "r1", step, "suite", tmp_path / "suite.json", "5" * 64, 1))
    return Admission(store, pair_of(store))


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ("My kettle from order 48213 arrived broken yesterday, please help", r"is the training row w1 \(exact\)"),
        ("my KETTLE from order 48213 arrived broken yesterday please help!", r"is the training row w1 \(normalised\)"),
        ("Sort this:\n\nMy kettle from order 48213 arrived broken yesterday, please help", "is the training row w1"),
        ("my kettle from order 99 arrived broken yesterday, plz help", r"is like the training row w1 \(alike\)"),
        ("", "is empty"),
        ("a\x00b", r"control character U\+0000"),
    ],
)
def test_a_message_that_was_trained_on_or_is_none_is_refused(admission: Admission, message: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        admission.text_of(message)


def test_a_test_case_counts_once_and_what_a_model_wrote_is_generated(admission: Admission) -> None:
    with pytest.raises(BadInput, match="is the test case c1"):
        admission.refuse_case(admission.text_of("case"))
    assert admission.text_of("Sort this:\n\nIs it here?") == "Is it here?", "asked as the run asks, and once so"
    assert admission.source_of("an answer to this broke a rule.", "pasted") == "generated"
    assert admission.source_of("Is it here?", "pasted") == "pasted"
    assert admission.held_out == ["Where is the parcel that I ordered on Monday"]


FILES = {
    "a.txt": ("one\n\n two \r\nthree\n", ["one", " two ", "three"]),
    "b.jsonl": ('"one"\n{"message": "two", "id": "x"}\n{"messages": [{"role": "user", "content": "three"}]}\n', None),
    "c.csv": ('id,Text\n1,one\n2,"two\nlines"\n', ["one", "two\nlines"]),
    "d.json": (json.dumps(["one", {"question": "two"}]), ["one", "two"]),
    "e.tsv": ("question\tid\none\t1\n", ["one"]),
}


@table("name", FILES)
def test_messages_are_read_from_a_file(tmp_path: Path, name: str) -> None:
    text, expected = FILES[name]
    (tmp_path / name).write_text(text, newline="")
    assert messages_in(str(tmp_path / name)) == (expected or ["one", "two", "three"])


BAD = {
    "a.txt": (b"\x89PNG\r\n\x1a\n\x00", "not UTF-8"),
    "b.txt": (b"\n \n", "holds no messages"),
    "c.csv": (b"Where is my parcel?\nAnd now?\n", "record 1: no message among .Where is my parcel"),
    "d.jsonl": (b'{"message": ""}\n', "record 1: no message among .message"),
    "e.jsonl": (b"not json\n", "record 1: it is no JSON"),
    "f.csv": (b"\x1f\x8b\x08", "gzip"),
    "g.json": (b"[" * 100_000, "no JSON"),
    "h.txt": (b"x" * (5 << 20), "over 4 MB"),
}


@table("name", BAD)
def test_what_holds_no_messages_is_refused_in_a_sentence(tmp_path: Path, name: str) -> None:
    data, says = BAD[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadInput, match=says) as refused:
        messages_in(str(tmp_path / name))
    assert "\n" not in str(refused.value)


def test_a_file_that_is_none_is_waited_for_by_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name in ("pipe.txt", "pipe.jsonl"):
        with pytest.raises(BadInput, match="not a regular file"):
            messages_in(str(tmp_path / name))
    for name in ("none.txt", "none.csv"):
        with pytest.raises(NotFound, match=f"{name} is not there; name a file of messages, one a line$"):
            messages_in(str(tmp_path / name))
