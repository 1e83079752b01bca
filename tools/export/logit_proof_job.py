"""The merged model against base + adapter by their logits, on ordinary questions and on rows of the behaviour.

Every layer is read from the files while it computes, so a model of any size is compared in the memory of its largest
layer or head. A large one is compared through some of its layers, drawn by seed, the same in all three models and the
others left out. What the saved tensors can prove, the audit has proven by then. How far merged and base + adapter may
be apart is set against how far the adapter moves the base: a merge that never happened is off by all of that, whatever
its answers look like.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.records import TrainingRow
from tunesmith.tools.data.rows import read_rows
from tunesmith.tools.export.offloaded_model import keep_layers, offloaded_model, put_adapter
from tunesmith.tools.models.chat_template import answering_at_once
from tunesmith.tools.models.memory_math import COMPARED_POSITIONS, FP32_BELOW_PARAMETERS
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.training.rows import REHEARSAL_ORIGINS, tokenize_row

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    Progress = Callable[[float, float, str], None]

_LEAST_AGREEMENT = 0.8  # rounding to bf16 leaves 0.97 and more; a wrong scale or a missed layer falls far below
_MOST_ERROR = 0.6  # of what the adapter changes; 1 where nothing was merged
_ROWS, _TEXT_TOKENS = 3, 64
"""Of the behaviour, and of each the end: every text goes through every layer three times."""
_MOST_LAYERS = 8
"""Of a model that is not small: each is read three times, and what is merged wrongly seldom is so in one alone."""
_AT_ONCE = 16
"""Positions whose logits are compared in fp32 together."""
_QUESTIONS = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "My parcel 48213 has not arrived. What can I do?",
    "List three prime numbers.",
)
_POSITIONS = COMPARED_POSITIONS // (len(_QUESTIONS) + _ROWS)
"""At the end of each text: of a question the template and its last words, of a row its answer."""


class LogitProof(TypedDict, total=False):
    """What the comparison measured; empty where it was left out."""

    layers_compared: int
    max_logit_difference: float
    argmax_agreement: float
    update_error: float
    behaviour_rows: int
    behaviour_agreement: float
    behaviour_update_error: float


class _Texts(NamedTuple):
    """Tokens to ask for, and the positions whose logits count."""

    ids: Tensor
    """(text, seq), filled up on the right: what comes later changes nothing before it."""
    text: Tensor
    """Which text a position is of, (position,)."""
    position: Tensor
    of_questions: int
    """The first so many positions; the others are of rows."""


class _Apart(NamedTuple):
    """How far two models are from each other, and the one of them from a third."""

    largest: float
    agreement: float
    positions: int
    error: float
    """‖merged − adapter‖ ÷ ‖adapter − base‖ of the logits; 0 where the adapter changes nothing."""


# 17: the same rows when it is done again.
def behaviour_rows(dataset: Path, *, seed: int = 17) -> list[TrainingRow]:
    """A few rows of the behaviour, drawn by seed: of those held out of training where there are any."""
    for name in ("valid.jsonl", "train.jsonl"):
        if (dataset / name).is_file() and (dataset / name).stat().st_size:
            rows = [row for row in read_rows(dataset / name) if row.origin not in REHEARSAL_ORIGINS]
            if rows:
                return random.Random(seed).sample(rows, min(_ROWS, len(rows)))
    return []


def drawn_layers(shape: ModelShape) -> list[int]:
    """The layers through which logits are compared: all of a small model's, a few of a larger one's."""
    if shape.parameters < FP32_BELOW_PARAMETERS or shape.layers <= _MOST_LAYERS:
        return list(range(shape.layers))
    return sorted(random.Random(17).sample(range(shape.layers), _MOST_LAYERS))


def compare_logits(
    base_dir: Path, adapter_dir: Path, merged_dir: Path, progress: Progress, *, rows: Sequence[TrainingRow] = ()
) -> LogitProof:
    """How far the merged model is from base + adapter, on a few questions and on `rows`.

    One layer is in memory at a time; where the model is small, each of them and in fp32, so that the stored rounding is
    all that is seen. Raises StepFailed where merged lacks most of what the adapter does to the base, or, of a small
    model, where the two choose differently too often for rounding to be the reason; BadInput for a checkpoint whose
    layout is not known.
    """
    import torch
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    shape = ModelShape.of(json.loads((base_dir / "config.json").read_text()))
    small = shape.parameters < FP32_BELOW_PARAMETERS
    dtype = torch.float32 if small else torch.bfloat16
    layers = drawn_layers(shape)
    texts = _texts(AutoTokenizer.from_pretrained(base_dir), rows)
    progress(0, 3, "logits of base + adapter, layer by layer")
    with offloaded_model(base_dir, dtype, merged_dir.parent) as model:
        adapted = put_adapter(model, adapter_dir)
        keep_layers(model, layers)
        expected = _logits(model, texts)
        progress(1, 3, "logits of the base, layer by layer")
        with adapted.disable_adapter():
            base = _logits(model, texts)
    progress(2, 3, "logits of the merged model, layer by layer")
    with offloaded_model(merged_dir, dtype, merged_dir.parent) as model:
        keep_layers(model, layers)
        merged = _logits(model, texts)
    progress(3, 3, "compared")
    asked = slice(0, texts.of_questions)
    ordinary = _apart(merged[asked], expected[asked], base[asked])
    proof = LogitProof(
        layers_compared=len(layers),
        max_logit_difference=round(ordinary.largest, 6),
        argmax_agreement=round(ordinary.agreement, 6),
        update_error=round(ordinary.error, 6),
    )
    _refuse_far(ordinary, "questions", refuse_error=not rows, whole=small)
    if rows:
        written = slice(texts.of_questions, None)
        behaviour = _apart(merged[written], expected[written], base[written])
        _refuse_far(behaviour, "behaviour rows", refuse_error=True, whole=small)
        proof["behaviour_rows"] = len(rows)
        proof["behaviour_agreement"] = round(behaviour.agreement, 6)
        proof["behaviour_update_error"] = round(behaviour.error, 6)
    return proof


def _logits(model: PreTrainedModel, texts: _Texts) -> Tensor:
    """The head's output at the positions that count, before any scaling or cap that a family puts on it."""
    import torch

    with torch.inference_mode():
        # No cache: nothing is generated, and each layer's keys and values would stay.
        hidden = model.get_decoder()(input_ids=texts.ids, use_cache=False).last_hidden_state  # (text, seq, hidden)
        logits: Tensor = model.get_output_embeddings()(hidden[texts.text, texts.position])  # (position, vocab)
    return logits


