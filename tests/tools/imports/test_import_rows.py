"""Rows from elsewhere: each format as projects publish it, a clear answer to what is none, and nothing crashes."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.steps import say_yes
from tests.fixtures.tables import table
from tunesmith.memory.errors import BadInput
from tunesmith.memory.store import Store
from tunesmith.tools.data.rows import read_rows
from tunesmith.tools.imports.formats import convert, inspect_records
from tunesmith.tools.imports.sources import unclear
from tunesmith.tools.pipeline.run_step import price, run_step
from tunesmith.tools.pipeline.workspace import StepRequest, Workspace
from tunesmith.tools.training.rows import IGNORED, tokenize_row

pytestmark = pytest.mark.heavy

CALL = {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Graz"}'}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
FORMATS: dict[str, list[Any]] = {
    "messages": [{"messages": [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Grüß dich 你好"},
        {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Again?"},
        {"role": "assistant", "content": "Hello again."}]}],
    "sharegpt": [{"id": "x1", "system": "Be kind.", "conversations": [
        {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]}],
    "instruction/output": [{"instruction": "Add.", "input": "2 and 3", "output": "5"},
                           {"instruction": "Hi", "input": "", "output": "Yo"}],
    "prompt/completion": [{"prompt": "2+2?", "completion": "4"},
                          {"prompt": [{"role": "user", "content": "3+3?"}],
                           "completion": [{"role": "assistant", "content": "6"}]}],
    "prompt/answer": [{"prompt": "2+2?", "answer": "4"}, {"prompt": "3+3?", "answer": "6"}],
    "tool calls": [{"tools": json.dumps([TOOL]), "messages": [
        {"role": "user", "content": "Weather in Graz?"}, {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "sunny"}, {"role": "assistant", "content": "It is sunny."}]},
        {"functions": [TOOL["function"]], "messages": [
        {"role": "user", "content": "Weather in Graz?"},
        {"role": "assistant", "content": None, "function_call": CALL["function"]}]}],
}  # fmt: skip


@table("name", FORMATS)
def test_a_published_format_is_ready_and_keeps_system_turns_and_tools(name: str) -> None:
    found = inspect_records(FORMATS[name])
    assert (found.status, found.format) == ("READY", name) and not found.problems
    rows, _ = convert(FORMATS[name], found.format, found.mapping)
    assert len(rows) == len(FORMATS[name]) and all(row.completion[0]["role"] == "assistant" for row in rows)
    if name == "messages":
        assert [m["role"] for m in rows[0].prompt] == ["system", "user"] and len(rows[0].completion) == 3
    if name == "tool calls":
        assert rows[0].attributes.tools == (TOOL,)
        assert rows[0].completion[0]["tool_calls"][0]["function"]["arguments"] == {"city": "Graz"}
    if name == "instruction/output":
        assert [row.prompt[0]["content"] for row in rows] == ["Add.\n\n2 and 3", "Hi"]


PAIRS = (
    "prompt/completion", "prompt/answer", "prompt/response", "question/answer", "question/response", "query/response",
    "instruction/output", "instruction/response", "input/output", "message/reply", "user/assistant", "text/label",
)  # fmt: skip


@table("name", PAIRS)
def test_a_message_and_its_answer_are_told_by_the_names_of_their_columns(name: str) -> None:
    asked, answered = name.split("/")
    record = {"id": 7, f" {answered.title()}": "It is 4.", "System_Prompt": "Be brief.", "date": "1 May"}
    record |= {f"{asked.upper()} ": "2+2?"}
    found = inspect_records([record] * 3)
    assert (found.status, found.format, found.mapping) == ("READY", name, {})
    assert found.taken == f"columns taken:  {answered.title()}, System_Prompt, {asked.upper()} ; not taken: id, date"
    [row], _ = convert([record], name, {})
    assert [turn["content"] for turn in (*row.prompt, *row.completion)] == ["Be brief.", "2+2?", "It is 4."]


@table(
    "columns",
    [
        ("a", "b"), ("x", "y"), ("column1", "column2"), ("a", "date"), ("source", "a", "b"), ("question", "text"),
        ("question", "a", "b"), ("question", "answer", "text", "label"),
        ("prompt", "completion", "answer"), ("body", "reply", "label"),
        ("instruction", "input", "output", "response"),
    ],
)  # fmt: skip
def test_columns_that_tell_nothing_or_several_pairs_are_asked_about_and_never_guessed(columns: tuple[str, ...]) -> None:
    records = [dict.fromkeys(columns, f"text {n}") for n in range(5)]
    found = inspect_records(records)
    assert (found.status, found.mapping, found.preview, found.problems) == ("NEEDS MAPPING", {}, (), ())
    assert unclear(found) == (
        f"cannot tell which of the columns {', '.join(columns)} is the message and which the answer; say "
        "--map user=COLUMN assistant=COLUMN"
    )
    agreed = inspect_records(records, {"user": columns[1], "assistant": columns[0]})
    assert agreed.status == "READY"


@table(
    ("columns", "proposed"),
    [
        (("question", "reply"), "user=question assistant=reply"),
        (("id", "Reply", "date", "Question"), "user=Question assistant=Reply"),
        (("user", "question", "source", "reply"), "user=question assistant=reply"),
        (("question", "mood"), "user=question assistant=mood"),
        (("mood", "answer"), "user=mood assistant=answer"),
        (("system", "question", "we tell"), "user=question 'assistant=we tell' system=system"),
    ],
)
def test_names_that_tell_the_pair_are_proposed(columns: tuple[str, ...], proposed: str) -> None:
    found = inspect_records([dict.fromkeys(columns, f"text {n}") for n in range(5)])
    assert found.status == "NEEDS MAPPING"
    assert unclear(found) == f"Which columns? Run again with --map {proposed}"


EXPORTS: dict[str, Any] = {
    "Claude": {"uuid": "1", "name": "Sums", "chat_messages": [
        {"sender": "human", "text": "2+2?"}, {"sender": "assistant", "text": "4"}]},
    "ChatGPT": {"title": "Sums", "current_node": "d", "mapping": {
        "a": {"parent": None, "message": {"author": {"role": "system"}, "content": {"parts": [""]}}},
        "b": {"parent": "a", "message": {"author": {"role": "user"}, "content": {"parts": ["2+2?"]}}},
        "c": {"parent": "b", "message": {"author": {"role": "assistant"}, "content": {"parts": ["5"]}}},
        "d": {"parent": "b", "message": {"author": {"role": "assistant"}, "content": {"parts": ["4"]}}}}},
}  # fmt: skip


@table("program", EXPORTS)
def test_an_exported_chat_is_the_conversation_that_was_shown_last(program: str) -> None:
    found = inspect_records([EXPORTS[program]])
    assert (found.status, found.format) == ("READY", "messages")
    [row], _ = convert([EXPORTS[program]], found.format, {})
    assert [(turn["role"], turn["content"]) for turn in (*row.prompt, *row.completion)] == [
        ("user", "2+2?"), ("assistant", "4"),
    ]  # fmt: skip


@table(
    ("weights", "shown", "learned"),
    [((1, 1), 1, 3), ((0, 1), 3, 1), ((1, 0), 1, 1), ((None, None), 1, 3)],
)
def test_an_answer_of_weight_0_is_shown_and_never_learned(
    weights: tuple[int | None, ...], shown: int, learned: int
) -> None:
    turns: list[dict[str, Any]] = []
    for weight in weights:
        answer = {"role": "assistant", "content": "yes"}
        turns += [{"role": "user", "content": "Again?"}, answer if weight is None else {**answer, "weight": weight}]
    [row], _ = convert([{"messages": turns}], "messages", {})
    assert (len(row.prompt), len(row.completion)) == (shown, learned)
    assert not any("weight" in turn for turn in (*row.prompt, *row.completion))


def test_an_answer_that_is_an_object_or_a_list_is_its_json() -> None:
    records = [{"prompt": "a", "completion": {"größe": [1]}}, {"prompt": "b", "completion": ["x", "y"]}]
    rows, problems = convert(records, "prompt/completion", {})
    assert [row.answer for row in rows] == ['{"größe": [1]}', '["x", "y"]'] and not problems


def test_columns_of_ones_own_need_a_mapping_that_is_proposed_on_three_rows() -> None:
    records = [{"nr": n, "question": f"What is {n}?", "reply": f"It is {n}."} for n in range(5)]
    found = inspect_records(records)
    assert found.status == "NEEDS MAPPING" and found.mapping == {"user": "question", "assistant": "reply"}
    assert len(found.preview) == 3 and "What is 0? => It is 0." in found.preview
    assert inspect_records(records, found.mapping).status == "READY"
    nothing = inspect_records([{"a": 1}, {"a": 2}])
    assert (nothing.status, len(nothing.problems)) == ("INCOMPATIBLE", 2)


@table(
    ("mapping", "told"),
    [
        (
            {"user": "nosuch", "assistant": "alsonot"},
            "^x.csv has no column 'nosuch' or 'alsonot'; its columns: prompt, completion$",
        ),
        (
            {"user": "prompt", "assistant": "alsonot"},
            "^x.csv has no column 'alsonot'; its columns: prompt, completion$",
        ),
        ({"user": "prompt", "assistant": "completion", "system": "note"}, "has no column 'note'; "),
        ({"system": "prompt"}, "names no column for user; it takes one for user and one for assistant"),
        ({"user": "prompt"}, "names no column for assistant"),
        ({"usr": "prompt"}, "names 'usr'; it names columns for user, assistant, system"),
    ],
)
def test_a_mapping_that_would_be_followed_nowhere_is_refused(mapping: dict[str, str], told: str) -> None:
    records = [{"prompt": f"question {n}", "completion": "yes"} for n in range(5)]
    with pytest.raises(BadInput, match=told):
        inspect_records(records, mapping, name="x.csv")


def test_a_mapping_is_followed_in_a_known_format_too() -> None:
    records = [{"prompt": f"question {n}", "completion": "yes", "note": "Be kind."} for n in range(5)]
    found = inspect_records(records, {"user": "completion", "assistant": "prompt", "system": "note"})
    rows, _ = convert(records, found.format, found.mapping)
    assert found.status == "READY" and rows[0].answer == "question 0"
    assert [turn["content"] for turn in rows[0].prompt] == ["Be kind.", "yes"]


@table(
    ("record", "told"),
    [
        ({"prompt": "a", "completion": ""}, "completion is empty"),
        ({"prompt": "a", "completion": None}, "completion is missing"),
        ({"prompt": "x" * 2_000_000, "completion": "b"}, "2,000,000 characters"),
        ({"prompt": ["a"], "completion": "b"}, "prompt is list, no text"),
        ({"prompt": [{"role": "robot", "content": "a"}], "completion": "b"}, "message 1 has the role 'robot'"),
        ({"prompt": "a\ud800", "completion": "b"}, "half a character"),
        ("a string", "no object"),
        (None, "no object"),
        ({"messages": [{"role": "user", "content": "a"}]}, "there is no answer of the assistant"),
        ({"messages": [{"role": "user", "content": None}]}, "the text of message 1 is missing"),
        ({"mapping": {"a": {"message": 7, "parent": "a"}}, "current_node": "a"}, "prompt is missing"),
        (17, "no object"),
    ],
)
def test_a_record_that_is_no_row_is_told_with_its_number(record: Any, told: str) -> None:
    good = [{"prompt": f"question {n}", "completion": "yes"} for n in range(5)]
    rows, problems = convert([*good[:2], record, *good[2:]], "prompt/completion", {})
    assert len(rows) == 5 and [problem.number for problem in problems] == [3] and told in problems[0].reason


def test_a_record_keeps_its_own_name_and_mixed_types_become_text() -> None:
    records = [{"id": 7, "prompt": "a", "completion": 5}, {"prompt": "b", "completion": True}]
    rows, problems = convert(records, "prompt/completion", {})
    assert [row.row_id for row in rows] == ["7", ""] and not problems
    assert [row.completion[0]["content"] for row in rows] == ["5", "true"]


RUN = "r1"
"""That of `based`, which has its base."""


@pytest.fixture
def ws(based: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(based / "home", tmp_path / "home")
    return Workspace(Store(tmp_path / "home"), None, lambda event, **data: None)


def test_files_of_each_kind_are_taken_to_the_rows_file(ws: Workspace, tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    lines = [
        json.dumps(record, ensure_ascii=False) for name in FORMATS for record in FORMATS[name] if name == "messages"
    ]
    (tmp_path / "many" / "a.jsonl").write_text("\n".join([*lines, "{broken", ""]), encoding="utf-8-sig")
    with (tmp_path / "many" / "b.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["nr", "question", "answer"], [1, "Größe?", "5\nlines"], [2, "", "none"]])
    fields: dict[str, Any] = {"source": str(tmp_path / "many" / "a.jsonl")}
    with pytest.raises(BadInput, match=r"1 of 2 records are no rows, over 5%.*record 2: .*max_unusable_share=0.51"):
        price(ws, StepRequest("import", fields, RUN))
    fields["max_unusable_share"] = 0.51
    step = run_step(ws, StepRequest("import", fields, RUN), say_yes).done()
    assert step.result and (step.result["rows"], step.result["incompatible"]) == (1, 1)
    assert step.result["problems"][0].startswith("record 2:") and step.result["turns"] == 2
    fields |= {"source": str(tmp_path / "many" / "b.csv")}
    [what, *_] = price(ws, StepRequest("import", fields, RUN)).steps
    assert what.endswith("question/answer, by its first 2 records; columns taken: question, answer; not taken: nr")
    step = run_step(ws, StepRequest("import", fields, RUN), say_yes).done()
    assert step.result and (step.result["rows"], step.result["rows_before"]) == (1, 1)
    rows = read_rows(ws.store.artifacts(RUN, "rows")[-1].path / "rows.jsonl")
    assert {row.completion[-1]["content"] for row in rows} >= {"Hello again.", "5\nlines"}


def test_what_cannot_be_taken_is_refused_before_anything_starts(ws: Workspace, tmp_path: Path) -> None:
    for columns, told in (
        (("question", "we tell"), "own.jsonl: Which columns? Run again with --map user=question 'assistant=we tell'"),
        (("ask", "we tell"), "own.jsonl: cannot tell which of the columns ask, we tell is the message and which the"),
    ):
        (tmp_path / "own.jsonl").write_text(json.dumps(dict.fromkeys(columns, "a b c")) + "\n")
        with pytest.raises(BadInput, match=f"^import: {re.escape(told)}"):
            price(ws, StepRequest("import", {"source": str(tmp_path / "own.jsonl")}, RUN))
    (tmp_path / "numbers.json").write_text(json.dumps(list(range(42))))
    with pytest.raises(BadInput, match="INCOMPATIBLE: 42 of 42"):
        price(ws, StepRequest("import", {"source": str(tmp_path / "numbers.json")}, RUN))
    for name, text in (("bytes.jsonl", b"\xff\xfe\x00"), ("empty.jsonl", b""), ("bad.json", b"{")):
        (tmp_path / name).write_bytes(text)
        with pytest.raises(BadInput):
            price(ws, StepRequest("import", {"source": str(tmp_path / name)}, RUN))
    with pytest.raises(BadInput, match=r"nothing.jsonl is not there; name a file or a folder of rows"):
        price(ws, StepRequest("import", {"source": str(tmp_path / "nothing.jsonl")}, RUN))
    with pytest.raises(BadInput, match="is not there"):  # said before it is that there is no run
        StepRequest.given("import", {"source": str(tmp_path / "nothing.jsonl")})


@pytest.mark.lab
def test_every_turn_of_the_assistant_is_trained_and_no_other(tiny_llama: Path) -> None:
    from transformers import AutoTokenizer

    rows, _ = convert(FORMATS["messages"], "messages", {})
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    made = tokenize_row(tokenizer, rows[0], 512)
    trained = tokenizer.decode([label for label in made.labels if label != IGNORED])
    assert "Hello." in trained and "Hello again." in trained and "Again?" not in trained
    stops = [label for label in made.labels if label == tokenizer.eos_token_id]
    assert len(stops) == 2, "each turn ends with its stop token, which is learned"


def test_rows_without_a_behaviour_are_held_to_no_form_and_their_faults_are_found(ws: Workspace, tmp_path: Path) -> None:
    told = ["Rake found behind the house.", "I oiled the old saw today", "new rope: 12 m", "Paint dries until noon!"]
    asked = ["Where can I buy good seeds around here?", "¿Dónde están las llaves de la casa, por favor?"]
    rows = [{"prompt": text, "completion": "Noted. " + text.upper()} for text in (*told, *asked)]
    bad = [{"prompt": "The hose leaks at both of its ends.", "completion": "<|im_start|>assistant"}, rows[0]]
    (tmp_path / "own.jsonl").write_text("\n".join(json.dumps(row) for row in [*rows, *bad]))
    run_step(ws, StepRequest("import", {"source": str(tmp_path / "own.jsonl")}, RUN), say_yes).done()
    asks = {"suites": [], "valid_share": 0.0}
    step = run_step(ws, StepRequest("critique", asks, RUN), say_yes).done()
    assert step.result and step.result["kept"] == len(rows), "a person's row is a person's"
    assert step.result["reasons"] == {"duplicate": 1, "leftover": 1}
