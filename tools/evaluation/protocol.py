"""What an evaluation is made under: arms and the chain they form, how answers are drawn, and the comparability key."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from tunesmith.tools.models.memory_math import SERVED_SEQUENCES
from tunesmith.tools.serving.context_settings import ContextSettings, Thinking

IN_FLIGHT = SERVED_SEQUENCES + 16
"""Requests to a server of ours: what it works on at once, and a short queue, so that it never idles between two."""
BLIND_OPENED = "blind.opened"
"""Event of a step that asks an arm the suite's blind cases."""
CASE_DIGITS = 12
"""Of the digest of what a blind case asks, so many stand in the event: 48 bits, which no two cases share by chance."""
THINKING = "thinking"
"""Part of a comparability key: whether the models may think before they answer."""
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
    thinking: Thinking = ""
    thinking_tokens: int = 0
    """Of a thought, beside those of the answer; 0 unless the model thinks first."""

    @classmethod
    def on(
        cls, context_settings: ContextSettings, max_tokens: int, temperature: float = 0.0, repeats: int = 1
    ) -> Sampling:
        """That of a run whose models are asked so."""
        return cls(max_tokens, temperature, repeats, context_settings.thinking, context_settings.thinking_tokens)

    @property
    def key(self) -> dict[str, JsonValue]:
        """Its part of the comparability key; of thoughts it says something where the model knows them."""
        repeats: dict[str, JsonValue] = {"repeats": self.repeats} if self.repeats > 1 else {}
        thinking: dict[str, JsonValue] = {}
        if self.thinking:
            thinking[THINKING] = f"on, {self.thinking_tokens} tokens" if self.thinking == "on" else self.thinking
        drawn = f"temperature={self.temperature:g} seed=0 max_tokens={self.max_tokens}"
        return {"sampling": drawn, **repeats, **thinking}


def differences(key_a: Key, key_b: Key, allowed: Collection[str] = ()) -> list[str]:
    """Names of the parts in which two comparability keys differ, a part that one lacks included."""
    lacking = object()
    names = sorted({*key_a, *key_b} - set(allowed))
    return [name for name in names if key_a.get(name, lacking) != key_b.get(name, lacking)]


def measured(arm: str, key: Key) -> str:
    """The sha256 of the artifact that an arm's answers came from, by their comparability key."""
    return str(key.get("adapter" if arm == "adapter" else "weights"))
