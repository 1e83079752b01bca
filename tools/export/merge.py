"""merge: add the adapter's update to the full-precision base, shard by shard, and measure what that changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith.memory.store import Store
from tunesmith.tools.core.estimate import estimate, room
from tunesmith.tools.core.stage import Facts, Plan, Request, Result, Stage, pinned
from tunesmith.tools.evaluation.lineage import own_base
from tunesmith.tools.machine.torch_env import TORCH_ENV
from tunesmith.tools.models.memory_math import merge_memory_bytes


class MergeRequest(Request):
    """Merge the run's newest adapter into its base."""


class MergeResult(Result):
    """The merged model, and how far its logits are from base + adapter."""

    artifact: str
    path: str
    bytes: int
    max_logit_difference: float
    argmax_agreement: float
    """Share of positions where merged and base + adapter prefer the same next token."""


def look(request: MergeRequest, store: Store, run: str) -> Mapping[str, Any]:
    """The base that the adapter was trained on, and whether it adapts a mixture's experts.

    Refuses an adapter of another base than the run's.
    """
    base, adapters = own_base(store, run, "adapter"), store.artifacts(run, "adapter")
    return {"base": base, "adapts_experts": _adapts_experts(adapters[-1].path) if adapters else True}


def _adapts_experts(adapter: Path) -> bool:
    """Whether an adapter holds updates of fused expert parameters; True where it does not say."""
    try:
        return bool(json.loads((adapter / "adapter_config.json").read_text()).get("target_parameters"))
    except (OSError, ValueError):
        return True


def plan(request: MergeRequest, facts: Facts) -> Plan:
    """Price reading and writing the whole model once, plus the comparison of logits."""
    base = facts.seen.get("base") or facts.need("base", "base")
    adapter = facts.need("adapter", "train")
    price = estimate(
        "merge",
        facts,
        seconds=14 + base.bytes / 1.2e8,
        ram_bytes=merge_memory_bytes(
            base.meta["config"], base.bytes, adapts_experts=facts.seen.get("adapts_experts", True)
        ),
        disk_bytes=base.bytes,
    )
    return Plan(
        stage="merge",
        run=facts.run,
        arm="merged",
        summary="merge the adapter into the full-precision base",
        steps=(
            "verify the base against its manifest",
            "W + (alpha ÷ rank)·B·A in fp32, one tensor at a time, stored in the base's precision",
            "compare logits of merged against base + adapter",
        ),
        request=request.model_dump(mode="json"),
        inputs=pinned(base=base, adapter=adapter),
        estimate=price,
        writes=(f"a model of {base.bytes / 1e9:.2f} GB",),
        replaces=("the merged model of this run",) if "merged" in facts.artifacts else (),
        refusals=room(price, facts, remedy="deploying the adapter itself, which needs no merge"),
    )


STAGE = Stage("merge", MergeRequest, MergeResult, plan, look, env=TORCH_ENV)
