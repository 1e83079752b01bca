"""Settings that fit into the memory there is: what a refusal names, best first, each tried by the same arithmetic.

Best is what costs the result least: the same step computed in smaller parts, then a 4-bit base, then another model. Of
training, shorter rows are no way: those that are longer would lose their end. Nothing is named that was not tried, and
where nothing fits nothing is named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from tunesmith.tools.core.stage import Fitting
from tunesmith.tools.models.memory_math import quantize_memory_bytes, quantize_vram_bytes, train_memory_bytes
from tunesmith.tools.models.model_names import NamedModel, usual_models
from tunesmith.tools.models.rounding_terms import Rounding

ANOTHER_BASE = "a base such as "
"""How settings begin where none of the model's own would do."""
CPU_TOKENS = 1536
"""That a processor computes at once, however many rows there is room for. Of steps of 8 rows, 180 tokens each and some
very long, a 135M model took 2.5 GB at 2,048 and 1.9 at 1,024, where a step took a tenth longer; this lies between."""
_SHORTEST_ROW_TOKENS = 64
"""Of calibration."""


@dataclass(frozen=True, slots=True)
class Training:
    """What of a training's settings its memory depends on."""

    rows_at_once: int
    """In memory, forward and backward: a part of the rows of a step."""
    longest_row_tokens: int
    lora_rank: int
    precision: str = "bf16"
    load_in_4bit: bool = False
    checkpointing: bool = False
    fused: bool = True
    """Whether LoRA layers are computed without copies, which dropout rules out."""
    on_cpu: bool = False
    """Whether a processor computes it; else a GPU."""

    def peak_bytes(self, config: Mapping[str, object]) -> int:
        """Of training so; of VRAM on a GPU, else of RAM."""
        rows = self.rows_at_once
        if self.on_cpu:
            rows = min(rows, math.ceil(CPU_TOKENS / self.longest_row_tokens))
        return train_memory_bytes(
            config,
            batch_size=rows,
            seq_len_tokens=self.longest_row_tokens,
            lora_rank=self.lora_rank,
            precision=self.precision,
            load_in_4bit=self.load_in_4bit,
            checkpointing=self.checkpointing,
            fused=self.fused,
            on_cpu=self.on_cpu,
        )


def training_that_fits(
    asked: Training,
    config: Mapping[str, object],
    free_bytes: int,
    *,
    fewer: Callable[[int], str] = "micro_batch={}".format,
    fewest: int = 1,
) -> tuple[Fitting, ...]:
    """Settings with which a training that does not fit would, as they are typed; else the largest base that would.

    `fewer` types so many rows at once; `fewest` is how few the stage takes.
    """

    def fits(way: Training) -> bool:
        return way.peak_bytes(config) <= free_bytes

    bits = (asked,) if asked.load_in_4bit else (asked, replace(asked, load_in_4bit=True))
    ways = [way for start in bits if (way := next(filter(fits, _smaller_micro_batches(start, fewest)), None))]
    named = [Fitting(settings=_typed(asked, way, fewer), peak_bytes=way.peak_bytes(config)) for way in ways]
    least = replace(asked, checkpointing=True)
    return tuple(named) or largest_that_fits(lambda model: least.peak_bytes(model.config), free_bytes)


def _smaller_micro_batches(start: Training, fewest: int) -> Iterator[Training]:
    """The same step: all rows at once, its activations computed again, then fewer and fewer rows at once."""
    yield start
    micro_batches = [rows for rows in range(start.rows_at_once, fewest - 1, -1) if start.rows_at_once % rows == 0]
    yield from (replace(start, checkpointing=True, rows_at_once=rows) for rows in micro_batches)


def _typed(asked: Training, way: Training, fewer: Callable[[int], str]) -> str:
    typed = []
    if way.rows_at_once < asked.rows_at_once:
        typed.append(fewer(way.rows_at_once))
    if way.checkpointing and not asked.checkpointing:
        typed.append("activation_checkpointing=on")
    if way.load_in_4bit and not asked.load_in_4bit:
        typed.append("load_in_4bit=true")
    return ", ".join(typed)


_LESS_WORK: Mapping[Rounding, tuple[Rounding, ...]] = {
    "autoround": ("autoround", "gptq", "nearest"),
    "gptq": ("gptq", "nearest"),
    "nearest": ("nearest",),
}
"""What is tried for each way of rounding, the best for the result first."""


def quantizing_that_fits(
    config: Mapping[str, object],
    *,
    seq_len_tokens: int,
    free_ram_bytes: int,
    free_vram_bytes: int | None,
    rounding: Rounding = "gptq",
    samples: int = 0,
) -> tuple[Fitting, ...]:
    """Shorter calibration rows, or a way of rounding that needs less, with which quantizing would fit.

    Nothing where it does as it is, or a layer alone is too much. `free_vram_bytes` is None where it computes on the
    CPU.
    """
    on_gpu = free_vram_bytes is not None

    def peaks(tokens: int, way: Rounding) -> tuple[int, int]:
        ram = quantize_memory_bytes(config, seq_len_tokens=tokens, on_gpu=on_gpu, rounding=way, samples=samples)
        vram = quantize_vram_bytes(config, seq_len_tokens=tokens, rounding=way, samples=samples) if on_gpu else 0
        return ram, vram

    def fits(tokens: int, way: Rounding) -> bool:
        ram, vram = peaks(tokens, way)
        return ram <= free_ram_bytes and vram <= (free_vram_bytes or 0)

    if fits(seq_len_tokens, rounding):
        return ()
    halves = [seq_len_tokens]
    while halves[-1] // 2 >= _SHORTEST_ROW_TOKENS:
        halves.append(halves[-1] // 2)
    for tokens, way in [(tokens, way) for way in _LESS_WORK[rounding] for tokens in halves]:
        if fits(tokens, way):
            shorter = [f"max_seq_len_tokens={tokens}"] if tokens != seq_len_tokens else []
            settings = ", ".join([*([f"rounding={way}"] if way != rounding else []), *shorter])
            return (Fitting(settings=settings, peak_bytes=peaks(tokens, way)[1 if on_gpu else 0]),)
    return ()


def largest_that_fits(needs: Callable[[NamedModel], int], free_bytes: int) -> tuple[Fitting, ...]:
    """The largest usual model whose need is free, as `base` takes it; empty where not even the smallest fits."""
    for model in reversed(usual_models()):
        if (needed := needs(model)) <= free_bytes:
            return (Fitting(settings=f"{ANOTHER_BASE}{model.name}", peak_bytes=needed),)
    return ()
