"""Training rows as tokens: prompt and completion rendered by the model's own template, loss on the completion alone."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.records import TrainingRow
from tunesmith.tools.data.row_file import VARIANTS, read_rows

IGNORED = -100
"""The label that cross-entropy leaves out."""
HELD_ORIGINS = ("rehearsal", "near_miss")
"""Origins of rows that hold the model to its base: ordinary answers, to ordinary messages and to look-alikes."""


class Tokenizer(Protocol):
    """What of a transformers tokenizer turns a row into tokens."""

    eos_token: str
    eos_token_id: int

    def apply_chat_template(
        self,
        conversation: list[dict[str, str]],
        *,
        tokenize: bool,
        return_dict: bool,
        add_generation_prompt: bool,
        **options: object,
    ) -> Mapping[str, Sequence[int]]:
        """Tokens of a conversation, as `input_ids`."""


class TokenRow(NamedTuple):
    """One row ready for the trainer: `labels` equal `input_ids` where there is loss, IGNORED elsewhere."""

    input_ids: list[int]
    labels: list[int]
    rehearsal: bool = False
    """An ordinary answer: not a text to learn, but a place where the model must stay as the base is."""
    row_id: str = ""
    """Which row of the store this is."""

    @property
    def trainable(self) -> int:
        return sum(label != IGNORED for label in self.labels)


def tokenize_row(tokenizer: Tokenizer, row: TrainingRow, max_seq_len_tokens: int) -> TokenRow:
    """Render and mask one row: loss on the assistant's turns of the completion alone, each up to its stop token.

    What a template puts after the last stop token is never generated, so it is neither trained nor paid for. A row that
    is too long loses the end of its completion, which a caller can see: its stop token is no longer in the labels.
    """
    messages = row.prompt + row.completion
    whole = _render(tokenizer, messages, row)
    labels = [IGNORED] * len(whole)
    end = 0
    for place in range(len(row.prompt), len(messages)):
        if messages[place]["role"] != "assistant":
            continue
        start = _shared(_render(tokenizer, messages[:place], row, add_generation_prompt=True), whole)
        last = place + 1 == len(messages)
        end_of_turn = len(whole) if last else _shared(_render(tokenizer, messages[: place + 1], row), whole)
        stops = [i for i in range(start, end_of_turn) if whole[i] == tokenizer.eos_token_id]
        end = stops[-1] + 1 if stops else end_of_turn
        labels[start:end] = whole[start:end]
    ids = whole[:end][:max_seq_len_tokens]
    return TokenRow(ids, labels[: len(ids)], rehearsal=row.origin in HELD_ORIGINS, row_id=row.row_id)


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    return next(
        (n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def tokenize_rows(tokenizer: Tokenizer, rows: Sequence[TrainingRow], max_seq_len_tokens: int) -> list[TokenRow]:
    """All rows as tokens; raises StepFailed where a row would train nothing or never learns to stop."""
    tokens = [tokenize_row(tokenizer, row, max_seq_len_tokens) for row in rows]
    cut = [i for i, row in enumerate(tokens) if tokenizer.eos_token_id not in row.labels]
    unended = [i for i in cut if tokenizer.eos_token_id not in tokenize_row(tokenizer, rows[i], sys.maxsize).labels]
    if unended:
        raise StepFailed(
            f"the chat template puts no stop token ({tokenizer.eos_token}) after the answer of {len(unended)} of "
            f"{len(rows)} rows (the first: {rows[unended[0]].row_id}), so the model would never learn to stop; name "
            "the token that the template ends an answer with as eos_token in the base's tokenizer_config.json"
        )
    if cut:
        longest = max(len(_render(tokenizer, rows[i].prompt + rows[i].completion, rows[i])) for i in cut)
        raise StepFailed(
            f"{len(cut)} of {len(rows)} rows end before their stop token at max_seq_len_tokens={max_seq_len_tokens} "
            f"(the first: {rows[cut[0]].row_id}); the longest has {longest} tokens: raise it, or drop those rows"
        )
    return tokens


def read_variants(tokenizer: Tokenizer, rows_path: Path, max_seq_len_tokens: int) -> dict[str, list[TokenRow]]:
    """Row → its other forms, of the file beside its data set's; empty where there is none."""
    path = rows_path.parent / VARIANTS
    if not path.exists():
        return {}
    rows = read_rows(path)
    made: dict[str, list[TokenRow]] = {}
    for row, tokens in zip(rows, tokenize_rows(tokenizer, rows, max_seq_len_tokens), strict=True):
        made.setdefault(str(row.attributes["variant_of"]), []).append(tokens)
    return made


def in_laps(
    rows: Sequence[TokenRow], variants: Mapping[str, Sequence[TokenRow]], laps: int, forms: int = 1
) -> tuple[list[TokenRow], list[int]]:
    """Every row once a lap, or `forms` times if it has other forms: each time in its next one.

    Also the place in `rows` of each.
    """
    placed = [
        (own[(lap * forms + turn) % len(own)], place)
        for lap in range(laps)
        for place, row in enumerate(rows)
        for own in ((row, *variants.get(row.row_id, ())),)
        for turn in range(min(forms, len(own)))
    ]
    return [row for row, _ in placed], [place for _, place in placed]


def _render(
    tokenizer: Tokenizer, messages: list[dict[str, str]], row: TrainingRow, *, add_generation_prompt: bool = False
) -> list[int]:
    """Tokens of a conversation, with the tools that it was held with where there are some."""
    options = {"tools": row.attributes["tools"]} if row.attributes.get("tools") else {}
    rendered = tokenizer.apply_chat_template(
        messages, tokenize=True, return_dict=True, add_generation_prompt=add_generation_prompt, **options
    )
    return list(rendered["input_ids"])
