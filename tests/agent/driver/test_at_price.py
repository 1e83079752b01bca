"""At a price that waits: other values are priced anew, what is asked is answered, and only a yes agrees."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.commands.test_approvals import BEGIN_WITH_YES, NOS
from tests.fixtures.alone import Alone
from tests.fixtures.stored_runs import finished_run
from tests.fixtures.tables import table
from tunesmith.agent.commands.approvals import read_answer
from tunesmith.agent.driver.at_price import heard
from tunesmith.tools.core.stage import GIB, Estimate, Plan

PRICED = Plan(
    stage="train", run="r1", summary="train", steps=("one",),
    request={"lora_rank": 8, "epochs": 4.0, "learning_rate": 5e-4},
    estimate=Estimate(seconds=1500, most_seconds=3000, basis="x", peak_ram_bytes=2 * GIB, disk_bytes=GIB),
    free_ram_bytes=8 * GIB, free_disk_bytes=100 * GIB,
)  # fmt: skip
WRITING = PRICED.model_copy(update={"stage": "generate", "request": {"rows": 600, "writer": "model"}})


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Alone]:
    finished_run(tmp_path / "home")[0].close()
    one = Alone(tmp_path / "home")
    yield one
    one.chat.close()


VALUES = {
    "rank 4": "lora_rank=4", "yes but just one epoch": "epochs=1.0", "nein, nimm rang 16": "lora_rank=16",
    "nope, make it rank 4 please": "lora_rank=4", "rank 8 and two epochs": "lora_rank=8 epochs=2.0",
}  # fmt: skip


@table("said", VALUES)
def test_a_value_at_a_price_is_priced_anew_and_starts_nothing(alone: Alone, said: str) -> None:
    assert heard(alone.deps, alone.chat.spoken, said, PRICED) == ("", VALUES[said])


@table("said", ["no, rank 16 instead of 8", "would rank 4 do?", "rank 8 if it fits", "rank 4 and a 7", "not rank 16"])
def test_a_value_that_is_denied_asked_about_or_conditional_is_none(alone: Alone, said: str) -> None:
    assert "=" not in heard(alone.deps, alone.chat.spoken, said, PRICED)[1]


@table(
    ("said", "edit"),
    [
        ("nah, 150", "rows=150"),
        ("50", "rows=50"),
        ("150 rows", "rows=150"),
        ("can you make it 150 instead", "rows=150"),
    ],
)
def test_a_bare_number_is_meant_for_the_one_number_that_people_give_to_a_step(
    alone: Alone, said: str, edit: str
) -> None:
    assert heard(alone.deps, alone.chat.spoken, said, WRITING) == ("", edit)
    assert heard(alone.deps, alone.chat.spoken, "12", PRICED)[1] == "12", "which of several nobody can say"


@table("said", ["not 150", "150 if it fits", "in 150 minutes", "150 of them were wrong", "is 150 enough?"])
def test_a_number_among_other_words_is_no_value(alone: Alone, said: str) -> None:
    assert "=" not in heard(alone.deps, alone.chat.spoken, said, WRITING)[1]


@table("said", [*NOS, *BEGIN_WITH_YES])
def test_no_other_words_are_made_an_answer(alone: Alone, said: str) -> None:
    text = heard(alone.deps, alone.chat.spoken, said, PRICED)[1]
    answer = read_answer(text, by="t", stage="train")
    assert text == said or "=" in text or (answer is not None and not answer.yes)


@table("said", [one for one in NOS if "?" not in one])
def test_a_no_with_its_reason_is_decided_and_no_question(alone: Alone, said: str) -> None:
    assert heard(alone.deps, alone.chat.spoken, said, PRICED) == ("", said)


@table(
    ("said", "holds"),
    [
        ("how much memory does that take?", "RAM 2.0 GiB"), ("why does it take that long?", "about 25 min"),
        ("what does rank mean?", "rank"), ("how long did the merge take?", "stage merge"),
        ("no, how long did the merge take?", "stage merge"),
    ],
)  # fmt: skip
def test_a_question_at_a_price_is_answered_and_decides_nothing(alone: Alone, said: str, holds: str) -> None:
    text, answer = heard(alone.deps, alone.chat.spoken, said, PRICED)
    assert holds in text and answer == said and alone.steps() == alone.steps()


@table("said", ["yes", "k go", "no", "not today", "gut, mach", "always", "why", "lora_rank=4", "x" * 700])
def test_an_answer_that_the_price_itself_reads_is_left_to_it(alone: Alone, said: str) -> None:
    assert heard(alone.deps, alone.chat.spoken, said, PRICED) == ("", said)


@table("said", ["if it stays under an hour", "yes, at 7 in the evening", "only if 7 GB stay free", "do it tomorrow"])
def test_a_condition_is_no_yes_and_changes_nothing(alone: Alone, said: str) -> None:
    text, answer = heard(alone.deps, alone.chat.spoken, said, PRICED)
    decided = read_answer(answer, by="t", stage="train")
    assert "=" not in answer and not (decided and decided.yes), (text, answer)
