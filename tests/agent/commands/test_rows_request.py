"""The page that asks an assistant for rows: what stands on it, what does not, and that its lines come in again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunesmith.agent.cli import main
from tunesmith.agent.commands.rows_request import record_of, request_page
from tunesmith.memory.records import TrainingRow
from tunesmith.tools.core.record_files import text_records
from tunesmith.tools.data.behaviour import is_complete, spec_of, words_of, write_behaviour
from tunesmith.tools.data.description import Example
from tunesmith.tools.data.spec_suites import asked_near_misses
from tunesmith.tools.data.verify import verified
from tunesmith.tools.imports.formats import convert, inspect_records

CALL = {"type": "function", "function": {"name": "lamp", "arguments": '{"on": true}'}}
TOOL = {"type": "function", "function": {"name": "lamp", "parameters": {"type": "object", "properties": {}}}}
SAID: dict[str, Any] = {
    "name": "wetter",
    "when": "jemand schreibt, wie das Wetter ist",
    "what": "genau ein Wort: SONNE oder REGEN",
    "labels": {"SONNE": "es ist trocken und hell", "REGEN": "es ist nass"},
    "near_misses": ["Wie entsteht Regen?", "Scheint auf dem Mars die Sonne?"],
}


def said(count: int) -> dict[str, Any]:
    words = ("hell", "nass")
    examples = [
        {"prompt": f"Meldung {n}: draußen {words[n % 2]}", "answer": ("SONNE", "REGEN")[n % 2]} for n in range(count)
    ]
    return {**SAID, "examples": examples}


def test_what_is_blind_for_training_is_on_no_page_either() -> None:
    document = said(24)
    words, _ = words_of(document, "a file")
    page, shown = request_page(document, words, 40)
    assert shown == 14
    assert sum(example.prompt in page for example in words.examples) == 14
    assert "es ist nass" in page
    asked = asked_near_misses(words)
    assert len(asked) == 1
    assert [text in page for text in words.near_misses] == [text not in asked for text in words.near_misses]


def test_a_file_that_says_all_itself_was_not_parted_yet() -> None:
    document = said(24)
    words = words_of(document, "a file")[0].model_copy(update={"attributes": spec_of(document, "a file").attributes})
    page, shown = request_page(document, words, 40)
    assert is_complete(words)
    assert shown == 14
    assert sum(example.prompt in page for example in words.examples) == 14


def test_a_behaviour_whose_examples_were_parted_shows_those_that_are_left(tmp_path: Path) -> None:
    words, stated = words_of(said(24), "a file")
    folder = write_behaviour(verified(words, stated).spec, tmp_path)
    document = yaml.safe_load((folder / "behaviour.yaml").read_text(encoding="utf-8"))
    again, _ = words_of(document, "the folder")
    page, shown = request_page(document, again, 40)
    assert shown == len(again.examples) == 14
    assert all(example.prompt in page for example in again.examples)
    assert "sha256" not in page


@pytest.mark.parametrize(
    "example",
    [
        {"prompt": "draußen hell", "answer": "SONNE"},
        {"prompt": "a", "answer": {"b": [1, None]}},
        {"messages": [{"role": "system", "content": "kurz"}, {"role": "user", "content": "nass"},
                      {"role": "assistant", "content": "REGEN"}]},
        {"messages": [{"role": "user", "content": "ja?"}, {"role": "assistant", "content": "was?"},
                      {"role": "user", "content": "nass"}, {"role": "assistant", "content": "REGEN"}]},
        {"messages": [{"role": "user", "content": "Licht"}, {"role": "assistant", "content": "", "tool_calls": [CALL]}],
         "tools": [TOOL]},
    ],
)  # fmt: skip
def test_a_line_in_the_form_of_an_example_is_read_as_what_it_shows(example: dict[str, Any]) -> None:
    shown = Example.model_validate(example)
    record = json.loads(json.dumps(record_of(shown)))
    [row], problems = convert([record], inspect_records([record]).format, {})
    assert isinstance(row, TrainingRow)
    assert problems == ()
    *turns, answer = [*row.prompt, *row.completion]
    assert answer.get("tool_calls") or answer["content"] == shown.answer
    asked = example.get("messages", [{"content": example.get("prompt")}, {}])[:-1]
    assert [turn["content"] for turn in turns] == [turn["content"] for turn in asked]


def test_lines_are_read_with_the_fence_around_them(tmp_path: Path) -> None:
    file = tmp_path / "back.jsonl"
    file.write_text('```json\n{"prompt": "a", "answer": "b"}\n```\n', encoding="utf-8")
    assert [record.value for record in text_records(file)] == [{"prompt": "a", "answer": "b"}]


def test_the_page_is_printed_as_it_is_pasted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    long = "so " * 60 + "hell"
    document = said(4) | {"examples": [*said(3)["examples"], {"prompt": long, "answer": "SONNE"}]}
    file = tmp_path / "wetter.yaml"
    file.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
    assert main(["rows", "request", str(file), "--rows", "20"]) == 0
    printed = capsys.readouterr()
    assert json.dumps({"prompt": long, "answer": "SONNE"}) in printed.out.splitlines()
    assert "sends nothing" in " ".join(printed.err.split())
    assert main(["rows", "request", str(file), str(tmp_path / "page.txt")]) == 0
    assert "60 new examples" in (tmp_path / "page.txt").read_text(encoding="utf-8")
    assert main(["rows", "request", str(file), "--rows", "2"]) == 2
