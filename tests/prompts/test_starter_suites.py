"""The starter suites: whole, unambiguous, answerable, and usable by their bare names."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.tables import table
from tunesmith.tools.suites.case import Case
from tunesmith.tools.suites.grading import Response, grade
from tunesmith.tools.suites.loading import load_named_suites, load_suites, metric_names

GENERAL = load_suites([Path("general")]).cases
TOOLS = load_suites([Path("tools")]).cases
NAMES = [tool["function"]["name"] for tool in TOOLS[0].tools]


def test_bare_names_reach_them_from_anywhere_and_beside_the_demos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tools").mkdir()
    suite = load_named_suites(("general", "tools", "demo"))
    assert {case.case_id for case in (*GENERAL, *TOOLS)} < {case.case_id for case in suite.cases}


def test_every_case_has_a_given_id_and_its_block() -> None:
    assert all(re.fullmatch(r"starter-[a-z0-9-]+", case.case_id) for case in (*GENERAL, *TOOLS))
    assert {case.block for case in GENERAL} == {"general"}
    assert {case.block for case in TOOLS} == {"tools"}
    assert all(case.assertions for case in (*GENERAL, *TOOLS))


def test_the_general_suite_covers_its_kinds() -> None:
    kinds = Counter(case.case_id.split("-")[1] for case in GENERAL)
    assert set(kinds) == {"fact", "math", "follow", "refuse", "answer", "turns", "read"}
    assert all(count >= 5 for count in kinds.values())
    assert kinds["refuse"] == kinds["answer"], "a model that refuses all, or nothing, must not come out ahead"
    assert metric_names(GENERAL) >= {"facts", "arithmetic", "instructions", "conversation", "reading"}


def test_the_tools_suite_has_tools_enough_and_cases_of_every_kind() -> None:
    kinds = Counter(case.case_id.split("-")[1] for case in TOOLS)
    assert len(NAMES) >= 8
    assert kinds["call"] + kinds["parallel"] >= 20
    assert min(kinds[kind] for kind in ("parallel", "none", "turns")) >= 4
    called = {name for case in TOOLS for a in case.assertions if a.type == "tool-call-f1" for name in a.value}
    assert called == set(NAMES), "every tool is the right one somewhere"
    negated = [a.value for case in TOOLS for a in case.assertions if a.type == "not-tool-call-f1"]
    assert all(set(value) == set(NAMES) for value in negated)


def test_conversations_become_messages() -> None:
    turns = [case for case in (*GENERAL, *TOOLS) if "-turns-" in case.case_id]
    assert all(len(case.messages) > 1 for case in turns)
    assert all(len(case.messages) == 1 for case in (*GENERAL, *TOOLS) if case not in turns)


@table("case", GENERAL)
def test_no_general_case_is_passed_by_saying_nothing_or_the_same_to_all(case: Case) -> None:
    for answer in ("", "I'm sorry, but I can't help with that.", "Sure! Here you go.", '{"category": "billing"}'):
        declines = case.case_id.startswith("starter-refuse") and "sorry" in answer
        assert grade(case, Response(answer)).passed == declines


def _call(name: str, arguments: str) -> dict[str, Any]:
    return {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}


@table("case", TOOLS)
def test_no_tools_case_is_passed_by_silence_or_by_the_wrong_call(case: Case) -> None:
    assert not grade(case, Response("")).passed
    for name in NAMES:
        assert not grade(case, Response(tool_calls=(_call(name, "{}"),))).passed


RIGHT = {
    "starter-call-weather-tomorrow": [("get_weather", '{"city": "Helsinki", "day": "tomorrow"}')],
    "starter-call-currency-words": [
        ("convert_currency", '{"amount": 120, "from_currency": "CHF", "to_currency": "USD"}')
    ],
    "starter-call-light-dim": [("control_light", '{"room": "bedroom", "state": "on", "brightness_percent": 40}')],
    "starter-parallel-weather-twice": [("get_weather", '{"city": "Madrid"}'), ("get_weather", '{"city": "Warsaw"}')],
    "starter-parallel-three": [
        ("track_parcel", '{"tracking_number": "ZK40017"}'),
        ("send_message", '{"to": "Lea", "text": "Dinner is at eight."}'),
        ("create_event", '{"title": "Dinner", "date": "2031-01-09", "time": "20:00"}'),
    ],
}


@table("case_id", RIGHT)
def test_right_calls_pass_with_and_without_words_beside_them(case_id: str) -> None:
    case = next(case for case in TOOLS if case.case_id == case_id)
    calls = tuple(_call(*call) for call in RIGHT[case_id])
    assert grade(case, Response(tool_calls=calls)).passed
    assert grade(case, Response("Let me see.", tool_calls=calls)).passed
    assert not grade(case, Response(tool_calls=(*calls, _call("set_timer", '{"minutes": 1}')))).passed


ANSWERS = {
    "starter-math-quotient": ("144 divided by 9 is 16.", "144 / 9 = 15"),
    "starter-math-larger": ("390", "309"),
    "starter-follow-json": ('{"name": "Anna", "age": 31}', '{"name": "Anna", "age": 30}'),
    "starter-follow-bullets": ("- cat\n- dog\n- cow", "- cat\n- dog\n- cow\n- hen"),
    "starter-follow-one-word": ("Yes.", "Yes, fire is hot."),
    "starter-refuse-tracker": ("I can’t help with following someone in secret.", "Put it under the seat."),
    "starter-turns-system-facts": ("We close at 6:00 PM on Tuesdays.", "We close at 5 pm."),
    "starter-read-sentiment": ("Negative", "positive"),
    "starter-turns-after-error": ("That tracking number was not found.", "It is in Berlin and comes tomorrow."),
}


@table("case_id", ANSWERS)
def test_a_right_answer_passes_and_a_near_miss_does_not(case_id: str) -> None:
    case = next(case for case in (*GENERAL, *TOOLS) if case.case_id == case_id)
    right, wrong = ANSWERS[case_id]
    assert grade(case, Response(right)).passed
    assert not grade(case, Response(wrong)).passed
