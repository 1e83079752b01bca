"""Draw what a training row is about, ask for its text, and check that the text says it: the label comes first.

Everything here is a pure function of the behaviour, a seed and a row's number, so a resumed step draws the same rows.
The writer is asked to go on after a beginning and never for digits: a model of 135M parameters, asked in a chat to
write from notes, said what was asked in 39 of 100 texts and garbled every second number.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from tunesmith.tools.behaviour import Behaviour, Scenario, mentions

T = TypeVar("T")
RETELL, GO_ON = "retell", "go-on"
_LONG_NUMBER = re.compile(r"\d{4,}")
_WORDS_MIN, _WORDS_MAX = 3, 110
_EXAMPLES = 3
_INLINE_SHARE = 0.35


@dataclass(frozen=True, slots=True)
class Attributes:
    """All that was decided about a row before its text was written."""

    row_id: str
    group: str
    scenario: str
    cue: str
    reference: str | None
    """The digits, or None."""
    product: str
    """What the fact names; empty where it names none."""
    fact: str
    summary: str
    way: str
    """How the writer is asked: retell or go-on."""
    beginning: str
    """What it goes on after."""
    cue_phrase: str
    reference_sentence: str
    reference_inline: str
    distractor: str
    opener: str
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
    drawn_product = rng.choice(scenario.products or behaviour.products)
    template = rng.choice(scenario.facts)
    product = drawn_product if "{product}" in template else ""
    summaries = [s for s in scenario.summaries if product or "{product}" not in s]
    fact = template.format(product=drawn_product)
    cue = _cue(behaviour, scenario, rng)
    phrases = behaviour.cues[cue].phrases
    digits = None if rng.random() < behaviour.reference.absent_share else _digits(behaviour, rng)
    form = rng.choice(behaviour.reference.forms).format(n=digits) if digits else ""
    inline = product and behaviour.reference.inline and rng.random() < _INLINE_SHARE
    voice = rng.choices(behaviour.voices, [v.weight for v in behaviour.voices])[0]
    frame = rng.choices(behaviour.frames, [f.weight for f in behaviour.frames])[0]
    way = RETELL if rng.random() < behaviour.writer.retell_share else GO_ON
    has_distractor = rng.random() < behaviour.distractors.share
    return Attributes(
        row_id=f"w{index:05d}",
        group=group,
        scenario=scenario.id,
        cue=cue,
        reference=digits,
        product=product,
        fact=fact,
        summary=_capital(rng.choice(summaries).format(product=drawn_product)),
        way=way,
        beginning=_beginning(behaviour, scenario, drawn_product, fact, way, rng),
        cue_phrase=_capital(rng.choice(phrases)) if phrases else "",
        reference_sentence=_capital(rng.choice(behaviour.reference.sentences).format(ref=form)) if digits else "",
        reference_inline=rng.choice(behaviour.reference.inline).format(ref=form) if digits and inline else "",
        distractor=_distractor(behaviour, rng) if has_distractor else "",
        opener=rng.choice(voice.openers),
        typing=rng.choice(voice.typing),
        before=frame.before,
        after=frame.after,
    )  # fmt: skip


def _in_turn(choices: Sequence[T], seed: str, turn: int) -> T:
    """The `turn`-th of endless shuffles of `choices`: each comes once before any comes again."""
    lap, place = divmod(turn, len(choices))
    return random.Random(f"{seed}/{lap}").sample(list(choices), len(choices))[place]


def _beginning(behaviour: Behaviour, scenario: Scenario, product: str, fact: str, way: str, rng: random.Random) -> str:
    if way == GO_ON:
        return fact + rng.choice(behaviour.writer.joiners)
    facts = rng.sample(list(scenario.facts), min(_EXAMPLES, len(scenario.facts)))
    lines = [f"{number}. {_capital(fact.format(product=product))}." for number, fact in enumerate(facts, 1)]
    return "\n".join([*lines, f"{len(facts) + 1}."])


def _cue(behaviour: Behaviour, scenario: Scenario, rng: random.Random) -> str:
    names = scenario.only or tuple(behaviour.cues)
    return rng.choices(names, [behaviour.cues[name].weight for name in names])[0]


def _digits(behaviour: Behaviour, rng: random.Random) -> str:
    count = rng.choice(behaviour.reference.digits)
    return str(rng.randrange(10 ** (count - 1), 10**count))


def _distractor(behaviour: Behaviour, rng: random.Random) -> str:
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(2015, 2026)
    month_name = rng.choice(("January", "March", "May", "June", "August", "October", "December"))
    amounts = (
        f"${rng.randint(4, 900)}",
        f"{rng.randint(4, 2400)}.{rng.randint(0, 99):02d} euros",
        f"£{rng.randint(5, 300)}.99",
        f"{rng.randint(1000, 4000)} dollars",
    )
    dates = (
        f"{day:02d}.{month:02d}.{year}",
        f"{day} {month_name}",
        f"{month_name} {day}, {year}",
        f"{year}-{month:02d}-{day:02d}",
    )
    codes = f"E{rng.randint(1, 99)}", str(rng.randint(400, 599)), str(rng.randint(1000, 9999))
    return rng.choice(behaviour.distractors.phrases).format(
        amount=rng.choice(amounts),
        date=rng.choice(dates),
        count=rng.randint(2, 40),
        small=rng.randint(2, 19),
        year=rng.randint(2009, 2026),
        phone=f"0{rng.randint(100, 999)} {rng.randint(100, 999)} {rng.randint(1000, 9999)}",
        postcode=rng.randint(10000, 99999),
        card=rng.randint(1000, 9999),
        model=f"{rng.choice('ABKTX')}{rng.choice('RSZ')}-{rng.randint(100, 9999)}",
        code=rng.choice(codes),
    )


def writer_messages(behaviour: Behaviour, attributes: Attributes) -> list[dict[str, str]]:
    """The chat whose last message the writer is to go on with (`continue_final_message`), up to the end of the line."""
    asked = behaviour.writer.retell if attributes.way == RETELL else behaviour.writer.go_on
    beginning = attributes.beginning if attributes.way == RETELL else _capital(attributes.beginning)
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": beginning}]


def stop_at(attributes: Attributes) -> list[str]:
    """Where the writer is stopped: at the end of the line; where it retells, after one more, for the better of two."""
    if attributes.way == GO_ON:
        return ["\n"]
    return [f"\n{attributes.beginning.count(chr(10)) + 3}."]


def best_line(behaviour: Behaviour, attributes: Attributes, answered: str) -> str:
    """Of the lines that the writer added the first that says it, else the first."""
    lines = [re.sub(r"^\s*\d+\.", "", line) for line in answered.splitlines() if line.strip()] or [answered]
    return next((line for line in lines if says_it(behaviour, attributes, line)), lines[0])


def says_it(behaviour: Behaviour, attributes: Attributes, written: str) -> bool:
    """Whether what the writer wrote holds the scenario; where it goes on after the fact, the fact does."""
    if attributes.way == GO_ON:
        return True
    scenario = scenario_of(behaviour, attributes)
    names_product = (
        attributes.product.lower() in written.lower() or attributes.product not in attributes.summary.lower()
    )
    return names_product and mentions(written, scenario.mentions)


def scenario_of(behaviour: Behaviour, attributes: Attributes) -> Scenario:
    """The scenario that a row was drawn from."""
    return next(s for s in behaviour.scenarios[attributes.group] if s.id == attributes.scenario)


def compose(behaviour: Behaviour, attributes: Attributes, written: str) -> str:
    """The text of a row from what the writer wrote, with the drawn sentences among its own, typed as drawn."""
    text = _tidy(written)
    if attributes.way == GO_ON:
        text = attributes.beginning + (text if text[:1] in ("'", ",", ".") else " " + text)
    elif not says_it(behaviour, attributes, text):
        text = f"{attributes.fact}. {_capital(text)}"
    rng = random.Random(f"{attributes.row_id}/{attributes.fact}/{attributes.distractor}")
    drawn = [attributes.distractor, attributes.cue_phrase and attributes.cue_phrase.rstrip("!.") + "."]
    first, *rest = re.split(r"(?<=[.!?]) +", _closed(text))
    sentences = [_opened(attributes.opener, first), *map(_capital, rest)]
    named = next((i for i, s in enumerate(sentences) if attributes.product in s), None)
    if attributes.reference_inline and named is not None:
        inline = attributes.product + attributes.reference_inline
        sentences[named] = sentences[named].replace(attributes.product, inline, 1)
    else:
        drawn.append(attributes.reference_sentence)
    for sentence in filter(None, drawn):
        sentences.insert(rng.randint(0 if not attributes.opener else 1, len(sentences)), sentence)
    return attributes.before + _typed(" ".join(sentences), attributes.typing) + attributes.after


def _tidy(written: str) -> str:
    """One line of whole sentences: what the token limit cut off is left out where a whole sentence remains."""
    text = " ".join(written.strip().strip('"').split())
    whole = re.match(r".*[.!?](?=\s|$)", text)
    return whole.group() if whole else text


def _closed(text: str) -> str:
    return text if text[-1:] in (".", "!", "?") else text + "."


def _opened(opener: str, sentence: str) -> str:
    """`sentence` behind `opener`; it stays capital only where the opener ends a sentence, or for "I"."""
    if not opener or opener.rstrip()[-1] in ".!?":
        return opener + _capital(sentence)
    keeps = re.match(r"I\b|[A-Z]{2}", sentence)
    return opener + (sentence if keeps else sentence[:1].lower() + sentence[1:])


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
    words = len(text.split())
    if not _WORDS_MIN <= words <= _WORDS_MAX:
        found.append(f"length: {words} words")
    if not mentions(text, scenario_of(behaviour, attributes).mentions):
        found.append("off-topic: nothing of its scenario")
    if attributes.reference and attributes.reference not in _LONG_NUMBER.findall(text):
        found.append(f"reference: {attributes.reference} is not in the text")
    drawn = attributes.distractor + (attributes.reference or "")
    if stray := [n for n in _LONG_NUMBER.findall(text) if n not in drawn]:
        found.append(f"number: {stray[0]} was not drawn")
    for name, cue in behaviour.cues.items():
        said = text.lower().replace(attributes.cue_phrase.lower().rstrip("!."), "") if attributes.cue_phrase else text
        if name != attributes.cue and mentions(said, cue.words):
            found.append(f"cue: reads as {name}, drawn was {attributes.cue}")
    if odd := _never(behaviour, _written_part(attributes, text)):
        found.append(f"role: holds {odd!r}")
    if sum(c.isascii() for c in text) < 0.97 * len(text):
        found.append("language: many characters beyond ASCII")
    if loops(text):
        found.append("loop: repeats itself")
    return found


def _never(behaviour: Behaviour, text: str) -> str | None:
    """The first of the writer's forbidden words in `text`; letters count from the start of a word only."""
    words = (word for word in behaviour.writer.never if word in text)
    return next((word for word in words if not word[0].isalnum() or mentions(text, (word,))), None)


def _written_part(attributes: Attributes, text: str) -> str:
    """`text` in lower case without what was drawn, so that a drawn greeting is not held against the writer."""
    text = text.removeprefix(attributes.before).removesuffix(attributes.after).lower()
    for said in (
        attributes.opener,
        attributes.reference_inline,
        attributes.reference_sentence,
        attributes.fact,
        attributes.distractor.rstrip("."),
    ):
        text = text.replace(said.lower(), "", 1)
    return text


def loops(text: str) -> bool:
    """Whether some five words in a row come again."""
    words = text.lower().split()
    runs = [tuple(words[i : i + 5]) for i in range(len(words) - 4)]
    return len(runs) != len(set(runs))
