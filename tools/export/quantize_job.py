"""quantize at work: GPTQ by llm-compressor on the merged model, calibrated on training rows, proven on saved files.

Floats (FP8 and 4 bits) are rounded one by one instead, without data: the first rows go through, and nothing asks them.
Layer by layer from file to file: the peak does not grow with the model's depth, and a step that was cut off goes on
with the layer that it had reached. Where activations are quantized too, their outliers are first smoothed into the
weights behind them (SmoothQuant), in a pass of its own.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.files import atomic_write, read_manifest
from tunesmith.tools.core.format import size
from tunesmith.tools.core.job import Job
from tunesmith.tools.export.audit import CARRIED, FALLEN_BACK
from tunesmith.tools.export.audit_quantized import audit_quantized
from tunesmith.tools.export.calibration import Batch, calibration_batches, calibration_rows, joined_batches
from tunesmith.tools.export.dry_load_job import refuse_unservable
from tunesmith.tools.export.layer_stream import describe_quantization, stream_layers
from tunesmith.tools.export.quantize import USUAL_SAMPLES, QuantizeRequest, QuantizeResult, wrong_group_size
from tunesmith.tools.export.rounding_recipes import (
    QUANTIZING,
    SMOOTHING,
    carried_by,
    fallbacks_in,
    note_fallbacks,
    recipes,
    rounding_of,
    unpinned,
)
from tunesmith.tools.export.streamed_weights import StreamedWeights
from tunesmith.tools.machine.device import computes_on_cpu, need_priced_device
from tunesmith.tools.machine.memory_left import RESERVE_BYTES, memory_left_bytes, stalled_percent
from tunesmith.tools.models.full_precision import Proof, assert_full_precision, full_precision_layers
from tunesmith.tools.models.memory_math import quantize_cache_bytes, quantize_memory_bytes
from tunesmith.tools.models.rounding_terms import AUTOROUND, Rounding
from tunesmith.tools.models.schemes import SCHEMES
from tunesmith.tools.models.tensor_file import weight_files

if TYPE_CHECKING:
    from llmcompressor.modifiers import Modifier


Progress = Callable[[float, float, str], None]

_GIB = 1 << 30
FALLBACKS = "fallbacks.json"
_MOST_STALLED_PERCENT = 50.0
"""Of ten seconds in which every process waited for memory (the kernel's PSI): beyond it the machine thrashes."""


def run(job: Job[QuantizeRequest]) -> QuantizeResult:
    """Quantize the merged model, prove what had to stay full precision, and publish it."""
    need_priced_device(job)
    merged, dataset, request = job.verified("merged"), job.verified("dataset"), job.request
    config = json.loads((merged.path / "config.json").read_text())
    group = chosen_group_size(config, request.scheme, request.group_size)
    out_dir, keep = job.dir / "quantized", request.keep
    if job.sealed(out_dir) is None:
        refuse_unservable(job, merged.path, config, group, quantize_with)
        chosen = request.model_copy(update={"group_size": group})
        quantize_model(merged.path, dataset.path / "train.jsonl", out_dir, chosen, job.progress)
    proof = assert_full_precision(out_dir, full_precision_layers(config, keep))
    job.progress(0, 1, "auditing the saved tensors")
    audit = audit_quantized(out_dir, merged.path, keep, group_size=group, against=merged.id, rounding=request.rounding)
    fallbacks = fallbacks_in(work_folder(out_dir) / FALLBACKS)
    audit = audit.model_copy(update={"fallbacks": len(fallbacks)})
    job.log(audit.summary)
    if audit.refusal:
        raise StepFailed(f"{audit.refusal}; quantize again, or deploy the merged model")
    meta = {**dict(merged.meta), "scheme": request.scheme, "group_size": group, "merged": merged.id}
    meta |= {FALLEN_BACK: len(fallbacks)} if fallbacks else {}
    artifact = job.publish("quantized", out_dir, meta=meta)
    shutil.rmtree(work_folder(out_dir), ignore_errors=True)  # sealed and recorded: nothing goes on from it
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
        fallbacks=fallbacks,
    )


def chosen_group_size(config: dict[str, object], scheme: str, asked: int) -> int:
    """The group size that will be used; 0: one scale per output channel, as 8-bit schemes have unless asked.

    Raises StepFailed for one that does not divide the inputs of every layer, or is not the format's own.
    """
    if wrong := wrong_group_size(scheme, config, asked):
        raise StepFailed(wrong)
    return SCHEMES[scheme].group_of(config, asked)


def quantize_model(
    model_dir: Path, rows_path: Path, out_dir: Path, request: QuantizeRequest, progress: Progress
) -> Proof:
    """Quantize `model_dir` into `out_dir` as compressed-tensors safetensors that vLLM serves.

    Of the request nothing is open any more, and its group size is the chosen one. Goes on where the same work was cut
    off; `work_folder(out_dir)` holds what that takes, and may go once `out_dir` is sealed. Raises StepFailed before
    anything is loaded when memory or disk would not do, and between layers when memory runs low.
    """
    config = json.loads((model_dir / "config.json").read_text())
    _need_room(model_dir, config, out_dir, request)
    progress(0, 1, "reading the calibration rows")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    tokens, longest = request.calibration_tokens, request.max_seq_len_tokens
    samples = request.calibration_samples or (0 if tokens else USUAL_SAMPLES)
    rows = calibration_rows(tokenizer, rows_path, samples, longest, request.seed, tokens=tokens)
    if request.rounding == AUTOROUND:
        batches = joined_batches(rows, longest, request.seed)
    else:
        batches = calibration_batches(tokenizer, rows)
    with out_of_memory_named(request.max_seq_len_tokens):
        return quantize_with(batches, model_dir, out_dir, request, progress)


