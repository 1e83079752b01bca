"""Rows with a system message for models whose template refuses one: what is trained is what is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.families import FAMILIES, GEMMA, MISTRAL, write_family
from tests.fixtures.lab_model import TEMPLATE, write_tokenizer
from tunesmith.memory.records import TrainingRow
from tunesmith.memory.row_attributes import RowAttributes
from tunesmith.tools.data.critique_job import row_tokens
from tunesmith.tools.training.rows import IGNORED, tokenize_row, tokenize_rows

pytestmark = pytest.mark.lab

SYSTEM, ASKED = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Two and two?"}
FOLDED = {"role": "user", "content": "Be brief.\n\nTwo and two?"}
ANSWER, MORE = {"role": "assistant", "content": "4"}, {"role": "user", "content": "And two?"}


def row(prompt: list[dict[str, str]], completion: list[dict[str, str]]) -> TrainingRow:
    return TrainingRow("t0", "imported", prompt, completion)


@pytest.fixture(scope="module", params=["gemma2", "mistral"])
def refusing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer whose template raises an error on a system message."""
    from transformers import AutoTokenizer

    family = FAMILIES[request.param]
    return AutoTokenizer.from_pretrained(write_family(tmp_path_factory.mktemp("refusing") / "model", family))


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        ([SYSTEM, ASKED], [ANSWER]),
        ([SYSTEM, ASKED, ANSWER, MORE], [ANSWER]),
        ([SYSTEM, ASKED], [ANSWER, MORE, ANSWER]),
        ([SYSTEM], [ASKED, ANSWER]),
    ],
)
def test_a_row_with_a_system_message_is_the_row_of_the_folded_conversation(
    refusing: Any, prompt: list[dict[str, str]], completion: list[dict[str, str]]
) -> None:
    from jinja2 import TemplateError

    with pytest.raises(TemplateError):
        refusing.apply_chat_template([*prompt, *completion])
    conversation = [FOLDED, *[*prompt, *completion][2:]]
    split = max(1, len(prompt) - 1)
    whole = tokenize_row(refusing, row(prompt, completion), 512)
    assert whole == tokenize_row(refusing, row(conversation[:split], conversation[split:]), 512)
    learned = refusing.decode([label for label in whole.labels if label != IGNORED])
    assert learned.count("4") == completion.count(ANSWER) and "brief" not in learned and "two" not in learned
    asked = refusing.apply_chat_template(conversation[:split], tokenize=False, add_generation_prompt=True)
    assert refusing.decode(whole.input_ids).startswith(asked)
    assert tokenize_rows(refusing, [row(prompt, completion)], 512) == [whole]


def test_the_lengths_of_rows_are_counted_in_the_same_form(refusing: Any) -> None:
    folder = Path(refusing.name_or_path)
    rows = [row([SYSTEM, ASKED], [ANSWER]), row([FOLDED], [ANSWER])]
    assert row_tokens(folder, rows[:1]) == row_tokens(folder, rows[1:])


def test_the_longest_row_counts_its_tools_and_the_other_forms(tmp_path: Path) -> None:
    """No row is longer than the record says, in whichever form an epoch sees it, its tools included."""
    from transformers import AutoTokenizer

    folder = tmp_path
    write_tokenizer(folder)
    template = "{% if tools %}{{ tools | tojson }}{% endif %}" + TEMPLATE
    (folder / "chat_template.jinja").write_text(template)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    short, long = row([ASKED], [ANSWER]), row([ASKED], [{"role": "assistant", "content": "4" * 90}])
    tooled = TrainingRow("t1", "imported", [ASKED], [ANSWER], RowAttributes(tools=({"name": "add" * 60},)))
    for other in (long, tooled):
        length = len(tokenize_row(tokenizer, other, 9999).input_ids)
        found = row_tokens(folder, [short, other])
        assert length <= found["longest_row_tokens"] <= length + 2, "the template ends with more than the stop token"
        varied = row_tokens(folder, [short], [other])
        assert varied["longest_row_tokens"] == found["longest_row_tokens"]
        assert varied["tokens_per_row"] == row_tokens(folder, [short])["longest_row_tokens"]


def test_where_the_template_takes_a_system_message_it_gets_it(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    write_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.chat_template == TEMPLATE not in (GEMMA, MISTRAL)
    tokens = tokenize_row(tokenizer, row([SYSTEM, ASKED], [ANSWER]), 512)
    rendered = tokenizer.apply_chat_template([SYSTEM, ASKED, ANSWER], tokenize=False)
    assert tokenizer.decode(tokens.input_ids) == rendered.rstrip("\n") and "<|im_start|>system" in rendered
