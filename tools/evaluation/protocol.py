"""What an evaluation is made under: arms and the chain they form, how answers are drawn, and the comparability key."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from tunesmith.memory.records import Step

BLIND_OPENED = "blind.opened"
"""Event of a step that asks an arm the suite's blind cases."""
CHAIN = ("base", "adapter", "merged", "quantized")
"""What a model becomes on its way from the base to what is served."""


# Which parts of the comparability key a pair of arms may differ in: the hop that is under test.
HOPS: Mapping[str, frozenset[str]] = {
    "prompted": frozenset({"system_prompt"}),
    "adapter": frozenset({"adapter"}),
    "merged": frozenset({"adapter", "weights", "lora"}),
    "quantized": frozenset({"adapter", "weights", "lora", "precision"}),
}

Key = Mapping[str, JsonValue]
"""A comparability key: what an arm's answers were made under, part by part."""
Keys = Mapping[str, Key]
"""Arm → the comparability key that its answers were made under."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How every answer is drawn; what a suite's provider says goes before it, case by case."""

    max_tokens: int
    temperature: float = 0.0
    repeats: int = 1

    @property
    def key(self) -> dict[str, JsonValue]:
        """Its part of the comparability key."""
        repeats: dict[str, JsonValue] = {"repeats": self.repeats} if self.repeats > 1 else {}
        return {"sampling": f"temperature={self.temperature:g} seed=0 max_tokens={self.max_tokens}", **repeats}


def under_test(a: str, b: str) -> frozenset[str]:
    """The parts of the key in which two arms may differ: what the hops to them change."""
    # An adapter's server allows its rank, a prompt's the usual one. What makes room for adapters answers no request
    # that names none, and base and adapter, which share that server, are held to be equal on the same ground.
    ranks = frozenset({"lora"}) if {a, b} == {"prompted", "adapter"} else frozenset[str]()
    return HOPS.get(a, frozenset()) | HOPS.get(b, frozenset()) | ranks


def differences(key_a: Key, key_b: Key, allowed: Collection[str] = ()) -> list[str]:
    """Names of the parts in which two comparability keys differ, a part that one lacks included."""
    lacking = object()
    names = sorted({*key_a, *key_b} - set(allowed))
    return [name for name in names if key_a.get(name, lacking) != key_b.get(name, lacking)]


def measured(arm: str, key: Key) -> str:
    """The sha256 of the artifact that an arm's answers came from, by their comparability key."""
    return str(key.get("adapter" if arm == "adapter" else "weights"))


def keys_of(step: Step) -> Keys:
    """Comparability keys by arm of a finished baseline or evaluation; empty for any other step."""
    result = step.result or {}
    if step.stage == "baseline":
        return {"base": result["key"]}
    keys: Keys = result["keys"] if step.stage == "evaluate" else {}
    return keys
