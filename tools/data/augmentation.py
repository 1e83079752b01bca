"""Messages made out of those that there are: near misses, variants that say other values, and other endings.

A variant of a kept row is for a later epoch: "dentist on tuesday at 4 pm" is "dentist on friday at 11:30" the next time
it is seen, right by construction as its first form is, and no model is asked. Only values that code draws and finds are
drawn anew: typed ones, and numbers that tell a label.

Near misses look like a behaviour's messages and want an ordinary answer: the user's own, and edits of kept messages. An
edit changes as little as it can; it is taken where the reader is surer of it being another kind than of any of the
user's examples. Ordinary requests in fixed forms about a whole message, or about values that the behaviour reads or
answers, need no model: they are a fifth at most. No word is picked out of a message: code cannot tell which are things.

Whether a message ends with a value tells nothing of its label: what one row ends with is put on another. A list goes on
as it began, so that a small writer gives every message of one label a signature and none of another (of 132 kept rows
all 32 of one label had none, and the 100 of the others all had one); a model then learns that in place of the label.
Where a value may be missing, which of a label's messages have one is evened out by code: an ending that is the value
alone is taken off, or put behind a message that has none. A value that stands in a sentence is left.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.resources import files
from itertools import count as count_from
from itertools import islice, zip_longest
from typing import Any, NamedTuple

from tunesmith.memory.records import TrainingRow
from tunesmith.memory.row_attributes import Draw
from tunesmith.tools.core.similarity import Likeness, word_count
from tunesmith.tools.core.yaml_file import read_own
from tunesmith.tools.data.answer_form import form_of
from tunesmith.tools.data.draw import in_turn
from tunesmith.tools.data.record_values import drawn_number, excluded, number_ranges
from tunesmith.tools.data.row_checks import drawn_problem, verbatim
from tunesmith.tools.data.spec import Attribute, Spec
from tunesmith.tools.data.typed_values import GLUED, draw_value, holds, surface_of
from tunesmith.tools.data.writer_requests import distinct_texts, prompt_text, written_message
from tunesmith.tools.serving.client import ChatRequest, assistant, system, user
from tunesmith.tools.serving.requests import Asker

_ALIKE = 88.0
"""Similarity, of 100, from which an edit is the message itself, or one that was made already: it teaches nothing."""
_SPARE = 1.6
"""Edits that are asked for, for each that is wanted: the reader takes some for the kind still."""
_ROUNDS = 3
"""In which what is lacking is asked for again, of other messages and other changes: what is lacking then, messages or
changes run out of, and templates give a part."""
FORMED_SHARE = 0.2
"""Of the near misses, those that templates give, at most: their forms are few, and a model would learn these in place
of what they say."""
_WORDS_MAX, _TOKENS_MIN = 60, 60
"""Of a message that can be a near miss; of an edit, whose message may be short; a longer one is hard to edit for a
small writer."""
_TEMPERATURE = 0.8
"""Other words are wanted, but of the same message: a list's requests, which may go anywhere, have 0.9."""
_LAPS = 4
"""Times that each text is put into a form, each time into another one."""
_ODD = re.compile(r"[\[\]{}<>|`]|^\(")
_ENDS_A_SENTENCE = ".!?…。！？"
_LOOSE = "\n,;:-–—"
"""What stands between a sentence and a value behind it, and goes with the value."""
_UNEVEN = 1
"""Rows of a label that may have the value, or lack it, beyond its share."""


def near_misses(
    spec: Spec,
    asker: Asker,
    count: int,
    seed: int,
    messages: Sequence[str],
    other_kinds: Callable[[Sequence[str]], list[str]],
) -> list[str]:
    """`count` near misses, fewer where the writer finds none; `other_kinds` says which texts are none of the kind."""
    own = list(spec.near_misses)[:count]
    formed = formed_near_misses(spec, seed, messages)[: round(FORMED_SHARE * count)]
    wanted = max(0, count - len(own) - len(formed))
    seen = Likeness((text, text) for text in (*(example.prompt for example in spec.examples), *own, *messages))
    accepted: list[str] = []
    numbers = count_from(0)
    for _ in range(_ROUNDS if messages else 0):
        asked = list(islice(numbers, round(_SPARE * (wanted - len(accepted)))))
        edited_from = {n: in_turn(messages, f"{seed}/edited", n) for n in asked}
        requests = [edit_request(text, asker.model, f"near/{n}", n, seed) for n, text in edited_from.items()]
        answers = asker.ask(requests, "editing messages into near misses") if requests else {}
        edited = []
        for answer in (answers[request.id] for request in requests if request.id in answers):
            text = _usable(answer.text) if answer.finish_reason != "length" else ""
            if text and not seen.match(text, _ALIKE, digits_count=True, contained=False):
                seen.add(text, text)
                edited.append(text)
        accepted += other_kinds(edited)[: wanted - len(accepted)] if edited else []
    return distinct_texts([*own, *accepted, *formed])


