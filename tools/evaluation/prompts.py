"""The rival of a fine-tune: the best that the base can be told, made from the behaviour's own spec.

A few candidates (instructions alone, with examples in the system prompt, with examples as turns) are tried on a dev
split of rows drawn for that alone: never on the suite's cases, and never on rows that training sees.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jsonschema

from tunesmith.tools.data import example_behaviour
from tunesmith.tools.data.attributes import Attributes, answer_of, draw
from tunesmith.tools.data.behaviour import AnyBehaviour, Behaviour

_DEV_SEED, _SHOT_SEED = 880_301, 880_302
"""Seeds of their own: rows for training are drawn with the seed of `generate`."""
_FEW_SHOTS = 2


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something to say before every conversation."""

    name: str
    preamble: tuple[dict[str, str], ...]


@dataclass(frozen=True, slots=True)
class DevRow:
    """A drawn text and the answer that is right for it."""

    attributes: Attributes
    message: str
    answer: str


@dataclass(frozen=True, slots=True)
class Tried:
    """How a candidate did on the dev split."""

    name: str
    rows: int
    right: int
    """Answers in the right form that give the drawn group and the drawn reference."""
    well_formed: int
    """Answers that are one line of JSON and fit the behaviour's schema."""
    prompt_tokens: int
    """Of all its requests together."""


def candidates(behaviour: AnyBehaviour) -> list[Candidate]:
    """What is tried, the shortest first; as many examples as there are groups, one of each.

    Of a behaviour by examples there is one, without them: its examples are cases of the target suite.
    """
    if isinstance(behaviour, example_behaviour.ExampleBehaviour):
        return [Candidate("instructions", (_system(example_behaviour.instructions(behaviour)),))]
    system = instructions(behaviour)
    every = _rows(behaviour, _SHOT_SEED, len(behaviour.scenarios))
    few = every[:_FEW_SHOTS]
    turns = [turn for row in every for turn in (_user(row.message), {"role": "assistant", "content": row.answer})]
    return [
        Candidate("instructions", (_system(system),)),
        Candidate(f"instructions and {len(few)} examples", (_system(system + _examples(few)),)),
        Candidate(f"instructions and {len(every)} examples", (_system(system + _examples(every)),)),
        Candidate(f"instructions, then {len(every)} examples as turns", (_system(system), *turns)),
    ]


def dev_rows(behaviour: Behaviour, count: int) -> list[DevRow]:
    """The dev split: the groups in turn, so that it is balanced."""
    return _rows(behaviour, _DEV_SEED, count)


def best(tried: Sequence[Tried]) -> Tried:
    """The candidate with the most right answers; then the most well-formed; then the earlier, shorter one."""
    return max(tried, key=lambda one: (one.right, one.well_formed, -tried.index(one)))


def instructions(behaviour: Behaviour) -> str:
    """The behaviour as instructions: its goal, each key with its values, what the values mean."""
    lines = [_key_line(behaviour, key, schema) for key, schema in behaviour.answer["properties"].items()]
    meanings = [f"- {name}: {meaning}" for name, meaning in behaviour.meanings.items()]
    parts = [behaviour.goal.strip(), "The keys, in this order:\n" + "\n".join(lines)]
    if meanings:
        parts.append(f"What the values of {behaviour.group_field} mean:\n" + "\n".join(meanings))
    return "\n\n".join(parts)


def _key_line(behaviour: Behaviour, key: str, schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return f"- {key}: one of {', '.join(map(str, schema['enum']))}"
    if key == behaviour.summary_field:
        return f"- {key}: what it is about, in at most {behaviour.summary_words_max} words"
    kinds = schema.get("type", "string")
    null = ", or null where the text has none" if "null" in kinds else ""
    digits = "its digits as text" if key == behaviour.reference_field else "text"
    return f"- {key}: {digits}{null}"


def judge(behaviour: Behaviour, row: DevRow, answered: str) -> tuple[bool, bool]:
    """(well-formed, right): form by the behaviour's schema, then the drawn group and reference."""
    text = answered.strip()
    try:
        found = json.loads(text)
    except ValueError:
        return False, False
    formed = "\n" not in text and isinstance(found, dict) and tuple(found) == behaviour.keys
    if not formed or not jsonschema.Draft202012Validator(behaviour.answer).is_valid(found):
        return False, False
    wanted = json.loads(row.answer)
    return True, all(found[key] == wanted[key] for key in (behaviour.group_field, behaviour.reference_field))


def _rows(behaviour: Behaviour, seed: int, count: int) -> list[DevRow]:
    drawn = [draw(behaviour, seed, index) for index in range(count)]
    return [DevRow(a, behaviour.render(_text(a)), answer_of(behaviour, a)) for a in drawn]


def _text(attributes: Attributes) -> str:
    """A text in the spec's own words that says all that was drawn."""
    said = [attributes.fact, attributes.distractor, attributes.reference_sentence, attributes.cue_phrase]
    sentences = [text if text[-1] in ".!?" else f"{text}." for text in said if text]
    sentences = [text[:1].upper() + text[1:] for text in sentences]
    random.Random(f"{attributes.row_id}/{attributes.fact}").shuffle(sentences)
    return attributes.before + " ".join(sentences) + attributes.after


def _examples(rows: Sequence[DevRow]) -> str:
    return "\n\nExamples:\n\n" + "\n\n".join(f"{row.message}\n\n{row.answer}" for row in rows)


def _system(content: str) -> dict[str, str]:
    return {"role": "system", "content": content}


def _user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}
