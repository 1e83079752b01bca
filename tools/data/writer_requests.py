"""What a served writer is asked for, and what is taken from its answers: values, messages, sentences, near misses.

A small model does best what is shown to it as a list to go on with; so every request ends in a list that was begun with
the user's own examples. Nothing here sends a request.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import accumulate
from statistics import mean

from tunesmith.tools.data.answer_template import fill
from tunesmith.tools.data.draw import Values
from tunesmith.tools.data.example_values import Shown
from tunesmith.tools.data.message_checks import says_its_name
from tunesmith.tools.data.ranges import numbers
from tunesmith.tools.data.similarity import normal, word_count
from tunesmith.tools.data.spec import Attribute, Spec
from tunesmith.tools.serving.client import ChatRequest

LISTED = 10
"""Asked for in one request."""
_GO_ON: Mapping[str, object] = {"continue_final_message": True, "add_generation_prompt": False, "top_k": 60}
_LIST_TEMPERATURE = 0.9
_TOKENS_PER_CHAR = 0.4
_SHOTS, _SHOT_CHARS = 5, 2_400
_ANGLES = (
    "", "Take everyday ones.", "Take unusual ones.", "Take ones that a beginner brings up.", "Take small details.",
    "Take ones that an expert brings up.", "Take ones from work.", "Take ones from home.", "Take quick ones.",
    "Take ones from many countries.", "Take ones for a special occasion.", "Take old and new ones.",
)  # fmt: skip
_LIST_MARK = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s*")


def prompt_text(page: str, /, **values: object) -> str:
    """A prompt of the package with its places filled."""
    text = (files("tunesmith.prompts") / f"{page}.md").read_text(encoding="utf-8").strip()
    return fill(text, {key: str(value) for key, value in values.items()})


def kind_of(spec: Spec) -> str:
    """When the behaviour applies, as the middle of a sentence."""
    return spec.when.rstrip(". ")


# Values of open attributes


def values_request(
    spec: Spec, attribute: Attribute, given: Values, shown: Sequence[str], model: str, identity: str, seed: int
) -> ChatRequest:
    """Asks for values of an open attribute where the labels are `given`; `shown` are those of the examples."""
    rng = random.Random(f"{seed}/{identity}")
    shots = rng.sample(list(shown), len(shown))
    if attribute.shown:
        where = "".join(f" Here {_label_note(spec, name, value)}." for name, value in given.items() if value)
        asked = prompt_text(
            "write-values", when=kind_of(spec), name=attribute.name, means=attribute.means or attribute.name,
            where=where, count=LISTED + len(shots), angle=rng.choice(_ANGLES),
        )  # fmt: skip
    else:
        asked = prompt_text("write-topics", when=kind_of(spec), count=LISTED + len(shots), angle=rng.choice(_ANGLES))
    begun = "\n".join([*(f"{n}. {shot}" for n, shot in enumerate(shots, 1)), f"{len(shots) + 1}."])
    long = mean(len(shot) for shot in shown) if shown else 16
    tokens = round(LISTED * max(7, long * _TOKENS_PER_CHAR + 4))
    return ChatRequest(
        identity, model, [_user(asked), _assistant(begun)], tokens, _LIST_TEMPERATURE, extra=dict(_GO_ON)
    )


def _label_note(spec: Spec, name: str, value: str) -> str:
    meaning = spec.attribute(name).values[value].means
    return f"{name} is {value}" + (f" ({meaning})" if meaning else "")


def listed_values(attribute: Attribute, answered: str, shown: Sequence[str]) -> list[str]:
    """The values that an answer lists, in the manner of those of the examples, none of them an example's."""
    longest = max(map(word_count, shown), default=4)
    most = attribute.words_max or max(6, 2 * longest)
    small = bool(shown) and all(value[:1].islower() for value in shown)
    known = {normal(value, digits_count=True) for value in shown}
    values = []
    lines = answered.split("\n")
    for line in lines[:-1] if len(lines) > 2 else lines:  # the last one may be cut off
        value = _LIST_MARK.sub("", line).strip().strip("\"'*").strip()
        value = value.rstrip(".") if not any(one.endswith(".") for one in shown) else value
        value = value[:1].lower() + value[1:] if small and not re.match(r"I\b|[A-Z]{2}", value) else value
        odd = not value or value[-1] in ":?" or word_count(value) > most or re.search(r"[\[\]{}<>|`]", value)
        if not odd and normal(value, digits_count=True) not in known:
            values.append(value)
    return values


