"""Whether a chat template takes a system message is read from its text, and so is what is asked where it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.fixtures.families import CHATML, GEMMA, LLAMA3, MISTRAL, OLMO, PHI3, QWEN2
from tests.fixtures.tables import table
from tests.fixtures.tiny_model import TEMPLATE
from tunesmith.tools.models.chat_template import (
    has_system,
    takes_system,
    takes_system_in,
    template_messages,
    without_system,
)

ROLES_ALTERNATE = "Conversation roles must alternate user/assistant/user/assistant/..."
# As Mistral 7B Instruct v0.1 has it, then as Mistral Nemo does: the words are alike, the second takes one.
ALTERNATES = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('" + ROLES_ALTERNATE + "') }}{% endif %}[{{ m['content'] }}]{% endfor %}"
)
EXCEPT_SYSTEM = (
    "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}{%- endif %}"
    '{{- raise_exception("Only user and assistant roles are supported, with the exception of an initial optional '
    'system message!") }}'
)
FIRST_ALONE = "{% if m.role == 'system' %}{{ raise_exception('System message must be at the beginning.') }}{% endif %}"
NO_IMAGES = "{{ raise_exception('System messages are not supported with images') }}" + CHATML
NO_TOOLS = "{% if m.role == 'tool' %}{{ raise_exception('Tool role not supported') }}{% endif %}" + CHATML
GEMMA_3 = "{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] %}{% endif %}" + ALTERNATES
REFUSE = (
    GEMMA, MISTRAL, ALTERNATES, GEMMA.replace("role not", "messages are not"),
    GEMMA.replace("System role not supported", "This model does not support system prompts."),
    MISTRAL.replace("Only user and assistant roles are supported!", "Unknown role: "),
)  # fmt: skip
TAKE = (
    CHATML, LLAMA3, QWEN2, OLMO, PHI3, TEMPLATE, EXCEPT_SYSTEM, FIRST_ALONE, NO_IMAGES, NO_TOOLS, GEMMA_3, "",
    "System role not supported",
)  # fmt: skip


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


ANSWER = {"role": "assistant", "content": "yes"}


def test_what_a_template_raises_says_whether_it_takes_a_system_message(tmp_path: Path) -> None:
    for template in (*REFUSE, *TAKE):
        (tmp_path / "chat_template.jinja").write_text(template)
        assert takes_system(tmp_path) is (template in TAKE), template


def test_where_it_cannot_be_told_a_template_takes_one(tmp_path: Path) -> None:
    assert takes_system(tmp_path) and takes_system(tmp_path / "none")
    for text in ("{", "[]"):
        (tmp_path / "tokenizer_config.json").write_text(text)
        assert takes_system(tmp_path)


@table(
    ("part", "taken"),
    [("raise_exception('", False), ("raise_exception(" + " " * 99, True), ("raise_exception('system is ", True),
     ("'", True)],
)  # fmt: skip
def test_it_is_read_in_one_pass(part: str, taken: bool) -> None:
    """Begun again at each of its quotes, it would be read for hours; what one pass takes is `bench/limits.py`'s."""
    assert takes_system_in(part * (1_000_000 // len(part)) + "\"role alternate')") is taken


def test_the_system_text_goes_before_the_first_question() -> None:
    assert without_system([system("A"), user("q"), ANSWER, user("r")]) == [user("A\n\nq"), ANSWER, user("r")]
    assert without_system([system("A"), system("B"), user("q")]) == [user("A\n\nB\n\nq")]
    assert without_system([system(""), user("q")]) == [user("q")]
    assert without_system([system("A"), {**user("q"), "name": "n"}]) == [{**user("A\n\nq"), "name": "n"}]
    assert without_system([system("A"), ANSWER, user("q")]) == [user("A"), ANSWER, user("q")]
    assert without_system([system("A")]) == [user("A")]


@table(
    "messages",
    [
        [], [user("q")], [user("q"), ANSWER, system("late"), user("r")], [system("A"), user([{"type": "text"}])],
        [{"role": "system", "content": [{"type": "text"}]}, user("q")],
    ],
)  # fmt: skip
def test_what_holds_no_leading_system_text_is_left_alone(messages: list[dict[str, Any]]) -> None:
    assert without_system(messages) == messages


def test_a_conversation_is_not_changed_in_place_nor_where_the_template_takes_it() -> None:
    asked = [system("A"), user("q")]
    assert template_messages(GEMMA, asked) == [user("A\n\nq")] and asked == [system("A"), user("q")]
    for template in (*TAKE, None):
        assert template_messages(template, asked) == asked
    assert has_system(asked) and not has_system(template_messages(GEMMA, asked)) and not has_system([])
