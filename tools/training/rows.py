"""Training rows as tokens: prompt and completion rendered by the model's own template, loss on the completion alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.memory.errors import BadInput, StepFailed

IGNORED = -100
"""The label that cross-entropy leaves out."""
REHEARSAL = "rehearsal"
"""The `origin` of a row that is rehearsed rather than learned."""


class TokenRow(NamedTuple):
    """One row ready for the trainer: `labels` equal `input_ids` where there is loss, IGNORED elsewhere."""

    input_ids: list[int]
    labels: list[int]
    rehearsal: bool = False
    """An ordinary answer: not a text to learn, but a place where the model must stay as the base is."""

    @property
    def trainable(self) -> int:
        return sum(label != IGNORED for label in self.labels)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSONL file with `prompt` and `completion` message lists; raises BadInput naming the line."""
    rows = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                whole = all(m["role"] and isinstance(m["content"], str) for m in row["prompt"] + row["completion"])
            except (ValueError, KeyError, TypeError) as error:
                raise BadInput(
                    f"{path}:{number} is not a row with prompt and completion messages: {error!r}"
                ) from error
            if not (whole and row["prompt"] and row["completion"]):
                raise BadInput(f"{path}:{number}: prompt and completion must be non-empty lists of messages")
            rows.append({name: row.get(name, "") for name in ("prompt", "completion", "origin")})
    if not rows:
        raise BadInput(f"{path} holds no rows; generate some first")
    return rows


def tokenize_row(tokenizer: Any, row: dict[str, Any], max_seq_len_tokens: int) -> TokenRow:
    """Render and mask one row, up to and including the last stop token.

    What a template puts after the stop token is never generated, so it is neither trained nor paid for. A row that is
    too long loses the end of its completion, which a caller can see: its stop token is no longer in the labels.
    """
    prompt = _render(tokenizer, row["prompt"], add_generation_prompt=True)
    whole = _render(tokenizer, row["prompt"] + row["completion"])
    start = 0
    while start < min(len(prompt), len(whole)) and prompt[start] == whole[start]:
        start += 1
    stops = [i for i in range(start, len(whole)) if whole[i] == tokenizer.eos_token_id]
    ids = whole[: stops[-1] + 1] if stops else whole
    ids = ids[:max_seq_len_tokens]
    rehearsal = row.get("origin") == REHEARSAL
    return TokenRow(ids, [IGNORED] * min(start, len(ids)) + ids[start:], rehearsal)


def tokenize_rows(tokenizer: Any, rows: Sequence[dict[str, Any]], max_seq_len_tokens: int) -> list[TokenRow]:
    """All rows as tokens; raises StepFailed where a row would train nothing or never learns to stop."""
    tokens = [tokenize_row(tokenizer, row, max_seq_len_tokens) for row in rows]
    cut = [i for i, row in enumerate(tokens) if tokenizer.eos_token_id not in row.labels]
    unended = [i for i in cut if tokenizer.eos_token_id not in tokenize_row(tokenizer, rows[i], sys.maxsize).labels]
    if unended:
        raise StepFailed(
            f"the chat template puts no stop token ({tokenizer.eos_token}) after the answer of {len(unended)} of "
            f"{len(rows)} rows (the first: row {unended[0] + 1}), so the model would never learn to stop; name the "
            "token that the template ends an answer with as eos_token in the base's tokenizer_config.json"
        )
    if cut:
        longest = max(len(_render(tokenizer, rows[i]["prompt"] + rows[i]["completion"])) for i in cut)
        raise StepFailed(
            f"{len(cut)} of {len(rows)} rows end before their stop token at max_seq_len_tokens={max_seq_len_tokens} "
            f"(the first: row {cut[0] + 1}); the longest has {longest} tokens: raise it, or drop those rows"
        )
    return tokens


def _render(tokenizer: Any, messages: list[dict[str, Any]], **options: Any) -> list[int]:
    ids: list[int] = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **options)["input_ids"]
    return ids
