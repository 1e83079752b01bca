"""A turn's reads are a dim line each; tables stop at a screen, and /why has all of them."""

from __future__ import annotations

from io import StringIO

from rich.console import Console, RenderableType

from tunesmith.agent.driver.reads import MOST_LINES, Reads, looking
from tunesmith.agent.queries.facts import Result
from tunesmith.agent.queries.registry import REQUESTS

LONG = Result(tuple({"case": f"case-{n}"} for n in range(9)), {"run": "r1"})
RUNS = REQUESTS["runs"]()


def screen_of(reads: Reads, *results: Result, table: bool) -> str:
    console = Console(file=StringIO(), width=100)
    for result in results:
        reads.looked(RUNS, result, console.print, table=table)
    return printed(console)


def printed(console: Console, *more: RenderableType) -> str:
    console.print(*more)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_a_read_is_one_line_until_a_table_is_asked_for() -> None:
    assert screen_of(Reads(), LONG, table=False).split("\n")[:2] == ["· reads the runs", ""]
    assert "case-8" in screen_of(Reads(), LONG, table=True)


def test_texts_for_the_screen_alone_are_shown_unasked_as_no_model_can_repeat_them() -> None:
    assert "Where is my parcel" in screen_of(
        Reads(), Result(texts=({"asked": "Where is my parcel? " * 4},)), table=False
    )


def test_many_texts_wait_until_a_table_is_asked_for_and_the_model_is_told_so() -> None:
    many = Result(texts=tuple({"asked": f"Where is parcel {n}?"} for n in range(4)))
    assert "parcel" not in screen_of(Reads(), many, table=False)
    assert "parcel 2" in screen_of(Reads(), many, table=True)
    assert many.for_model(seen=False) == '{"texts_not_shown_yet": 4}'
    assert many.for_model() == '{"on_the_screen_alone": 3, "texts_not_shown_yet": 1}'


def test_tables_stop_at_a_screen_and_all_of_them_are_behind_why() -> None:
    reads = Reads()
    shown = screen_of(reads, *[LONG] * 4, table=True)
    assert shown.count("case-8") == 2 < MOST_LINES and "more lines: /why shows them" in shown
    assert printed(Console(file=StringIO(), width=100), reads.page()).count("case-8") == 4


def test_a_read_is_named_by_what_it_selects() -> None:
    assert looking(REQUESTS["across"].model_validate({"figure": "time"})) == "reads the time figures of every run"
    assert looking(REQUESTS["cases"].model_validate({"run": "r1", "arm": "adapter"})) == "reads the adapter cases of r1"
    assert (
        looking(REQUESTS["steps"].model_validate({"since": "2026-11-20"})) == "reads the since 2026-11-20 00:00 steps"
    )
