"""release: a run's model for other programs: a GGUF with an Ollama Modelfile, or a folder for a hub. No upload."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tunesmith.memory.errors import BadInput
from tunesmith.memory.records import Artifact
from tunesmith.tools.core.estimate import estimate, room
from tunesmith.tools.core.stage import Facts, Inputs, Plan, Request, Result, Stage, expected, pinned
from tunesmith.tools.evaluation.lineage import own_base
from tunesmith.tools.machine.torch_env import TORCH_ENV
from tunesmith.tools.models.memory_math import RUNTIME_BYTES
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.release.gguf_file import BITS, ReadBack, TensorType, unwritable

_SECONDS_A_WEIGHT: Mapping[str, float] = {"BF16": 25e-9, "F16": 25e-9, "Q8_0": 40e-9}
"""Writing, reading back and comparing logits, on two cores; 4 and 5 bits take longest."""
_LONGEST = 80e-9


class ReleaseRequest(Request):
    """What to write, of which model."""

    format: Literal["gguf", "hub"] = "gguf"
    """gguf: one file for llama.cpp and Ollama; hub: a folder with a model card."""
    arm: Literal["adapter", "merged", "quantized"] = "merged"
    """Which model; a GGUF is always made from the merged one."""
    tensor_type: TensorType = "Q8_0"
    """How a GGUF stores its matrices; BF16 rounds nothing."""


class ReleaseResult(Result):
    """What was written, and what it says when it is read again."""

    artifact: str
    path: str
    format: str
    bytes: int
    files: tuple[str, ...]
    template: str = ""
    """Of a GGUF: that the Modelfile's template was proven equal to the base's, or why it has none."""
    read_back: ReadBack | None = None
    logits_left_out: str = ""
    """Of a GGUF: why it was not loaded and compared as a whole."""
    argmax_agreement: float | None = None
    """Share of positions where the GGUF, loaded by transformers, and the merged model prefer the same next token."""
    kl_a_token: float | None = None
    """Kullback-Leibler divergence of the GGUF's next-token distribution from the merged model's, mean, in nats."""
    license: str = ""
    """Of the base, as the card says it; empty for a GGUF."""


@dataclass(frozen=True, slots=True)
class ReleaseContext:
    """What is known of the model before it is priced."""

    base: Artifact | None = None
    unwritable: str = ""
    """Why it cannot be a GGUF."""


def inspect_inputs(request: ReleaseRequest, inputs: Inputs) -> ReleaseContext:
    """The model's own base, and whether a GGUF of it can be written. Raises BadInput for what does not go together."""
    if request.format == "gguf" and request.arm != "merged":
        raise BadInput(
            f"a GGUF is made from the merged model, not from the {request.arm}; leave arm out, or format=hub"
        )
    if request.format == "hub" and request.tensor_type != (own := ReleaseRequest().tensor_type):
        raise BadInput(
            f"tensor_type {request.tensor_type} is of a GGUF (usually {own}); a folder for a hub keeps the tensors as "
            "the model has them: leave tensor_type out, or format=gguf"
        )
    model = inputs.existing(request.arm)
    if model is None:
        return ReleaseContext()
    reason = unwritable(model.path) if request.format == "gguf" and model.path.is_dir() else ""
    return ReleaseContext(own_base(inputs.store, inputs.run, request.arm), reason)


def plan(request: ReleaseRequest, facts: Facts, context: ReleaseContext) -> Plan:
    """Price writing the model once more, and what proves it."""
    model = facts.need(request.arm, {"adapter": "train", "merged": "merge"}.get(request.arm, "quantize"))
    base = context.base or facts.need("base", "base")
    gguf = request.format == "gguf"
    # of the 16 bits that a merged weight has
    size_bytes = int(model.bytes * BITS[request.tensor_type] / 16) if gguf else model.bytes
    price = estimate(
        "release", facts, seconds=_seconds(request, model), ram_bytes=_ram_bytes(base, facts) if gguf else 0,
        disk_bytes=size_bytes, like=f"gguf {request.tensor_type}" if gguf else "hub",
    )  # fmt: skip
    return Plan(
        stage="release",
        run=facts.run,
        arm=request.arm,
        summary=f"write the {request.arm} model as a GGUF of type {request.tensor_type}, with an Ollama Modelfile"
        if gguf
        else f"write the {request.arm} model as a folder for a hub, with a model card",
        steps=_GGUF_STEPS if gguf else _HUB_STEPS,
        request=request.model_dump(mode="json"),
        inputs=pinned(model=model, base=base),
        estimate=price,
        writes=(
            f"{'a file' if gguf else 'a folder'} of {size_bytes / 1e9:.2f} GB on this machine; nothing is uploaded",
        ),
        refusals=(
            *([f"the model cannot be written as a GGUF: {context.unwritable}"] if context.unwritable else []),
            *room(price, facts, remedy="a smaller base"),
        ),
    )


_AUDIT = "audit the model's saved tensors against what it was made from; refuse a fault by name"
_GGUF_STEPS = (
    _AUDIT,
    "write every tensor through the gguf package, one at a time",
    "read every tensor back and hold it against the model's",
    "write a Modelfile for Ollama, with the base's chat template where it is proven equal on several conversations",
    "load the file with transformers and compare logits, where the whole model fits into memory",
)
_HUB_STEPS = (
    _AUDIT,
    "copy the model's files, and the base's licence where it is there",
    "write a model card from the records: data, training, evaluation, limits, licence of the base",
)


def release_memory_bytes(config: Mapping[str, object]) -> int:
    """Peak of writing a GGUF: runtime + four 32-bit copies of the largest matrix (read, reordered, packed, held)."""
    shape = ModelShape.of(config)
    return RUNTIME_BYTES + 4 * 4 * shape.hidden * max(shape.vocab, shape.intermediate)


def whole_gguf_bytes(parameters: int) -> int:
    """Peak of comparing logits: runtime + the model in 32 bits + the file's values beside it, as transformers loads."""
    return RUNTIME_BYTES + 9 * parameters  # 4 bytes each, and a tenth more


def _ram_bytes(base: Artifact, facts: Facts) -> int:
    """With the logits where the whole model fits; without them else, since they are left out then."""
    config = base.config
    whole = whole_gguf_bytes(ModelShape.of(config).parameters)
    return max(release_memory_bytes(config), whole if whole <= facts.machine.memory_room_bytes else 0)


def _seconds(request: ReleaseRequest, model: Artifact) -> float:
    if request.format == "hub":
        return 3 + model.bytes / 2e8  # copied at 200 MB a second
    # torch, transformers and gguf: most of 14 s
    return 14 + model.count("parameters") * _SECONDS_A_WEIGHT.get(request.tensor_type, _LONGEST)


def expected_artifact(request: ReleaseRequest, artifacts: Mapping[str, Artifact]) -> Artifact | None:
    """A folder of about the model's size."""
    model = artifacts.get(request.arm)
    return expected("release", model.bytes) if model else None


STAGE = Stage(
    "release", ReleaseRequest, ReleaseResult, plan, inspect_inputs, expected_artifact,
    settable=("format", "arm", "tensor_type"),
    identified_by=("format", "arm", "tensor_type"),
    belongs_to={"tensor_type": "format"},
    works_on=lambda request: request.arm,
    makes=lambda request: "release",
    env=TORCH_ENV,
    headline=("path", "bytes", "template"),
)  # fmt: skip
