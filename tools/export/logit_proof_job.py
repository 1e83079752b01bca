"""The merged model against base + adapter as peft takes it in: weight by weight, then by what their logits say.

One weight of hundreds moves logits by less than rounding. So values of every adapted weight, drawn by seed, are held
against the base's plus peft's own factors at peft's own scale, rounded as the merged ones are: a weight that was left
out, or merged at another scale, is off by half of its change and more, one merged right by next to nothing.

What is left is what rounding costs, and that logits tell, on ordinary questions and on rows of the behaviour: the share
of the adapter's change that the merged model makes. Every layer is read from the files while it computes, so a model of
any size is compared in the memory of its largest layer or head. A large one computes as it is stored, through some of
its layers, drawn by seed, the same in all three models and the others left out.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.records import TrainingRow
from tunesmith.tools.data.rows import read_rows
from tunesmith.tools.export.lora_update import lora_scale
from tunesmith.tools.export.offloaded_model import keep_layers, offloaded_model, put_adapter, stored_weights
from tunesmith.tools.models.chat_template import answering_at_once
from tunesmith.tools.models.memory_math import COMPARED_POSITIONS, FP32_BELOW_PARAMETERS
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.training.rows import REHEARSAL_ORIGINS, tokenize_row

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    Progress = Callable[[float, float, str], None]

_MOST_WEIGHT_ERROR = 0.3
"""Of an adapter's change of the drawn values of a weight. Measured on trained and random adapters: 0.19 at most where
the merge was right, 0.5 at least at half the scale or one and a half, 1 and more for a weight left out or exchanged."""
_LEAST_SHARE, _MOST_ERROR = 0.6, 0.6
"""Of the adapter's change of the logits: rounding leaves 0.74 of three steps' training and 0.97 of twenty's."""
_LEAST_SHARE_IN_BF16 = 0.25
"""Of a large model: where bf16's rounding as it computes is all that is seen, the share is 0.5, as the base's is in
both changes, and the error about 1. So only a share near 0 is refused, that of a merge that never happened."""
_DRAWN, _DRAWN_OF_AN_EXPERT = 64, 16
"""Rows, and columns, of a weight whose values are compared."""
_SLACK = 2e-6
"""Of a value: two sums of the same few numbers in fp32 may differ by that."""
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


class _Texts(NamedTuple):
    """Tokens to ask for, and the positions whose logits count."""

    ids: Tensor
    """(text, seq), filled up on the right: what comes later changes nothing before it."""
    text: Tensor
    """Which text a position is of, (position,)."""
    position: Tensor


class _Values(NamedTuple):
    """Some of an adapted weight's, in a few rows and columns; of each expert where it holds several."""

    at: tuple[Any, Tensor, Tensor]
    """Of all experts, rows, columns."""
    base: Tensor
    adapted: Tensor


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
    most = shape.layers if shape.parameters < FP32_BELOW_PARAMETERS else _MOST_LAYERS
    return sorted(random.Random(17).sample(range(shape.layers), min(most, shape.layers)))


def compare_logits(
    base_dir: Path, adapter_dir: Path, merged_dir: Path, progress: Progress, *, rows: Sequence[TrainingRow] = ()
) -> dict[str, Any]:
    """How far the merged model is from base + adapter: in every adapted weight, and on a few questions and `rows`.

    The figures are `MergeResult`'s. One layer is in memory at a time; of a small model each of them, and in fp32, so
    that the stored rounding is all that is seen. Raises StepFailed for a weight, by its name, that is not base +
    update, and where rounding leaves too little of what the adapter does; BadInput for a layout that is not known.
    """
    import torch
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    shape = ModelShape.of(json.loads((base_dir / "config.json").read_text()))
    small = shape.parameters < FP32_BELOW_PARAMETERS
    # A large one as it is stored: where its weights were rounded first, they could not be compared.
    dtype: torch.dtype | str = torch.float32 if small else "auto"
    layers = drawn_layers(shape)
    texts = _texts(AutoTokenizer.from_pretrained(base_dir), rows)
    progress(0, 3, "logits of base + adapter, layer by layer")
    with offloaded_model(base_dir, dtype, merged_dir.parent) as model:
        stored = stored_weights(model)
        adapted = put_adapter(model, adapter_dir)
        drawn = _drawn_values(adapted, stored, adapter_dir)
        keep_layers(model, layers)
        expected = _logits(model, texts)
        progress(1, 3, "logits of the base, layer by layer")
        with adapted.disable_adapter():
            base = _logits(model, texts)
    progress(2, 3, "logits of the merged model, layer by layer")
    with offloaded_model(merged_dir, dtype, merged_dir.parent) as model:
        weight_error = _refuse_other_values(stored_weights(model), drawn)
        keep_layers(model, layers)
        merged = _logits(model, texts)
    progress(3, 3, "compared")
    change = _change(merged, expected, base)
    share, error = change["update_share"], change["update_error"]
    least, most = (_LEAST_SHARE, _MOST_ERROR) if small else (_LEAST_SHARE_IN_BF16, float("inf"))
    if not (share >= least and error <= most):  # in weights that are right, but for their rounding
        raise StepFailed(
            f"the merged model does {share:.0%} of what the adapter does to the logits (at least {least:.0%} is "
            f"wanted) and is off from it by {error:.0%}: rounding takes away so small an update; deploy the adapter "
            "unmerged, or train longer"
        )
    return {"weight_error": weight_error, "layers_compared": len(layers), "behaviour_rows": len(rows), **change}


