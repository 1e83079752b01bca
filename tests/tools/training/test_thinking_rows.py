"""Rows for models that think: a model is trained on the very tokens that it is asked with, and never to be cut off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.lab_model import write_tiny_model
from tests.fixtures.thinking import OPENS, SWITCH, think
from tunesmith.memory.records import TrainingRow
from tunesmith.tools.training.rows import IGNORED, TokenRow, tokenize_row

pytestmark = pytest.mark.lab

PROMPT = [{"role": "user", "content": "Two and two?"}]
ROW = TrainingRow("t0", "generated", PROMPT, [{"role": "assistant", "content": "4 > 3"}])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("thinking") / "model")


def read(model: Path, template: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(think(model, template))


def parts(tokenizer: Any, row: TokenRow) -> tuple[str, str]:
    """What is read, and what is learned after it."""
    learned = row.trainable
    assert all(label == IGNORED for label in row.labels[:-learned])
    return tokenizer.decode(row.input_ids[:-learned]), tokenizer.decode(row.input_ids[-learned:])


def asked(tokenizer: Any, **options: bool) -> str:
    return str(tokenizer.apply_chat_template(PROMPT, tokenize=False, add_generation_prompt=True, **options))


def test_with_thoughts_off_the_answer_alone_is_learned_after_the_prompt_that_is_served(model: Path) -> None:
    tokenizer = read(model, SWITCH)
    prompt, learned = parts(tokenizer, tokenize_row(tokenizer, ROW, 512, at_once=True))
    assert prompt == asked(tokenizer, enable_thinking=False) != asked(tokenizer)
    assert learned == "4 > 3<|im_end|>"


def test_with_thoughts_on_the_prompt_that_is_served_is_read_too(model: Path) -> None:
    tokenizer = read(model, SWITCH)
    prompt, learned = parts(tokenizer, tokenize_row(tokenizer, ROW, 512, at_once=False))
    assert prompt == asked(tokenizer) and learned == "<think>\n\n</think>\n\n4 > 3<|im_end|>"


@pytest.mark.parametrize("template", [OPENS, OPENS.replace("{{ m['content'] }}", "T{{ m['content'] }}")])
def test_a_thought_that_every_prompt_opens_is_learned_to_be_ended(model: Path, template: str) -> None:
    own = "{% if m['role'] == 'assistant' %}<think>{{ '\n\n' }}</think>{{ '\n\n' }}{% endif %}"
    tokenizer = read(model, template.replace("T{{", own + "{{"))
    prompt, learned = parts(tokenizer, tokenize_row(tokenizer, ROW, 512))
    assert prompt == asked(tokenizer) and prompt.endswith("<think>\n")
    assert learned == "\n</think>\n\n4 > 3<|im_end|>"


def test_where_the_template_knows_no_thoughts_nothing_changes(model: Path) -> None:
    from tests.fixtures.lab_model import TEMPLATE

    tokenizer = read(model, TEMPLATE)
    rows = [tokenize_row(tokenizer, ROW, 512, at_once=at_once) for at_once in (True, False)]
    assert rows[0] == rows[1] and parts(tokenizer, rows[0]) == (asked(tokenizer), "4 > 3<|im_end|>")
