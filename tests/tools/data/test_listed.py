"""Rows that labels alone decide: messages in lists of one meaning, and what a reader that cannot tell is good for."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from tests.fixtures.scripted_writer import GYM, NAMES, SIGNS, ScriptedWriter, says
from tests.fixtures.tables import table
from tunesmith.memory.row_attributes import Draw
from tunesmith.tools.data.behaviour import spec_of
from tunesmith.tools.data.lists import Listed, labels_lead
from tunesmith.tools.data.reader import WHOLE, Reader, Reading
from tunesmith.tools.data.reading import NOTHING, Disagreement, right_where_two_agree, value_margins
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.synthesis import Written, as_read
from tunesmith.tools.serving.client import ChatRequest, ChatResponse

WANTED, WRITTEN = 40, 60
ORDINARY = [f"What is the {n}th largest town of {place}?" for n in range(10) for place in ("Spain", "Peru")]
TOPIC = {"name": "topic", "kind": "text", "shown": False}
EXAMPLES = [(f"Hello, I {signs[0]}, {name}", label) for (label, signs), name in zip(SIGNS.items(), NAMES, strict=False)]


def labelled(**changes: Any) -> dict[str, Any]:
    matter = {**GYM["attributes"][0], **changes.pop("matter", {})}
    examples = [{"prompt": prompt, "answer": answer} for prompt, answer in EXAMPLES]
    return {
        **GYM,
        "attributes": [matter],
        "answer": {"form": "text", "template": "{matter}"},
        "examples": examples,
        **changes,
    }


SPEC = spec_of(labelled(), "test")


@dataclass
class ListWriter(ScriptedWriter):
    """Goes on with lists, and is asked for nothing else."""

    first: int = 0
    blind: bool = False
    """Reads one matter in every example that has one."""

    def _chosen(self, request: ChatRequest, asked: str, names: list[str]) -> ChatResponse:
        if self.blind and request.id.startswith("t/") and says(asked)[0] not in ("pause", ""):
            asked = f"I {SIGNS['pause'][0]}"
        return super()._chosen(request, asked, names)


def made(writer: ListWriter, spec: Any = SPEC) -> tuple[list[Written], Reader]:
    reader = Reader(spec, writer, ORDINARY, 5)
    return Listed(spec, writer, WRITTEN, 5, 0.7, 2, reader, wanted=WANTED).write(), reader


def good(rows: list[Written]) -> list[Written]:
    return [one for one in rows if not one.problem]


@table(
    ("changes", "listed"),
    [
        ({}, True),
        ({"attributes": [GYM["attributes"][0], TOPIC]}, True),
        (GYM, True),  # a number and a name are read out of the message
        ({**GYM, "attributes": [*GYM["attributes"], {"name": "day", "kind": "date"}]}, False),  # which figure is whose?
        ({**GYM, "attributes": [*GYM["attributes"], {"name": "why", "kind": "text"}]}, False),  # nobody can verify it
        ({"matter": {"absent_share": 0.2}}, False),
        ({"answer": {}, "attributes": []}, False),  # a model writes the answers
    ],
)
def test_what_labels_lead_is_listed_and_nothing_else(changes: dict[str, Any], listed: bool) -> None:
    assert labels_lead(spec_of(labelled(**changes), "test")) is listed


def test_a_message_of_several_lines_is_no_line_of_a_list() -> None:
    examples = [{"prompt": f"{prompt}\nBye", "answer": answer} for prompt, answer in EXAMPLES]
    assert not labels_lead(spec_of(labelled(examples=examples), "test"))


@table("faults", [{}, {"matter": 3}, {"short": 2}])
def test_enough_rows_of_every_label_are_kept_and_each_says_its_answer(faults: dict[str, int]) -> None:
    kept = good(made(ListWriter(faults))[0])
    assert len(kept) >= WANTED and [one.answer for one in kept] == [says(one.message)[0] for one in kept]
    assert min(Counter(one.answer for one in kept).values()) >= 0.8 * WANTED / 4


@table("faults", [{}, {"matter": 3}, {"name": 4}])
def test_what_stands_beside_a_label_is_read_out_of_the_message(faults: dict[str, int]) -> None:
    """By code where it has a format, else by the reader; a message that lacks it is no row, and nothing was drawn."""
    rows, _ = made(ListWriter(faults, first=20_000), spec_of(GYM, "test"))
    kept = good(rows)
    assert len(kept) >= WANTED and [one.answer for one in kept] == [" ".join(says(one.message)) for one in kept]
    assert {name for one in kept for name in one.relabelled} <= {"matter"}
    lacking = [one for one in rows if not says(one.message)[2]]
    assert bool(lacking) == ("name" in faults) and all(one.problem.startswith("value:") for one in lacking)


def test_a_list_begins_with_what_is_of_its_label_alone_and_costs_a_part_of_a_request_a_row() -> None:
    writer = ListWriter()
    rows, _ = made(writer)
    asked = [request for request in writer.asked if request.id.startswith("m1/")]
    assert len(asked) <= WRITTEN / 2
    for request in asked:
        told, begun = (str(turn["content"]) for turn in request.messages)
        matter = next(name for name, signs in SIGNS.items() if f"the member {signs[0]}" in told)
        assert {says(line)[0] for line in begun.splitlines()[:-1]} == {matter}
    assert len(good(rows)) >= WANTED


@pytest.mark.parametrize("faults", [{}, {"short": 1}])
def test_the_line_that_was_cut_off_is_no_row(faults: dict[str, int]) -> None:
    """Of a list of two lines too, which is cut off in its second."""
    writer = ListWriter(faults)
    rows, _ = made(writer)
    assert {writer.ended[int(found[1])] for one in rows if (found := re.search(r"here (\d+)", one.message))} == {True}


def test_half_of_the_rows_of_a_label_may_say_its_name() -> None:
    """A label may be the word that people use: were none to, only messages that miss it would be left."""
    signs = {"quit": "I quit", "pause": SIGNS["pause"][0], "booking": SIGNS["booking"][0], "lost": SIGNS["lost"][0]}

    class Naming(ListWriter):
        def _lines(self, request: ChatRequest, asked: str) -> ChatResponse:
            answer = super()._lines(request, asked)
            text = answer.text
            for sign in SIGNS["quit"]:
                text = text.replace(f"I {sign}", f"{signs['quit']}, for I {sign}")
            return ChatResponse(id=answer.id, text=text, finish_reason=answer.finish_reason)

    rows = [one for one in made(Naming())[0] if one.drawn.values["matter"] == "quit"]
    assert sum("quit" in one.message for one in good(rows)) == WANTED / 4 / 2
    assert any(one.problem.startswith("leftover: ") for one in rows)


def test_what_gives_a_label_away_may_be_said_in_the_first_third_of_its_lists_alone() -> None:
    """A writer says "I lost my" in each line of a kind; who is taught with these learns a word and no meaning."""
    writer = ListWriter()
    made(writer)
    asked = [request for request in writer.asked if request.id.startswith("m1/")]
    banned = [set(map(str.lower, request.extra.get("bad_words", ()))) for request in asked]
    first = -(-len(asked) // 3)
    assert not any(banned[:first]) and all(banned[first:])
    for request, words in zip(asked[first:], banned[first:], strict=True):
        told = str(request.messages[0]["content"])
        own = " ".join(next(signs for signs in SIGNS.values() if f"the member {signs[0]}" in told)).lower()
        others = {word for signs in SIGNS.values() for word in " ".join(signs).lower().split()} - set(own.split())
        assert words & set(own.split()) and not words & others and "here" not in words


def test_no_request_forbids_more_words_than_a_server_takes() -> None:
    """Two forms of a word, each at most two sequences of tokens, of 128: of a German list more than that were alike."""

    class Wordy(ListWriter):
        def _lines(self, request: ChatRequest, asked: str) -> ChatResponse:
            answer = super()._lines(request, asked)
            matter = {line: says(line)[0] for line in answer.text.splitlines() if line}
            ends = [a + b for a in "abcdefgh" for b in "mnopqrst"]
            text = "\n".join(f"{line} {' '.join(name + end for end in ends)}" for line, name in matter.items())
            return replace(answer, text=text)

    writer = Wordy()
    made(writer)
    banned = [set(words) for one in writer.asked if (words := one.extra.get("bad_words"))]
    assert banned and {len(words) for words in banned} == {64}


def test_what_is_lacking_is_written_without_those_words_once_more_and_freely_then() -> None:
    """What is refused is what a reader finds unusual: a free second round would replace it by what says those words."""
    writer = ListWriter({"matter": 2}, blind=True)
    made(writer)
    rounds = {
        number: [bool(one.extra.get("bad_words")) for one in writer.asked if one.id.startswith(f"m{number}/")]
        for number in (2, 3)
    }
    assert rounds[2] and all(rounds[2]) and rounds[3] and not any(rounds[3])


def test_a_reader_that_cannot_tell_the_examples_drops_what_it_reads_otherwise_and_relabels_nothing() -> None:
    rows, reader = made(ListWriter({"matter": 2}, blind=True))
    assert reader.trust.labels["matter"] < 0.6 and reader.unverified == ["matter"]
    kept = good(rows)
    assert kept and not any(one.relabelled for one in rows)
    assert [one.answer for one in kept] == [says(one.message)[0] for one in kept]


def test_writer_and_reader_bear_each_other_out_where_they_agree_on_many_messages() -> None:
    assert made(ListWriter({"matter": 9}, blind=True))[1].unverified == []


@table(
    ("agreed", "judged", "right"),
    [(0, 10, 0.0), (30, 60, 0.0), (130, 231, 0.0), (46, 60, 0.918), (179, 231, 0.959), (60, 60, 0.999)],
)
def test_what_two_agree_on_is_right_as_often_as_they_would_agree_by_being_right(
    agreed: int, judged: int, right: float
) -> None:
    assert right_where_two_agree(agreed, judged) == pytest.approx(right, abs=0.001)


def test_the_share_that_is_right_is_that_of_two_raters_who_err_alike_and_apart() -> None:
    """Simulated: 80 % right each, errors independent, one other value."""
    rng = random.Random(4)
    pairs = [(rng.random() < 0.8, rng.random() < 0.8) for _ in range(20_000)]
    agreed = [first for first, second in pairs if first == second]
    assert right_where_two_agree(len(agreed), len(pairs)) == pytest.approx(sum(agreed) / len(agreed), abs=0.02)


def test_a_value_that_is_read_stands_in_the_answer_as_the_message_writes_it() -> None:
    spec = spec_of(GYM, "test")
    drawn = Draw("w1", ({"matter": "pause", "number": "48110", "first_name": None},), ({"number": "48110"},), 1)
    read = (Disagreement("first_name", NOTHING, "Zoe"),)
    for margins, name in (({"first_name": 4.0}, "zoe"), ({"first_name": 2.0, WHOLE: 2.0}, None), ({WHOLE: 4.0}, "zoe")):
        again = as_read(spec, drawn, "i broke my wrist, 48110, zoe", Reading(read, margins))
        assert (again.values["first_name"] if again else None) == name
    assert as_read(spec, drawn, "i broke my wrist, 48110", Reading(read, {"first_name": 4.0})) is None


def test_the_margin_of_a_value_is_that_of_its_own_tokens() -> None:
    spec = spec_of(GYM, "test")
    tokens = [("pa", 0.5), ("use", 3.0), (" ", 6.0), ("48110", 5.0), (" Z", 4.0), ("oe", 2.5), ("<|im_end|>", 1.0)]
    steps = [(token, {token: -0.01, "other": -0.01 - gap}) for token, gap in tokens]
    response = ChatResponse(id="a", text="pause 48110 Zoe", finish_reason="stop", steps=steps)
    # The character behind a value says where it ends: the space belongs to the matter too.
    assert value_margins(spec, response) == {"matter": 0.5, "number": 4.0, "first_name": 1.0}
    assert value_margins(spec, replace(response, text="pause 48110")) == {}


def unread(spec: Spec) -> Listed:
    """The rows of a spec of which none is written or read here."""
    return Listed(spec, ListWriter(), WRITTEN, 5, 0.7, 2, cast("Reader", None))


def test_that_a_message_lacks_a_value_is_believed_where_the_reader_is_sure_of_it() -> None:
    attributes = [*GYM["attributes"][:2], {**GYM["attributes"][2], "absent_share": 0.2, "absent_as": "-"}]
    spec = spec_of({**GYM, "attributes": attributes}, "test")
    drawn = Draw("w1", ({"matter": "pause", "number": "48110", "first_name": None},), ({"number": "48110"},), 1)
    listed = unread(spec)
    written = Written(drawn, "i broke my wrist, 48110", was=drawn.values)
    assert "not sure" in listed._as_read(written, Reading((), {"first_name": 1.0})).problem
    assert not listed._as_read(written, Reading((), {"first_name": 2.0})).problem


def test_a_signature_that_only_one_label_has_is_taken_off_some_and_put_on_others() -> None:
    """Of 132 kept rows of a real writer all 32 of one label had none and all others one: that was learned."""
    attributes = [*GYM["attributes"][:2], {**GYM["attributes"][2], "absent_share": 0.5, "absent_as": "-"}]
    spec = spec_of({**GYM, "attributes": attributes}, "test")
    listed, rows = unread(spec), []
    for number in range(40):
        matter, name = ("pause", NAMES[number % 15]) if number % 2 else ("quit", None)
        values = {"matter": matter, "number": f"481{number:02}", "first_name": name}
        surfaces = {one: text for one, text in values.items() if text and one != "matter"}
        message = f"I {SIGNS[matter][0]}, {values['number']}.{f' {name}' if name else ''}"
        written = Written(Draw(f"w{number}", (values,), (surfaces,), number), message, was=values)
        rows.append(listed._as_read(written, Reading((), {"first_name": 4.0})))
    counts = Counter((one.drawn.values["matter"], one.drawn.values["first_name"] is not None) for one in rows)
    assert all(abs(counts[matter, has] - 10) <= 1 for matter in ("pause", "quit") for has in (False, True)), counts
    answered = [one for one in rows if one.answer]
    told = [says(one.message) for one in answered]
    assert [one.answer for one in answered] == [f"{matter} {number} {name or '-'}" for matter, number, name in told]
    changed = [one for one in rows if "ending" in one.drawn.told]
    assert len(changed) >= 16 and all(not one.relabelled and not one.problem for one in changed)


def test_whether_a_message_says_what_may_be_missing_is_drawn_and_asked_for() -> None:
    attributes = [*GYM["attributes"][:2], {**GYM["attributes"][2], "absent_share": 0.35, "absent_as": "-"}]
    nameless = [{"prompt": f"I {signs[0]}, {n}4110", "answer": f"{name} {n}4110 -"} for n, (name, signs) in enumerate(
        SIGNS.items(), 1)]  # fmt: skip
    spec = spec_of({**GYM, "attributes": attributes, "examples": [*GYM["examples"], *nameless]}, "test")
    writer = ListWriter(first=20_000)
    rows, _ = made(writer, spec)
    asked = [request.messages for request in writer.asked if request.id.startswith("m1/")]
    begun = {"first name" in str(turns[0]["content"]): str(turns[1]["content"]).splitlines()[0] for turns in asked}
    assert says(begun[True])[2] and not says(begun[False])[2]
    drawn = Counter(one.drawn.told["says"] for one in rows)
    assert drawn["first_name"] > drawn[""] > 0
