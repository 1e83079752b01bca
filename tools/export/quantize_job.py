"""quantize at work: GPTQ by llm-compressor on the merged model, calibrated on training rows, proven on saved files.

Where activations are quantized too, their outliers are first smoothed into the weights behind them (SmoothQuant).
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.files import read_manifest
from tunesmith.tools.core.job import Job
from tunesmith.tools.data.row_file import read_rows
from tunesmith.tools.export.audit import CARRIED
from tunesmith.tools.export.audit_quantized import audit_quantized
from tunesmith.tools.export.quantize import BATCH_ROWS, QuantizeRequest, QuantizeResult, grid_of
from tunesmith.tools.machine.device import computes_on_cpu, need_priced_device
from tunesmith.tools.models.full_precision import Proof, assert_full_precision, kept_layers
from tunesmith.tools.models.memory_math import group_size_for, quantize_memory_bytes
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.training.rows import HELD_ORIGINS, tokenize_row

Progress = Callable[[float, float, str], None]

_GIB = 1 << 30
_RESERVE_BYTES = 256 << 20  # below this the kernel's killer is near: better to stop with a reason
_SMOOTHING, _QUANTIZING = "smoothing", "quantizing"
# Norms that smoothing may scale, by `model_type`: every layer that reads one is scaled back, so the model computes the
# same. A norm of (1 + weight) would not; nor may a router read smoothed activations, so of a mixture attention alone.
_ATTENTION_NORM = (["re:.*self_attn.q_proj", "re:.*self_attn.k_proj", "re:.*self_attn.v_proj"], "re:.*input_layernorm")
_MLP_NORM = (["re:.*mlp.gate_proj", "re:.*mlp.up_proj"], "re:.*post_attention_layernorm")
_SMOOTHED = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), (_ATTENTION_NORM, _MLP_NORM)),
    **dict.fromkeys(("mixtral", "qwen2_moe", "qwen3_moe"), (_ATTENTION_NORM,)),
}
# Measured on the bundled model: KL to the merged one 0.016 a token; 0.019 at 0.5, 0.034 unsmoothed.
_SMOOTHING_STRENGTH = 0.8


def run(job: Job[QuantizeRequest]) -> QuantizeResult:
    """Quantize the merged model, prove what had to stay full precision, and publish it."""
    need_priced_device(job)
    merged, dataset, request = job.verified("merged"), job.verified("dataset"), job.request
    config = json.loads((merged.path / "config.json").read_text())
    group = chosen_group_size(config, request.scheme, request.group_size)
    out_dir = job.dir / "quantized"
    if read_manifest(out_dir) is None:
        quantize_model(
            merged.path,
            dataset.path / "train.jsonl",
            out_dir,
            scheme=request.scheme,
            group_size=group,
            samples=request.calibration_samples,
            max_seq_len_tokens=request.max_seq_len_tokens,
            seed=request.seed,
            keep=request.keep,
            progress=job.progress,
        )
    proof = assert_full_precision(out_dir, kept_layers(config, request.keep))
    job.progress(0, 1, "auditing the saved tensors")
    audit = audit_quantized(out_dir, merged.path, request.keep, group_size=group, against=merged.id)
    job.log(audit.summary)
    if audit.refusal:
        raise StepFailed(f"{audit.refusal}; quantize again, or deploy the merged model")
    meta = {**dict(merged.meta), "scheme": request.scheme, "group_size": group, "merged": merged.id}
    artifact = job.publish("quantized", out_dir, meta=meta)
    return QuantizeResult(
        artifact=artifact.id,
        path=str(out_dir),
        bytes=artifact.bytes,
        bytes_before=merged.bytes,
        scheme=request.scheme,
        group_size=group,
        full_precision=proof.full_precision,
        quantized_layers=proof.quantized_layers,
        audit=audit,
        update_on_grid=grid_of(request, job.store, merged),
    )


def chosen_group_size(config: dict[str, Any], scheme: str, asked: int) -> int:
    """The group size that will be used; 0: one scale per output channel, as 8-bit schemes have unless asked.

    Raises StepFailed for one that does not divide the inputs of every layer.
    """
    if asked == 0:
        return group_size_for(config) if scheme == "W4A16" else 0
    if scheme == "W8A8":
        raise StepFailed("W8A8 has one scale per output channel; set group_size=0")
    if group_size_for(config, asked) != asked:
        fitting = group_size_for(config) or "0 (per channel)"
        raise StepFailed(f"group_size={asked} does not divide every layer of this model; try group_size={fitting}")
    return asked


def quantize_model(
    model_dir: Path,
    rows_path: Path,
    out_dir: Path,
    *,
    scheme: str,
    group_size: int,
    samples: int,
    max_seq_len_tokens: int,
    seed: int,
    progress: Progress,
    keep: Sequence[str] = (),
) -> Proof:
    """Quantize `model_dir` into `out_dir` as compressed-tensors safetensors that vLLM serves.

    Raises StepFailed before anything is loaded when memory or disk would not do, and in mid-run when memory runs low.
    """
    config = json.loads((model_dir / "config.json").read_text())
    _need_room(model_dir, config, out_dir, samples, max_seq_len_tokens)
    progress(0, 1, "loading llm-compressor")
    from llmcompressor import oneshot
    from loguru import logger
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    logger.disable("llmcompressor")  # four lines per layer and matrix
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    batches = calibration_batches(tokenizer, rows_path, samples, max_seq_len_tokens, seed)
    progress(0, 1, "loading the merged model")
    model = _load(model_dir, config)
    if computes_on_cpu():
        from tunesmith.tools.cpu.gptq_blocks import use_fast_blocks

        use_fast_blocks()
    # One after the other: GPTQ has to see the activations as the smoothing leaves them.
    for doing, recipe in _recipes(scheme, group_size, config, keep):
        watch = _LayerWatch(model, doing, progress)
        with out_of_memory_named(max_seq_len_tokens):
            oneshot(
                model=model,
                tokenizer=tokenizer,
                dataset=batches,
                recipe=recipe,
                num_calibration_samples=samples,
                pipeline="sequential",
                # A smoothed layer computes what it did before, so that one pass through it is enough.
                propagate_error=doing != _SMOOTHING,
            )
        watch.close()
    progress(1, 1, "saving the quantized model")
    shutil.rmtree(out_dir, ignore_errors=True)
    model.save_pretrained(out_dir, save_compressed=True)
    for name in CARRIED:
        if (model_dir / name).is_file():
            shutil.copyfile(model_dir / name, out_dir / name)
        else:
            (out_dir / name).unlink(missing_ok=True)  # transformers' defaults in place of nothing
    return assert_full_precision(out_dir, kept_layers(config, keep))


@contextmanager
def out_of_memory_named(max_seq_len_tokens: int) -> Iterator[None]:
    """Raise StepFailed, with what to try, where the GPU's memory runs out."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).splitlines()[0][:120] if str(error) else "no size given"
        raise StepFailed(
            f"out of VRAM at max_seq_len_tokens={max_seq_len_tokens} ({reason}); stop what else uses the GPU "
            f"(nvidia-smi lists it), try max_seq_len_tokens={max(max_seq_len_tokens // 2, 16)}, or quantize on the CPU "
            "with CUDA_VISIBLE_DEVICES= (empty)"
        ) from error


