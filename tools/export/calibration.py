"""The rows that quantizing is calibrated on."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
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


def calibration_batches(
    tokenizer: PreTrainedTokenizerBase, rows_path: Path, samples: int, max_seq_len_tokens: int, seed: int
) -> list[Batch]:
    """Padded batches of rendered rows, drawn by seed; rows of like length share a batch."""
    chosen = chosen_rows(rows_path, samples, seed)
    tokens = [tokenize_row(tokenizer, row, max_seq_len_tokens).input_ids for row in chosen]
    tokens.sort(key=len)

    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    several = rows_in_a_batch(max(map(len, tokens)))
    return [calibration_batch(tokens[at : at + several], padding) for at in range(0, len(tokens), several)]


def chosen_rows(rows_path: Path, samples: int, seed: int) -> list[TrainingRow]:
    """So many rows of a file at most, drawn by seed. Raises BadInput for an empty one.

    Half of them are rehearsal where there are enough: what the behaviour's rows never touch would round away unseen.
    """
    rows = read_rows(rows_path)
    draw = random.Random(seed)
    draw.shuffle(rows)
    rehearsal = [row for row in rows if row.origin in REHEARSAL_ORIGINS][: samples // 2]
    rehearsal_ids = {id(row) for row in rehearsal}
    return [*rehearsal, *(row for row in rows if id(row) not in rehearsal_ids)][:samples]


def calibration_batch(rows: Sequence[list[int]], padding: int) -> Batch:
    """Rows of token ids as a padded batch; each tensor (rows, tokens)."""
    import torch

    width = max(map(len, rows))
    return {
        "input_ids": torch.tensor([ids + [padding] * (width - len(ids)) for ids in rows]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in rows]),
    }


def joined_batches(
    tokenizer: PreTrainedTokenizerBase, rows_path: Path, samples: int, max_seq_len_tokens: int, seed: int
) -> list[Batch]:
    """The same rows one after the other, cut to pieces of one length, each a batch; but for a few last tokens all.

    For a search that compares outputs token by token: what pads a short row would count as much as the row, and
    AutoRound's own reader drops rows that are shorter than the others.
    """
    chosen = chosen_rows(rows_path, samples, seed)
    random.Random(seed).shuffle(chosen)
    tokens = [token for row in chosen for token in tokenize_row(tokenizer, row, max_seq_len_tokens).input_ids]
    # Of equal length, so that nothing is padded; what is over at the end is a few tokens.
    pieces = -(-len(tokens) // max_seq_len_tokens)
    length = len(tokens) // pieces
    return [calibration_batch([tokens[at * length : (at + 1) * length]], 0) for at in range(pieces)]
