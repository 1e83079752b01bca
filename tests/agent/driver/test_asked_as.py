"""What words say beside their label: a place in a list, a table, what was forgotten, a base by its name."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.agent.driver.test_conversation import Talk
from tests.driver.exam_home import make_exam_home
from tests.fixtures.tables import table
from tunesmith.agent.driver.by_code import answered, decide
from tunesmith.agent.driver.look_ups import turn_context
from tunesmith.agent.driver.turn_deps import TurnAnswer
from tunesmith.agent.driver.unsure import guessed
from tunesmith.agent.queries.arguments import Query
from tunesmith.agent.queries.cases import CasesQuery
from tunesmith.agent.queries.comparisons import CompareRunsQuery
from tunesmith.agent.words.reading import Context, reader
from tunesmith.memory.errors import NotFound
from tunesmith.memory.store import Store

FAILED = CasesQuery(run="r1", arm="adapter")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_exam_home(tmp_path_factory.mktemp("as") / "home")


def talk_of(home: Path) -> tuple[Talk, io.StringIO]:
    talk, screen = Talk(home), io.StringIO()
    talk.deps.show = Console(file=screen, width=160).print
    talk.deps.code_first = True
    return talk, screen


@pytest.fixture
def talk(home: Path) -> Iterator[tuple[Talk, io.StringIO]]:
    talk, screen = talk_of(home)
    yield talk, screen
    talk.chat.close()


@pytest.mark.heavy
@table(
    ("said", "label", "before", "asked"),
    [
        ("the third failed case", "cases.failed", None, {"number": 3}),
        ("der dritte fehlgeschlagene Fall", "cases.failed", None, {"number": 3}),
        ("show me failed case 2", "cases.failed", None, {"number": 2}),
        ("show me 2 failed cases", "cases.failed", None, {"most": 2}),
        ("the last one that failed", "follow", FAILED, {"run": "r1", "arm": "adapter", "number": -1}),
        ("and the second one?", "follow", FAILED, {"run": "r1", "arm": "adapter", "number": 2}),
        ("open the second one", "case.answers", FAILED, {"run": "r1", "arm": "adapter", "number": 2}),
        ("open the second one", "case.answers", None, {"number": 2}),
        ("what did it answer to the first of those", "case.answers", FAILED, {
            "run": "r1", "arm": "adapter", "number": 1}),
        ("which cases failed in the last run", "cases.failed", None, {"run": "r2"}),
        ("which cases failed in the last one", "cases.failed", None, {"run": "r2"}),
        ("failed cases as a table", "cases.failed", None, {"as_table": True}),
        ("zeig mir die falschen Fälle als Tabelle", "cases.failed", None, {"as_table": True}),
        ("compare base and adapter as a table", "compare", None,
         {"arm": "adapter", "other_arm": "base", "as_table": True}),
        ("did r1 or r2 forget more?", "compare_runs.time", None,
         {"about": "forgotten", "run": "r1", "other_run": "r2"}),
        ("which of the two runs forgot more", "cases.lost", None,
         {"about": "forgotten", "run": "r2", "other_run": "r1"}),
        ("which of the two forgot more?", "follow", CompareRunsQuery(run="r1", other_run="r2"),
         {"about": "forgotten", "run": "r1", "other_run": "r2"}),
        ("welcher der beiden hat mehr vergessen?", "across.pass_rate", None, {"figure": "forgotten"}),
        ("which cases did r1 forget", "cases.lost", None, {"outcome": "lost", "run": "r1"}),
        ("is r2 worse than r1", "compare_runs.results", None, {"run": "r2", "other_run": "r1"}),
    ],
)  # fmt: skip
def test_an_argument_that_words_name_beside_their_label(
    home: Path, said: str, label: str, before: Query | None, asked: dict[str, Any]
) -> None:
    runs = tuple(Store(home).runs())
    request = reader().read(said, Context(runs=runs, before=before), label).request
    assert request is not None and request.model_dump(exclude_defaults=True) == asked


@pytest.mark.heavy
@table(
    ("said", "first"),
    [
        ("which of the two forgot more?", "The 2 runs are alike in cases of general and tools that the base passes"),
        ("welcher der beiden hat mehr vergessen?", "The 2 runs are alike in cases of general and tools"),
        ("did r2 forget more than r1?", "r2 (release-notes) and r1 (ticket-triage): of 45 general and tools cases"),
        ("the third failed case", "3 of 17: r2, case target-044"),
        ("der dritte fehlgeschlagene Fall", "3 of 17: r2, case target-044"),
        ("show me failed case 2", "2 of 17: r2, case target-030"),
        ("which runs failed", "None of the 2 runs failed"),
    ],
)
def test_what_is_named_settles_what_is_asked_wherever_somebody_stands(home: Path, said: str, first: str) -> None:
    talk, _ = talk_of(home)
    talk.deps.begin_turn(said)
    answer = decide(talk.deps) or guessed(talk.deps)
    talk.chat.close()
    assert isinstance(answer, TurnAnswer) and answer.text.startswith(first), answer


def answer_of(talk: Talk, said: str, label: str) -> str:
    """What is answered to words that were read as a label."""
    answer = answered(talk.deps, reader().read(said, turn_context(talk.deps), label))
    assert isinstance(answer, TurnAnswer)
    return answer.text


@pytest.mark.heavy
@table(
    ("said", "label", "shown"),
    [
        ("compare base and adapter as a table", "compare", "fail → pass"),
        ("compare r1 and r2 as a table", "compare_runs.results", "59 of 60"),
        ("failed cases as a table", "cases.failed", "target-017"),
        ("Zeig mir die Ergebnisse von r1 als Tabelle.", "result.passed", "quantized"),
    ],
)
def test_a_table_that_is_asked_for_is_shown_and_one_line_is_said(home: Path, said: str, label: str, shown: str) -> None:
    talk, screen = talk_of(home)
    assert len(answer_of(talk, said, label).splitlines()) == 1
    assert shown in screen.getvalue() and len(screen.getvalue().splitlines()) > 3
    talk.chat.close()


def test_no_other_run_answers_for_a_base_that_is_named(talk: tuple[Talk, io.StringIO]) -> None:
    conversation, _ = talk
    with conversation.store.write() as conn:
        conn.execute("UPDATE artifacts SET meta = json_set(meta, '$.name', 'SmolLM2-135M') WHERE kind = 'base'")
    own = answer_of(conversation, "how good is the base SmolLM2-135M?", "result.passed")
    assert own.startswith("base passes 2 of 60 (3%) target cases") and "in r2" in own
    for said, label in (("how good is the base Qwen3-8B?", "result.passed"), ("loss of Qwen3-8B", "curve")):
        with pytest.raises(NotFound, match=r"No run has Qwen3-8B as its base; there is SmolLM2-135M in r2"):
            answer_of(conversation, said, label)
    assert "Qwen3-8B" in answer_of(conversation, "would Qwen3-8B fit", "fits.fit"), "asks of no run"
    assert answer_of(conversation, "would Qwen3-8B do better", "findings.bigger_base").startswith("r2: ")


def test_what_is_said_of_rows_of_another_run_begins_with_the_records(talk: tuple[Talk, io.StringIO]) -> None:
    said = answer_of(talk[0], "can i train on r1's rows plus these new 400", "talk.rows_of_runs")
    assert said.startswith("A new plan trains on rows of its own, and on none of the 138 that r1 kept")
    assert "A run trains on its own rows alone" in said
