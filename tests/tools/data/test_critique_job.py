"""critique: every bad row goes for the right reason, no case of a suite is trained on, and the good rows stay."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from tests.fixtures.behaviours import PICKUP
from tests.fixtures.planted_faults import good_rows
from tests.fixtures.tables import table
from tunesmith.memory.records import TrainingRow
from tunesmith.memory.row_attributes import RowAttributes
from tunesmith.tools.data.balance import alarms, balance_of
from tunesmith.tools.data.behaviour import load_behaviour, spec_of
from tunesmith.tools.data.critique import CritiqueRequest
from tunesmith.tools.data.critique_job import Critic, split_of
from tunesmith.tools.data.row_checks import BehaviourChecks
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.loading import load_named_suites

DEMO = load_behaviour("demo")


@cache
def cases() -> tuple[Case, ...]:
    return load_named_suites(("demo",)).cases


@cache
def good() -> list[TrainingRow]:
    return good_rows(DEMO, 200)


def generated(index: int) -> TrainingRow:
    return good()[index]


def drawn(row: TrainingRow, name: str) -> str | None:
    assert row.attributes.draw
    return row.attributes.draw.values[name]


def rehearsal(prompt: str, answer: str, finish_reason: str = "stop") -> TrainingRow:
    return TrainingRow(
        "r1",
        "rehearsal",
        [{"role": "user", "content": prompt}],
        [{"role": "assistant", "content": answer}],
        RowAttributes(finish_reason=finish_reason),
    )


def reasons(*rows: TrainingRow) -> list[str]:
    return [why(row) for row in Critic(DEMO, cases(), CritiqueRequest(embeddings=False)).judge(rows)]


def why(row: TrainingRow) -> str:
    return str(row.verdict) if row.dropped else ""


def asking(row: TrainingRow, text: str) -> TrainingRow:
    return replace(row, prompt=[{"role": "user", "content": DEMO.render(text)}])


def answering(row: TrainingRow, answer: str) -> TrainingRow:
    return replace(row, completion=[{"role": "assistant", "content": answer}])


def test_rows_as_they_are_made_are_kept() -> None:
    assert [reason for reason in reasons(*good()) if reason] == []


def test_a_rows_text_may_not_be_that_of_any_case_of_any_block() -> None:
    target = [case for case in cases() if case.block == "target"]
    ticket = str(target[0].vars[DEMO.slot])
    assert reasons(asking(generated(0), ticket.upper() + " "))[0].startswith(("leak", "label", "value"))
    general = next(case for case in cases() if case.block == "general")
    assert reasons(rehearsal(str(general.messages[-1]["content"]), "Well."))[0].startswith("leak")


@table(
    ("answer", "kind"),
    [
        ("Sure! Here you are.", "form"),
        ('{"category": "sales", "urgency": "low", "order": null, "summary": "A thing"}', "rule"),
        ('{"urgency": "low", "category": "billing", "order": null, "summary": "A thing"}', "rule"),
        ('{"category": "billing", "urgency": "low", "order": null,\n "summary": "A thing"}', "rule"),
        ('{"category": "billing", "urgency": "low", "order": null, "summary": "a b c d e f g h i j k l m"}', "rule"),
        ('{"category": "billing", "urgency": "low", "order": "1234", "summary": "Another label"}', "label"),
        ("", "empty"),
    ],
)
def test_an_answer_out_of_form_or_not_the_drawn_one_is_dropped(answer: str, kind: str) -> None:
    assert reasons(answering(generated(0), answer))[0].startswith(kind + ":")


def test_the_beginning_of_an_ordinary_answer_is_enough_to_rehearse() -> None:
    assert reasons(rehearsal("Tell me about boats.", "They float on", "length")) == [""]


def test_a_row_like_one_before_it_is_dropped_even_with_another_number() -> None:
    row = next(r for r in good() if drawn(r, "order"))
    other = replace(row, row_id="w99999")
    assert reasons(row, other)[1].startswith("duplicate")


@table(
    ("row", "kind"),
    [
        (rehearsal("Tell me about boats.", ""), "empty"),
        (rehearsal("Tell me about boats.", "one two three four five " * 4), "loop"),
        (rehearsal("Tell me about boats.", '{"category": "", "urgency": "", "order": null, "summary": ""}'), "form"),
    ],
)  # fmt: skip
def test_an_ordinary_answer_that_would_teach_harm_is_dropped(row: TrainingRow, kind: str) -> None:
    assert reasons(row)[0].startswith(kind)


@table(
    ("answer", "formed"),
    [
        ("Good evening!", False), ("A dozen is 12.", False), ("Sure, tomorrow", False), ("mon 10:00", False),
        ("Mon 10:00", True), ("- 18:30", True), (" Sun - ", True),
    ],
)  # fmt: skip
def test_a_template_of_open_places_does_not_make_every_line_an_answer_of_the_behaviour(
    answer: str, formed: bool
) -> None:
    checks = BehaviourChecks(spec_of(PICKUP, "x"), [])
    fault = checks.fault(rehearsal("Tell me about boats.", answer))
    assert (fault is not None) == formed


def test_the_split_does_not_move_when_other_rows_come_and_go() -> None:
    rows = good()
    first = {row.row_id: split_of(row, 0.1) for row in rows}
    assert first == {row.row_id: split_of(row, 0.1) for row in reversed(rows)}
    assert 0.05 < sum(split == "valid" for split in first.values()) / len(rows) < 0.16


def test_a_value_that_no_kept_row_teaches_fails_the_step() -> None:
    rows = [row for row in good() if drawn(row, "urgency") != "low"]
    with pytest.raises(Exception, match="urgency=low"):
        balance_of(DEMO, rows, "")


def test_one_answer_for_nearly_all_and_a_label_that_is_lost_raise_an_alarm() -> None:
    rows = good()[:100]
    assert alarms(DEMO, rows, rows) == ()
    few = [row for row in rows if drawn(row, "category") != "billing"]
    assert any("category=billing is 0%" in told for told in alarms(DEMO, rows, few))
    same = [answering(row, rows[0].completion[0]["content"]) for row in rows]
    assert any("have the same answer" in told for told in alarms(DEMO, rows, same))


def test_an_ordinary_answer_that_says_a_thing_twice_is_what_the_base_says_and_stays() -> None:
    twice = "You can take the boat to the other side of the river, or take the boat to the other side of the lake."
    assert not reasons(rehearsal("How do I cross?", twice))[0]


def test_an_answer_that_is_nested_too_deep_is_no_json_and_ends_nothing() -> None:
    prompt, completion = [{"role": "user", "content": "Three nails, please"}], "[" * 100_000
    row = TrainingRow("i-1", "imported", prompt, [{"role": "assistant", "content": completion}])
    fault = BehaviourChecks(DEMO, []).fault(row)
    assert fault is not None and "not JSON" in fault.reason
