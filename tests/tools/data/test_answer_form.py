"""The forms of answers: each puts together what it takes apart, and its cases pass right answers and no wrong one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.fixtures.tables import table
from tests.fixtures.taught_forms import ALL, INVOICE, QUERY, TABLE, TAGS, TALK, VAT, pools, spec
from tunesmith.memory.errors import BadInput
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.behaviour import spec_of, spec_text
from tunesmith.tools.data.draw import draw
from tunesmith.tools.data.spec import Spec
from tunesmith.tools.data.spec_suites import write_suites
from tunesmith.tools.suites.case import VALUE, Case
from tunesmith.tools.suites.grading import Response, grade
from tunesmith.tools.suites.loading import load_suites


def call(tool: str, /, **arguments: Any) -> Response:
    function = {"name": tool, "arguments": json.dumps(arguments)}
    return Response(tool_calls=[{"id": "c", "type": "function", "function": function}])


class Judged(NamedTuple):
    """Answers to the first example of a behaviour."""

    said: dict[str, Any]
    right: Mapping[str, str | Response]
    wrong: Mapping[str, str | Response]


_BILLED = INVOICE["examples"][0]["answer"]


def billed(**changes: Any) -> str:
    return json.dumps({**_BILLED, **changes})


def items(*places: int, **changes: Any) -> str:
    listed = [dict(_BILLED["items"][place]) for place in places]
    listed[0] |= changes
    return billed(items=listed)


_BOOKED = call("book_table", guests=4, day="Friday", wishes=["by the window"])
TABLES = [
    Judged(
        INVOICE,
        {
            "another order of keys": json.dumps(dict(reversed(list(_BILLED.items())))),
            "white space": json.dumps(_BILLED, indent=3),
            "3 as 3.0": items(0, 1, count=2.0, sum=29),
        },
        {
            "an item too few": items(0),
            "an item twice": items(0, 0),
            "items in another order": items(1, 0),
            "a sum that is off by a cent": items(0, 1, sum=29.01),
            "another total": billed(total=32.3),
            "a number as text": items(0, 1, count="2"),
            "one more key": billed(currency="EUR"),
            "one more key in an item": items(0, 1, unit="each"),
            "a key that is missing": json.dumps({k: v for k, v in _BILLED.items() if k != "contact"}),
            "null for a value": billed(contact={"email": None}),
            "an empty object": billed(contact={}),
            "text around it": f"Here it is: {billed()}",
            "a list around it": f"[{billed()}]",
        },
    ),
    Judged(
        TAGS,
        {"another order": "Topics: login, billing.", "no space": "Topics: billing,login."},
        {
            "one of two": "Topics: billing.",
            "one twice": "Topics: billing, billing.",
            "one more": "Topics: billing, login, bill.",
            "a longer name": "Topics: billing, logins.",
            "another value": "Topics: bill, login.",
            "none": "Topics: none.",
            "another mark": "Topics: billing and login.",
            "one behind the frame": "Topics: billing, billing. login",
        },
    ),
    Judged(
        TABLE,
        {
            "another order": call("book_table", wishes=["by the window"], day="Friday", guests=4),
            "4 as 4.0": call("book_table", guests=4.0, day="Friday", wishes=["by the window"]),
            "a default said": call("book_table", guests=4, day="Friday", wishes=["by the window"], outside=False),
        },
        {
            "another number": call("book_table", guests=5, day="Friday", wishes=["by the window"]),
            "a number as text": call("book_table", guests="4", day="Friday", wishes=["by the window"]),
            "another tool": call("cancel_table", code="04711"),
            "a default changed": call("book_table", guests=4, day="Friday", wishes=["by the window"], outside=True),
            "an argument left out": call("book_table", guests=4, day="Friday"),
            "a wish too many": call("book_table", guests=4, day="Friday", wishes=["by the window", "a cake"]),
            "an unknown argument": call("book_table", guests=4, day="Friday", wishes=["by the window"], name="Kim"),
            "the call as text": json.dumps(TABLE["examples"][0]["answer"]),
            "words": "Which table?",
            "twice": Response(tool_calls=[*_BOOKED.tool_calls] * 2),
        },
    ),
    Judged(
        VAT,
        {"fewer zeros": "VAT 19, gross 119", "more zeros": "VAT 19.000, gross 119.0"},
        {
            "off by a cent": "VAT 19.01, gross 119.01",
            "the net": "VAT 19.00, gross 100.00",
            "places changed": "VAT 119.00, gross 19.00",
            "a factor of ten": "VAT 190.0, gross 119.00",
            "more digits": "VAT 19.00, gross 119.004",
            "a sentence more": "VAT 19.00, gross 119.00. Right?",
        },
    ),
    Judged(
        QUERY,
        {
            "on one line": "SELECT name FROM books WHERE stock > 5",
            "small letters": "select name\nfrom books\nwhere stock > 5;",
            "a comment": "SELECT name -- the title\nFROM books\nWHERE stock > 5;",
        },
        {
            "another column": "SELECT price\nFROM books\nWHERE stock > 5;",
            "another comparison": "SELECT name\nFROM books\nWHERE stock >= 5;",
            "a number as text": "SELECT name\nFROM books\nWHERE stock > '5';",
            "one more statement": "SELECT name\nFROM books\nWHERE stock > 5; DROP TABLE books;",
            "no condition": "SELECT name\nFROM books;",
            "no SQL": "names of books with a stock over 5",
        },
    ),
    Judged(
        TALK,
        {},
        {"the other one": "small", "both": "large, small", "a sentence": "large it is"},
    ),
]  # fmt: skip
ROWS = [
    (one.said, answer, passes, f"{one.said['name']}: {why}")
    for one in TABLES
    for passes, answers in ((True, one.right), (False, one.wrong))
    for why, answer in answers.items()
]


def target(said: dict[str, Any], folder: Path) -> tuple[Spec, list[Case]]:
    """A behaviour and its target cases, by way of their file."""
    one = spec(said)
    write_suites(one, folder)
    return one, [case for case in load_suites([folder / "target.yaml"]).cases if case.block == "target"]


def passes(case: Case, answer: str | Response) -> bool:
    return grade(case, answer if isinstance(answer, Response) else Response(text=answer)).passed


@pytest.mark.heavy
@table(("said", "answer", "right", "why"), ROWS)
def test_cases_pass_what_is_right_and_nothing_that_is_nearly_so(
    said: dict[str, Any], answer: str | Response, right: bool, why: str, tmp_path: Path
) -> None:
    _, cases = target({**said, "rules": _loose(said)}, tmp_path)
    assert passes(cases[0], answer) is right, why
    assert cases[0].metadata["meaning"] == VALUE


def _loose(said: dict[str, Any]) -> list[dict[str, Any]]:
    """One rule that everything keeps: what the values' own assertions tell is looked at here."""
    return [{"says": "it says something", "type": "regex", "value": r"\S"}]


