"""The rows that quantizing is calibrated on."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.memory.records import TrainingRow
from tunesmith.tools.data.rows import read_rows
from tunesmith.tools.models.memory_math import rows_in_a_batch
from tunesmith.tools.training.rows import REHEARSAL_ORIGINS, tokenize_row

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

Batch = Mapping[str, "Tensor"]


def calibration_rows(
    tokenizer: PreTrainedTokenizerBase,
    rows_path: Path,
    samples: int,
    max_seq_len_tokens: int,
    seed: int,
    *,
    tokens: int = 0,
) -> list[list[int]]:
    """The chosen rows as token ids; see `chosen_rows`."""
    ids: dict[int, list[int]] = {}

    def length(row: TrainingRow) -> int:
        ids[id(row)] = tokenize_row(tokenizer, row, max_seq_len_tokens).input_ids
        return len(ids[id(row)])

    return [ids[id(row)] for row in chosen_rows(rows_path, samples, seed, tokens=tokens, length=length)]


def calibration_batches(tokenizer: PreTrainedTokenizerBase, rows: Sequence[list[int]]) -> list[Batch]:
    """Padded batches of rows of token ids; rows of like length share a batch."""
    rows = sorted(rows, key=len)
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    several = rows_in_a_batch(max(map(len, rows)))
    return [calibration_batch(rows[at : at + several], padding) for at in range(0, len(rows), several)]


def chosen_rows(
    rows_path: Path, samples: int, seed: int, *, tokens: int = 0, length: Callable[[TrainingRow], int] = lambda row: 0
) -> list[TrainingRow]:
    """So many rows of a file at most, or as many as have so many tokens, drawn by seed; 0 of either: no limit.

    Half of them are rehearsal where there are enough: what the behaviour's rows never touch would round away unseen.
    Raises BadInput for an empty file.
    """
    rows = read_rows(rows_path)
    random.Random(seed).shuffle(rows)
    samples, wanted = samples or len(rows), tokens or sys.maxsize
    rehearsal = [row for row in rows if row.origin in REHEARSAL_ORIGINS]
    chosen, have = dict[int, TrainingRow](), 0
    for pool, rows_wanted, tokens_wanted in ((rehearsal, samples // 2, wanted // 2), (rows, samples, wanted)):
        for row in pool:
            if len(chosen) < rows_wanted and have < tokens_wanted and id(row) not in chosen:
                chosen[id(row)], have = row, have + length(row)
    return [*chosen.values()]


def calibration_batch(rows: Sequence[list[int]], padding: int) -> Batch:
    """Rows of token ids as a padded batch; each tensor (rows, tokens)."""
    import torch

    width = max(map(len, rows))
    return {
        "input_ids": torch.tensor([ids + [padding] * (width - len(ids)) for ids in rows]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in rows]),
    }


def joined_batches(rows: Sequence[list[int]], max_seq_len_tokens: int, seed: int) -> list[Batch]:
    """The same rows one after the other, cut to pieces of one length, each a batch; but for a few last tokens all.

    For a search that compares outputs token by token: what pads a short row would count as much as the row, and
    AutoRound's own reader drops rows that are shorter than the others.
    """
    rows = [*rows]
    random.Random(seed).shuffle(rows)
    joined = [token for ids in rows for token in ids]
    # Of equal length, so that nothing is padded; what is over at the end is a few tokens.
    pieces = -(-len(joined) // max_seq_len_tokens)
    length = len(joined) // pieces
    return [calibration_batch([joined[at * length : (at + 1) * length]], 0) for at in range(pieces)]
