"""A result is the same facts for the screen, the driver and another agent; units stand in the names of facts."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from tests.fixtures.asking import asked
from tests.fixtures.tables import table
from tunesmith.agent.queries.answer import Context
from tunesmith.agent.queries.facts import Result
from tunesmith.agent.queries.registry import REQUESTS, ask
from tunesmith.agent.queries.table import MOST_ROWS, shown, text_of, title
from tunesmith.memory.errors import BadInput
from tunesmith.memory.store import Store
from tunesmith.tools.pipeline.workspace import Workspace

HIDDEN = "my sister's address"


@table(
    ("name", "value", "text"),
    [
        ("seconds", 152.0, "2 min 32 s"), ("estimated_seconds", 4, "4.0 s"), ("bytes", 3 << 30, "3.0 GiB"),
        ("share", 0.957, "96 %"), ("share", 0.9996, "99.9 %"), ("p_value", 0.0004, "< 0.001"), ("lost", 0, "none"),
        ("lost", 12345, "12,345"), ("port", 18977, "18977"), ("seed", 0, "0"), ("lowest_at_step", 0, "0"),
        ("fits", False, "too large"), ("comparable", False, "no"),
        ("loss", 0.123456, "0.1235"), ("step", None, "–"), ("by", {"billing": 3}, "billing: 3"),
        ("card", {"free_vram_bytes": 3 << 30, "order_id": 2, "b": None}, "free VRAM: 3.0 GiB, order_id: 2"),
        ("arms", ("base", "adapter"), "base and adapter"), ("name", "a\x1b[2Jb\nc", "a⟨U+001B⟩[2Jb c"),
    ],
)  # fmt: skip
def test_a_value_is_written_by_the_unit_in_its_name(name: str, value: object, text: str) -> None:
    assert shown(name, value) == text


def test_a_name_is_told_without_its_unit() -> None:
    assert [*map(title, ("peak_rss_bytes", "estimated_seconds", "seconds", "started_at"))] == [
        "peak RAM", "estimated", "took", "started"
    ]  # fmt: skip


def test_a_text_of_a_row_is_on_the_screen_and_reaches_no_model() -> None:
    result = Result(({"rows": 1},), {"run": "r1"}, texts=({"row": "s5/1", "message": HIDDEN},))
    assert any(HIDDEN in line for line in text_of(result))
    assert HIDDEN not in result.for_model() + json.dumps(result.as_json())
    assert result.as_json()["on_the_screen_alone"] == 1


def test_a_moment_is_written_alike_wherever_it_stands() -> None:
    written = shown("began_at", 1_795_000_000.4)
    assert written == time.strftime("%Y-%m-%d %H:%M", time.localtime(1_795_000_000))
    assert shown("newer", {"began_at": 1_795_000_000.4}) == f"began: {written}"


def test_a_driver_reads_what_the_screen_writes_and_a_program_reads_numbers() -> None:
    result = Result(({"seconds": 152.4, "started_at": 0.0, "rows": 3},), {"run": "r1"})
    assert '"seconds": "2 min 32 s"' in result.for_model() and '"rows": 3' in result.for_model()
    facts = result.as_json()["facts"]
    assert isinstance(facts, list) and facts[0]["seconds"] == 152.4 and "T" in facts[0]["started_at"]


def test_what_is_left_out_is_counted_and_a_long_list_says_how_much_more_there_is() -> None:
    result = Result(tuple({"case": f"c{n}"} for n in range(MOST_ROWS + 3)), left_out={"blind cases": 1})
    lines = text_of(result)
    assert any(line.startswith("3 more") for line in lines) and lines[-1] == "Not shown: 1 blind case."


def test_a_column_stands_where_its_fact_has_it_and_none_is_empty() -> None:
    facts = ({"stage": "merge", "arm": "", "seed": None}, {"stage": "evaluate", "arm": "base", "seed": None})
    first, _, *rows = text_of(Result(facts))
    assert first.split() == ["stage", "arm"] and [*map(str.split, rows)] == [["merge"], ["evaluate", "base"]]


def test_an_argument_that_changes_nothing_is_refused_by_its_name(two_runs: Store) -> None:
    with pytest.raises(BadInput, match="read_across takes no stage with these arguments"):
        asked(two_runs, "across", figure="pass_rate", stage="train")
    assert asked(two_runs, "across", figure="time", stage="train").of["stage"] == "train"


def test_an_argument_that_changes_nothing_is_passed_over_where_nobody_gave_it(two_runs: Store) -> None:
    query = REQUESTS["across"].model_validate({"figure": "pass_rate", "stage": "train"})
    context = Context(Workspace(two_runs, "/bin/true", lambda event, **data: None), two_runs.newest_run())
    without = ask(query.model_copy(update={"stage": ""}), context)
    assert ask(query, context, strict=False).facts == without.facts
    with pytest.raises(BadInput, match="read_across takes no stage"):
        ask(query, context)


def test_facts_with_other_names_stand_in_a_table_of_their_own() -> None:
    one, two = ({"arm": "base", "passed": 1}, {"arm": "adapter", "passed": 2}), ({"stage": "train", "lost": 0},)
    lines = text_of(Result((*one, *two)))
    assert not any("arm" in line and "stage" in line for line in lines) and "stage train · lost none" in lines


def test_a_case_whose_texts_are_shown_is_not_listed_beside_them_and_as_many_are_shown_as_were_asked_for() -> None:
    facts = tuple({"case": f"c{n}", "verdict": "fails"} for n in range(9))
    result = Result(facts, texts=tuple({**fact, "asked": HIDDEN} for fact in facts))
    assert [sum(f"case c{n}" in line for line in text_of(result)) for n in (0, 8)] == [1, 0]
    assert text_of(result)[-1].startswith("6 more")
    assert text_of(replace(result, most=8))[-1].startswith("1 more")
