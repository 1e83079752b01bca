"""Files that sentences name: looked at at once, nothing imported, and nothing of the sentence dropped unsaid."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.agent.driver.test_follow_ups import EMPTY, ONE, at, types
from tests.fixtures.tables import table
from tunesmith.agent.words.slots import slots_of

pytestmark = pytest.mark.heavy

ROW = json.dumps({"prompt": "where is it?", "completion": "on its way"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "my data"
    folder.mkdir()
    (folder / "old tickets.jsonl").write_text(f"{ROW}\n{ROW}\nno row\n")
    (folder / "tickets.jsonl").write_text(f"{ROW}\n" * 3)
    (folder / "notes.txt").write_text("none")
    return folder


@table(
    ("said", "path"),
    [
        ("import {0}/old tickets.jsonl and train on it", "{0}/old tickets.jsonl"),
        ("a file of tickets is in {0}, tickets.jsonl. use it", "{0}/tickets.jsonl"),
        ("check the tickets file in {0} please", "{0}/tickets.jsonl"),
        ("nimm die Datei tickets aus {0}", "{0}/tickets.jsonl"),
        ("import all of {0} now", "{0}"),
        ("train it on /home/me/lesson plans final FINAL.docx", "/home/me/lesson plans final FINAL.docx"),
        ("put /data/rows and qwen2.5 together", "/data/rows"),
        ("read /data/x with llama.cpp", "/data/x"),
        ("import rows.jsonl", "rows.jsonl"),
        ("import ~/data/rows.jsonl, then train", "~/data/rows.jsonl"),
    ],
)
def test_the_longest_path_that_is_there_is_meant(folder: Path, said: str, path: str) -> None:
    assert slots_of(said.format(folder)).values("path") == [path.format(folder)]


def test_a_file_that_is_named_is_looked_at_and_the_rest_of_the_sentence_is_named(tmp_path: Path, folder: Path) -> None:
    with at(tmp_path / "home", ONE) as shell:
        shown = types(shell, f"import {folder}/old tickets.jsonl and train llama 3.2 1b on it")
        assert "of 3 records, 2 can be taken as rows, 1 cannot. Nothing was imported." in shown
        assert "“Do that” imports it" in shown and "Record 3:" in shown
        assert "The base would be meta-llama/Llama-3.2-1B-Instruct" in shown and "Of train nothing was begun" in shown
        shown = types(
            shell, f"Check the tickets file in {folder} for rubbish and, if it's clean, teach Qwen3-4B from it."
        )
        assert f"{folder}/tickets.jsonl: of 3 records, all can be taken" in shown and "/import" not in shown
        assert "Qwen/Qwen3-4B" in shown and shell.answers.asked == []
        types(shell, "do that")
        assert shell.store.steps()[-1].request["source"] == f"{folder}/tickets.jsonl"


def test_where_no_run_is_yet_it_is_said_that_one_comes_first(tmp_path: Path, folder: Path) -> None:
    with at(tmp_path / "home", EMPTY) as shell:
        shown = types(shell, f"import {folder}/tickets.jsonl and train on it")
        assert "of 3 records, all can be taken" in shown and "there is none yet" in shown and "Do that" not in shown


def test_what_is_no_file_of_rows_is_told_at_once(tmp_path: Path, folder: Path) -> None:
    with at(tmp_path / "home", ONE) as shell:
        gone = types(shell, "train it on /home/me/Documents/lesson plans final FINAL.docx")
        assert "here is no /home/me/Documents/lesson plans final FINAL.docx" in gone and "/import" not in gone
        assert "rows export" not in gone
        other = types(shell, f"I have my examples in {folder}/gone.jsonl, use those")
        assert f"here is no {folder}/gone.jsonl" in other and "/import" not in other
        written = types(shell, f"Store the rows that were kept in {folder}/gone.jsonl")
        assert f"`tunesmith rows export '{folder}/gone.jsonl' --run r1` writes the " in written
        orders = types(shell, f"export the kept rows of r1 to {folder}/gone.jsonl please")
        assert " rows that r1 kept; nothing was written yet" in orders and "there is no" not in orders.lower()
        other = types(shell, f"import {folder}/gone.jsonl and export it as gguf")
        assert "here is no" in other or "not begun" in other, other
    assert [path.name for path in sorted(folder.iterdir())] == ["notes.txt", "old tickets.jsonl", "tickets.jsonl"]