def _logits(model: PreTrainedModel, texts: _Texts) -> Tensor:
    """The head's output at the positions that count, before any scaling or cap that a family puts on it."""
    import torch

    with torch.inference_mode():
        # No cache: nothing is generated, and each layer's keys and values would stay.
        hidden = model.get_decoder()(input_ids=texts.ids, use_cache=False).last_hidden_state  # (text, seq, hidden)
        logits: Tensor = model.get_output_embeddings()(hidden[texts.text, texts.position])  # (position, vocab)
    return logits


def _drawn_values(adapted: PeftModel, stored: Mapping[str, Tensor], adapter: Path) -> dict[str, _Values]:
    """Name of each adapted weight in the base → some of its values.

    Raises StepFailed where peft scales an update otherwise than the merge does.
    """
    import torch
    from peft.tuners.lora.layer import LoraLayer, ParamWrapper

    config, draw = json.loads((adapter / "adapter_config.json").read_text()), torch.Generator().manual_seed(17)
    drawn = {}
    for path, module in adapted.get_base_model().named_modules():
        if not isinstance(module, LoraLayer):
            continue
        # A module with several adapted parameters is wrapped once for each, one around the other.
        owner, scale = path.partition(".base_layer")[0], module.scaling["default"]
        if isinstance(module, ParamWrapper):
            owner = name = f"{owner}.{module.parameter_name}"
            b, a, _ = module.get_delta_factors("default")
        else:
            name, b, a = f"{owner}.weight", module.lora_B["default"].weight, module.lora_A["default"].weight
        if scale != (ours := lora_scale(config, owner, module.r["default"])):
            raise StepFailed(
                f"peft adds {scale:g} times B·A to {name}, the merge {ours:g} times; deploy the adapter unmerged and "
                "report this"
            )
        weight = stored[name]
        most = _DRAWN if weight.ndim == 2 else _DRAWN_OF_AN_EXPERT
        rows, columns = (torch.randperm(size, generator=draw)[:most] for size in weight.shape[-2:])
        at = (..., rows[:, None], columns)
        base = weight[at].float()
        update = b.detach()[..., rows, :].float() @ a.detach()[..., columns].float()
        drawn[name] = _Values(at, base, base + scale * update)
    return drawn


def _refuse_other_values(stored: Mapping[str, Tensor], drawn: Mapping[str, _Values]) -> float:
    """The error of the merged weight that is furthest off. Raises StepFailed where that is more than rounding."""
    error, name = max((_error(stored[name], values), name) for name, values in drawn.items())
    if error > _MOST_WEIGHT_ERROR:
        raise StepFailed(
            f"the merged {name} is off from base + adapter by {error:.0%} of what the adapter changes in it "
            f"({_MOST_WEIGHT_ERROR:.0%} at most is rounding); deploy the adapter unmerged and report this"
        )
    return round(error, 6)


def _error(weight: Tensor, values: _Values) -> float:
    """‖merged − adapted‖ ÷ ‖adapted − base‖ of the drawn values; of several experts the largest."""
    import torch

    merged, narrow = weight[values.at].float(), (torch.bfloat16, torch.float16)
    # In the type that it is stored in, which rounds the update.
    dtype = next((dtype for dtype in narrow if merged.equal(merged.to(dtype).float())), torch.float32)
    adapted = values.adapted.to(dtype).float()
    off = ((merged - adapted).abs() - _SLACK * adapted.abs()).clamp(min=0).norm(dim=(-2, -1))
    return float(torch.where(off > 0, off / (adapted - values.base).norm(dim=(-2, -1)), off).max())


def _change(merged: Tensor, expected: Tensor, base: Tensor) -> dict[str, float]:
    """What the merged model makes of the base's logits, set against what the adapter makes of them.

    The share is ⟨merged − base, adapter − base⟩ ÷ ‖adapter − base‖², the error ‖merged − adapter‖ ÷ ‖adapter − base‖.
    """
    off = moved = along = agreeing = 0.0
    for some in zip(*(logits.split(_AT_ONCE) for logits in (merged, expected, base)), strict=True):
        one, wanted, before = (logits.float() for logits in some)
        update = wanted - before
        off += float((one - wanted).square().sum())
        moved += float(update.square().sum())
        along += float(((one - before) * update).sum())
        agreeing += float((one.argmax(-1) == wanted.argmax(-1)).sum())
    share, error = (along / moved, (off / moved) ** 0.5) if moved else (1.0, 0.0)
    figures = {"update_share": share, "update_error": error, "argmax_agreement": agreeing / len(merged)}
    return {name: round(figure, 6) for name, figure in figures.items()}


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
    )
