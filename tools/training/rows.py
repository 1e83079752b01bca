"""Training rows as tokens: prompt and completion rendered by the model's own template, loss on the completion alone."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.records import TrainingRow

IGNORED = -100
"""The label that cross-entropy leaves out."""
HELD_ORIGINS = ("rehearsal", "near_miss")
"""Origins of rows that hold the model to its base: ordinary answers, to ordinary messages and to look-alikes."""


class Tokenizer(Protocol):
    """What of a transformers tokenizer turns a row into tokens."""

    eos_token: str
    eos_token_id: int

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, return_dict: bool, add_generation_prompt: bool
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
    """Render and mask one row, up to and including the last stop token.

    What a template puts after the stop token is never generated, so it is neither trained nor paid for. A row that is
    too long loses the end of its completion, which a caller can see: its stop token is no longer in the labels.
    """
    prompt = _render(tokenizer, row.prompt, add_generation_prompt=True)
    whole = _render(tokenizer, row.prompt + row.completion)
    start = 0
    while start < min(len(prompt), len(whole)) and prompt[start] == whole[start]:
        start += 1
    stops = [i for i in range(start, len(whole)) if whole[i] == tokenizer.eos_token_id]
    ids = whole[: stops[-1] + 1] if stops else whole
    ids = ids[:max_seq_len_tokens]
    labels = [IGNORED] * min(start, len(ids)) + ids[start:]
    return TokenRow(ids, labels, rehearsal=row.origin in HELD_ORIGINS, row_id=row.row_id)


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
        longest = max(len(_render(tokenizer, rows[i].prompt + rows[i].completion)) for i in cut)
        raise StepFailed(
            f"{len(cut)} of {len(rows)} rows end before their stop token at max_seq_len_tokens={max_seq_len_tokens} "
            f"(the first: {rows[cut[0]].row_id}); the longest has {longest} tokens: raise it, or drop those rows"
        )
    return tokens


def _render(tokenizer: Tokenizer, messages: list[dict[str, str]], *, add_generation_prompt: bool = False) -> list[int]:
    rendered = tokenizer.apply_chat_template(
        messages, tokenize=True, return_dict=True, add_generation_prompt=add_generation_prompt
    )
    return list(rendered["input_ids"])
