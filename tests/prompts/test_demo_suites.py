"""The bundled suites keep what the demo's numbers rest on: enough cases, balanced, unique, each asserting its point."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

import jsonschema
import pytest

from tests.fixtures import yaml_of
from tests.fixtures.tables import table
from tunesmith.memory.records import TrainingRow
from tunesmith.tools.data.answer_rules import broken_rule
from tunesmith.tools.data.behaviour import behaviour_folder, load_behaviour
from tunesmith.tools.data.critique import CritiqueRequest
from tunesmith.tools.data.critique_job import Critic
from tunesmith.tools.imports.sources import rows_of
from tunesmith.tools.suites.grading import Response, grade
from tunesmith.tools.suites.loading import bundled_suites, load_suites

SUITES = ("target", "blind", "over-trigger", "general")
BLOCKS = {"blind": "target"}
CATEGORIES = ("billing", "delivery", "returns", "account", "technical")
DECLARATIVE = {
    "equals", "contains", "contains-any", "contains-all", "icontains", "icontains-any", "icontains-all", "starts-with",
    "regex", "is-json", "contains-json", "word-count", "levenshtein", "finish-reason", "is-valid-openai-tools-call",
    "tool-call-f1",
}  # fmt: skip


SPEC = load_behaviour("demo")


@cache
def rows() -> list[TrainingRow]:
    """Of the bundled behaviour."""
    found = rows_of([behaviour_folder("demo") / "rows.jsonl"], {}, 1000, 1 << 24)
    return [replace(row, row_id=f"i{number}") for number, row in enumerate(found) if isinstance(row, TrainingRow)]


@cache
def suite(name: str) -> dict[str, Any]:
    text = files("tunesmith.prompts").joinpath("demo", "suites", f"{name}.yaml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml_of(text)
    return loaded


def cases_of(name: str) -> list[dict[str, Any]]:
    tests: list[dict[str, Any]] = suite(name)["tests"]
    return tests


def assertions(name: str, test: dict[str, Any]) -> list[dict[str, Any]]:
    shared = suite(name).get("defaultTest", {}).get("assert", [])
    return [*shared, *test.get("assert", [])]


def expectation(test: dict[str, Any], key: str) -> Any:
    """The one value that a case's own schema allows for `key`; KeyError where it leaves it open."""
    return test["assert"][0]["value"]["properties"][key]["const"]


def categories() -> Counter[str]:
    asserted = [t for t in cases_of("target") if "category" in t["assert"][0]["value"]["required"]]
    return Counter(expectation(test, "category") for test in asserted)


@table(("name", "fewest"), [("target", 60), ("blind", 100), ("over-trigger", 30), ("general", 40)])
def test_each_block_has_enough_cases(name: str, fewest: int) -> None:
    assert len(cases_of(name)) >= fewest
    assert suite(name)["defaultTest"]["metadata"]["block"] == BLOCKS.get(name, name)


def test_case_ids_are_unique_over_all_suites_and_name_their_block() -> None:
    ids = [(name, test["metadata"]["case_id"]) for name in SUITES for test in cases_of(name)]
    assert len({case_id for _, case_id in ids}) == len(ids)
    assert all(case_id.startswith(f"{name}-") for name, case_id in ids)


def test_no_two_cases_ask_the_same() -> None:
    asked = [" ".join(str(v) for v in test["vars"].values()) for name in SUITES for test in cases_of(name)]
    words = Counter(re.sub(r"\W+", " ", text).strip().lower() for text in asked)
    assert [key for key, count in words.items() if count > 1] == []


@table("name", SUITES)
def test_only_declarative_assertions_are_used(name: str) -> None:
    used = {a["type"].removeprefix("not-") for test in cases_of(name) for a in assertions(name, test)}
    assert used <= DECLARATIVE
    assert all(assertions(name, test) for test in cases_of(name))


TICKETS = [*cases_of("target"), *cases_of("blind")]


def graded(test: dict[str, Any], answer: str) -> bool:
    """A target case's grade of an answer, by its regexes and schemas alone; blind.yaml has the form of target.yaml."""
    for assertion in assertions("target", test):
        if assertion["type"] == "regex":
            if not re.search(assertion["value"].replace("$", r"\Z"), answer):
                return False
        elif not jsonschema.Draft202012Validator(assertion["value"]).is_valid(json.loads(answer)):
            return False
    return True


def right_answer(test: dict[str, Any], **changed: Any) -> str:
    category = test["assert"][0]["value"]["properties"].get("category", {"const": "billing"})["const"]
    answer = {
        "category": category,
        "urgency": test["assert"][0]["value"]["properties"].get("urgency", {"const": "normal"})["const"],
        "order": expectation(test, "order"),
        "summary": "A customer asks",
    }
    return json.dumps(answer | changed)


def test_every_ticket_accepts_a_right_answer_and_refuses_a_broken_form() -> None:
    for test in TICKETS:
        right = right_answer(test)
        backwards = json.dumps(dict(reversed(json.loads(right).items())))
        assert graded(test, right), test["metadata"]
        for wrong in (
            f"Here you are: {right}",
            f"{right}\n",
            json.dumps(json.loads(right), indent=1),
            backwards,
            right_answer(test, extra=1),
            right_answer(test, urgency="urgent"),
            right_answer(test, category="other"),
            right_answer(test, summary=""),
            right_answer(test, summary="one word more than is allowed " * 3),
        ):
            assert not graded(test, wrong), (test["metadata"], wrong)