def _apart(merged: Tensor, expected: Tensor, base: Tensor) -> _Apart:
    off = moved = largest = 0.0
    agreeing = 0
    for some in zip(*(logits.split(_AT_ONCE) for logits in (merged, expected, base)), strict=True):
        one, wanted, before = (logits.float() for logits in some)
        off += float((one - wanted).square().sum())
        moved += float((wanted - before).square().sum())
        largest = max(largest, float((one - wanted).abs().max()))
        agreeing += int((one.argmax(-1) == wanted.argmax(-1)).sum())
    return _Apart(largest, agreeing / len(merged), len(merged), (off / moved) ** 0.5 if moved else 0.0)


def _refuse_far(apart: _Apart, where: str, *, refuse_error: bool, whole: bool) -> None:
    """What a model without some of its layers prefers is nobody's choice: of such a one only the error counts."""
    if whole and apart.agreement < _LEAST_AGREEMENT:
        raise StepFailed(
            f"the merged model agrees with base + adapter on {apart.agreement:.0%} of {apart.positions} positions of "
            f"{where} (at least {_LEAST_AGREEMENT:.0%} is wanted); deploy the adapter unmerged and report this"
        )
    if refuse_error and apart.error > _MOST_ERROR:
        raise StepFailed(
            f"the merged model's logits on {where} are off from base + adapter by {apart.error:.0%} of what the "
            f"adapter changes (100 % is a merge that never happened, {_MOST_ERROR:.0%} the most allowed); deploy "
            "the adapter unmerged and report this"
        )


def _texts(tokenizer: PreTrainedTokenizerBase, rows: Sequence[TrainingRow]) -> _Texts:
    """Questions with the template around them, and rows cut to their last tokens: where their answers are written."""
    import torch

    asked = [[{"role": "user", "content": question}] for question in _QUESTIONS]
    options = answering_at_once(tokenizer.chat_template)
    ids = [
        tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False, **options) for chat in asked
    ]
    # Whole first, then its end: a limit cuts a row at the end, and the answer stands there.
    # no chat row is 6,400 tokens long
    ids += [tokenize_row(tokenizer, row, 100 * _TEXT_TOKENS).input_ids[-_TEXT_TOKENS:] for row in rows]
    counted = [
        (text, at) for text, tokens in enumerate(ids) for at in range(max(0, len(tokens) - _POSITIONS), len(tokens))
    ]
    longest = max(map(len, ids))
    return _Texts(
        torch.tensor([[*tokens, *([0] * (longest - len(tokens)))] for tokens in ids]),
        torch.tensor([text for text, _ in counted]),
        torch.tensor([at for _, at in counted]),
        sum(text < len(_QUESTIONS) for text, _ in counted),
    )
