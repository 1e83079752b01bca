"""evaluate: the run's suite on an arm, compared case by case with the arm before it, nothing else changed.

`adapter` and `prompted` run beside `base` on ONE vLLM server, told apart by the request alone. `merged` and
`quantized` are hops of the chain of custody: their weights differ, and only those.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from tunesmith.memory.errors import BadInput
from tunesmith.memory.store import Store
from tunesmith.tools.evaluation import evaluation_seconds, need_vllm, read_suite, serving_memory
from tunesmith.tools.price import estimate, room
from tunesmith.tools.stage import Facts, Plan, Request, Result, Stage, pinned

# Arm → the stage that makes what it serves.
_MAKERS = {"adapter": "train", "merged": "merge", "quantized": "quantize"}


class EvaluateRequest(Request):
    """Which arm to hold against the base."""

    arm: Literal["prompted", "adapter", "merged", "quantized"] = Field(
        default="adapter", description="What to evaluate; base answers again beside adapter and prompted."
    )
    system_prompt: str = Field(
        default="", description="For the arm `prompted`: the best instruction that the base can be given."
    )
    max_tokens: int = Field(default=96, ge=1, le=32768, description="Tokens an answer may have.")
    temperature: float = Field(default=0.0, ge=0, le=2, description="0: greedy; above it, set repeats too.")
    repeats: int = Field(default=1, ge=1, le=100, description="How often each case is asked; a seed for each time.")
    concurrency: int = Field(
        default=128, ge=1, le=1024, description="Requests in flight at most; fewer while the server's queue is long."
    )
    fresh: bool = Field(
        default=False, description="Ask again what an earlier step of the run was answered to the same question."
    )


class EvaluateResult(Result):
    """Comparisons of this arm with those before it, in the shape that `tunesmith compare` prints."""

    artifact: str
    arm: str
    keys: dict[str, dict[str, Any]]
    """Arm → the comparability key its outputs were made under."""
    comparisons: list[dict[str, Any]]


def look(request: EvaluateRequest, store: Store, run: str) -> Mapping[str, Any]:
    """Read the suite that the run's baseline fixed."""
    found = store.artifacts(run, "suite")
    return {"suite": read_suite(found[-1].path)} if found else {}


def plan(request: EvaluateRequest, facts: Facts) -> Plan:
    """Price the arm's cases, and the base's beside it where both share the server."""
    base, suite_artifact = facts.need("base", "base"), facts.need("suite", "baseline")
    need_vllm(facts)
    if (request.arm == "prompted") != bool(request.system_prompt):
        raise BadInput("evaluate: system_prompt belongs to arm=prompted, and that arm needs one")
    made = facts.need(request.arm, _MAKERS[request.arm]) if request.arm in _MAKERS else None
    served = base if request.arm in ("adapter", "prompted") or made is None else made
    both = served is base
    cases = len(facts.seen["suite"].cases) * request.repeats
    seconds = evaluation_seconds(served, cases, request.max_tokens, arms=2 if both else 1)
    price = estimate(
        "evaluate",
        facts,
        seconds=seconds,
        ram_bytes=0 if facts.machine.gpus else serving_memory(served),
        vram_bytes=serving_memory(served) if facts.machine.gpus else 0,
        disk_bytes=8192 * cases * (2 if both else 1),
    )
    how = (
        "base and " + request.arm + " on one vLLM server, told apart by the request"
        if both
        else (f"the {request.arm} model on a vLLM server with the same settings")
    )
    return Plan(
        stage="evaluate",
        run=facts.run,
        arm=request.arm,
        summary=f"evaluate {request.arm} on the {len(facts.seen['suite'].cases)} cases of the baseline",
        steps=(how, "exact McNemar on the target, a stated margin on the other blocks, a flip table per hop"),
        request=request.model_dump(mode="json"),
        inputs=pinned(base=base, suite=suite_artifact, **({request.arm: made} if made else {})),
        estimate=price,
        writes=("every output, graded, in the store",),
        refusals=room(price, facts, remedy="stopping another program"),
    )


STAGE = Stage("evaluate", EvaluateRequest, EvaluateResult, plan, look)
