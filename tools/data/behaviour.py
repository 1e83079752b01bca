"""The written spec of a behaviour: what is to be learned, and everything its training rows are drawn from.

There are two kinds. `attributes` (here) answers a text with one JSON object that holds a group (a class such as the
category), a cue (a degree such as the urgency), a reference (an identifier copied from the text, or null) and a
summary; its labels are right by construction. `examples` (`by_examples`) is any other behaviour, told by a description.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import jsonschema
from pydantic import Discriminator, Field, Tag, TypeAdapter, ValidationError, model_validator

from tunesmith.memory.errors import BadInput
from tunesmith.tools.core.local_paths import expanded, is_folder
from tunesmith.tools.core.plain_file import read_plain_text
from tunesmith.tools.core.stage import Frozen
from tunesmith.tools.core.yaml_file import read_yaml
from tunesmith.tools.data.example_behaviour import ExampleBehaviour

_DEMO = "demo"
_SPEC_NAME = "behaviour.yaml"
_MAX_REHEARSAL_BYTES = 10 << 20
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_NUMBERS = frozenset({"amount", "date", "count", "small", "year", "phone", "postcode", "card", "model", "code"})


class Scenario(Frozen):
    """One thing that happens to people, and how its summary reads."""

    id: str
    facts: tuple[str, ...] = Field(min_length=1)
    """What happened, in the first person; `{product}` is drawn."""
    summaries: tuple[str, ...] = Field(min_length=1)
    mentions: tuple[str, ...] = Field(min_length=1)
    """Word beginnings; a text of this scenario holds at least one of them."""
    products: tuple[str, ...] = ()
    """What `{product}` is drawn from here; empty: the behaviour's own list."""
    only: tuple[str, ...] = ()
    """The cues that make sense here; empty: all."""


class Cue(Frozen):
    """How one degree shows in a text."""

    weight: float = Field(default=1, gt=0)
    phrases: tuple[str, ...] = ()
    """Of these one is said; empty: nothing is."""
    words: tuple[str, ...] = ()
    """Any of these gives the degree away."""


class Reference(Frozen):
    """An identifier of digits, and the ways in which people write it."""

    digits: tuple[int, ...] = Field(min_length=1)
    absent_share: float = Field(ge=0, le=1)
    forms: tuple[str, ...] = Field(min_length=1)
    """`{n}` stands for the digits."""
    sentences: tuple[str, ...] = Field(min_length=1)
    """`{ref}` stands for a form; one is set between two sentences of the text."""
    inline: tuple[str, ...] = ()
    """The same, set behind the product where the text names it."""


class Distractors(Frozen):
    """Sentences with numbers that are not the reference."""

    share: float = Field(ge=0, le=1)
    phrases: tuple[str, ...] = Field(min_length=1)


class Writer(Frozen):
    """How a served model is asked to write: by going on after a beginning, which is what a small model does well."""

    retell: str
    """Asks for a list of texts about one scenario; the model adds one to those of the spec."""
    go_on: str
    """Asks for one text; the model goes on after the drawn fact."""
    retell_share: float = Field(default=0.5, ge=0, le=1)
    joiners: tuple[str, ...] = Field(min_length=1)
    """What a fact is followed by where the model goes on."""
    max_tokens: int = Field(ge=8, le=1024)
    never: tuple[str, ...] = ()
    """What shows that the model answered instead of writing; in lower case."""


class Voice(Frozen):
    """A way of writing."""

    name: str
    weight: float = Field(default=1, gt=0)
    typing: tuple[str, ...] = ("as-is",)
    """Drawn from: as-is, lower, caps, no-end (no full stop at the end)."""
    openers: tuple[str, ...] = ("",)


class Frame(Frozen):
    """What stands around a text: a greeting, a signature."""

    weight: float = Field(default=1, gt=0)
    before: str = ""
    after: str = ""


class Behaviour(Frozen):
    """A behaviour and the attributes of its training rows."""

    kind: Literal["attributes"] = "attributes"
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    goal: str
    prompt: str
    """The user's message of suites and rows; `{{slot}}` stands for the text."""
    slot: str
    answer: dict[str, Any]
    """JSON Schema of the answer; its properties, in order, are the answer's keys."""
    group_field: str
    cue_field: str
    reference_field: str
    summary_field: str
    summary_words_max: int = Field(ge=1)
    meanings: dict[str, str] = Field(default_factory=dict)
    cues: dict[str, Cue] = Field(min_length=1)
    reference: Reference
    distractors: Distractors
    products: tuple[str, ...] = Field(min_length=1)
    scenarios: dict[str, tuple[Scenario, ...]] = Field(min_length=1)
    """By the value of the group field."""
    writer: Writer
    voices: tuple[Voice, ...] = Field(min_length=1)
    frames: tuple[Frame, ...] = (Frame(),)

    @property
    def sha256(self) -> str:
        """Digest of the whole spec, whatever its comments and layout."""
        return hashlib.sha256(self.model_dump_json(exclude={"kind"}).encode()).hexdigest()

    @property
    def keys(self) -> tuple[str, ...]:
        """The answer's keys, in the order that the answer gives them."""
        return tuple(self.answer["properties"])

    def render(self, text: str) -> str:
        """The user's message around a text."""
        return self.prompt.replace("{{" + self.slot + "}}", text)

    @model_validator(mode="after")
    def _consistent(self) -> Behaviour:
        jsonschema.Draft202012Validator.check_schema(self.answer)
        fields = (self.group_field, self.cue_field, self.reference_field, self.summary_field)
        if sorted(self.keys) != sorted(fields):
            raise ValueError(f"answer has the keys {list(self.keys)}, but the fields are {list(fields)}")
        for field, drawn in ((self.group_field, self.scenarios), (self.cue_field, self.cues)):
            allowed = self.answer["properties"][field].get("enum", list(drawn))
            if set(allowed) != set(drawn):
                raise ValueError(f"{field} may be {allowed}, but {list(drawn)} is what can be drawn")
        if "{{" + self.slot + "}}" not in self.prompt:
            raise ValueError(f"prompt has no {{{{{self.slot}}}}}: there is no place for the text")
        for group in self.scenarios.values():
            for scenario in group:
                _check_scenario(scenario, self.cues, self.summary_words_max)
        _check_placeholders(self.distractors.phrases, _NUMBERS)
        return self


