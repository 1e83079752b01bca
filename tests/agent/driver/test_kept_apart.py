"""Orders to learn from test cases are refused in words; orders beside them are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.agent.driver.test_fallback import at, heard
from tests.fixtures.tables import table
from tunesmith.agent.driver.turn_deps import TurnAnswer

pytestmark = pytest.mark.heavy

REFUSED = "No test case is learned from, so nothing was begun"


def test_an_order_to_learn_from_cases_is_refused(tmp_path: Path) -> None:
    alone = at(tmp_path, "done")
    for say in (
        "train on the test cases",
        "take the test cases and train on them",
        "import the test cases as rows",
    ):
        answer = heard(alone, say)
        assert isinstance(answer, TurnAnswer) and REFUSED in answer.text, say
    alone.chat.close()


@table(
    ("before", "say", "refused"),
    [
        ("which cases fail?", "train on those then", True),
        ("which cases fail?", "train on them", True),
        ("which cases fail?", "train it again with rank 8", False),
        ("show me some training rows", "train on them", False),
    ],
)
def test_what_is_pointed_at_is_what_was_told_last(tmp_path: Path, before: str, say: str, refused: bool) -> None:
    alone = at(tmp_path / f"{abs(hash((before, say)))}", "done")
    alone.hears(before)
    answer = heard(alone, say)
    assert (isinstance(answer, TurnAnswer) and REFUSED in answer.text) == refused, answer
    alone.chat.close()
