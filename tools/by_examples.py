"""A behaviour by examples: what its user described, the rules that its answers keep, and how its rows are asked for.

A row is two requests to a served model: a message, written about a drawn subject in a drawn manner, and the answer to
it, with the description as system prompt and examples as shots. A pure function of the behaviour, a seed and a row's
number, but for the subjects, which the model names first. The examples themselves are test cases, never rows.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import Field

from tunesmith.tools.answer_rules import Rule, broken_rule
from tunesmith.tools.described import Description
from tunesmith.tools.likeness import Likeness, loops, normal

SUBJECTS_ASKED = 20
"""Of one request."""
_SUBJECT_WORDS = 8
_SHOT_CHARS = 6_000
_SHOTS = 4
_PROMPT_WORDS_MAX = 120
_TOKENS_PER_CHAR = 0.4
LIKE_AN_EXAMPLE = 85.0
"""Similarity, of 100, from which a written message counts as one of the user's examples."""
_LONG_ANSWER_CHARS = 60

_ANGLES = (
    "everyday things", "unusual things", "what a beginner would bring up", "what an expert would bring up", "problems",
    "small details", "big undertakings", "things for children", "things for older people", "things at home",
    "things at work", "things on a journey", "things in summer", "things in winter", "cheap things", "expensive things",
    "things from other countries", "old things", "new things", "things for one person", "things for many people",
    "quick things", "slow things", "things that people often get wrong",
)  # fmt: skip
_SHAPES = ("a question", "a question", "a request", "a request", "a plain statement of what the person needs")
_LENGTHS = (
    "a few words", "one short sentence", "one short sentence", "one sentence", "two sentences",
    "three sentences, with a detail of the person's own situation",
)  # fmt: skip
_VOICES = (
    "plainly", "plainly", "politely", "casually, in small letters", "in a hurry", "like a chatty person",
    "like somebody whose English is not perfect", "formally", "like a worried person",
)  # fmt: skip
_LEADS = re.compile(
    r"^\s*(?:here (?:is|are)\b[^\n]*:|(?:user|message|person|prompt)\s*:|sure\b[^\n]*[:!])\s*", re.IGNORECASE
)
_NOT_A_MESSAGE = re.compile(r"as an ai\b|language model|^(?:sure|certainly|of course)[,!]|<\|", re.IGNORECASE)
_LIST_MARK = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s*")


class ExampleBehaviour(Description):
    """A described behaviour whose rows a served model writes by the examples."""

    kind: Literal["examples"] = "examples"
    rules: tuple[Rule, ...] = ()
    """What every answer keeps; a rule that is left out is asked of nobody."""
    answer_tokens: int = Field(default=0, ge=0, le=4096)
    """Tokens an answer may have; 0: told from the longest example."""

    @property
    def sha256(self) -> str:
        """Digest of the whole spec, whatever its comments and layout."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @property
    def prompt(self) -> str:
        """The user's message of suites and rows: nothing stands around the text."""
        return "{{message}}"

    @property
    def slot(self) -> str:
        """The var of a case that holds the text."""
        return "message"

    @property
    def max_tokens(self) -> int:
        """Of an answer: half as much again as the longest example may need."""
        longest = max(len(example.answer) for example in self.examples)
        return self.answer_tokens or min(4096, max(48, round(longest * _TOKENS_PER_CHAR * 1.5)))


@dataclass(frozen=True, slots=True)
class Drawn:
    """What was decided about a row before a word of it was written."""

    row_id: str
    subject: str
    """Empty where the writer named none."""
    shape: str
    length: str
    voice: str
    shots: tuple[int, ...]
    """Numbers of the examples that are shown, in this order."""

    def as_dict(self) -> dict[str, Any]:
        """For the record of the row."""
        return asdict(self)


def draw_row(behaviour: ExampleBehaviour, subjects: Sequence[str], seed: int, index: int) -> Drawn:
    """What row number `index` is like: the subjects in turn, each once before any comes again."""
    rng = random.Random(f"{seed}/{index}")
    subject = ""
    if subjects:
        lap, place = divmod(index, len(subjects))
        subject = random.Random(f"{seed}/{lap}").sample(list(subjects), len(subjects))[place]
    count, first = len(behaviour.examples), rng.randrange(len(behaviour.examples))
    return Drawn(
        row_id=f"w{index:05d}",
        subject=subject,
        shape=rng.choice(_SHAPES),
        length=rng.choice(_LENGTHS),
        voice=rng.choice(_VOICES),
        # Turned, not shuffled: few different beginnings, so that a server's prefix cache holds them.
        shots=tuple((first + step) % count for step in range(min(_SHOTS, count))),
    )


# Subjects


def subject_messages(behaviour: Description, seed: int, number: int) -> list[dict[str, str]]:
    """Asks for subjects of messages, each time from another side."""
    lap, place = divmod(number, len(_ANGLES))
    angle = random.Random(f"{seed}/angles/{lap}").sample(_ANGLES, len(_ANGLES))[place]
    shown = "\n".join(f"- {_one_line(example.prompt)}" for example in behaviour.examples[:3])
    asked = (
        f"People send messages of this kind: {behaviour.when}\n\nThree of them:\n{shown}\n\n"
        f"List {SUBJECTS_ASKED} other subjects that messages of this very kind can be about. Think of {angle}. "
        "One subject a line, two to five words each, nothing else."
    )
    return [{"role": "user", "content": asked}]