@table("said", ALL)
def test_the_example_passes_its_own_case_and_an_echo_none(said: dict[str, Any], tmp_path: Path) -> None:
    one, cases = target(said, tmp_path)
    for case, example in zip(cases, one.examples, strict=True):
        assert passes(case, form_of(one).response(example.answer))
        assert not passes(case, example.prompt)
        assert list(case.tools) == list(one.tools)
        asked = [{"role": "system", "content": example.system}] if example.system else []
        assert list(case.messages) == [*asked, *one.turns(example.prompt)]


@pytest.mark.heavy
@table("said", ALL)
def test_what_is_drawn_is_composed_taken_apart_and_tested(said: dict[str, Any]) -> None:
    one = spec(said)
    form, answers = form_of(one), set()
    for index in range(40):
        drawn = draw(one, 7, index, pools)
        answer = form.compose(drawn.records)
        answers.add(answer)
        assert (records := form.parse(answer)) is not None and form.compose(records) == answer
        assert not form.problem(answer)
        expected = form.expected(answer)
        assert expected and expected.whole
        tested = Case.model_validate(
            {"case_id": "c", "suite": "s", "messages": [], "tools": one.tools, "assertions": expected.assertions}
        )
        others = [other for other in answers if other != answer]
        assert passes(tested, form.response(answer)), answer
        assert not any(passes(tested, form.response(other)) for other in others), (answer, others)
    assert len(answers) > 1


@table("said", ALL)
def test_a_spec_of_any_form_is_given_back_by_its_file(said: dict[str, Any], tmp_path: Path) -> None:
    one = spec(said)
    assert spec_of(yaml.safe_load(spec_text(one)), "again") == one


def changed(said: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**deepcopy(said), **changes}


def attribute(said: dict[str, Any], place: int, **changes: Any) -> dict[str, Any]:
    made = deepcopy(said)
    made["attributes"][place] |= changes
    return made


