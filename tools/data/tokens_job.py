"""Rows as a base's tokenizer takes them: how long they are, and what in them it would not take as text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunesmith.memory.records import TrainingRow
from tunesmith.tools.models.chat_template import as_taken

_AT_ONCE = 64


def special_tokens(base: Path) -> list[str]:
    """The tokens of a base that are no text, as they are written: those that begin and end a turn among them."""
    from transformers import AutoTokenizer

    added = AutoTokenizer.from_pretrained(base, local_files_only=True).added_tokens_decoder
    return [token.content for token in added.values() if token.special and token.content]


def row_tokens(base: Path, rows: Sequence[TrainingRow], varied: Sequence[TrainingRow] = ()) -> dict[str, int]:
    """Mean tokens of a row, and those of the longest, other forms included, as the base's own template renders it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)

    def rendered(row: TrainingRow) -> str:
        chat = as_taken(tokenizer.chat_template, [*row.prompt, *row.completion])
        text: str = tokenizer.apply_chat_template(chat, tokenize=False, tools=list(row.attributes.tools) or None)
        return text

    lengths: list[int] = []
    every = [*rows, *varied]
    for start in range(0, len(every), _AT_ONCE):  # all at once would be gigabytes of 100,000 rows
        texts = [rendered(row) for row in every[start : start + _AT_ONCE]]
        lengths += map(len, tokenizer(texts, addspecial_tokens=False)["input_ids"])
    return {"tokens_per_row": round(sum(lengths[: len(rows)]) / len(rows)), "longestrow_tokens": max(lengths)}
