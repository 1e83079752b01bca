"""Two things said at once: where a sentence parts, and what of it is done now.

A sentence parts where it ends or a word such as `and` joins, if each part by itself is read as a request of another
kind than the other. A question is answered before an order changes what it asks about; of two orders the first is
carried out, since what the second is about is what the first makes, and the user is told that the second waits; so
waits a question about the results of a test that is only ordered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import Literal

from tunesmith.agent.driver import describing
from tunesmith.agent.driver.look_ups import turn_context
from tunesmith.agent.driver.turn_deps import TurnDeps
from tunesmith.agent.words.encoder import NoEncoder
from tunesmith.agent.words.lexicon import lexicon, words_of
from tunesmith.agent.words.reading import LONGEST, Context, Reading, read, reader
from tunesmith.agent.words.slots import Slot, slots_of
from tunesmith.tools.pipeline import catalog

_SENTENCE_ENDS, _STATED = "?.!;", (".", "!", ";")
_FEWEST_WORDS, _MOST_CUTS = 2, 4
"""Of each cut both parts are read, some 30 ms: a paste of many sentences is no order for two things."""
_BOTH, _QUESTIONS = 0.65, 0.75
"""From which probability each of two parts is a request of its own; where both are questions. Of 557 examples for one
thing that could part, 5 do; of 44 strangers' sentences for two things, 32."""
_CLAUSE = 3
"""Words at least of what stands behind a question and is told to be left."""
_LINES_OF_ALL = 16
_AFTER = ("plan.cost", "plan.show")
"""What is asked of a plan and is told with each change of it."""
_OF_RESULTS = ("compare", "result", "cases", "findings", "confusion")
"""What is asked of a test that is only ordered."""
_NO_PART = ("want", "follow", "remark", "describe")
"""Kinds that are read out of the middle of one wish or one question."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a sentence, and what it is read as."""

    text: str
    reading: Reading

    @property
    def asks(self) -> Literal["question", "order", "edit", ""]:
        """What of the three it is; empty where nothing that can be carried out was read."""
        one = self.reading
        if one.kind in _NO_PART:
            return ""
        if one.request is not None:
            return "question"
        if one.order is not None or one.kind == "go_on":
            return "order"
        if one.edits is not None and one.edits.changes:
            return "edit"
        return "question" if one.kind in ("term", "talk", *_AFTER) else ""


def steps_of(deps: TurnDeps) -> list[str]:
    """The user's words, in the things that they ask for, in the order in which those are done; what is not done now is
    left in `deps.rest`, or in `deps.later` where it rests on what an order makes."""
    deps.most_lines, deps.rest, deps.later = 0, "", ""
    whole = [deps.prompt]
    if describing.open_interview(deps.store.home) or len(deps.prompt) > LONGEST:
        return whole
    try:
        context = turn_context(deps)
        slots = slots_of(deps.prompt)
        if reader().head.label_of(deps.prompt) or (slots.all("path") and slots.all("model")):
            return whole  # rows of a file for a base: the answer about the file tells of both
        if (parts := _likeliest(deps.prompt, context)) is not None:
            return _in_turn(deps, *parts) or whole
        if deps.draft is None:
            deps.rest = _left(deps.prompt, context)
    except NoEncoder:
        pass
    return whole


def _likeliest(text: str, context: Context) -> tuple[Part, Part] | None:
    """The two parts of a sentence of which the less certain one is most certain; None where it asks for one thing."""
    best, parts = _BOTH, None
    for one, two in parted(text, context):
        least = min(one.reading.probability, two.reading.probability)
        if one.asks == two.asks == "question" and (least < _QUESTIONS or one.text.endswith(_STATED)):
            continue  # `my buddy has a 4090. could he train a 14b on it?` asks for one thing
        if one.asks and two.asks and one.reading.kind != two.reading.kind and least >= best:
            best, parts = least, (one, two)
    return parts


def _in_turn(deps: TurnDeps, one: Part, two: Part) -> list[str]:
    """What of two parts is done, in its order; empty where both are one change of the plan, made or imagined, or an
    order stands beside an open plan, which its own answer tells."""
    kinds = {one.asks, two.asks}
    if kinds == {"edit"} or (deps.draft is not None and "order" in kinds):
        return []
    if kinds == {"edit", "question"}:
        edit, question = (one, two) if one.asks == "edit" else (two, one)
        if question.reading.label in _AFTER:
            return [edit.text]
    order = one.reading.order
    tests = order is not None and bool(catalog.BY_NAME[order.stage].load().measures)
    if kinds == {"order"} or (one.asks == "order" and tests and two.reading.kind in _OF_RESULTS):
        deps.later = two.text
        return [one.text]
    deps.most_lines = _LINES_OF_ALL // 2
    if order is not None and two.reading.request is not None and getattr(two.reading.request, "path", None) == "":
        # `import FILE and tell me if a row is twice in it`
        deps.last_query = two.reading.request.model_copy(update={"path": str(order.fields.get("source", ""))})
    return [two.text, one.text] if (one.asks, two.asks) == ("order", "question") else [one.text, two.text]


def _left(text: str, context: Context) -> str:
    """What stands behind a question that is read with certainty, is one more and cannot be told which: where the whole
    is read as that question too, nobody would answer it."""
    for one, two in parted(text, context):
        first, second = one.reading, two.reading
        if first.sure and first.request and not second.sure and (second.request or second.order):
            other = first.kind != second.kind and len(second.slots.words) >= _CLAUSE
            if other and read(text, context).kind == first.kind:
                return two.text
    return ""


def parted(text: str, context: Context) -> Iterator[tuple[Part, Part]]:
    """A sentence in two parts of two words at least, at each of the first places where it may part."""
    for one, two in islice(_cut(text), _MOST_CUTS):
        if min(len(one.split()), len(two.split())) >= _FEWEST_WORDS:
            first = Part(one, read(one, context))
            yield first, Part(two, read(two, replace(context, before=first.reading.request)))


def _cut(text: str) -> Iterator[tuple[str, str]]:
    """A sentence in two, at each place where one ends or a word such as `and` joins two things said, that word left
    out; not where it joins two that are named, as in `r1 and r2`."""
    words, named = words_of(text), slots_of(text).named
    joining = {*lexicon()["joints"].words()}
    joints = {at for at, word in enumerate(words) if word.text in joining}
    for at, (one, two) in enumerate(pairwise(words)):
        between = text[one.end : two.start]
        ended = one.end + next((i + 1 for i, mark in enumerate(between) if mark in _SENTENCE_ENDS), 0)
        behind = next((word for i, word in enumerate(words) if i > at and i not in joints), None)
        if ended > one.end and text[ended : ended + 1].isspace() and behind:
            yield text[:ended], text[behind.start :]
        elif at + 1 in joints and at not in joints and behind and not _of_one_kind(named, one.end, behind.start):
            yield text[: one.end], text[behind.start :]


def _of_one_kind(named: Sequence[Slot], end: int, start: int) -> bool:
    """Whether what is named up to one place is of the kind of what is named from another on."""
    return bool({slot.kind for slot in named if slot.end == end} & {slot.kind for slot in named if slot.start == start})


def is_part(reading: Reading) -> bool:
    """Whether words that a sentence was parted into are acted on: they are short, and so read with less certainty."""
    return bool(Part("", reading).asks) and reading.probability >= _BOTH
