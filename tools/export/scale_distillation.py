"""With its codes frozen, a rounded model learns the scales with which it answers as the model that it was rounded from.

The second phase of EfficientQAT (Chen et al. 2024, arXiv 2407.11062: only the step sizes are trained), with
KL(merged ‖ rounded) over the vocabulary on the answers of training rows as its loss. What the merged model says is
asked once. Every scale is learned as a factor beside 1, so that one rate serves all of them. Norms, head and whatever
stayed at full precision do not move. The scales are kept only where rows that nothing was trained on got nearer.

Memory: the 16-bit model while the merged one is asked; then a byte for each code, 16 for each scale, the head, and the
weights and activations of one layer (activations are computed again on the way back).
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tunesmith.memory.errors import StepFailed
from tunesmith.memory.files import atomic_write
from tunesmith.tools.export.layer_stream import let_go
from tunesmith.tools.export.quantize import LearnedScales
from tunesmith.tools.export.streamed_weights import write_shard
from tunesmith.tools.machine.device import computes_on_cpu
from tunesmith.tools.models.scale_learning_math import ROWS_A_STEP
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.models.tensor_file import weight_files
from tunesmith.tools.training.batch_loss import Batch
from tunesmith.tools.training.head_loss import Head, find_head, head_loss
from tunesmith.tools.training.rows import TokenRow

if TYPE_CHECKING:
    from torch import Tensor, nn

LEARNED = "learned_scales.json"
"""Where a work folder says what learning did."""
HELD_OUT_ROWS = 64
"""On which it is seen whether learning helped, at most."""
RATE = 0.002
"""Of Adam on the factors: a step moves a scale by up to 0.2 %. Measured on the bundled model (CHANGELOG)."""
_WARM_STEPS = 10
_BETAS = (0.9, 0.95)
_SEED = 17

Progress = Callable[[float, float, str], None]


class LearnFrom(NamedTuple):
    """What the scales learn from, and how long."""

    rows: Sequence[TokenRow]
    held_out: Sequence[TokenRow]
    """Rows that nothing was trained on: they say whether it helped."""
    steps: int

    def digest(self) -> str:
        """Of all of it: the same work has the same."""
        told = [[[row.input_ids, row.labels] for row in rows] for rows in (self.rows, self.held_out)]
        return hashlib.sha256(json.dumps([told, self.steps, RATE]).encode()).hexdigest()


def distil_scales(
    rounded: Path, merged: Path, out_dir: Path, learn: LearnFrom, said: Path, progress: Progress
) -> LearnedScales:
    """Write `rounded` into `out_dir` with scales that were learned; what that did is in `said` before the config comes.

    Raises StepFailed without held-out rows, for a model that has no packed layers, and for a head of an unknown kind.
    """
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(_SEED)
    config = json.loads((merged / "config.json").read_text())
    learned_from, held_out, steps = learn
    if not held_out:
        raise StepFailed(
            "whether learning the scales helps is seen on held-out rows, and there are none; distil_steps=0"
        )
    progress(0, steps, "asking the merged model")
    options = ModelShape.of(config).attention_options
    device = "cpu" if computes_on_cpu() else "cuda"
    let_go(device)
    model = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.bfloat16, **options).to(device).eval()
    model.requires_grad_(False)
    head = find_head(model, config)
    if head is None:
        raise StepFailed("the scales of this model cannot be learned: its head is of an unknown kind; distil_steps=0")
    wanted, wanted_held_out = _states(model, learned_from), _states(model, held_out)
    scales = _put_in(model, rounded)
    let_go(device)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    before = _divergence(model, head, held_out, wanted_held_out)
    _learn(model, head, list(scales.values()), learned_from, wanted, steps, progress)
    after = _divergence(model, head, held_out, wanted_held_out)
    kept = after < before
    learned = LearnedScales(steps=steps, kl_before=round(before, 5), kl_after=round(after, 5), kept=kept)
    atomic_write(said, learned.model_dump_json())
    _write(rounded, out_dir, {name: layer.scale() for name, layer in scales.items()} if kept else {})
    return learned


def _states(model: nn.Module, rows: Sequence[TokenRow]) -> list[Tensor]:
    """Of each row the hidden states before its labels, (labelled, hidden) each, in the CPU's memory."""
    import torch

    states: dict[int, Tensor] = {}
    for places in _alike(rows):
        batch = _batch(model, [rows[place] for place in places])
        with torch.no_grad():
            made = batch.hidden(model).cpu()
        states |= {place: made[batch.row.cpu() == number] for number, place in enumerate(places)}
    return [states[place] for place in range(len(rows))]


def _alike(rows: Sequence[TokenRow]) -> Iterator[list[int]]:
    """Places of rows of like length, as many as a step takes."""
    places = sorted(range(len(rows)), key=lambda place: len(rows[place].input_ids))
    for start in range(0, len(places), ROWS_A_STEP):
        yield places[start : start + ROWS_A_STEP]


def _batch(model: Any, rows: Sequence[TokenRow]) -> Batch:
    return Batch.padded([(row.input_ids, row.labels) for row in rows], model.device)


def _divergence(model: nn.Module, head: Head, rows: Sequence[TokenRow], wanted: Sequence[Tensor]) -> float:
    """KL(merged ‖ rounded) in nats a token."""
    import torch

    total = 0.0
    with torch.no_grad():
        for places in _alike(rows):
            batch = _batch(model, [rows[place] for place in places])
            reference = torch.cat([wanted[place] for place in places])
            total += float(head_loss(head, batch.hidden(model), batch.targets, reference).sum)
    tokens = sum(len(states) for states in wanted)
    return total / max(tokens, 1)


