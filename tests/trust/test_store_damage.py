"""A store that is damaged anywhere: whoever reads or writes it is told in one sentence, and what is whole is read."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.fixtures.stored_runs import finished_run
from tests.fixtures.tables import table
from tunesmith.agent.cli import main
from tunesmith.agent.commands.explain import estimated_seconds
from tunesmith.agent.commands.startup import explained
from tunesmith.memory.damage import StoreDamaged, damaged, is_damage
from tunesmith.memory.errors import BadInput
from tunesmith.memory.questions import ask_sql
from tunesmith.memory.store import Store
from tunesmith.tools.evaluation.findings import Proposal
from tunesmith.tools.pipeline.workspace import Workspace

PAGE = 4096
WAYS: dict[str, Callable[[bytes], bytes]] = {
    "zeros": lambda page: bytes(len(page)),
    "ones": lambda page: b"\xff" * len(page),
    "half of it lost": lambda page: page[: len(page) // 2] + bytes(len(page) - len(page) // 2),
    "bits flipped": lambda page: bytes(byte ^ (0x80 if at % 97 == 5 else 0) for at, byte in enumerate(page)),
}
UNSEEN = ("half of it lost", "bits flipped")
"""What SQLite may read all the same; `tunesmith doctor` finds it."""
READS: tuple[Callable[[Store], object], ...] = (
    lambda store: store.runs(),
    lambda store: store.steps(),
    lambda store: [store.rows(step.id) for step in store.steps() if step.stage == "generate"],
    lambda store: [store.results(step.id) for step in store.steps() if step.stage == "evaluate"],
    lambda store: store.artifacts("r1"),
)
COMMANDS = (
    ("runs", "list"), ("runs", "show", "r1"), ("rows",), ("explain", "r1"), ("jobs", "list"), ("compare", "r1"),
    ("report", "r1", "-o", "page.html", "--force"), ("rows", "export", "rows.jsonl", "--force"),
)  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    store, _ = finished_run(home)
    store.announce([step.id for step in store.steps()])
    store.close()
    monkeypatch.setenv("TUNESMITH_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    return home


def damage_table(home: Path, name: str) -> None:
    """The first page of a table becomes no page."""
    path = home / "tunesmith.db"
    with closing(sqlite3.connect(path)) as conn:
        (page,) = conn.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    whole = path.read_bytes()
    path.write_bytes(whole[: (page - 1) * PAGE] + b"\xff" * PAGE + whole[page * PAGE :])


def damaged_pages(home: Path, every: int = 1) -> Iterator[tuple[int, str]]:
    """The store with one page behind its header damaged, in each way in turn; whole again at the end."""
    path = home / "tunesmith.db"
    whole = path.read_bytes()
    for number in range(1, len(whole) // PAGE, every):
        way = list(WAYS)[number // every % len(WAYS)]
        at = number * PAGE
        path.write_bytes(whole[:at] + WAYS[way](whole[at : at + PAGE]) + whole[at + PAGE :])
        yield number, way
        for log in home.glob("tunesmith.db-*"):
            log.unlink()
    path.write_bytes(whole)


@pytest.mark.heavy
def test_a_read_of_a_damaged_page_is_the_sentence_and_of_a_whole_one_the_answer(home: Path) -> None:
    with closing(Store(home)) as store:
        right = [read(store) for read in READS]
    told = 0
    for number, way in damaged_pages(home, every=3):
        for read, answer in zip(READS, right, strict=True):
            try:
                with closing(Store(home)) as store:
                    if read(store) != answer:  # SQLite takes what is left of such a page for whole
                        assert way in UNSEEN, (number, way)
                        store.refuse_damage()
                        pytest.fail(f"another answer from page {number} ({way}), and no damage is found")
            except Exception as error:  # what it ends in is what this is about
                failure = explained(error)
                assert isinstance(failure, BadInput) and "is damaged (SQLite says: " in str(failure), (number, way)
                assert f"{home}/tunesmith.db" in str(failure) and "\n" not in str(failure)
                told += 1
    assert told > 20, "what is not met proves nothing"


def test_reads_and_writes_that_meet_damage_are_told_and_others_are_answered(home: Path) -> None:
    damage_table(home, "events")
    with closing(Store(home)) as store:
        for meets in (lambda: store.event("e", run="r1"), lambda: store.read("SELECT * FROM events")):
            with pytest.raises(StoreDamaged, match=rf"^{home}/tunesmith.db is damaged \(SQLite says: .*go back to"):
                meets()
        assert len(store.steps()) == 13


def test_the_sentence_is_one_line_whatever_sqlite_says(tmp_path: Path) -> None:
    told = damaged(tmp_path / "tunesmith.db", tmp_path, "*** in database main ***\nTree 16 page 107: corruption")
    assert "(SQLite says: *** in database main *** Tree 16 page 107: corruption), and nothing" in told


def test_a_question_that_meets_damage_is_told_by_the_same_sentence(home: Path) -> None:
    path = home / "tunesmith.db"
    path.write_bytes(path.read_bytes()[: 20 * PAGE])
    with pytest.raises(BadInput, match="is damaged"):
        Store(home)
    with pytest.raises(BadInput, match=r"is damaged .*go back to"):
        ask_sql(path, "SELECT sum(length(output)) FROM eval_results")


def test_an_answer_does_not_do_without_what_is_damaged(home: Path) -> None:
    """A price that cannot be told is left out of an explanation; a damaged store is no such part of it."""
    proposal = Proposal("inspect", {}, "to see")
    with closing(Store(home)) as store:
        ws = Workspace(store, None, lambda event, **facts: None)
        assert estimated_seconds(ws, "r1", proposal) is not None
        assert estimated_seconds(ws, "r1", Proposal("merge", {"precision": "none"}, "to see")) is None
    damage_table(home, "artifacts")
    with closing(Store(home)) as store, pytest.raises(StoreDamaged):
        estimated_seconds(Workspace(store, None, lambda event, **facts: None), "r1", proposal)


def test_a_document_that_was_cut_short_is_damage_and_no_defect_of_ours(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Store(home).write() as conn:
        conn.execute("UPDATE steps SET plan = substr(plan, 1, 20) WHERE step = 's3'")
    assert main(["runs", "show", "r1"]) == 2
    told = capsys.readouterr().err
    assert "is damaged" in told and "unexpected" not in told and not (home / "logs").exists()


def test_a_text_that_is_no_utf_8_is_damage(home: Path) -> None:
    with Store(home).write() as conn:
        conn.execute("UPDATE runs SET goal = CAST(x'61ff' AS TEXT)")
    with closing(Store(home)) as store, pytest.raises(StoreDamaged, match="is damaged"):
        store.runs()
    with pytest.raises(BadInput, match="Could not decode") as asked:  # a question may make such a text itself
        ask_sql(home / "tunesmith.db", "SELECT CAST(x'61ff' AS TEXT)")
    assert "is damaged" not in str(asked.value)


def test_words_of_sqlite_that_quote_damage_are_told(home: Path) -> None:
    """A schema of bytes that are no text: Python cannot read what SQLite says of it."""
    path = home / "tunesmith.db"
    whole = path.read_bytes()
    assert whole.count(b"tableartifactsartifacts") == 1
    named = whole.replace(b"tableartifactsartifacts", b"table\xffrtifactsartifacts")
    path.write_bytes(named.replace(b"CREATE TABLE artifacts", b"CREATE TXBLE artifacts"))
    with pytest.raises(BadInput, match="is damaged"):
        Store(home)
    with pytest.raises(BadInput, match="is damaged"):
        ask_sql(path, "SELECT 1 FROM runs")


@table(
    ("code", "damage"),
    [
        (sqlite3.SQLITE_CORRUPT, True),
        (sqlite3.SQLITE_CORRUPT_INDEX, True),
        (sqlite3.SQLITE_NOTADB, True),
        (sqlite3.SQLITE_IOERR_SHORT_READ, True),
        (sqlite3.SQLITE_IOERR_READ, True),
        (sqlite3.SQLITE_IOERR_CORRUPTFS, True),
        (sqlite3.SQLITE_IOERR_WRITE, False),
        (sqlite3.SQLITE_IOERR_SHMSIZE, False),
        (sqlite3.SQLITE_FULL, False),
        (sqlite3.SQLITE_BUSY, False),
        (sqlite3.SQLITE_CONSTRAINT, False),
        (0, False),
    ],
)
def test_what_a_disk_cannot_give_back_is_damage_and_a_full_or_busy_one_is_none(code: int, damage: bool) -> None:
    error = sqlite3.OperationalError("SQLite's own words")
    error.sqlite_errorcode = code
    assert is_damage(error) is damage


def test_a_whole_store_is_found_whole(home: Path) -> None:
    with closing(Store(home)) as store:
        store.refuse_damage()
    failure = explained(RuntimeError("a defect"))
    assert not isinstance(failure, BadInput) and str(failure).startswith("unexpected RuntimeError: a defect")


@pytest.mark.heavy
def test_no_command_ends_in_a_traceback_wherever_the_store_is_damaged(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(command: tuple[str, ...]) -> tuple[int, str, str]:
        code = main([*command, "--json"])
        out, err = capsys.readouterr()
        return (
            code,
            re.sub(r'"estimated_seconds": [^,}]+', '"estimated_seconds": 0', out),
            err,
        )  # what is free now is in it

    right = {command: said(command)[:2] for command in COMMANDS}
    for number, way in damaged_pages(home, every=11):
        for command in COMMANDS:
            code, out, err = said(command)
            assert "unexpected" not in err and "Traceback" not in err, (number, way, command, err)
            is_told = code == 2 and "is damaged" in err.splitlines()[-1]
            assert is_told or (code, out) == right[command] or way in UNSEEN, (number, way, command, err)


@pytest.mark.heavy
def test_the_doctor_finds_damage_that_no_command_met(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    damage_table(home, "marks")
    assert main(["runs", "list"]) == 0
    capsys.readouterr()
    assert main(["doctor"]) == 2
    assert "is damaged" in capsys.readouterr().err
