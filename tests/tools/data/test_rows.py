"""Rows that are made with a scripted model: how many that were asked for are kept, at what cost, and how right."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import pytest

from tests.fixtures.behaviours import ERRANDS
from tests.fixtures.scripted_writer import GYM, ScriptedWriter, says
from tests.fixtures.tables import table
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.behaviour import spec_of
from tunesmith.tools.data.draw import draw
from tunesmith.tools.data.reader import Reader
from tunesmith.tools.data.synthesis import Synthesis, Written

SPEC = spec_of(GYM, "test")
WANTED, WRITTEN = 40, 56
ORDINARY = [f"What is the {n}th largest town of {place}?" for n in range(10) for place in ("Spain", "Peru")]


class Unread(Synthesis):
    """Messages that nobody reads back."""

    def _read_back(self, written: Mapping[int, Written]) -> dict[int, Written]:
        return dict(written)


def made(writer: ScriptedWriter, *, read: bool = True) -> list[Written]:
    reader, way = Reader(SPEC, writer, ORDINARY, 5), Synthesis if read else Unread
    rows: list[Written] = []
    way(SPEC, writer, WRITTEN, 5, 0.7, 2, reader, wanted=WANTED, keep=rows.append).write()
    assert len({one.drawn.row_id for one in rows}) == len(rows) == WRITTEN
    return rows


def good(rows: list[Written]) -> list[Written]:
    return [one for one in rows if not one.problem]


@table("faults", [{}, {"matter": 3}, {"number": 2, "name": 3}, {"matter": 4, "none": 5, "cut": 6}])
def test_enough_rows_are_kept_and_every_one_says_its_answer(faults: dict[str, int]) -> None:
    kept = good(made(ScriptedWriter(faults)))
    assert len(kept) >= WANTED
    assert [one.answer for one in kept] == [" ".join(says(one.message)) for one in kept]
    assert all(one.answer == form_of(SPEC).compose(one.drawn.records) for one in kept)
    matters = Counter(one.drawn.values["matter"] for one in kept)
    assert min(matters.values()) >= 0.8 * WANTED / 4


def test_what_says_another_value_is_kept_as_what_it_says() -> None:
    rows = made(ScriptedWriter({"number": 2, "name": 3}))
    relabelled = [one for one in good(rows) if one.relabelled]
    assert {name for one in relabelled for name in one.relabelled} == {"number", "first_name"}
    assert len(relabelled) >= 20 and all(one.attempt == 1 for one in good(rows))


def test_the_word_of_a_reader_that_is_not_sure_relabels_nothing() -> None:
    rows = good(made(ScriptedWriter({"matter": 3, "name": 3}, sure=0.5)))
    assert rows and not any(one.relabelled for one in rows)


def test_a_message_that_is_none_of_the_kind_is_no_row_whatever_was_drawn() -> None:
    rows = made(ScriptedWriter({"none": 2}))
    assert all(says(one.message)[0] for one in good(rows))
    assert {one.problem.split(":")[0] for one in rows if one.problem} <= {"reading", "value", "duplicate"}


def test_code_alone_relabels_the_only_number_of_a_message() -> None:
    rows = good(made(ScriptedWriter({"number": 2}), read=False))
    assert any("number" in one.relabelled for one in rows) and all(one.answer.split()[1] in one.message for one in rows)


def test_a_message_that_was_cut_off_is_no_row() -> None:
    rows = made(ScriptedWriter({"cut": 1}))
    assert not good(rows) and {one.problem for one in rows} == {"cut off: the message met the token limit"}


def test_each_row_has_the_margin_of_its_reading() -> None:
    for one in good(made(ScriptedWriter(sure=3.0))):
        assert one.margin == pytest.approx(3 + math.log(4), abs=0.05), "against each of four others it is more"
    assert {one.margin for one in good(made(ScriptedWriter(), read=False))} == {None}


def test_a_message_costs_one_request_and_each_label_of_it_one_reading() -> None:
    """That it is none of the kind is read with the label."""
    writer = ScriptedWriter()
    rows = made(writer)
    cost = {note: count for note, count in writer.notes.items() if "out" not in note and "values" not in note}
    assert cost == {"writing messages": WRITTEN, "reading back": WRITTEN}
    assert len(good(rows)) >= 0.9 * WRITTEN


def test_a_style_is_drawn_for_each_message_and_told_to_the_writer_alone() -> None:
    writer = ScriptedWriter()
    rows = made(writer)
    styles = {one.drawn.told["style"] for one in rows}
    assert len(styles) > WRITTEN / 2
    told = [str(request.messages[-1]["content"]) for request in writer.asked if request.id.startswith("m1/")]
    assert sum("\nHow: " in text for text in told) >= 0.9 * WRITTEN
    read = [str(request.messages) for request in writer.asked if request.id.startswith(("r/", "k/"))]
    assert read and not any(style in text for style in styles if style for text in read)


def test_lists_that_are_never_empty_are_drawn_so() -> None:
    errands = spec_of(ERRANDS, "x")
    full = errands.model_copy(update={"answer": errands.answer.model_copy(update={"otherwise_share": 0})})
    assert all(draw(full, 1, n).records for n in range(40)) and not all(draw(errands, 1, n).records for n in range(40))