def test_every_ticket_asserts_its_order_number() -> None:
    for test in TICKETS:
        order = expectation(test, "order")
        wrong = "1234" if order is None else None
        assert not graded(test, right_answer(test, order=wrong)), test["metadata"]
        assert not graded(test, right_answer(test, order=10_000_019)), test["metadata"]
        if order is not None:
            assert re.search(rf"(?<!\d){order}(?!\d)", test["vars"]["ticket"]), test["metadata"]


def test_a_share_of_tickets_has_no_order_number_but_other_numbers() -> None:
    orders = [expectation(test, "order") for test in cases_of("target")]
    assert 0.5 <= sum(order is not None for order in orders) / len(orders) <= 0.7
    bare = [t for t in cases_of("target") if expectation(t, "order") is None and re.search(r"\d", t["vars"]["ticket"])]
    assert len(bare) >= 10


def test_most_tickets_assert_a_category_and_the_five_are_balanced() -> None:
    counts = categories()
    assert counts.total() >= 0.75 * len(cases_of("target"))
    assert set(counts) == set(CATEGORIES)
    assert all(0.15 <= count / counts.total() <= 0.25 for count in counts.values())


def test_the_general_block_holds_plain_answers_against_json() -> None:
    held = [
        test
        for test in cases_of("general")
        if {"not-is-json", "not-contains-json"} & {a["type"] for a in assertions("general", test)}
    ]
    assert len(held) == len(cases_of("general"))
    assert all(test.get("assert") for test in cases_of("general")), "a case that asserts nothing of its own"


def test_the_blind_cases_are_balanced_ask_for_meaning_and_have_the_form_of_the_others() -> None:
    forms = [suite(name)["defaultTest"]["assert"] for name in ("target", "blind")]
    assert forms[0] == forms[1]
    asserted = [test["assert"][0]["value"]["properties"] for test in cases_of("blind")]
    assert Counter(one["category"]["const"] for one in asserted) == dict.fromkeys(CATEGORIES, 22)
    assert sum(one["order"]["const"] is not None for one in asserted) >= 40
    assert Counter(one["urgency"]["const"] for one in asserted if "urgency" in one).keys() == {"low", "high"}


def five_grams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+(?:['’]\w+)?", text.lower())
    return {tuple(words[at : at + 5]) for at in range(len(words) - 4)}


def texts_of(document: Any) -> Iterator[str]:
    if isinstance(document, str):
        yield document
    elif isinstance(document, dict | list):
        for value in document.values() if isinstance(document, dict) else document:
            yield from texts_of(value)


@pytest.mark.heavy
def test_the_rows_are_balanced_right_by_the_behaviours_rules_and_give_no_case_away() -> None:
    answers = [json.loads(row.answer) for row in rows()]
    assert Counter(answer["category"] for answer in answers) == dict.fromkeys(CATEGORIES, 45)
    urgencies = Counter(answer["urgency"] for answer in answers)
    assert urgencies == {"low": 65, "normal": 95, "high": 65}
    assert 0.55 <= sum(answer["order"] is not None for answer in answers) / len(answers) <= 0.7
    for row, answer in zip(rows(), answers, strict=True):
        assert broken_rule(SPEC.rules, row.answer) is None, row.answer
        assert answer["order"] is None or re.search(rf"(?<!\d){answer['order']}(?!\d)", SPEC.text_of(row.prompt))
    judged = Critic(SPEC, load_suites(bundled_suites()).cases, CritiqueRequest(embeddings=False)).judge(rows())
    assert [str(row.verdict) for row in judged if row.dropped] == []


def test_no_blind_case_shares_five_words_in_a_row_with_what_is_trained_on() -> None:
    behaviour = yaml_of(files("tunesmith.prompts").joinpath("demo", "behaviour.yaml").read_text("utf-8"))
    texts = [*texts_of(behaviour), *(text for row in rows() for text in (SPEC.text_of(row.prompt), row.answer))]
    made_of = {gram for text in texts for gram in five_grams(text)}
    assert len(made_of) > 2000, "the texts are read"
    shared = {t["metadata"]["case_id"]: five_grams(t["vars"]["ticket"]) & made_of for t in cases_of("blind")}
    assert {case_id: grams for case_id, grams in shared.items() if grams} == {}


def test_blind_cases_are_read_as_such_and_near_misses_refuse_the_behaviours_form() -> None:
    cases = load_suites(bundled_suites()).cases
    assert Counter(case.is_blind for case in cases if case.block == "target") == {True: 110, False: 87}
    assert not any(case.is_blind for case in cases if case.block != "target")
    near = [case for case in cases if case.block == "over-trigger"]
    form = right_answer(cases_of("blind")[0])
    assert near and not any(grade(case, Response(form)).passed for case in near)
    assert all(grade(case, Response("A plain answer.")).passed for case in near)
