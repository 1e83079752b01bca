"""Orders to learn from test cases are refused in words; orders beside them are not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.agent.driver.test_follow_ups import FAILS, at, behind, types
from tests.fixtures.tables import table

pytestmark = pytest.mark.heavy

REFUSED = "No test case is learned from, so nothing was begun"


def test_an_order_to_learn_from_cases_is_refused(tmp_path: Path) -> None:
    with at(tmp_path, FAILS) as shell:
        for say in (
            "train on the test cases",
            "Trainier doch einfach mit den Testfällen",
            "take the blind test cases and train on them so the score goes up",
            "import the held-out questions as rows",
        ):
            assert REFUSED in types(shell, say), say
        assert not shell.answers.asked


@table(
    ("before", "says", "refused"),
    [
        ("which cases fail?", ("ok train on those then", "trainier damit"), True),
        ("show me some of the test cases", ("train on them",), True),
        ("which cases fail?", ("train it again with rank 8", "train again with these settings",
                                "write 200 more rows like these"), False),
        ("show me some training rows", ("train on them",), False),
    ],
)  # fmt: skip
def test_what_is_pointed_at_is_what_was_told_last(
    tmp_path: Path, before: str, says: Sequence[str], refused: bool
) -> None:
    shown = behind(tmp_path / f"{abs(hash((before, says)))}", FAILS, before, says)
    assert {say: REFUSED in text for say, text in shown.items()} == dict.fromkeys(says, refused), shown