def subjects_in(answered: str) -> list[str]:
    """The subjects that an answer lists."""
    lines = (_LIST_MARK.sub("", line).strip().strip("\"'*.").strip() for line in answered.splitlines())
    return [line for line in lines if line and line[-1] != ":" and len(line.split()) <= _SUBJECT_WORDS]


def distinct(subjects: Iterable[str]) -> list[str]:
    """Subjects without those that were named before, in their order."""
    found: dict[str, str] = {}
    for subject in subjects:
        found.setdefault(normal(subject, digits_count=True), subject)
    return list(found.values())


# Messages


def prompt_messages(behaviour: Description, drawn: Drawn) -> list[dict[str, str]]:
    """Asks for one message as drawn."""
    shown = "\n".join(f"- {_one_line(behaviour.examples[shot].prompt)}" for shot in drawn.shots[:3])
    about = f" about {drawn.subject}" if drawn.subject else " about something else"
    asked = (
        f"People send messages of this kind: {behaviour.when}\n\nSome of them:\n{shown}\n\n"
        f"Write another message of this kind,{about}. It is {drawn.shape}, {drawn.length}; the person writes "
        f"{drawn.voice}. Write the message only, not an answer to it."
    )
    return [{"role": "user", "content": asked}]


def prompt_in(answered: str) -> str:
    """The message in a writer's answer, without what a writer says around it."""
    text = _LEADS.sub("", answered.strip()).strip()
    text = _LIST_MARK.sub("", text) if "\n" not in text else text
    quoted = len(text) > 2 and text[0] in '"“' and text[-1] in '"”'
    return (text[1:-1] if quoted else text).strip()


def prompt_problem(behaviour: Description, prompt: str) -> str:
    """Why a message cannot be a row's; empty: it can. The first word is the kind."""
    words = len(prompt.split())
    if not 1 <= words <= max(_PROMPT_WORDS_MAX, *(2 * len(example.prompt.split()) for example in behaviour.examples)):
        return f"length: a message of {words} words"
    if odd := _NOT_A_MESSAGE.search(prompt):
        return f"role: the message holds {odd[0]!r}"
    if loops(prompt):
        return "loop: the message repeats itself"
    place, score = Likeness([example.prompt for example in behaviour.examples]).nearest(prompt, digits_count=True)
    return f"leak: the message is {score:.0f} of 100 like example {place + 1}" if score >= LIKE_AN_EXAMPLE else ""


# Answers


def answer_messages(behaviour: ExampleBehaviour, drawn: Drawn, prompt: str, broken: str = "") -> list[dict[str, str]]:
    """Asks for the answer: description as system prompt, examples as turns; `broken` says what went wrong before."""
    turns: list[dict[str, str]] = []
    room = _SHOT_CHARS
    for shot in drawn.shots:
        example = behaviour.examples[shot]
        room -= len(example.prompt) + len(example.answer)
        if room < 0 and turns:
            break
        turns += [_turn("user", example.prompt), _turn("assistant", example.answer)]
    return [_turn("system", instructions(behaviour, broken)), *turns, _turn("user", prompt)]


def instructions(behaviour: ExampleBehaviour, broken: str = "") -> str:
    """The behaviour as a system prompt."""
    parts = [f"When this applies: {behaviour.when}", f"Answer like this: {behaviour.what}", f"Never: {behaviour.never}"]
    if behaviour.rules:
        parts.append("Every answer keeps these rules:\n" + "\n".join(f"- {rule.says}" for rule in behaviour.rules))
    return "\n\n".join([*parts, *([f"Take care: {broken}."] if broken else [])])


def answer_problem(behaviour: ExampleBehaviour, answer: str) -> str:
    """Why an answer cannot be a row's; empty: it can. The first word is the kind."""
    if not answer.strip():
        return "empty: there is no answer"
    if rule := broken_rule(behaviour.rules, answer):
        return f"rule: not kept: {rule.says}"
    long = len(normal(answer)) >= _LONG_ANSWER_CHARS
    copied = long and normal(answer) in {normal(example.answer) for example in behaviour.examples}
    return "copy: the answer is that of an example" if copied else ""


def json_schema(behaviour: ExampleBehaviour) -> dict[str, Any] | None:
    """One JSON Schema of all is-json rules, for a server that can be held to it; None where the form is not JSON."""
    schemas = [rule.value for rule in behaviour.rules if rule.type == "is-json" and isinstance(rule.value, dict)]
    if not schemas or schemas[0].get("type") != "object":
        return None
    merged = {**schemas[0], "properties": {key: dict(of) for key, of in schemas[0].get("properties", {}).items()}}
    for schema in schemas[1:]:
        for key, of in schema.get("properties", {}).items():
            merged["properties"].setdefault(key, {}).update(of)
    return merged


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _one_line(text: str) -> str:
    return " ".join(text.split())
