"""A behaviour by examples: what its user described, the rules that its answers keep, and how its rows are asked for.

A row is two requests to a served model: a message, written about a drawn subject in a drawn manner, and the answer to
it, with the description as system prompt and examples as shots. A pure function of the behaviour, a seed and a row's
number, but for the subjects, which the model names first. The examples themselves are test cases, never rows.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from statistics import median
from typing import Any, Literal

from pydantic import Field

from tunesmith.memory.records import Verdict
from tunesmith.tools.data.answer_rules import Rule, broken_rule
from tunesmith.tools.data.description import Description
from tunesmith.tools.data.similarity import Likeness, loops, normal
from tunesmith.tools.serving.client import ChatRequest

SUBJECTS_ASKED = 20
"""Of one request."""
_SUBJECT_WORDS = 8
_SUBJECT_TOKENS, _SUBJECT_TEMPERATURE = 160, 0.9
_MESSAGE_TOKENS_MIN = 60
_GO_ON: Mapping[str, Any] = {"continue_final_message": True, "add_generation_prompt": False, "top_p": 0.95}
_SHOT_CHARS = 3_000
"""Of examples in one request: a bench server holds 2,048 tokens, the answer among them."""
_SHOTS = 4
_PROMPT_WORDS_MAX = 120
_TOKENS_PER_CHAR = 0.4
LIKE_AN_EXAMPLE = 85.0
"""Similarity, of 100, from which a written message counts as one of the user's examples."""
_LONG_ANSWER_CHARS = 60

_ANGLES = (
    "", "Take everyday ones.", "Take unusual ones.", "Take ones that a beginner brings up.", "Take difficult ones.",
    "Take ones that an expert brings up.", "Take problems and mistakes.", "Take small details.", "Take quick ones.",
    "Take ones from many countries.", "Take ones for a special occasion.", "Take ones for little money.",
)  # fmt: skip
_OPENERS = (
    "How long", "How do I", "How much", "How can I", "What should I do if", "What is the best way to", "What is",
    "Why does", "Why is", "Can I", "Can you", "Could you tell me", "Is it", "Do I need", "Should I", "Which", "When",
    "Please", "I have", "I want to", "I need", "I tried", "My", "Help,", "Quick question:", "Any idea", "Tell me",
    "Does", "We",
)  # fmt: skip
"""How short messages begin; a beginning brings more variety than any wish for it."""
_OPENED_SHARE = 0.75
_OPENED_WORDS_MAX = 30
_TYPING = ("as-is", "as-is", "as-is", "as-is", "lower", "no-end")
_NOT_A_MESSAGE = re.compile(
    r"as an ai\b|language model|<\||^(?:sure|certainly|of course|sorry)[,!]|\bcan(?:no|')t assist\b|\bassist you\b|"
    r"how can i help|(?:provide|give) (?:me |us )?(?:more|the necessary) (?:context|information|details|materials)",
    re.IGNORECASE,
)
"""What shows that a writer answered instead of writing."""
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
    opener: str
    """What the message begins with; empty: anything."""
    typing: str
    """As-is, lower, or no-end: without the mark at its end."""
    shots: tuple[int, ...]
    """Numbers of the examples whose messages are shown, in this order."""

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
    short = median(len(example.prompt.split()) for example in behaviour.examples) <= _OPENED_WORDS_MAX
    return Drawn(
        row_id=f"w{index:05d}",
        subject=subject,
        opener=rng.choice(_OPENERS) if short and rng.random() < _OPENED_SHARE else "",
        typing=rng.choice(_TYPING),
        shots=tuple((first + step) % count for step in range(min(_SHOTS, count))),
    )


# Subjects


def subject_request(behaviour: Description, model: str, seed: int, number: int) -> ChatRequest:
    """Asks for subjects of messages, each time from another side."""
    lap, place = divmod(number, len(_ANGLES))
    angle = random.Random(f"{seed}/angles/{lap}").sample(_ANGLES, len(_ANGLES))[place]
    asked = (
        f"{_kind_of_messages(behaviour)}\n\nList {SUBJECTS_ASKED} different subjects of such messages. {angle} One "
        "subject a line, one to four words each, nothing else."
    )
    messages = [_turn("user", asked), _turn("assistant", "1.")]
    return ChatRequest(f"s{number:03d}", model, messages, _SUBJECT_TOKENS, _SUBJECT_TEMPERATURE, extra=dict(_GO_ON))


def _kind_of_messages(behaviour: Description) -> str:
    return f"Messages that different people sent. What all of them have in common: {behaviour.when.rstrip('.')}."


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