def example(said: dict[str, Any], answer: Any, place: int = 0) -> dict[str, Any]:
    made = deepcopy(said)
    made["examples"][place] = {"prompt": made["examples"][place].get("prompt", "m"), "answer": answer}
    return made


REFUSED = [
    (attribute(INVOICE, 0, many=[3, 2]), "many is the fewest and the most values"),
    (attribute(INVOICE, 1, attributes=[]), "an object has attributes"),
    (attribute(INVOICE, 2, formula={"sum": "items.weight"}), "computed from items.weight, which is no attribute"),
    (attribute(INVOICE, 2, formula={"sum": "vendor"}), "of the kind copied, no number and no date"),
    (attribute(INVOICE, 2, formula="total"), "computed from itself"),
    (attribute(INVOICE, 2, formula=None), "what is computed has a formula"),
    (attribute(TAGS, 0, many=[0, 9]), "a set of up to 9 of 4 values"),
    (changed(TAGS, attributes=INVOICE["attributes"], answer={"form": "text", "template": "{vendor}"}), "an object"),
    (changed(TABLE, tools=[]), "the answer calls book_table; the tools are none"),
    (changed(TABLE, answer={"form": "call", "template": "book_{tool}"}), "one label whose values are the tools' names"),
    (changed(TABLE, attributes=TABLE["attributes"][:3]), "cancel_table needs code"),
    (changed(TABLE, tools=[{"type": "function"}]), "tools\\[0\\] is not"),
    (example(TAGS, "Topics: billing, logins."), "'logins', which is none of bill, billing"),
    (example(TAGS, "Topics: bill, billing, login, Überfällig."), "topics has 4 values, its spec allows 0 to 3"),
    (example(TAGS, "billing"), "example 1 is not of the form text"),
    (example(INVOICE, [_BILLED]), "a list at the top is no object"),
    (example(INVOICE, {**_BILLED, "total": 32.21}), "total is 32.21, its formula gives 32.2"),
    (example(VAT, "VAT 19.00, gross 119.01"), "gross is 119.01, its formula gives 119.00"),
    (example(TABLE, {"name": "book_table", "arguments": {"guests": "four", "day": "Friday"}}), "do not fit"),
    (changed(TALK, examples=[{"messages": [{"role": "user", "content": "a"}]}] * 3), "messages is a list of 2 to 40"),
]  # fmt: skip


@table(("said", "why"), REFUSED)
def test_what_cannot_be_taught_as_it_is_said_is_refused_in_a_sentence(said: dict[str, Any], why: str) -> None:
    with pytest.raises(BadInput, match=why):
        spec(said)


def messages(*turns: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"role": role, **(said if isinstance(said, dict) else {"content": said})} for role, said in turns]


CALLS = {"tool_calls": [{"function": {"name": "x", "arguments": "{}"}}]}
UNTAUGHT = [
    (messages(("user", "a"), ("assistant", CALLS), ("tool", "1"), ("assistant", "b")), "calls a tool before the last"),
    (messages(("user", "a"), ("tool", "1"), ("assistant", "b")), "results of tools"),
    (messages(("assistant", "a"), ("user", "b"), ("assistant", "c")), "user and assistant in turn"),
    (messages(("user", "a"), ("user", "b"), ("assistant", "c")), "user and assistant in turn"),
    (messages(("user", "a"), ("assistant", "b"), ("user", "c")), "an answer at the end"),
    (messages(("user", [{"type": "image_url"}]), ("assistant", "b")), "images and other parts"),
    (messages(("user", "x"), ("assistant", "y\nUser: z"), ("user", "w"), ("assistant", "v")), "a line that begins"),
    (messages(("user", "a"), ("assistant", {"tool_calls": CALLS["tool_calls"] * 2})), "several tools at once"),
]


@table(("said", "why"), UNTAUGHT)
def test_conversations_that_cannot_be_taught_are_refused_in_a_sentence(said: list[dict[str, Any]], why: str) -> None:
    with pytest.raises(BadInput, match=why):
        spec(changed(TALK, examples=[{"messages": said}, *TALK["examples"][1:]]))


def test_two_system_prompts_are_two_behaviours() -> None:
    said = deepcopy(TALK)
    said["examples"][0]["messages"][0]["content"] = "You sell tea."
    with pytest.raises(BadInput, match="2 different system prompts"):
        spec(said)
    assert spec(TALK).system_prompts == ("You sell coffee.",) and spec(TALK).system_share == 1