def _learn(
    model: nn.Module,
    head: Head,
    layers: Sequence[Any],
    rows: Sequence[TokenRow],
    wanted: Sequence[Tensor],
    steps: int,
    progress: Progress,
) -> None:
    import torch

    factors = [layer.factor.requires_grad_() for layer in layers]
    optimizer = torch.optim.Adam(factors, lr=RATE, betas=_BETAS)
    places = _drawn(rows, steps)
    model.train()  # for checkpointing alone: nothing is dropped out of a model that is served
    for step in range(steps):
        rate = min(1.0, (step + 1) / _WARM_STEPS) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = RATE * rate
        chosen = next(places)
        batch = _batch(model, [rows[place] for place in chosen])
        reference = torch.cat([wanted[place] for place in chosen])
        loss = head_loss(head, batch.hidden(model), batch.targets, reference, weight=1 / max(len(reference), 1))
        loss.weighted.backward()
        optimizer.step()
        optimizer.zero_grad()
        progress(
            step + 1,
            steps,
            f"learning scales, step {step + 1} of {steps}, KL {float(loss.sum) / max(len(reference), 1):.4f}",
        )
    model.eval()


def _drawn(rows: Sequence[TokenRow], steps: int) -> Iterator[list[int]]:
    """Places of the rows of each step, half of them ordinary ones where there are both; each once before any again.

    What is lost by rounding is mostly what the behaviour's rows never touch.
    """
    draw = random.Random(_SEED)
    kinds = [[place for place, row in enumerate(rows) if row.rehearsal is held] for held in (True, False)]
    kinds = [kind for kind in kinds if kind]
    left: list[list[int]] = [[] for _ in kinds]
    for _ in range(steps):
        chosen = []
        for number, kind in enumerate(kinds):
            wanted = ROWS_A_STEP // len(kinds)
            while len(left[number]) < wanted:
                left[number] += draw.sample(kind, len(kind))
            chosen += left[number][:wanted]
            left[number] = left[number][wanted:]
        yield sorted(chosen)


def _put_in(model: nn.Module, rounded: Path) -> dict[str, Any]:
    """Replace the model's linear layers by the rounded ones; by name, those whose scales can be learned."""
    from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
    from safetensors import safe_open

    config = json.loads((rounded / "config.json").read_text())
    [group] = config["quantization_config"]["config_groups"].values()
    bits = int(group["weights"]["num_bits"])
    layers: dict[str, Any] = {}
    for file in weight_files(rounded):
        with safe_open(str(file), "pt") as tensors:
            names = [name for name in tensors.keys() if name.endswith(".weight_packed")]  # noqa: SIM118
            for name in names:
                layer = name.removesuffix(".weight_packed")
                shape = tensors.get_tensor(f"{layer}.weight_shape").tolist()
                codes = unpack_from_int32(tensors.get_tensor(name), bits, shape)
                layers[layer] = _rounded_layer(model, layer, codes, tensors.get_tensor(f"{layer}.weight_scale"))
    if not layers:
        raise StepFailed("the scales of this model cannot be learned: it has no packed layers; distil_steps=0")
    return layers


def _rounded_layer(model: nn.Module, name: str, codes: Tensor, scale: Tensor) -> Any:
    import torch
    from torch import nn

    class Rounded(nn.Module):
        """A linear layer of frozen codes, whose scales are those that were stored, times a factor that is learned."""

        def __init__(self, bias: Tensor | None) -> None:
            super().__init__()
            groups = (len(codes), scale.shape[1], codes.shape[1] // scale.shape[1])
            self.codes = codes.to(torch.int8).view(groups).to(device)
            self.stored = scale.float().to(device)
            self.factor = nn.Parameter(torch.ones_like(self.stored), requires_grad=False)
            self.bias = bias

        def scale(self) -> Tensor:
            """As it is stored: (outputs, groups) in the precision of the file."""
            return (self.stored * self.factor.detach()).to(scale.dtype).cpu()

        def forward(self, inputs: Tensor) -> Tensor:
            scales = (self.stored * self.factor).to(inputs.dtype)[..., None]
            weight = (self.codes.to(inputs.dtype) * scales).flatten(1)
            return nn.functional.linear(inputs, weight, self.bias)

    old = model.get_submodule(name)
    bias: Any = old.bias
    device = next(model.parameters()).device
    layer = Rounded(bias)
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)
    return layer


def _write(rounded: Path, out_dir: Path, scales: Mapping[str, Tensor]) -> None:
    """The files of `rounded` with these scales in place of their own."""
    from safetensors import safe_open

    out_dir.mkdir(parents=True, exist_ok=True)
    shards = weight_files(rounded)
    for shard in shards:
        with safe_open(str(shard), "pt") as tensors:
            made = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
        learned = {f"{layer}.weight_scale": scale for layer, scale in scales.items()}
        write_shard(out_dir / shard.name, made | {name: learned[name] for name in made if name in learned})
    for path in sorted(rounded.iterdir()):
        if path not in shards and path.is_file() and path.name != "config.json":
            shutil.copyfile(path, out_dir / path.name)
    atomic_write(out_dir / "config.json", (rounded / "config.json").read_bytes())