def quantize_with(
    batches: Sequence[Batch], model_dir: Path, out_dir: Path, request: QuantizeRequest, progress: Progress
) -> Proof:
    """The same, calibrated on batches of token ids that are there already."""
    import llmcompressor  # noqa: F401  which turns its own logging on when it is imported
    from loguru import logger
    from transformers.utils import logging

    logging.disable_progress_bar()
    logger.disable("llmcompressor")  # four lines per layer and matrix
    config, keep = json.loads((model_dir / "config.json").read_text()), list(request.keep)
    way, work = rounding_of(request.scheme, request.rounding), work_folder(out_dir)
    settings = {"model": _identity(model_dir), "batches": _digest(batches), "scheme": request.scheme,
                "group_size": request.group_size, "keep": keep, "rounding": request.rounding}  # fmt: skip
    _start_or_go_on(work, out_dir, settings)
    if computes_on_cpu():
        from tunesmith.tools.cpu.freed_memory import return_large_blocks
        from tunesmith.tools.cpu.gptq_blocks import use_fast_blocks

        use_fast_blocks()
        return_large_blocks()  # else what a layer needs grows with the layers before it
    source, length = model_dir, batches[0]["input_ids"].shape[1]
    # One after the other: GPTQ has to see the activations as the smoothing leaves them.
    for doing, recipe in recipes(request.scheme, request.group_size, config, keep, request.rounding, length):
        target = out_dir if doing == QUANTIZING else work / doing
        if not (target / "config.json").exists():
            _stream(source, target, work, recipe, batches, LayerWatch(doing, progress), way)
        source = target
    progress(1, 1, "saving the quantized model")
    for name in CARRIED:
        if (model_dir / name).is_file():
            shutil.copyfile(model_dir / name, out_dir / name)
    for folder in [path for path in work.iterdir() if path.is_dir()]:
        shutil.rmtree(folder)  # what is left are small files
    return assert_full_precision(out_dir, full_precision_layers(config, keep))


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
            shutil.rmtree(folder, ignore_errors=True)  # layers of other settings would be taken for its own
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
        # torch adds paragraphs on its allocator
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
        self._progress, self._last_layer = progress, 0

    def __call__(self, layer: int, layers: int) -> None:
        """Raises StepFailed where the kernel's killer is near, or nothing but waiting for memory gets done."""
        if layer != self._last_layer:
            self._last_layer = layer
            self._progress(layer - 1, layers, f"{self.doing} layer {layer} of {layers}")
        left, stalled = memory_left_bytes(), stalled_percent()
        if left >= RESERVE_BYTES and stalled < _MOST_STALLED_PERCENT:
            return
        why = f"{left >> 20} MiB of memory are left"
        if stalled >= _MOST_STALLED_PERCENT:
            why = f"everything waited for memory {stalled:.0f} % of the last ten seconds"
        raise StepFailed(
            f"stopped at layer {layer} of {layers}: {why}; {layer - 1} finished layers are kept: stop another program, "
            "or start in a larger control group, and resume, or quantize anew with a smaller max_seq_len_tokens"
        )


def _need_room(model_dir: Path, config: dict[str, object], out_dir: Path, request: QuantizeRequest) -> None:
    way = rounding_of(request.scheme, request.rounding)
    tokens = request.max_seq_len_tokens
    samples = math.ceil(request.calibration_tokens / tokens) or request.calibration_samples or USUAL_SAMPLES
    need = quantize_memory_bytes(
        config, seq_len_tokens=tokens, on_gpu=not computes_on_cpu(), rounding=way, samples=samples
    )
    free = memory_left_bytes()
    if need > free:
        raise StepFailed(
            f"needs {need / _GIB:.1f} GiB of RAM and swap, {free / _GIB:.1f} GiB free; "
            f"try max_seq_len_tokens={max(tokens // 2, 16)}, or stopping another program"  # 16: the least it takes
        )
    need_disk = quantize_cache_bytes(config, samples=samples, seq_len_tokens=tokens, rounding=way)
    weights = sum(file.stat().st_size for file in model_dir.glob("*.safetensors"))
    need_disk += weights * (2 if SCHEMES[request.scheme].smooths else 1)  # smoothing writes a whole model in between
    for folder in (out_dir, work_folder(out_dir) / SMOOTHING):  # what is there need not be written again
        need_disk -= sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    free_disk = shutil.disk_usage(out_dir.parent).free
    if need_disk > free_disk:
        raise StepFailed(f"needs {size(need_disk)} of disk, {size(free_disk)} free at {out_dir.parent}; make room")
