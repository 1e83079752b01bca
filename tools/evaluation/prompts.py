"""The rival of a fine-tune: the best that the base can be told, made from the behaviour's own spec.

A few candidates (instructions alone, with examples in the system prompt, with examples as turns) are tried on a dev
split of rows drawn for that alone: never on the suite's cases, and never on rows that training sees.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.answer_rules import broken_rule
from tunesmith.tools.data.answers import instructions
from tunesmith.tools.data.draw import Draw, answer_of, draw
from tunesmith.tools.data.spec import Spec

_DEV_SEED, _SHOT_SEED = 880_301, 880_302
"""Seeds of their own: rows for training are drawn with the seed of `generate`."""
_FEW_SHOTS = 2


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something to say before every conversation."""

    name: str
    preamble: tuple[dict[str, str], ...]
    schema: Mapping[str, Any] | None = None
    """What the server holds the answers to, where they are JSON."""


@dataclass(frozen=True, slots=True)
class DevRow:
    """A drawn text and the answer that is right for it."""

    drawn: Draw
    message: str
    answer: str


@dataclass(frozen=True, slots=True)
class Tried:
    """How a candidate did on the dev split."""

    name: str
    rows: int
    right: int
    """Answers in the right form that give the drawn labels and typed values."""
    well_formed: int
    """Answers that keep the behaviour's rules."""
    prompt_tokens: int
    """Of all its requests together."""


def candidates(spec: Spec) -> list[Candidate]:
    """What is tried, the shortest first; as many examples as there are values of the first label, one of each.

    Where the answer is JSON, the server is held to its schema too: the cheapest way to a form, and so a rival of any
    training for it. Where rows cannot be drawn without a model there is one candidate, without examples: those are
    cases of the target suite.
    """
    system = instructions(spec)
    schema = form_of(spec).schema()
    if not spec.seeded:
        return [_held(Candidate("instructions", (_system(system),)), schema)]
    every = _rows(spec, _SHOT_SEED, len(spec.labels[0].values) if spec.labels else _FEW_SHOTS)
    few = every[:_FEW_SHOTS]
    turns = [turn for row in every for turn in (_user(row.message), {"role": "assistant", "content": row.answer})]
    made = [
        Candidate("instructions", (_system(system),)),
        Candidate(f"instructions and {len(few)} examples", (_system(system + _examples(few)),)),
        Candidate(f"instructions and {len(every)} examples", (_system(system + _examples(every)),)),
        Candidate(f"instructions, then {len(every)} examples as turns", (_system(system), *turns)),
    ]
    return [*made, *([_held(made[0], schema), _held(made[-1], schema)] if schema else [])]


def _held(candidate: Candidate, schema: Mapping[str, Any] | None) -> Candidate:
    return replace(candidate, name=f"{candidate.name}, held to the JSON schema", schema=schema) if schema else candidate


def dev_rows(spec: Spec, count: int) -> list[DevRow]:
    """The dev split: the situations in turn, so that it is balanced."""
    return _rows(spec, _DEV_SEED, count)


def best(tried: Sequence[Tried]) -> Tried:
    """The candidate with the most right answers; then the most well-formed; then the earlier, shorter one."""
    return max(tried, key=lambda one: (one.right, one.well_formed, -tried.index(one)))


def judge(spec: Spec, row: DevRow, answered: str) -> tuple[bool, bool]:
    """(well-formed, right): form by the rules, then the labels that a situation decides, and typed values."""
    text = answered.strip()
    records, wanted = form_of(spec).parse(text), form_of(spec).parse(row.answer)
    if records is None or broken_rule(spec.rules, text) is not None:
        return False, False
    reading = records[0] if records else {}
    decided = {name for situation in spec.situations for name in situation.sets}
    names = [a.name for a in spec.attributes if a.shown and (a.typed or a.name in decided)]
    return True, all(one.get(name) == reading.get(name) for one in wanted or [] for name in names)


def _rows(spec: Spec, seed: int, count: int) -> list[DevRow]:
    drawn = [draw(spec, seed, index) for index in range(count)]
    return [DevRow(one, spec.render(_text(one)), answer_of(spec, one)) for one in drawn]


def _text(drawn: Draw) -> str:
    """A text in the spec's own words that says all that was drawn."""
    parts = drawn.told
    phrases = [
        parts["fact"],
        parts["distractor"],
        *(text for name, text in parts.items() if name.startswith("sentence ")),
    ]
    phrases += [text for text in drawn.surfaces[0].values() if not text.isdigit()]
    sentences = [text if text[-1] in ".!?" else f"{text}." for text in phrases if text]
    sentences = [text[:1].upper() + text[1:] for text in sentences]
    random.Random(f"{drawn.row_id}/{parts['fact']}").shuffle(sentences)
    return parts["before"] + " ".join(sentences) + parts["after"]


def _examples(rows: Sequence[DevRow]) -> str:
    return "\n\nExamples:\n\n" + "\n\n".join(f"{row.message}\n\n{row.answer}" for row in rows)


def _system(content: str) -> dict[str, str]:
    return {"role": "system", "content": content}


def _user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}
