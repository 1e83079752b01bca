"""A typed question about the history, the machine, or what would fit: a kind, and arguments that combine."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal[
    "machine", "fits", "runs", "run", "step", "result", "cases", "compare", "setting", "approvals", "rows", "curve",
    "artifact", "served", "jobs", "findings", "described", "price", "across", "confusion",
    "trial",
]  # fmt: skip
KINDS: tuple[str, ...] = get_args(Kind)
Block = Literal["target", "general", "tools", "adversarial", "over-trigger"]
Arm = Literal["base", "prompted", "adapter", "merged", "quantized"]
Outcome = Literal["failed", "passed", "lost", "gained", "flipped", "error"]
Aspect = Literal[
    "", "duration", "estimate", "peak", "status", "why", "log", "count", "size", "when", "path", "who", "list", "loss",
    "disk", "ram", "gpu", "cpu", "speed", "lineage", "longest", "changed", "best", "url", "key", "remaining", "tokens",
]  # fmt: skip
Work = Literal["", "train", "serve", "quantize", "merge", "measure"]


class Query(BaseModel):
    """A question. Arguments that it does not mention are empty; each kind reads those that it knows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind = Field(
        description="machine: this computer. fits: whether a model would fit here or on a card. runs: all runs. "
        "run: how "
        "one went. step: a step's time, memory, failure, log. result: what an arm passed. cases: "
        "single test cases with "
        "their answers. compare: two arms or two runs. setting: a value, who chose it and why. "
        "approvals: what was agreed "
        "to or refused. rows: training rows. curve: losses. artifact: files, sizes, what was made "
        "from what. served: what "
        "answers now. jobs: what runs. findings: what it all means and what to try next. described: the examples, "
        "criteria and rules of the behaviour. price: what a step would take that was not ordered. across: one figure "
        "of every run. confusion: which labels are taken for which. trial: how to try the "
        "model, where it is, answers before and after."
    )
    run: str = Field(default="", description="Run, such as r3; empty: the newest that has it.")
    other_run: str = Field(default="", description="For compare: the second run.")
    step: str = Field(default="", description="Step, such as s12.")
    stage: str = Field(default="", description="Stage, such as train.")
    arm: Arm | Literal[""] = Field(default="", description="base, prompted, adapter, merged or quantized.")
    other_arm: Arm | Literal[""] = Field(default="", description="The arm it is held against.")
    block: Block | Literal[""] = Field(default="", description="Block of test cases.")
    outcome: Outcome | Literal[""] = Field(default="", description="Of cases: failed, passed, lost, gained, flipped.")
    aspect: Aspect = Field(default="", description="What about it, such as duration, peak, why.")
    field: str = Field(default="", description="Setting, such as lora_rank.")
    text: str = Field(default="", description="Words that a case, a row or a reason holds.")
    verdict: Literal["", "keep", "drop"] = Field(default="", description="Of rows.")
    origin: Literal["", "generated", "rehearsal"] = Field(default="", description="Of rows.")
    decision: Literal["", "yes", "no"] = Field(default="", description="Of approvals.")
    when: str = Field(default="", description="Span of time: today, yesterday, last week, last 3 days, 2026-11-20.")
    model: str = Field(default="", description="For fits: a model's name or size, such as Qwen3-8B or 7b.")
    bits: int = Field(default=0, description="For fits: bits of the weights, 4, 8 or 16; 0: not said.")
    card_gib: float = Field(default=0.0, description="For fits: memory of a card in GiB; 0: this machine.")
    cards: int = Field(default=1, description="For fits: how many such cards.")
    work: Work = Field(default="", description="For fits: train, serve, quantize, merge or measure.")
    whole: bool = Field(default=False, description="Whether everything is to be listed.")
