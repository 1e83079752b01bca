"""The merged model against base + adapter by their logits, on ordinary questions and on rows of the behaviour.

Whole models are loaded for it, one at a time, so it is done only where they fit; what the saved tensors can prove, the
audit has proven by then. How far merged and base + adapter may be apart is set against how far the adapter moves the
base: a merge that never happened is off by all of that, whatever its answers look like.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.records import TrainingRow
from tunesmith.tools.data.row_file import read_rows
from tunesmith.tools.models.memory_math import RUNTIME_BYTES, whole_model_bytes
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.training.rows import HELD_ORIGINS, tokenize_row

if TYPE_CHECKING:
    from collections.abc import Callable

    Progress = Callable[[float, float, str], None]

_LEAST_AGREEMENT = 0.8  # rounding to bf16 leaves 0.97 and more; a wrong scale or a missed layer falls far below
_MOST_ERROR = 0.6  # of what the adapter changes; 1 where nothing was merged
_FP32_BELOW_PARAMETERS = 1_000_000_000
_ROWS, _ROW_TOKENS, _POSITIONS = 3, 96, 24
_QUESTIONS = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "My parcel 48213 has not arrived. What can I do?",
    "List three prime numbers.",
)


class LogitProof(TypedDict, total=False):
    """What the comparison measured; empty where it was left out."""

    max_logit_difference: float
    argmax_agreement: float
    update_error: float
    behaviour_rows: int
    behaviour_agreement: float
    behaviour_update_error: float


class _Text(NamedTuple):
    """Tokens to ask for, and from which position on their logits count."""

    ids: Any
    start: int


class _Apart(NamedTuple):
    """How far two models are from each other, and the one of them from a third."""

    largest: float
    agreement: float
    positions: int
    error: float
    """‖merged − adapter‖ ÷ ‖adapter − base‖ of the logits; 0 where the adapter changes nothing."""


def behaviour_rows(dataset: Path, *, seed: int = 17) -> list[TrainingRow]:
    """A few rows of the behaviour, drawn by seed: of those held out of training where there are any."""
    for name in ("valid.jsonl", "train.jsonl"):
        if (dataset / name).is_file() and (dataset / name).stat().st_size:
            rows = [row for row in read_rows(dataset / name) if row.origin not in HELD_ORIGINS]
            if rows:
                return random.Random(seed).sample(rows, min(_ROWS, len(rows)))
    return []


def logits_left_out(base_dir: Path, weight_bytes: int) -> str:
    """Why whole models are not compared, with the numbers; empty where one fits into what is free."""
    import psutil

    parameters = ModelShape.of(json.loads((base_dir / "config.json").read_text())).parameters
    in_memory = max(weight_bytes, 4 * parameters if parameters < _FP32_BELOW_PARAMETERS else 0)
    needed = RUNTIME_BYTES + whole_model_bytes(in_memory)
    free = psutil.virtual_memory().available + psutil.swap_memory().free + psutil.Process().memory_info().rss
    if needed <= free:
        return ""
    return (
        f"logits of whole models were left out: they need {needed / 2**30:.1f} GiB of RAM and swap, {free / 2**30:.1f} "
        "GiB is free; the saved tensors were proven one by one"
    )


def compare_logits(
    base_dir: Path, adapter_dir: Path, merged_dir: Path, progress: Progress, *, rows: Sequence[TrainingRow] = ()
) -> LogitProof:
    """How far the merged model is from base + adapter, on a few questions and on `rows`.

    One model is in memory at a time; in fp32 where it is small, so that the stored rounding is all that is seen. Raises
    StepFailed where the two choose differently too often for rounding to be the reason, or where merged lacks most of
    what the adapter does to the base.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    shape = ModelShape.of(json.loads((base_dir / "config.json").read_text()))
    dtype = torch.float32 if shape.parameters < _FP32_BELOW_PARAMETERS else torch.bfloat16
    tokenizer = AutoTokenizer.from_pretrained(base_dir)
    questions = [_Text(_prompt(tokenizer, question), 0) for question in _QUESTIONS]
    texts = [*questions, *(_row_text(tokenizer, row) for row in rows)]

    def logits(model: Any) -> list[Any]:
        with torch.inference_mode():
            return [model(text.ids).logits[0, text.start :].float() for text in texts]

    progress(0, 3, "logits of base + adapter")
    whole = AutoModelForCausalLM.from_pretrained(base_dir, dtype=dtype, local_files_only=True)
    adapted = PeftModel.from_pretrained(whole, adapter_dir, torch_device="cpu")
    expected = logits(adapted)
    progress(1, 3, "logits of the base")
    with adapted.disable_adapter():
        base = logits(adapted)
    del whole, adapted
    progress(2, 3, "logits of the merged model")
    merged = logits(AutoModelForCausalLM.from_pretrained(merged_dir, dtype=dtype, local_files_only=True))
    progress(3, 3, "compared")
    ordinary = _apart(*(found[: len(questions)] for found in (merged, expected, base)))
    proof = LogitProof(
        max_logit_difference=round(ordinary.largest, 6),
        argmax_agreement=round(ordinary.agreement, 6),
        update_error=round(ordinary.error, 6),
    )
    _refuse_far(ordinary, "questions", refuse_error=not rows)
    if rows:
        behaviour = _apart(*(found[len(questions) :] for found in (merged, expected, base)))
        _refuse_far(behaviour, "behaviour rows", refuse_error=True)
        proof["behaviour_rows"] = len(rows)
        proof["behaviour_agreement"] = round(behaviour.agreement, 6)
        proof["behaviour_update_error"] = round(behaviour.error, 6)
    return proof


def _apart(merged: Sequence[Any], expected: Sequence[Any], base: Sequence[Any]) -> _Apart:
    import torch

    off, moved = (
        sum(float((a - b).square().sum()) for a, b in zip(one, other, strict=True))
        for one, other in ((merged, expected), (expected, base))
    )
    equal = torch.cat([a.argmax(-1) == b.argmax(-1) for a, b in zip(expected, merged, strict=True)])
    largest = max(float((a - b).abs().max()) for a, b in zip(expected, merged, strict=True))
    return _Apart(largest, float(equal.float().mean()), len(equal), (off / moved) ** 0.5 if moved else 0.0)


def _refuse_far(apart: _Apart, where: str, *, refuse_error: bool) -> None:
    if apart.agreement < _LEAST_AGREEMENT:
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


def _prompt(tokenizer: Any, question: str) -> Any:
    messages = [{"role": "user", "content": question}]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)[
        "input_ids"
    ]


def _row_text(tokenizer: Any, row: TrainingRow) -> _Text:
    """A row cut to its last tokens: where its answer is written."""
    import torch

    ids = tokenize_row(tokenizer, row, 100 * _ROW_TOKENS).input_ids[-_ROW_TOKENS:]
    return _Text(torch.tensor([ids]), max(0, len(ids) - _POSITIONS))
