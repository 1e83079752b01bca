"""What a run's models are asked under, beside their precision: how long a conversation may be, and whether they think.

The baseline chooses it and its record keeps it, so that every later step of the run that asks a model asks it alike;
before there is a baseline, the usual: 2,048 tokens, and no thoughts where the base's chat template can leave them out.
What is usual is written nowhere, so that keys and records of before there was a choice stay comparable.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from tunesmith.memory.errors import BadInput
from tunesmith.memory.json_values import as_record
from tunesmith.memory.records import Artifact
from tunesmith.memory.store import Store
from tunesmith.tools.core.job import Job
from tunesmith.tools.core.stage import Request
from tunesmith.tools.models.chat_template import Thoughts, thoughts_recorded
from tunesmith.tools.models.memory_math import CONTEXT_TOKENS

Thinking = Literal["", "on", "off"]
"""Empty: the template knows no thoughts, or nobody asked when its baseline was measured."""
AskedThinking = Literal["auto", "on", "off"]
THINKING_TOKENS = 1024
"""Tokens that a thought may have beside the answer, unless a baseline is asked for others: half of a usual context."""
_PIN = "way of asking"
"""What a plan that is bound to an unusual one calls it."""


@dataclass(frozen=True, slots=True)
class ContextSettings:
    """The context and the thoughts of every question that a run asks its models."""

    context_tokens: int = CONTEXT_TOKENS
    """Of a conversation, answer and thought included."""
    thinking: Thinking = ""
    thinking_tokens: int = 0
    """0 unless they think."""
    cards: int = 1
    """GPUs that each of its models is split over."""

    @property
    def recorded(self) -> dict[str, JsonValue]:
        """What of it is not usual, for a record."""
        context: dict[str, JsonValue] = {"context_tokens": self.context_tokens}
        cards: dict[str, JsonValue] = {"cards": self.cards} if self.cards > 1 else {}
        thinking: dict[str, JsonValue] = {"thinking": self.thinking, "thinking_tokens": self.thinking_tokens}
        return {
            **(context if self.context_tokens != CONTEXT_TOKENS else {}),
            **(thinking if self.thinking else {}),
            **cards,
        }

    @property
    def pins(self) -> dict[str, str]:
        """What a plan is bound to; nothing where all is usual."""
        return {_PIN: self.sha256} if self.recorded else {}

    @property
    def sha256(self) -> str:
        """Of what is not usual."""
        return hashlib.sha256(json.dumps(self.recorded, sort_keys=True).encode()).hexdigest()

    @property
    def _thinks(self) -> str:
        if not self.thinking_tokens:
            return "rows hold no thoughts: the model learns to answer after an empty one"
        return (
            f"the model thinks before it answers, in up to {self.thinking_tokens} tokens beside the answer's; only "
            "what follows the thought is graded"
        )

    @property
    def thoughts(self) -> ContextSettings:
        """What of it rows are rendered by."""
        return ContextSettings(thinking=self.thinking)

    @property
    def serving_steps(self) -> tuple[str, ...]:
        """What a plan says of thoughts where a model is served to users as it was measured."""
        if self.thinking == "off":
            return ("answer at once, without a thought, unless a request asks for one: as it was measured",)
        if self.thinking == "on":
            return ("answers come with the thought before them, which was measured and not graded",)
        return ()

    @property
    def steps(self) -> tuple[str, ...]:
        """What a plan says of it; nothing where all is usual."""
        lines = []
        if self.context_tokens != CONTEXT_TOKENS:
            lines.append(f"conversations of up to {self.context_tokens} tokens, the same for every arm of the run")
        if self.thinking == "off":
            lines.append("the model could think before it answers: that is switched off, for every arm of the run")
        if self.thinking == "on":
            lines.append(self._thinks)
        return tuple(lines)


USUAL = ContextSettings()
"""2,048 tokens, and nothing known of thoughts."""


def choose_context_settings(
    thoughts: Thoughts, asked: AskedThinking = "auto", *, tokens: int = THINKING_TOKENS, context: int = CONTEXT_TOKENS
) -> ContextSettings:
    """The settings for a base whose template thinks so. Raises BadInput where what was asked for cannot be had."""
    if asked == "on" and not thoughts:
        raise BadInput("thinking=on: the base's chat template knows no thoughts; leave thinking out")
    if asked == "off" and thoughts in ("opens", "channels"):
        raise BadInput(
            "thinking=off: the base's chat template has it think always, with no switch for it; leave thinking out, "
            "and give its thoughts room with thinking_tokens"
        )
    thinks = asked == "on" or (asked == "auto" and thoughts in ("opens", "channels"))
    return ContextSettings(context, "on" if thinks else "off" if thoughts else "", tokens if thinks else 0)


def context_settings_of(artifacts: Mapping[str, Artifact]) -> ContextSettings:
    """The context settings of a run by its newest artifacts: its baseline's, or what is usual for its base."""
    if suite := artifacts.get("suite"):
        known = {name: suite.meta[name] for name in ContextSettings.__dataclass_fields__ if name in suite.meta}
        return as_record(ContextSettings, known)
    base = artifacts.get("base")
    return choose_context_settings(thoughts_recorded(base.meta) if base else "")


def context_settings_of_run(store: Store, run: str) -> ContextSettings:
    """The same by what the store has."""
    return context_settings_of({artifact.kind: artifact for artifact in store.artifacts(run)} if run else {})


def context_settings_at_work(job: Job[Request], *, thoughts_only: bool = False) -> ContextSettings:
    """The context settings of a step's run, or its thoughts. Raises StepFailed where its plan was for another."""
    context_settings = context_settings_of_run(job.store, job.run)
    context_settings = context_settings.thoughts if thoughts_only else context_settings
    bound_to(job, context_settings)
    return context_settings


def bound_to(job: Job[Request], context_settings: ContextSettings) -> None:
    """Raises StepFailed where the plan of a step was agreed to under other context settings."""
    if context_settings.recorded or _PIN in job.plan.pins:
        job.agreed(_PIN, context_settings.sha256)


def positions_of(config: Mapping[str, object]) -> int:
    """Tokens that a model takes by its config; 0 where that does not say."""
    text = config.get("text_config")
    known = (text if isinstance(text, Mapping) else config).get("max_position_embeddings")
    return known if isinstance(known, int) else 0