def edit_request(message: str, model: str, identity: str, turn: int, seed: int) -> ChatRequest:
    """Asks for a message with as few changes as make it one of another kind."""
    turns = [system(prompt_text("write-near-misses"))]
    for before, change, after in _data()["shots"]:
        turns += [user(_asked(before, change)), assistant(after)]
    change = in_turn(_data()["changes"], f"{seed}/change", turn)
    turns.append(user(_asked(message, change)))
    # top_k, for top_p sorts the whole vocabulary for every token; most of an edit is copied, so a few words are choice
    # enough.
    return ChatRequest(identity, model, turns, max(_TOKENS_MIN, len(message)), _TEMPERATURE, extra={"top_k": 40})


def _asked(message: str, change: str) -> str:
    return f"Message: {message}\nIt becomes: {change}"


def _usable(answered: str) -> str:
    """The first line of an answer where it can be a message."""
    line = written_message(answered.strip().split("\n")[0])
    return line if 2 <= word_count(line) <= _WORDS_MAX and not _ODD.search(line) and line[-1:] not in ":：" else ""


# Without a model


@lru_cache(maxsize=1)
def _data() -> Mapping[str, Any]:
    document: Mapping[str, Any] = read_own(files("tunesmith.prompts") / "near-misses.yaml")
    return document


def _templates(spec: Spec) -> Mapping[str, Mapping[str, list[str]]]:
    """Those of the behaviour's language; English where there are none."""
    known: Mapping[str, Any] = _data()["forms"]
    # Ignored: of the file's tree mypy knows the first level alone.
    return known[next((name for name in known if name in spec.language), "English")]  # type: ignore[no-any-return]


def formed_near_misses(spec: Spec, seed: int, messages: Sequence[str], *, tests: bool = False) -> list[str]:
    """Near misses in fixed forms, in turn: about whole `messages` of the kind, about the values that its labels have,
    and about values such as it reads.

    Those of `tests` have other forms than those that rows are made of.
    """
    rng = random.Random(seed)
    messages = [text for text in messages if word_count(text) <= _WORDS_MAX]
    labels = distinct_texts(
        [value for label in spec.labels if label.shown for value in label.values if value.isalpha()]
    )
    typed = [attribute for attribute in spec.attributes if attribute.shown and attribute.typed]
    drawn = [surface_of(one, draw_value(one, rng), rng) for one in typed for _ in range(_LAPS)]
    turns = []
    for of, texts in (("messages", messages), ("words", labels if len(labels) > 1 else ()), ("values", drawn)):
        templates = rng.sample(templates := _templates(spec)[of]["tests" if tests else "rows"], len(templates))
        near = [
            templates[(place + lap) % len(templates)].format(text, texts[(place + 1) % len(texts)])
            for lap in range(_LAPS)
            for place, text in enumerate(rng.sample(list(texts), len(texts)))
        ]
        turns.append(near)
    return distinct_texts([text for turn in zip_longest(*turns) for text in turn if text])


# Variants

EACH = 8
"""Of a row: with the row itself three for each of three epochs, which is what a small model is given."""
_ROWS_MOST = 1_000
"""Of more rows each is seen once, whatever its forms are."""
_TRIES = 6
"""Draws for one variant: a message that says the same, or does not say what was drawn, is drawn anew."""


def variants(spec: Spec, rows: Sequence[TrainingRow], each: int = EACH) -> list[TrainingRow]:
    """`each` variants of every row that has such values and was made here; fewer where they do not come out right."""
    varied: list[TrainingRow] = []
    if not form_of(spec).one_record or len(rows) > _ROWS_MOST:
        return varied
    for row in rows:
        drawn = row.attributes.draw
        if drawn is None or len(row.prompt) > 2 or len(row.completion) > 1:
            continue
        there = {spec.text_of(row.prompt)}
        for number in range(1, each + 1):
            if (one := _variant(spec, row, drawn, number)) and spec.text_of(one.prompt) not in there:
                there.add(spec.text_of(one.prompt))
                varied.append(one)
    return varied


def _variant(spec: Spec, row: TrainingRow, drawn: Draw, number: int) -> TrainingRow | None:
    """A row with other values in the places of its own; None where one stands there twice, or none comes out right."""
    message, old = spec.text_of(row.prompt), drawn.surfaces[0]
    swapped = [
        a for a in spec.attributes if a.name in old and (a.typed or number_ranges(a)) and holds(message, old[a.name])
    ]
    spans = {a.name: _spans(message, old[a.name]) for a in swapped}
    if not swapped or any(len(places) != 1 for places in spans.values()):
        return None
    rng = random.Random(f"{row.row_id}/{number}")  # by the row: a resumed step draws the same
    for _ in range(_TRIES):
        values, surfaces, text = dict(drawn.values), dict(old), message
        for attribute in sorted(swapped, key=lambda a: spans[a.name][0], reverse=True):
            name = attribute.name
            values[name], surfaces[name] = _another(attribute, str(values[name]), rng)
            start, end = spans[name][0]
            text = text[:start] + _cased(surfaces[name], message[start:end], at_start=start == 0) + text[end:]
        if text == message or drawn_problem(spec, values, surfaces, text):
            continue
        changed = replace(drawn, records=(verbatim(spec, values, text),), surfaces=(surfaces,))
        attributes = replace(row.attributes, draw=changed, text=text, variant_of=row.row_id)
        prompt = [*row.prompt[: len(row.prompt) - len(spec.turns(text))], *spec.turns(text)]
        answer = [form_of(spec).turn(form_of(spec).compose(changed.records))]
        return replace(row, row_id=f"{row.row_id}.{number}", prompt=prompt, completion=answer, attributes=attributes)
    return None