# Messages


@dataclass(frozen=True, slots=True)
class Note:
    """What one message is to say."""

    row_id: str
    values: Mapping[str, str | None]
    surfaces: Mapping[str, str]


def messages_request(
    spec: Spec, notes: Sequence[Note], shots: Sequence[Shown], model: str, temperature: float, identity: str, *,
    page: str = "write-message", more: Sequence[Shown] = (),
) -> ChatRequest:  # fmt: skip
    """Asks for the messages of some notes at once, behind the user's examples and theirs.

    Together, because reading a request costs a small machine as much as writing the answer. Where all have the same
    labels it says what these mean beside the others, and shows the examples that have them last.
    """
    shared = _shared_manner(spec, notes)
    shots = _shown_last(shots, shared, int(hashlib.sha256(identity.encode()).hexdigest()[:6], 16), more)
    listed = [note(spec, shot.values, shot.surfaces) for shot in shots]
    listed += [note(spec, one.values, one.surfaces) for one in notes]
    numbered = "\n".join(f"{n}. [{text}]" for n, text in enumerate(listed, 1))
    asked = prompt_text(page, when=kind_of(spec), notes=numbered, which=_which(spec, shared, len(shots) + 1))
    begun = "\n".join([*(f"{n}. {shot.message}" for n, shot in enumerate(shots, 1)), f"{len(shots) + 1}."])
    longest = max((len(shot.message) for shot in shots), default=120)
    tokens = min(1200, len(notes) * max(30, round(longest * _TOKENS_PER_CHAR * 1.3)))
    extra = {**_GO_ON, "stop": [f"\n{len(listed) + 1}."]}
    asked += f" All of them are{in_language(spec)}." if in_language(spec) else ""
    return ChatRequest(identity, model, [_user(asked), _assistant(begun)], tokens, temperature, extra=extra)


def in_language(spec: Spec) -> str:
    """In which language messages are, where that has to be said."""
    return "" if spec.language == "English" else f" in {spec.language}"


def manner_of(spec: Spec, values: Values) -> dict[str, str | None]:
    """The labels that the answer shows with their values, and what it shows and the message does not say, as None."""
    shown = [a for a in spec.attributes if a.shown and a.name in values]
    return {a.name: values[a.name] for a in shown if a.kind == "label" or values[a.name] is None}


def _shared_manner(spec: Spec, notes: Sequence[Note]) -> dict[str, str | None]:
    """What the manners of all notes have in common."""
    first, *others = (manner_of(spec, dict(one.values)) for one in notes)
    return {n: v for n, v in first.items() if all(n in other and other[n] == v for other in others)}


def _which(spec: Spec, shared: Mapping[str, str | None], first: int) -> str:
    """What the shared labels mean, and what they do not ("neither" says nothing alone), and what is not said."""
    labels = {name: value for name, value in shared.items() if value is not None}
    bare = any(not value.means for name in labels for value in spec.attribute(name).values.values())
    told = [f"What is answered to them: {spec.what.rstrip('. ')}."] if bare else []
    lacking = [n for n, value in shared.items() if value is None and not spec.attribute(n).absent_where.keys() & labels]
    told += [f"From number {first} on none says {name}." for name in lacking]
    for name, value in labels.items():
        others = "; ".join(_label_note(spec, name, other) for other in spec.attribute(name).values if other != value)
        told.append(f"From number {first} on {_label_note(spec, name, value)} in every one, and never: {others}.")
        if says_its_name(spec, spec.attribute(name), value):
            told.append(f"None has the word “{value}” in it.")
    return " ".join(told)


