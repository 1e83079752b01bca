"""A behaviour as a model tells it: typed arguments, and what of them the user's examples bear out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from tunesmith.agent.commands.reading import NAME_WORDS, Read
from tunesmith.agent.driver.drafts import Interview
from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.wrong_values import sentence
from tunesmith.tools.data.description import described, slug
from tunesmith.tools.data.proposal import Part, Proposal
from tunesmith.tools.data.spec import Spec, Value
from tunesmith.tools.data.verify import verified

TEXTS = ("when", "what", "never")
"""The parts of a description that are the user's words."""


class Args(BaseModel):
    """Arguments of a tool: flat, and no other ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Given(Args):
    """An example, as the user typed it."""

    message: str
    answer: Annotated[str, BeforeValidator(lambda one: one if isinstance(one, str) else json.dumps(one))]


def _by_value(given: object) -> object:
    """Values with what they stand for; of a list they stand for nothing yet."""
    if not isinstance(given, list):
        return given
    return {str(one.get("value", one.get("label"))) if isinstance(one, dict) else str(one):
            str(one.get("means", "")) if isinstance(one, dict) else "" for one in given}  # fmt: skip


Values = Annotated[dict[str, str], BeforeValidator(_by_value)]
"""Value → what it stands for."""


class FieldOf(Args):
    """A part of the answer that differs from message to message."""

    name: str
    kind: Literal["label", "copied", "text", "number", "list"] | None = None
    values: Values = Field(default={}, description="Value: its meaning.")
    missing: str = Field(default="", description="If the message does not say it.")


class Described(Args):
    """A behaviour, in its user's words."""

    name: str = ""
    when: str = Field(default="", description="Which messages; quote the user.")
    what: str = Field(default="", description="What to answer; quote.")
    never: str = Field(default="", description="Quote.")
    examples: tuple[Given, ...] = Field(default=(), description="The user's, letter for letter.")
    template: str = Field(default="", description="Of all answers, with {field}.")
    fields: tuple[FieldOf, ...] = Field(default=(), description="Of the answer.")
    labels: Values = Field(default={}, description="Of a choice: answer and meaning.")
    look_alikes: tuple[str, ...] = Field(default=(), description="Messages to answer as usual.")
    every_message: bool | None = None
    language: str = ""


def proposed_anew(before: Proposal, args: Described, refused: list[str]) -> Proposal:
    """The proposal with what the driver says anew; fields of other names stay. What is no field is refused."""
    parts = {part.name: part for part in before.parts}
    for one in args.fields:
        given = {
            "name": one.name, "kind": None if one.kind == "list" else one.kind, "values": _named(one.values),
            "missing": one.missing, "many": (1, 2) if one.kind == "list" else None,
        }  # fmt: skip
        try:
            parts[one.name] = Part.model_validate(given)
        except ValidationError as error:
            refused.append(f"field {one.name}: {sentence(error.errors()[0], Part)}")
    anew = {"template": args.template, "labels": _named(args.labels), "near_misses": args.look_alikes,
            "every_message": args.every_message, "language": args.language}  # fmt: skip
    stated = {name: value for name, value in anew.items() if value not in ("", (), {}, None)}
    return before.model_copy(update={**stated, "parts": tuple(parts.values())})


def _named(values: Mapping[str, str]) -> dict[str, Value]:
    return {value: Value(means=means) for value, means in values.items()}


def parts_of(interview: Interview) -> Iterator[tuple[str, str]]:
    """Every part of the description with its text: when, field total, label billing, look-alike 2, …"""
    draft, proposal = interview.draft, interview.proposal
    yield from ((name, text) for name in TEXTS if (text := getattr(draft, name)))
    yield from [("template", proposal.template)] * bool(proposal.template)
    for part in proposal.parts:
        yield f"field {part.name}", part.name
        yield from ((f"{part.name} {value}", value) for value in part.values)
    for value, of in proposal.labels.items():
        yield f"label {value}", value
        yield from [(f"what {value} means", of.means)] * bool(of.means)
    yield from ((f"look-alike {number}", text) for number, text in enumerate(proposal.near_misses, 1))


def spec_of(interview: Interview) -> Spec:
    """The words and examples of a whole description as a spec. Raises BadInput, naming what is missing."""
    goal = interview.goal if 0 < len(interview.goal.split()) <= NAME_WORDS else ""
    name = interview.draft.name or slug(goal or interview.draft.what)
    return Spec.model_validate(described(interview.draft.model_copy(update={"name": name})).model_dump())


def borne_out(interview: Interview) -> Read:
    """What the examples bear out of what the driver proposed. Raises BadInput."""
    try:
        held = verified(spec_of(interview), interview.proposal)
    except ValidationError as error:
        raise BadInput(sentence(error.errors()[0], Spec)) from None
    return Read(held.spec, "the driver", held.left_out)
