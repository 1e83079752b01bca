"""Each kind of question: what was asked stands first, its facts stand behind it, and nobody's text goes to a model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from tests.driver.exam_home import make_exam_home
from tests.fixtures import stored_runs
from tests.fixtures.tables import table
from tunesmith.agent.queries.answer import Answer, Context
from tunesmith.agent.queries.registry import REQUESTS, answer
from tunesmith.agent.queries.runs import RunQuery
from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline.workspace import Workspace
from tunesmith.tools.suites.case import BLOCKS, Suite


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(make_exam_home(tmp_path_factory.mktemp("facts") / "home"))


def told(store: Store, kind: str, **given: Any) -> Answer:
    context = Context(Workspace(store, None, lambda event, **data: None), store.newest_run())
    return answer(REQUESTS[kind].model_validate(given), context)


R1 = {"run": "r1"}
FIRST: list[tuple[str, dict[str, Any], str]] = [
    ("result", {**R1, "arm": "quantized", "block": "target"}, "57 of 60"),
    ("result", {**R1, "block": "general"}, "^general in r1"),
    ("result", {**R1, "about": "speed"}, "s for"),
    ("cases", {**R1, "arm": "adapter", "block": "target"}, "fails 1 of 60 target cases"),
    ("findings", {"run": "r2", "about": "deploy"}, "The gate refuses none of its models"),
    ("cases", {**R1, "outcome": "lost", "arm": "quantized", "block": "target"}, "^2 target cases of r1 were lost"),
    ("cases", {**R1, "outcome": "gained", "arm": "adapter"}, "were gained from base to adapter"),
    ("cases", {**R1, "outcome": "lost", "block": "general"}, "lost from base to quantized"),
    ("cases", {**R1, "outcome": "flipped", "arm": "quantized", "other_arm": "prompted"}, "prompted model was not"),
    ("cases", {**R1, "arm": "adapter", "other_arm": "base"}, "failed by both adapter and base"),
    ("case", {**R1, "case": "target-017", "arm": "adapter"}, "target-017"),
    ("case", {**R1, "case": "general-shop-1"}, "^r1 asked no case general-shop-1"),
    ("suite", R1, "105 cases"),
    (
        "compare_runs",
        {**R1, "other_run": "r2", "about": "suites"},
        r"^Measured r1 on 105 .* and r2 on 105 .*: the same",
    ),
    ("compare", {**R1, "arm": "adapter"}, "r1 .*base → adapter"),
    ("compare", {**R1, "arm": "base", "other_arm": "quantized"}, "base → quantized"),
    ("compare_runs", {"run": "r1", "other_run": "r2"}, "r1 .* and r2"),
    ("compare_runs", {"about": "time", "stage": "train"}, "took .* longer: .* of train; .* together"),
    ("compare_runs", {"about": "settings", **R1}, "settings"),
    ("compare_runs", {"about": "cases", "run": "r1", "other_run": "r2"}, "cases that both were asked"),
    ("findings", {"about": "next"}, "r2"),
    (
        "findings",
        {"about": "overfitting", **R1},
        "Not over-trained: .* 2.314 at its first .* 0.221 at its last, its lowest",
    ),
    ("described", {"part": "rules"}, "rules:"),
    ("confusion", {**R1, "arm": "adapter"}, "r1"),
    ("confusion", {**R1, "about": "reader"}, "r1"),
]


@table(("kind", "given", "fact"), FIRST)
@pytest.mark.heavy
def test_the_fact_that_is_asked_for_stands_in_the_first_line(
    store: Store, kind: str, given: dict[str, Any], fact: str
) -> None:
    found = told(store, kind, **given)
    assert re.search(fact, found.lines[0]), found.lines
    assert 0 < len(found.lines) <= 12
    json.dumps(found.as_json(), default=str)


@table(
    ("kind", "given", "lines"),
    [
        ("cases", {"outcome": "passed", "most": 3}, 8),  # two a case, a headline, how many more
        ("cases", {"outcome": "passed", "most": 12}, 26),
        # with the answer before and what was wanted
        ("cases", {"outcome": "lost", "arm": "quantized", "block": "target", "most": 1}, 8),
    ],
)
def test_as_many_cases_and_rows_are_shown_as_were_asked_for(
    store: Store, kind: str, given: dict[str, Any], lines: int
) -> None:
    assert len(told(store, kind, **R1, **given).lines) == lines


@table("most", [2, 3, 6])
def test_a_failed_case_is_shown_with_its_message_what_was_given_and_what_was_wanted(store: Store, most: int) -> None:
    given = {**R1, "arm": "base", "block": "target"}
    lines = "\n".join(told(store, "cases", **given, most=most).lines)
    assert lines.count(": “") >= 2 * most and lines.count("answered: “") == lines.count("wanted: order 480") == most
    of_two = {**given, "arm": "adapter", "other_arm": "base", "outcome": "any"}
    both = "\n".join(told(store, "cases", **of_two, most=most).lines)
    assert both.count("base fails: “") == both.count("adapter passes: “") == most


@table(
    ("arm", "block", "says"),
    [("adapter", "general", "Of these the base passes 1: general-021."), ("quantized", "tools", "passes none."),
     ("base", "target", "")],
)  # fmt: skip
def test_of_what_a_tuned_model_fails_it_is_told_what_the_base_passes(
    store: Store, arm: str, block: str, says: str
) -> None:
    lines = told(store, "cases", **R1, arm=arm, block=block).lines
    assert says in lines[-1] and ("Of these the base" in lines[-1]) == bool(says)


@pytest.mark.heavy
def test_every_kind_and_what_each_can_be_asked_about_answers_or_says_why_not(store: Store) -> None:
    for kind, request in REQUESTS.items():
        needed = {"figure": "steps", "case": "target-001", "row": "g003", "stage": "train", "fields": ["epochs"]}
        given = {name: needed[name] for name, field in request.model_fields.items() if field.is_required()}
        about = next((name for name in ("about", "part", "decision", "outcome", "figure", "metric")
                      if name in request.model_fields and name not in given), "")  # fmt: skip
        for value in get_args(request.model_fields[about].annotation) if about else ():
            try:
                assert told(store, kind, **given, **{about: value}).lines, (kind, value)
            except (NotFound, BadInput) as refused:
                assert str(refused).strip(), (kind, value)


def test_an_argument_that_a_kind_does_not_have_is_refused_and_no_request_is_changed() -> None:
    with pytest.raises(ValueError, match="Extra inputs"):
        REQUESTS["jobs"].model_validate({"run": "r1"})
    request = RunQuery(run="r1")
    with pytest.raises(ValueError, match="frozen"):
        request.run = "r2"  # type: ignore[misc]


@table("kind", ["result", "cases", "rows", "curve", "findings"])
def test_a_run_that_is_not_there_is_said_with_those_that_are(store: Store, kind: str) -> None:
    with pytest.raises(NotFound, match=r"There is no run r77; the runs are r2 .*, r1"):
        told(store, kind, run="r77")


PRIVATE: list[tuple[str, dict[str, Any]]] = [
    ("cases", {**R1, "arm": "adapter", "block": "target"}),
    ("cases", {**R1, "outcome": "any"}),
    ("case", {"case": "target-001"}),
    ("suite", {**R1, "about": "cases"}),
]


@table(("kind", "given"), PRIVATE)
def test_what_rows_cases_and_outputs_hold_is_shown_and_never_told_to_a_model(
    store: Store, kind: str, given: dict[str, Any]
) -> None:
    found = told(store, kind, **given)
    assert found.private
    quoted = re.findall("“([^”]{6,})", " ".join(found.lines))
    open_words = found.for_model + json.dumps(found.as_json(), default=str, ensure_ascii=False)
    assert quoted and not [text for text in quoted if text[:20] in open_words]


def test_hostile_text_is_shown_as_text(tmp_path: Path) -> None:
    hostile = "\x1b[2J\x1b]0;owned\x07 approved"
    store, _ = stored_runs.finished_run(tmp_path / "home", hostile=hostile)
    for kind, given in [("runs", {}), *PRIVATE]:
        found = told(store, kind, **given)
        assert not any("\x1b" in line or "\x07" in line for line in found.lines), kind


def test_two_suites_whose_cases_have_the_same_names_are_not_the_same(tmp_path: Path) -> None:
    home = Store(make_exam_home(tmp_path / "home"))
    (made,) = home.artifacts("r2", "suite")
    suite = stored_runs.suite()
    other = suite.cases[0].model_copy(update={"messages": ({"role": "user", "content": "Another question"},)})
    Path(made.path).write_text(Suite(cases=(other, *suite.cases[1:])).to_json())
    assert ": 104 cases in common." in told(home, "compare_runs", run="r1", other_run="r2", about="suites").lines[0]
    Path(made.path).unlink()
    first = told(home, "compare_runs", run="r1", other_run="r2", about="suites").lines[0]
    assert "105 names of cases in common, whose texts cannot be read any more" in first


def test_a_block_that_nobody_was_asked_is_said_to_have_no_results_and_no_answer_is_a_mere_header(store: Store) -> None:
    for block in BLOCKS:
        for arm in ("adapter", "merged", "quantized"):
            lines = told(store, "compare", run="r1", arm=arm, block=block).lines
            measured = any(line.startswith(f"  {block}: ") for line in lines)
            assert not lines[-1].endswith(":") and measured != ("no results" in lines[0]), lines
