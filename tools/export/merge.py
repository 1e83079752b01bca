"""merge: add the adapter's update to the full-precision base, shard by shard, and measure what that changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.core.estimate import estimate, room
from tunesmith.tools.core.placed import PlacedRequest
from tunesmith.tools.core.stage import Facts, Inputs, Plan, Result, Stage, expected, pinned
from tunesmith.tools.evaluation.lineage import own_base
from tunesmith.tools.export.audit import Audit
from tunesmith.tools.machine.torch_env import TORCH_ENV
from tunesmith.tools.models.memory_math import merge_memory_bytes
from tunesmith.tools.models.shape import ModelShape
from tunesmith.tools.models.time_math import merge_seconds

ONTO_16_BITS = (
    "the adapter was trained on the base at 4 bits (NF4) and is merged onto the 16-bit base, keeping 98 % of its gain "
    "in likelihood where measured (0.135 B, 40 rows); onto the dequantized base it keeps all of it, but that has "
    "NF4's rounding in every weight, before any quantization of its own. What it costs here, evaluate arm=merged tells"
)
"""What is said of an adapter that was trained on the base at 4 bits. Measured by `tests/bench/qlora_merge.py` (14 steps
of 4 rows; nats a token of held-out answers): 0.155 as trained, 0.193 on 16 bits (97.5 to 99.2 % of the gain kept, KL
0.086), 0.154 on the dequantized base (KL 0.0007), which by itself is 0.26 worse than the 16-bit one."""


class MergeRequest(PlacedRequest):
    """Merge the run's newest adapter into its base."""


class MergeResult(Result):
    """The merged model, and how far its weights and logits are from base + adapter."""

    artifact: str
    path: str
    bytes: int
    weight_error: float | None = None
    """‖merged − adapter‖ ÷ ‖adapter − base‖ of the values drawn of an adapted weight, the largest; this and what
    follows is None where nothing was compared."""
    layers_compared: int | None = None
    """Decoder layers through which logits were compared: all of a small model's, of a larger one's some, by seed."""
    argmax_agreement: float | None = None
    """Share of positions where merged and base + adapter prefer the same next token."""
    update_share: float | None = None
    """Of what the adapter does to the logits, how much the merged model does: 0 where nothing was merged."""
    update_error: float | None = None
    """‖merged − adapter‖ ÷ ‖adapter − base‖ of the logits: 1 where nothing was merged, the rest is rounding."""
    behaviour_rows: int = 0
    """Rows of the behaviour that the logits are of, beside ordinary questions."""
    logits_left_out: str = ""
    """Why nothing was compared."""
    audit: Audit | None = None
    """What the saved tensors say; None where an earlier version merged."""


@dataclass(frozen=True, slots=True)
class MergeContext:
    """What is known of the adapter."""

    base: Artifact | None = None
    """The base that it was trained on; None: the run's."""
    on_nf4: bool = False
    """Whether it was trained on that base at 4 bits (QLoRA)."""


def inspect_inputs(request: MergeRequest, inputs: Inputs) -> MergeContext:
    """The base that the adapter was trained on. Refuses an adapter of another base than the run's."""
    adapter = inputs.existing("adapter")
    if adapter is None:
        return MergeContext()
    return MergeContext(own_base(inputs.store, inputs.run, "adapter"), trained_on_nf4(inputs.store, adapter))


def trained_on_nf4(store: Store, adapter: Artifact) -> bool:
    """Whether the step that made an adapter held the base at 4 bits."""
    return bool(adapter.step and store.step(adapter.step).request.get("load_in_4bit"))


def expected_artifact(request: MergeRequest, artifacts: Mapping[str, Artifact]) -> Artifact | None:
    """A model as large as the base."""
    base = artifacts.get("base")
    return expected("merged", base.bytes, **base.meta) if base else None


def plan(request: MergeRequest, facts: Facts, context: MergeContext) -> Plan:
    """Price reading and writing the whole model once, plus the comparison of logits."""
    base = context.base or facts.need("base", "base")
    adapter = facts.need("adapter", "train")
    price = estimate(
        "merge", facts, seconds=merge_seconds(base.config, base.bytes, facts.training_rates),
        rates=facts.training_rates, ram_bytes=merge_memory_bytes(base.config),
        # A mixture's experts are written once more, put together, while logits are compared.
        disk_bytes=base.bytes * (2 if ModelShape.of(base.config).experts else 1),
    )  # fmt: skip
    return Plan(
        stage="merge",
        run=facts.run,
        arm="merged",
        summary="merge the adapter into the full-precision base",
        steps=(
            "verify the base against its manifest",
            "W + (alpha ÷ rank)·B·A in fp32, one tensor at a time, stored in the base's precision",
            "audit the saved tensors: base plus update, all finite, nothing missing and nothing more",
            "compare values of every updated weight with base + adapter as peft takes it in",
            "compare logits of merged against base + adapter, layer by layer (from 1 B on, through 8 layers drawn by "
            "seed), on questions and behaviour rows",
        ),
        request=request.model_dump(mode="json"),
        inputs=pinned(base=base, adapter=adapter),
        estimate=price,
        writes=(f"a model of {base.bytes / 1e9:.2f} GB",),
        replaces=("the merged model of this run",) if "merged" in facts.artifacts else (),
        refusals=room(price, facts, remedy="deploying the adapter itself, which needs no merge"),
        notes=(ONTO_16_BITS,) if context.on_nf4 else (),
    )


STAGE = Stage(
    "merge", MergeRequest, MergeResult, plan, inspect_inputs, expected_artifact,
    usual_context=lambda facts: MergeContext(),
    env=TORCH_ENV,
    headline=("bytes", "weight_error", "update_share", "argmax_agreement"),
)  # fmt: skip
