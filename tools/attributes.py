"""Draw what a training row is about, ask for its text, and check that the text says it: the label comes first.

Everything here is a pure function of the behaviour, a seed and a row's number, so a resumed step draws the same rows.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from rapidfuzz import fuzz

from tunesmith.tools.behaviour import Behaviour, Scenario, Voice, mentions

T = TypeVar("T")
_LONG_NUMBER = re.compile(r"\d{4,}")
_COPY_SIMILARITY = 88.0  # of 100; above, a text is one of the writer's examples again
_WORDS_MIN, _WORDS_MAX = 3, 110


@dataclass(frozen=True, slots=True)
class Attributes:
    """All that was decided about a row before its text was written."""

    row_id: str
    group: str
    scenario: str
    cue: str
    reference: str | None
    """The digits, or None."""
    fact: str
    summary: str
    cue_phrase: str
    reference_text: str
    """The digits in the form in which the text is to hold them."""
    reference_sentence: str
    distractor: str
    voice: str
    typing: str
    before: str
    after: str

    def as_dict(self) -> dict[str, Any]:
        """For the record of the row."""
        return asdict(self)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Attributes:
        """The attributes behind a recorded row."""
        return cls(**{name: values[name] for name in cls.__dataclass_fields__})


def draw(behaviour: Behaviour, seed: int, index: int) -> Attributes:
    """The attributes of row number `index`: groups and scenarios in turn, so that any stretch of rows is balanced."""
    rng = random.Random(f"{seed}/{index}")
    groups = sorted(behaviour.scenarios)
    group, turn = groups[index % len(groups)], index // len(groups)
    scenario = _in_turn(behaviour.scenarios[group], f"{seed}/{group}", turn)
    product = rng.choice(scenario.products or behaviour.products)
    cue = _cue(behaviour, scenario, rng)
    phrases = behaviour.cues[cue].phrases
    digits = None if rng.random() < behaviour.reference.absent_share else _digits(behaviour, rng)
    reference_text = rng.choice(behaviour.reference.forms).format(n=digits) if digits else ""
    sentence = rng.choice(behaviour.reference.sentences).format(ref=reference_text) if digits else ""
    has_distractor = rng.random() < behaviour.distractors.share
    voice = rng.choices(behaviour.voices, [v.weight for v in behaviour.voices])[0]
    frame = rng.choices(behaviour.frames, [f.weight for f in behaviour.frames])[0]
    return Attributes(
        row_id=f"w{index:05d}",
        group=group,
        scenario=scenario.id,
        cue=cue,
        reference=digits,
        fact=rng.choice(scenario.facts).format(product=product),
        summary=_capital(rng.choice(scenario.summaries).format(product=product)),
        cue_phrase=rng.choice(phrases) if phrases else "",
        reference_text=reference_text,
        reference_sentence=_capital(sentence),
        distractor=_distractor(behaviour, rng) if has_distractor else "",
        voice=voice.name,
        typing=rng.choice(voice.typing),
        before=frame.before,
        after=frame.after,
    )


def _in_turn(choices: Sequence[T], seed: str, turn: int) -> T:
    """The `turn`-th of endless shuffles of `choices`: each comes once before any comes again."""
    lap, place = divmod(turn, len(choices))
    return random.Random(f"{seed}/{lap}").sample(list(choices), len(choices))[place]


def _cue(behaviour: Behaviour, scenario: Scenario, rng: random.Random) -> str:
    names = scenario.only or tuple(behaviour.cues)
    return rng.choices(names, [behaviour.cues[name].weight for name in names])[0]


def _digits(behaviour: Behaviour, rng: random.Random) -> str:
    count = rng.choice(behaviour.reference.digits)
    return str(rng.randrange(10 ** (count - 1), 10**count))


def _distractor(behaviour: Behaviour, rng: random.Random) -> str:
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(2015, 2026)
    month_name = rng.choice(("January", "March", "May", "June", "August", "October", "December"))
    return rng.choice(behaviour.distractors.phrases).format(
        amount=rng.choice((f"${rng.randint(4, 900)}", f"{rng.randint(4, 2400)}.{rng.randint(0, 99):02d} euros",
                           f"£{rng.randint(5, 300)}.99", f"{rng.randint(1000, 4000)} dollars")),
        date=rng.choice((f"{day:02d}.{month:02d}.{year}", f"{day} {month_name}", f"{month_name} {day}, {year}",
                         f"{year}-{month:02d}-{day:02d}")),
        count=rng.randint(2, 40),
        small=rng.randint(2, 19),
        year=rng.randint(2009, 2026),
        phone=f"0{rng.randint(100, 999)} {rng.randint(100, 999)} {rng.randint(1000, 9999)}",
        postcode=rng.randint(10000, 99999),
        card=rng.randint(1000, 9999),
        model=f"{rng.choice('ABKTX')}{rng.choice('RSZ')}-{rng.randint(100, 9999)}",
        code=rng.choice((f"E{rng.randint(1, 99)}", str(rng.randint(400, 599)), str(rng.randint(1000, 9999)),
                         f"0x{rng.randint(1000, 9999)}")),
    )  # fmt: skip


def writer_messages(behaviour: Behaviour, attributes: Attributes) -> list[dict[str, str]]:
    """The chat that asks for the text of a row. Rows of one voice share all of it but the last message."""
    voice = next(v for v in behaviour.voices if v.name == attributes.voice)
    asked = "; ".join(filter(None, (attributes.fact, attributes.cue_phrase, attributes.reference_text)))
    messages = [{"role": "system", "content": behaviour.writer.system}]
    for example in voice.examples:
        messages.append({"role": "user", "content": behaviour.writer.notes.replace("{{notes}}", example.notes)})
        messages.append({"role": "assistant", "content": example.text})
    return [*messages, {"role": "user", "content": behaviour.writer.notes.replace("{{notes}}", asked)}]


def compose(behaviour: Behaviour, attributes: Attributes, written: str, *, cut_off: bool = False) -> str:
    """The text of a row from what the writer wrote: what it left out is said in drawn words, then typed as drawn."""
    text = " ".join(written.strip().strip('"').split())
    if cut_off:
        text = re.sub(r"(?<=[.!?])[^.!?]*$", "", text)
    rng = random.Random(f"{attributes.row_id}/{attributes.fact}/{attributes.distractor}")
    missing = [attributes.distractor] if attributes.distractor else []
    if attributes.cue_phrase and not mentions(text, behaviour.cues[attributes.cue].words):
        missing.append(_capital(attributes.cue_phrase) + ".")
    if attributes.reference and attributes.reference not in text:
        missing.append(attributes.reference_sentence)
    for sentence in missing:
        text = _insert(text, sentence, rng)
    return attributes.before + _typed(text, attributes.typing) + attributes.after


def _insert(text: str, sentence: str, rng: random.Random) -> str:
    """`sentence` between two sentences of `text`, before the first or after the last."""
    parts = re.split(r"(?<=[.!?]) +", text)
    if parts[-1] and parts[-1][-1] not in ".!?":
        parts[-1] += "."
    place = rng.randint(0, len(parts))
    return " ".join([*parts[:place], sentence, *parts[place:]])


def _typed(text: str, typing: str) -> str:
    if typing == "lower":
        return text.lower()
    if typing == "caps":
        return text.upper()
    return text.rstrip(".") if typing == "no-end" else text


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def answer_of(behaviour: Behaviour, attributes: Attributes) -> str:
    """The one-line JSON answer of a row; its keys in the order of the behaviour's schema."""
    values = {
        behaviour.group_field: attributes.group,
        behaviour.cue_field: attributes.cue,
        behaviour.reference_field: attributes.reference,
        behaviour.summary_field: attributes.summary,
    }
    return json.dumps({key: values[key] for key in behaviour.keys}, ensure_ascii=False)