def calibration_batches(tokenizer: Any, rows_path: Path, samples: int, max_seq_len_tokens: int, seed: int) -> Any:
    """A DataLoader of padded batches of rendered rows, drawn by seed; rows of like length share a batch.

    Half of them are rehearsal where there are enough: what the behaviour's rows never touch would round away unseen.
    """
    import torch
    from torch.utils.data import DataLoader

    rows = read_rows(rows_path)
    draw = random.Random(seed)
    draw.shuffle(rows)
    rehearsal = [row for row in rows if row.origin in HELD_ORIGINS][: samples // 2]
    chosen = [*rehearsal, *(row for row in rows if row not in rehearsal)][:samples]
    tokens = [tokenize_row(tokenizer, row, max_seq_len_tokens).input_ids for row in chosen]
    tokens.sort(key=len)

    def collate(group: list[list[int]]) -> dict[str, Any]:
        width = max(len(ids) for ids in group)
        padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        return {
            "input_ids": torch.tensor([ids + [padding] * (width - len(ids)) for ids in group]),
            "attention_mask": torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in group]),
        }

    return DataLoader(tokens, batch_size=BATCH_ROWS, shuffle=False, collate_fn=collate)


def _load(model_dir: Path, config: dict[str, Any]) -> Any:
    """The model in its stored precision; experts of a mixture as separate linear layers, so that each is quantized."""
    from llmcompressor.modeling.moe.linearize import load_quantizable_moe
    from transformers import AutoModelForCausalLM

    options = {"dtype": "auto", "local_files_only": True}
    if not ModelShape.of(config).experts:
        return AutoModelForCausalLM.from_pretrained(model_dir, **options)
    with _listable_modules(), load_quantizable_moe():
        return AutoModelForCausalLM.from_pretrained(model_dir, **options)


