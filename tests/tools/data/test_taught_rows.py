"""Rows and messages of every form: conversations as text, lists in their order, rows that become cases."""

from __future__ import annotations

import json
import random
import re
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fixtures.tables import table
from tests.fixtures.taught_forms import ALL, BOOK, INVOICE, TABLE, TAGS, TALK, pools, spec
from tunesmith.memory.records import KEEP, TrainingRow, Verdict
from tunesmith.memory.row_attributes import Draw, RowAttributes
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.behaviour import spec_of
from tunesmith.tools.data.critique import CritiqueRequest
from tunesmith.tools.data.critique_job import Critic
from tunesmith.tools.data.description import transcript, turns_of
from tunesmith.tools.data.draw import draw
from tunesmith.tools.data.held_out import hold_out
from tunesmith.tools.data.reading import disagreements
from tunesmith.tools.data.row_checks import drawn_problem, in_message_order
from tunesmith.tools.data.rows import read_rows, write_rows
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.spec_suites import write_case_suites
from tunesmith.tools.suites.case import VALUE, Case
from tunesmith.tools.suites.grading import Response, grade
from tunesmith.tools.suites.loading import load_suites

NAMES = [said["name"] for said in ALL]


def passes(case: Case, answer: Response) -> bool:
    return grade(case, answer).passed


SPOKEN = spec(TALK)
_WORDS = st.text(alphabet="aU:s \n", min_size=1, max_size=12).map(str.strip).filter(bool)


@settings(deadline=None)
@given(st.lists(_WORDS, min_size=1, max_size=5).filter(lambda texts: len(texts) % 2 == 1))
def test_a_transcript_is_its_turns(texts: list[str]) -> None:
    turns = [("assistant" if n % 2 else "user", text) for n, text in enumerate(texts)]
    assert [(str(m["role"]), m["content"]) for m in turns_of(transcript(turns))] == turns
    assert SPOKEN.text_of(SPOKEN.turns(transcript(turns))) == transcript(turns)


BILL = {
    "vendor": "Kite Ltd", "items[0].article": "ropes", "items[0].count": "2", "items[0].price": "9.50",
    "items[1].article": "tiles", "items[1].count": "5", "items[1].price": "9.50", "contact": None,
}  # fmt: skip
SAID = [
    ("Kite Ltd: 2 ropes, 9.50 each, and 5 tiles, 9.50 each", ""),
    ("Kite Ltd: 2 ropes and 5 tiles, 9.50 each", "more often than the message says"),
    ("Kite Ltd: 2 ropes, 9.50 each, 5 tiles, 9.50 each, 19.00 in all", "'19.00' was not drawn"),
    ("Kite Ltd: 2 ropes, 9.50 each, 5 rugs, 9.50 each", "items\\[1\\].article"),
    ("Kite Ltd: 2 ropes, 9.50 each, 5 tiles, 9.50 each, ask tom@example.com", "'tom@example.com' was not drawn"),
]


@table(("message", "problem"), SAID)
def test_a_message_says_every_value_of_a_list_and_no_other(message: str, problem: str) -> None:
    surfaces = {path: value for path, value in BILL.items() if value}
    found = drawn_problem(spec(INVOICE), BILL, surfaces, message)
    assert re.search(problem, found) if problem else not found, found


def test_a_list_comes_in_the_order_of_its_message() -> None:
    one = spec(INVOICE)
    drawn = Draw("w1", (dict(BILL),), ({path: value for path, value in BILL.items() if value},), 0)
    turned = in_message_order(one, drawn, "5 tiles at 9.50, 2 ropes at 9.50 from Kite Ltd")
    assert [turned.values[f"items[{n}].article"] for n in (0, 1)] == ["tiles", "ropes"]
    assert [turned.surfaces[0][f"items[{n}].count"] for n in (0, 1)] == ["5", "2"]
    assert in_message_order(one, drawn, "2 ropes at 9.50, 5 tiles at 9.50") == drawn


def test_a_set_is_read_back_whatever_its_order_and_a_list_with_all_its_items() -> None:
    one, form = spec(TAGS), form_of(spec(TAGS))
    (drawn,), (read,), (less,) = (form.parse(f"Topics: {t}.") or [] for t in ("bill, login", "login, bill", "login"))
    assert not disagreements(one, drawn, "m", read)
    assert disagreements(one, drawn, "m", less) and disagreements(one, less, "m", drawn)
    bill = spec(INVOICE)
    shorter = {path: value for path, value in BILL.items() if not path.startswith("items[1]")}
    swapped = {**BILL, "items[0].count": "5", "items[1].count": "2"}
    assert disagreements(bill, BILL, "ropes tiles Kite Ltd", swapped), "every value is there, beside another article"
    assert not disagreements(bill, BILL, "ropes tiles Kite Ltd", {**BILL, "items[0].price": "9.5"})
    assert disagreements(bill, BILL, "ropes tiles Kite Ltd", shorter)
    assert disagreements(bill, shorter, "ropes tiles Kite Ltd", BILL)