def _shown_last(
    shots: Sequence[Shown], shared: Mapping[str, str | None], turn: int, more: Sequence[Shown]
) -> Sequence[Shown]:
    """As many shots as fit; those of the shared manner come last, for a writer follows the last ones most.

    Where there are `more`, written and found right before, only those of the manner are shown: what was missed once is
    imitated best among its own kind.
    """
    like = [s for s in (*shots, *more) if all(n in s.values and s.values[n] == v for n, v in shared.items())]
    shots = like if more and shared and like else shots
    turned = [shots[(turn + n) % len(shots)] for n in range(len(shots))]
    liker = sorted(turned, key=lambda shot: sum(n in shot.values and shot.values[n] == v for n, v in shared.items()))
    sizes = accumulate(len(shot.message) for shot in reversed(liker))
    fitting = sum(size <= _SHOT_CHARS for size in sizes)
    return liker[-max(1, min(fitting, _SHOTS)) :]


def written_messages(request: ChatRequest, notes: Sequence[Note], answered: str) -> dict[str, str]:
    """The message of each note, by its row; one that the writer left out is not there."""
    first = int(re.findall(r"(\d+)\.$", str(request.messages[-1]["content"]))[0])
    parts = re.split(r"\n\s*(\d+)\.[ \t]", f"\n{first}. {answered.strip()}")
    messages: dict[str, str] = {}
    for number, text in zip(parts[1::2], parts[2::2], strict=True):
        place = int(number) - first
        if 0 <= place < len(notes) and (message := written_message(text)):
            messages.setdefault(notes[place].row_id, message)
    return messages


def filler_request(spec: Spec, shown: Sequence[str], model: str, identity: str, seed: int) -> ChatRequest:
    """Asks for sentences of which nothing is noted."""
    rng = random.Random(f"{seed}/{identity}")
    shots = rng.sample(list(shown), len(shown))
    noted = "; ".join(f"{a.name} ({a.means})" for a in spec.attributes if a.shown)
    asked = prompt_text("write-filler", when=kind_of(spec), noted=noted)
    begun = "\n".join([*(f"{n}. {shot}" for n, shot in enumerate(shots, 1)), f"{len(shots) + 1}."])
    return ChatRequest(
        identity, model, [_user(asked), _assistant(begun)], LISTED * 12, _LIST_TEMPERATURE, extra=dict(_GO_ON)
    )


def note(spec: Spec, values: Mapping[str, str | None], surfaces: Mapping[str, str]) -> str:
    """What a message is to say, as a note: what stands in it letter for letter in quotes, a label with its meaning."""
    parts = []
    for attribute in spec.attributes:
        if attribute.name not in values:
            continue
        value = values[attribute.name]
        surface = f'"{surfaces[attribute.name]}"' if attribute.name in surfaces else ""
        if surface and not numbers(attribute):
            parts.append(f"{attribute.name}: {surface}")
        elif value is not None:
            meaning = attribute.values[value].means if value in attribute.values else ""
            told = ", ".join(filter(None, (meaning, surface)))
            parts.append(f"{attribute.name}: {value}" + (f" ({told})" if told else ""))
    return "; ".join(parts)


def written_message(answered: str) -> str:
    """The message that a writer went on with."""
    text = answered.strip()
    if len(text) > 2 and text[0] in '"“' and text[-1] in '"”':
        text = text[1:-1].strip()
    return re.sub(r"^\[[^\]]*\]\s*", "", text)


# Lists


def listed_lines(answered: str) -> list[str]:
    """The lines of a list, but for one that may be cut off."""
    lines = answered.split("\n")
    whole = lines[:-1] if len(lines) > 2 else lines
    return [text for line in whole if (text := _LIST_MARK.sub("", line).strip().strip('"').strip())]


def distinct(texts: Iterable[str]) -> list[str]:
    """Texts without those that were there before, in their order."""
    unique: dict[str, str] = {}
    for text in texts:
        unique.setdefault(normal(text, digits_count=True), text)
    return list(unique.values())


def _user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def _assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}