@contextmanager
def _listable_modules() -> Iterator[None]:
    """Hide the modules of transformers that cannot be listed without torchvision.

    Replacing expert classes lists every one of them, and its old aliases of image processors import it when listed.
    """
    hidden = {}
    for name, module in list(sys.modules.items()):
        if name.startswith("transformers."):
            try:
                dir(module)
            except ImportError:
                hidden[name] = sys.modules.pop(name)
    try:
        yield
    finally:
        sys.modules.update(hidden)


def _recipes(
    scheme: str, group_size: int, config: dict[str, Any], keep: Sequence[str] = ()
) -> Iterator[tuple[str, list[Any]]]:
    """What is done to the model, in order: a word for the progress, and the modifiers."""
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

    inputs = None
    if scheme == "W8A8":
        inputs = QuantizationArgs(num_bits=8, type="int", symmetric=True, strategy="token", dynamic=True)
        if mappings := _SMOOTHED.get(str(config.get("model_type"))):
            yield _SMOOTHING, [SmoothQuantModifier(smoothing_strength=_SMOOTHING_STRENGTH, mappings=list(mappings))]
    strategy = {"strategy": "group", "group_size": group_size} if group_size else {"strategy": "channel"}
    weights = QuantizationArgs(num_bits=4 if scheme == "W4A16" else 8, type="int", symmetric=True, **strategy)
    group = QuantizationScheme(targets=["Linear"], weights=weights, input_activations=inputs)
    ignore = list(kept_layers(config, keep))
    # Layers of one shape and block are quantized together: the column loop is Python, its cost is per call.
    yield _QUANTIZING, [GPTQModifier(config_groups={"group_0": group}, ignore=ignore, batched_quantization=8)]


class _LayerWatch:
    """Progress per decoder layer while calibration runs, and a stop with a reason before memory is gone."""

    def __init__(self, model: Any, doing: str, progress: Progress) -> None:
        layers = model.get_decoder().layers
        self._doing = doing
        self._reached, self._total, self._progress = 0, len(layers), progress
        self._hooks = [
            layer.register_forward_pre_hook(lambda *_, number=number: self._reach(number))
            for number, layer in enumerate(layers)
        ]

    def _reach(self, number: int) -> None:
        import psutil

        if number < self._reached:
            return
        self._reached = number + 1
        self._progress(number, self._total, f"{self._doing} layer {number + 1} of {self._total}")
        free = psutil.virtual_memory().available + psutil.swap_memory().free
        if free < _RESERVE_BYTES:
            raise StepFailed(
                f"memory is nearly gone at layer {number + 1} of {self._total} ({free >> 20} MiB left); "
                "try fewer calibration_samples or a smaller max_seq_len_tokens"
            )

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()


def _need_room(model_dir: Path, config: dict[str, Any], out_dir: Path, samples: int, max_seq_len_tokens: int) -> None:
    import psutil

    need = quantize_memory_bytes(config, samples=samples, seq_len_tokens=max_seq_len_tokens)
    free = psutil.virtual_memory().available + psutil.swap_memory().free
    if need > free:
        raise StepFailed(
            f"needs {need / _GIB:.1f} GiB of RAM and swap, {free / _GIB:.1f} GiB free; "
            "try fewer calibration_samples, a smaller max_seq_len_tokens, or more swap"
        )
    need_disk = sum(file.stat().st_size for file in model_dir.glob("*.safetensors"))
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    free_disk = shutil.disk_usage(out_dir.parent).free
    if need_disk > free_disk:
        raise StepFailed(
            f"needs {need_disk / _GIB:.1f} GiB of disk, {free_disk / _GIB:.1f} GiB free at {out_dir.parent}; make room"
        )
