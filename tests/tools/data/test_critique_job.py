"""critique: every bad row goes for the right reason, no case of a suite is trained on, and the good rows stay."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tunesmith.memory.records import TrainingRow
from tunesmith.tools.data.attributes import draw
from tunesmith.tools.data.behaviour import load_behaviour
from tunesmith.tools.data.critique import CritiqueRequest
from tunesmith.tools.data.critique_job import _balance, _judges, _split
from tunesmith.tools.data.generate_job import _row
from tunesmith.tools.data.similarity import Likeness
from tunesmith.tools.suites.loading import load_named_suites

DEMO = load_behaviour("demo")
CASES = load_named_suites(("demo",)).cases
WORDS = (" I hope that somebody has an eye on it.", " Nobody told me a thing about it.", " It makes no sense at all.")


def generated(index: int) -> TrainingRow:
    return _row(DEMO, draw(DEMO, 17, index), WORDS[index % len(WORDS)], 1)


def rehearsal(prompt: str, answer: str, finish_reason: str = "stop") -> TrainingRow:
    return TrainingRow(
        "r1",
        "rehearsal",
        [{"role": "user", "content": prompt}],
        [{"role": "assistant", "content": answer}],
        {"finish_reason": finish_reason},
    )


def reasons(*rows: TrainingRow) -> list[str]:
    judges = _judges(DEMO, CASES, CritiqueRequest())
    return [str(next(filter(None, (judge(row) for judge in judges)), "")) for row in rows]


def asking(row: TrainingRow, text: str) -> TrainingRow:
    return replace(row, prompt=[{"role": "user", "content": DEMO.render(text)}])


def answering(row: TrainingRow, answer: str) -> TrainingRow:
    return replace(row, completion=[{"role": "assistant", "content": answer}])


def test_rows_as_they_are_made_are_kept() -> None:
    kept = [not reason for reason in reasons(*(generated(i) for i in range(300)))]
    assert sum(kept) >= 285


def test_a_rows_text_may_not_be_that_of_any_case_of_any_block() -> None:
    target = [case for case in CASES if case.block == "target"]
    ticket = str(target[0].vars[DEMO.slot])
    assert reasons(asking(generated(0), ticket.upper() + " "))[0].startswith(("leak", "cue", "off-topic", "number"))
    general = next(case for case in CASES if case.block == "general")
    assert reasons(rehearsal(str(general.messages[-1]["content"]), "Well."))[0].startswith("leak")


def test_a_case_hidden_in_a_longer_text_and_with_other_digits_is_found() -> None:
    case = "My parcel 48213 has been stuck at the depot for nine days now."
    texts = Likeness([case])
    assert texts.nearest("Hi team! " + case.lower().replace("48213", "99") + " Thanks, Ann")[1] == 100.0
    assert texts.nearest("The lamp does not turn on.")[1] < 60


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("Sure! Here you are.", "schema"),
        ('{"category": "sales", "urgency": "low", "order": null, "summary": "A thing"}', "schema"),
        ('{"urgency": "low", "category": "billing", "order": null, "summary": "A thing"}', "schema"),
        ('{"category": "billing", "urgency": "low", "order": null,\n "summary": "A thing"}', "schema"),
        ('{"category": "billing", "urgency": "low", "order": null, "summary": "' + "a " * 13 + '"}', "schema"),
        ('{"category": "billing", "urgency": "low", "order": "1234", "summary": "Another label"}', "label"),
        ("", "empty"),
    ],
)
def test_an_answer_out_of_form_or_not_the_drawn_one_is_dropped(answer: str, kind: str) -> None:
    assert reasons(answering(generated(0), answer))[0].startswith(kind + ":")


def test_the_beginning_of_an_ordinary_answer_is_enough_to_rehearse() -> None:
    assert reasons(rehearsal("Tell me about boats.", "They float on", "length")) == [""]


def test_a_row_like_one_before_it_is_dropped_even_with_another_number() -> None:
    row = next(r for r in map(generated, range(200)) if r.attributes["reference"])
    digits = row.attributes["reference"]
    other = replace(row, row_id="w99999")
    assert digits and reasons(row, other)[1].startswith("duplicate")


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (rehearsal("Tell me about boats.", ""), "empty"),
        (rehearsal("Tell me about boats.", "one two three four five " * 4), "loop"),
        (rehearsal("Tell me about boats.", '{"category": "", "urgency": "", "order": null, "summary": ""}'), "form"),
    ],
)  # fmt: skip
def test_an_ordinary_answer_that_would_teach_harm_is_dropped(row: TrainingRow, kind: str) -> None:
    assert reasons(row)[0].startswith(kind)


def test_the_split_does_not_move_when_other_rows_come_and_go() -> None:
    rows = [generated(i) for i in range(400)]
    first = {row.row_id: _split(row, 0.1) for row in rows}
    assert first == {row.row_id: _split(row, 0.1) for row in reversed(rows)}
    assert 0.05 < sum(split == "valid" for split in first.values()) / len(rows) < 0.16


def test_a_value_that_no_kept_row_teaches_fails_the_step() -> None:
    rows = [row for row in map(generated, range(100)) if row.attributes["cue"] != "low"]
    with pytest.raises(Exception, match="urgency=low"):
        _balance(DEMO, rows)