def _kind_of(document: Any) -> Any:
    return document.get("kind", "attributes") if isinstance(document, dict) else "attributes"


AnyBehaviour: TypeAlias = Behaviour | ExampleBehaviour
_SPEC: TypeAdapter[AnyBehaviour] = TypeAdapter(
    Annotated[
        Annotated[Behaviour, Tag("attributes")] | Annotated[ExampleBehaviour, Tag("examples")],
        Discriminator(
            _kind_of,
            custom_error_type="kind",
            custom_error_message="kind is one of attributes, examples (left out: attributes)",
        ),
    ]
)


def _check_scenario(scenario: Scenario, cues: dict[str, Cue], words_max: int) -> None:
    _check_placeholders((*scenario.facts, *scenario.summaries), {"product"})
    for fact in scenario.facts:
        if not mentions(fact, scenario.mentions):
            raise ValueError(f"scenario {scenario.id}: {fact!r} holds none of its own mentions")
    if any("{product}" not in f for f in scenario.facts) and all("{product}" in s for s in scenario.summaries):
        raise ValueError(f"scenario {scenario.id}: a fact without a product needs a summary without one")
    for summary in scenario.summaries:
        if len(summary.split()) + summary.count("{product}") * 2 > words_max:
            raise ValueError(f"scenario {scenario.id}: the summary {summary!r} can exceed {words_max} words")
    if not set(scenario.only) <= set(cues):
        raise ValueError(f"scenario {scenario.id}: only {list(scenario.only)}, but the cues are {list(cues)}")


def _check_placeholders(texts: tuple[str, ...], known: set[str] | frozenset[str]) -> None:
    for text in texts:
        if odd := set(_PLACEHOLDER.findall(text)) - known:
            raise ValueError(f"{text!r} has the placeholder {sorted(odd)[0]!r}; known are {', '.join(sorted(known))}")


def mentions(text: str, words: tuple[str, ...]) -> bool:
    """Whether any of `words` begins a word of `text`, whatever the case."""
    return any(re.search(rf"(?<!\w){re.escape(word)}", text, re.IGNORECASE) for word in words)


def behaviour_folder(name: str) -> Path:
    """Where a behaviour lies: 'demo' in the package, else the folder of the file or the folder itself."""
    if name == _DEMO:
        return Path(str(files("tunesmith.prompts"))) / _DEMO
    path = expanded(name)
    return path if is_folder(path) else path.parent


def load_behaviour(name: str) -> AnyBehaviour:
    """Read the spec of a behaviour: 'demo', a YAML file, or a folder with behaviour.yaml. Raises BadInput."""
    path = expanded(name)
    named = name != _DEMO and not is_folder(path)
    path = path if named else behaviour_folder(name) / _SPEC_NAME
    document = read_yaml(path, "behaviour", through_link=named)
    try:
        return _SPEC.validate_python(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])  # the first part is the kind
        raise BadInput(f"{path}: {where + ': ' if where else ''}{first['msg']}") from None
    except jsonschema.SchemaError as error:
        raise BadInput(f"{path}: answer is not a JSON Schema: {error.message}") from None


def load_rehearsal(name: str) -> list[str]:
    """The ordinary prompts that keep the rest of the model as it was, one a line; none where there is no file.

    Raises BadInput for what is no plain file of bounded size in the behaviour's own folder: it becomes training rows.
    """
    path = behaviour_folder(name) / "rehearsal.txt"
    if not os.path.lexists(path):
        return []
    text = read_plain_text(path, _MAX_REHEARSAL_BYTES, through_link=False)
    lines = (line.strip() for line in text.splitlines())
    return [line.replace("\\n", "\n") for line in lines if line and not line.startswith("#")]


def pins_of(behaviour: AnyBehaviour, rehearsal: Sequence[str]) -> dict[str, str]:
    """Digests of everything that a behaviour folder gives to training, for a plan to be bound to."""
    told = json.dumps(list(rehearsal), ensure_ascii=False)
    return {"behaviour": behaviour.sha256, "rehearsal prompts": hashlib.sha256(told.encode()).hexdigest()}
