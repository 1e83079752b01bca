"""What an evaluation is made under: arms and the chain they form, how answers are drawn, and the comparability key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.memory.records import Step

CHAIN = ("base", "adapter", "merged", "quantized")
"""What a model becomes on its way from the base to what is served."""


# Which parts of the comparability key a pair of arms may differ in: the hop that is under test.
HOPS: Mapping[str, frozenset[str]] = {
    "prompted": frozenset({"system_prompt"}),
    "adapter": frozenset({"adapter"}),
    "merged": frozenset({"adapter", "weights", "lora"}),
    "quantized": frozenset({"adapter", "weights", "lora", "precision"}),
}


@dataclass(frozen=True, slots=True)
class Sampling:
    """How every answer is drawn; what a suite's provider says goes before it, case by case."""

    max_tokens: int
    temperature: float = 0.0
    repeats: int = 1

    @property
    def key(self) -> dict[str, Any]:
        """Its part of the comparability key."""
        repeats = {"repeats": self.repeats} if self.repeats > 1 else {}
        return {"sampling": f"temperature={self.temperature:g} seed=0 max_tokens={self.max_tokens}", **repeats}


Keys = Mapping[str, Mapping[str, Any]]
"""Arm → the comparability key that its answers were made under."""


def measured(arm: str, key: Mapping[str, Any]) -> Any:
    """The sha256 of the artifact that an arm's answers came from, by their comparability key."""
    return key.get("adapter" if arm == "adapter" else "weights")


def keys_of(step: Step) -> Keys:
    """Comparability keys by arm of a finished baseline or evaluation; empty for any other step."""
    result = step.result or {}
    if step.stage == "baseline":
        return {"base": result["key"]}
    keys: Keys = result["keys"] if step.stage == "evaluate" else {}
    return keys
