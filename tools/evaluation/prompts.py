"""The rival of a fine-tune: what the base can be told, made from the behaviour's own spec, or a prompt of the user's.

Instructions alone: the examples are cases of the target suite. Where the answer is JSON, the server is held to its
schema too: the cheapest way to a form, and so a rival of any training for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from pydantic import JsonValue

from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.answers import instructions
from tunesmith.tools.data.spec import Spec


@dataclass(frozen=True, slots=True)
class Prompt:
    """Something to say before every conversation."""

    name: str
    preamble: tuple[dict[str, str], ...]
    schema: Mapping[str, object] | None = None
    """What the server holds answers to messages of the behaviour to; None: they are free."""

    @property
    def key(self) -> str:
        """What stands for it in the comparability key."""
        text = json.dumps([self.preamble, self.schema] if self.schema else self.preamble, sort_keys=True)
        return f"{self.name} (sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]})"

    def as_dict(self) -> dict[str, JsonValue]:
        """For the step's result and its file."""
        return {"key": self.key, **asdict(self), "preamble": [dict(turn) for turn in self.preamble]}


def given(system_prompt: str) -> Prompt:
    """The prompt that the user wrote."""
    return Prompt("the user's own", ({"role": "system", "content": system_prompt},))


def prompt_of(spec: Spec) -> Prompt:
    """What the base is told of a behaviour."""
    schema = form_of(spec).schema()
    name = "instructions, held to the JSON schema" if schema else "instructions"
    return Prompt(name, ({"role": "system", "content": instructions(spec)},), schema)
