"""quantize at work: GPTQ by llm-compressor on the merged model, calibrated on training rows, proven on saved files.

Floats (FP8 and 4 bits) are rounded one by one instead, without data: the first rows go through, and nothing asks them.
Layer by layer from file to file: the peak does not grow with the model's depth, and a step that was cut off goes on
with the layer that it had reached. Where activations are quantized too, their outliers are first smoothed into the
weights behind them (SmoothQuant), in a pass of its own.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.files import atomic_write, read_manifest
from tunesmith.tools.core.format import size
from tunesmith.tools.core.job import Job
from tunesmith.tools.export.audit import CARRIED, FALLEN_BACK
from tunesmith.tools.export.audit_quantized import audit_quantized
from tunesmith.tools.export.calibration import Batch, calibration_batches, chosen_rows, joined_batches
from tunesmith.tools.export.dry_load_job import refuse_unservable
from tunesmith.tools.export.layer_stream import describe_quantization, stream_layers
from tunesmith.tools.export.quantize import LearnedScales, QuantizeRequest, QuantizeResult, grid_of
from tunesmith.tools.export.rounding_recipes import (
    QUANTIZING,
    SMOOTHING,
    carried_by,
    fallbacks_in,
    note_fallbacks,
    recipes,
    unpinned,
    way_of,
)
from tunesmith.tools.export.scale_distillation import HELD_OUT_ROWS, LEARNED, LearnFrom, distil_scales
from tunesmith.tools.export.sensitivity import FILE, SENSITIVITY_ROWS, Sensitivity, by_name
from tunesmith.tools.export.sensitivity_job import measured_sensitivity
from tunesmith.tools.export.streamed_weights import StreamedWeights
from tunesmith.tools.machine.device import computes_on_cpu, need_priced_device
from tunesmith.tools.machine.memory_left import memory_left_bytes, stalled_percent
from tunesmith.tools.models.full_precision import Proof, assert_full_precision, kept_layers
from tunesmith.tools.models.memory_math import group_size_for, quantize_cache_bytes, quantize_memory_bytes
from tunesmith.tools.models.rounding_terms import MEASURED, SEARCHING, Rounding
from tunesmith.tools.models.scale_learning_math import ROWS_A_STEP
from tunesmith.tools.models.schemes import SCHEMES
from tunesmith.tools.models.tensor_file import weight_files
from tunesmith.tools.training.rows import tokenize_row

if TYPE_CHECKING:
    from llmcompressor.modifiers import Modifier


Progress = Callable[[float, float, str], None]

_GIB = 1 << 30
FALLBACKS = "fallbacks.json"
_RESERVE_BYTES = 256 << 20  # below this the kernel's killer is near: better to stop with a reason
_MOST_STALLED_PERCENT = 50.0


def run(job: Job[QuantizeRequest]) -> QuantizeResult:
    """Quantize the merged model, prove what had to stay full precision, and publish it."""
    need_priced_device(job)
    merged, dataset, request = job.verified("merged"), job.verified("dataset"), job.request
    config = json.loads((merged.path / "config.json").read_text())
    group = chosen_group_size(config, request.scheme, request.group_size, request.keep)
    out_dir, measured = job.dir / "quantized", job.dir / FILE
    share = request.keep_share if MEASURED in request.keep else 0.0
    if read_manifest(out_dir) is None:
        refuse_unservable(job, merged.path, config, group, quantize_with)
        quantize_model(
            merged.path,
            dataset.path / "train.jsonl",
            out_dir,
            scheme=request.scheme,
            group_size=group,
            samples=request.calibration_samples,
            max_seq_len_tokens=request.max_seq_len_tokens,
            seed=request.seed,
            keep=by_name(request.keep),
            rounding=request.rounding,
            distil_steps=request.distil_steps,
            keep_share=share,
            measured=measured,
            progress=job.progress,
        )
    exceptions = exceptions_of(measured, share)
    keep = (*by_name(request.keep), *exceptions)
    proof = assert_full_precision(out_dir, kept_layers(config, keep))
    job.progress(0, 1, "auditing the saved tensors")
    audit = audit_quantized(out_dir, merged.path, keep, group_size=group, against=merged.id, rounding=request.rounding)
    fallbacks = fallbacks_in(work_folder(out_dir) / FALLBACKS)
    audit = audit.model_copy(update={"fallbacks": len(fallbacks)})
    job.log(audit.summary)
    if audit.refusal:
        raise StepFailed(f"{audit.refusal}; quantize again, or deploy the merged model")
    meta = {**dict(merged.meta), "scheme": request.scheme, "group_size": group, "merged": merged.id}
    meta |= {"kept_measured": list(exceptions)} if exceptions else {}
    meta |= {FALLEN_BACK: len(fallbacks)} if fallbacks else {}
    learned = work_folder(out_dir) / LEARNED
    scales = LearnedScales.model_validate_json(learned.read_bytes()) if learned.is_file() else None
    artifact = job.publish("quantized", out_dir, meta=meta)
    shutil.rmtree(work_folder(out_dir), ignore_errors=True)
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
        learned_scales=scales,
        kept_measured=exceptions,
        fallbacks=fallbacks,
    )


def exceptions_of(measured: Path, share: float) -> tuple[str, ...]:
    """The layers that stay at 16 bits by what was measured; none without a share."""
    return Sensitivity.model_validate_json(measured.read_bytes()).exceptions(share) if share else ()


def chosen_group_size(config: dict[str, Any], scheme: str, asked: int, keep: Sequence[str] = ()) -> int:
    """The group size that will be used; 0: one scale per output channel, as 8-bit schemes have unless asked.

    Raises StepFailed for one that does not divide the inputs of every layer, or is not the format's own, and for a
    format whose blocks the layers do not fill.
    """
    kind = SCHEMES[scheme]
    if misfit := kind.misfit(config, keep):
        raise StepFailed(misfit)
    if asked in (0, kind.columns):
        return kind.group_of(config)
    if kind.smooths or kind.codes:
        raise StepFailed(f"{scheme} has one scale for {kind.shared}; set group_size=0")
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
    rounding: Rounding = "gptq",
    distil_steps: int = 0,
    keep_share: float = 0.0,
    measured: Path | None = None,
) -> Proof:
    """Quantize `model_dir` into `out_dir` as compressed-tensors safetensors that vLLM serves.

    Goes on where the same work was cut off; `work_folder(out_dir)` holds what that takes, and may go once `out_dir` is
    sealed. With `keep_share` the weights that stay besides are chosen by what the file `measured` says, which is made
    first where it is not there. Raises StepFailed before anything is loaded when memory or disk would not do, and
    between layers when memory runs low.
    """
    config = json.loads((model_dir / "config.json").read_text())
    smooths, way = SCHEMES[scheme].smooths, way_of(scheme, rounding)
    _need_room(model_dir, config, out_dir, samples, max_seq_len_tokens, smooths=smooths, rounding=way)
    progress(0, 1, "reading the calibration rows")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    batched = joined_batches if way in SEARCHING else calibration_batches
    batches = batched(tokenizer, rows_path, samples, max_seq_len_tokens, seed)
    learn = None
    if distil_steps:
        files = {rows_path: distil_steps * ROWS_A_STEP, rows_path.with_name("valid.jsonl"): HELD_OUT_ROWS}
        rows, held_out = (
            [tokenize_row(tokenizer, row, max_seq_len_tokens) for row in chosen_rows(file, most, seed)]
            if file.stat().st_size
            else []
            for file, most in files.items()
        )
        learn = LearnFrom(rows, held_out, distil_steps)
    with out_of_memory_named(max_seq_len_tokens):
        if keep_share and measured is not None:
            [few, *_] = calibration_batches(tokenizer, rows_path, SENSITIVITY_ROWS, max_seq_len_tokens, seed)
            kept = kept_layers(config, keep)
            found = measured_sensitivity(model_dir, few, group_size, kept, measured, progress)
            keep = (*keep, *found.exceptions(keep_share))
        return quantize_with(
            batches,
            model_dir,
            out_dir,
            scheme=scheme,
            group_size=group_size,
            keep=keep,
            rounding=rounding,
            learn=learn,
            progress=progress,
        )


def quantize_with(
    batches: Sequence[Batch],
    model_dir: Path,
    out_dir: Path,
    *,
    scheme: str,
    group_size: int,
    progress: Progress,
    keep: Sequence[str] = (),
    rounding: Rounding = "gptq",
    learn: LearnFrom | None = None,
) -> Proof:
    """The same, calibrated on batches of token ids that are there already.

    With `learn`, what learning the scales did is said in the file LEARNED of the work folder.
    """
    import llmcompressor  # noqa: F401  which turns its own logging on when it is imported
    from loguru import logger
    from transformers.utils import logging

    logging.disable_progress_bar()
    logger.disable("llmcompressor")  # four lines per layer and matrix
    config, way = json.loads((model_dir / "config.json").read_text()), way_of(scheme, rounding)
    work = work_folder(out_dir)
    settings = {"model": _identity(model_dir), "batches": _digest(batches), "scheme": scheme,
                "group_size": group_size, "keep": list(keep), "rounding": rounding}  # fmt: skip
    _start_or_go_on(work, out_dir, settings | ({"learn": learn.digest()} if learn else {}))
    if computes_on_cpu():
        from tunesmith.tools.cpu.freed_memory import return_large_blocks
        from tunesmith.tools.cpu.gptq_blocks import use_fast_blocks

        use_fast_blocks()
        return_large_blocks()
    source, length = model_dir, batches[0]["input_ids"].shape[1]
    # One after the other: GPTQ has to see the activations as the smoothing leaves them.
    for doing, recipe in recipes(scheme, group_size, config, keep, rounding, row_tokens=length):
        target = out_dir if doing == QUANTIZING and learn is None else work / doing
        if not (target / "config.json").exists():
            _stream(source, target, work, recipe, batches, LayerWatch(doing, progress), way)
        source = target
    if learn is not None and not (out_dir / "config.json").exists():
        distil_scales(source, model_dir, out_dir, learn, work / LEARNED, progress)
    progress(1, 1, "saving the quantized model")
    for name in CARRIED:
        if (model_dir / name).is_file():
            shutil.copyfile(model_dir / name, out_dir / name)
    for folder in [path for path in work.iterdir() if path.is_dir()]:
        shutil.rmtree(folder)  # what is left are small files
    return assert_full_precision(out_dir, kept_layers(config, keep))


def work_folder(out_dir: Path) -> Path:
    """Where what is needed to go on lies, beside the model that is made."""
    return out_dir.with_name(f"{out_dir.name}.work")


def _stream(
    source: Path,
    target: Path,
    work: Path,
    recipe: Sequence[Modifier],
    batches: Sequence[Batch],
    watch: LayerWatch,
    rounding: Rounding,
) -> None:
    """One pass of modifiers over the layers of a model; the config comes last, so its presence means the whole."""
    import torch

    smooths = watch.doing == SMOOTHING
    target.mkdir(parents=True, exist_ok=True)
    for unfinished in target.glob(".*"):  # files that had no name yet when the step was cut off
        unfinished.unlink()
    weights = StreamedWeights(
        source, torch.device("cpu" if computes_on_cpu() else "cuda"), separate_experts=not smooths
    )
    # One pass is enough through a smoothed layer, which computes what it did before, and where no later weight makes up
    # for an earlier one's rounding. The nearest step asks nothing of the rows: the first of them do. AutoRound is given
    # what the merged model computes, and carries what the rounded layers make of it itself.
    rows = batches[:1] if rounding == "nearest" and not smooths else batches
    cache, changed = work / f"{watch.doing}.activations", rounding == "gptq" and not smooths
    with unpinned():
        stream_layers(
            weights, rows, recipe, target, cache, hand_on_changed=changed, watch=watch, carried=carried_by(recipe),
            after_layer=partial(note_fallbacks, recipe, work / FALLBACKS),
        )  # fmt: skip
    described = work / "described"
    described.mkdir(exist_ok=True)
    shutil.copyfile(source / "config.json", described / "config.json")
    if not smooths:
        describe_quantization(weights.model, described)
        shutil.copyfile(described / "recipe.yaml", target / "recipe.yaml")
    atomic_write(target / "config.json", (described / "config.json").read_bytes())


def _start_or_go_on(work: Path, out_dir: Path, settings: dict[str, object]) -> None:
    """Keep what an earlier attempt at the very same work left; remove what any other left."""
    file = work / "settings.json"
    text = json.dumps(settings, indent=1, sort_keys=True)
    if not (file.is_file() and file.read_text() == text):
        for folder in (out_dir, work):
            shutil.rmtree(folder, ignore_errors=True)
        atomic_write(file, text)


def _identity(folder: Path) -> str:
    """What tells this model from any other: its seal, or names and sizes where it has none."""
    if manifest := read_manifest(folder):
        return manifest["sha256"]
    return ", ".join(f"{path.name} {path.stat().st_size}" for path in weight_files(folder))


def _digest(batches: Sequence[Batch]) -> str:
    """Of the calibration tokens."""
    tokens = [{name: tensor.tolist() for name, tensor in batch.items()} for batch in batches]
    return hashlib.sha256(json.dumps(tokens, sort_keys=True).encode()).hexdigest()


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


class LayerWatch:
    """Progress per layer, and a stop between batches, with the number, before memory is gone."""

    def __init__(self, doing: str, progress: Progress) -> None:
        self.doing = doing
        self._progress, self._told = progress, 0

    def __call__(self, layer: int, layers: int) -> None:
        """Raises StepFailed where the kernel's killer is near, or nothing but waiting for memory gets done."""
        if layer != self._told:
            self._told = layer
            self._progress(layer - 1, layers, f"{self.doing} layer {layer} of {layers}")
        left, stalled = memory_left_bytes(), stalled_percent()
        if left >= _RESERVE_BYTES and stalled < _MOST_STALLED_PERCENT:
            return
        why = f"{left >> 20} MiB of memory are left"
        if stalled >= _MOST_STALLED_PERCENT:
            why = f"everything waited for memory {stalled:.0f} % of the last ten seconds"
        raise StepFailed(
            f"stopped at layer {layer} of {layers}: {why}; {layer - 1} finished layers are kept: stop another program, "
            "or start in a larger control group, and resume, or quantize anew with a smaller max_seq_len_tokens"
        )