def problems(behaviour: Behaviour, attributes: Attributes, text: str) -> list[str]:
    """Why `text` does not carry the label that was drawn for it; empty: it does. The first word is the kind."""
    found = []
    scenario = next(s for s in behaviour.scenarios[attributes.group] if s.id == attributes.scenario)
    words = len(text.split())
    if not _WORDS_MIN <= words <= _WORDS_MAX:
        found.append(f"length: {words} words")
    if not mentions(text, scenario.mentions):
        found.append(f"off-topic: nothing of {', '.join(scenario.mentions[:4])}")
    if attributes.reference and attributes.reference not in _LONG_NUMBER.findall(text):
        found.append(f"reference: {attributes.reference} is not in the text")
    drawn = attributes.distractor + (attributes.reference or "")
    if stray := [n for n in _LONG_NUMBER.findall(text) if n not in drawn]:
        found.append(f"number: {stray[0]} was not drawn")
    for name, cue in behaviour.cues.items():
        if name != attributes.cue and mentions(text, cue.words):
            found.append(f"cue: reads as {name}, drawn was {attributes.cue}")
    if odd := next((word for word in behaviour.writer.never if word in text.lower()), None):
        found.append(f"role: holds {odd!r}")
    if not text.isascii() and sum(c.isascii() for c in text) < 0.95 * len(text):
        found.append("language: many characters beyond ASCII")
    if loops(text):
        found.append("loop: repeats itself")
    if copied := copies(text, behaviour.voices):
        found.append(f"copy: of the example {copied[:40]!r}")
    return found


def loops(text: str) -> bool:
    """Whether some five words in a row come again."""
    words = text.lower().split()
    runs = [tuple(words[i : i + 5]) for i in range(len(words) - 4)]
    return len(runs) != len(set(runs))


def copies(text: str, voices: Sequence[Voice]) -> str | None:
    """The writer's example that `text` repeats, or None."""
    for voice in voices:
        for example in voice.examples:
            if fuzz.ratio(text.lower(), example.text.lower(), score_cutoff=_COPY_SIMILARITY):
                return example.text
    return None
