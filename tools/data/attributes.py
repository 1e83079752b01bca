"""Draw what a training row is about, before a word of it is written: so its label is right by construction.

A pure function of the behaviour, a seed and a row's number: a resumed step draws the same rows.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from tunesmith.tools.data.behaviour import Behaviour, Scenario

T = TypeVar("T")
RETELL, GO_ON = "retell", "go-on"
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
        summary=capital(rng.choice(summaries).format(product=drawn_product)),
        way=way,
        beginning=_beginning(behaviour, scenario, drawn_product, fact, way, rng),
        cue_phrase=capital(rng.choice(phrases)) if phrases else "",
        reference_sentence=capital(rng.choice(behaviour.reference.sentences).format(ref=form)) if digits else "",
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
    lines = [f"{number}. {capital(fact.format(product=product))}." for number, fact in enumerate(facts, 1)]
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


def scenario_of(behaviour: Behaviour, attributes: Attributes) -> Scenario:
    """The scenario that a row was drawn from."""
    return next(s for s in behaviour.scenarios[attributes.group] if s.id == attributes.scenario)


def answer_of(behaviour: Behaviour, attributes: Attributes) -> str:
    """The one-line JSON answer of a row; its keys in the order of the behaviour's schema."""
    values = {
        behaviour.group_field: attributes.group,
        behaviour.cue_field: attributes.cue,
        behaviour.reference_field: attributes.reference,
        behaviour.summary_field: attributes.summary,
    }
    return json.dumps({key: values[key] for key in behaviour.keys}, ensure_ascii=False)


def capital(text: str) -> str:
    """`text` with a capital first letter."""
    return text[:1].upper() + text[1:]
