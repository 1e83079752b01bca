"""Test cases as facts: by what became of them, one of them, and what a suite holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import stored_runs
from tests.fixtures.asking import asked
from tests.fixtures.tables import table
from tunesmith.agent.queries.table import text_of
from tunesmith.memory.errors import BadInput, NotFound
from tunesmith.memory.store import Store

R1 = {"run": "r1"}


@table(
    ("given", "of", "cases"),
    [
        ({"arm": "adapter", "block": "target"}, {"cases": 1, "out_of": 60, "passed": 59}, ["target-017"]),
        ({"arm": "quantized", "block": "general"}, {"cases": 2, "base_passes_of_these": 1},
         ["general-004", "general-021"]),
        ({"arm": "quantized", "outcome": "lost", "block": "target"}, {"other_arm": "merged", "lost": 2, "gained": 0},
         ["target-030", "target-044"]),
        ({"outcome": "lost", "block": "general"}, {"other_arm": "base", "lost": 1}, ["general-021"]),
        ({"arm": "adapter", "outcome": "gained", "other_arm": "base"}, {"gained": 57, "lost": 1}, ["target-000"]),
        ({"arm": "adapter", "other_arm": "base", "block": "target"}, {"cases": 1, "other_arm": "base"}, ["target-017"]),
        ({"arm": "adapter", "outcome": "any"}, {"cases": 105, "passed": 90}, ["target-000"]),
        ({"outcome": "error"}, {"cases": 0, "out_of": 105}, []),
    ],
)  # fmt: skip
def test_cases_by_what_became_of_them(
    two_runs: Store, given: dict[str, Any], of: dict[str, object], cases: list[str]
) -> None:
    result = asked(two_runs, "cases", **R1, **given)
    assert of.items() <= result.of.items() and [one["case"] for one in result.facts][: len(cases) or None] == cases
    assert len(result.facts) == len(result.texts) == result.of["cases"]


def test_a_case_says_of_each_arm_whether_it_passes_and_that_an_answer_was_cut_off(two_runs: Store) -> None:
    facts = {one["case"]: one for one in asked(two_runs, "cases", **R1, arm="quantized", outcome="any").facts}
    assert facts["general-021"]["base"] == "passes" and facts["general-021"]["quantized"] == "fails"
    assert facts["target-044"]["answer_cut_off"] and not facts["target-000"]["answer_cut_off"]


def test_what_flipped_shows_the_lost_ones_first(two_runs: Store) -> None:
    facts = asked(two_runs, "cases", **R1, arm="adapter", outcome="flipped", other_arm="base").facts
    assert [one["adapter"] for one in facts] == ["fails"] + ["passes"] * 57


@table(
    ("given", "error"),
    [
        ({"label": "nonsense"}, r"no case of the label nonsense; its labels: none"),
        ({"arm": "prompted"}, r"no answers of the prompted arm; measured arms: base, adapter, merged and quantized"),
        ({"outcome": "flipped", "other_arm": "prompted"}, r"no answers of the prompted arm"),
        ({"block": "adversarial"}, r"on the adversarial block; .*measured blocks: target, general and tools"),
        ({"number": 99}, r"no number 99 among 17 cases that can be shown"),
        ({"arm": "base", "outcome": "lost"}, "no two arms with answers to the same cases"),
    ],
)
def test_what_is_not_there_is_refused_with_what_there_is(two_runs: Store, given: dict[str, Any], error: str) -> None:
    with pytest.raises(NotFound, match=error):
        asked(two_runs, "cases", **R1, **given)


@table(("given", "case"), [({"number": 1}, "target-017"), ({"number": 3}, "target-044"), ({"number": -1}, "tools-011"),
                           ({"number": 1, "skip": 2}, "target-044")])  # fmt: skip
def test_one_case_of_a_list_is_told_with_every_arm(two_runs: Store, given: dict[str, int], case: str) -> None:
    result = asked(two_runs, "cases", **given)
    assert result.of["case"] == case and result.of["among"] == 17
    assert [one["arm"] for one in result.facts] == ["base", "adapter", "merged", "quantized"]


def test_a_list_goes_on_behind_what_was_shown(two_runs: Store) -> None:
    whole, rest = (asked(two_runs, "cases", skip=skip).facts for skip in (0, 15))
    assert rest == whole[15:] and asked(two_runs, "cases", skip=15).left_out == {"shown before": 15}


def test_as_many_cases_are_shown_as_were_asked_for(two_runs: Store) -> None:
    lines = text_of(asked(two_runs, "cases", **R1, outcome="passed", most=5))
    assert sum(line.startswith("case ") for line in lines) == 5 and lines[-1].startswith("83 more")


def test_a_label_is_a_subset_that_is_named_and_a_blind_case_is_counted_and_never_told(tickets: Store) -> None:
    failed = asked(tickets, "cases", label="Billing")
    assert failed.of["label"] == "Billing" and (failed.of["cases"], failed.of["out_of"]) == (2, 4)
    every = asked(tickets, "cases", outcome="any")
    assert every.left_out == {"blind cases": 2} and len(every.facts) == len(every.texts) == 6
    assert "ticket-b3" not in every.for_model() + "".join(text_of(every)) + str(every.texts)
    with pytest.raises(NotFound, match="no case of the label refund; its labels: billing and returns"):
        asked(tickets, "cases", label="refund")


def test_a_blind_case_has_no_place_in_the_list_and_is_not_found_by_its_id(tickets: Store) -> None:
    failed = [asked(tickets, "cases", number=n).of["case"] for n in (1, 2, 3)]
    assert failed == ["ticket-b1", "ticket-b2", "ticket-r1"]  # ticket-r3 fails too
    with pytest.raises(NotFound, match="no number 4 among 3 cases"):
        asked(tickets, "cases", number=4)
    with pytest.raises(NotFound, match="asked no case ticket-r3 that may be seen, among 6"):
        asked(tickets, "case", case="ticket-r3")


@table(
    ("said", "case", "by"),
    [("target-017", "target-017", "id"), ("TARGET-017", "target-017", "id"),
     ("case target-017, please", "target-017", "id"),
     ("The kettle from ord. 48002 arrived broken, I want to send it back.", "target-002", "its words"),
     ("the broken kettle", "target-002", "likeness")],
)  # fmt: skip
def test_a_case_is_found_by_its_id_or_by_what_it_asks_and_it_is_said_by_which(
    two_runs: Store, said: str, case: str, by: str
) -> None:
    result = asked(two_runs, "case", **R1, case=said)
    assert result.of["found_by"] == by and (result.of["case"] == case or by != "id")


@table("case", ["general-foo-bar", "general-99", "target-0170", "target_017"])
def test_an_id_that_no_case_has_is_refused_with_those_near_it_and_no_other_case_answers(
    two_runs: Store, case: str
) -> None:
    with pytest.raises(NotFound, match=rf"r1 asked no case {case} that may be seen, among 105; near it: \w+-\d+"):
        asked(two_runs, "case", **R1, case=case)


def test_what_a_case_asks_and_what_was_answered_is_for_the_screen_alone(two_runs: Store) -> None:
    for kind, given in (("cases", {"outcome": "any"}), ("case", {"case": "target-001"}), ("suite", {})):
        result = asked(two_runs, kind, **R1, **given)
        told = result.for_model() + json.dumps(result.as_json(), default=str)
        assert "49.90 twice" in str(result.texts) and "49.90 twice" not in told
        assert not any(str(text.get(name)) in told for text in result.texts for name in text if "answer_of" in name)


def test_a_failed_case_is_shown_with_what_was_wanted_and_why_and_a_passed_one_is_not(two_runs: Store) -> None:
    [text] = asked(two_runs, "case", **R1, case="target-030", arm="quantized").texts
    assert text["wanted"] == "order 48030" and str(text["why"]).startswith("is-json: expected")
    [text] = asked(two_runs, "case", **R1, case="target-030", arm="adapter").texts
    assert not text["wanted"] and not text["why"]


def test_a_suite_is_told_by_block_and_label_with_its_blind_cases_by_count(two_runs: Store, tickets: Store) -> None:
    blocks = {one["block"]: one["cases"] for one in asked(two_runs, "suite", **R1).facts}
    assert blocks == {"target": 60, "general": 33, "tools": 12}
    result = asked(tickets, "suite")
    assert result.facts[0] == {"block": "target", "cases": 8, "blind_cases": 2}
    assert [(one["label"], one["open_cases"]) for one in result.facts[1:]] == [("billing", 3), ("returns", 3)]
    assert len(result.texts) == 6 and result.left_out == {"blind cases": 2}
    assert asked(two_runs, "suite", **R1, block="tools").of["cases"] == 12


def test_an_argument_that_the_cases_do_not_depend_on_is_refused(two_runs: Store) -> None:
    with pytest.raises(BadInput, match=r"read_confusion takes no (arm and no block|block and no arm)"):
        asked(two_runs, "confusion", about="reader", arm="adapter", block="target")


def test_hostile_text_is_shown_as_text(tmp_path: Path) -> None:
    store, _ = stored_runs.finished_run(tmp_path / "home", hostile="\x1b[2J\x1b]0;owned\x07 approved")
    for kind, given in (("cases", {"outcome": "any"}), ("case", {"case": "target-001"}), ("suite", {}), ("result", {}),
                        ("compare", {}), ("confusion", {}), ("findings", {}), ("described", {})):  # fmt: skip
        lines = text_of(asked(store, kind, **given))
        assert lines and not any("\x1b" in line or "\x07" in line for line in lines), kind
