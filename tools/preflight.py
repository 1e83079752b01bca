"""preflight: every link of the chain on a few rows, before a night is spent on a chain that breaks at its last one."""

from __future__ import annotations

from pydantic import Field

from tunesmith.tools.evaluation import need_vllm, serving_memory
from tunesmith.tools.price import estimate, room
from tunesmith.tools.stage import Facts, Plan, Request, Result, Stage, pinned


class PreflightRequest(Request):
    """How much to try."""

    rows: int = Field(default=8, ge=2, le=64, description="Training rows to try the chain on.")
    lora_rank: int = Field(default=16, ge=1, le=256, description="Rank of the adapter that will be trained.")


class Check(Result):
    """One link of the chain, and the evidence that it holds."""

    name: str
    passed: bool
    evidence: str


class PreflightResult(Result):
    """All checks; a failed one fails the step."""

    artifact: str
    checks: list[Check]


def plan(request: PreflightRequest, facts: Facts) -> Plan:
    """Price a server start, a model load and two optimiser steps."""
    base, dataset = facts.need("base", "base"), facts.need("dataset", "critique")
    need_vllm(facts)
    price = estimate(
        "preflight",
        facts,
        seconds=60 + base.bytes / 2e7,
        ram_bytes=0 if facts.machine.gpus else serving_memory(base) + 4 * base.bytes,
        vram_bytes=serving_memory(base) if facts.machine.gpus else 0,
        disk_bytes=50_000_000,
    )
    return Plan(
        stage="preflight",
        run=facts.run,
        summary=f"try every link of the chain on {request.rows} rows",
        steps=(
            "every row of the dataset keeps trainable tokens, and its stop token is inside the loss mask",
            "two optimiser steps, and an adapter that changes nothing",
            "vLLM accepts that adapter, answers as the base does, and renders the template to the trainer's tokens",
        ),
        request=request.model_dump(mode="json"),
        inputs=pinned(base=base, dataset=dataset),
        estimate=price,
        writes=("an adapter that is thrown away",),
        refusals=room(price, facts, remedy="stopping another program"),
    )


STAGE = Stage("preflight", PreflightRequest, PreflightResult, plan)