def _another(attribute: Attribute, value: str, rng: random.Random) -> tuple[str, str]:
    """A value and how the message says it; a label keeps its value, for the rest of the message may speak of it."""
    if attribute.kind == "label":
        return value, drawn_number(attribute, value, rng)
    drawn = draw_value(attribute, rng)
    return drawn, surface_of(attribute, drawn, rng)


def _spans(message: str, part: str) -> list[tuple[int, int]]:
    """Where a part stands in a message and not inside a longer word."""
    # The case is left out of account in the part alone: to compile the ranges of GLUED so takes 5 ms of each part.
    pattern = rf"(?<!{GLUED})(?i:{re.escape(part)})(?!{GLUED})"
    return [match.span() for match in re.finditer(pattern, message)]


def _cased(new: str, old: str, *, at_start: bool) -> str:
    """A capital at the start of a message stays one."""
    return new[:1].upper() + new[1:] if at_start and old[:1].isupper() else new


class Ending(NamedTuple):
    """What a message ends with: a value, with what parts it from the sentence before."""

    text: str
    value: str


class Changed(NamedTuple):
    """A message that ends in another way, and the value that it says now; None: none."""

    message: str
    name: str
    value: str | None


def ending_of(message: str, value: str) -> Ending | None:
    """The ending of a message that is a value alone; None where it stands elsewhere, in a sentence, or twice."""
    whole = message.rstrip()
    bare = whole.rstrip(_ENDS_A_SENTENCE)
    before = bare[: len(bare) - len(value)].rstrip(" ") if bare.endswith(value) else ""
    if not before or before[-1] not in _ENDS_A_SENTENCE + _LOOSE:
        return None
    body = before.rstrip(_LOOSE + " ")
    return None if not body or holds(body, value) else Ending(whole[len(body) :], value)


def with_ending(message: str, ending: Ending) -> tuple[str, str] | None:
    """A message with an ending behind it, and the value that it then says, both in small letters where the message is;
    None where it says the value already."""
    body, (text, value) = message.rstrip(), ending
    if holds(body, value) or not body:
        return None
    if body == body.lower():
        text, value = text.lower(), value.lower()
    if text.lstrip()[:1].isalnum():  # the sentence before it has ended
        body += "" if body[-1] in _ENDS_A_SENTENCE else "."
    else:
        body = body.rstrip(".")
    return body + text, value


@dataclass(slots=True)
class Endings:
    """The endings that were seen, and how many rows of each label have one."""

    spec: Spec
    seed: int
    _seen: dict[str, dict[Ending, None]] = field(default_factory=dict)
    _rows: Counter[tuple[str, str, bool]] = field(default_factory=Counter)

    @property
    def _optional(self) -> list[Attribute]:
        return [a for a in self.spec.attributes if a.shown and a.plain and a.kind == "copied" and a.absent_share]

    def see(self, message: str, values: Mapping[str, str | None]) -> None:
        """Take the endings of a message."""
        for attribute in self._optional:
            if (value := values.get(attribute.name)) and (ending := ending_of(message, value)):
                self._seen.setdefault(attribute.name, {})[ending] = None

    def evened(self, row_id: str, label: str, message: str, values: Mapping[str, str | None]) -> Changed | None:
        """The message as it is to end, where a label's rows have a value too often or too seldom; None: as it is."""
        self.see(message, values)
        changed = None
        for attribute in self._optional:
            if excluded(attribute, values):
                continue
            name, value = attribute.name, values.get(attribute.name)
            if changed is None and self._too_many(label, attribute, has=value is not None):
                changed = self._other(row_id, attribute, message, value)
            says = changed.value if changed and changed.name == name else value
            self._rows[label, name, says is not None] += 1
        return changed

    def _too_many(self, label: str, attribute: Attribute, *, has: bool) -> bool:
        """Whether one more row of a label that has the value, or lacks it, is more than its share."""
        counts = [self._rows[label, attribute.name, one] for one in (False, True)]
        share = 1 - attribute.absent_share if has else attribute.absent_share
        return counts[has] + 1 > share * (sum(counts) + 1) + _UNEVEN

    def _other(self, row_id: str, attribute: Attribute, message: str, value: str | None) -> Changed | None:
        if value is not None:
            ending = ending_of(message, value)
            return Changed(message.rstrip()[: -len(ending.text)], attribute.name, None) if ending else None
        endings: Sequence[Ending] = [*self._seen.get(attribute.name, ())]
        # by the row: a resumed step draws the same
        for ending in random.Random(f"{self.seed}/ending/{row_id}").sample(endings, len(endings)):
            if whole := with_ending(message, ending):
                return Changed(whole[0], attribute.name, whole[1])
        return None
