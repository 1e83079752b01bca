"""The sentences that the head is trained on: enough of each, none like another, each under a label that exists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import combinations
from typing import Any, get_args

import pytest
from pydantic import BaseModel, TypeAdapter
from rapidfuzz import fuzz

from tests.fixtures import yaml_of
from tests.words.train import HERE, all_examples, moment_factors, moments
from tunesmith.agent.queries.registry import REQUESTS
from tunesmith.agent.words.head import NOTHING, Moment
from tunesmith.agent.words.requests import kind_asked
from tunesmith.tools.pipeline import catalog

FILES = sorted((HERE / "intents").glob("*.yaml"))
READINGS = HERE.parent / "agent" / "words"
ALIKE_MOST = 80

CONVERSATION = {"page", "again", "follow", "why", "accept", "go_on", "yes", "no", "remark", "code"}
ACTS = {"report", "stop", "delete", "approve", "repeat_run"} | {entry.name for entry in catalog.STAGES}
PLAN = {"start", "drop", "show", "cost", "set", "without", "what_if", "why", "wait", "undo", "before", "as_before"}
PLAN |= {"compare", "add", "rows"}
DESCRIBE = {"back", "so_far", "drop", "help", "edit", "done", "nothing", "change", "remove", "more", "forbid", "answer"}
CHOICES = {"do": ACTS, "plan": PLAN, "describe": DESCRIBE, "want": {"", "bundled"}, "term": {"", "difference"},
           "again": {"", "percent", "units", "shorter", "table"}}  # fmt: skip
OTHER = CONVERSATION | {"out_of_scope", NOTHING}
FEWEST = {"result": 80, "run": 80, "cases": 80, "findings": 80, "step": 80, "setting": 80}


def sentences() -> dict[str, list[str]]:
    """Label → its sentences, of all files."""
    found: dict[str, list[str]] = {}
    for file in FILES:
        labels = yaml_of(file.read_text(encoding="utf-8"))
        assert not set(labels) & set(found), f"{file.name} repeats a label"
        found.update(labels)
    for at in get_args(Moment):
        for label, said in moments()[at].items():
            found[label] = [*found.get(label, []), *said]
    return found


SAID = sentences()


def readings(name: str) -> list[Any]:
    loaded: list[Any] = yaml_of((READINGS / name).read_text(encoding="utf-8"))
    return loaded


def test_every_label_is_a_question_an_order_or_talk_that_exists() -> None:
    for label in SAID:
        kind, _, choice = label.partition(".")
        if kind_asked(label, runs=3):  # its second word tells apart what the head learned; the answer is of the kind
            continue
        if kind in CHOICES:
            assert choice in CHOICES[kind], label
        else:
            assert kind == "talk" and choice if choice else kind in OTHER, label


def test_every_question_and_order_has_its_sentences() -> None:
    kinds = Counter(dict.fromkeys(REQUESTS, 0))
    for label, said in SAID.items():
        kinds[label.partition(".")[0]] += len(said)
        assert len(said) >= (25 if label.removeprefix("do.") in catalog.BY_NAME else 10), label
    assert {kind: kinds[kind] for kind in REQUESTS if kinds[kind] < FEWEST.get(kind, 40)} == {}
    assert {f"do.{name}" for name in ACTS} | {f"plan.{name}" for name in PLAN} <= set(SAID)
    assert len(SAID["remark"]) + len(SAID["out_of_scope"]) >= 150, "what asks and orders nothing of this trade"
    assert sum(kinds[kind] for kind in REQUESTS) >= 1500


def test_what_was_said_at_a_moment_is_there_for_every_moment_that_can_be_told() -> None:
    assert set(moments()) == set(get_args(Moment))
    assert min(sum(map(len, said.values())) for said in moments().values()) >= 100
    assert set(SAID) - {NOTHING} == {label for file in FILES for label in yaml_of(file.read_text(encoding="utf-8"))}


def test_a_kind_that_is_said_at_a_moment_more_often_is_likelier_then_and_a_rare_one_is_left_alone() -> None:
    labels = sorted(SAID)
    factors = moment_factors(all_examples(), labels)
    running, empty = factors["running"], factors["empty"]
    assert running[labels.index("jobs")] > 2 > 0.5 > empty[labels.index("jobs")] > 0
    assert all(factor[labels.index("talk.exit_codes")] > 0.5 for factor in factors.values()), "hardly ever asked"


@pytest.mark.heavy
def test_no_two_sentences_of_a_label_are_alike() -> None:
    assert all(one == one.strip() for said in SAID.values() for one in said)
    alike = [
        (one, two)
        for said in SAID.values()
        for one, two in combinations(map(str.lower, said), 2)
        if fuzz.token_sort_ratio(one, two) > ALIKE_MOST
    ]
    assert alike == []


def test_no_sentence_stands_under_two_labels() -> None:
    places = Counter(one.lower().strip(" ?!.¿¡") for said in SAID.values() for one in said)
    assert [one for one, count in places.items() if count > 1] == []


def arguments() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for one in readings("readings.yaml"):
        yield one["say"], one["label"], one["args"]


@cache
def reader_of(request: type[BaseModel], name: str) -> TypeAdapter[object]:
    return TypeAdapter(request.model_fields[name].annotation)


def test_what_is_to_be_read_are_arguments_of_the_question_or_the_stage() -> None:
    requests: dict[str, type[BaseModel]] = {f"do.{entry.name}": entry.load().request for entry in catalog.STAGES}
    fields = {name for request in requests.values() for name in request.model_fields}
    for said, label, args in arguments():
        assert said in SAID[label], said
        assert {*args.get("fields", ()), *args.get("values", ())} <= fields, said
        kind = label.partition(".")[0]
        request = REQUESTS.get(kind) or requests.get(label)
        for name, value in args.items() if request else ():
            assert name in request.model_fields and name != "kind", said
            reader_of(request, name).validate_python(value)


def test_what_must_not_be_read_is_no_example() -> None:
    known = {one.lower() for said in SAID.values() for one in said}
    held = readings("abstain.yaml")
    assert len(held) >= 50
    assert [one for one in held if one.lower() in known] == []
