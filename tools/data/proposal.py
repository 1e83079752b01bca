"""What is proposed of a behaviour beside its user's words, typed: by a file, by a person, or by a model that read them.

A proposal is checked before anything comes of it (`verify`): it is nobody's word for how the behaviour is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.stage import Frozen
from tunesmith.tools.data.answer_rules import Check
from tunesmith.tools.data.description import Description
from tunesmith.tools.data.spec import Kind, Value


class Part(Frozen):
    """A part of the answer that differs from message to message."""

    name: Annotated[str, Field(pattern=r"^[^\W\d]\w*(?:\.[^\W\d]\w*)*$", max_length=80)]
    """Of a part within an object its path, as items.price."""
    means: str = ""
    kind: Kind | None = None
    """None: by the format of its values in the examples."""
    values: dict[str, Value] = Field(default_factory=dict)
    """All that it may be; empty: it is not one of a few."""
    missing: str = ""
    """What the answer shows where the message does not say it; empty: nothing was stated."""
    words_max: int = Field(default=0, ge=0)


class Proposal(Frozen):
    """What was proposed; what is empty was left out."""

    form: Literal["written", "json", "text", "lines"] | None = None
    template: str = ""
    """The answer with {name} in place of each part."""
    parts: tuple[Part, ...] = ()
    labels: dict[str, Value] = Field(default_factory=dict)
    """The values of whichever part has only such ones."""
    checks: tuple[Check, ...] = ()
    criteria: tuple[str, ...] = ()
    near_misses: tuple[str, ...] = ()
    every_message: bool = False
    language: str = ""

    def part(self, name: str) -> Part:
        """What is proposed of the part of this name; nothing where it is not among them."""
        return next((part for part in self.parts if part.name == name), Part(name=name))

    @property
    def shapes(self) -> bool:
        """Whether it says what the answer is made of."""
        return bool(self.form or self.template or self.parts or self.labels)


def stated_in(values: Mapping[str, object], where: str) -> Proposal:
    """What a user's file states as data: `labels`, `fields` and `template`. Raises BadInput for what is none.

    A field is its meaning, a list of its values, or whatever a Part takes.
    """
    fields, labels = values.get("fields") or {}, _named(values.get("labels"), where)
    if isinstance(fields, list):
        fields = {str(name): "" for name in fields}
    if not isinstance(fields, dict):
        raise BadInput(f"{where}: fields are lists of names, or names with what they mean")
    parts = []
    for name, of in fields.items():
        if isinstance(of, list):
            parts.append(Part(name=name, values={str(value): Value() for value in of}))
        elif isinstance(of, dict):
            own = {**of, **({"values": _named(of["values"], where)} if "values" in of else {})}
            parts.append(Part.model_validate({"name": name, **own}))
        else:
            parts.append(Part(name=str(name), means=" ".join(str(of or "").split())))
    return Proposal(parts=tuple(parts), labels=labels, template=str(values.get("template") or ""))


def _named(value: object, where: str) -> dict[str, Value]:
    """Values with what they mean; a plain list has no meanings."""
    if value is None:
        return {}
    if isinstance(value, list):
        return {str(name): Value() for name in value}
    if not isinstance(value, dict):
        raise BadInput(f"{where}: labels and fields are lists of names, or names with what they mean")
    return {
        str(name): Value.model_validate(of) if isinstance(of, dict) else Value(means=" ".join(str(of or "").split()))
        for name, of in value.items()
    }


def words_digest(description: Description, stated: Proposal) -> str:
    """Digest of a user's words, examples and stated data: what was read once is known by it."""
    said = description.model_dump(mode="json", include=set(Description.model_fields))
    return hashlib.sha256(json.dumps([said, stated.model_dump(mode="json")], sort_keys=True).encode()).hexdigest()
