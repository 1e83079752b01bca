"""Settings that fit into the memory there is: what a refusal names, best first, each tried by the same arithmetic.

Best is what costs the result least: the same step computed in smaller parts, then a 4-bit base, then another model. Of
training, shorter rows are no way: those that are longer would lose their end. Nothing is named that was not tried, and
where nothing fits nothing is named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tunesmith.tools.core.estimate import Lack
from tunesmith.tools.core.format import listed
from tunesmith.tools.core.stage import Fitting
from tunesmith.tools.models.memory_math import (
    CUDA_BYTES,
    loaded_bytes,
    quantize_memory_bytes,
    quantize_vram_bytes,
)
from tunesmith.tools.models.model_names import NamedModel, named_model, usual_models
from tunesmith.tools.models.rounding_terms import Rounding
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.models.training_terms import (
    activation_bytes,
    adapted_experts_bytes,
    backward_bytes,
    head_bytes,
    plain_activation_bytes,
    runtime_on_cpu_bytes,
    unpacked_bytes,
)

ANOTHER_BASE = "a base such as "
"""How settings begin where none of the model's own would do."""
CPU_TOKENS = 1536
"""That a processor computes at once, however many rows there is room for. Of steps of 8 rows, 180 tokens each and some
very long, a 135M model took 2.5 GB at 2,048 and 1.9 at 1,024, where a step took a tenth longer; this lies between."""
_SHORTEST_ROW_TOKENS = 64
"""Of calibration: shorter ones hold no whole answer of a behaviour."""


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
        """Of training so; of VRAM on a GPU, else of RAM, where so many tokens at most are computed at once."""
        if not self.on_cpu:
            return self.memory_bytes(config)
        rows = min(self.rows_at_once, math.ceil(CPU_TOKENS / self.longest_row_tokens))
        return replace(self, rows_at_once=rows).memory_bytes(config)

    def memory_bytes(self, config: Mapping[str, object]) -> int:
        """All rows at once: runtime + frozen weights + 16 B per adapter weight + activations + logits.

        The runtime is a GPU's (`CUDA_BYTES`), or on a processor what `runtime_on_cpu_bytes` says.

        Activations: what each layer keeps of a token (`activation_bytes`; `plain_activation_bytes` where LoRA is not
        `fused`), with checkpointing each layer's input and one layer's whole; beside them the gradients of one layer.
        Logits: of one chunk of labelled tokens (`head_bytes`), as if every token had a label. 4 bits hold linear
        layers, which are unpacked one at a time, and a mixture's fused experts, which are unpacked a layer at a time
        and get no adapter.
        """
        shape = ModelShape.of(config)
        size = 4 if self.precision == "fp32" else 2  # bytes of a value
        tokens, four_bits = self.rows_at_once * self.longest_row_tokens, self.load_in_4bit
        weights = loaded_bytes(shape, load_in_4bit=four_bits, value_bytes=size)
        weights += unpacked_bytes(shape, value_bytes=size) if four_bits else 0
        adapts_experts = shape.experts > 0 and not four_bits
        layer = tokens * plain_activation_bytes(shape, value_bytes=size)
        if self.fused:
            layer = tokens * activation_bytes(
                shape,
                lora_rank=self.lora_rank,
                row_tokens=self.longest_row_tokens,
                value_bytes=size,
                adapts_experts=adapts_experts,
            )
        layer += adapted_experts_bytes(shape, value_bytes=size) if adapts_experts else 0
        inputs = shape.layers * tokens * size * shape.hidden
        activations = layer + inputs if self.checkpointing else shape.layers * layer
        activations += tokens * backward_bytes(shape, value_bytes=size)
        activations += 3 * shape.expert_parameters * size if adapts_experts else 0  # an update in fp32, and its cast
        logits = head_bytes(shape.vocab, shape.hidden, tokens, value_bytes=size)
        adapter = shape.lora_parameters(self.lora_rank, experts=not four_bits)
        # 16 bytes: a parameter in fp32, its gradient and AdamW's two moments.
        return self._runtime_bytes(shape) + weights + 16 * adapter + activations + logits

    def _runtime_bytes(self, shape: ModelShape) -> int:
        if not self.on_cpu:
            return CUDA_BYTES
        return runtime_on_cpu_bytes(
            shape, rows=self.rows_at_once, row_tokens=self.longest_row_tokens, checkpointing=self.checkpointing
        )


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


def urgency(lack: Lack, fitting: Sequence[Fitting]) -> tuple[float, int]:
    """Sort key of what steps lack: the remedy of the first does for the whole plan.

    A step that only another base helps comes first, by the size of that base; then the step that lacks most.
    """
    way = fitting[0].settings if fitting else ""
    base = named_model(way.removeprefix(ANOTHER_BASE)) if way.startswith(ANOTHER_BASE) else None
    return base.parameters if base else math.inf, lack.free_bytes - lack.needed_bytes


def lack_sentences(lacking: Iterable[tuple[str, str, Sequence[Fitting]]], noun: str = "") -> list[str]:
    """A sentence for each kind of memory, the disk, and each other reason, of steps by name.

    It has the most that one of the steps needs, and the remedy that does for all of them. A `noun` before the names
    is put into the plural where there are several.
    """
    kinds: dict[str, list[tuple[str, str, Sequence[Fitting]]]] = {}
    for one in lacking:
        kinds.setdefault(one[1].what if isinstance(one[1], Lack) else one[1], []).append(one)
    return [_lack_of_all(of_kind, noun) for of_kind in kinds.values()]


def _lack_of_all(lacking: Sequence[tuple[str, str, Sequence[Fitting]]], noun: str) -> str:
    nouns = f"{noun}s" if noun and len(lacking) > 1 else noun
    names = f"{nouns} {listed([name for name, _, _ in lacking], len(lacking))}".lstrip()
    lacks = [(lack, fitting) for _, lack, fitting in lacking if isinstance(lack, Lack)]
    if not lacks:
        return f"{names}: {lacking[0][1]}"
    largest = max((lack for lack, _ in lacks), key=lambda lack: lack.needed_bytes)
    remedy, _ = min(lacks, key=lambda one: urgency(*one))
    needs = largest.partition("; try ")[0]
    needs = needs if len(lacks) == 1 else f"need up to {needs.removeprefix('needs ')}"
    return f"{names} {needs}; try {', or '.join(remedy.try_)}"