def message_request(behaviour: Description, drawn: Drawn, model: str, temperature: float) -> ChatRequest:
    """Asks for one message as drawn: the writer goes on with a list of such messages, which small models do best."""
    shown = _fitting([(behaviour.examples[shot].prompt,) for shot in drawn.shots])
    about = f" The last one is about: {drawn.subject}." if drawn.subject else ""
    lines = [f"{number}. {prompt}" for number, (prompt,) in enumerate(shown, 1)]
    begun = "\n".join([*lines, f"{len(lines) + 1}. {drawn.opener}".rstrip()])
    end = f"\n{len(lines) + 2}." if any("\n" in prompt for (prompt,) in shown) else "\n"
    messages = [_turn("user", f"{_kind_of_messages(behaviour)}{about}"), _turn("assistant", begun)]
    longest = max(len(prompt) for (prompt,) in shown)
    tokens = max(_MESSAGE_TOKENS_MIN, round(longest * _TOKENS_PER_CHAR * 1.5))
    return ChatRequest(drawn.row_id, model, messages, tokens, temperature, extra={**_GO_ON, "stop": [end]})


def message_in(drawn: Drawn, answered: str) -> str:
    """The message that a writer went on with, typed as drawn."""
    text = answered.strip()
    text = f"{drawn.opener} {text}".strip() if text else ""
    if len(text) > 2 and text[0] in '"“' and text[-1] in '"”':
        text = text[1:-1].strip()
    if drawn.typing == "lower":
        return text.lower()
    return text.rstrip(".?!") if drawn.typing == "no-end" else text


def kind_request(
    behaviour: Description, identity: str, prompt: str, others: Sequence[str], model: str, *, without: int = -1
) -> ChatRequest:
    """Asks whether a message is of the kind; shown are examples, but for one, and `others` that are not."""
    shown = [(example.prompt, "yes") for place, example in enumerate(behaviour.examples) if place != without]
    pairs = zip(_fitting(shown), [(other, "no") for other in others], strict=False)
    turns = [
        turn
        for pair in pairs
        for text, answer in pair
        for turn in (_turn("user", _kind_question(behaviour, text)), _turn("assistant", answer))
    ]
    messages = [*turns, _turn("user", _kind_question(behaviour, prompt))]
    return ChatRequest(identity, model, messages, 3, extra={"structured_outputs": {"choice": ["yes", "no"]}})


def _kind_question(behaviour: Description, prompt: str) -> str:
    kind = behaviour.when.rstrip(".")
    return f"A kind of messages: {kind}.\n\nThe message: {prompt}\n\nIs it of that kind? Answer yes or no."


def prompt_problem(behaviour: Description, prompt: str) -> Verdict | None:
    """Why a message cannot be a row's; None: it can."""
    words = len(prompt.split())
    if not 1 <= words <= max(_PROMPT_WORDS_MAX, *(2 * len(example.prompt.split()) for example in behaviour.examples)):
        return Verdict("length", f"a message of {words} words")
    if odd := _NOT_A_MESSAGE.search(prompt):
        return Verdict("role", f"the message holds {odd[0]!r}")
    if loops(prompt):
        return Verdict("loop", "the message repeats itself")
    place, score = Likeness([example.prompt for example in behaviour.examples]).nearest(prompt, digits_count=True)
    if score >= LIKE_AN_EXAMPLE:
        return Verdict("leak", f"the message is {score:.0f} of 100 like example {place + 1}")
    return None


# Answers


def answer_messages(behaviour: ExampleBehaviour, prompt: str, broken: str = "") -> list[dict[str, str]]:
    """Asks for the answer: description as system prompt, examples as turns; `broken` says what went wrong before.

    All answers have the same beginning, so that a server's prefix cache holds it.
    """
    shown = _fitting([(example.prompt, example.answer) for example in behaviour.examples[:_SHOTS]])
    turns = [turn for prompt_, answer in shown for turn in (_turn("user", prompt_), _turn("assistant", answer))]
    return [_turn("system", instructions(behaviour, broken)), *turns, _turn("user", prompt)]


def instructions(behaviour: ExampleBehaviour, broken: str = "") -> str:
    """The behaviour as a system prompt."""
    parts = [f"When this applies: {behaviour.when}", f"Answer like this: {behaviour.what}", f"Never: {behaviour.never}"]
    if behaviour.rules:
        parts.append("Every answer keeps these rules:\n" + "\n".join(f"- {rule.says}" for rule in behaviour.rules))
    return "\n\n".join([*parts, *([f"Take care: {broken}."] if broken else [])])


def answer_problem(behaviour: ExampleBehaviour, answer: str) -> Verdict | None:
    """Why an answer cannot be a row's; None: it can."""
    if not answer.strip():
        return Verdict("empty", "there is no answer")
    if rule := broken_rule(behaviour.rules, answer):
        return Verdict("rule", f"not kept: {rule.says}")
    long = len(normal(answer)) >= _LONG_ANSWER_CHARS
    copied = long and normal(answer) in {normal(example.answer) for example in behaviour.examples}
    return Verdict("copy", "the answer is that of an example") if copied else None


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


def _fitting(shots: Sequence[tuple[str, ...]]) -> Sequence[tuple[str, ...]]:
    """The first of `shots` that fit into a request together, and at least one."""
    sizes = accumulate(sum(map(len, shot)) for shot in shots)
    return shots[: max(1, sum(size <= _SHOT_CHARS for size in sizes))]


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
