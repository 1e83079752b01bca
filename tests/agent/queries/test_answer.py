"""What an answer shows of a prompt: the message, not the instruction above it."""

from __future__ import annotations

from tests.fixtures.tables import table
from tunesmith.agent.queries.answer import without_instruction


@table(
    ("prompt", "shown"),
    [
        ("Sort this letter:\n\nMy kettle leaks.\n\nBye", "My kettle leaks.\n\nBye"),
        ("My order: two lamps.\n\nWhere is it?", "My order: two lamps.\n\nWhere is it?"),
        ("Hello,\nI write about this:\n\nit leaks", "Hello,\nI write about this:\n\nit leaks"),
        ("Sort this letter:\n\n ", "Sort this letter:\n\n "),
        ("", ""),
    ],
)
def test_only_a_line_that_introduces_the_message_is_left_out(prompt: str, shown: str) -> None:
    assert without_instruction(prompt) == shown