def test_what_the_document_shows_is_a_behaviour() -> None:
    text = (Path(__file__).parents[3] / "docs" / "behaviours.md").read_text()
    *_, made_of, asked = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))
    examples = []
    for code in ("04711", "12345", "99887"):
        examples.append(deepcopy(asked["examples"][0]))
        examples[-1]["messages"][3]["content"] = f"The one under {code}."
        examples[-1]["messages"][4]["tool_calls"][0]["function"]["arguments"]["code"] = code
    called = spec_of({"tools": asked["tools"], "examples": examples}, "document")
    assert called.conversation and called.answer.template == "cancel" and called.attribute("code").kind == "copied"
    answer = {"vendor": "Oak", "items": [{"article": "tiles", "count": 2, "price": 10.0}], "total": 11.9, "tags": []}
    shown = [{"prompt": f"Oak, 2 tiles, 10.00 ({n})", "answer": answer} for n in range(3)]
    assert form_of(spec_of({**made_of, "examples": shown}, "document")).computes


_WOODS = (
    "oak", "elm", "yew", "fir", "pine", "birch", "larch", "maple", "cedar", "walnut", "cherry", "willow", "alder",
    "beech", "hazel", "rowan", "spruce",
)  # fmt: skip


def message(one: Spec, drawn: Draw) -> str:
    """A message that says what was drawn, like no other one."""
    rng = random.Random(drawn.row_id)
    surfaces = drawn.surfaces[0]
    labels = [v for path, v in drawn.values.items() if v and path not in surfaces and one.attribute(path).values]
    text = ", ".join([*rng.sample(_WOODS, 6), *labels, *surfaces.values()])
    return transcript([("user", text), ("assistant", "tell me more"), ("user", "soon")]) if one.conversation else text


@pytest.mark.heavy
@table("said", ALL)
def test_rows_of_any_form_are_stored_judged_and_become_cases(said: dict[str, Any], tmp_path: Path) -> None:
    one = spec(said)
    form, rows = form_of(one), []
    for index in range(24):
        drawn = draw(one, 3, index, pools)
        text = message(one, drawn)
        drawn = in_message_order(one, drawn, text)
        system = [{"role": "system", "content": prompt} for prompt in one.system_prompts]
        attributes = RowAttributes(draw=drawn, text=text, tools=one.tools)
        turn = form.turn(form.compose(drawn.records))
        rows.append(TrainingRow(drawn.row_id, "generated", [*system, *one.turns(text)], [turn], attributes))
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl") == rows
    judged = Critic(one, [], CritiqueRequest(embeddings=False)).judge(rows)
    assert sum(row.usable for row in judged) >= 12, [str(row.verdict) for row in judged if not row.usable]
    held = hold_out(one, judged, [], 6, 95)
    write_case_suites(one, tmp_path / "cases", held, judged=False)
    cases = load_suites([tmp_path / "cases" / "held-out.yaml"]).cases
    asked = {row.row_id: row for row in rows}
    by_messages = {json.dumps(list(row.prompt)): row for row in asked.values()}
    assert len(cases) == 6
    for case in cases:
        row = by_messages[json.dumps(list(case.messages))]
        assert list(case.tools) == list(one.tools) and case.is_blind and case.metadata["meaning"] == VALUE
        assert passes(case, form.response(row.answer))
        assert not any(passes(case, form.response(r.answer)) for r in rows if r.answer != row.answer)


def test_a_message_that_needs_no_tool_says_no_arguments() -> None:
    one = spec(TABLE)
    drawn = [draw(one, 3, index, pools).values for index in range(40)]
    assert any(values["tool"] is None for values in drawn)
    for values in drawn:
        said = {path.partition("[")[0] for path, value in values.items() if value is not None} - {"tool"}
        allowed = {None: set(), "book_table": {"guests", "day", "wishes"}, "cancel_table": {"code"}}[values["tool"]]
        assert said <= allowed


def test_a_row_with_other_tools_or_turns_than_its_behaviour_is_no_case_of_it() -> None:
    table, talk = spec(TABLE), spec(TALK)
    asked, answered = [{"role": "user", "content": "a table"}], [{"role": "assistant", "content": "Which table?"}]
    row = TrainingRow("i-1", "imported", asked, answered, RowAttributes(tools=table.tools), verdict=Verdict(KEEP))
    other = replace(row, attributes=RowAttributes(tools=(BOOK,)))
    long = replace(row, prompt=[*asked, *answered, *asked])
    strange = replace(row, prompt=[{"role": "system", "content": "Be brief."}, *asked])
    assert [hold_out(table, [r], [], 1, 99).cases for r in (row, other, long, strange)] == [1, 0, 0, 0]
    known = replace(
        long, prompt=[{"role": "system", "content": "You sell coffee."}, *long.prompt], attributes=RowAttributes()
    )
    (case,) = hold_out(talk, [known], [], 1, 99).known
    assert case.system == "You sell coffee." and case.prompt.startswith("User: a table\nAssistant: Which table?")