def _need_room(
    model_dir: Path, config: dict[str, Any], out_dir: Path, samples: int, max_seq_len_tokens: int,
    *, smooths: bool, rounding: Rounding,
) -> None:  # fmt: skip
    on_gpu = not computes_on_cpu()
    need = quantize_memory_bytes(
        config, seq_len_tokens=max_seq_len_tokens, on_gpu=on_gpu, rounding=rounding, samples=samples
    )
    free = memory_left_bytes()
    if need > free:
        raise StepFailed(
            f"needs {need / _GIB:.1f} GiB of RAM and swap, {free / _GIB:.1f} GiB free; "
            f"try max_seq_len_tokens={max(max_seq_len_tokens // 2, 16)}, or stopping another program"
        )
    need_disk = quantize_cache_bytes(config, samples=samples, seq_len_tokens=max_seq_len_tokens, rounding=rounding)
    weights = sum(file.stat().st_size for file in model_dir.glob("*.safetensors"))
    need_disk += weights * (2 if smooths else 1)  # smoothing writes a whole model in between
    for folder in (out_dir, work_folder(out_dir) / SMOOTHING):  # what is there need not be written again
        need_disk -= sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    free_disk = shutil.disk_usage(out_dir.parent).free
    if need_disk > free_disk:
        raise StepFailed(f"needs {size(need_disk)} of disk, {size(free_disk)} free at {out_dir.parent}; make room")
